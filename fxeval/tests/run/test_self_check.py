"""Metrics are measured on maps of known worth before they judge, and whole runs that do so."""

import json
from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner

from fxeval.cli import main
from fxeval.metrics import kinds
from fxeval.models.loading import TorchFaceModel
from fxeval.run.self_check import SelfChecks, parts_of, why_not
from fxeval.run.workshop import Subjects, Workshop
from fxeval.statistics.limits import AtMost, BetterThan
from fxeval.suite.cells import Cell, Use
from fxeval.tests.planted_ground import CONFTEST as PLANTED
from fxeval.tests.planted_ground import small_ground
from fxeval.tests.planted_people import pixels
from fxeval.tests.toy_world import SMALL, People, Twinned
from fxeval.tests.world import CONFTEST as WORLD
from fxeval.tests.world import the_record
from fxeval.verification.demands import Verification

DELETION = "faithfulness.deletion_insertion"


def cell(*limits, kind=DELETION, **parameters):
    return Cell(
        id="c[m-e-p]", suite="s", check="c", kind=kind, why="", model=Use("m"),
        explainer=Use("e"), pairs=Use("p"), n=40, parameters=kinds()[kind].Parameters(**parameters),
        limits=limits, seed=7, confidence=0.95, on_inconclusive="fail", on_unsupported="fail",
        device="cpu", where="s.yaml:1:1", self_check=True,
    )  # fmt: skip


@pytest.fixture
def checks():
    emitted = []
    workshop = Workshop(batch_size=64, emit=emitted.extend, progress=lambda *_: None)
    found = SelfChecks(lambda: workshop, small_ground)
    found.emitted = emitted
    return found


def fitness(found):
    return {(one.metric, one.under["fill"]): one.fitness for one in found}


DELETED, INSERTED = (
    BetterThan(name, better_than="control.random_blobs")
    for name in ("deletion_auc", "insertion_auc")
)


def test_a_white_fill_is_found_unfit_where_brightness_is_the_evidence_and_black_is_fit(checks):
    asked = cell(DELETED, fills=("black", "white"), steps=8)
    found = checks.checked(asked, None, None)
    assert fitness(found) == {
        ("deletion_auc", "black"): "fit", ("deletion_auc", "white"): "unfit",
    }  # fmt: skip
    black, white = found
    assert black.on == "pixels of planted people"
    assert (black.n_rows, black.n_identities) == (40, 40)
    values = [one.value for one in black.maps]
    assert values == sorted(values)
    assert white.maps[0].value > white.maps[2].value, "white pixels on dark ones speak for nobody"
    assert sum(one.forwards for one in found) > 0 < sum(one.seconds for one in found)


def test_only_the_fills_and_metrics_that_limits_rest_on_are_checked(checks):
    pinned = BetterThan("deletion_auc", better_than="control.random_blobs", under={"fill": "black"})
    told = BetterThan("insertion_auc", better_than="control.random_blobs", severity="info")
    found = checks.checked(cell(pinned, told, fills=("black", "white")), None, None)
    assert fitness(found) == {
        ("deletion_auc", "black"): "fit", ("insertion_auc", "black"): "fit",
    }  # fmt: skip


@pytest.mark.parametrize("severity", ["warning", "info"])
def test_a_cell_that_decides_nothing_costs_nothing(checks, severity):
    told = BetterThan("deletion_auc", better_than="control.random_blobs", severity=severity)
    assert checks.checked(cell(told), None, None) == []
    assert checks.emitted == []


def test_a_kind_without_known_maps_is_not_measured(checks):
    limit = AtMost("absolute_rank_correlation_fully_randomised", at_most=0.4)
    asked = cell(limit, kind="sanity.model_randomisation", modes=["full"])
    assert checks.checked(asked, None, None) == []
    assert checks.emitted == []


def test_cells_share_what_was_measured_once(checks):
    first = checks.checked(cell(DELETED, fills=("black",), steps=50), None, None)
    rows = len(checks.emitted)
    again = checks.checked(cell(DELETED, fills=("black", "white"), steps=24), None, None)
    assert len(checks.emitted) == 2 * rows == 80
    assert again[0] == first[0].model_copy(update={"forwards": 0, "seconds": 0.0})
    assert min(again[1].forwards, first[0].forwards) > 0, "who comes first bears the cost"
    assert {row.cell for row in checks.emitted} == {
        f"self_check:{DELETION}[m-black]", f"self_check:{DELETION}[m-white]",
    }  # fmt: skip


def test_another_seed_or_confidence_is_another_question(checks):
    asked = cell(DELETED, fills=("black",))
    one, other, wide = (
        checks.checked(replace(asked, **change), None, None)[0]
        for change in ({}, {"seed": 8}, {"confidence": 0.8})
    )
    assert one.maps != other.maps
    assert wide.maps[0].value == one.maps[0].value
    assert wide.maps[0].low > one.maps[0].low


def test_the_values_are_those_of_any_batch_size(checks):
    workshop = Workshop(batch_size=7, emit=lambda _: None, progress=lambda *_: None)
    small = SelfChecks(lambda: workshop, small_ground)
    asked = cell(DELETED, INSERTED, fills=("black",))
    found, other = (one.checked(asked, None, None) for one in (checks, small))
    costless = {"seconds": 0.0, "forwards": 0}
    assert [one.model_copy(update=costless) for one in found] == [
        one.model_copy(update=costless) for one in other
    ]


def test_a_metric_without_a_value_on_the_planted_network_is_not_checked(checks):
    limit = AtMost("reverse_hiding_similarity_auc", at_most=0.5)  # played where it is asked for
    (found,) = checks.checked(cell(limit, kind="faithfulness.hiding_game"), None, None)
    assert (found.metric, found.fitness, found.maps) == (limit.metric, "not_checked", [])
    assert found.reason == "no row has a value of it"


def test_an_axis_of_networks_is_left_out(checks):
    limit = BetterThan(
        "occlusion_cosine_drop", better_than="control.random_blobs", under={"evaluator": "vgg"}
    )
    asked = cell(limit, kind="faithfulness.guided_occlusion", fractions=(0.05,), fills=("black",))
    (found,) = checks.checked(asked, None, None)
    assert (found.metric, found.n_rows) == ("occlusion_cosine_drop", 40)
    assert found.under == {"fill": "black", "fraction": 0.05}


@pytest.mark.parametrize("kind", ["generalisability.occlusion", "transfer.cross_model"])
def test_maps_of_other_images_are_of_no_known_worth(checks, kind):
    limit = BetterThan("occlusion_cosine_drop", better_than="control.random_blobs")
    assert checks.checked(cell(limit, kind=kind), None, None) == []
    assert "other images of the person" in why_not(kind)


def test_steps_are_fewer_and_never_more_than_those_of_the_cell():
    most = kinds()[DELETION].SELF_CHECK_WITH["steps"]
    for asked, expected in ((50, most), (2, 2)):
        (found,) = parts_of(cell(DELETED, steps=asked, controls=("centre",)), [DELETED])
        assert (found.steps, found.controls, found.crossing_step) == (expected, (), None)


def test_decisions_are_measured_in_the_steps_of_the_cell_and_left_out_where_nothing_rests_on_them():
    told = AtMost("deletion_fraction_to_nonmatch", at_most=0.5, severity="info")
    decisive = AtMost("deletion_fraction_to_nonmatch", at_most=0.5)
    (coarse,) = parts_of(cell(DELETED, told, steps=50, crossing_step=16), [DELETED])
    (fine,) = parts_of(cell(decisive, steps=50, crossing_step=16), [decisive])
    assert (coarse.steps, coarse.crossing_step) == (8, None)
    assert (fine.steps, fine.crossing_step) == (50, 16)


def test_a_decision_for_information_has_no_entry(checks):
    told = AtMost("deletion_fraction_to_nonmatch", at_most=0.5, severity="info")
    decisive = replace(told, severity="critical")
    for limits, names in (
        ((DELETED, told), ["deletion_auc"]),
        ((DELETED, decisive), ["deletion_auc", "deletion_fraction_to_nonmatch"]),
    ):
        found = checks.checked(cell(*limits, fills=("black",), steps=16), None, None)
        assert [one.metric for one in found] == names


def test_what_no_metric_can_be_measured_on_checks_nothing(checks):
    asked = cell(DELETED, steps=2, fills=("black",))
    broken = small_ground()
    broken.explainers["oracle"] = object()
    workshop = Workshop(batch_size=64, emit=lambda _: None, progress=lambda *_: None)
    (found,) = SelfChecks(lambda: workshop, lambda: broken).checked(asked, None, None)
    assert (found.fitness, found.metric) == ("not_checked", "deletion_auc")
    assert "explain" in found.reason


# --- twins

ON_TWINS = BetterThan("top_precision", better_than="control.random_blobs",
                      under={"question": "discriminative"})  # fmt: skip


def on_twins(checks, model, n=40, kind="truth.localisation", limit=ON_TWINS):
    emitted = []
    workshop = Workshop(batch_size=64, emit=emitted.extend, progress=lambda *_: None)
    asked = replace(cell(limit, kind=kind), n=n, verification=Verification(floor="none"))
    subjects = Subjects(model, object(), Twinned(People(n)))
    return checks.checked(asked, subjects, workshop), emitted


def test_metrics_on_twins_are_checked_on_the_model_that_is_judged(checks):
    limit = replace(ON_TWINS, metric="flip_area")
    (found,), emitted = on_twins(checks, pixels(threshold=None), kind="truth.flip", limit=limit)
    assert (found.question, found.on) == ("margin", "m, the twins of p")
    assert (found.metric, found.under) == ("flip_area", {"question": "discriminative"})
    assert found.fitness == "fit", found.reason
    assert (found.n_identities, len(emitted)) == (40, 40)
    assert checks.emitted == [], "the planted network has no part in it"


def test_a_metric_that_saturates_is_unfit(checks):
    """The part is more than a third of these images: all the top of a blurred oracle lies in it."""
    (found,), _ = on_twins(checks, pixels(threshold=None))
    assert [step.holds for step in found.steps] == [False, True, True]
    assert "top_precision (question discriminative) does not put oracle before" in found.reason


def test_a_model_that_confuses_twins_checks_nothing(checks):
    class Corner(torch.nn.Module):
        def forward(self, images):
            half = images.shape[-1] // 2
            return images[:, :, :half, half:].flatten(1)  # where no twin differs

    model = TorchFaceModel("corner", SMALL, Corner().eval(), "cosine", None, "d" * 64)
    (found,), _ = on_twins(checks, model)
    assert found.fitness == "not_checked"
    assert found.reason == "the model decides 0% of the twins rightly; expected at least 90%"


# --- whole runs

FILL = "    fills: [mean]\n"


def suite(fill, *, self_check="true", explainers="occlusion", severity="critical"):
    """A suite whose limit on deletion rests on one fill."""

    def edited(text):
        head, _, checks = text.partition("checks:\n")
        deletion = checks[checks.index("  - id: deletion-insertion") :]
        deletion = deletion.replace(FILL, f"    fills: [{fill}]\n")
        for line in [one for one in deletion.splitlines(keepends=True) if "insertion_auc" in one]:
            deletion = deletion.replace(line, "")
        one = "{metric: deletion_auc, better_than: control.random_blobs"
        deletion = deletion.replace(one, f"{one}, severity: {severity}")
        return f"{head}self_check: {self_check}\nchecks:\n{deletion}".replace(
            "explainers: [occlusion]", f"explainers: [{explainers}]"
        )

    return edited


@pytest.fixture
def checked_world(world):
    world.path.joinpath("conftest.py").write_text(WORLD + PLANTED)
    return world


def test_a_limit_on_an_unfit_metric_makes_its_cell_invalid_with_the_reason(checked_world):
    result = checked_world(edit=suite("white"))
    record = the_record(checked_world)
    (found,) = record["cells"]
    assert found["verdict"]["outcome"] == "invalid"
    expected = "unfit here: deletion_auc (white) does not put oracle before blurred oracle"
    assert expected in found["verdict"]["reason"]
    assert [one["verdict"]["outcome"] for one in found["limits"]] == ["invalid"]
    assert found["limits"][0]["estimate"]["n_pairs"] == 32, "it is shown all the same"
    assert [one["fitness"] for one in record["self_checks"]] == ["unfit"]
    assert found["unfit"][0]["under"] == {"fill": "white"}
    result.assert_outcomes(failed=1)


def test_the_same_limit_is_judged_where_the_suite_does_not_ask(checked_world):
    checked_world(edit=suite("white", self_check="false"))
    record = the_record(checked_world)
    (found,) = record["cells"]
    assert found["verdict"]["outcome"] in ("pass", "fail", "inconclusive")
    assert (record["self_checks"], found["unfit"]) == ([], [])


def test_a_limit_on_a_metric_that_is_fit_is_judged_as_without_the_check(checked_world):
    checked_world(edit=suite("black"))
    record = the_record(checked_world)
    (found,) = record["cells"]
    checked_world(edit=suite("black", self_check="false"))
    (other,) = newest_record(checked_world)["cells"]
    assert found["verdict"] == other["verdict"]
    assert found["limits"] == other["limits"]
    assert [one["fitness"] for one in record["self_checks"]] == ["fit"]


def test_what_is_for_information_is_shown_with_a_note(checked_world):
    edited = suite("black, white")
    pinned = "control.random_blobs, severity: critical, under: {fill: black}}\n"
    told = "      - {metric: deletion_auc, better_than: control.random_blobs, severity: warning, "
    told += "under: {fill: white}}\n"

    def both(text):
        return edited(text).replace("control.random_blobs, severity: critical}\n", pinned + told)

    checked_world(edit=both)
    (found,) = newest_record(checked_world)["cells"]
    assert "invalid" not in {one["verdict"]["outcome"] for one in found["limits"]}
    assert {one["under"]["fill"] for one in found["limits"]} == {"black", "white"}
    assert found["verdict"]["outcome"] != "invalid"


def test_every_worker_finds_the_same_and_the_record_has_it_once(checked_world, checks):
    checked_world("-n", "2", edit=suite("black", explainers="occlusion, centre"))
    record = the_record(checked_world)
    assert len(record["cells"]) == 2
    (found,) = record["self_checks"]
    assert (found["metric"], found["fitness"], found["n_identities"]) == ("deletion_auc", "fit", 40)
    (here,) = checks.checked(cell(DELETED, fills=("black",), steps=8), None, None)
    assert found["maps"] == [one.model_dump() for one in here.maps]


def test_a_report_keeps_what_was_found(checked_world):
    checked_world(edit=suite("white"))
    (path,) = checked_world.path.glob("reports/*/small.json")
    before = path.read_bytes()
    result = CliRunner().invoke(main, ["report", str(path.parent)])
    assert result.exit_code == 0, result.output
    assert json.loads(path.read_bytes()) == json.loads(before)


def newest_record(world):
    path = max(world.path.glob("reports/*/small.json"), key=lambda one: one.stat().st_mtime_ns)
    return json.loads(path.read_text())
