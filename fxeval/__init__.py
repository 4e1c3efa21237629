"""fxeval: evaluation harness for explanations of face-recognition models."""

__version__ = "0.1.0"
