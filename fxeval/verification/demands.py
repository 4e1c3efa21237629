"""The demands of a suite on a model before it is explained."""

from dataclasses import dataclass
from typing import Literal

from fxeval.statistics.limits import Limit


@dataclass(frozen=True)
class Verification:
    """The demands of a suite on its models before they are explained.

    Attributes:
        flip_fusion: Fuse an image's embedding with that of its mirror image.
        operating_threshold: ``vendor`` for the model's own, or the name of a measured one
            (``fxeval.verification.figures.THRESHOLDS``).
        limits: Limits on figures, of the forms ``at_least`` and ``at_most``.
        floor: ``checked``: a model that does not tell mated from nonmated pairs is invalid
            (``fxeval.verification.floor``); ``none``: it may be explained all the same.
        models: Names of the models to which it applies; None = all.
    """

    flip_fusion: bool = False
    operating_threshold: str = "vendor"
    limits: tuple[Limit, ...] = ()
    floor: Literal["checked", "none"] = "checked"
    models: tuple[str, ...] | None = None
