"""Suite files: their meaning, and the message for every mistake in one."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fxeval.datasets.faces.regions import FaceParts
from fxeval.errors import SuiteError
from fxeval.fixtures.explainers import SHIPPED
from fxeval.metrics import CATALOGUE
from fxeval.suite import format as suite_forms
from fxeval.suite.load import KnownIds, load
from fxeval.suite.preflight import check_params

KNOWN = KnownIds(
    models=frozenset({"net", "acme_net", "mini_resnet", "dlib_resnet"}),
    explainers=frozenset({"cam", "gradcam", "srise"}),
    pairs=frozenset({"faces", "rendered", "lfw"}),
)
SUITES = Path(__file__).parents[3] / "suites"

GOOD = """\
fxeval: 1
suite: base
title: A suite
defaults: {seed: 7, device: cpu, confidence: 0.9, on_inconclusive: warn}
models: [net]
explainers: [{use: cam, params: {layer: "a"}}]
pairs: [{use: faces, n: 40}]
checks:
  - id: sane
    kind: sanity.model_randomisation
    redraws: 2
    limits: [{metric: rank_correlation_fully_randomised, at_most: 0.4, "severity": info}]
  - id: faithful
    kind: faithfulness.deletion_insertion
    steps: 24
    fills: [blur]
    controls: [centre, edge]
    marks: [slow]
    limits:
      - {metric: deletion_auc, better_than: control.centre, by: {absolute: 0.01}, fill: blur}
      - {metric: insertion_auc, at_least: 0.5, severity: info}
report: {formats: [html]}
"""

# (text of GOOD, what stands there instead, place, part of the message, suggestion)
MISTAKES = [
    # the head
    ("fxeval: 1\n", "", "1:1", "a suite starts with 'fxeval: 1'", ""),
    ("fxeval: 1\n", "fxevl: 1\n", "1:1", "a suite starts with 'fxeval: 1'", "fxeval"),
    ("fxeval: 1\nsuite: base", "suite: base\nfxeval: 1", "2:1", "must be the first key", ""),
    ("fxeval: 1", "fxeval: 2", "1:9", "expected format version 1, got 2", ""),
    ("fxeval: 1", "fxeval: true", "1:9", "expected format version 1, got true", ""),
    ("fxeval: 1", "fxeval: 1.0", "1:9", "expected format version 1, got 1.0", ""),
    ("fxeval: 1", 'fxeval: "1"', "1:9", "expected format version 1, got '1'", ""),
    ("suite: base\n", "", "1:1", "the key 'suite' is missing", ""),
    ("suite: base", "suite: a b", "2:8", "'suite': expected a letter, then letters, digits", ""),
    ("suite: base", "suite: 12", "2:8", "'suite' must be text, got 12", ""),
    ("suite: base", "suite:", "2:7", "'suite' has no value", ""),
    ("title: A suite", 'title: "a\\rb"', "3:8", "the character U+000D is not allowed", ""),
    ("title: A suite", "titel: A suite", "3:1", "unknown key 'titel'", "title"),
    ("title: A suite", "title:", "3:7", "'title' has no value", ""),
    # defaults
    ("seed: 7", "seed: -1", "4:18", "'seed' must be at least 0, got -1", ""),
    ("seed: 7", "seed: 7.0", "4:18", "'seed' must be a whole number, got 7.0", ""),
    ("seed: 7", "seed: true", "4:18", "'seed' must be a whole number, got true", ""),
    ("seed: 7", "sed: 7", "4:12", "unknown key 'sed'", "seed"),
    ("device: cpu", "device: gpu", "4:29", "'device': expected auto, cpu, cuda or cuda:N", ""),
    ("confidence: 0.9", "confidence: 95", "4:46", "must be less than 1, got 95", ""),
    ("confidence: 0.9", "confidence: 0.1", "4:46", "must be at least 0.5, got 0.1", ""),
    ("confidence: 0.9", "confidence: .nan", "4:46", "expected a finite number, got .nan", ""),
    ("confidence: 0.9", "confidence: 1e999", "4:46", "expected a finite number", ""),
    ("warn}", "warning}", "4:68", "must be 'fail', 'warn' or 'extend', got 'warning'", "warn"),
    # subjects
    ("models: [net]", "models: net", "5:9", "'models' must be a list, got 'net'", ""),
    ("models: [net]", "models: []", "5:9", "'models' needs 1 or more entries, got an empty", ""),
    ("models: [net]", "models: [7]", "5:10", "an entry of 'models' must be a mapping", ""),
    ("models: [net]", "models: [nat]", "5:10", "unknown model 'nat'; known: acme_net, dl", "net"),
    ("[net]", "[net, {use: net}]", "5:15", "'net' is listed twice", ""),
    ("[net]", "[acme-net, acme_net]", "5:20", "'acme_net' is listed twice", ""),
    ("[net]", "[{use: net, n: 3}]", "5:21", "unknown key 'n'", ""),
    ("[net]", "[{params: {}}]", "5:10", "the key 'use' is missing", ""),
    ("use: cam,", "use: cma,", "6:20", "unknown explainer 'cma'; known: cam, gradcam", "cam"),
    ("use: cam,", "usr: cam, use: cam,", "6:15", "unknown key 'usr'", "use"),
    ('{layer: "a"}', "[a]", "6:33", "'params' must be a mapping of keys to values", ""),
    ('{layer: "a"}', '{layer: "a"}, as: a b', "6:51", "'as': expected a letter, then", ""),
    ("use: faces", "use: face", "7:15", "unknown pair list 'face'; known: faces", "faces"),
    ("n: 40", "n: 0", "7:25", "'n' must be at least 1, got 0", ""),
    ("n: 40", "n: 4e1", "7:25", "'n' must be a whole number, got 40.0", ""),
    # checks
    ("id: sane\n    kind: san", "kind: san", "9:5", "the key 'id' is missing", ""),
    ("id: sane", "id: faithful", "13:9", "the id 'faithful' is taken by an earlier check", ""),
    ("id: sane", "id: sane[1]", "9:9", "'id': expected a letter, then letters, digits", ""),
    ("sanity.model_randomisation", "sanity.model_randomization", "10:11",
     "'kind' must be 'sanity.model_randomisation', ", "sanity.model_randomisation"),
    ("redraws: 2", "redraws: 21", "11:14", "'redraws' must be at most 20, got 21", ""),
    ("redraws: 2", "patches: 24", "11:5", "unknown key 'patches'", ""),
    ("redraws: 2", "explainers: [srice]", "11:18", "unknown explainer 'srice'", "srise"),
    ("redraws: 2", "models: []", "11:13", "'models' needs 1 or more entries, got an empty", ""),
    ("steps: 24", 'steps: "24"', "15:12", "'steps' must be a whole number, got '24'", ""),
    ("steps: 24", "steps: 24\n    steps: 25", "16:5", "'steps' is already given in line 15", ""),
    ("steps: 24", "side: prob", "15:11", "'side' must be 'probe', 'reference' or 'b", "probe"),
    ("fills: [blur]", "fils: [blur]", "16:5", "unknown key 'fils'", "fills"),
    ("fills: [blur]", "fills: blur", "16:12", "'fills' must be a list, got 'blur'", ""),
    ("fills: [blur]", "fills: [blurr]", "16:13", "an entry of 'fills' must be 'blur'", "blur"),
    ("fills: [blur]", "fills: [blur, blur]", "16:12",
     "'fills': expected every entry at most once", ""),
    ("edge]", "egde]", "17:24", "an entry of 'controls' must be", "edge"),
    ("[slow]", "[xfail]", "18:13", "an entry of 'marks': expected the plain name of a pytest", ""),
    ("[slow]", "['not slow']", "18:13", "an entry of 'marks': expected a letter", ""),
    # limits
    ('    limits: [{metric: rank_correlation_fully_randomised, at_most: 0.4, "severity": info}]\n',
     "", "9:5",
     "the key 'limits' is missing", ""),
    ("at_most: 0.4", "at_most: 12:30", "12:67", "'at_most' must be a number, got '12:30'", ""),
    ("at_most: 0.4", "at_most: low", "12:67", "'at_most' must be a number, got 'low'", ""),
    (", at_most: 0.4", "", "12:14", "equivalent_to, got none", ""),
    ("at_most: 0.4", "at_most: 0.4, at_least: 0", "12:14", "got at_most and at_least", ""),
    ("at_most: 0.4", "better_than: control.centre", "12:58",
     "sanity.model_randomisation measures none; use at_most or at_least", ""),
    ("at_most: 0.4", "at_most: 0.4, fill: blur", "12:72",
     "sanity.model_randomisation has no fills", ""),
    ("rank_correlation_fully_randomised", "deletion_auc", "12:23",
     "sanity.model_randomisation has no metric 'deletion_auc'; it has: rank", ""),
    ("deletion_auc", "deletoin_auc", "20:18", "has no metric 'deletoin_auc'", "deletion_auc"),
    ("control.centre", "control.inverse", "20:45", "this check has no control 'inverse'; it has:",
     ""),
    ("control.centre", "centre", "20:45",
     "expected control.<name> or explainer:<name>, got 'centre'", "control.centre"),
    ("{absolute: 0.01}", "{absolute: -1}", "20:76", "'absolute' must be at least 0, got -1", ""),
    ("{absolute: 0.01}", "{percent: 1}", "20:66", "unknown key 'percent'", ""),
    ("{absolute: 0.01}", "{}", "20:65", "'by': expected exactly one of absolute, relative", ""),
    ("{absolute: 0.01}", "{absolute: 0, relative: 0}", "20:65", "exactly one of absolute, rel", ""),
    ("{absolute: 0.01}", "0.01", "20:65", "'by' must be a mapping of keys to values", ""),
    ("fill: blur", "fill: black", "20:89", "this check has no fill 'black'; it has: blur", ""),
    ("fill: blur", "under: {fill: black}", "20:97", "this check has no fill 'black'", ""),
    ("fill: blur", "under: {fill: blurr}", "20:97", "this check has no fill 'blurr'", "blur"),
    ("fill: blur", "under: {fill: 3}", "20:97", "this check has no fill 3; it has: blur", ""),
    ("fill: blur", "under: {fill: true}", "20:97", "'fill': expected text or a number, got tr", ""),
    ("fill: blur", "under: {fill: }", "20:96", "'fill' has no value", ""),
    ("fill: blur", "under: {fil: blur}", "20:91",
     "faithfulness.deletion_insertion has no condition 'fil'; it has: fill", "fill"),
    ("fill: blur", "under: {fraction: 0.01}", "20:91", "has no condition 'fraction'", ""),
    ("fill: blur", "under: {}", "20:90", "'under' needs 1 or more entries, got an empty map", ""),
    ("fill: blur", "under: blur", "20:90", "'under' must be a mapping of keys to values", ""),
    ("fill: blur", "fill: blur, under: {fill: blur}", "20:83", "'fill' is short for 'under: {", ""),
    ("at_most: 0.4", "at_most: 0.4, under: {fill: blur}", "12:80",
     "sanity.model_randomisation has no condition 'fill'; it has: mode, step", ""),
    ("severity: info", "severity: inof", "21:58", "must be 'critical', 'warning' or", "info"),
    ("severity: info", "by: {absolute: 1}", "21:48", "'by' goes with better_than only", ""),
    # report
    ("[html]", "[pdf]", "22:20", "an entry of 'formats' must be 'html', 'json' or 'markdown'", ""),
    ("[html]", "[html, html]", "22:19", "'formats': expected every entry at most once", ""),
    # YAML
    ("use: cam,", "use: &a cam,", "6:20", "anchors ('&a') are not allowed", ""),
    ("[net]", "[*a]", "5:10", "aliases ('*a') are not allowed", ""),
    ("seed: 7", "<<: {}", "4:12", "merge keys ('<<') are not allowed", ""),
    ("title: A suite", "title: !!str A suite", "3:8", "tags ('tag:yaml.org,2002:str') are", ""),
    ("title: A suite", "title: !!python/name:os.system", "3:8", "tags (", ""),
    ("title: A suite", "title: !x A suite", "3:8", "tags ('!x') are not allowed", ""),
    ("title: A suite", "7: A suite", "3:1", "a key must be text", ""),
    ("title: A suite", 'title: "\\e[31m"', "3:8", "the character U+001B is not allowed", ""),
    ("title: A suite", 'title: "\\U00110000"', "3:1", "does not stand for a character", ""),
    ("title: A suite", 'title: "\\ud800"', "3:8", "the character U+D800 is not allowed", ""),
    ("title: A suite", "title: A: suite", "3:9", "a ':' cannot stand here", ""),
    ("title: A suite", "title: 'A suite", "23:1", "the file ends inside a quoted text", ""),
    ("    steps: 24", "\tsteps: 24", "15:1", "a tab cannot start a value", ""),
    ("    steps: 24", "   steps: 24", "15:4", "does not line up with the lines above", ""),
    ("[net]", "[,net]", "5:10", "a value is missing here", ""),
    ("[html]", "[html", "22:24", "expected ',' or ']'", ""),
    ("report:", "---\nreport:", "22:1", "a second document starts here", ""),
    ("fxeval: 1", "%YAML 1.2\n---\nfxeval: 1", "1:1", "directives ('%') are not allowed", ""),
]  # fmt: skip


def write(folder, text):
    path = folder / "suite.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    return path


def message_of(folder, text, **options):
    with pytest.raises(SuiteError) as caught:
        load(write(folder, text), KNOWN, **options)
    return str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "place", "fragment", "suggested"),
    MISTAKES,
    ids=[f"{place} {fragment}" for _, _, place, fragment, _ in MISTAKES],
)
def test_a_mistake_is_shown_at_its_place_with_a_suggestion(
    tmp_path, old, new, place, fragment, suggested
):
    assert GOOD.count(old) == 1 or old in {"[net]", "steps: 24"}
    text = GOOD.replace(old, new, 1)
    message = message_of(tmp_path, text)
    head, *rest = message.split("\n")
    assert head.startswith(f"{tmp_path}/suite.yaml:{place}: error: ")
    assert fragment in head
    assert message.count(": error: ") == 1
    line, column = map(int, place.split(":"))
    if line <= text.count("\n"):
        assert rest[0].split(" | ")[1] == text.split("\n")[line - 1].replace("\t", " ")
        assert rest[1].index("^") == len("         | ") + column - 1
    assert (f"= help: did you mean '{suggested}'?" in message) == bool(suggested)


def test_no_message_speaks_the_language_of_a_library(tmp_path):
    for old, new, *_ in MISTAKES:
        message = message_of(tmp_path, GOOD.replace(old, new, 1))
        for jargon in (
            "Input",
            "pydantic",
            "valid ",
            "regex",
            "match pattern",
            "[type",
            "Traceback",
        ):
            assert jargon not in message


def test_all_mistakes_of_a_file_are_shown_at_once_by_line(tmp_path):
    text = GOOD
    for old, new in [
        ("title:", "titel:"), ("seed: 7", "seed: x"), ("use: cam", "use: cma"),
        ("redraws: 2", "redraws: 0"), ("steps: 24", "steps: 0"), ("fills: [blur]", "fils: [blur]"),
        ("metric: deletion_auc", "metric: deletion"), ("control.centre", "centre"),
        ("absolute: 0.01", "absolute: -1"), ("severity: info", "severity: warn"),
    ]:  # fmt: skip
        text = text.replace(old, new)
    places = [
        line.split(":")[1:3]
        for line in message_of(tmp_path, text).split("\n")
        if ": error: " in line
    ]
    assert places == [
        ["3", "1"], ["4", "18"], ["6", "20"], ["11", "14"], ["15", "12"], ["16", "5"],
        ["20", "18"], ["20", "41"], ["20", "64"], ["21", "58"],
    ]  # fmt: skip


def test_a_check_without_subjects_is_told_where_to_list_them(tmp_path):
    text = GOOD.replace("pairs: [{use: faces, n: 40}]\n", "").replace(
        "redraws: 2", "pairs: [faces]"
    )
    message = message_of(tmp_path, text)
    assert "suite.yaml:12:5: error: no pairs: list them under 'pairs' in the suite or" in message
    assert message.count(": error: ") == 1


def test_a_good_suite_has_every_default_filled_in(tmp_path):
    suite = load(write(tmp_path, "\n".join(GOOD.split("\n")[:3] + GOOD.split("\n")[4:-2])), KNOWN)
    assert (suite.name, suite.title, suite.seed) == ("base", "A suite", 20260101)
    assert (suite.device, suite.confidence, suite.on_inconclusive) == ("auto", 0.95, "fail")
    assert suite.formats == ("html", "json")
    sane, faithful = suite.checks
    assert (sane.id, sane.why, sane.marks) == ("sane", "", ())
    assert sane.parameters == CATALOGUE[sane.kind].Parameters(redraws=2)
    assert faithful.parameters.side == "probe"
    assert faithful.parameters.controls == ("centre", "edge")
    assert faithful.marks == ("slow",)
    [cam] = faithful.explainers
    assert (cam.name, cam.use.id, cam.use.params) == ("cam", "cam", {"layer": "a"})
    assert faithful.pairs[0].n == 40
    first, second = faithful.limits
    assert (first.form, first.better_than) == ("better_than", "control.centre")
    assert (first.absolute, first.relative, first.under) == (0.01, 0.0, {"fill": "blur"})
    assert (second.form, second.at_least, second.severity) == ("at_least", 0.5, "info")
    assert second.under == {}


def test_a_fill_is_short_for_a_condition(tmp_path):
    short = load(write(tmp_path, GOOD), KNOWN)
    long = load(write(tmp_path, GOOD.replace("fill: blur", "under: {fill: blur}")), KNOWN)
    assert long.digest == short.digest
    assert long.checks[1].limits == short.checks[1].limits


def test_a_limit_pins_any_condition_of_its_check(tmp_path, monkeypatch):
    protocol = CATALOGUE["faithfulness.deletion_insertion"]
    monkeypatch.setattr(protocol, "CONDITIONS", {"fill": "fills", "step": "steps", "on": "side"})
    text = GOOD.replace("fill: blur", "under: {step: 24, fill: blur, on: probe}")
    limit = load(write(tmp_path, text), KNOWN).checks[1].limits[0]
    assert limit.under == {"step": 24.0, "fill": "blur", "on": "probe"}
    assert limit.applies({"fill": "blur", "on": "probe", "step": 24, "other": 1})
    for old, new, words in (
        ("step: 24,", "step: 24.5,", "20:97: error: this check has no step 24.5; it has: 24"),
        ("on: probe", "on: prob", "20:117: error: this check has no on 'prob'; it has: probe"),
    ):
        assert words in message_of(tmp_path, text.replace(old, new))
    wrong = text.replace("steps: 24", "steps: no").replace("on: probe", "on: both")
    assert "15:12: error: 'steps' must be a whole number" in message_of(tmp_path, wrong)
    assert message_of(tmp_path, wrong).count(": error: ") == 2


def test_a_check_of_an_unknown_kind_is_judged_as_far_as_any_check_can_be(tmp_path):
    text = GOOD.replace("kind: sanity.model_randomisation", "kind: x").replace("0.4", "low")
    message = message_of(tmp_path, text.replace("redraws: 2", "redraws: 2\n    models: [nat]"))
    places = [line.split(":")[1] for line in message.split("\n") if ": error: " in line]
    assert places == ["10", "12", "13"]


def test_an_unknown_key_beside_a_missing_one_gets_its_suggestion(tmp_path):
    # A check without a kind is of no form, and yet its keys are compared with those of every form.
    for old, key, meant in (
        ("kind: sanity", "knd", "kind"), ("suite: base", "suit", "suite"),
        ("id: sane", "idd", "id"), ("use: cam", "uses", "use"), ("checks:", "check", "checks"),
    ):  # fmt: skip
        message = message_of(tmp_path, GOOD.replace(old, old.replace(meant, key, 1), 1))
        assert f"the key '{meant}' is missing" in message
        assert f"unknown key '{key}'" in message
        assert f"= help: did you mean '{meant}'?" in message


def test_a_device_is_one_of_this_machine_where_that_is_known(tmp_path):
    text = GOOD.replace("device: cpu", 'device: "cuda:1"')
    assert load(write(tmp_path, text), KNOWN).device == "cuda:1"
    for devices in (("auto", "cpu"), ("auto", "cpu", "cuda", "cuda:0")):
        with pytest.raises(SuiteError) as caught:
            load(write(tmp_path, text), replace(KNOWN, devices=devices))
        known = ", ".join(devices)
        place = f"4:29: error: 'device': expected a device of this machine ({known}), got 'cuda:1'"
        assert place in str(caught.value)
    assert load(write(tmp_path, GOOD), replace(KNOWN, devices=("auto", "cpu"))).device == "cpu"


def test_places_are_relative_to_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path, GOOD)
    for given_path in (path, Path("suite.yaml")):
        suite = load(given_path, KNOWN)
        assert suite.path == given_path
        assert suite.checks[0].where == "suite.yaml:9:5"
        assert suite.checks[1].limits[1].where == "suite.yaml:21:9"
        assert suite.checks[0].explainers[0].use.where == "suite.yaml:6:14"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("no", "no"), ("on", "on"), ("yes", "yes"), ("12:30", "12:30"), ("1_000", "1_000"),
        ("0o17", 15), ("0x1F", 31), ("0123", 123), ("-7", -7), ("+7", 7), ("1e-3", 0.001),
        ("1.", 1.0), (".5", 0.5), ("True", True), ("FALSE", False), ("~", None), ("null", None),
        ("2026-01-01", "2026-01-01"), ("'1'", "1"), ('"true"', "true"), ("=", "="), ("0b1", "0b1"),
    ],
)  # fmt: skip
def test_plain_scalars_mean_what_yaml_1_2_says(tmp_path, written, meant):
    suite = load(write(tmp_path, GOOD.replace('"a"', f"[{written}]")), KNOWN)
    [value] = suite.checks[0].explainers[0].use.params["layer"]
    assert value == meant
    assert type(value) is type(meant)


def test_the_digest_ignores_layout_and_place_but_no_value(tmp_path):
    digest = load(write(tmp_path, GOOD), KNOWN).digest
    assert len(digest) == 64
    same = [
        "# a comment\n" + GOOD,
        GOOD.replace("redraws: 2", "modes: [full]\n    redraws: 2"),
        GOOD.replace("confidence: 0.9", "confidence: 0.90"),
        GOOD.replace("at_most: 0.4", "at_most: 4e-1"),
        GOOD.replace("[net]", "[{use: net, params: {}}]"),
        GOOD.replace("\n", "\r\n"),
        "\ufeff" + GOOD,
    ]
    assert {load(write(tmp_path, text), KNOWN).digest for text in same} == {digest}
    other = [
        GOOD.replace("0.4", "0.41"),
        GOOD.replace("seed: 7", "seed: 8"),
        GOOD.replace("n: 40", "n: 41"),
        GOOD.replace('"a"', '"b"'),
        GOOD.replace("steps: 24", "steps: 25"),
        GOOD.replace("severity: info", "severity: warning"),
        GOOD.replace("{layer", "{depth: 1, layer"),
    ]
    assert len({load(write(tmp_path, text), KNOWN).digest for text in other} | {digest}) == 8


def test_hyphen_and_underscore_are_one_id(tmp_path):
    suite = load(write(tmp_path, GOOD.replace("[net]", "[acme-net]")), KNOWN)
    assert suite.checks[0].models[0].use.id == "acme_net"


def test_an_id_may_come_twice_under_two_names_and_a_check_may_pick_one(tmp_path):
    text = GOOD.replace(
        "explainers: [", "explainers: [srise, {use: srise, params: {k: 1}, as: s-two}, "
    ).replace("redraws: 2", "explainers: [s-two, gradcam]")
    sane, faithful = load(write(tmp_path, text), KNOWN).checks
    assert [e.name for e in faithful.explainers] == ["srise", "s_two", "cam"]
    assert [(e.name, e.use.id, e.use.params) for e in sane.explainers] == [
        ("s_two", "srise", {"k": 1}),
        ("gradcam", "gradcam", {}),
    ]


def test_a_callers_check_of_params_is_asked_for_every_subject_and_shown_at_the_key(tmp_path):
    asked = []

    def check_params(role, id, params):
        asked.append((role, id, dict(params)))
        if role == "explainer":
            return [("layer", "no such layer"), ("masks", "masks is missing")]
        return []

    message = message_of(tmp_path, GOOD, check_params=check_params)
    assert asked == [
        ("model", "net", {}), ("explainer", "cam", {"layer": "a"}), ("pairs", "faces", {})
    ]  # fmt: skip
    assert "suite.yaml:6:34: error: no such layer\n" in message
    assert "suite.yaml:6:33: error: masks is missing\n" in message


def test_no_parameter_of_a_kind_has_the_name_of_a_key_of_every_check():
    for kind in CATALOGUE.values():
        assert not set(kind.Parameters.model_fields) & set(suite_forms.Check.model_fields)


NESTED = "[" * 5000
BOMB = "a: &a [x,x]\n" + "".join(
    f"{c}: &{c} [*{p},*{p}]\n" for p, c in zip("abcd", "bcde", strict=True)
)
HOSTILE = {
    "alias bomb": ("fxeval: 1\n" + BOMB, "2:4", "anchors ('&a') are not allowed"),
    "recursive anchor": ("fxeval: 1\nx: &a [*a]\n", "2:8", "aliases ('*a') are not allowed"),
    "5000 brackets": ("fxeval: 1\nx: " + NESTED, "2:35", "nested more than 32 levels deep"),
    "5000 braces": ("fxeval: 1\nx: " + "{a: " * 5000, "2:128", "nested more than 32 levels"),
    "5000 dashes": ("- " * 5000, "1:65", "nested more than 32 levels deep"),
    "5000 question marks": ("? " * 5000, "1:33", "nested more than 32 levels deep"),
    "huge file": ("fxeval: 1\n#" + "x" * 1_000_000, "1:1", "the file has more than 1000000 bytes"),
    "many values": ("fxeval: 1\nx: [" + "1," * 30_000 + "]", "2:39995", "the file has more than"),
    "long number": ("fxeval: 1\nx: " + "9" * 5000, "2:4", "a number of 5000 digits"),
    "long hexadecimal": ("fxeval: 1\nx: 0x" + "f" * 5000, "2:4", "a number of 5002 digits"),
    "binary": (b"fxeval: 1\n\x89PNG\xff\x00", "2:1", "the file is not UTF-8 text"),
    "utf-16": (GOOD.encode("utf-16"), "1:1", "the file is not UTF-8 text"),
    "surrogate": ("fxeval: 1\nx: \ud800", "2:4", "the file is not UTF-8 text"),
    "NUL": ("fxeval: 1\nsuite: a\0b\n", "2:9", "the character U+0000 is not allowed"),
    "escape": ("fxeval: 1\nsuite: \x1b[2J\n", "2:8", "the character U+001B is not allowed"),
    "next line": ("fxeval: 1\nsuite: a\x85b\n", "2:9", "the character U+0085 is not allowed"),
    "right to left": ("fxeval: 1\nsuite: a\u202eb", "2:9", "the character U+202E is not allowed"),
    "tab": ("fxeval: 1\nx:\n\ty: 1\n", "3:1", "a tab cannot start a value"),
    "two documents": (GOOD + "---\n" + GOOD, "23:1", "a second document starts here"),
    "list": ("- fxeval: 1\n", "1:1", "expected a suite, a mapping that starts with 'fxeval: 1', g"),
    "text": ("hello", "1:1", "expected a suite, a mapping that starts with 'fxeval: 1', g"),
    "empty": ("", "1:1", "the file is empty"),
    "only a comment": ("# x\n", "1:1", "the file is empty"),
    "only a document start": ("---\n", "2:1", "expected a suite, a mapping that"),
    "empty mapping": ("{}", "1:1", "a suite starts with 'fxeval: 1'"),
    "complex key": ("fxeval: 1\n? [a]\n: 1\n", "2:3", "a key must be text"),
    "python object": (
        "fxeval: 1\nx: !!python/object/apply:os.system [ls]\n", "2:4", "tags ('tag:yaml.org,2002"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "place", "fragment"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_input_is_one_message(tmp_path, text, place, fragment):
    message = message_of(tmp_path, text)
    assert f"suite.yaml:{place}: error: {fragment}" in message
    assert all(char.isprintable() or char == "\n" for char in message)
    assert len(message) < 20_000


def test_thousands_of_mistakes_make_a_short_message(tmp_path):
    text = "fxeval: 1\n" + "".join(f"checks{n}: 1\n" for n in range(3000))
    message = message_of(tmp_path, text)
    assert message.count(": error: ") == 20
    assert message.endswith("and 2982 more errors")


@pytest.mark.parametrize("name", ["absent.yaml", ".", "a\0b"])
def test_a_file_that_cannot_be_read_is_a_suite_error(tmp_path, name):
    with pytest.raises(SuiteError, match=r":1:1: error: the file cannot be read: "):
        load(tmp_path / name, KNOWN)


def load_or_refuse(path):
    try:
        load(path, KNOWN)
    except SuiteError as error:
        message = str(error)
        return message.count(": error: ")
    return 0


anything = settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@anything
@given(text=st.text(alphabet=st.sampled_from("fxeval: 1\n-[]{}&*!|>'\"%@`#,?\\\tué0.~")))
def test_random_yaml_raises_nothing_but_a_suite_error(tmp_path, text):
    load_or_refuse(write(tmp_path, text))
    load_or_refuse(write(tmp_path, "fxeval: 1\n" + text))


@anything
@given(raw=st.binary(max_size=200))
def test_random_bytes_raise_nothing_but_a_suite_error(tmp_path, raw):
    load_or_refuse(write(tmp_path, raw))
    load_or_refuse(write(tmp_path, b"fxeval: 1\n" + raw))


@anything
@given(data=st.data())
def test_a_good_suite_with_random_damage_raises_nothing_but_a_suite_error(tmp_path, data):
    start = data.draw(st.integers(0, len(GOOD)))
    end = data.draw(st.integers(start, min(len(GOOD), start + 12)))
    instead = data.draw(st.text(max_size=8) | st.sampled_from(["[]", "{}", "[[]]", "~", "- ", "1"]))
    load_or_refuse(write(tmp_path, GOOD[:start] + instead + GOOD[end:]))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
PATHS = [
    ("suite",), ("defaults",), ("defaults", "seed"), ("models",), ("models", 0), ("explainers", 0),
    ("explainers", 0, "use"), ("explainers", 0, "params"), ("pairs", 0, "n"), ("checks",),
    ("checks", 0), ("checks", 1, "kind"), ("checks", 1, "fills"), ("checks", 1, "controls"),
    ("checks", 1, "limits"), ("checks", 1, "limits", 0), ("checks", 1, "limits", 0, "metric"),
    ("checks", 1, "limits", 0, "better_than"), ("checks", 1, "limits", 0, "by"), ("report",),
    ("checks", 1, "limits", 0, "by", "absolute"), ("checks", 1, "limits", 0, "fill"),
    ("checks", 1, "marks"), ("checks", 1, "explainers"),
]  # fmt: skip
GOOD_VALUES = {
    "fxeval": 1,
    "suite": "base",
    "defaults": {"seed": 7},
    "models": ["net"],
    "explainers": [{"use": "cam", "params": {"layer": "a"}}],
    "pairs": [{"use": "faces", "n": 40}],
    "checks": [
        {"id": "sane", "kind": "sanity.model_randomisation",
         "limits": [{"metric": "rank_correlation_fully_randomised", "at_most": 0.4,
                     "severity": "info"}]},
        {"id": "faithful", "kind": "faithfulness.deletion_insertion", "fills": ["blur"],
         "controls": ["centre"], "marks": [], "explainers": ["cam"],
         "limits": [{"metric": "deletion_auc", "better_than": "control.centre",
                     "by": {"absolute": 0}, "fill": "blur"}]},
    ],
    "report": {},
}  # fmt: skip


@anything
@given(path=st.sampled_from(PATHS), value=json_values)
def test_any_value_in_any_place_raises_nothing_but_a_suite_error(tmp_path, path, value):
    values = json.loads(json.dumps(GOOD_VALUES))
    around = values
    for part in path[:-1]:
        around = around[part]
    around[path[-1]] = value
    load_or_refuse(write(tmp_path, json.dumps(values)))


def test_a_suite_is_read_before_any_subject_is_imported():
    code = (
        "import sys, pathlib, fxeval.errors, fxeval.suite.load as s; none = frozenset();"
        f"path = pathlib.Path({str(SUITES / 'quickstart.yaml')!r})\n"
        "try: s.load(path, s.KnownIds(none, none, none))\n"
        "except fxeval.errors.SuiteError as error: assert 'unknown model' in str(error)\n"
        "roles = ('fxeval.models.', 'fxeval.datasets.', 'fxeval.fixtures')\n"
        "assert not [name for name in sys.modules if name.startswith(roles)]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def shipped_ids():
    """Return what the fixtures that come with fxeval are called, by role."""
    text = "".join(path.read_text() for path in (SUITES.parent / "fixtures").glob("*.py"))
    models, pairs = (
        frozenset(re.findall(rf"^def {role}_(\w+)\(", text, re.MULTILINE))
        for role in ("model", "pairs")
    )
    return KnownIds(models, frozenset(SHIPPED), pairs)


FOR_INFORMATION = {
    "quickstart": {"sanity-of-rollout"},  # what a fail looks like
    "certification-level-1": {"stability", "cost"},
    "certification-level-2": {"stability", "cost"},
    "deletion-insertion": {"accuracy-curves"},
    "explainers": {"resources"},
    "agreement": {"deletion-insertion", "other-images", "stability", "localisation", "flip"},
}
"""Checks of shipped suites whose metrics could decide, and that decide nothing."""


@pytest.mark.parametrize(
    "path", sorted(SUITES.rglob("*.yaml")), ids=lambda path: f"{path.parent.name}/{path.name}"
)
def test_every_shipped_suite_loads_and_gates_something(path, monkeypatch):
    # The network that `regions: dense` needs is not part of fxeval; all else is checked.
    mesh = SimpleNamespace(checked=lambda: None)
    monkeypatch.setattr(FaceParts, "_installed", staticmethod(lambda: mesh))
    suite = load(path, shipped_ids(), check_params=check_params)
    assert suite.checks
    for check in suite.checks:
        metrics = CATALOGUE[check.kind].METRICS
        gates = not all(metric.information_only for metric in metrics)
        gates &= check.id not in FOR_INFORMATION.get(path.stem, ())
        assert any(limit.severity == "critical" for limit in check.limits) == gates, check.id


def test_every_kind_of_check_is_in_a_shipped_suite():
    suites = [load(path, shipped_ids()) for path in SUITES.rglob("*.yaml")]
    assert {check.kind for suite in suites for check in suite.checks} == set(CATALOGUE)


@pytest.mark.parametrize(
    "name", ["quickstart.yaml", "lfw-dlib.yaml", "transformer.yaml", "bundled-networks.yaml"]
)
def test_the_shipped_suites_load(name):
    text = (SUITES / name).read_text()
    known = replace(
        KNOWN, models=KNOWN.models | {"mini_inception", "mini_mobile", "mini_vit"},
        explainers=KNOWN.explainers | {"layercam", "rollout"},
    )  # fmt: skip
    suite = load(SUITES / name, known)
    kinds = {check.kind for check in suite.checks}
    assert kinds == {"sanity.two_sided", "faithfulness.deletion_insertion"}
    critical = [
        (limit.metric, *limit.written().values())
        for check in suite.checks
        for limit in check.limits
        if limit.severity == "critical"
    ]
    always = [one for one in critical if one != ("input", 0.05)]  # a warning on some lists
    assert always[:6] == [
        ("repeat", 0.5),
        ("change", 0.3),
        ("compare", 0.1),
        ("nudge", 0.5),
        ("deletion_auc", "control.random_blobs"),
        ("insertion_auc", "control.random_blobs"),
    ]
    assert text.count("\n") <= 60
