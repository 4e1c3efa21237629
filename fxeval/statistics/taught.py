"""Judges whether networks that a check trained learnt enough, from their part of the record."""

from collections.abc import Sequence

from fxeval.records.schema import Taught
from fxeval.results import Outcome, Verdict

LEAST_ACCURACY = 0.99
"""Share of the training images whose label a network must know."""

LEAST_IDENTITIES = 20
"""People of whom a network must have learnt the faces."""


def teaching_notes(networks: Sequence[Taught]) -> list[str]:
    """Return what the networks are, and a sentence about each."""
    if not networks:
        return []
    about = (
        "the question is about the explainer: the maps are those of two small networks of "
        "fxeval's own, which learnt the images of this list in the crop of the model; the model "
        "itself has no part in these values"
    )
    return [about] + [
        f"{one.name}: {one.accuracy:.1%} of {one.n_images} images of {one.n_identities} people "
        f"known by heart after {one.epochs} of at most {one.budget} epochs, "
        f"{one.unchanged:.1%} of the images with their own label"
        for one in networks
    ]


def teaching_objection(networks: Sequence[Taught]) -> Verdict | None:
    """Return why the trained networks say nothing about the explainer; None if they do."""
    for one in networks:
        if one.n_identities < LEAST_IDENTITIES:
            return Verdict(
                Outcome.INCONCLUSIVE,
                f"{one.name}: it learnt the faces of {one.n_identities} people (at least "
                f"{LEAST_IDENTITIES} needed)",
            )
        if one.accuracy < LEAST_ACCURACY:
            return Verdict(
                Outcome.INCONCLUSIVE,
                f"{one.name}: it knows {one.accuracy:.1%} of its labels after {one.epochs} epochs "
                f"(at least {LEAST_ACCURACY:.0%} needed); give the check more 'epochs'",
            )
    return None
