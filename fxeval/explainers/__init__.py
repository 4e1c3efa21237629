"""Explainers and controls."""
