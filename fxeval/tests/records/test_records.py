"""Records and rows: what is written is read back equal, and what is damaged is named."""

import copy
import json
import math
from pathlib import Path

import jsonschema
import pytest
from pydantic import ValidationError

from fxeval.errors import StoreError
from fxeval.records.judged import LimitEntry
from fxeval.records.reading import load_record, read_record, read_rows
from fxeval.records.schema import CellPlan, Measured, Record, Row, json_schema
from fxeval.records.writing import RowFile, dump, dumped, plain
from fxeval.results import Better
from fxeval.scorecard import render, terminal_summary
from fxeval.scorecard.verification_rows import lines, views
from fxeval.statistics.holm import regressions_of
from fxeval.statistics.limits import FORMS
from fxeval.statistics.redrawn import network_notes
from fxeval.statistics.results import limit_of, rederived
from fxeval.tests.statistics import judged_cells

RECORDS = Path(__file__).parents[1] / "records"
TEXTS = {n: (RECORDS / f"example_v{n}.json").read_text("utf-8") for n in (1, 2)}


@pytest.fixture
def first():
    return json.loads(TEXTS[1])


@pytest.fixture
def second():
    return json.loads(TEXTS[2])


def a_row(name="1-2", *, identities=(3,), value=0.25, **more) -> Row:
    measured = [
        Measured(
            map=map_, under={"fill": "blur", "fraction": 0.01}, values={"m": value, "o": 1.0},
            states={"m": "ok", "o": "not_crossed"}, curves={"deletion": [1.0, value, 1e-300]},
        )
        for map_ in ("explainer", "control.centre")
    ]  # fmt: skip
    return Row(
        cell="c[m-e-p]", row=name, identities=list(identities), state="ok", measured=measured,
        diagnostics={"probe": {"share": value}}, constant_under=["re-drawn network 1"],
        thumbnail=[[0.0, 1.0] * 14] * 28, **more,
    )  # fmt: skip


# --- version 1


def test_a_record_of_the_first_version_says_today_what_it_said_then(first):
    before = copy.deepcopy(first)
    record = read_record(first)
    assert first == before
    assert record.record == 2
    assert record.verdict.model_dump(mode="json") == first["verdict"]
    for cell, old in zip(record.cells, first["cells"], strict=True):
        assert cell.verdict.model_dump(mode="json") == old["verdict"]
        assert (cell.id, cell.n_pairs, cell.notes) == (old["id"], old["n_pairs"], old["notes"])
        assert cell.mean_map == old["mean_map"]
        declared = {metric.name: metric for metric in cell.metrics}
        for entry, row in zip(cell.estimates, old["estimates"], strict=True):
            metric = declared[row["metric"]]
            assert (metric.title, metric.unit, metric.better) == (
                row["title"], row["unit"], row["better"])  # fmt: skip
            assert (entry.map, entry.value, entry.low) == (row["map"], row["value"], row["low"])
            assert entry.under == ({"fill": row["fill"]} if row["fill"] else {})
        for entry, row in zip(cell.differences, old["differences"], strict=True):
            assert (entry.control, entry.value) == (row["control"], row["value"])
        for band, row in zip(cell.curves, old["curves"], strict=True):
            assert (band.kind, band.map, band.similarity) == (
                row["kind"], row["map"], row["similarity"])  # fmt: skip
    excluded = record.subjects.pairs["rendered"].excluded
    assert excluded == {"the two images are identical <&>": 1}


def test_limits_of_the_first_version_have_the_keys_of_a_suite(first):
    limits = [limit for cell in read_record(first).cells for limit in cell.limits]
    old = [limit for cell in first["cells"] for limit in cell["limits"]]
    for limit, before in zip(limits, old, strict=True):
        assert (limit.text, limit.where) == (before["text"], before["where"])
        assert limit.estimate.value == before["estimate"]["value"]
        meant = limit_of(limit)
        assert meant.form == before["form"]
        if before["form"] == "better_than":
            assert limit.better_than == f"control.{before['control']}"
            assert meant.absolute == limit.line == before["by_absolute"]
            assert meant.relative == before["by_relative"]
        else:
            assert meant.line() == limit.line == before["bound"]
    assert {limit_of(limit).form for limit in limits} == {"at_most", "at_least", "better_than"}


@pytest.mark.parametrize("version", [1, 2])
def test_every_version_is_shown(version):
    record = load_record(RECORDS / f"example_v{version}.json")
    assert render(dumped(record)) == render(json.loads(TEXTS[version]))
    assert terminal_summary(dumped(record)) == terminal_summary(json.loads(TEXTS[version]))


def test_a_list_of_verification_of_the_first_version_is_a_pair_list(first, second):
    [entry] = copy.deepcopy(second["verification"])
    entry["list"] = entry.pop("pair_list")
    entry["limits"][0] = {
        "metric": "verification_accuracy", "form": "at_least", "bound": 0.9, "where": "s.yaml:1:1",
        "text": "verification_accuracy at least 0.9", "verdict": entry["limits"][0]["verdict"],
    }  # fmt: skip
    first["verification"] = [entry]
    [found] = read_record(first).verification
    assert found.pair_list == "rendered_faces"
    assert (found.limits[0].at_least, found.limits[0].at_most) == (0.9, None)


# --- version 2


def test_a_record_comes_back_equal(second):
    record = read_record(second)
    assert dumped(record) == second
    assert dump(record) == TEXTS[2]
    assert read_record(dumped(record)) == record
    assert read_record(record) is record


def test_a_record_from_before_networks_were_redrawn_in_steps_is_read(second):
    [network] = [one for cell in second["cells"] for one in cell["networks"]]
    for key in ("layers", "buffers_share", "kept", "auc", "auc_pairs"):
        del network[key]
    [found] = [one for cell in read_record(second).cells for one in cell.networks]
    assert (found.layers, found.buffers_share, found.kept, found.auc) == ("", None, [], None)
    [note] = network_notes([found], [])
    assert "buffers" not in note
    assert "AUC" not in note


def test_a_record_from_before_claims_had_to_be_shown_is_read_and_says_no_more_than_it_knew(second):
    [entry] = second["verification"]
    for key in ("list_digest", "n_crossed", "crossed_thresholds", "floor"):
        del entry[key]
    del entry["operating_threshold"]["fault"]
    for claim in entry["claims"]:
        for key in ("of", "list_digest", "protocol"):
            del claim[key]
    [found] = read_record(second).verification
    assert {claim.of for claim in found.claims} == {None}
    assert found.floor is None
    text = " ".join(lines(dumped(read_record(second))))
    words = [one.word for one in views(dumped(read_record(second)))[0].judged]
    assert words.count("not refuted") == len(entry["claims"])
    assert "shown" not in words
    assert "refuted" not in text.replace("not refuted", "")


def test_the_sample_holds_what_runs_write(second):
    record = read_record(second)
    cells = record.cells
    assert any(cell.refusal for cell in cells)
    assert any(cell.networks for cell in cells)
    assert any(cell.explaining for cell in cells)
    assert any(cell.mean_map for cell in cells)
    assert any(len(cell.asked) < len(cell.limits) for cell in cells)  # one limit, two conditions
    forms = {limit_of(limit).form for cell in cells for limit in cell.limits}
    assert forms >= {"at_most", "at_least", "better_than"}
    assert record.verification[0].measured


def test_a_record_from_before_limits_compared_with_earlier_runs_is_read_as_it_was(second):
    later = {"not_worse_than", "equivalent_to", "within", "over", "judge", "region", "p_value",
             "p_opposite", "detectable", "settles", "hangs_on_one", "seeds"}  # fmt: skip
    old = copy.deepcopy(second)
    old.pop("regressions", None)
    for cell in old["cells"]:
        cell.pop("seeds", None)
        cell["limits"] = [
            {key: one for key, one in limit.items() if key not in later} for limit in cell["limits"]
        ]
        cell["asked"] = [
            {key: one for key, one in limit.items() if key not in later} for limit in cell["asked"]
        ]
    record = read_record(old)
    assert record.regressions is None
    limits = [limit for cell in record.cells for limit in cell.limits]
    assert {(one.over, one.judge, one.seeds) for one in limits} == {("population", "each", None)}
    assert [one.verdict for one in limits] == [
        one.verdict for cell in read_record(second).cells for one in cell.limits
    ]


def test_models_of_a_record_are_grouped_by_their_tags(first, second):
    assert read_record(first).models_by("family") == {None: ("mini_resnet",)}  # before tags
    [one] = second["subjects"]["models"].values()
    tags = {
        "a": {"training_data": "real", "family": "mobile"},
        "b": {"training_data": "synthetic", "family": "hybrid"},
        "c": {"training_data": "real", "family": None},
    }
    second["subjects"]["models"] = {name: {**one, "tags": said} for name, said in tags.items()}
    record = read_record(second)
    assert record.models_by("training_data") == {"real": ("a", "c"), "synthetic": ("b",)}
    assert record.models_by("family") == {"mobile": ("a",), "hybrid": ("b",), None: ("c",)}
    second["subjects"]["models"]["a"]["tags"]["family"] = "cnn"
    with pytest.raises(StoreError, match=r"subjects\.models\.a\.tags\.family"):
        read_record(second)


def test_every_form_of_a_limit_comes_back_with_what_it_rests_on(second):
    asked = [
        {"at_most": 0.5, "judge": "worst"},
        {"at_least": 0.1, "over": "list"},
        {"better_than": "explainer:other", "by": {"relative": 0.1}},
        {"not_worse_than": "baseline", "within": {"absolute": 0.05}},
        {"equivalent_to": "base", "within": {"absolute": 0.05}},
    ]
    maps = ("explainer", "explainer:other", "baseline", "base")
    values = {map_: judged_cells.spread(0.3 + 0.01 * place) for place, map_ in enumerate(maps)}
    rows: list[Row] = []
    found = judged_cells.cell(asked, values, rows=lambda made: rows.extend(made) or made)
    record = read_record(second).model_copy(
        update={"cells": [found], "regressions": regressions_of([found])}
    )
    again = read_record(json.loads(dump(record)))
    assert again == record
    assert [limit_of(one).form for one in again.cells[0].limits] == list(FORMS)
    assert [limit_of(one) for one in found.asked] == [limit_of(one) for one in again.cells[0].asked]
    assert len(again.regressions.tested) == 1
    judged_again = rederived(again.model_copy(update={"regressions": None}), rows)
    assert (judged_again.cells, judged_again.regressions) == (record.cells, record.regressions)


def test_the_class_of_an_explainer_stands_under_its_word(second):
    assert dumped(read_record(second))["subjects"]["explainers"]["gradcam"]["class"] == "GradCAM"


def test_what_is_nan_in_memory_is_null_in_a_file(second):
    [entry] = second["verification"]
    entry["figures"][0] |= {"value": math.nan, "low": -math.inf, "high": math.inf}
    figure = Record.model_validate(second).verification[0].figures[0]
    assert (figure.value, figure.low, figure.high) == (None, None, None)


DAMAGES = [
    (lambda r: r.update(record=3), r"expected format version 1 or 2, got 3"),
    (lambda r: r.update(record=True), r"expected format version 1 or 2, got True"),
    (lambda r: r.update(record="2"), r"expected format version 1 or 2, got '2'"),
    (lambda r: r.pop("record"), r"expected format version 1 or 2, got None"),
    (lambda r: r["run"].pop("command"), r"run\.command: Field required"),
    (lambda r: r["cells"][1]["estimates"][3].pop("low"), r"cells\.1\.estimates\.3\.low: Field"),
    (lambda r: r["cells"][0].update(score=1), r"cells\.0\.score: Extra inputs .*, got 1"),
    (lambda r: r.update(signed=[]), r"signed: Extra inputs are not permitted"),
    (lambda r: r["suite"].update(seed="1"), r"suite\.seed: .*integer, got '1'"),
    (lambda r: r["cells"][2].update(n_pairs=-1), r"cells\.2\.n_pairs: .*got -1"),
    (lambda r: r["cells"][2].update(n_pairs=True), r"cells\.2\.n_pairs: .*got True"),
    (lambda r: r["run"].update(complete="yes"), r"run\.complete: .*got 'yes'"),
    (lambda r: r.update(banners="one"), r"banners: .*array, got 'one'"),
    (lambda r: r.update(cells={}), r"cells: Input should be a valid array"),
    (lambda r: r["cells"][0]["verdict"].update(outcome="ok"), r"cells\.0\.verdict\.outcome: "),
    (lambda r: r["run"].update(seconds=math.nan), r"run\.seconds: .*finite number, got nan"),
    (
        lambda r: r["cells"][0]["estimates"][0].update(value=math.nan),
        r"cells\.0\.estimates\.0\.value: .*finite number, got nan",
    ),
    (
        lambda r: r["cells"][0]["limits"][0].update(at_most=0.5),
        r"cells\.0\.limits\.0: .*expected one of at_most, at_least, .*, got at_most",
    ),
    (
        lambda r: r["cells"][0]["limits"][0].update(better_than=None),
        r"cells\.0\.limits\.0: .*got none",
    ),
    (
        lambda r: r["cells"][0]["limits"][4].update(by={"absolute": 0.1}),
        r"cells\.0\.limits\.4: .*expected 'by' only with better_than, got it with at_most",
    ),
    (
        lambda r: r["cells"][0]["estimates"][0].update(metric="other"),
        r"cells\.0: .*expected a metric that the cell declares, got 'other'",
    ),
    (
        lambda r: r["cells"][3]["asked"][0].update(metric="other"),
        r"cells\.3: .*expected a metric that the cell declares, got 'other'",
    ),
    (lambda r: r["cells"][0]["mean_map"].pop(), r"cells\.0\.mean_map: .*28 items"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), DAMAGES)
def test_a_damage_is_named_with_its_place(second, change, message, tmp_path):
    change(second)
    with pytest.raises(StoreError, match=rf"^record: {message}"):
        read_record(second)
    (tmp_path / "r.json").write_text(json.dumps(second))
    with pytest.raises(StoreError, match=rf"^r\.json: record: {message}"):
        load_record(tmp_path / "r.json")


@pytest.mark.parametrize("data", [[], "text", 3, None, [1, 2]])
def test_what_is_no_mapping_is_no_record(data, tmp_path):
    with pytest.raises(StoreError, match=f"expected a mapping, got {type(data).__name__}"):
        read_record(data)
    (tmp_path / "r.json").write_text(json.dumps(data))
    with pytest.raises(StoreError, match=r"^r\.json: record: expected a mapping, got"):
        load_record(tmp_path / "r.json")


@pytest.mark.parametrize(
    "text",
    [b"", b"{", TEXTS[2][:5000].encode(), b"\xff\xfe{}", b"{} {}", b"[" * 100_000, b'"\x00"',
     b"1" * 5000],
)  # fmt: skip
def test_what_is_no_json_is_named(text, tmp_path):
    (tmp_path / "r.json").write_bytes(text)
    with pytest.raises(StoreError, match=r"^r\.json: not valid JSON: ") as caught:
        load_record(tmp_path / "r.json")
    assert str(caught.value).isprintable()


def test_a_record_that_cannot_be_read_is_named(tmp_path):
    for path in (tmp_path / "absent.json", tmp_path):
        with pytest.raises(StoreError, match=rf"^{path.name}: the record can't be read: "):
            load_record(path)


def test_many_damages_are_told_in_few_words_and_without_control_characters(second):
    second["\x1b[2J" * 1000] = "\x1b[2J" * 1000
    second["cells"] = [{"\x1b": 1}] * 50
    with pytest.raises(StoreError) as caught:
        read_record(second)
    assert len(str(caught.value)) < 1600
    assert str(caught.value).isprintable()
    assert int(str(caught.value).split("; and ")[1].split()[0]) > 100


@pytest.mark.parametrize("value", [object(), {1, 2}, b"bytes", 1j])
def test_what_is_no_plain_data_is_no_record(second, value):
    second["run"]["id"] = value
    with pytest.raises(StoreError, match="record: not plain JSON"):
        read_record(second)


@pytest.mark.parametrize("version", [1, 2])
def test_whatever_is_missing_a_record_is_sound_or_refused(version):
    data = json.loads(TEXTS[version])

    def without(tree, budget):
        """Take one thing after another out of the first few of every kind."""
        parts = list(tree.items() if isinstance(tree, dict) else enumerate(tree))
        for key, inner in parts[:budget]:
            for odd in (None, [], {}, "x", 1.5):
                tree[key] = odd
                yield key
            tree[key] = inner
            if isinstance(inner, dict | list):
                yield from without(inner, budget if isinstance(inner, dict) else 1)

    seen = 0
    for _ in without(data, 60):
        seen += 1
        if seen % 7 == 0:  # a sample; all of them take a minute
            try:
                record = read_record(data)
            except StoreError:
                continue
            assert read_record(dumped(record)) == record
    assert seen > 300


# --- rows


def test_rows_come_back_equal(tmp_path):
    rows = [
        a_row("1-2"),
        a_row("2-3", identities=(0, 7), value=math.nan),
        a_row("3-4", value=1 / 3, reason="line\nbreak \N{SNOWMAN} \x1b"),
    ]
    for row in rows:
        RowFile(tmp_path / "rows.jsonl").append([row])
    read = read_rows(tmp_path / "rows.jsonl")
    assert read == rows
    assert read[1].measured[0].values["m"] is None
    assert read[2].measured[0].values["m"] == 1 / 3  # to the last digit
    assert read[0].measured[0].under == {"fill": "blur", "fraction": 0.01}
    assert [len((tmp_path / "rows.jsonl").read_text().splitlines())] == [len(rows)]


@pytest.mark.parametrize("cut", [1, 40, 200])
def test_a_last_line_that_was_cut_short_is_left_out(tmp_path, cut):
    path = tmp_path / "rows.jsonl"
    RowFile(path).append([a_row("1"), a_row("2")])
    path.write_bytes(path.read_bytes()[: -1 - cut])
    assert [row.row for row in read_rows(path)] == ["1"]


def test_a_last_line_without_its_end_that_is_whole_counts(tmp_path):
    path = tmp_path / "rows.jsonl"
    RowFile(path).append([a_row("1"), a_row("2")])
    path.write_bytes(path.read_bytes()[:-1])
    assert [row.row for row in read_rows(path)] == ["1", "2"]


def test_no_rows_are_no_rows(tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(b"")
    assert read_rows(tmp_path / "rows.jsonl") == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: row.pop("state"), "state: Field required"),
        (lambda row: row.update(name="Ann"), "name: Extra inputs"),
        (lambda row: row.update(state="fine"), "state: .*'fine'"),
        (lambda row: row.update(identities=[]), "identities: .*at least 1 item"),
        (lambda row: row.update(identities=[1, 2, 3]), "identities: .*at most 2 items"),
        (lambda row: row.update(identities=["1"]), r"identities\.0: .*integer, got '1'"),
        (lambda row: row.update(thumbnail=[[0.0]]), r"thumbnail\.0: .*28 items"),
        (lambda row: row["measured"][0]["values"].update(m="0.1"), r"measured\.0\.values\.m: "),
        (lambda row: row["measured"][1]["values"].update(m=math.nan), r"measured\.1\.values\.m: "),
        (lambda row: row["measured"][1]["under"].update(fraction=[1]), r"measured\.1\.under\."),
    ],
)
def test_a_broken_line_in_the_middle_is_an_error_with_its_number(tmp_path, change, message):
    path = tmp_path / "rows.jsonl"
    lines = [json.loads(a_row(str(i)).model_dump_json()) for i in range(3)]
    change(lines[1])
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(StoreError, match=rf"^rows\.jsonl:2: not a valid row: {message}"):
        read_rows(path)


@pytest.mark.parametrize("line", ["{", "[]", "null", '{"cell": ', "\x00", "x" * 10_000])
def test_a_line_that_is_no_row_is_an_error_even_if_it_is_the_last(tmp_path, line):
    path = tmp_path / "rows.jsonl"
    path.write_text(a_row().model_dump_json() + "\n" + line + "\n")
    with pytest.raises(StoreError, match=r"^rows\.jsonl:2: not a valid row: ") as caught:
        read_rows(path)
    assert len(str(caught.value)) < 300


def test_rows_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(StoreError, match=r"^absent\.jsonl: rows can't be read"):
        read_rows(tmp_path / "absent.jsonl")


# --- the schema


@pytest.fixture(params=[Record, Row], ids=["record", "row"])
def sample(request):
    if request.param is Record:
        return request.param, json.loads(TEXTS[2])
    return request.param, json.loads(a_row().model_dump_json())


def test_the_schema_is_sound_and_knows_what_is_written(sample):
    form, data = sample
    schema = json_schema(form)
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(data, schema)
    for version in (1, 2):
        jsonschema.validate(dumped(read_record(json.loads(TEXTS[version]))), json_schema(Record))
    nan = json.loads(a_row(value=math.nan).model_dump_json())
    jsonschema.validate(nan, json_schema(Row))
    json.dumps(schema, allow_nan=False)


def test_the_schema_refuses_what_reading_refuses(sample):
    form, data = sample
    if form is Record:
        data["cells"] = data["cells"][3:]
    for key in list(data):
        broken = {**data, f"{key}_": 1}
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(broken, json_schema(form))
        with pytest.raises(ValidationError):
            form.model_validate_json(json.dumps(broken), strict=True)
        wrong = {**data, key: {"odd": 1}}
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, json_schema(form))
        with pytest.raises(ValidationError):
            form.model_validate_json(json.dumps(wrong), strict=True)


def test_what_is_written_is_the_order_of_the_fields():
    assert list(json.loads(TEXTS[2])) == list(Record.model_fields)
    assert list(json.loads(a_row().model_dump_json())) == list(Row.model_fields)


def test_parts_of_a_record_are_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        a_row().cell = "other"


@pytest.mark.parametrize(
    ("keys", "form"),
    [
        ({"at_most": 0.4}, "at_most"),
        ({"at_least": 0.0}, "at_least"),
        ({"better_than": "control.centre", "by": {"relative": 0.1}}, "better_than"),
    ],
)
def test_a_limit_is_written_with_the_keys_of_a_suite(keys, form):
    entry = LimitEntry(metric="m", **keys, under={"fill": "blur"}, severity="info", where="s:1:1")
    limit = limit_of(entry)
    assert limit.form == form
    assert limit.written() == keys
    assert (limit.under, limit.severity, limit.where) == ({"fill": "blur"}, "info", "s:1:1")


def test_a_plan_knows_the_metrics_that_it_asks_for(second):
    cell = second["cells"][0]
    plan = {key: cell[key] for key in CellPlan.model_fields}
    assert CellPlan.model_validate(plan).asked
    with pytest.raises(ValidationError, match="expected a metric that the cell declares"):
        CellPlan.model_validate({**plan, "metrics": plan["metrics"][:1]})


def test_directions_are_the_words_of_the_schema():
    found = json_schema(Record)["$defs"]["MetricEntry"]["properties"]["better"]["enum"]
    assert sorted(found) == sorted(plain(Better.__args__))
