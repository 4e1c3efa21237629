"""``fxeval compare``: exit status, files, and what it says of wrong usage."""

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from fxeval.cli import main
from fxeval.records.changes import Comparison
from fxeval.tests.two_runs import cell, run, spread, written

B = spread(0.4)
NOISE = spread(0.0, by=0.01, seed=1)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders of runs: the first, an equal one, one that is 0.03 worse, one of 20 people."""
    folder = tmp_path_factory.mktemp("runs")
    made = {
        "first": run(cell(B), name="first"),
        "equal": run(cell(B), name="equal"),
        "worse": run(cell(B - 0.03 + NOISE), name="worse"),
        "few": run(cell(B[:20]), name="few", pairs="other"),
        "other": run(cell(B), name="other", suite="other"),
    }
    return {name: str(written(one, folder / name)) for name, one in made.items()}


def compare(*args):
    return CliRunner(catch_exceptions=False).invoke(main, ["compare", *args])


@pytest.mark.parametrize(
    ("after", "options", "status", "word"),
    [
        ("equal", [], 0, "NOT WORSE"),
        ("first", [], 0, "NOT WORSE"),
        ("worse", [], 1, "WORSE"),
        ("worse", ["--within", "0.05"], 0, "NOT WORSE"),
        ("worse", ["--within", "m=0.05", "--within", "0.001"], 0, "NOT WORSE"),
        ("worse", ["--within", "10%"], 0, "NOT WORSE"),
        ("worse", ["--within", "m=1%"], 1, "WORSE"),
        ("worse", ["--within", "0.03"], 2, "UNDECIDED"),
        ("few", [], 2, "UNDECIDED"),
        ("other", [], 2, "UNDECIDED"),
    ],
)
def test_the_exit_status_is_the_first_word(runs, after, options, status, word):
    found = compare(runs["first"], runs[after], *options)
    assert (found.exit_code, found.output.split("  ")[0]) == (status, word), found.output


def test_all_views_say_the_same(runs, tmp_path):
    files = [tmp_path / name for name in ("c.md", "c.html", "c.json")]
    options = [part for flag, path in zip(("--markdown", "--html", "--json"), files, strict=True)
               for part in (flag, str(path))]  # fmt: skip
    found = compare(runs["first"], runs["worse"], *options)
    assert all(f"wrote {path}" in found.output for path in files)
    text, page, data = (path.read_text(encoding="utf-8") for path in files)
    assert text.startswith("## WORSE: suite\n")
    assert "<title>WORSE · suite · fxeval comparison</title>" in page
    [one] = [Comparison(**entry) for entry in json.loads(data)]
    assert one.outcome == "worse"
    assert one.before.name == "first"
    assert str(tmp_path) not in text + page + data


def test_a_record_is_compared_with_its_own_suite_alone(runs, tmp_path):
    both = run(cell(B), name="both")
    folder = written(both, tmp_path / "both")
    record = json.loads((folder / "suite.json").read_text())
    record["suite"]["name"] = "second"
    (folder / "second.json").write_text(json.dumps(record))
    assert compare(str(folder), runs["first"]).exit_code == 2  # the second suite is gone
    assert compare(str(folder / "suite.json"), runs["first"]).exit_code == 0
    assert compare(str(folder), f"{runs['first']}/suite.json").exit_code == 0
    assert compare(runs["first"], str(folder / "second.json")).exit_code == 2


@pytest.mark.parametrize(
    "option",
    ["--within=x", "--within=-0.1", "--within=nan", "--within=inf", "--within==0.1", "--within=m=",
     "--within=m=5%%", "--within=nothing=0.1", "--over=moon", "--strange"],
)  # fmt: skip
def test_wrong_usage_has_a_status_of_its_own(runs, option):
    found = compare(runs["first"], runs["equal"], option)
    assert found.exit_code == 64
    assert "Traceback" not in found.output


def test_two_margins_of_one_metric_are_refused(runs):
    found = compare(runs["first"], runs["equal"], "--within", "m=0.1", "--within", "m=0.2")
    assert (found.exit_code, "expected one margin of m" in found.output) == (64, True)


@pytest.mark.parametrize("place", [0, 1])
def test_what_is_no_run_is_refused_by_its_name(runs, tmp_path, place):
    (tmp_path / "empty").mkdir()
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "suite.json").write_text("{")
    (tmp_path / "torn" / "rows.jsonl").write_text("")
    for name, said in (("absent", "got nothing there"), ("empty", "a folder without a record"),
                       ("torn", "not valid JSON")):  # fmt: skip
        args = [runs["first"], runs["first"]]
        args[place] = str(tmp_path / name)
        found = compare(*args)
        assert found.exit_code == 2
        assert found.output.startswith(f"error: {tmp_path / name}")
        assert said in found.output


def test_it_needs_no_torch(runs):
    code = (
        "import sys; from fxeval.cli import main\n"
        "try: main(['compare', *sys.argv[1:]])\n"
        "except SystemExit as end: assert end.code == 0, end.code\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code, runs["first"], runs["equal"]], check=True,
                   stdout=subprocess.DEVNULL)  # fmt: skip


def test_names_of_a_file_do_not_steer_the_terminal(tmp_path):
    made = run(cell(B, check="a\x1b[2Jb"), name="first")
    whole = str(written(made, tmp_path / "whole"))
    lost = written(made, tmp_path / "lost")
    rows = (lost / "rows.jsonl").read_text().splitlines(keepends=True)
    (lost / "rows.jsonl").write_text("".join(rows[:30]))
    for args in (["compare", whole, str(lost)], ["report", str(lost)], ["compare", whole, whole]):
        found = CliRunner(catch_exceptions=False).invoke(main, args)
        assert found.exit_code == (0 if args[-1] == whole else 2)
        assert "\x1b" not in found.output
        assert "a\ufffd[2Jb" in found.output
