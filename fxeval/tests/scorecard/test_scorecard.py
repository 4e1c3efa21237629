"""The scorecard shows what the record says, all of it, and nothing else."""

import base64
import copy
import doctest
import hashlib
import json
import math
import re
import shutil
import struct
import subprocess
import sys
import zlib
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fxeval.errors import StoreError
from fxeval.records.reading import read_record
from fxeval.records.schema import Record, json_schema
from fxeval.records.writing import dumped
from fxeval.scorecard import (
    charts,
    conditions,
    limit_rows,
    page,
    render,
    terminal_summary,
    view,
    wording,
)
from fxeval.scorecard.cost_tables import layers_read

RECORDS = Path(__file__).parents[1] / "records"
EXAMPLE = json.loads((RECORDS / "example_v2.json").read_text("utf-8"))
FIRST = json.loads((RECORDS / "example_v1.json").read_text("utf-8"))  # kept as it was written
SCHEMA = json_schema(Record)
LONG = "srise_4000_masks_<script>alert(1)</script>_long_name"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


class Reader(HTMLParser):
    """Reads a page as a browser does: tags, attributes, text, and the text of each cell."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.texts, self.raw = [], [], [], {}
        self.sections, self._section, self._raw = {}, None, None
        self.feed(html)
        self.text = " ".join(" ".join(self.texts).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, key, value) for key, value in attrs]
        given = dict(attrs)
        if tag == "section":
            self._section = given.get("id")
        if tag in {"style", "script"}:
            self._raw = given.get("id", tag)

    def handle_endtag(self, tag):
        if tag in {"style", "script"}:
            self._raw = None

    def handle_data(self, data):
        if self._raw:
            self.raw[self._raw] = self.raw.get(self._raw, "") + data
            return
        self.texts.append(data)
        self.sections.setdefault(self._section, []).append(data)

    def section(self, name):
        return " ".join(" ".join(self.sections[name]).split())


@pytest.fixture
def record():
    return copy.deepcopy(EXAMPLE)


@pytest.fixture(scope="module")
def html():
    return render(EXAMPLE)


@pytest.fixture(scope="module")
def read(html):
    return Reader(html)


def test_every_limit_stands_in_its_cell_with_verdict_value_severity_and_reason(read):
    for index, cell in enumerate(EXAMPLE["cells"], 1):
        text = read.section(f"cell-{index}")
        for limit in cell["limits"]:
            row = f"{limit['verdict']['outcome']} {limit_rows.limit_text(limit)} {limit['where']} "
            row += wording.interval(limit["estimate"], *limit_rows.limit_lines(limit))
            assert row in text
            assert f"{limit['severity']} {limit['verdict']['reason']}" in text
    forms = ("at_most", "at_least", "better_than")
    limits = [limit for cell in EXAMPLE["cells"] for limit in cell["limits"]]
    assert all(any(limit[form] is not None for limit in limits) for form in forms)


def test_every_estimate_and_difference_stands_in_its_cell(read):
    for index, cell in enumerate(EXAMPLE["cells"], 1):
        text = read.section(f"cell-{index}")
        for row in cell["estimates"]:
            name = cell["explainer"] if row["map"] == "explainer" else wording.map_name(row["map"])
            assert f"{name} {wording.interval(row)} 40 40 " in text
            metric = conditions.metrics_of(cell)[row["metric"]]
            assert metric["title"] in text
            assert f"{metric['better']} is better" in text
        for row in cell["differences"]:
            assert f"{wording.map_name(row['control'])} {wording.interval(row)} 40 40" in text


def test_every_point_of_every_curve_stands_in_a_table(read):
    for index, cell in enumerate(EXAMPLE["cells"], 1):
        text = read.section(f"cell-{index}")
        for curve in cell["curves"]:
            for value, low, high in zip(
                curve["similarity"], curve["low"], curve["high"], strict=True
            ):
                assert wording.interval({"value": value, "low": low, "high": high}) in text


def test_the_first_screen_says_verdict_reason_banner_and_what_was_tested(read):
    start = read.text[: read.text.index("What decided it Not gating")]
    assert EXAMPLE["suite"]["title"] in start
    assert f"INVALID {EXAMPLE['verdict']['reason']}" in start
    assert "1 fail 1 invalid 1 inconclusive 1 pass" in start
    assert EXAMPLE["banners"][0] in start
    assert f"gradcam , {LONG} explaining mini_resnet on rendered (40 pairs of 40 identities)." in (
        start
    )


def test_what_decided_it_names_every_missed_critical_limit_and_no_other(read):
    text = read.section("decided")
    missed = "Insertion area under the curve with fill blur must be at least 0.58; it is 0.531"
    assert missed in text
    assert "must be better than the control centre by more than 10% of the control's value" in text
    assert "the paired improvement less 10% of the control's value is −0.058" in text
    assert "params.masks must be at least 1, got 0" in text
    assert "0.18 [0.11, 0.25], must be at most 0.2: the interval contains the limit" in text
    assert "sign dropped" not in text  # a warning limit, missed too
    assert text.index("fail") < text.index("invalid") < text.index("inconclusive")


def test_limits_that_only_warn_or_inform_and_did_not_pass_are_listed(read):
    text = read.section("shown")
    listed = [
        limit
        for cell in EXAMPLE["cells"]
        for limit in cell["limits"]
        if limit["severity"] != "critical" and limit["verdict"]["outcome"] != "pass"
    ]
    assert listed
    for limit in listed:
        assert limit["verdict"]["reason"] in text


def test_constant_maps_are_named_with_their_number_and_their_pairs(read):
    text = read.section("cell-2")
    assert "2 of 40 maps are constant and were ranked at random." in text
    assert "9f8e7d6c5b4a-ba9876543210 degenerate map every pixel is 0" in text


def test_verdicts_are_shown_as_recorded_even_if_the_numbers_say_otherwise(record):
    cell = record["cells"][1]
    for limit in cell["limits"]:
        limit["verdict"] = {"outcome": "pass", "reason": "the record says so"}
    cell["verdict"] = {"outcome": "pass", "reason": "the record says so"}
    read = Reader(render(record))
    assert "fail" not in re.findall(r"\b(?:pass|fail|invalid)\b", read.section("cell-2"))
    assert "deletion-insertion" not in read.section("decided")


def test_the_words_of_the_matrix_are_the_words_of_the_cells(read):
    words = re.findall(r"\b(pass|fail|inconclusive|invalid)\b", read.section("matrix"))
    assert words == ["pass", "fail", "inconclusive", "invalid"]
    assert words == [cell["verdict"]["outcome"] for cell in EXAMPLE["cells"]]


def poison(value, schema, hostile, kept, key=""):
    """Put hostile text before every text that the schema does not bind, keys of mappings too."""
    if "$ref" in schema:
        schema = SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]]
    if isinstance(value, str):
        several = schema.get("anyOf", [schema])
        bound = all({"enum", "const", "$ref"} & set(one) for one in several)
        return value if bound or key in kept else hostile + value
    if isinstance(value, list):
        parts = [one["items"] for one in schema.get("anyOf", [schema]) if "items" in one]
        item = parts[0] if parts else {}
        return [poison(one, item, hostile, kept, key) for one in value]
    if isinstance(value, dict):
        for one in schema.get("anyOf", []):
            if "$ref" in one:
                return poison(value, one, hostile, kept, key)
        known, names = schema.get("properties"), schema.get("propertyNames")
        rest = schema.get("additionalProperties", {})
        return {
            (name if known or names else hostile + name): poison(
                one, known[name] if known else rest, hostile, kept, name if known else key
            )
            for name, one in value.items()
        }
    return value


@pytest.mark.parametrize(
    "kept",
    [
        set(),  # names that nobody declared, too
        {"map", "metric", "kind", "name", "control", "better_than"},  # all is drawn
    ],
)
def test_no_text_of_a_record_becomes_markup(record, kept):
    hostile = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>{{7*7}}</style>"
    poisoned = poison(record, SCHEMA, hostile, kept)
    assert json.dumps(poisoned).count("alert(2)") > 500
    read = Reader(render(poisoned))
    assert read.tags.count("script") == 1
    assert "img" not in read.tags
    assert not [key for _, key, _ in read.attributes if key.startswith("on")]
    assert "49" not in read.section("decided")
    assert hostile + "gradcam" in read.text


def test_a_hostile_suite_name_cannot_leave_the_print_header(record):
    record["suite"]["name"] = "'}</style><script>alert(1)</script>\n@import url(//x)"
    style = Reader(render(record)).raw["style"]
    tail = style[style.index("@page{@top-left") :]
    assert not re.search(r"[<>/]|@import", tail)
    assert tail.count("'") == 6


def test_control_and_direction_characters_are_made_visible(read):
    assert not set("\x1b\u202e") & set(read.text)
    assert "seeded random order \ufffdgnp.exe \ufffd[31m" in read.text


def test_nothing_is_loaded_and_nothing_can_run(html, read):
    assert "http" not in re.sub(r"http-equiv", "", html)
    loads = {"src", "srcset", "action", "formaction", "data", "poster", "background", "style"}
    assert not [item for item in read.attributes if item[1] in loads]
    for _, key, value in read.attributes:
        if key == "href":
            assert value.startswith(("#", "data:image/png;base64,"))
    assert ("script", "type", "application/json") in read.attributes


def test_the_policy_allows_exactly_the_style_of_the_page(read):
    policy = next(value for tag, key, value in read.attributes if (tag, key) == ("meta", "content"))
    digest = base64.b64encode(hashlib.sha256(read.raw["style"].encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policy


def test_the_embedded_record_is_the_record_and_its_digest_is_shown(read):
    text = read.raw["fxeval-record"]
    assert json.loads(text) == EXAMPLE == dumped(read_record(EXAMPLE))
    assert not set("<>&") & set(text)
    assert hashlib.sha256(text.encode()).hexdigest() in read.text


def test_the_page_tells_at_which_layer_maps_were_made_and_how_it_was_read(html):
    layers = [one for cell in EXAMPLE["cells"] for one in layers_read(cell)]
    assert set(layers) == {"head.1 (128 x 7 x 7), read as channels first: 7 x 7 places"}
    assert f"<dt>explained at layer</dt><dd>{layers[0]}</dd>" in html


def test_the_page_is_the_same_for_the_same_record(html, record):
    before = copy.deepcopy(record)
    assert render(record) == html
    assert record == before


def test_every_link_has_its_target_and_every_id_is_unique(read):
    ids = [value for _, key, value in read.attributes if key == "id"]
    assert len(ids) == len(set(ids))
    links = {v[1:] for _, key, v in read.attributes if key == "href" and v.startswith("#")}
    assert links <= set(ids)


def test_every_chart_has_a_title_a_description_and_a_table(html):
    drawn = re.findall(r'<svg class="chart.*?</svg>', html, re.S)
    assert len(drawn) > 50
    assert all("<title>" in one and "<desc>" in one for one in drawn)
    figures = re.findall(r"<figure.*?</figure>", html, re.S)
    assert figures
    assert all("<details>" in one and "<table" in one for one in figures)


def test_a_record_without_optional_parts_renders(record):
    for cell in record["cells"]:
        cell |= {"curves": [], "mean_map": None, "differences": [], "problems": [], "notes": []}
        cell |= {"why": "", "states": {}, "parameters": {}}
    record["banners"] = []
    assert "Deletion area under the curve" in Reader(render(record)).section("cell-1")


def test_a_record_without_cells_claims_nothing(record):
    record["cells"] = []
    record["verdict"] = {"outcome": "inconclusive", "reason": "no cell ran"}
    read = Reader(render(record))
    assert "No cell was run, so nothing was decided." in read.section("decided")
    assert "pass" not in read.section("matrix")


def test_missing_numbers_are_named_and_not_drawn(record):
    cell = record["cells"][0]
    for row in (*cell["estimates"], *(limit["estimate"] for limit in cell["limits"])):
        row |= {"low": None, "high": None}
    cell["estimates"][0]["value"] = None
    cell["limits"][1]["estimate"] = None
    for curve in cell["curves"]:
        curve["low"] = [None] * len(curve["low"])
        curve["similarity"][3] = None
    text = Reader(render(record)).section("cell-1")
    assert "none (no interval)" in text
    assert "no estimate" in text


def test_a_limit_that_no_row_says_anything_of_is_told_and_not_drawn(record):
    cell = record["cells"][0]
    verdict = {"outcome": "invalid", "reason": "deletion_auc (0.5): no row has a value"}
    limit = {**cell["limits"][4], "under": {"fraction": 0.5}, "estimate": None, "verdict": verdict}
    cell["limits"].append(limit)
    cell["verdict"] = verdict
    read = Reader(render(record))
    assert f"{verdict['reason']}" in read.section("decided")
    assert "with fraction 0.5 must be at most 0.4; it is no estimate." in read.section("decided")
    assert "deletion_auc at most 0.4, fraction 0.5" in read.section("cell-1")
    assert any("no estimate" in line for line in terminal_summary(record, 200))


def test_a_verification_without_its_figures_is_shown(record):
    [entry] = record["verification"]
    entry["figures"] = []
    entry["claims"][0]["metric"] = "a figure of tomorrow"
    read = Reader(render(record))
    assert "card: a figure of tomorrow 0.9933 within 0.003" in read.section("verification")
    assert any("accuracy none" in line for line in terminal_summary(record))


def test_curves_of_no_pair_leave_their_table_open(record):
    curve = record["cells"][0]["curves"][0]
    curve |= {"fraction": [], "similarity": [], "low": [], "high": []}
    assert "none" in Reader(render(record)).section("cell-1")


def test_a_subject_that_could_not_be_loaded_is_named_all_the_same(record):
    record["subjects"] = {"models": {}, "explainers": {}, "pairs": {}}
    read = Reader(render(record))
    assert f"gradcam , {LONG} explaining mini_resnet on rendered ." in read.text
    assert "mini_resnet has no card: it could not be loaded." in read.section("subjects")


@pytest.mark.parametrize(
    ("sample", "excluded"),
    [
        (EXAMPLE, {"no face & no eyes": 2}),
        (FIRST, {"no face & no eyes": 2}),
        (FIRST, [{"pair": "a/b", "reason": "no face & no eyes"}] * 2),
    ],
)
def test_excluded_pairs_are_counted_by_reason_and_not_named(sample, excluded):
    record = copy.deepcopy(sample)
    record["subjects"]["pairs"]["rendered"]["excluded"] = excluded
    read = Reader(render(record))
    assert "excluded 2 pairs: no face & no eyes" in read.section("subjects")
    assert "a/b" not in read.text


def test_a_cell_that_was_not_asked_for_is_told_from_one_that_did_not_run(record):
    absent = record["cells"].pop()
    assert "not asked for" in Reader(render(record)).section("matrix")
    record["run"] |= {"complete": False, "missing": [absent["id"]]}
    text = Reader(render(record)).section("matrix")
    assert "not run" in text
    assert "not asked for" not in text


@pytest.mark.parametrize(("n", "corner"), [(6, "Check"), (7, "Explainer")])
def test_many_explainers_are_the_rows_of_the_matrix(record, n, corner):
    first = record["cells"][0]
    record["cells"] = [
        {**first, "explainer": f"e{i}", "id": f"{first['check']}[m-e{i}-p]"} for i in range(n)
    ]
    text = Reader(render(record)).section("matrix")
    assert re.search(rf"{corner} {'e0 e1' if corner == 'Check' else first['check']}", text)
    assert len(re.findall(r"\bpass\b", text)) == n


def test_an_unfinished_run_and_uncommitted_changes_are_warned_of(record):
    record["run"] |= {"complete": False, "missing": ["a[b-c-d]", "e[b-c-d]"]}
    record["environment"]["dirty"] = True
    read = Reader(render(record))
    assert "This run is not complete: 2 cells of the suite did not run." in read.text
    assert "Not run: a[b-c-d], e[b-c-d]" in read.section("matrix")
    assert "changes that are not in the named commit" in read.text


def test_a_large_run_is_thinned_and_says_so(record):
    record["cells"] = [
        {**cell, "model": f"model {i}"} for i in range(8) for cell in record["cells"]
    ]
    html = render(record)
    assert len(html.encode()) <= page.SIZE_AIM
    read = Reader(html)
    assert "Left out to keep this page small: the tables of the curves" in read.text
    assert json.loads(read.raw["fxeval-record"]) == record
    assert "0.332 [0.304, 0.359]" in read.section("cell-1")


def test_the_example_is_small(html):
    assert len(html.encode()) < 500_000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda record: record.update(record=3), "expected format version 1 or 2, got 3"),
        (lambda record: record.pop("verdict"), "record: verdict: Field required"),
        (lambda record: record["cells"][2].pop("kind"), r"record: cells\.2\.kind: Field required"),
        (lambda record: record["verdict"].update(outcome="ok"), "verdict.outcome: .*got 'ok'"),
        (lambda record: record["run"].update(seconds=math.nan), "run.seconds: .*, got nan"),
        (lambda record: record["run"].update(id=object()), "not plain JSON"),
    ],
)
def test_what_is_no_record_is_refused_with_the_reason(record, change, message):
    change(record)
    with pytest.raises(StoreError, match=message):
        render(record)


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda record: record.update(banners=3), "banners"),
        (lambda record: record.update(verdict=[]), "verdict"),
        (lambda record: record["cells"][0].update(check=[]), "cells.0.check"),
        (lambda record: record["cells"][1]["verdict"].pop("reason"), "cells.1.verdict.reason"),
        (lambda record: record["cells"][0].update(n_pairs="many"), "cells.0.n_pairs"),
        (lambda record: record["cells"].append(None), "cells.4"),
        (lambda record: record["cells"][0]["mean_map"][0].append(None), "cells.0.mean_map.0"),
    ],
)
def test_a_damaged_record_is_refused_by_page_and_terminal_alike(record, change, place):
    change(record)
    for show in (render, terminal_summary):
        with pytest.raises(StoreError, match=rf"^record: {re.escape(place)}: .*cut short\?$"):
            show(record)


@pytest.mark.parametrize("show", [render, terminal_summary])
def test_a_damaged_record_of_the_first_version_is_refused(show):
    for change in (
        lambda record: record.pop("cells"),
        lambda record: record.update(cells=3),
        lambda record: record["cells"][0].update(limits=[{}]),
        lambda record: [row.pop("unit") for row in record["cells"][0]["estimates"]],
        lambda record: record["cells"][0].update(n_pairs="many"),
        lambda record: record["subjects"].update(pairs=[]),
    ):
        record = copy.deepcopy(FIRST)
        change(record)
        with pytest.raises(StoreError, match=r"^record: .*cut short\?$"):
            show(record)


def test_records_of_the_first_version_are_shown_and_embedded_as_those_of_today():
    read = Reader(render(FIRST))
    assert json.loads(read.raw["fxeval-record"]) == dumped(read_record(FIRST))
    assert read.section("matrix").split().count("pass") == 1
    assert "about 60 more identities would settle it" in read.section("decided")
    for cell in FIRST["cells"]:
        assert all(row["title"] in read.text for row in cell["estimates"])
        for row in (*cell["estimates"], *cell["differences"]):
            assert wording.interval(row) in read.text
        for limit in cell["limits"]:
            assert limit["text"] in read.text
            assert limit["verdict"]["reason"] in read.text
    assert terminal_summary(FIRST)[0] == terminal_summary(EXAMPLE)[0]


def test_what_a_damaged_record_says_is_cut(record):
    record["record"] = "\x1b" * 10_000
    with pytest.raises(StoreError) as caught:
        render(record)
    assert len(str(caught.value)) < 250
    assert str(caught.value).isprintable()


def test_a_list_is_no_record():
    with pytest.raises(StoreError, match="expected a mapping, got list"):
        terminal_summary([])


def test_the_terminal_shows_verdict_banner_one_line_per_cell_and_reasons():
    lines = terminal_summary(EXAMPLE, 100)
    assert lines[:11] == [
        "INVALID  quickstart: of 4 cells 1 could not be measured, 1 failed, 1 inconclusive, "
        "1 passed",
        "! Rendered faces: this run validates explainers and metrics; it says nothing about real "
        "faces.",
        "self-check  of 3 metrics, each under one condition, 1 is unfit here, 1 was not checked, "
        "1 tells known maps apart",
        "unfit  faithfulness.deletion_insertion: " + EXAMPLE["self_checks"][1]["reason"],
        "model mini_resnet · pairs rendered · 40 pairs a cell",
        "",
        "verdict       check                explainer                      decided by",
        "FAIL          deletion-insertion   srise_4000_masks_<script>"
        "ale…  -0.058 [-0.071, -0.044]  deletion…",
        "INVALID       model-randomisation  srise_4000_masks_<script>"
        "ale…  explainer 'srise_4000_masks_<scri…",
        "INCONCLUSIVE  model-randomisation  gradcam                  "
        "      0.180 [0.110, 0.250]  rank_correl…",
        "PASS          deletion-insertion   gradcam                  "
        "      0.122 [0.107, 0.137]  deletion_au…",
    ]
    assert lines[11].startswith("verifies  mini_resnet on rendered: accuracy 0.9933 [0.9793, ")
    assert lines[11].endswith("; 3 claims and demands held")
    missed = [EXAMPLE["cells"][index] for index in (1, 3, 2)]  # worst first
    assert lines[13 : 13 + len(missed)] == [
        f"{cell['verdict']['outcome'].upper()}  {cell['id']}: {cell['verdict']['reason']}"
        for cell in missed
    ]
    warned = [
        (cell["id"], limit["verdict"]["reason"])
        for cell in [*missed, EXAMPLE["cells"][0]]
        for limit in cell["limits"]
        if limit["severity"] == "warning" and limit["verdict"]["outcome"] != "pass"
    ]
    assert warned
    assert lines[13 + len(missed) :] == [f"warning  {cell}: {reason}" for cell, reason in warned]


@pytest.mark.parametrize("width", [60, 80, 100, 160, 240])
def test_no_width_cuts_a_value_or_its_interval(width):
    text = "\n".join(terminal_summary(EXAMPLE, width))
    assert "0.122 [0.107, 0.137]" in text
    assert "-0.058 [-0.071, -0.044]" in text
    table = [line for line in text.splitlines() if "[0." in line and "  " in line][:1]
    assert all(len(line) <= max(width, 80) for line in table)


def test_colour_touches_the_verdict_words_only():
    plain, coloured = terminal_summary(EXAMPLE), terminal_summary(EXAMPLE, colour=True)
    assert [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in coloured] == plain
    assert coloured[0].startswith("\x1b[1;35mINVALID\x1b[0m")
    assert "\x1b" not in "".join(plain)


def test_the_terminal_obeys_no_escape_of_a_record(record):
    record["cells"][1]["explainer"] = "\x1b[2Jx\r\nPASS"
    text = "".join(terminal_summary(record))
    assert not set("\x1b\r\n") & set(text)


def test_a_limit_and_the_end_that_misses_it_never_look_equal():
    estimate = {"value": 0.39, "low": 0.38, "high": 0.40001}
    assert wording.interval(estimate, 0.4) == "0.39000 [0.38000, 0.40001]"
    assert wording.interval(estimate) == "0.390 [0.380, 0.400]"


@given(low=st.floats(-1e3, 1e3), width=st.floats(1e-6, 1e3))
@settings(deadline=None)
def test_ticks_are_few_and_inside(low, width):
    ticks = charts.nice_ticks(low, low + width)
    assert 3 <= len(ticks) <= 9
    assert all(low - 1e-6 * width <= tick <= low + width * (1 + 1e-6) for tick in ticks)


def test_a_dot_stands_where_its_value_is_and_the_good_side_ends_at_the_limit():
    estimate = {"value": 0.5, "low": 0.0, "high": 1.0}
    chart = charts.dot_chart(
        "t",
        [charts.Row("a", estimate, judged=True)],
        [charts.Rule(0.25, "limit", "lower")],
        directions=("", ""),
    )
    dot = chart.dots[0]
    assert dot.x == pytest.approx((dot.low + dot.high) / 2)
    assert chart.good == (chart.left, chart.limits[0].x)
    assert chart.limits[0].x == pytest.approx(dot.low + (dot.high - dot.low) / 4, abs=0.06)
    assert chart.left < dot.low < dot.high < chart.right


def test_panels_share_one_scale_and_put_the_better_curve_where_its_numbers_are():
    def curve(name, middle):
        points = [1.0, middle, 0.0]
        return {"map": name, "fraction": [0, 0.5, 1], "similarity": points, "low": points,
                "high": points}  # fmt: skip

    curves = [curve("explainer", 0.2), curve("control.edge", 0.8), curve("control.centre", 0.6)]
    edge, centre = charts.curve_panels(curves)
    assert edge.ticks_y == centre.ticks_y
    assert edge.curves[0] == centre.curves[0] or edge.curves[0].points == centre.curves[0].points
    y = [float(one.points.split()[1].split(",")[1]) for one in edge.curves]
    assert y[0] > y[1]  # lower similarity is lower on the page
    assert edge.title == "explainer against edge"


def test_the_mean_map_is_drawn_pixel_for_pixel():
    heat = charts.heat_map([[0.0, 0.5, 1.0], [1.0, None, 0.25]])
    data = base64.b64decode(heat.image.partition(",")[2])
    assert struct.unpack(">II", data[16:24]) == (3, 2)
    start = data.index(b"IDAT")
    size = struct.unpack(">I", data[start - 4 : start])[0]
    lines = zlib.decompress(data[start + 4 : start + 4 + size])
    ink = [lines[row * 7 + 2 + 2 * column] for row in range(2) for column in range(3)]
    assert ink == [0, 128, 255, 255, 0, 64]
    assert heat.coarse == ((0.0, 0.5, 1.0), (1.0, None, 0.25))


def _luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_text_has_aa_contrast_in_light_dark_and_print():
    sheet = resources.files("fxeval.scorecard").joinpath("style.css").read_text("utf-8")
    themes = [
        dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", block))
        for block in re.findall(r":root \{(.*?)\}", sheet, re.S)
    ]
    assert len(themes) == 3
    for theme in themes:
        texts = ("text", "muted", "link", "judged", *wording.VERDICTS)
        for name in texts:
            for ground in ("page", "surface"):
                a, b = sorted((_luminance(theme[name]), _luminance(theme[ground])))
                assert (b + 0.05) / (a + 0.05) >= 4.5, (name, ground)
        a, b = sorted((_luminance(theme["control"]), _luminance(theme["page"])))
        assert (b + 0.05) / (a + 0.05) >= 3.0


def test_no_template_marks_data_as_safe():
    sources = [
        item.read_text("utf-8")
        for item in resources.files("fxeval.scorecard").iterdir()
        if item.name.endswith(".j2")
    ]
    assert len(sources) == 8
    assert not [text for text in sources if re.search(r"\|\s*safe\b|autoescape", text)]


@pytest.mark.parametrize("module", [charts, page, wording])
def test_the_examples_of_the_docstrings_hold(module):
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


def test_a_browser_shows_the_page_without_a_message_or_a_sideways_scroll(tmp_path, html):
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    (tmp_path / "page.html").write_text(html, "utf-8")
    done = subprocess.run(
        [sys.executable, "-c", BROWSE, CHROMIUM, (tmp_path / "page.html").as_uri()],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"messages": [], "requests": 1, "overflow": [0, 0, 0]}


# In its own process: playwright's event loop must not meet pytest's warning filters.
BROWSE = """
import json, sys
from playwright.sync_api import sync_playwright
messages, requests, overflow = [], set(), []
with sync_playwright() as play:
    browser = play.chromium.launch(executable_path=sys.argv[1], args=["--no-sandbox",
        "--disable-gpu", "--disable-background-networking", "--disable-component-update",
        "--disable-sync"])
    for width, scheme in ((1200, "light"), (1200, "dark"), (390, "light")):
        tab = browser.new_context(
            viewport={"width": width, "height": 800}, color_scheme=scheme).new_page()
        tab.on("console", lambda message: messages.append(message.text))
        tab.on("pageerror", lambda error: messages.append(str(error)))
        tab.on("request", lambda one: one.url.startswith("data:") or requests.add(one.url))
        tab.goto(sys.argv[2])
        overflow.append(tab.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"))
    browser.close()
print(json.dumps({"messages": messages, "requests": len(requests), "overflow": overflow}))
"""


def test_a_cell_for_information_shows_its_worst_limit_and_says_how_that_would_end():
    cell = copy.deepcopy(next(one for one in EXAMPLE["cells"] if len(one["limits"]) > 1))
    for limit in cell["limits"]:
        limit["severity"] = "info"
        limit["verdict"]["outcome"] = "pass"
    worst = cell["limits"][-1]
    worst["verdict"]["outcome"] = "fail"
    cell["verdict"] = {"outcome": "information", "reason": "no limit decides: information only"}
    text = view.deciding_text(cell)
    assert text.startswith("(fail) ")
    assert limit_rows.limit_text(worst) in text


def test_the_matrix_shows_how_a_cell_for_information_would_have_ended(record):
    cell = record["cells"][2]
    for limit in cell["limits"]:
        limit["severity"] = "info"
    cell["verdict"] = {"outcome": "information", "reason": "no limit decides: information only"}
    worst = cell["limits"][1]
    assert worst["verdict"]["outcome"] == "fail"
    matrix = Reader(render(record)).section("matrix")
    value = wording.interval(worst["estimate"], *limit_rows.limit_lines(worst))
    assert f"information {value} {worst['text']}: fail, for information" in matrix
    assert "no limit decides" not in matrix
