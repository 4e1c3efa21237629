"""Protocols that are no checks of fxeval: they show what the contract carries."""
