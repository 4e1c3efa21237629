"""Two runs compared: what is said of each cell, and that chance alone rarely says worse."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fxeval.errors import EvidenceError, StoreError
from fxeval.records.explaining import Network, Repeatability
from fxeval.records.judged import Acknowledgement
from fxeval.records.looks import Looks
from fxeval.records.reading import load_record
from fxeval.records.schema import CellFacts
from fxeval.records.self_checks import Unfit
from fxeval.records.stored_run import StoredRun
from fxeval.results import Outcome
from fxeval.statistics.betting import BETTING
from fxeval.statistics.changes import Margins, compared
from fxeval.statistics.looks import confidence_at
from fxeval.tests.two_runs import BLACK, BLUR, EXAMPLE, FAR, cell, metric, refused, run, spread

B = spread(0.4)
NOISE = spread(0.0, by=0.01, seed=1)
MUTE = Network(name="re-drawn network 1", spread=0.0, redrawn_share=1.0)
EXAMPLE_RECORD = load_record(EXAMPLE)
WITHIN = Margins({"": {"absolute": 0.02}})


def steady(repeats=True, depends=False):
    return Repeatability(n_rows=4, repeats=repeats, depends_on_seed=depends, change=0.0)


def one(before, after, margins=WITHIN, **more):
    [found] = compared(run(before, **more), run(after, name="two", **more), margins)
    return found


def change(before, after, margins=WITHIN, **more):
    [found] = one(before, after, margins, **more).changes
    return found


# --- what becomes of one metric


def test_equal_rows_are_the_same_and_nothing_is_worse():
    found = one(cell(B), cell(B), Margins())
    assert (found.outcome, [it.outcome for it in found.changes]) == ("not_worse", ["same"])
    assert found.changes[0].reason == "m: all 60 rows that both runs have are equal"
    assert (found.only_before, found.only_after) == ([], [])


@pytest.mark.parametrize(
    ("by", "became", "outcome"),
    [(0.05, "better", "not_worse"), (0.0, "not_worse", "not_worse"), (-0.01, "not_worse",
     "not_worse"), (-0.02, "undecided", "undecided"), (-0.05, "worse", "worse")],
)  # fmt: skip
@pytest.mark.parametrize("better", ["higher", "lower"])
def test_the_interval_of_the_paired_improvement_decides(by, became, outcome, better):
    sign = 1 if better == "higher" else -1
    of = metric(better=better)
    found = one(cell(B, of=of), cell(B + sign * (by + NOISE), of=of))
    [it] = found.changes
    assert (it.outcome, found.outcome) == (became, outcome)
    assert it.improvement.value == pytest.approx(by, abs=1e-12)
    assert it.before.value == pytest.approx(0.4, abs=1e-12)
    assert it.after.value == pytest.approx(0.4 + sign * by, abs=1e-12)
    assert (it.n_rows, it.rows_before, it.rows_after) == (60, 60, 60)


def test_a_worse_cell_is_named_among_others():
    better, worse = cell(B + 0.1 + NOISE, explainer="x"), cell(B - 0.1 + NOISE, explainer="y")
    found = one_of = compared(
        run(cell(B, explainer="x"), cell(B, explainer="y")), run(better, worse), WITHIN
    )[0]
    assert found.outcome == "worse"
    assert found.reason.startswith("worse in c[m-y-p]; of 2 changes, ")
    assert [it.outcome for it in one_of.changes] == ["worse", "better"]


@pytest.mark.parametrize("change_", [0.0, 0.1])
def test_twenty_people_decide_nothing_even_if_every_row_is_equal(change_):
    few = spread(0.4, 20)
    found = one(cell(few), cell(few + change_))
    assert (found.outcome, found.changes[0].outcome) == ("undecided", "undecided")
    assert "20" in found.changes[0].reason


def test_this_list_can_be_judged_with_twenty_people():
    few = spread(0.4, 20)
    facts = CellFacts(repeatability=steady(True, False))
    margins = Margins({"": {"absolute": 0.02}}, over="list")
    for by, became in ((0.0, "same"), (0.01, "better"), (-0.01, "not_worse"), (-0.03, "worse")):
        found = change(cell(few, facts=facts), cell(few + by, facts=facts), margins)
        assert (found.outcome, found.over) == (became, "list")


def test_the_suite_says_what_a_change_is_about_unless_the_command_does():
    of_list = cell(B, {**FAR, "over": "list"})
    assert change(of_list, of_list, Margins()).over == "list"
    assert change(of_list, of_list, Margins(over="population")).over == "population"


def test_a_relative_margin_is_one_of_the_earlier_value():
    # 0.4 less 5 % of itself is within 8 %, and not within 3 %.
    after = cell(B * 0.95)
    for share, became in ((0.08, "not_worse"), (0.03, "worse")):
        found = change(cell(B), after, Margins({"": {"relative": share}}))
        assert found.outcome == became
        assert found.within == {"relative": share}
        assert found.improvement.value == pytest.approx(-0.02, abs=1e-12)


def test_a_margin_of_its_own_goes_before_that_of_all():
    of = [metric("a"), metric("b")]
    asked = [{**FAR, "metric": "a"}, {**FAR, "metric": "b"}]
    before = cell({"a": {BLUR: B}, "b": {BLUR: B}}, *asked, of=of)
    after = cell({"a": {BLUR: B - 0.05 + NOISE}, "b": {BLUR: B - 0.05 + NOISE}}, *asked, of=of)
    found = one(before, after, Margins({"a": {"absolute": 0.1}, "": {"absolute": 0.01}}))
    assert {it.metric: it.outcome for it in found.changes} == {"a": "not_worse", "b": "worse"}


def test_a_margin_of_a_metric_that_nothing_has_is_refused():
    with pytest.raises(EvidenceError, match=r"within x: expected a metric .* \(m\), got another"):
        one(cell(B), cell(B), Margins({"x": {"absolute": 0.1}}))


def test_each_condition_and_each_slice_is_compared():
    words = [{"sex": "ab"[place % 2]} for place in range(len(B) * 2)]
    long = spread(0.4, 120)
    asked = {**FAR, "slice": "sex"}
    worse = np.where(np.arange(120) % 2, -0.1, 0.0) + spread(0, 120, by=0.01, seed=3)
    found = one(cell(long, asked, slices=words), cell(long + worse, asked, slices=words))
    assert {it.under["sex"]: it.outcome for it in found.changes} == {"a": "not_worse", "b": "worse"}
    two = {BLUR: B, BLACK: B}
    found = one(cell(two), cell({BLUR: B, BLACK: B - 0.1 + NOISE}))
    assert {it.under["fill"]: it.outcome for it in found.changes} == {
        "blur": "same", "black": "worse",
    }  # fmt: skip


def test_the_worst_condition_and_the_mean_of_conditions_are_judged_as_the_suite_says():
    before, after = {BLUR: B, BLACK: B}, {BLUR: B + 0.03 + NOISE, BLACK: B - 0.03 + NOISE}
    for judge, became, under in (("worst", "worse", "black"), ("mean", "not_worse", None)):
        found = change(cell(before, {**FAR, "judge": judge}), cell(after, {**FAR, "judge": judge}))
        assert (found.outcome, found.under.get("fill")) == (became, under)
        assert found.before.value == pytest.approx(0.4, abs=1e-12)
    assert found.improvement.value == pytest.approx(0.0, abs=1e-12)
    # With a relative margin, the improvement is still the improvement.
    relative = Margins({"": {"relative": 0.05}})
    found = change(
        cell(before, {**FAR, "judge": "mean"}), cell(after, {**FAR, "judge": "mean"}), relative
    )
    assert found.improvement.value == pytest.approx(0.0, abs=1e-12)


def test_the_worst_of_several_seeds_decides():
    before = {(BLUR, seed): B + seed * 0.001 for seed in range(3)}
    after = {**before, (BLUR, 1): B - 0.05 + NOISE}
    facts = CellFacts(repeatability=steady(True, True))
    assert change(cell(before, facts=facts), cell(before, facts=facts)).outcome == "same"
    assert change(cell(before, facts=facts), cell(after, facts=facts)).outcome == "worse"


def test_metrics_for_information_are_shown_and_decide_nothing():
    for asked, of in (
        ({**FAR, "severity": "info"}, metric()),
        (FAR, metric(information_only="it depends on the machine")),
        ({**FAR, "severity": "warning"}, metric()),
    ):
        found = one(cell(B, asked, of=of), cell(B - 0.1 + NOISE, asked, of=of))
        [it] = found.changes
        assert (it.decides, it.outcome, found.outcome) == (False, "worse", "undecided")
        assert found.regressions is None


# --- limits of the suite that compare with an earlier run


@pytest.mark.parametrize("name", ["baseline", "base"])
def test_a_limit_of_the_suite_keeps_its_margin_and_decides_by_its_own_interval(name):
    asked = {"not_worse_than": name, "within": {"absolute": 0.04}}
    for by, became in ((-0.03, "not_worse"), (-0.05, "worse")):
        [found] = one(cell(B, FAR, asked), cell(B + by + NOISE, FAR, asked), Margins()).changes
        assert (found.outcome, found.within) == (became, {"absolute": 0.04})
        assert found.text == "m not worse than the earlier run within 0.04"


def test_a_limit_of_the_suite_on_one_condition_leaves_the_others_to_the_command():
    asked = {"not_worse_than": "baseline", "within": {"absolute": 0.5}, "under": {"fill": "blur"}}
    after = {BLUR: B - 0.1 + NOISE, BLACK: B - 0.1 + NOISE}
    found = one(cell({BLUR: B, BLACK: B}, FAR, asked), cell(after, FAR, asked)).changes
    assert {(it.under["fill"], it.within["absolute"], it.outcome) for it in found} == {
        ("blur", 0.5, "not_worse"), ("blur", 0.02, "worse"), ("black", 0.02, "worse"),
    }  # fmt: skip


def test_what_must_be_equivalent_is_worse_if_it_moves_either_way():
    asked = {"equivalent_to": "baseline", "within": {"absolute": 0.02}}
    for by, became in ((0.0, "not_worse"), (0.1, "worse"), (-0.1, "worse")):
        found = change(cell(B, asked), cell(B + by + NOISE, asked))
        assert found.outcome == became
    assert "must lie in [-0.02, 0.02]" in found.reason


def test_values_of_an_earlier_run_in_the_rows_have_no_part_in_it():
    beside = {("explainer", BLUR, 0): B, ("baseline", BLUR, 0): B - 0.3, ("base", BLUR, 0): B + 0.3}
    asked = {"not_worse_than": "baseline", "within": {"absolute": 0.02}}
    assert change(cell(beside, asked), cell(beside, asked)).outcome == "same"


# --- what cannot be compared


@pytest.mark.parametrize(
    ("of_before", "of_after", "said"),
    [
        (
            {"digest": "e" * 64},
            {},
            "the earlier run cannot answer: model m is another: digest was eeeeeeeeeeee",
        ),
        ({"seed": 4}, {}, "its suite has the seed 4, this one 0"),
        ({"suite": "b"}, {"suite": "a"}, "it is of the suite b, this is a"),
    ],
)
def test_another_question_is_not_compared_and_never_blamed(of_before, of_after, said):
    before, after = run(cell(B), **of_before), run(cell(B - 0.2 + NOISE), **of_after)
    found = compared(before, after, WITHIN)[0]
    [it] = found.changes
    assert (found.outcome, it.outcome, it.metric) == ("undecided", "not_compared", "")
    assert said in it.reason


def test_a_changed_model_is_not_blamed_on_a_refused_explainer():
    before, after = run(cell(B)), run(cell(B, facts=refused()), digest="e" * 64)
    [it] = compared(before, after)[0].changes
    assert (it.outcome, "model m is another" in it.reason) == ("not_compared", True)


def test_other_parameters_are_another_question():
    found = change(cell(B, parameters={"steps": 2}), cell(B, parameters={"steps": 3}))
    assert (found.outcome, "steps was 2, is 3" in found.reason) == ("not_compared", True)


def test_cells_of_one_run_alone_are_named_and_keep_it_undecided():
    x, y, z = (cell(B, explainer=name) for name in "xyz")
    [found] = compared(run(x, y), run(y, z), WITHIN)
    assert (found.only_before, found.only_after) == (["c[m-x-p]"], ["c[m-z-p]"])
    assert found.outcome == "undecided"
    [gone] = compared(run(x, y), run(y), WITHIN)
    assert (gone.outcome, gone.only_before) == ("undecided", ["c[m-x-p]"])
    assert "1 gone" in gone.reason


def test_a_check_under_another_name_is_the_same_cell():
    found = one(cell(B, check="old"), cell(B, check="new"))
    assert (found.changes[0].outcome, found.only_before, found.only_after) == ("same", [], [])


def test_a_suite_of_the_earlier_run_alone_is_undecided():
    both = run(cell(B))
    other = run(cell(B, explainer="x"), suite="other")
    before = StoredRun(both.folder, {**both.records, **other.records}, [*both.rows, *other.rows])
    same, gone = compared(before, both)
    assert (same.outcome, gone.outcome, gone.after) == ("not_worse", "undecided", None)
    assert gone.only_before == ["c[m-x-p]"]


def test_a_run_without_anything_to_compare_is_undecided():
    [found] = compared(run(), run())
    assert (found.outcome, found.changes) == ("undecided", [])


def test_a_metric_that_the_earlier_run_lacks_is_not_compared():
    of = [metric("m"), metric("new")]
    asked = [FAR, {**FAR, "metric": "new"}]
    after = cell({"m": {BLUR: B}, "new": {BLUR: B}}, *asked, of=of)
    found = one(cell(B), after)
    assert [(it.metric, it.outcome) for it in found.changes] == [
        ("new", "not_compared"), ("m", "same"),
    ]  # fmt: skip
    assert found.changes[0].reason == "new: the earlier run did not measure it"


# --- lists of another length


def test_lists_of_another_length_pair_by_row():
    long = spread(0.4)
    before, after = run(cell(long), pairs="p60"), run(cell(long[10:50], first=10), pairs="p40")
    [it] = compared(before, after)[0].changes
    assert (it.outcome, it.n_rows, it.rows_before, it.rows_after) == ("same", 40, 60, 40)
    [it] = compared(after, before)[0].changes
    assert (it.outcome, it.n_rows, it.rows_before, it.rows_after) == ("same", 40, 40, 60)
    assert it.before.value == pytest.approx(float(long[10:50].mean()))


def test_twenty_of_sixty_people_are_undecided():
    before, after = run(cell(B), pairs="p60"), run(cell(B[:20]), pairs="p20")
    [found] = compared(before, after)
    assert found.outcome == "undecided"
    assert "20 identities" in found.changes[0].reason


@pytest.mark.parametrize(
    ("kind", "needs"), [("classifier.deletion_retention", []), (None, ["gallery"])]
)
def test_where_other_people_have_a_part_in_a_row_other_lists_are_not_compared(kind, needs):
    more = {} if kind is None else {"kind": kind}
    before = run(cell(B, **more), pairs="p60", needs=needs)
    after = run(cell(B[:40], **more), pairs="p40", needs=needs)
    [it] = compared(before, after)[0].changes
    assert it.outcome == "not_compared"
    assert "pairs p have other images" in it.reason


def test_lists_without_a_common_row_are_not_compared():
    before, after = run(cell(B), pairs="a"), run(cell(B, first=900), pairs="b")
    [it] = compared(before, after)[0].changes
    assert (it.outcome, it.reason) == ("not_compared", "the runs have no row in common")


def test_values_that_are_lost_keep_it_undecided():
    holes = B.copy()
    holes[:3] = np.nan
    found = change(cell(B), cell(holes))
    assert (found.outcome, found.n_rows) == ("undecided", 57)
    assert "3 rows have a value in the earlier run alone" in found.reason
    found = change(cell(holes), cell(B))
    assert (found.outcome, found.n_rows) == ("not_worse", 57)
    assert found.before.value == found.after.value == pytest.approx(float(B[3:].mean()))


# --- maps that got worse


def broken(n, state="nan_map", size=60):
    return [state] * n + ["ok"] * (size - n)


def test_a_rise_of_more_than_one_percent_of_broken_maps_is_worse():
    big = spread(0.4, 200)
    for n, outcome in ((2, "not_worse"), (3, "worse")):
        found = one(cell(big), cell(big, states=broken(n, size=200)))
        assert found.outcome == outcome
    assert found.changes[0].metric == ""
    assert found.changes[0].reason == (
        "3 of 200 rows of explainer e have no usable map (nan_map 3); 0 had none before"
    )
    # As many as before are nobody's fault of today.
    assert one(cell(B, states=broken(5)), cell(B, states=broken(5))).outcome == "not_worse"
    assert one(cell(B, states=broken(5)), cell(B)).outcome == "not_worse"


def test_maps_that_became_constant_are_worse():
    found = one(cell(B), cell(B, states=broken(2, "degenerate_map")))
    assert (found.outcome, found.changes[0].verdict_before, found.changes[0].verdict_after) == (
        "worse", Outcome.PASS, Outcome.FAIL,
    )  # fmt: skip
    assert "2 of 60 saliency maps are degenerate" in found.changes[0].reason


def test_a_cell_that_is_refused_now_is_worse_and_one_that_was_is_not_compared():
    found = one(cell(B), cell(B, facts=refused()))
    assert found.outcome == "worse"
    assert found.changes[0].reason == "it was measured before and is not any more: no gradient"
    for after in (cell(B), cell(B, facts=refused())):
        assert change(cell(B, facts=refused()), after).outcome == "not_compared"
    skipped = cell(B, facts=refused(outcome=Outcome.UNSUPPORTED))
    found = compared(run(skipped, cell(B, explainer="x")), run(skipped, cell(B, explainer="x")))[0]
    assert found.outcome == "not_worse"


def test_a_cell_that_became_invalid_is_worse_and_one_that_was_is_not():
    beyond = B.copy()
    beyond[0] = 7.0
    found = one(cell(B), cell(beyond))
    assert found.outcome == "worse"
    assert found.changes[0].reason.startswith("the cell was valid and is not any more: m: 7 in row")
    assert one(cell(beyond), cell(beyond)).outcome == "not_worse"


def test_an_acknowledged_regression_that_passes_again_is_nothing_worse():
    known = Acknowledgement(metric="m", reason="r", until="2027-01-31", where="a.yaml:3:5")
    then, now = (CellFacts(acknowledged=some) for some in ([], [known]))
    asked = {"not_worse_than": "baseline", "within": {"absolute": 0.01}}
    values = {("explainer", BLUR, 0): B, ("baseline", BLUR, 0): B}
    before, after = cell(values, asked, facts=then), cell(values, asked, facts=now)
    assert after[0].verdict.outcome == "invalid"
    assert after[0].verdict.reason.startswith("acknowledged regression passes again")
    assert one(before, after).outcome == "not_worse"
    broken = cell({**values, ("explainer", BLUR, 0): np.r_[7.0, B[1:]]}, asked, facts=now)
    assert one(before, broken).outcome == "worse"
    mute = now.model_copy(update={"networks": [MUTE]})
    assert one(before, cell(values, asked, facts=mute)).outcome == "undecided"


@pytest.mark.parametrize(
    "facts",
    [
        {"unfit": [Unfit(metric="m", reason="it tells no maps apart")]},
        {"networks": [MUTE]},
    ],
)
def test_what_is_no_fault_of_the_explainer_is_not_called_worse(facts):
    after = cell(B, facts=CellFacts(**facts))
    assert after[0].verdict.outcome == "invalid"
    found = one(cell(B), after)
    assert found.outcome == "undecided"
    assert found.changes[0].outcome == "not_compared"
    assert found.changes[0].reason.startswith("the cell was valid and is not any more: ")


def test_another_list_on_which_nothing_could_be_measured_is_not_called_worse():
    before = run(cell(B), pairs="p1")
    after = run(cell(B, facts=refused("too few people")), name="two", pairs="p2")
    [found] = compared(before, after, WITHIN)
    assert found.outcome == "undecided"
    assert found.changes[0].reason.startswith("its pairs are others; ")


def test_a_model_that_verification_objects_to_is_not_blamed_on_the_explainer():
    def after(objections):
        made = run(cell(B, facts=refused("EER 9 %, at most 5 % demanded")), name="two")
        (record,) = made.records.values()
        (entry, *_) = EXAMPLE_RECORD.verification
        entry = entry.model_copy(update={"model": "m", "pairs": "p", "objections": objections})
        record = record.model_copy(update={"verification": [entry]})
        return StoredRun(made.folder, {"suite": record}, made.rows)

    before = run(cell(B))
    assert compared(before, after([]), WITHIN)[0].outcome == "worse"
    [found] = compared(before, after(["EER 9 %, at most 5 % demanded"]), WITHIN)
    assert found.outcome == "undecided"
    assert found.changes[0].reason.startswith("its model is not to be judged; ")


def looks(used, kind="planned"):
    return Looks(
        kind=kind, units="identities", identities=[30, 60], rows=[30, 60], used=used, seed=0,
        confidence=0.5,
    )  # fmt: skip


@pytest.mark.parametrize(("then", "now"), [(1, 2), (2, 1), (1, None), (None, 1)])
def test_the_level_of_the_run_that_stopped_first_holds(then, now):
    def side(used, values):
        facts = CellFacts(looks_taken=looks(used) if used else None)
        return cell(values[: 30 if used == 1 else 60], facts=facts)

    before, after = (side(used, some) for used, some in ((then, B), (now, B + NOISE)))
    [found] = compared(run(before), run(after, name="two"), WITHIN)
    [changed] = found.changes
    assert changed.n_rows == 30
    level = confidence_at(0.95, (0.5, 1.0), 1)
    figures = (changed.improvement, changed.before, changed.after)
    assert [one.confidence for one in figures] == [level] * 3


def test_open_looks_hold_wherever_another_run_stopped():
    before = cell(B[:30], facts=CellFacts(looks_taken=looks(1)))
    after = cell(B + NOISE, facts=CellFacts(looks_taken=looks(2, "open")))
    assert BETTING in change(before, after).improvement.method


@pytest.mark.parametrize("place", [0, 1])
def test_a_run_that_lost_rows_is_refused(place):
    whole = run(cell(B))
    runs = [whole, whole]
    runs[place] = StoredRun(whole.folder, whole.records, whole.rows[:50])
    with pytest.raises(StoreError, match=r"c\[m-e-p\]: expected 60 rows, got 50"):
        compared(*runs)


def test_an_explainer_that_no_longer_repeats_is_worse():
    firm, restless = (CellFacts(repeatability=steady(repeats)) for repeats in (True, False))
    found = one(cell(B, facts=firm), cell(B, facts=restless))
    assert found.outcome == "worse"
    assert "does not repeat its maps any more" in found.changes[0].reason
    assert one(cell(B, facts=restless), cell(B, facts=restless)).outcome == "not_worse"


# --- what cannot happen


@given(
    seed=st.integers(0, 10_000), better=st.sampled_from(["higher", "lower"]),
    n=st.integers(12, 80), relative=st.booleans(),
)  # fmt: skip
@settings(max_examples=25, deadline=None)
def test_what_is_ten_percent_better_everywhere_is_never_worse(seed, better, n, relative):
    of = metric(better=better)
    before = np.abs(spread(0.4, n, by=0.1, seed=seed))
    after = before * (1.1 if better == "higher" else 0.9)
    margins = Margins({"": {"relative": 0.05}} if relative else {})
    found = one(cell(before, of=of), cell(after, of=of), margins)
    assert found.outcome != "worse"
    # and the other way round it is never shown to be better
    back = change(cell(after, of=of), cell(before, of=of), margins)
    assert back.outcome not in ("better", "same")


def test_the_order_of_rows_and_of_cells_changes_nothing():
    cells = [cell(B + 0.01 * i + NOISE, explainer=name) for i, name in enumerate("xyz")]
    old = [cell(B, explainer=name) for name in "xyz"]
    first = compared(run(*old), run(*cells), WITHIN)[0]
    mixed = run(*cells)
    rows = [mixed.rows[place] for place in np.random.default_rng(0).permutation(len(mixed.rows))]
    again = compared(run(*old[::-1]), StoredRun(mixed.folder, mixed.records, rows), WITHIN)[0]
    assert first == again


@pytest.mark.slow
def test_chance_alone_is_rarely_called_worse():
    """Family-wise over 40 comparisons: at most 2.5 %, and without the correction it is far more."""
    rng = np.random.default_rng(5)
    alarms, uncorrected, n = 0, 0, 30
    for _ in range(n):
        before = {f"e{i}": rng.normal(0.4, 0.05, 30) for i in range(40)}
        old = run(*(cell(values, explainer=name) for name, values in before.items()))
        new = run(
            *(
                cell(values + rng.normal(0, 0.02, 30), explainer=name)
                for name, values in before.items()
            )
        )
        [found] = compared(old, new)
        assert len(found.regressions.tested) == 40
        alarms += found.outcome == "worse"
        uncorrected += any(it.p_worse <= 0.025 for it in found.changes)
    assert alarms <= 3  # 2.5 % each: more than three of thirty come with a probability of 0.005
    assert uncorrected >= 12  # 1 - 0.975^40 = 64 % each
    assert all(it.outcome != "worse" for it in found.changes)


def test_what_only_the_correction_keeps_from_being_worse_says_so():
    # One of 40 has a p-value of about 0.01: alone it is worse, among so many it is not.
    loss = -0.0055 + spread(0, by=0.0165, seed=8)
    alone = one(cell(B), cell(B + loss), Margins())
    assert alone.outcome == "worse"
    names = [f"e{i}" for i in range(39)]
    old = run(cell(B), *(cell(B, explainer=name) for name in names))
    new = run(cell(B + loss), *(cell(B, explainer=name) for name in names))
    [found] = compared(old, new)
    assert found.outcome == "undecided"
    assert "of 40 comparisons, one is as bad as this by chance too often" in found.changes[0].reason
    assert found.changes[0].p_worse <= 0.025 < found.changes[0].adjusted


def test_every_outcome_is_ordered_worst_first():
    became = {
        "worse": B - 0.1 + NOISE, "undecided": B - 0.02 + NOISE, "not_worse": B - 0.01 + NOISE,
        "better": B + 0.1 + NOISE, "same": B,
    }  # fmt: skip
    for order in itertools.islice(itertools.permutations(became), 5):
        old = run(*(cell(B, explainer=name) for name in order))
        new = run(*(cell(became[name], explainer=name) for name in order))
        [found] = compared(old, new, WITHIN)
        assert [it.outcome for it in found.changes] == [*became]
        assert [it.explainer for it in found.changes] == [*became]


# --- metrics of every kind


def test_a_ratio_is_the_same_or_not_compared():
    of = [metric("r", statistic="ratio", denominator="d"), metric("d", range=(0.0, 1.0))]
    asked = {**FAR, "metric": "r"}

    def both(numerator, denominator):
        return cell({"r": {BLUR: numerator}, "d": {BLUR: denominator}}, asked, of=of)

    equal = change(both(B, B), both(B, B))
    assert (equal.outcome, equal.before.value, equal.after.value) == ("same", 1.0, 1.0)
    for after in (both(B + NOISE, B), both(B, B + NOISE)):
        found = change(both(B, B), after)
        assert found.outcome == "not_compared"
        assert "ratio of two means" in found.reason


def test_events_that_are_equal_are_the_same_and_more_of_them_are_worse():
    of = metric(kind="rate", better="lower", range=(0.0, 1.0))
    few, many = np.repeat([1.0, 0.0], [6, 54]), np.repeat([1.0, 0.0], [40, 20])
    found = [change(cell(few, of=of), cell(after, of=of)).outcome for after in (few, many)]
    assert found == ["same", "worse"]


def test_a_figure_of_the_whole_list_takes_an_absolute_margin_alone():
    of, rng = metric(statistic="auc"), np.random.default_rng(3)
    mated = [place % 2 == 0 for place in range(120)]

    def listed(gap):
        values = np.where(mated, gap, 0.0) + rng.normal(0, 0.1, 120)
        return cell(values.clip(-1, 1), {"at_least": 0.5}, of=of, mated=mated)

    good, bad = listed(0.5), listed(0.05)
    assert change(good, good).outcome == "same"
    found = change(good, bad)
    assert (found.outcome, found.before.value > 0.99, found.after.value < 0.8) == (
        "worse", True, True,
    )  # fmt: skip
    relative = change(good, bad, Margins({"": {"relative": 0.05}}))
    assert (relative.outcome, "expected 'absolute'" in relative.reason) == ("not_compared", True)


def test_a_decision_is_not_worse_only_where_random_orders_are():
    of = metric(is_decision=True, better="higher")

    def decided(own, random):
        values = {("explainer", BLUR, 0): own} | {
            (f"control.random_{name}", BLUR, 0): random for name in ("pixels", "blobs")
        }
        return cell(values, of=of)

    after = B - 0.01 + NOISE
    assert change(decided(B, B), decided(after, B - 0.3)).outcome == "not_worse"
    assert change(decided(B, B), decided(after, B + NOISE)).outcome == "not_compared"


def test_what_was_chosen_among_configurations_is_compared_on_the_report_half():
    half = [{"half": "selection"}, {"half": "report"}]
    selects = {"axes": ["layer"], "by": ["m"]}
    values = {
        (("layer", layer), ("half", of["half"])): np.where(
            np.arange(120) % 2 == place, spread(value, 120, by=0.02, seed=place), np.nan
        )
        for layer, value in (("good", 0.6), ("bad", 0.1))
        for place, of in enumerate(half)
    }
    worse = {key: column - 0.2 for key, column in values.items()}
    assert change(cell(values, selects=selects), cell(values, selects=selects)).outcome == "same"
    found = change(cell(values, selects=selects), cell(worse, selects=selects))
    assert (found.outcome, found.under["half"], found.n_rows) == ("worse", "report", 60)
    assert found.before.value == pytest.approx(0.6, abs=0.01)
