"""How well a model verifies, and whether the claims of its card hold."""
