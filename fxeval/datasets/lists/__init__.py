"""Pair lists: one module a format."""
