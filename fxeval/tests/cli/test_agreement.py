"""``fxeval agreement``: the table of which metrics rank explainers as known truth does."""

import subprocess
import sys

import pytest
from click.testing import CliRunner

from fxeval.cli import main
from fxeval.tests.cli.test_report import WITHOUT_TORCH
from fxeval.tests.statistics.ranked_runs import PROXY, TRUTH, around, declared, run, written

MEANS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
BLUR = {"fill": "blur"}


@pytest.fixture
def runs(tmp_path):
    """Two runs of six explainers on two models: known truth, and a metric that is its reverse."""
    models = {"m": around(MEANS), "w": around(MEANS, seed=2)}
    turned = {"m": around(MEANS[::-1], seed=3), "w": around(MEANS[::-1], seed=4)}
    truth = run(TRUTH, models, pairs="t", name="truth")
    metric = declared("deletion_auc", "lower")
    proxy = run(PROXY, turned, of=metric, under=BLUR, name="proxy")
    return [str(written(one, tmp_path)) for one in (truth, proxy)]


def invoked(*args):
    return CliRunner().invoke(main, ["agreement", *args])


def test_the_table_names_metric_figure_verdict_and_what_is_supported(runs):
    found = invoked(*runs)
    assert found.exit_code == 0, found.output
    assert "Agreement with top_precision on 30 people" in found.output
    assert "\ndeletion_auc (fill blur)  " in found.output
    assert "1.000 [1.000, 1.000]" in found.output
    assert "agrees" in found.output
    assert "disagree as strongly): none." in found.output
    assert "the explainers are fixed" in found.output
    assert "\n  m " not in found.output
    assert "\n  m " in invoked(*runs, "--verbose").output


def test_a_metric_that_reverses_the_truth_is_told(runs, tmp_path):
    proxy = run(PROXY, {"m": around(MEANS[::-1])}, name="reverse")
    found = invoked(runs[0], str(written(proxy, tmp_path)))
    assert found.exit_code == 0
    assert "disagree as strongly): m." in found.output
    assert "not compared: w: " not in found.output


def test_what_random_orders_do_as_often_is_neither_supported_nor_spoken_against(tmp_path):
    truth = run(TRUTH, {"m": around(MEANS)}, pairs="t", name="truth")
    weak = run(PROXY, {"m": around((0.4, 0.1, 0.2, 0.6, 0.3, 0.5))}, name="weak")
    flat = declared("even")
    even = run("stability.repetition", {"m": dict.fromkeys("abcdef", [0.5] * 30)}, of=flat)
    found = invoked(*(str(written(one, tmp_path)) for one in (truth, weak, even)))
    assert found.exit_code == 0, found.output
    assert "no more than random orders do: m." in found.output
    assert "agree as strongly): none." in found.output
    assert "with top_precision on 30 people; other metrics on 30 or more" in found.output
    assert "not compared: even: all explainers have one value" in found.output


def test_the_markdown_has_a_line_for_each_model_and_no_markup_of_others(runs, tmp_path):
    of = declared("deletion_auc", "lower")
    values = {"m": around(MEANS)}
    proxy = run(PROXY, values, of=of, under=BLUR, name="strange", pairs="a|b<i>")
    found = invoked(*runs, str(written(proxy, tmp_path)), "--markdown", str(tmp_path / "t.md"))
    assert found.exit_code == 0, found.output
    text = (tmp_path / "t.md").read_text(encoding="utf-8").replace("\\", "")
    assert "| in w | 1.000 [1.000, 1.000] | agrees |" in text
    assert "| deletion_auc (fill blur), deletion_insertion on a&#124;b&lt;i&gt; |" in text
    assert "| deletion_auc (fill blur), deletion_insertion on p |" in text
    assert "<i>" not in text
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in table} == {7}


def test_without_torch_it_says_the_same(runs):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, "agreement", *runs],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == invoked(*runs).output


def test_a_metric_that_is_not_there_is_wrong_usage(runs):
    found = invoked(*runs, "--metric", "deletion_auk")
    assert found.exit_code == 64
    assert "'deletion_auk'. They have deletion_auc, top_precision" in found.output
    found = invoked(*runs, "--truth", "deletion_auc")
    assert found.exit_code == 64
    assert "expected a metric of known truth, top_precision, got 'deletion_auc'" in found.output


def test_what_cannot_be_said_is_no_table(runs, tmp_path):
    found = invoked(runs[1])
    assert found.exit_code == 2
    assert "a kind truth.*" in found.output
    few = [
        run(TRUTH, {"m": around(MEANS[:4])}, pairs="t", name="few-truth"),
        run(PROXY, {"m": around(MEANS[:4])}, name="few"),
    ]
    found = invoked(*(str(written(one, tmp_path)) for one in few))
    assert found.exit_code == 2
    assert "not compared: m: 4 explainers have both values, fewer than 5" in found.output
    (tmp_path / "empty").mkdir()
    found = invoked(str(tmp_path / "empty"))
    assert found.exit_code == 2
    assert "got a folder without a record" in found.output
