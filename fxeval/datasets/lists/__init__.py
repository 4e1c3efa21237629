"""Pair lists, one module per format."""
