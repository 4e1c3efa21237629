"""``fxeval store``: the index from the command line, and its tables."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from fxeval.cli import main
from fxeval.cli.runs import run_path
from fxeval.errors import StoreError
from fxeval.records.series import Wanted
from fxeval.store.csv_export import COLUMNS
from fxeval.store.index import Store
from fxeval.store.tables import METADATA, STORE
from fxeval.tests.cli.test_report import WITHOUT_TORCH
from fxeval.tests.store.stored_runs import write_run
from fxeval.tests.world import the_record

ROOT = Path(__file__).parents[3]


@pytest.fixture
def reports(tmp_path, monkeypatch):
    """A folder with three runs, one of them of another suite."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FXEVAL_STORE", raising=False)
    write_run(Path("reports"), "run-1", day=1)
    write_run(Path("reports"), "run-2", day=2, value=-0.5)
    write_run(Path("reports"), "run-3", day=3, suite="other")
    return Path("reports")


def invoked(*args, status=0):
    found = CliRunner().invoke(main, ["store", *map(str, args)])
    assert found.exit_code == status, found.output
    return found.output


def test_runs_are_added_listed_checked_and_removed(reports):
    runs = [reports / f"run-{number}" for number in (1, 2, 3)]
    assert invoked("add", *runs[:2]) == "added run-1\nadded run-2\n"
    assert (reports / "store.sqlite").is_file()
    assert invoked("add", *runs) == "unchanged run-1\nunchanged run-2\nadded run-3\n"
    head, *lines = invoked("list").splitlines()
    assert head.split() == ["run", "started", "suite", "verdict", "cells", "commit", "machine"]
    assert [line.split()[:5] for line in lines] == [
        ["run-1", "2026-05-01T00:00:00Z", "quickstart", "invalid", "4"],
        ["run-2", "2026-05-02T00:00:00Z", "quickstart", "invalid", "4"],
        ["run-3", "2026-05-03T00:00:00Z", "other", "invalid", "4"],
    ]
    assert len(invoked("list", "--suite", "quickstart", "--last", "1").splitlines()) == 2
    assert invoked("check") == "3 of 3 runs are as the index has them\n"
    (runs[0] / "quickstart.json").unlink()
    (runs[1] / "rows.jsonl").write_text("changed")
    said = invoked("check", status=1)
    assert f"run-1: {runs[0].absolute() / 'quickstart.json'} is missing\n" in said
    assert f"run-2: {runs[1].absolute() / 'rows.jsonl'} has changed\n" in said
    assert "1 of 3 runs are as the index has them" in said
    assert invoked("remove", "run-1") == "removed run-1\n"
    assert "run-1" not in invoked("list")
    assert "did you mean 'run-2'?" in invoked("remove", "run-22", status=2)


def test_the_sides_of_a_comparison_are_no_history_unless_named(reports):
    sides = reports / "ab-20261130T190041Z-7a0a5c"
    (sides / "base").mkdir(parents=True)
    (reports / "run-3").rename(sides / "base" / "run-3")
    assert invoked("rebuild", reports) == "2 runs, 0 left out\n"
    assert "run-3" not in invoked("list")
    assert invoked("rebuild", reports, sides) == "3 runs, 0 left out\n"


def test_a_rebuild_counts_and_names_what_it_leaves_out(reports):
    assert invoked("rebuild", reports) == "3 runs, 0 left out\n"
    (reports / "run-1" / "quickstart.json").write_text('{"record": 2')
    said = invoked("rebuild", reports, status=1)
    assert "left out: " in said
    assert "run-1: quickstart.json: not valid JSON" in said
    assert "2 runs, 1 left out" in said
    assert "run-1" not in invoked("list")
    assert "got no folder" in invoked("rebuild", "absent", status=2)


def test_one_bad_run_does_not_keep_the_others_out(reports):
    (reports / "run-1" / "quickstart.json").write_text("{}")
    said = invoked("add", *sorted(reports.iterdir()), status=2)
    assert "error: reports/run-1: quickstart.json: record: expected format version" in said
    assert "added run-2\nadded run-3\n" in said


def test_the_index_is_named_by_option_then_by_the_environment(reports, monkeypatch):
    monkeypatch.setenv("FXEVAL_STORE", "sqlite:///mine.sqlite")
    invoked("add", reports / "run-1")
    invoked("add", reports / "run-2", "--store", "sqlite:///other.sqlite")
    assert [one.id for one in Store("sqlite:///mine.sqlite").runs()] == ["run-1"]
    assert [one.id for one in Store("sqlite:///other.sqlite").runs()] == ["run-2"]
    assert not (reports / "store.sqlite").exists()


def test_a_run_is_named_by_its_id_wherever_a_command_wants_a_run(reports, monkeypatch):
    invoked("add", reports / "run-1")
    address = "sqlite:///reports/store.sqlite"
    assert run_path("reports/run-1", store=address) == Path("reports/run-1")
    assert run_path("run-1", store=address) == (reports / "run-1").absolute()
    with pytest.raises(StoreError, match="got nothing there"):
        run_path("run-1")
    monkeypatch.setenv("FXEVAL_STORE", address)
    assert run_path("run-1") == (reports / "run-1").absolute()
    with pytest.raises(StoreError, match="expected the id of a run, got 'run-7'"):
        run_path("run-7")
    with pytest.raises(StoreError, match="got nothing there"):
        run_path("absent/run-1")


@pytest.mark.parametrize(
    ("args", "status", "said"),
    [
        (["list"], 2, "no index is there. Make one from records: fxeval store add RUN."),
        (["check", "--store", "mysql://a:top-secret@h/d"], 2, "got 'mysql://'"),
        (["list", "--last", "0"], 64, "'--last': 0 is not in the range"),
        (["add"], 64, "Missing argument 'RUN...'"),
        (["added"], 64, "No such command 'added'"),
        (["--store", "sqlite:///a.sqlite", "list"], 64, "No such option"),
        ([], 64, "Commands:"),
        (["export"], 64, "expected --csv DIR or --mlflow URI, got neither"),
    ],
)
def test_a_wrong_question_is_told_with_its_status(reports, args, status, said):
    output = invoked(*args, status=status)
    assert said in output
    assert "Traceback" not in output
    assert "top-secret" not in output


def test_text_of_a_record_moves_no_cursor(reports):
    def hostile(record):
        record["run"]["id"] = "run\x1b[31m"
        return record

    invoked("add", write_run(reports, "run-4", edit=hostile))
    assert "run\ufffd[31m" in invoked("list")


# --- CSV


def tables(folder):
    found = {}
    for name in COLUMNS:
        with (folder / f"{name}.csv").open(encoding="utf-8", newline="") as file:
            found[name] = list(csv.DictReader(file))
            file.seek(0)
            assert next(csv.reader(file)) == list(COLUMNS[name])
    return found


def test_tables_hold_every_run_estimate_and_limit(reports):
    invoked("rebuild", reports)
    assert "wrote out/estimates.csv" in invoked("export", "--csv", "out")
    found = tables(Path("out"))
    record = json.loads((reports / "run-1" / "quickstart.json").read_text())
    assert [row["run"] for row in found["runs"]] == ["run-1", "run-2", "run-3"]
    told = [
        (row["cell"], row["metric"], row["map"], json.loads(row["under"]), float(row["value"]))
        for row in found["estimates"]
        if row["run"] == "run-1"
    ]
    assert told == [
        (cell["id"], one["metric"], one["map"], one["under"], one["value"])
        for cell in record["cells"]
        for one in cell["estimates"]
    ]
    asked = [
        (row["cell"], row["metric"], row["outcome"], row["text"])
        for row in found["limits"]
        if row["run"] == "run-1"
    ]
    assert asked == [
        (cell["id"], one["metric"], one["verdict"]["outcome"], one["text"])
        for cell in record["cells"]
        for one in cell["limits"]
    ]
    assert asked
    assert {row["value"] for row in found["estimates"] if row["run"] == "run-2"} == {"-0.5"}


def test_tables_hold_only_what_is_wanted(reports):
    invoked("rebuild", reports)
    invoked("export", "--csv", "out", "--metric", "deletion_auc", "--last", "1")
    found = tables(Path("out"))
    assert [row["run"] for row in found["runs"]] == ["run-3"]
    for name in ("estimates", "limits"):
        assert {(row["run"], row["metric"]) for row in found[name]} == {("run-3", "deletion_auc")}
    invoked("export", "--csv", "out", "--suite", "absent")
    assert not any(tables(Path("out")).values())


@pytest.mark.parametrize("start", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "=1\r\n2"])
def test_no_text_begins_a_formula(reports, start):
    def hostile(record):
        record["verdict"]["reason"] = start
        for cell in record["cells"]:
            cell["model"] = start
            for limit in cell["limits"]:
                limit["text"] = start
        return record

    invoked("add", write_run(reports, "run-9", edit=hostile))
    invoked("export", "--csv", "out")
    found = tables(Path("out"))
    assert {row["reason"] for row in found["runs"]} == {f"'{start}"}
    assert {row["model"] for row in found["estimates"]} == {f"'{start}"}
    assert {row["text"] for row in found["limits"]} == {f"'{start}"}


# --- what is absent


ABSENT = WITHOUT_TORCH.replace('"safetensors"', '"safetensors", "sqlalchemy"')


def run_without(code, *args):
    return subprocess.run(
        [sys.executable, "-c", code, *args], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def test_the_index_needs_no_torch(reports):
    done = run_without(WITHOUT_TORCH, "store", "add", "reports/run-1")
    assert (done.returncode, done.stdout) == (0, "added run-1\n"), done.stderr


def test_an_absent_extra_is_named(reports):
    done = run_without(ABSENT, "store", "add", "reports/run-1")
    assert done.returncode == 2
    assert done.stderr == ('error: The store needs SQLAlchemy: pip install "fxeval[store]".\n')
    without_driver = ABSENT.replace('"sqlalchemy"', '"pg8000"')
    done = run_without(without_driver, "store", "list", "--store", "postgresql://a:top@h/d")
    assert done.returncode == 2
    assert 'needs pg8000: pip install "fxeval[store]"' in done.stderr
    assert "top" not in done.stderr
    without_mlflow = ABSENT.replace('"sqlalchemy"', '"mlflow"')
    run_without(WITHOUT_TORCH, "store", "add", "reports/run-1")
    done = run_without(without_mlflow, "store", "export", "--mlflow", "file:runs")
    assert done.returncode == 2
    assert done.stderr == 'error: This export needs MLflow: pip install "fxeval[mlflow]".\n'


# --- in a run


def test_a_finished_run_is_added_by_the_controller_alone(world):
    done = world("--fx-store=sqlite:///mine.sqlite", "-n2", alone=True)
    assert "added to sqlite:///mine.sqlite" in done.stdout.str()
    store = Store(f"sqlite:///{world.path}/mine.sqlite")
    record = the_record(world)
    (run,) = store.runs()
    assert run.id == record["run"]["id"]
    assert store.path_of(run.id).is_dir()
    assert store.check() == []
    (cell, *_) = record["cells"]
    assert store.series(Wanted(check=cell["check"]))
    assert "mine.sqlite" not in record["run"]["command"]


def test_an_index_that_fails_is_a_warning_and_the_run_is_whole(world):
    (world.path / "mine.sqlite").write_text("something else " * 100)
    done = world("--fx-store", "sqlite:///mine.sqlite", alone=True)
    said = done.stdout.str()
    assert "warning: the run is not in the index: sqlite:///mine.sqlite: the database says" in said
    assert "Its own files are whole; add it later: fxeval store add reports/" in said
    assert done.ret == world("-p", "no:cacheprovider", alone=True).ret
    assert len(list(world.path.glob("reports/*/small.json"))) == 2


def test_a_wrong_address_stops_before_anything_is_measured_and_shows_no_password(world):
    done = world("--fx-store=mysql://ann:top-secret@db/x", alone=True)
    assert done.ret == 2
    assert "expected the address of an index" in done.stdout.str()
    assert "top-secret" not in done.stdout.str()
    assert not list(world.path.glob("reports/*"))


def test_a_record_never_holds_a_password(world):
    address = "postgresql+pg8000://ann:top-secret@127.0.0.1:1/x"
    done = world("--fx-store", address, alone=True)
    assert "warning: the run is not in the index" in done.stdout.str()
    assert "top-secret" not in done.stdout.str()
    for path in world.path.glob("reports/*/*"):
        assert b"top-secret" not in path.read_bytes(), path.name
    assert "postgresql+pg8000://***" in the_record(world)["run"]["command"]


# --- what the page says


def test_the_page_names_every_column_of_every_table():
    page = ROOT / "docs" / "store.md"
    if not page.is_file():
        pytest.skip("no docs beside an installed fxeval")
    lines = [line.split("|")[1:-1] for line in page.read_text("utf-8").splitlines() if "|" in line]
    told = {parts[0].strip(" `"): parts[-1] for parts in lines}
    for name, columns in COLUMNS.items():
        assert told[f"{name}.csv"].strip() == ", ".join(columns)
    for name, table in METADATA.tables.items():
        if name != STORE.name:
            said = re.sub(r" \([^)]*\)", "", told[name]).strip()
            assert said == ", ".join(column.name for column in table.columns)
