"""Strict reading of what users write: YAML with places, forms, parameters, names, a sandbox."""
