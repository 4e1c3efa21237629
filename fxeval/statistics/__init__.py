"""From rows to estimates and verdicts: pure functions of numbers, without torch."""
