"""What page, terminal and summary say of metrics that were given maps of known worth."""

import copy
import doctest
import re

import pytest

from fxeval.scorecard import (
    limit_rows,
    markdown_summary,
    render,
    self_checks,
    terminal_summary,
    wording,
)
from fxeval.tests.scorecard.test_scorecard import EXAMPLE, Reader

FIT, UNFIT, NOT_CHECKED = EXAMPLE["self_checks"]
WHITE = {"fill": "white"}


@pytest.fixture
def record():
    return copy.deepcopy(EXAMPLE)


@pytest.fixture(scope="module")
def html():
    return render(EXAMPLE)


@pytest.fixture(scope="module")
def section(html):
    return Reader(html).section("self-check")


def made_invalid(record, at, reason, *, metric="deletion_auc", under=WHITE, severity="critical"):
    """Make a cell invalid because of a metric that is unfit, and return the cell."""
    cell = record["cells"][at]
    limit = {**cell["limits"][0], "metric": metric, "under": under, "severity": severity}
    limit["verdict"] = cell["verdict"] = {"outcome": "invalid", "reason": f"unfit here: {reason}"}
    cell["limits"] = [limit]
    cell["unfit"] = [{"metric": metric, "under": under, "reason": reason}]
    return cell


def unfit(reason, **changes):
    """Return an entry that is unfit under a white fill."""
    entry = {**copy.deepcopy(UNFIT), "metric": "deletion_auc", "under": WHITE, "reason": reason}
    return entry | changes


def links(html, to):
    return re.findall(rf'<a href="#{to}">(.*?)</a>', html)


def test_the_section_stands_below_the_verdict_and_above_the_results(html):
    verdict, contents = html.index('<p class="word">'), html.index("<nav")
    checked, decided = html.index('<section id="self-check"'), html.index('<section id="decided"')
    assert verdict < contents < checked < decided
    assert links(html, "self-check") == ["Metrics checked"]


@pytest.mark.parametrize("entry", [FIT, UNFIT], ids=["fit", "unfit"])
def test_every_known_map_and_step_stands_there_with_its_interval(section, entry):
    title = {
        "deletion_auc": "Deletion area under the curve, fill blur",
        "insertion_fraction_to_match": "Fraction restored until the model says match, fill blur",
    }[entry["metric"]]
    for one in entry["maps"]:
        row = f"{title} {wording.map_name(one['map'])} {wording.interval(one)}"
        assert row in section
    for one in entry["steps"]:
        pair = f"{wording.map_name(one['better'])} over {wording.map_name(one['worse'])}"
        said = "yes" if one["holds"] else "no"
        assert f"{title} {pair} {wording.interval(one)} {said}" in section


def test_each_row_says_the_verdict_on_the_metric_why_on_what_and_how_finely(section):
    about = "on the planted network mini_patch and rendered faces; 40 pairs of 40 identities"
    assert f"{about} unfit here {UNFIT['reason']} " in section
    assert f"{about} tells known maps apart " in section
    assert "0.41 reliability 0.038 detectable difference, fraction of pixels" in section
    assert "0.99 reliability 0.022 detectable difference, cosine similarity" in section
    head = "Of 3 metrics, each under one condition, 1 is unfit here, 1 was not checked, "
    assert f"{head}1 tells known maps apart. " in section
    assert section.index(f"{about} unfit here") < section.index(f"{about} tells known maps apart")
    unchecked = "not checked Rank correlation with the map of a re-drawn network: "
    assert unchecked + NOT_CHECKED["reason"] in section


def test_the_better_map_is_drawn_on_the_better_side(record):
    [_, shown] = self_checks.self_checks(record).shown
    assert shown.entry["fitness"] == "fit"
    places = [dot.x for dot in shown.chart.dots]
    assert places == sorted(places)
    assert len(places) == 4
    assert [mark.text for mark in shown.chart.directions] == ["← better", ""]


def test_a_cell_that_passes_says_which_of_its_metrics_is_unfit_and_why(record):
    record["cells"][0]["unfit"][0]["reason"] += "."
    read = Reader(render(record))
    name = "unfit here Fraction restored until the model says match, fill blur"
    said = f"{name} : {UNFIT['reason']}. No limit on it decides."
    assert said in read.section("cell-1")
    assert said in read.section("cell-2")
    assert "known worth" not in read.section("decided")


def test_the_cost_of_all_checks_is_told_and_none_if_nothing_was_measured(record, section):
    assert "These checks embedded 13,440 images, in 6.8 s of processor time." in section
    record["self_checks"] = [NOT_CHECKED]
    assert "These checks embedded" not in Reader(render(record)).section("self-check")


def test_a_record_without_self_checks_says_nothing_of_them(record):
    record["self_checks"] = []
    for cell in record["cells"]:
        cell["unfit"] = []
    read = Reader(render(record))
    assert "self-check" not in read.sections
    assert not [value for _, key, value in read.attributes if key == "href" and "self" in value]
    said = [read.text, "\n".join(terminal_summary(record)), markdown_summary(record)]
    assert not re.findall(r"known maps|self-check|unfit", " ".join(said), re.I)


def test_a_cell_that_an_unfit_metric_makes_invalid_links_to_it_and_back(record):
    record["self_checks"].append(unfit("it prefers the inverse"))
    made_invalid(record, 0, "it prefers the inverse")
    html = render(record)
    read = Reader(html)
    title = "Deletion area under the curve, fill white"
    assert links(html, "self-check-4") == [title, title]  # what decided it, and the cell
    assert f"See what {title} says of maps of known worth." in read.section("decided")
    assert f"unfit here {title} . No limit on it decides." in read.section("cell-1")
    assert read.section("cell-1").count("it prefers the inverse") == 2  # the ruling, the limit
    assert "Invalid for that reason: deletion-insertion of gradcam on mini_resnet, rendered" in (
        read.section("self-check")
    )
    back = links(html[: html.index('<section id="decided"')], "cell-1")
    assert back == ["deletion-insertion of gradcam on mini_resnet, rendered"]
    ids = {value for _, key, value in read.attributes if key == "id"}
    assert {v[1:] for _, key, v in read.attributes if key == "href" and v[0] == "#"} <= ids


def test_a_value_of_an_unfit_metric_is_told_and_not_drawn_as_if_it_had_decided(record):
    [first, *_] = [*limit_rows.missed(made_invalid(record, 0, "it prefers the inverse"))]
    assert first.outcome == "invalid"
    assert "must be better than the control random blobs; the paired improvement" in first.sentence
    assert first.chart is None
    record["cells"][0]["limits"][0]["verdict"]["outcome"] = "fail"
    assert [one.chart is None for one in limit_rows.missed(record["cells"][0])] == [False]


@pytest.mark.parametrize(
    "change",
    [
        {"severity": "info"},
        {"severity": "warning"},
        {"metric": "insertion_auc"},  # the limit is about another metric than the unfit one
        {"under": {"fill": "black"}},
    ],
)
def test_only_critical_limits_on_the_unfit_metric_make_a_cell_invalid_for_its_sake(record, change):
    record["self_checks"].append(unfit("it prefers the inverse"))
    cell = made_invalid(record, 0, "it prefers the inverse")
    cell["limits"][0] |= change
    cell["asked"] = []
    assert "Invalid for that reason" not in Reader(render(record)).section("self-check")


def test_a_cell_that_was_not_measured_at_all_is_linked_by_the_limits_that_it_asked(record):
    record["self_checks"].append(unfit("it prefers the inverse"))
    cell = made_invalid(record, 0, "it prefers the inverse")
    [limit] = cell["limits"]
    cell["asked"] = [{**cell["asked"][0], "metric": limit["metric"], "under": {}}]
    cell["limits"] = []
    assert "Invalid for that reason: deletion-insertion of gradcam" in (
        Reader(render(record)).section("self-check")
    )


def test_a_cell_that_was_refused_is_not_invalid_for_the_sake_of_a_metric(record):
    record["self_checks"].append(unfit("it prefers the inverse"))
    cell = made_invalid(record, 0, "it prefers the inverse")
    cell["refusal"] = {"outcome": "invalid", "reason": "the model is below the floor"}
    assert "Invalid for that reason" not in Reader(render(record)).section("self-check")


def test_a_metric_that_was_checked_on_two_models_is_linked_to_the_one_with_its_reason(record):
    record["self_checks"] += [unfit("unfit on one"), unfit("unfit on two")]
    made_invalid(record, 0, "unfit on two")
    html = render(record)
    assert len(links(html, "self-check-5")) == 2
    assert not links(html, "self-check-4")
    made_invalid(record, 0, "unfit on three")  # no entry says so: the first that fits
    assert len(links(render(record), "self-check-4")) == 2


def test_an_unfit_metric_without_an_entry_is_told_without_a_link(record):
    made_invalid(record, 0, "it prefers the inverse.")
    html = render(record)
    assert "curve, fill white. No limit on it decides." in Reader(html).section("cell-1")
    assert not links(html, "self-check-4")


def test_metrics_without_evidence_are_listed_once_for_each_reason(record):
    record["self_checks"] += [
        {**NOT_CHECKED, "under": {"layer": "a"}},
        {**NOT_CHECKED, "metric": "of_tomorrow", "kind": "user:kind", "reason": "no truth known"},
    ]
    found = self_checks.self_checks(record)
    name = "Rank correlation with the map of a re-drawn network"
    assert found.unchecked == (
        (f"{name}; {name}, layer a", NOT_CHECKED["reason"]),
        ("Of tomorrow", "no truth known"),
    )
    assert "of 5 metrics" in found.said


def test_a_metric_with_values_that_was_not_checked_is_drawn_and_is_not_called_fit(record):
    few = {**copy.deepcopy(FIT), "fitness": "not_checked", "reason": "expected 30 people, got 9"}
    record["self_checks"] = [few]
    text = Reader(render(record)).section("self-check")
    assert "not checked expected 30 people, got 9" in text
    assert "blurred oracle 0.272 [0.249, 0.295]" in text
    assert "tells known maps apart" not in text.replace("tell known maps apart", "")


def test_of_very_many_metrics_unfit_ones_are_seen_first_and_the_rest_is_counted(record):
    many = [{**FIT, "under": {"layer": f"l{i}"}} for i in range(90)]
    bad = [{**UNFIT, "under": {"layer": f"l{i}"}} for i in range(7)]
    record["self_checks"] = [*many, *bad]
    found = self_checks.self_checks(record)
    assert [row.entry["fitness"] for row in found.shown] == ["unfit"] * 7
    assert (len(found.folded), found.left) == (53, 37)
    read = Reader(render(record))
    assert "53 more metrics" in read.section("self-check")
    assert "The embedded record holds 37 more metrics." in read.section("self-check")
    lines = terminal_summary(record, most=3)
    assert sum(line.startswith("unfit  ") for line in lines) == 3
    assert "and 4 more; -v shows all" in lines
    assert len(re.findall(r"^- \*\*unfit\*\* ", markdown_summary(record), re.M)) == 7


def test_an_unfit_metric_that_is_not_on_the_page_is_not_linked(record):
    record["self_checks"] = [unfit("noise", under={"fill": f"f{i}"}) for i in range(61)]
    for at, under in ((0, {"fill": "f59"}), (1, {"fill": "f60"})):
        made_invalid(record, at, "noise", under=under)
    html = render(record)
    assert len(links(html, "self-check-60")) == 2
    assert not links(html, "self-check-61")
    assert "curve, fill f60. No limit on it decides." in Reader(html).section("cell-2")


def test_a_missing_value_is_named_and_not_drawn(record):
    entry = record["self_checks"][0]
    entry["maps"][2] |= {"value": None, "low": None, "high": None}
    entry |= {"reliability": None, "detectable": None}
    text = Reader(render(record)).section("self-check")
    assert "random none (no interval)" in text
    assert "none reliability none detectable difference" in text


def test_the_summary_of_a_ci_step_names_what_is_unfit():
    text = markdown_summary(EXAMPLE)
    assert "Self-check of the metrics: of 3 metrics, each under one condition, 1 is unfit" in text
    [line] = re.findall(r"^- \*\*unfit\*\* (.*)$", text, re.M)
    assert line.replace("\\", "") == f"{UNFIT['kind']}: {UNFIT['reason']}"
    assert text.index("Self-check") < text.index("| verdict |")


def test_a_reason_that_does_not_name_its_metric_gets_the_name(record):
    record["self_checks"][1]["reason"] = "noise"
    assert self_checks.unfit_lines(record) == [
        "faithfulness.deletion_insertion: insertion_fraction_to_match, fill blur: noise"
    ]


def test_the_example_agrees_with_itself():
    for entry in (FIT, UNFIT):
        worth = {one["map"]: one["value"] for one in entry["maps"]}
        for one in (*entry["maps"], *entry["steps"]):
            assert one["low"] < one["value"] < one["high"]
        for step in entry["steps"]:  # lower is better for both metrics
            assert step["value"] == pytest.approx(worth[step["worse"]] - worth[step["better"]])
            assert step["holds"] == (step["low"] > 0)
        assert all(step["holds"] for step in entry["steps"]) == (entry["fitness"] == "fit")


def test_the_examples_of_the_docstrings_hold():
    result = doctest.testmod(self_checks)
    assert result.attempted > 0
    assert result.failed == 0
