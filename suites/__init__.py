"""Shipped suites."""
