"""The catalogue of metrics: every kind of check in one visible list, one module per protocol.

A protocol whose values come under conditions says so with ``CONDITIONS``: for each axis, the
parameter that lists its values. A limit may name these (``under``).
"""

from collections.abc import Mapping
from types import MappingProxyType, ModuleType

from fxeval.metrics import deletion_insertion, model_randomisation

CATALOGUE: Mapping[str, ModuleType] = MappingProxyType(
    {
        "sanity.model_randomisation": model_randomisation,
        "faithfulness.deletion_insertion": deletion_insertion,
    }
)
