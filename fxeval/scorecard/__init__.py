"""The HTML scorecard."""
