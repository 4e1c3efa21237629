"""Rows of triplets whose probe has a twin: which person is it, and which pixels say so?

The nonmate is the mate with one part of another person, and the probe's twin is the probe with the
same part of the same person. So it is known to the pixel what tells the two faces apart in the
probe, and replacing these pixels by those of its twin must turn the decision from mate to nonmate.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from fxeval.contracts import Crop, Pairs, PairSource, TwinSource, traits_of
from fxeval.engine.made_images import with_made
from fxeval.engine.row_kinds import Table, triplets
from fxeval.engine.selection import Note, checked_images
from fxeval.errors import DataContractError
from fxeval.hooks.watch import modes_kept
from fxeval.metrics.protocol import OtherExplainer, Rows
from fxeval.metrics.rows import DISCRIMINATIVE, PAIRWISE


def twins_of(source: PairSource, pairs: Pairs, crop: Crop, note: Note) -> Tensor:
    """Return the twins of the probes of triplets, (N, 3, H, W) uint8 RGB.

    Args:
        source: Of the pairs.
        pairs: N triplets.
        crop: Of the images.
        note: Called with a sentence if the source left settings of the process changed.

    Raises:
        DataContractError: If the source has no twins, or returns anything else.
    """
    if not isinstance(source, TwinSource):
        text = (
            f"pairs '{source.name}': expected triplets whose probes have twins, got a list without "
            "them. Use rendered_twins, or a source with a method twins_of(probes, nonmates)."
        )
        raise DataContractError(text, public=text)
    nonmates = pairs.contrast
    if nonmates is None:
        text = f"pairs '{source.name}': expected triplets, got pairs without nonmates."
        raise DataContractError(text, public=text)
    probes, others = (
        [pairs.image_ids[image] for image in images.tolist()] for images in (pairs.probe, nonmates)
    )
    with modes_kept(note, f"pairs '{source.name}'"):
        ids: object = source.twins_of(probes, others)
    is_ids = isinstance(ids, Sequence) and not isinstance(ids, str)
    if not is_ids or len(ids) != len(probes) or not all(isinstance(one, str) for one in ids):  # type: ignore[arg-type, attr-defined]
        text = (
            f"pairs '{source.name}': twins_of(probes, nonmates): expected {len(probes)} ids of "
            "images, one for each probe, got something else."
        )
        raise DataContractError(text, public=text)
    return checked_images(source, list(ids), crop, note)  # type: ignore[call-overload]


def twins(pairs: Pairs, of_probes: Tensor) -> Table:
    """Return triplets, whose maps say what speaks for the mate rather than for the nonmate.

    Args:
        pairs: N triplets; the nonmate is a twin of the mate.
        of_probes: (N, 3, H, W) uint8 twins of the probes.

    Returns:
        The rows: their donors are the probes' twins, and ``altered`` is where these differ from the
        probes in this crop. Their version ``pairwise`` is explained without the nonmate.

    Raises:
        DataContractError: If the list names no nonmates.
    """
    plain = triplets(pairs).rows
    altered = (of_probes != pairs.images[pairs.probe]).any(dim=1)
    recipes = [f"twin {hashlib.sha256(one.numpy().tobytes()).hexdigest()}" for one in of_probes]
    faces, donor = with_made(pairs.faces(), pairs.probe, of_probes, altered, recipes)
    rows = replace(
        plain,
        kind="twins",
        side=DISCRIMINATIVE,
        donor=donor,
        altered=altered,
        is_discriminative=True,
    )
    pairwise = replace(rows, side=PAIRWISE, is_discriminative=False)
    return Table(faces, rows, {pairwise.side: pairwise})


def why_no_answer(by: OtherExplainer, rows: Rows) -> str:
    """Return why an explainer has no answer to what rows ask; "" if it has."""
    traits = traits_of(by.explainer)
    if rows.is_discriminative and not traits.takes_contrast:
        return (
            f"{by.name} takes no contrast: its maps cannot say what speaks for the mate rather "
            "than for the nonmate"
        )
    if rows.side == PAIRWISE and "contrast" in traits.needs:
        return f"{by.name} needs a contrast: it has no map of two images alone"
    return ""
