"""Many conditions, transfer matrices, a choice among configurations, slices: tables, not charts."""

import base64
import copy
import doctest
import gzip
import hashlib
import json
import re
from html import unescape
from importlib import resources

import pytest
from markupsafe import escape

from fxeval.records.reading import read_record
from fxeval.records.writing import dumped
from fxeval.scorecard import (
    conditions,
    judged_under,
    limit_rows,
    markdown_summary,
    page,
    render,
    terminal_summary,
    transfers,
    wording,
)
from fxeval.tests.scorecard.test_scorecard import SCHEMA, Reader, _luminance, poison
from fxeval.tests.scorecard.wide import (
    CONTROLS,
    MODELS,
    cell_with,
    choosing_cell,
    limit_under,
    many_conditions,
    record_of,
    sliced_cell,
    transfer_matrix,
    wide_cell,
)

WARNING = "every generator leaves a fixed share untouched: an artefact of the area?"


def everything():
    """Return a record with one of each."""
    matrices = [transfer_matrix(), transfer_matrix(0.02, WARNING)]
    return record_of(choosing_cell(), sliced_cell(), transfers=matrices)


@pytest.fixture(scope="module")
def wide():
    return record_of(wide_cell())


@pytest.fixture(scope="module")
def wide_html(wide):
    return render(wide)


@pytest.fixture(scope="module")
def html():
    return render(everything())


@pytest.fixture(scope="module")
def read(html):
    return Reader(html)


def table_rows(html, caption):
    """Return the texts of the cells of the tables with a caption, row by row."""
    begin = re.escape(str(escape(caption)))
    found = re.findall(rf"<table[^>]*>\s*<caption>{begin}.*?</table>", html, re.S)
    rows = [row for one in found for row in re.findall(r"<tr.*?</tr>", one, re.S)]
    return [
        [
            unescape(" ".join(re.sub(r"<[^>]*>", " ", cell).split()))
            for cell in re.findall(r"<t[hd].*?</t[hd]>", row, re.S)
        ]
        for row in rows
    ]


def test_a_cell_of_300_conditions_by_8_maps_is_small_and_so_is_a_page_of_four(wide_html):
    start = wide_html.index('<section class="cell" id="cell-1"')
    assert start < (end := wide_html.index('<section id="method"'))
    assert len(wide_html[start:end].encode()) < 400_000
    four = render(record_of(*(wide_cell() for _ in range(4))))
    assert len(four.encode()) < page.SIZE_AIM
    assert "Left out to keep this page small" not in four
    assert len(re.findall(r'<svg class="chart', four)) < 50


def test_a_large_record_is_embedded_compressed_and_whole_and_the_digest_is_of_its_text(
    monkeypatch,
):
    record, whole = everything(), Reader(render(everything()))
    monkeypatch.setattr(page, "_PACKED_FROM", 10_000)
    read = Reader(render(record))
    assert ("script", "type", "application/gzip") in read.attributes
    text = gzip.decompress(base64.b64decode(read.raw["fxeval-record"]))
    assert text.decode() == whole.raw["fxeval-record"]
    assert json.loads(text) == dumped(read_record(record))
    assert hashlib.sha256(text).hexdigest() in read.text
    assert hashlib.sha256(text).hexdigest() in whole.text
    assert "compressed with gzip and written in base64; the SHA-256 of the JSON text" in read.text
    assert "gzip" not in whole.section("reproduce")


@pytest.mark.parametrize(("n", "is_drawn"), [(6, True), (7, False)])
def test_up_to_six_conditions_of_a_metric_are_drawn_and_more_are_a_table(n, is_drawn):
    text = render(record_of(cell_with(many_conditions()[:n])))
    assert (text.count('<figure class="metric">') == n) is is_drawn
    assert ("Values under many conditions" in text) is not is_drawn
    assert text.count('<table class="data many">') == (0 if is_drawn else 1)


def test_every_condition_stands_in_the_table_with_its_value_and_all_improvements(wide, wide_html):
    head, *rows = table_rows(wide_html, "Values and improvements")
    axes = ["evaluator", "fill", "fraction"]
    over = [f"over {wording.map_name(one)}" for one in CONTROLS]
    assert head == [*axes, "explainer", *over]
    found = {tuple(row[:3]): row[3:] for row in rows if row[:3] != axes}
    [cell] = wide["cells"]
    assert len(found) == 300
    for row in cell["estimates"]:
        if row["map"] == "explainer":
            key = tuple(wording.plain(row["under"][axis]) for axis in axes)
            assert found[key][0] == wording.interval(row)
    for row in cell["differences"]:
        key = tuple(wording.plain(row["under"][axis]) for axis in axes)
        text = found[key][1 + CONTROLS.index(row["control"])]
        assert text.endswith(wording.interval(row, 0.0))
        assert (text[0] == "▲") is (row["low"] > 0)
        assert (text[0] == "▼") is (row["high"] < 0)


def test_the_table_begins_with_the_least_improvement_and_folds_all_but_thirty(wide, wide_html):
    folded = re.search(r"<details><summary>270 more rows</summary>.*?</details>", wide_html, re.S)
    assert folded
    seen = table_rows(wide_html.replace(folded[0], ""), "Values and improvements")
    assert len(seen) == 31
    least = {}
    for row in wide["cells"][0]["differences"]:
        key = tuple(wording.plain(value) for value in row["under"].values())
        least[key] = min(row["low"], least.get(key, 9.0))
    assert [tuple(row[:3]) for row in seen[1:]] == sorted(least, key=least.get)[:30]
    assert "300 conditions, each on 120 pairs of 40 identities; the one with the least" in wide_html
    better = sum(low > 0 for low in least.values())
    assert f"better than each other map in {better} of them, and worse than at least" in Reader(
        wide_html
    ).section("cell-1")


def test_two_axes_make_a_grid_and_three_do_not(wide_html):
    assert '<table class="data grid">' not in wide_html
    under = [one for one in many_conditions() if one[0]["fill"] == "black"][:15]
    html = render(record_of(cell_with(under)))
    head, *rows = table_rows(html, "gradcam: value")
    assert head == ["fraction by evaluator", *(f"evaluator network_{e:02d}" for e in range(3))]
    assert [row[0] for row in rows] == ["0.005", "0.01", "0.02", "0.05", "0.1"]
    assert rows[1][2].startswith("0.390 [0.370, 0.410] better than ")
    assert "Mated pairs still accepted after occlusion, fill black" in html
    assert len(table_rows(html, "Values and improvements")) == 16


def test_identities_are_a_column_where_they_differ():
    under = [(one, {**more, "n": 40 + (i == 3)}) for i, (one, more) in enumerate(many_conditions())]
    head, *rows = table_rows(render(record_of(cell_with(under[:9]))), "Values and improvements")
    assert head[2:5] == ["identities", "pairs", "explainer"]
    assert sorted(row[2] for row in rows) == ["40"] * 8 + ["41"]


def test_rows_that_no_page_could_hold_are_counted(monkeypatch):
    monkeypatch.setattr(conditions, "MOST", 40)
    html = render(record_of(cell_with(many_conditions()[:50])))
    assert len(table_rows(html, "Values and improvements")) == 1 + 30 + 1 + 10
    assert "The embedded record holds 10 more rows." in html


def test_a_page_that_is_too_large_leaves_out_the_folded_rows_and_says_so(monkeypatch, wide):
    monkeypatch.setattr(page, "SIZE_AIM", 1000)
    html = render(wide)
    assert len(table_rows(html, "Values and improvements")) == 31
    assert "rows of long tables after the first 30" in html
    assert "270 more rows are left out here" in html


def test_of_a_limit_that_is_judged_300_times_the_six_worst_are_shown_and_the_rest_counted(
    wide, wide_html
):
    [cell] = wide["cells"]
    read = Reader(wide_html)
    failed = [one for one in cell["limits"] if one["verdict"]["outcome"] == "fail"]
    worst = sorted(failed, key=lambda one: -one["estimate"]["high"])[:6]
    rest = f"and under 294 more conditions: {len(failed) - 6} fail, {300 - len(failed)} pass"
    assert rest in read.section("cell-1")
    assert f"and under {len(failed) - 6} more conditions: {len(failed) - 6} fail." in read.section(
        "decided"
    )
    shown = limit_rows.shown(cell["limits"])
    assert [one["under"] for one in shown] == [one["under"] for one in worst]
    for one in worst:
        assert limit_rows.limit_text(one) in read.section("cell-1")
        assert one["verdict"]["reason"] in read.section("decided")
    said = f"{len(failed)} of 300 results of critical limits failed; the worst: "
    for text in (read.section("decided"), read.section("cell-1")):
        assert said + worst[0]["verdict"]["reason"] in text
    assert len([line for line in terminal_summary(wide) if said in line]) == 1
    assert max(map(len, terminal_summary(wide))) < 400
    summary = markdown_summary(wide)
    assert f"and {len(failed) - 6} more limits that were not passed" in summary
    assert len(summary) < 10_000


def test_warnings_under_many_conditions_are_counted_too():
    limits = [limit_under(under, 0.7) for under, _ in many_conditions()[:20]]
    cell = cell_with([], limits=[{**one, "severity": "warning"} for one in limits])
    text = Reader(render(record_of(cell))).section("shown")
    assert text.count("fail warning:") == 6
    assert "occlusion_tmr at most 0.55: and under 14 more conditions: 14 fail" in text


def test_curves_under_many_conditions_are_drawn_for_six():
    ends = {key: [1.0, 0.0] for key in ("fraction", "similarity", "low", "high")}
    curve = {"kind": "deletion", "map": "explainer", **ends}
    curves = [{**curve, "under": {"fraction": i / 10}} for i in range(9)]
    html = render(record_of(cell_with([], curves=curves)))
    assert html.count('<figure class="curves">') == 6
    assert "The embedded record holds the curves of 3 more conditions." in html


def test_a_matrix_shows_every_value_with_its_interval_and_the_means(html):
    matrix = transfer_matrix()
    for table in matrix["tables"][:2]:
        rows = table_rows(html, wording.begun(transfers._TITLES[table["metric"]]))
        assert rows[0] == ["maps of ↓ judged by →", *MODELS, "mean", "mean without own"]
        for i, generator in enumerate(MODELS):
            assert rows[1 + i] == [
                generator,
                *(
                    wording.interval(
                        {key: table[of][i][j] for key, of in
                         (("value", "values"), ("low", "low"), ("high", "high"))}
                    )
                    for j in range(len(MODELS))
                ),
                wording.number(table["row_means"][i]),
                wording.number(table["row_means_without_self"][i]),
            ]  # fmt: skip
        assert rows[5] == [
            "mean of the column",
            *map(wording.number, table["column_means"]),
            "",
            "",
        ]
    rows = table_rows(html, "Mated pairs still accepted: lower = stronger")
    assert rows[7] == ["clean: nothing occluded", "0.980", "0.950", "0.920", "0.900", "", ""]
    assert rows[8][:2] == ["control random pixels", "0.970"]
    agreement = table_rows(html, "Spearman")
    assert agreement[1] == ["mini_resnet", "1.00", "0.70", "0.60", "0.50"]


def test_the_darker_the_ground_the_stronger_the_map_and_own_maps_are_outlined():
    [one] = transfers.transfers({"transfers": [transfer_matrix()]})
    by_metric = dict(zip([t["metric"] for t in one.matrix["tables"]], one.tables, strict=True))
    for metric, sign in (("occlusion_tmr", -1), ("occlusion_cosine_drop", 1)):
        entries = [entry for _, row, _ in by_metric[metric].rows for entry in row]
        ordered = sorted(entries, key=lambda entry: sign * float(entry.value))
        shades = [entry.shade for entry in ordered]
        assert shades == sorted(shades)
        assert (shades[0], shades[-1]) == (0, 8)
        assert [entry.is_own for entry in entries] == [i // 4 == i % 4 for i in range(16)]
    assert {entry.shade for _, row, _ in by_metric["occlusion_area"].rows for entry in row} == {
        None
    }


def test_text_on_every_shade_has_aa_contrast():
    sheet = resources.files("fxeval.scorecard").joinpath("style.css").read_text("utf-8")
    grounds = dict(re.findall(r"\.transfer \.q(\d) \{ background: (#[0-9a-f]{6})", sheet))
    assert len(grounds) == 9
    for shade, ground in grounds.items():
        [ink] = re.findall(rf"\.q{shade}(?:, [^{{]*)? \{{ color: (#[0-9a-f]{{6}})", sheet)
        a, b = sorted((_luminance(ink), _luminance(ground)))
        assert (b + 0.05) / (a + 0.05) >= 4.5, shade


def test_a_matrix_that_looks_like_an_artefact_is_warned_of_everywhere_and_no_other():
    said = f"1 of 2 transfer matrices: {WARNING}"
    record = everything()
    assert render(record).count(f'<p class="banner" role="note">{wording.begun(WARNING)}</p>') == 1
    assert f'<p class="banner" role="note">{said}</p>' in render(record)
    assert f"! {said}" in terminal_summary(record)
    assert "looks like an artefact" in markdown_summary(record)
    record["transfers"][1]["warning"] = ""
    for show in (render, markdown_summary, lambda one: "\n".join(terminal_summary(one))):
        assert "artefact" not in show(record).partition("fxeval-record")[0]


def test_terminal_and_markdown_tell_the_means_of_each_matrix():
    record = everything()
    [line, _] = [line for line in terminal_summary(record) if line.startswith("transfer  ")]
    assert line == (
        "transfer  transfer of gradcam on rendered, fill black, fraction 0.01: of mated pairs "
        "0.938 are accepted with nothing occluded, 0.438 with a model's own maps, 0.713 with those "
        "of others"
    )
    row = "| transfer | gradcam | rendered | black | 0.01 | 0.438 | 0.713 | 1.000 | 0.450 | none |"
    assert row in markdown_summary(record)


def test_of_many_matrices_six_are_drawn_and_all_are_rows_of_a_table():
    matrices = [transfer_matrix(round(0.01 * i, 2)) for i in range(1, 10)]
    html = render(record_of(choosing_cell(), transfers=matrices))
    assert html.count('<div class="transfers">') == 6
    assert len(table_rows(html, "All matrices")) == 10
    assert "The first 6 are drawn below; the embedded record holds all." in html
    assert len(html.encode()) < 500_000


def test_missing_numbers_of_a_matrix_are_named():
    matrix = transfer_matrix()
    for table in matrix["tables"]:
        table["values"][0][1] = table["low"][0][1] = table["high"][0][1] = None
        table["row_means"][0] = None
    matrix["clean"] = [None] * 4
    html = render(record_of(choosing_cell(), transfers=[matrix]))
    row = table_rows(html, "Mated pairs still accepted: lower")[1]
    assert (row[2], row[5]) == ("none", "none")
    assert "none are accepted" in "".join(terminal_summary(record_of(transfers=[matrix])))


def test_the_choice_shows_both_halves_the_selected_the_equal_and_the_refused(read, html):
    text = read.section("cell-1")
    assert "Selected: layer layer4, objective cosine: best of 4 with maps of their own" in text
    assert (
        "Optimism gap: on the half that chose it, the selected configuration looks 0.040 better "
        "than on the other half; all candidates together look 0.038 better there. On the other "
        "half it has place 1 of 4."
    ) in text
    assert "gradcam as the suite gives it: 0.700 [0.680, 0.720] on the half that chooses" in text
    assert table_rows(html, "Mated pairs still accepted after occlusion, lower is better") == [
        ["layer by objective", "objective cosine", "objective arcface 0.2", "objective triplet"],
        [
            "layer3",
            "chooses 0.610 [0.590, 0.630] reports 0.650 [0.630, 0.670]",
            "chooses 0.630 [0.610, 0.650] reports 0.670 [0.650, 0.690]",
            "chooses 0.720 [0.700, 0.740] reports 0.760 [0.740, 0.780]",
        ],
        [
            "layer4",
            "selected chooses 0.520 [0.500, 0.540] reports 0.560 [0.540, 0.580]",
            "same maps as layer layer4, objective cosine",
            "not measured: no triplet of this person",
        ],
    ]
    assert html.count('<td class="selected">') == 1


def test_the_selected_configuration_is_one_line_on_terminal_and_in_markdown():
    said = (
        "of 6 configurations selected layer layer4, objective cosine: Mated pairs still accepted "
        "after occlusion 0.560 [0.540, 0.580] on the half that had no part in the choice, 0.520 "
        "[0.500, 0.540] on the other"
    )
    record = everything()
    assert f"selected  search-0[m-e-p]: {said}" in terminal_summary(record)
    assert markdown_summary(record).count("of 6 configurations selected layer layer4") == 1


def test_if_none_was_selected_it_says_why():
    cell = choosing_cell()
    cell["selection"] |= {
        "selected": None, "selection": None, "report": None, "optimism": None,
        "shared_gap": None, "report_rank": None, "reason": "no row has a value", "candidates": [],
        "as_given_selection": None, "as_given_report": None,
    }  # fmt: skip
    record = record_of(cell)
    said = "f 6 configurations none was selected: no row has a value"
    assert f"O{said}." in Reader(render(record)).section("cell-1")
    assert f"selected  search-0[m-e-p]: o{said}" in terminal_summary(record)


@pytest.mark.parametrize("n", [1, 3])
def test_configurations_that_make_no_grid_are_a_list(n):
    cell = choosing_cell()
    more = {f"axis{i}": "a" for i in range(n - 2)} if n > 2 else {}
    for one in cell["selection"]["candidates"]:
        one["under"] = {**one["under"], **more} if more else {"layer": str(id(one))}
        one["same"] = []
    cell["selection"] |= {"refused": [], "selected": cell["selection"]["candidates"][0]["under"]}
    cell["configurations"] = []
    rows = table_rows(render(record_of(cell)), "Mated pairs still accepted after occlusion, lower")
    assert rows[0] == ["configuration", "values on both halves"]
    assert len(rows) == 1 + 4
    assert rows[1][1].startswith("selected chooses 0.520")


def test_slices_are_a_table_each_with_identities_and_say_where_there_are_too_few(read, html):
    text = read.section("cell-2")
    assert (
        "Of 3 slices by look, 'with <b>glasses</b>' is the worst: Mated pairs still accepted after "
        "occlusion, fill black: 0.720 [0.700, 0.740] on 12 identities, too few to pass; "
        "slices of fewer than 10 identities are not compared."
    ) in text
    assert "Of 2 slices by yaw, 'below -15' is the worst" in text
    rows = table_rows(html, "Values and improvements")
    look = next(i for i, row in enumerate(rows) if row[0] == "look")
    assert rows[look][:5] == ["look", "identities", "pairs", "explainer", "over random pixels"]
    assert [row[:2] for row in rows[look + 1 : look + 4]] == [
        ["with <b>glasses</b>", "12 too few to pass"],
        ["hat", "6 too few for a verdict"],
        ["smiling", "40"],
    ]
    assert rows[look + 3][3:5] == ["0.380 [0.360, 0.400]", "▲ 0.520 [0.500, 0.540]"]


def test_slices_are_drawn_nowhere_else_and_all_rows_stay_a_chart():
    html = render(record_of(sliced_cell()))
    assert html.count('<figure class="metric">') == 1
    assert "fill black, look" not in html.partition("fxeval-record")[0]


def test_the_worst_slice_is_named_by_terminal_and_markdown():
    record = record_of(sliced_cell())
    lines = [line for line in terminal_summary(record) if line.startswith("slices  ")]
    assert len(lines) == 2
    assert "'with <b>glasses</b>' is the worst" in lines[0]
    assert "'with &lt;b&gt;glasses&lt;/b&gt;' is the worst" in markdown_summary(record)


def test_the_worst_slice_of_a_search_is_one_of_what_was_chosen_on_the_report_half():
    asked = {"fill": "black", "look": "smiling"}
    chosen = {**asked, "configuration": "selected"}
    conditions_ = [
        ({**asked, "half": "report", "layer": "layer3", "objective": "cosine"}, {"own": 0.9}),
        ({**chosen, "half": "selection"}, {"own": 0.8}),
        ({**chosen, "half": "report"}, {"own": 0.7}),
        ({**chosen, "half": "report", "look": "hat"}, {"own": 0.6}),
    ]
    slices, selection = [{"column": "look", "edges": []}], choosing_cell()["selection"]
    [said] = conditions.worst_slices(cell_with(conditions_, slices=slices, selection=selection))
    assert "of 2 slices by look, 'smiling' is the worst" in said
    assert ": 0.700 [" in said


def test_a_slice_of_few_people_is_not_called_the_worst_unless_all_are():
    cell = sliced_cell()
    for row in cell["estimates"]:
        if row["under"].get("look") == "hat" and row["map"] == "explainer":
            row |= {"value": 0.99, "low": 0.9, "high": 1.0}
    assert "'with <b>glasses</b>' is the worst" in conditions.worst_slices(cell)[0]
    for row in cell["estimates"]:
        row["n_identities"] = 4
    said = conditions.worst_slices(cell)[0]
    assert "'hat' is the worst" in said
    assert said.endswith("on 4 identities, too few for a verdict")


def test_the_worst_slice_is_that_of_the_metric_that_decides_and_in_its_direction():
    cell = sliced_cell()
    other = {**cell["metrics"][0], "name": "drop", "title": "Drop", "better": "higher"}
    cell["metrics"].append(other)
    cell["estimates"] += [{**row, "metric": "drop"} for row in cell["estimates"]]
    cell["limits"] = [{**limit_under({}, 0.4), "metric": "drop"}]
    [look, _] = conditions.worst_slices(cell)
    assert look.startswith("of 3 slices by look, 'smiling' is the worst: Drop")


@pytest.mark.parametrize("kept", [set(), {"map", "metric", "name", "control", "column"}])
def test_no_name_of_these_parts_becomes_markup(kept):
    hostile = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>{{7*7}}</style>"
    poisoned = poison(copy.deepcopy(everything()), SCHEMA, hostile, kept)
    html = render(poisoned)
    read = Reader(html)
    assert read.tags.count("script") == 1
    assert "img" not in read.tags
    assert not [key for _, key, _ in read.attributes if key.startswith("on")]
    assert f"judged by → {hostile}mini_resnet" in read.section("transfer")
    assert not re.search(r"^\s*49", read.section("cell-1"))
    text = "\n".join(terminal_summary(poisoned))
    assert not set("\x1b\u202e") & set(text)


def test_no_name_of_these_parts_becomes_markdown():
    hostile = "\n## Free | b ||\n<script>x</script> [x](http://evil.example) @everyone #1 `c` "
    text = markdown_summary(poison(everything(), SCHEMA, hostile, set()))
    assert set(re.findall(r"<[^>]*>", text)) <= {"<br>"}
    assert len(re.findall(r"^#+ .*", text, re.M)) <= 3
    for block in re.findall(r"(?:^\|.*\|\n)+", text, re.M):
        assert len({line.count("|") for line in block.splitlines()}) == 1
    bare = re.sub(r"\\.|&#124;", "", text.replace("[low, high]", ""))
    assert not re.findall(r"[\[\]`~$]|@\w|#\d|://", bare)


def test_these_tables_have_heads_scroll_regions_and_no_link_without_a_target(html, read):
    tables = re.findall(r"<table.*?</table>", html, re.S)
    assert all('<th scope="col">' in one for one in tables)
    regions = re.findall(
        r'<div class="scroll" tabindex="0" role="region" aria-label="[^"]+">', html
    )
    assert len(regions) >= html.count('<table class="data')
    ids = [value for _, key, value in read.attributes if key == "id"]
    assert len(ids) == len(set(ids))
    links = {v[1:] for _, key, v in read.attributes if key == "href" and v.startswith("#")}
    assert "transfer" in links
    assert links <= set(ids)


def test_the_record_alone_gives_the_same_page_and_is_not_changed(html):
    record = everything()
    before = copy.deepcopy(record)
    assert render(dumped(read_record(record))) == html == render(record)
    assert record == before


def test_a_record_without_these_parts_has_no_section_for_them():
    html = render(record_of(cell_with(many_conditions()[:2])))
    for absent in ('id="transfer"', "<h4>Slices", "<h4>Choice", "Values under many conditions"):
        assert absent not in html


@pytest.mark.parametrize(
    "kind",
    ["generalisability.occlusion", "transfer.cross_model", "search.layer_objective",
     "faithfulness.guided_occlusion", "patterns.similarity", "patterns.regions"],
)  # fmt: skip
def test_the_page_says_what_each_of_these_checks_does(kind):
    text = Reader(render(record_of(cell_with(many_conditions()[:1], kind=kind)))).section("cell-1")
    assert f"What was done. {wording.KINDS[kind]}" in text


def test_the_page_explains_their_controls_and_fills(read):
    for name in ("shuffled_identity", "unoccluded", "own_map", "as_given"):
        assert f"{wording.map_name(name)} {wording.CONTROLS[name]}" in read.section("method")
    for name in ("white", "random"):
        assert f"{name} {wording.FILLS[name]}" in read.section("method")


def test_the_examples_of_the_docstrings_hold():
    result = doctest.testmod(conditions)
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize(
    ("kind", "seen"),
    [
        ("patterns.regions", "people"),
        ("classifier.deletion_retention", "images"),
        ("generalisability.occlusion", "pairs"),
    ],
)
def test_page_and_terminal_say_what_the_rows_of_a_check_are(kind, seen):
    few = [({"fraction": 0.1}, {"own": 0.5})]
    record = record_of(cell_with(few, kind=kind), cell_with(many_conditions(1), kind=kind))
    shown = Reader(render(record)).text
    others = {"people", "images", "pairs"} - {seen}
    assert f"all on the same {seen}." in shown
    assert f"25 conditions, each on 120 {seen}" in shown
    assert f"explainer's maps over all {seen}," in shown
    assert not any(f"25 conditions, each on 120 {other}" in shown for other in others)
    assert terminal_summary(record)[2].endswith(f" {seen} a cell")


def test_a_run_of_several_kinds_counts_rows_in_the_terminal():
    kinds = ("patterns.regions", "patterns.similarity")
    record = record_of(*(cell_with([({}, {})], kind=kind) for kind in kinds))
    assert terminal_summary(record)[2].endswith(" rows a cell")


def test_units_and_statistics_keep_their_capitals():
    cell = cell_with(many_conditions(1))
    cell["metrics"] = [{**cell["metrics"][0], "unit": "area under the ROC curve"}]
    assert "Area under the ROC curve; mean and" in render(record_of(cell))
    assert wording.statistic_text("auc") == "AUC"


ASKED = ("discriminative", "pairwise")


def two_questions(limits=(), controls=("random_blobs", "oracle", "blurred_oracle")):
    """Return a cell of two parts under two questions, of which the limits pin the first."""
    found = [
        ({"question": question, "part": part}, {"own": own, "controls": controls})
        for question, first in zip(ASKED, (0.2, 0.85), strict=True)
        for part, own in (("eyes", first), ("nose", first + 0.05))
    ]
    found += [({"question": question}, {"controls": controls}) for question in ASKED]
    asked = [{"under": under} for under in limits]
    return cell_with(found, slices=[{"column": "part", "edges": []}], asked=asked)


def test_what_no_limit_is_about_is_folded_and_has_no_worst_slice():
    cell = two_questions([{"question": "discriminative"}] * 2)
    [(column, tables)] = conditions.slice_tables(cell)
    assert column == "part"
    assert [(table.under, table.is_aside) for table in tables] == [
        (", question discriminative", False),
        (", question pairwise", True),
    ]
    assert [len(table.rows) for table in tables] == [2, 2]
    [said] = conditions.worst_slices(cell)
    assert "'nose' is the worst" in said
    assert "question discriminative: 0.250" in said
    cell["asked"] = []
    html = render(record_of({**cell, "limits": [dict(limit_under({"question": "pairwise"}, 0.9))]}))
    folded = re.findall(r"<summary>(Under conditions that no limit is about: .*?)</summary>", html)
    assert [one.rpartition(": ")[2] for one in folded] == ["1 chart", "1 table"]


@pytest.mark.parametrize(
    "limits",
    [
        [],
        [{}],
        [{"question": "discriminative"}, {}],
        [{"question": "discriminative"}, {"question": "pairwise"}],
        [{"part": "nose"}],  # one slice is compared with the others all the same
    ],
)
def test_everything_counts_where_the_limits_leave_it_open(limits):
    cell = two_questions(limits)
    assert judged_under.judged_under(cell) == {}
    [(_, [table])] = conditions.slice_tables(cell)
    assert len(table.rows) == 4
    assert not table.is_aside
    [said] = conditions.worst_slices(cell)
    assert "question pairwise: 0.900" in said
    assert "Under conditions that no limit" not in render(record_of({**cell, "asked": []}))


def test_nobody_is_blamed_for_being_worse_than_an_oracle():
    [(_, [table])] = conditions.slice_tables(two_questions())
    better = "The explainer is shown better than each other map but the oracles in 3 of them"
    assert better in table.said
    assert table.said.endswith("and worse than at least one in 0.")
    [(_, [table])] = conditions.slice_tables(two_questions(controls=("random_blobs", "centre")))
    assert "each other map in 2 of them, and worse than at least one in 2." in table.said
    [(_, [table])] = conditions.slice_tables(two_questions(controls=("oracle",)))
    assert table.said == "4 slices; the worst first."


def test_the_examples_of_judged_under_hold():
    result = doctest.testmod(judged_under)
    assert result.attempted > 0
    assert result.failed == 0
