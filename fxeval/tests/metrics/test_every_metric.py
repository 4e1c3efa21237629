"""Properties of every metric in the catalogue."""

import math
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np
import pytest
import torch

from fxeval.metrics import CATALOGUE, add_metrics
from fxeval.metrics.protocol import RowKind
from fxeval.results import Outcome, RowState, Statistic
from fxeval.run import measure as measuring
from fxeval.scorecard.curve_words import curve_words
from fxeval.statistics import looks
from fxeval.tests.protocols import KINDS as TOYS
from fxeval.tests.toy_world import Occlusion, People, Ramp, Twinned, measured, model

KINDS = {**CATALOGUE, **TOYS}
# Small numbers, and everything that a kind can measure at once.
PARAMETERS = {
    "faithfulness.deletion_insertion": {
        "steps": 5, "fills": ("blur", "black"), "side": "both", "crossing_step": 9,
        "controls": ("random_pixels", "random_blobs", "centre", "edge", "mean_map", "inverse"),
    },
    "faithfulness.accuracy_curves": {
        "steps": 2, "fills": ("black",), "controls": ("random_pixels", "mean_map", "inverse"),
    },
    "sanity.two_sided": {"redraws": 2},
    "sanity.model_randomisation": {
        "redraws": 2, "steps": 2, "another_draw": True,
        "modes": ("full", "cascading_top_down"),
    },
    "sanity.data_randomisation": {"epochs": 2},
    "occluders.false_match": {
        "fractions": (0.1,), "repeats": 2,
        "controls": ("random_pixels", "random_blobs", "mean_map", "unoccluded"),
    },
    "occluders.patch_replacement": {
        "fractions": (0.2, 0.6),
        "controls": ("random_pixels", "edge", "inverse", "oracle", "unrestored", "unpatched"),
    },
    "search.layer_objective": {
        "layers": ("4", "8"), "objectives": ("cos", "triplet"), "repeats": 2,
        "controls": ("random_pixels", "edge", "mean_map", "unoccluded", "as_given"),
    },
    "transfer.cross_model": {
        "evaluators": ("b",), "fractions": (0.1,), "repeats": 2,
        "controls": ("random_blobs", "mean_map", "shuffled_identity"),
    },
    "classifier.deletion_retention": {
        "fractions": (0.2, 0.5), "repeats": 2, "relative": True,
        "controls": ("random_pixels", "random_rectangle", "mean_map", "inverse"),
    },
    "occluders.self_occlusion": {
        "occluders": ("mask",),
        "controls": ("random_pixels", "edge", "mean_map", "shuffled_identity"),
    },
    "patterns.similarity": {
        "fractions": (0.1, 1.0),
        "controls": ("random_pixels", "mean_map", "shuffled_identity", "image"),
    },
    # Shares that are not zero: those of a region that no map has do not vary.
    "patterns.regions": {"regions": ("brow", "nose", "mouth"), "fractions": (0.8, 1.0)},
    "faithfulness.hiding_game": {
        "steps": 5, "fills": ("blur", "black"), "hide_from_max": True,
        "controls": ("random_pixels", "random_blobs", "edge", "mean_map", "inverse"),
    },
    "faithfulness.reject_decisions": {
        "fractions": (0.2, 0.5), "fills": ("blur", "black"), "steps": 5, "map": "positive_inverted",
        "controls": ("random_pixels", "random_blobs", "mean_map", "inverse", "positive_map"),
    },
    "identification.deletion_insertion": {
        "steps": 5, "fills": ("blur", "black"), "crossing_step": 9, "gallery_images": 2,
        "unenrolled": 0.2, "controls": ("random_pixels", "edge", "mean_map", "inverse"),
    },
    "truth.localisation": {
        "controls": (
            "random_pixels", "random_blobs", "edge", "mean_map", "inverse", "shuffled_identity",
            "oracle", "blurred_oracle", "inverse_oracle",
        ),
    },
    "truth.flip": {
        "steps": 5, "controls": ("random_pixels", "random_blobs", "centre", "inverse", "oracle"),
    },
    "stability.repetition": {"draws": 2, "noisy": 2, "steps": 3},
    "toy.occlusion": {"evaluators": ("b",)},
    "toy.agreement": {"others": ("ramp",)},
}  # fmt: skip
N_ROWS = {
    "patched pairs": 40,
    "false matches": 30,
    "people": 10,
    "searches": 16,
}  # of other kinds 20
ASKS_THE_LIST = {"deletion_outside_share", "outside"}  # metrics and curves: of all clean images
ABOUT_SOME = {"patch_wrong_auc"}  # metrics that not all rows have
each = pytest.mark.parametrize("kind", KINDS)
# Time and memory are those of one run: no other has the same digits.
each_repeatable = pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if kind != "cost.resources"]
)
# Faults of a configuration are its own, not the cell's: its tests plant them one by one.
each_of_one_map = pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if not hasattr(KINDS[kind], "SELECTS")]
)


@dataclass(frozen=True)
class Adjustable(Occlusion):
    """Occlusion in cells as large as its layer says, for a kind that varies settings."""

    layer: str = "4"
    objective: str = "cos"

    def explain(self, model, probes, references, **more):
        side = 8 if self.layer == "8" else 4
        return Occlusion(side).explain(model, probes, references, **more)


@pytest.fixture(autouse=True)
def catalogue():
    add_metrics(TOYS)
    yield
    add_metrics({})


def measure(kind, **more):
    if KINDS[kind].ROWS == "false matches":  # of 30 people at least, some of whom are confused
        more["network"] = replace(model(), operating_threshold=0.994)
        more["source"] = replace(more.get("source") or Turned(), n=30, kept=60)
    if KINDS[kind].ROWS == "nonmated pairs":  # a threshold that people of this world do not reach
        more["network"] = replace(model(), operating_threshold=0.998)
    if KINDS[kind].ROWS == "twins":
        more["source"] = Twinned(more.get("source") or People())
    others = {
        "toy.occlusion": {"evaluators": {"b": model("b", large=True, seed=1)}},
        "transfer.cross_model": {"evaluators": {"b": model("b", large=True, seed=1)}},
        "toy.agreement": {"others": {"ramp": Ramp()}},
    }.get(kind)
    parameters = KINDS[kind].Parameters(**PARAMETERS.get(kind, {}))
    if hasattr(KINDS[kind], "SELECTS"):
        more.setdefault("explainer", Adjustable())
    result, rows = measured(kind, parameters, others=others, **more)
    return result, {row.row: row for row in rows}, rows


def n_rows(kind):
    return N_ROWS.get(KINDS[kind].ROWS, 20)


@each
def test_it_declares_what_it_measures(kind):
    protocol = KINDS[kind]
    assert protocol.ROWS in get_args(RowKind)
    names = [metric.name for metric in protocol.METRICS]
    assert len(set(names)) == len(names) > 0
    for metric in protocol.METRICS:
        low, high = metric.range
        assert low < high
        assert metric.better in {"lower", "higher"}
        assert metric.statistic in get_args(Statistic)
        assert all((metric.title, metric.unit, metric.source, metric.meaning))


@each
def test_every_row_has_every_metric_within_its_range(kind):
    result, rows, _ = measure(kind)
    ranges = {metric.name: metric.range for metric in KINDS[kind].METRICS}
    assert len(rows) == result.n_pairs == n_rows(kind)
    unlike = {True: ("_different", "_fmr"), False: ("_same", "_fnmr")}  # of two people, of one
    for row in rows.values():
        found = {metric for one in row.measured for metric in one.values}
        declared = {name for name in ranges if not name.endswith(unlike[row.is_mated])}
        assert declared - ABOUT_SOME <= found <= declared
        for one in row.measured:
            assert set(one.values) == set(one.states)
            for metric, value in one.values.items():
                low, high = ranges[metric]
                assert value is None or low - 1e-6 <= value <= high + 1e-6
        assert not any(name in row.row for name in ("-0-", ".jpg"))
    better = {metric.name: metric.better for metric in KINDS[kind].METRICS}
    for name in {name for row in rows.values() for one in row.measured for name in one.curves}:
        title, *_, said = curve_words(name)
        assert title
        if kind in CATALOGUE:  # of a plug-in's curves nothing is known
            assert said
        if kind in CATALOGUE and f"{name}_auc" in better:
            assert ("falls early" in said) == (better[f"{name}_auc"] == "lower")


@dataclass(frozen=True)
class Turned(People):
    """The same pairs in another order, and fewer of them if asked."""

    seed: int = 1
    kept: int = 20

    def listing(self):
        listing = super().listing()
        order = np.random.default_rng(self.seed).permutation(len(listing))[: self.kept]
        return listing.take(order.tolist())


def values_of(row):
    """Values that are of the row alone: what asks the other images of the list is not."""
    return [
        (one.map, one.under, *map(of_the_row, (one.values, one.states, one.curves)))
        for one in row.measured
    ]


def of_the_row(found):
    return {
        name: one
        for name, one in found.items()
        if name not in ASKS_THE_LIST and "hiding_rank1" not in name
    }


def without_numbering(row):
    """A row without the numbers that identities have in this list."""
    return row.model_copy(update={"identities": []})


@each_repeatable
@pytest.mark.parametrize("size", [1, 3, 7, 64])
def test_rows_do_not_depend_on_the_group_they_are_measured_in(kind, size, monkeypatch):
    _, expected, _ = measure(kind)
    monkeypatch.setattr(measuring, "ROWS_AT_ONCE", size)
    _, found, _ = measure(kind)
    assert found == expected  # to the last bit


@pytest.mark.parametrize(
    "kind",
    [one for one in KINDS if one != "cost.resources" and not hasattr(KINDS[one], "SELECTS")],
)
def test_rows_do_not_depend_on_the_look_at_which_their_cell_stops(kind, monkeypatch):
    monkeypatch.setattr(looks, "MIN_IDENTITIES", 2)
    _, expected, _ = measure(kind)
    whole, found, _ = measure(kind, looks=3)
    taken = whole.looks_taken
    assert taken.used == len(taken.rows) > 1
    assert found == expected  # to the last bit
    monkeypatch.setattr(measuring, "DECIDED", frozenset(Outcome))
    early, some, _ = measure(kind, looks=3)
    assert early.looks_taken.used == 1
    assert len(some) == taken.rows[0] < n_rows(kind)
    assert some == {name: expected[name] for name in some}


@each_repeatable
def test_rows_do_not_depend_on_the_order_of_the_list(kind):
    _, expected, _ = measure(kind)
    for seed in (1, 2):
        _, found, _ = measure(kind, source=Turned(seed=seed))
        assert {name: without_numbering(row) for name, row in found.items()} == {
            name: without_numbering(row) for name, row in expected.items()
        }


# Made of the other people's maps: of the plan, not of the group.
ASKS_OTHERS = {"control.mean_map", "control.shuffled_identity"}


@each_repeatable
def test_rows_do_not_depend_on_their_company(kind):
    made = {"identities", "classes", "map pairs", "searches"}
    if KINDS[kind].ROWS in made or "held-out" in KINDS[kind].ROWS:
        pytest.skip("its rows are made of all images of a person, and its classes of all people")
    if KINDS[kind].ROWS in {"patched pairs", "false matches", "compared pairs"}:
        pytest.skip("its rows are made of other people of the list")
    if kind == "sanity.data_randomisation":
        pytest.skip("its networks learn the images of the list")
    _, expected, _ = measure(kind)
    redrawn = kind == "sanity.model_randomisation"  # calibrated on the list: another network
    _, found, _ = measure(kind, source=Turned(kept=9))
    assert 0 < len(found) < len(expected)
    for name, row in found.items():
        if redrawn:
            assert row.thumbnail == expected[name].thumbnail
            continue
        ours, theirs = (
            [one for one in values_of(some) if one[0] not in ASKS_OTHERS]
            for some in (row, expected[name])
        )
        assert ours == theirs


class Broken(Occlusion):
    """Every third map is NaN, every fourth is constant, and one image makes it raise."""

    def explain(self, model, probes, references, **more):
        maps = super().explain(model, probes, references, **more)
        kind = (probes * 255).round().sum((1, 2, 3)).long() % 12
        if bool((kind == 1).any()):
            raise RuntimeError("out of ideas")
        maps[kind % 3 == 0] = torch.nan
        maps[kind % 4 == 2] = 0.5
        return maps


OF_THE_MODEL = {"occluder_similarity_drop", "occluder_tmr"}
# No value where the clean images decide, or where too few searches set a threshold.
OF_THE_START = {
    "hiding_acceptance_auc", "hiding_rank1_auc", "reverse_hiding_acceptance_auc",
    "reverse_hiding_rank1_auc", "tpir",
}  # fmt: skip


def parts(metric):
    return {metric, *metric.split("_"), "_".join(metric.split("_")[1:3])}


@each_of_one_map
def test_bad_maps_lose_no_row_and_are_never_a_pass(kind):
    result, rows, _ = measure(kind, explainer=Broken())
    assert len(rows) == n_rows(kind)
    states = {row.state for row in rows.values()}
    assert states >= {RowState.NAN_MAP}
    assert states & {RowState.EXPLAINER_RAISED, RowState.DEGENERATE_MAP}
    assert result.verdict.outcome == "fail"
    for row in rows.values():
        broken = row.state not in {RowState.OK, RowState.DEGENERATE_MAP}
        for one in row.measured:
            if one.map == "explainer":
                # An index and its denominator are of the evaluator's own map, too; some figures are
                # of the model alone; normalised ones are void where the fill changes nothing.
                other = {
                    "fraction_to",
                    "transfer",
                    "own",
                    "normalised",
                    *OF_THE_MODEL,
                    *OF_THE_START,
                }
                assert all((value is None) == broken for metric, value in one.values.items()
                           if not other & parts(metric))  # fmt: skip
            assert all(value is None or math.isfinite(value) for value in one.values.values())


@each_of_one_map
def test_constant_maps_everywhere_fail_and_say_so(kind):
    class Constant(Occlusion):
        def explain(self, model, probes, references, **more):
            return torch.full_like(probes[:, 0], 0.5)

    result, rows, _ = measure(kind, explainer=Constant())
    assert {row.state for row in rows.values()} == {RowState.DEGENERATE_MAP}
    forgives = any(one.constant_allowed is not None for one in KINDS[kind].METRICS)
    assert result.verdict.outcome == ("inconclusive" if forgives else "fail")
    n = n_rows(kind)
    assert f"{n} of {n} saliency maps are degenerate" in result.verdict.reason


@each_repeatable
def test_two_runs_are_equal_to_the_last_bit(kind):
    assert measure(kind)[2] == measure(kind)[2]


def test_the_parameters_of_these_tests_are_those_of_the_kinds():
    for kind, given in PARAMETERS.items():
        assert KINDS[kind].Parameters(**given)
    assert replace(People(), n=3).n == 3
