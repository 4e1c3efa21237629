"""The base of all forms of a record, and the types that they share."""

import math
from typing import Annotated, Any, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo

from fxeval.results import Outcome


def _finite(value: Any, info: ValidationInfo) -> Any:  # noqa: ANN401  (pydantic judges it)
    """Replace NaN and infinity by None when a record is made; a file must not hold them."""
    is_read = info.mode == "json"
    return None if isinstance(value, float) and not (is_read or math.isfinite(value)) else value


Number: TypeAlias = Annotated[float | None, BeforeValidator(_finite)]
"""A number; null where it is NaN or infinite."""

Under: TypeAlias = dict[str, str | float]
"""A condition, axis by axis."""

Count: TypeAlias = Annotated[int, Field(ge=0)]


class Form(BaseModel):
    """A part of the format: no other keys, no other types, no NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class VerdictEntry(Form):
    """An outcome and the sentence that justifies it."""

    outcome: Outcome
    reason: str
