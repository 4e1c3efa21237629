"""Does the map change when the weights do? (Adebayo et al. 2018, full randomisation)"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from fxeval.contracts import Metric


class Parameters(BaseModel):
    """Parameters of a model-randomisation check.

    Attributes:
        mode: ``full``: every layer is re-drawn at once.
        redraws: Number of differently seeded networks; a pair's value is the mean over them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    mode: Literal["full"] = "full"
    redraws: Annotated[int, Field(ge=1, le=20)] = 1


_SOURCE = "Adebayo et al. 2018, Sanity Checks for Saliency Maps, sec. 3-4"

METRICS = (
    Metric(
        name="rank_correlation_fully_randomised",
        title="Rank correlation with the map of a re-drawn network",
        unit="Spearman correlation",
        better="lower",
        statistic="median",
        source=_SOURCE,
        meaning="Near 0 when the map depends on the weights; near 1 when any network would do.",
    ),
    Metric(
        name="absolute_rank_correlation_fully_randomised",
        title="Rank correlation with the map of a re-drawn network, sign dropped",
        unit="absolute Spearman correlation",
        better="lower",
        statistic="median",
        source=_SOURCE,
        meaning="As before, but an inverted copy of the map counts as unchanged too.",
    ),
)
