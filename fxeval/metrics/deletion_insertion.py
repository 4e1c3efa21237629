"""Similarity while the most salient pixels go (deletion) or come (insertion)."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from fxeval.contracts import Metric

Fill = Literal["blur", "mean", "black"]
Control = Literal["random_pixels", "random_blobs", "centre", "edge", "mean_map", "inverse"]


def _unique(values: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(values)) != len(values):
        raise ValueError("every entry at most once")
    return values


class Parameters(BaseModel):
    """Parameters of a deletion and insertion check.

    Attributes:
        steps: Number of equal steps from nothing to everything, K; the curve has K + 1 points.
        fills: How removed pixels are replaced; every fill gives its own values.
        side: Which image of the pair is perturbed; ``both`` is the mean of the two.
        controls: Maps whose right answer is known, measured on the same pairs.
        crossing_step: Resolution in pixels of the fraction at which the decision flips;
            None = the curve's own steps.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: Annotated[int, Field(ge=1, le=1000, strict=True)] = 50
    fills: Annotated[tuple[Fill, ...], Field(min_length=1), AfterValidator(_unique)] = ("blur",)
    side: Literal["probe", "reference", "both"] = "probe"
    controls: Annotated[tuple[Control, ...], AfterValidator(_unique)] = ()
    crossing_step: Annotated[int, Field(ge=1, strict=True)] | None = None


METRICS = (
    Metric(
        name="deletion_auc",
        title="Deletion area under the curve",
        unit="cosine similarity",
        better="lower",
        statistic="mean",
        source="Petsiuk et al. 2018 (RISE), sec. 4.2, on the cosine of a pair",
        meaning="Mean similarity to the other image while the most salient pixels are removed.",
    ),
    Metric(
        name="insertion_auc",
        title="Insertion area under the curve",
        unit="cosine similarity",
        better="higher",
        statistic="mean",
        source="Petsiuk et al. 2018 (RISE), sec. 4.2, on the cosine of a pair",
        meaning="Mean similarity to the other image while the most salient pixels are restored.",
    ),
    Metric(
        name="deletion_fraction_to_nonmatch",
        title="Fraction removed until the model says nonmatch",
        unit="fraction of pixels",
        better="lower",
        statistic="mean",
        source="Lu and Ebrahimi 2023 (S-RISE), sec. 3",
        meaning="How much of the image must go before the decision flips; 1 if it never does.",
    ),
    Metric(
        name="insertion_fraction_to_match",
        title="Fraction restored until the model says match",
        unit="fraction of pixels",
        better="lower",
        statistic="mean",
        source="Lu and Ebrahimi 2023 (S-RISE), sec. 3",
        meaning="How much of the image must come back before the model accepts the pair.",
    ),
)
