"""What a suite demands of a model before it is explained."""

from dataclasses import dataclass

from fxeval.statistics.limits import Limit


@dataclass(frozen=True)
class Verification:
    """What a suite asks of a model before it is explained.

    Attributes:
        flip_fusion: Fuse an image's embedding with that of its mirror image.
        operating_threshold: ``vendor``, the model's own, or the name of one that is measured
            (``fxeval.verification.figures.THRESHOLDS``).
        limits: Figures that must hold; of the forms ``at_least`` and ``at_most``.
        models: Names of the models it is about; None = all.
    """

    flip_fusion: bool = False
    operating_threshold: str = "vendor"
    limits: tuple[Limit, ...] = ()
    models: tuple[str, ...] | None = None
