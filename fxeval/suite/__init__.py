"""From a suite file to cells: format, rules, plan, and the checks before anything is loaded."""
