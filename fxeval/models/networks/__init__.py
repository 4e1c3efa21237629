"""The networks that a model card may name, one module per family."""
