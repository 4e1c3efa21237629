"""``fxeval trend``: many runs from folders or from an index, and what it says of bad input."""

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from fxeval.cli import main
from fxeval.tests.cli.test_report import WITHOUT_TORCH
from fxeval.tests.statistics.many_runs import data_of


def written(folder, at, value=0.3, **environment):
    data = data_of(at, value, **environment)
    place = folder / data["run"]["id"]
    place.mkdir(parents=True)
    (place / "quickstart.json").write_text(json.dumps(data), encoding="utf-8")
    return place


@pytest.fixture
def reports(tmp_path):
    """Ten runs; from the seventh on a metric, of which lower is better, is higher."""
    folder = tmp_path / "reports"
    for at in range(10):
        written(folder, at, 0.3 if at < 6 else 0.4)
    return folder


def invoked(*args, **env):
    return CliRunner(env=env or {"FXEVAL_STORE": None}).invoke(main, ["trend", *map(str, args)])


def test_a_folder_of_runs_is_shown_and_the_step_is_named(reports):
    found = invoked(reports)
    assert found.exit_code == 0, found.output
    assert found.output.startswith("TREND  quickstart: 1 of ")
    assert "step (worse)" in found.output
    assert "step for the worse at run run-0006, commit 0006e2d04c" in found.output
    assert "+0.100 (0.300 to 0.400)" in found.output


def test_runs_and_records_can_be_named_in_any_order(reports):
    folders = sorted(reports.iterdir())
    expected = invoked(reports).output
    assert invoked(*reversed(folders)).output == expected
    assert invoked(*(one / "quickstart.json" for one in folders)).output == expected
    assert invoked(reports, folders[3]).output == expected


def test_rows_are_not_read(reports):
    for folder in reports.iterdir():
        (folder / "rows.jsonl").write_text("this is no row\n", encoding="utf-8")
    assert invoked(reports).exit_code == 0


def test_filters_choose_series(reports):
    found = invoked(reports, "--metric", "insertion_auc", "--explainer", "gradcam", "--last", "4")
    assert found.exit_code == 0
    assert "over 4 runs" in found.output
    assert "insertion_auc" in found.output
    assert "deletion_auc" not in found.output


def test_nothing_to_show_is_said_with_what_was_asked(reports, tmp_path):
    found = invoked(reports, "--metric", "nothing", "--suite", "quickstart")
    assert found.exit_code == 2
    assert "no run has an estimate of suite quickstart, metric nothing" in found.output
    (tmp_path / "empty").mkdir()
    assert invoked(tmp_path / "empty").exit_code == 2
    absent = invoked(tmp_path / "absent")
    assert (absent.exit_code, "Traceback" in absent.output) == (2, False)
    assert "absent" in absent.output


def test_a_damaged_record_in_a_folder_is_left_out_and_named(reports):
    file = reports / "run-0002" / "quickstart.json"
    file.write_text(file.read_text("utf-8")[:900], encoding="utf-8")
    (reports / "run-0003" / "quickstart.json").unlink()
    (reports / "run-0003" / "rows.jsonl").write_text("", encoding="utf-8")
    found = invoked(reports)
    assert found.exit_code == 0
    assert "! left out: run-0002: quickstart.json: not valid JSON" in found.output
    assert "! left out: run-0003: no record" in found.output
    assert "over 8 runs" in found.output


def test_a_damaged_record_that_was_named_is_an_error(reports):
    (reports / "run-0002" / "quickstart.json").write_text("{", encoding="utf-8")
    found = invoked(reports / "run-0001", reports / "run-0002")
    assert found.exit_code == 2
    assert "run-0002: quickstart.json: not valid JSON" in found.output


def test_another_file_beside_the_runs_is_no_run(reports):
    expected = invoked(reports).output
    (reports / "coverage.json").write_text('{"totals": 1}', encoding="utf-8")
    assert invoked(reports).output == expected


def test_two_records_of_one_run_that_differ_are_refused(reports, tmp_path):
    written(tmp_path / "copy", 3, 0.9)
    found = invoked(reports, tmp_path / "copy")
    assert found.exit_code == 2
    assert (
        "run run-0003, suite quickstart: expected one record, got two that differ" in found.output
    )


def test_a_class_of_hardware_is_a_break(reports):
    for at in range(10, 18):
        written(reports, at, 0.9, capability="AVX512")
    found = invoked(reports)
    assert "not compared across run run-0010: hardware: Linux x86_64, AVX512" in found.output
    assert "0.400 to 0.900" not in found.output
    assert "0.300 to 0.900" not in found.output


@pytest.mark.parametrize(
    "args",
    [[], ["--last", "0"], ["--last", "x"], ["--nothing"], ["RUN", "--store", "sqlite:///x.db"]],
)
def test_a_wrong_usage_has_a_status_of_its_own(args, reports):
    found = invoked(*(reports if one == "RUN" else one for one in args))
    assert found.exit_code == 64
    assert "Traceback" not in found.output


def test_markdown_and_page_are_written(reports, tmp_path):
    markdown, html = tmp_path / "t.md", tmp_path / "deep" / "t.html"
    found = invoked(reports, "--markdown", markdown, "--html", html)
    assert found.exit_code == 0
    assert f"wrote {markdown}" in found.output
    assert markdown.read_text("utf-8").startswith("## Trend: quickstart")
    assert html.read_text("utf-8").lstrip().startswith("<!DOCTYPE html>")


def test_change_points_need_the_extra(reports, monkeypatch):
    monkeypatch.setitem(sys.modules, "ruptures", None)
    found = invoked(reports, "--changes")
    assert found.exit_code == 2
    assert 'pip install "fxeval[trend]"' in found.output


def test_change_points_are_named(reports):
    pytest.importorskip("ruptures")
    found = invoked(reports, "--changes")
    assert found.exit_code == 0
    assert "change points by PELT: run-0006" in found.output


def test_an_index_says_what_the_records_say(reports, tmp_path):
    pytest.importorskip("sqlalchemy")
    from fxeval.store.index import Store

    url = f"sqlite:///{tmp_path / 'index.sqlite'}"
    Store(url).rebuild([reports])
    expected = invoked(reports).output
    assert invoked("--store", url).output == expected
    assert invoked(FXEVAL_STORE=url).output == expected
    assert invoked(reports, FXEVAL_STORE="sqlite:///nowhere/none.sqlite").output == expected


def test_a_terminal_without_unicode_gets_ascii_and_folders_need_no_extra(reports):
    alone = WITHOUT_TORCH.replace('{"torch",', '{"torch", "sqlalchemy", "ruptures", "scipy",')
    assert alone != WITHOUT_TORCH
    done = subprocess.run(
        [sys.executable, "-c", alone, "trend", str(reports)],
        env={"PYTHONIOENCODING": "ascii", "PYTHONPATH": ":".join(sys.path), "PATH": ""},
        capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
    assert b"______~~~~" in done.stdout or b"______####" in done.stdout
