"""An explainer that returns noise passes no limit on a decision, under any fill, on any network."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fxeval.datasets.lists.face_pack import FacePack
from fxeval.datasets.lists.lfw import LfwPairs
from fxeval.functional.fills import SHIPPED_FILLS
from fxeval.models.cards import read_card
from fxeval.models.from_card import load_card
from fxeval.results import Estimate
from fxeval.run.measure import measure_cell, plan_of
from fxeval.run.workshop import Subjects, Workshop
from fxeval.statistics.decisions import RANDOM_ORDERS
from fxeval.statistics.results import limit_of, results_of
from fxeval.statistics.verdict import judge
from fxeval.strict.yaml_file import parsed
from fxeval.suite.load import KnownIds, planned
from fxeval.suite.plan import cells
from fxeval.suite.preflight import shipped_card

SUITE = """\
fxeval: 1
suite: noise
models: [NETWORK]
explainers: [noise]
pairs: [{use: faces, n: PAIRS}]
checks:
  - id: noise
    kind: faithfulness.deletion_insertion
    steps: STEPS
    fills: [FILLS]
    controls: [random_blobs]
    limits:
      - {metric: deletion_fraction_to_nonmatch, at_most: 0.3}
      - {metric: deletion_fraction_to_nonmatch, better_than: control.random_blobs}
      - {metric: insertion_fraction_to_match, at_most: 0.3}
      - {metric: insertion_fraction_to_match, better_than: control.random_blobs}
"""


class Noise:
    """Independent values for every pixel, whatever it is asked about."""

    name = "noise"

    def __init__(self, seed):
        self.seed = seed

    def explain(self, model, probes, references, *, contrast=None, generator):
        own = np.random.default_rng([self.seed, int(generator.integers(2**32))])
        return torch.from_numpy(own.random(tuple(probes[:, 0].shape))).float()


def results(model, source, *, seeds, pairs, steps):
    """Yield the judged cell of one noise explainer after the other, on the same controls' rows."""
    text = SUITE.replace("NETWORK", model.name).replace("PAIRS", str(pairs))
    text = text.replace("STEPS", str(steps)).replace("FILLS", ", ".join(SHIPPED_FILLS))
    known = KnownIds(*(frozenset({one}) for one in (model.name, "noise", "faces")))
    path = Path("noise.yaml")
    [cell] = cells(planned(parsed(text.encode(), path), path, known))
    assert set(cell.parameters.controls) == set(RANDOM_ORDERS)
    alone = replace(cell, parameters=cell.parameters.model_copy(update={"controls": ()}))
    found = []
    workshop = Workshop(batch_size=16, emit=found.extend, progress=lambda *_: None)
    controls = {}
    for seed in range(seeds):
        found.clear()
        subjects = Subjects(model, Noise(seed), source)
        # The workshop keeps maps by fixture and parameters: every seed needs its own.
        use = replace(cell.explainer, params={"seed": seed})
        asked = replace(cell if seed == 0 else alone, explainer=use)
        facts = measure_cell(asked, subjects, workshop)
        assert facts.refusal is None, facts.refusal
        if seed == 0:
            controls = {row.row: [one for one in row.measured if one.map != "explainer"]
                        for row in found}  # fmt: skip
        rows = [
            row.model_copy(update={"measured": [
                *(one for one in row.measured if one.map == "explainer"), *controls[row.row],
            ]})
            for row in found
        ]  # fmt: skip
        # Not known to draw: the limits themselves must stop it, not its few seeds.
        facts = facts.model_copy(update={"repeatability": None})
        yield results_of(plan_of(cell), facts, rows)


def assert_passes_nothing(judged):
    assert len(judged.limits) == 4 * len(SHIPPED_FILLS)
    passed = [one.verdict.reason for one in judged.limits if one.verdict.outcome == "pass"]
    assert not passed
    assert judged.verdict.outcome in ("fail", "invalid")


def test_noise_passes_no_decision_on_the_bundled_network():
    card = shipped_card("mini_resnet")
    source = FacePack(card.parents[1] / "rendered_faces")
    [judged] = results(load_card(card), source, seeds=1, pairs=64, steps=4)
    assert_passes_nothing(judged)
    # By the intervals alone it would pass: a few black pixels anywhere are no face.
    [black] = [
        one
        for one in judged.limits
        if one.under == {"fill": "black"} and one.metric.startswith("del") and one.better_than
    ]
    alone = judge(limit_of(black), Estimate(**black.estimate.model_dump()))
    assert alone.outcome == "pass"
    assert black.verdict.outcome in {"inconclusive", "invalid"}
    assert ", which know nothing of the face, " in black.verdict.reason


@pytest.mark.slow
@pytest.mark.parametrize(
    "network", ["mini_resnet", "edgeface_xs", "mobilenetv2_se_ov0095", "mobilefacenet_ms1m"]
)
def test_noise_of_twenty_seeds_passes_no_decision(network, request, tmp_path):
    card = shipped_card(network)
    if network == "mini_resnet":
        model, source = load_card(card), FacePack(card.parents[1] / "rendered_faces")
    else:
        root = request.getfixturevalue("data_root")
        if read_card(card).format == "onnx":
            pytest.importorskip("onnxruntime")
        model = load_card(card, root / "weights")
        first = (root / "pairs" / "lfw_view2.txt").read_text("utf-8").splitlines()[1:601]
        (tmp_path / "fold.txt").write_text("\n".join(["300", *first]), "utf-8")
        source = LfwPairs(root, tmp_path / "fold.txt", Path("pairs/lfw_errata.txt"))
    outcomes, areas = Counter(), set()
    for judged in results(model, source, seeds=20, pairs=40, steps=5):
        assert_passes_nothing(judged)
        outcomes.update(one.verdict.outcome for one in judged.limits)
        areas.add(next(one.value for one in judged.estimates if one.metric == "deletion_auc"))
    assert len(areas) == 20  # no noise is another's
    assert sum(outcomes.values()) == 20 * 12
