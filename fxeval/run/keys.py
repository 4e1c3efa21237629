"""Names what decides a subject, so that equal subjects are loaded and measured once."""

import hashlib
import json

from fxeval.contracts import FaceModel, model_traits
from fxeval.suite.cells import Cell, Use


def fixture_key(cell: Cell, use: Use) -> tuple[str, str, str]:
    """Name what decides a subject: the suite file it is seen from, the fixture, the parameters.

    Never its ``repr``, which need not show all that makes it differ.
    """
    params = json.dumps(use.params, sort_keys=True) + str(use.folder or "")
    return cell.file, use.id, params


def model_key(cell: Cell, use: Use, model: FaceModel) -> str:
    """Name a model by its fixture, its weights and how it is fed and read.

    A cell's own model and a further one of another cell have the same key, so that what is computed
    with one is there for the other.
    """
    card = model_traits(model).card
    how = model.crop, model.similarity, model.operating_threshold, card.digest if card else ""
    return digest_of(*fixture_key(cell, use), model.digest, *how)


def digest_of(*parts: object) -> str:
    """Return the SHA-256, as hex, of some parts in words."""
    return hashlib.sha256("\x1f".join(map(str, parts)).encode()).hexdigest()
