"""The same protocol as of classes, asked of triplets."""

from fxeval.tests.protocols.retention import METRICS, Parameters, measure

__all__ = ["METRICS", "ROWS", "Parameters", "measure"]

ROWS = "triplets"
