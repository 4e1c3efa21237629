"""``fxeval baseline``: what it prints, what it refuses, and that it needs no torch."""

import json
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from fxeval.cli import main
from fxeval.cli.runs import run_path
from fxeval.errors import StoreError
from fxeval.records.baselines import read_baseline
from fxeval.tests.cli.test_report import WITHOUT_TORCH
from fxeval.tests.records.kept_runs import changed, measured, on_another_class


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two runs of 32 people: coarse maps, and finer ones, which are better."""
    reports = tmp_path_factory.mktemp("reports")
    return measured(reports, side=8), measured(reports, side=4)


@pytest.fixture
def here(made, tmp_path, monkeypatch):
    """A folder with the runs ``coarse`` and ``fine``, and its baselines."""
    for run, name in zip(made, ("coarse", "fine"), strict=True):
        changed(run, tmp_path / "reports" / name, clean)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def clean(record):
    record["environment"].update(dirty=False, commit="c0ffee" * 6)


def called(*arguments):
    result = CliRunner().invoke(main, ["baseline", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def test_a_baseline_is_set_and_says_what_moved(here):
    status, said = called("set", "main", "reports/coarse", "--reason", "first release")
    assert status == 0, said
    assert "from nothing" in said
    assert "to   run coarse, in runs/coarse" in said
    assert "wrote baselines/main.json" in said
    status, said = called("set", "main", "reports/fine/evaluate.json")
    assert status == 0, said
    assert "from run coarse, set on 20" in said
    assert "to   run fine, in runs/fine" in said
    before, after = (
        {one["metric"]: one["value"] for one in json.loads(
            (here / "reports" / name / "evaluate.json").read_text()
        )["cells"][0]["estimates"] if one["map"] == "explainer"}
        for name in ("coarse", "fine")
    )  # fmt: skip
    assert before["deletion_auc"] != after["deletion_auc"]
    for metric in [name for name in before if None not in (before[name], after[name])]:
        line = f"{metric}, fill mean: {before[metric]:.6g} -> {after[metric]:.6g}"
        assert (line in said) is (before[metric] != after[metric])


def test_the_values_of_a_run_that_is_gone_are_not_compared(here):
    called("set", "main", "reports/coarse")
    shutil.rmtree(here / "baselines" / "runs")
    status, said = called("set", "main", "reports/fine")
    assert status == 0
    assert "the files of the run before are not there: no values are compared" in said
    assert "->" not in said


def test_show_names_run_age_reason_and_suites_of_every_class(here):
    called("set", "main", "reports/coarse", "--reason", "first \x1b[31mrelease")
    changed(here / "reports" / "coarse", here / "reports" / "other", on_another_class)
    called("set", "main", "reports/other")
    status, said = called("show")
    assert status == 0
    assert said.count("0 days ago") == 2
    assert "run coarse of fxeval " in said
    assert "commit c0ffeec0ffee, in runs/coarse" in said
    assert "AVX2" in said
    assert "suites: evaluate (" in said
    assert "first \ufffd[31mrelease" in said
    assert called("show", "main")[1] == said


def test_the_headroom_is_the_improvement_plus_the_margin_and_advice_follows(here):
    called("set", "main", "reports/coarse")
    status, said = called("show", "main", "--against", "reports/fine")
    assert status == 0
    assert "PASS" in said
    assert "deletion_auc not worse than baseline within 0.01, fill mean: headroom 0.01" in said
    assert "shown better" in said
    assert "fxeval baseline set main reports/fine" in said
    status, said = called("show", "main", "--against", "reports/coarse")
    assert "headroom 0.010 [0.010, 0.010]" in said
    assert "there is no reason to move the baseline" in said


def test_no_advice_is_given_where_something_got_worse(here):
    path = here / "reports" / "coarse" / "evaluate.json"
    record = json.loads(path.read_text())
    record["cells"][0]["asked"][0]["within"] = {}
    called("set", "main", "reports/fine")
    path.write_text(json.dumps(record))
    status, said = called("show", "main", "--against", "reports/coarse")
    assert status == 0
    assert "FAIL" in said
    assert "1 of 1 comparisons failed: the baseline stays where it is" in said


def test_a_run_of_another_class_is_not_compared(here):
    changed(here / "reports" / "coarse", here / "reports" / "other", on_another_class)
    called("set", "main", "reports/coarse")
    status, said = called("show", "main", "--against", "reports/other")
    assert status == 0
    assert "INCONCLUSIVE" in said
    assert "baseline main has no run of the hardware class" in said
    assert "there is no reason to move" in said


def test_a_refused_run_and_an_absent_one_say_why(here):
    status, said = called("set", "main", "reports/nothing")
    assert (status, "reports/nothing: expected the folder of a run" in said) == (2, True)
    path = here / "reports" / "coarse" / "evaluate.json"
    record = json.loads(path.read_text())
    record["environment"]["dirty"] = True
    path.write_text(json.dumps(record))
    status, said = called("set", "main", "reports/coarse")
    assert (status, "cannot become a baseline: the code had changes" in said) == (2, True)
    assert not (here / "baselines").exists()
    assert called("set", "main", "reports/coarse", "--allow-dirty")[0] == 0
    status, said = called("set", "../x", "reports/coarse")
    assert (status, "expected a name of letters" in said) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("set", "main"), "Missing argument 'RUN'"),
        (("show", "--against", "reports/fine"), "--against goes with the NAME"),
        (("set", "--colour"), "No such option"),
        (("move", "main"), "No such command 'move'"),
        ((), "Commands:"),
    ],
)
def test_a_wrong_usage_has_a_status_of_its_own(here, arguments, expected):
    status, said = called(*arguments)
    assert (status, expected in said) == (64, True)


def test_a_folder_of_several_runs_is_named(here):
    status, said = called("set", "main", "reports")
    assert status == 2
    assert "error: reports: expected the folder of one run" in said
    assert "It holds runs; name one of them, such as reports/" in said


def test_an_unknown_baseline_names_those_that_there_are(here):
    assert called("show")[1].startswith("no baseline in baselines; set one with: fxeval baseline")
    called("set", "main", "reports/coarse")
    status, said = called("show", "mian")
    assert (status, "Known in baselines: main." in said) == (2, True)


def test_pruning_keeps_what_is_named(here):
    called("set", "main", "reports/coarse")
    called("set", "main", "reports/fine")
    assert called("prune") == (0, "removed baselines/runs/coarse\n1 copied runs removed\n")
    assert called("prune") == (0, "0 copied runs removed\n")
    assert called("show", "main", "--against", "reports/fine")[0] == 0


def test_the_command_needs_no_torch(here):
    for arguments in (["set", "main", "reports/coarse"], ["show", "main", "--against", "main"]):
        done = subprocess.run(
            [sys.executable, "-c", WITHOUT_TORCH, "baseline", *arguments],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr


# Acknowledged regressions

CELL = "check[a-Occlusion-people]"


def day(days):
    return (datetime.now(UTC) + timedelta(days=days)).date().isoformat()


def acknowledged(*more, metric="deletion_auc", until=30, reason="it blurs"):
    return called(
        "ack", CELL, metric, "--suite", "evaluate", "--reason", reason, "--until", day(until), *more
    )


def test_an_acknowledgement_is_written_and_shown_with_its_state(here):
    status, said = acknowledged("--by", "Ann", "--under", "fill=mean", "--under", "fraction=0.5")
    assert (status, said) == (
        0, f"acknowledged until {day(30)}; wrote baselines/acknowledged.yaml\n",
    )  # fmt: skip
    assert acknowledged("--under", "fill=mean")[0] == 0
    called("set", "main", "reports/coarse")
    line = f"acknowledged, active: evaluate: {CELL}: deletion_auc, fill mean"
    _, said = called("show", "main")
    assert f"{line}, fraction 0.5, until {day(30)} by Ann: it blurs (" in said
    assert f"{line}, until {day(30)}: it blurs (baselines/acknowledged.yaml:" in said
    _, said = called("show", "main", "--against", "reports/fine")
    assert said.count("acknowledged, unused: ") == 2
    path = here / "baselines" / "acknowledged.yaml"
    path.write_text(path.read_text().replace(day(30), "2026-01-31"))
    assert called("show")[1].count("acknowledged, expired: ") == 2


@pytest.mark.parametrize(
    ("given", "status", "said"),
    [
        ({"until": -1}, 2, "expected a day that is not past, got one"),
        ({"until": 800}, 2, "expected a day at most one year after"),
        ({"reason": " "}, 64, "reason: expected a reason"),
    ],
)
def test_an_unfit_acknowledgement_is_not_written(here, given, status, said):
    found = acknowledged(**given)
    assert found[0] == status
    assert said in found[1]
    assert not (here / "baselines" / "acknowledged.yaml").exists()


def test_a_wrong_day_or_condition_is_a_wrong_usage(here):
    status, said = acknowledged("--under", "fill")
    assert (status, "expected KEY=VALUE, such as fill=blur" in said) == (64, True)
    status, said = acknowledged("--until", "tomorrow")
    assert (status, "until: expected a day as YYYY-MM-DD" in said) == (64, True)
    assert acknowledged("--under", "a=inf")[0] == 0
    (here / "baselines" / "acknowledged.yaml").write_text("acknowledged: 1\nregressions: 3\n")
    status, said = called("show")
    assert (status, "acknowledged.yaml:2:14: error: 'regressions' must be a list" in said) == (
        2, True,
    )  # fmt: skip


# Where a command wants a run


def test_a_baseline_names_its_only_run_or_that_of_this_machine(here):
    called("set", "main", "reports/coarse")
    assert run_path("main") == Path("baselines/runs/coarse")
    assert run_path("reports/fine") == Path("reports/fine")
    changed(here / "reports" / "coarse", here / "reports" / "other", on_another_class)
    called("set", "main", "reports/other")
    assert len(read_baseline(Path("baselines"), "main").pointers) == 2
    assert run_path("main") == Path("baselines/runs/coarse")
    called("set", "far", "reports/other")
    assert run_path("far") == Path("baselines/runs/other")


def test_a_name_of_two_things_or_of_nothing_is_refused(here):
    called("set", "main", "reports/coarse")
    (here / "main").mkdir()
    with pytest.raises(StoreError, match=r"Write \./main for the path"):
        run_path("main")
    assert run_path("./main") == Path("main")
    with pytest.raises(StoreError, match=r"or the name of a baseline \(main\), got nothing there"):
        run_path("mian")
