"""Strict reading of what people write: YAML with places, forms, parameters, names."""
