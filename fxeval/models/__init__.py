"""Face-recognition networks."""
