"""The checks of known truth on the bundled twins, network and faces: the part itself, and maps that
know nothing of it."""

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property

import pytest
import torch
from torch import Tensor

import fxeval
from fxeval.contracts import ExplainerTraits
from fxeval.datasets.faces.alignment import ARCFACE_112
from fxeval.functional.controls import centre, edge
from fxeval.run.evaluation import shipped

pytestmark = pytest.mark.slow
GATES = {"truth.localisation": "top_precision", "truth.flip": "flip_share"}
RIVALS = ("random_blobs", "centre", "mean_map")


@dataclass(frozen=True)
class Known:
    """Maps that know the list: which pixels differ between a probe and its twin."""

    traits = ExplainerTraits(takes_contrast=True)
    which: str = "part"

    @cached_property
    def changes(self) -> dict[str, Tensor]:
        source = replace(shipped("pairs", "rendered_twins"), kind="redrawn")
        triplets = source.twins()
        probes, twins, nonmates = (
            source.images([getattr(one, name) for one in triplets], ARCFACE_112)
            for name in ("probe", "probe_twin", "mate_twin")
        )
        each = zip(probes, twins, nonmates, strict=True)
        return {
            _digest(probe, nonmate): (probe.float() - twin.float()).abs().sum(0)
            for probe, twin, nonmate in each
        }

    def explain(self, model, probes, references, *, contrast=None, generator):
        if self.which == "centre":
            return centre(len(probes), (112, 112)) + 1e-5 * probes.mean(1)
        if self.which == "edge":
            return edge(probes)
        if self.which == "noise":
            return (probes * 1e4).sum(1).sin()
        if contrast is None:
            return probes.mean(1)
        pairs = zip(_grey_levels(probes), _grey_levels(contrast), strict=True)
        maps = torch.stack([self.changes[_digest(*pair)] for pair in pairs])
        return maps if self.which == "part" else -maps


def _grey_levels(images):
    return (images * 255).round().to(torch.uint8)


def _digest(probe, nonmate):
    return hashlib.sha256(probe.numpy().tobytes() + nonmate.numpy().tobytes()).hexdigest()


@pytest.mark.parametrize(
    ("which", "outcomes"),
    [
        ("part", ("pass", "pass")),
        ("centre", ("inconclusive", "inconclusive")),  # it is the control that it has to beat
        ("noise", ("fail", "inconclusive")),
        ("edge", ("fail", "fail")),
        ("inverse", ("fail", "fail")),
    ],
)
def test_only_the_part_passes(which, outcomes):
    twins = {"use": "rendered_twins", "params": {"kind": "redrawn"}}
    values = []
    for (check, gate), outcome in zip(GATES.items(), outcomes, strict=True):
        limits = [{"metric": gate, "better_than": f"control.{rival}"} for rival in RIVALS]
        record = fxeval.evaluate("mini_vit", Known(which), twins, check=check, n=100, limits=limits)
        assert record.verdict.outcome.value == outcome, record.verdict.reason
        values += [
            one.value
            for one in record.cells[0].estimates
            if (one.metric, one.map) == (gate, "explainer")
            and one.under["question"] == "discriminative"
        ]
    if which == "part":
        assert values == pytest.approx([0.953, 0.896], abs=0.005)
    else:
        assert max(values) < 0.2
