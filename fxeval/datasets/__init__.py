"""Readers of faces and pair lists, and their alignment."""
