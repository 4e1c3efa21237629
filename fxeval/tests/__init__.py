"""Tests of fxeval; run them with ``pytest --pyargs fxeval``."""
