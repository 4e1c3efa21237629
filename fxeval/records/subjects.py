"""The subjects in a record: models, explainers, pairs, how models verify, the environment."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, JsonValue

from fxeval.records.form import Count, Form, Number, VerdictEntry
from fxeval.results import Better
from fxeval.traits import Family, TrainingData


class Environment(Form):
    """The versions, device and commit that a result depends on besides the suite.

    Attributes:
        capability: Kernels that torch uses on the processor, such as ``AVX2``; null in older
            records.
    """

    fxeval: str
    python: str
    torch: str | None
    numpy: str | None
    opencv: str | None
    pytest: str | None
    platform: str
    device: str
    threads: int
    precision: str
    batch_size: int
    gpu: str | None = None
    cuda: str | None = None
    cudnn: int | None = None
    commit: str | None
    dirty: bool | None
    capability: str | None = None


class Preprocessing(Form):
    """How the input of a model is normalised."""

    colour: str
    mean: list[float] | float
    std: list[float] | float


class Golden(Form):
    """The result of comparing a model with its vendor's embeddings."""

    state: Literal["agrees", "not_checked", "none"]
    n_images: Count
    largest: Number
    at_most: Number


class ModelCardEntry(Form):
    """The origin of a model."""

    digest: str | None
    code: str | None
    preprocessing: Preprocessing | None
    licence: str
    source: str
    trained_on: str
    threshold_set_by: str
    runtime: str
    golden: Golden | None


class TagsEntry(Form):
    """Words by which models are grouped; null where they are not stated."""

    training_data: TrainingData | None = None
    family: Family | None = None


class ModelEntry(Form):
    """A face model that was measured."""

    name: str
    digest: str
    crop: str
    size: list[int]
    similarity: Literal["cosine", "neg_l2"]
    operating_threshold: Number
    parameters: int | None
    card: ModelCardEntry | None = None
    tags: TagsEntry = TagsEntry()


class ExplainerEntry(Form):
    """An explainer that was measured."""

    class_: Annotated[str, Field(alias="class")]
    params: dict[str, JsonValue] = {}
    digest: str | None = None
    needs: list[str] = []
    source: str | None = None

    model_config = ConfigDict(populate_by_name=True)


class DataEntry(Form):
    """Facts about a data set as a whole."""

    root_digest: str | None
    n_images: Count
    licence: str | None
    may_show: bool
    failures: dict[str, Count]


class PairsEntry(Form):
    """A pair list that was measured."""

    name: str
    n_pairs: Count
    n_identities: Count
    banner: str | None
    excluded: dict[str, Count]
    set_aside: dict[str, Count] = {}
    digest: str | None = None
    card: DataEntry | None = None


class Subjects(Form):
    """All subjects by their names in the suite."""

    models: dict[str, ModelEntry]
    explainers: dict[str, ExplainerEntry]
    pairs: dict[str, PairsEntry]


class Interval(Form):
    """A figure with its interval; null where there is none."""

    value: Number
    low: Number
    high: Number


class Figure(Interval):
    """A figure of verification."""

    metric: str
    title: str
    better: Better
    reason: str
    std: Number


class Threshold(Interval):
    """A measured threshold: its similarity, and the errors at it."""

    name: str
    fmr: Interval
    fnmr: Interval


class OperatingThreshold(Interval):
    """The threshold that the cells use.

    Attributes:
        fault: Why it decides nothing, so that metrics of decisions have no value; empty = it does.
    """

    rule: str
    set_by: str
    fault: str = ""


class FloorResult(Interval):
    """The area under the ROC curve with which a model tells mated from nonmated pairs, judged."""

    at_least: float
    verdict: VerdictEntry


class ClaimResult(Form):
    """A claim of a model's card, judged: pass = shown, invalid = refuted, inconclusive = neither.

    Attributes:
        of: null in older records, where pass says only that the claim was not refuted.
    """

    pairs: str
    metric: str
    value: float
    within: float
    of: Literal["list", "population"] | None = None
    list_digest: str | None = None
    protocol: str = ""
    text: str
    verdict: VerdictEntry


ELSEWHERE = "not checked: it is about "
"""How the reason of a claim about another pair list begins; the name of that list follows."""


def is_elsewhere(claim: Mapping[str, Any]) -> bool:
    """Return whether a claim, as in a record, is about another list by its name and its digest."""
    return str(claim["verdict"]["reason"]).startswith(ELSEWHERE)


class DemandResult(Form):
    """A demand of the suite on a model, judged."""

    metric: str
    at_most: float | None = None
    at_least: float | None = None
    where: str
    text: str
    verdict: VerdictEntry


class VerificationEntry(Form):
    """How well a model verifies a pair list, and what follows from that.

    Attributes:
        list_digest: By the content of the list; see ``fxeval.verification.list_digest``.
        n_crossed: Number of comparisons of images of different identities.
        crossed_thresholds: Operating thresholds at false match rates of these comparisons.
        floor: null in older records.
    """

    model: str
    pairs: str
    pair_list: str
    list_digest: str | None = None
    similarity: Literal["cosine", "neg_l2"]
    measured: bool
    reason: str
    flip_fusion: bool
    protocol: str
    n_mated: Count
    n_nonmated: Count
    n_identities: Count
    n_images: Count
    n_crossed: Count = 0
    figures: list[Figure]
    thresholds: list[Threshold]
    crossed_thresholds: list[Threshold] = []
    operating_threshold: OperatingThreshold
    floor: FloorResult | None = None
    claims: list[ClaimResult]
    limits: list[DemandResult]
    objections: list[str]
    forwards: Count
    seconds: float
