"""What a cell is measured from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fxeval.metrics.protocol import Evidence, OtherExplainer
from fxeval.records.schema import Explaining
from fxeval.run.cell_engine import CellEngine


@dataclass(frozen=True, eq=False)
class Prepared:
    """A cell that is ready to be measured.

    Attributes:
        evidence: Of all its rows; ``take`` gives a group's.
        objection: Why the model is not to be judged on these pairs, or None.
        explaining: What its maps cost, filled while it is measured.
        engine: Behind the evidence.
        compared: Further explainers that limits compare with; a reason in place of one that cannot
            explain this model.
        remarks: What is not known about the model on these pairs.
    """

    evidence: Evidence
    objection: str | None
    explaining: list[Explaining]
    engine: CellEngine
    compared: Mapping[str, OtherExplainer | str]
    remarks: Sequence[str] = ()
