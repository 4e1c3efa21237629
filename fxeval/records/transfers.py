"""The parts of a record about transfer: does a map from one network hold for another one too?"""

from typing import Self, TypeAlias

from pydantic import model_validator

from fxeval.records.form import Form, Number

Matrix: TypeAlias = list[list[Number]]
"""A line for each generator, in it a number for each evaluator; null where there is none."""


class TransferTable(Form):
    """One metric of a transfer matrix.

    Attributes:
        values: Estimates, ``[generator][evaluator]``.
        low: Lower ends of their intervals; null where there is none.
        high: Upper ends; likewise.
        row_means: Mean of each generator over the evaluators that have a value.
        row_means_without_self: Likewise, without the generator's own model.
        column_means: Mean of each evaluator over the generators that have a value.
        column_means_without_self: Likewise, without the evaluator's own maps.
        mean: Of all values.
        mean_with_self: Of the diagonal, where a model is occluded by its own maps.
        mean_without_self: Of the rest.
        agreement: Spearman's correlation between the values of two generators over the evaluators
            that both have, ``[generator][generator]``; null with fewer than three, and where one
            does not vary.
    """

    metric: str
    values: Matrix
    low: Matrix
    high: Matrix
    row_means: list[Number]
    row_means_without_self: list[Number]
    column_means: list[Number]
    column_means_without_self: list[Number]
    mean: Number
    mean_with_self: Number
    mean_without_self: Number
    agreement: Matrix


class TransferControl(Form):
    """What an order of pixels that is no generator's map does to each evaluator.

    Attributes:
        map: Its name, such as ``control.random_pixels``.
        tmr: Share of the mated pairs that each evaluator still accepts.
        cosine_drop: Fall of the similarity of mated pairs.
    """

    map: str
    tmr: list[Number]
    cosine_drop: list[Number]


class MixtureFit(Form):
    """Acceptance as a mixture: a share of a generator's pairs is untouched, the rest is not.

    The model is ``tmr[g][e] = untouched[g] * clean[e] + (1 - untouched[g]) * remaining[e]``. The
    values fix both only up to one number; it is chosen so that ``remaining`` is as near 0 as it can
    be, in the sum of squares.

    Attributes:
        untouched: Of each generator, the share of pairs that its maps do not change, 0 to 1.
        remaining: Of each evaluator, the acceptance of the other pairs; null if it is not known.
        rmse: Root of the mean squared residual.
        largest_error: Largest absolute residual.
        explained: Share of the variance of the values that the model explains.
        n_values: Number of values of the matrix that were fitted.
    """

    untouched: list[Number]
    remaining: list[Number]
    rmse: float
    largest_error: float
    explained: Number
    n_values: int


class TransferMatrix(Form):
    """What the maps of each generator do to each evaluator, of one explainer on one list.

    Attributes:
        check: Id of the check.
        explainer: Name of the explainer.
        pairs: Name of the list.
        fill: What replaces the occluded pixels.
        fraction: Share of the pixels that are occluded.
        generators: Models whose maps are used, in the order of the cells; a line of each matrix.
        evaluators: Models that are judged; a column of each matrix.
        clean: Of each evaluator, the share of mated pairs that it accepts with nothing occluded.
        tables: One for each metric: ``occlusion_tmr``, ``occlusion_cosine_drop``,
            ``transfer_index``, ``transfer_index_cosine``, ``occlusion_area``, as far as measured.
        controls: The same with orders that are no generator's map.
        mixture: Null if it can't be fitted; ``mixture_text`` says why.
        mixture_text: What the fit says, in words.
        warning: A sentence if the values look like an artefact of the masks' area; else empty.
        remarks: What is missing, and why.
    """

    check: str
    explainer: str
    pairs: str
    fill: str
    fraction: float
    generators: list[str]
    evaluators: list[str]
    clean: list[Number]
    tables: list[TransferTable]
    controls: list[TransferControl] = []
    mixture: MixtureFit | None = None
    mixture_text: str = ""
    warning: str = ""
    remarks: list[str] = []

    @model_validator(mode="after")
    def _has_one_shape(self) -> Self:
        shape = (len(self.generators), len(self.evaluators))
        for table in self.tables:
            for matrix in (table.values, table.low, table.high):
                if len(matrix) != shape[0] or any(len(line) != shape[1] for line in matrix):
                    raise ValueError(
                        f"transfers: {table.metric}: expected {shape[0]} lines of {shape[1]} "
                        "numbers"
                    )
        return self

    def table(self, metric: str) -> TransferTable | None:
        """Return the table of a metric; None if it was not measured."""
        return next((one for one in self.tables if one.metric == metric), None)
