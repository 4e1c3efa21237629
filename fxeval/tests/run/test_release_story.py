"""The releases of an explainer, one after another, each compared with the first."""

import json
import re
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner

from fxeval.cli import main
from fxeval.scorecard.worst_first import worse_lines
from fxeval.tests.releases import BASELINE, SHARES, WORLD, suite
from fxeval.tests.test_one_verdict import junit_of, markdown_of, page_of, table_of

DELETION, INSERTION = ("deletion", "tiny"), ("insertion", "tiny")
PASS = {DELETION: "pass", INSERTION: "pass"}
STORY = {
    "equal": (PASS, 0),
    "slightly worse": (PASS, 0),
    "worse": ({DELETION: "fail", INSERTION: "pass"}, 1),
    "of 20 people": ({DELETION: "inconclusive", INSERTION: "inconclusive"}, 1),
}
"""Verdicts of the cells, and how many comparisons got worse."""


class Releases:
    """Measures releases in a folder; ``baseline`` is what the later ones are compared with."""

    def __init__(self, pytester, way):
        self.path, self._start = pytester.path, pytester.runpytest_inprocess
        pytester.makeconftest(WORLD)
        self.first = self.measure("first", BASELINE)[1]
        self.baseline = "main" if way == "name" else self.first
        if way == "name":
            self.command("baseline", "set", "main", self.first)

    def command(self, *args, status=0):
        """Run a command of fxeval; return what it says."""
        done = CliRunner().invoke(main, [str(one) for one in args])
        assert done.exit_code == status, done.output
        return done.output

    def measure(self, name, share, *args, people=32):
        """Return the run of a release, and its folder."""
        (self.path / "noise.txt").write_text(str(share))
        (self.path / "gate.yaml").write_text(suite(people))
        before = {*self.path.glob("reports/*")}
        result = self._start(
            "gate.yaml",
            "--fx-threads=1",
            "--junitxml=junit.xml",
            "--fx-markdown=all.md",
            "-W",
            "default",
            *args,
        )
        (made,) = {*self.path.glob("reports/*")} - before
        return result, made.rename(self.path / "reports" / name.replace(" ", "-"))

    def release(self, name):
        """Return the run of a later release, compared with the baseline, and its folder."""
        share, people = SHARES.get(name, SHARES["equal"]), 20 if "20" in name else 32
        return self.measure(name, share, f"--fx-baseline={self.baseline}", people=people)


@pytest.fixture(params=["folder", "name"])
def releases(pytester, monkeypatch, request):
    monkeypatch.setenv("COLUMNS", "160")
    return Releases(pytester, request.param)


def test_every_release_has_its_verdict_in_every_view(releases):
    for name, (expected, n_worse) in STORY.items():
        result, folder = releases.release(name)
        verdict = expected[DELETION]  # the worse of the two in every release
        said = f"{n_worse} of 2 comparisons with an earlier run got worse"

        record = json.loads((folder / "gate.json").read_text())
        found = {(c["check"], c["model"]): c["verdict"]["outcome"] for c in record["cells"]}
        assert found == expected, name
        assert record["verdict"]["outcome"] == verdict
        assert result.ret == (0 if verdict == "pass" else 1)

        assert table_of(result.outlines) == expected
        page = (folder / "gate.html").read_text()
        assert page_of(page) == (verdict, expected)
        summary = (releases.path / "all.md").read_text()
        assert markdown_of(summary) == (verdict, expected)
        cases = junit_of("junit.xml")
        assert {cell: case[0] for cell, case in cases.items()} == {
            cell: None if one == "pass" else "failure" for cell, one in expected.items()
        }
        if verdict == "inconclusive":
            for cell in record["cells"]:
                reason = cell["verdict"]["reason"]
                assert "baseline" in reason
                assert reason[:60] in cases[cell["check"], cell["model"]][1]
            continue
        for text in (result.stdout.str(), page, summary):
            assert said in text
        worse = worse_lines(record)
        assert [line.partition(":")[0] for line in worse] == (
            ["deletion[tiny-ours-memory]"] * n_worse
        )
        worst = [line for line in result.outlines if line.startswith("worse  ")]
        assert worst == [f"worse  {line}".replace("−", "-") for line in worse]
        assert len(re.findall(r"^- \*\*got worse\*\*: deletion", summary, re.M)) == n_worse
        section = page[page.index('id="regressions"') : page.index('id="shown"')]
        assert section.count("<strong>yes</strong>") == n_worse
        if n_worse:
            assert "improvement over baseline" in cases[DELETION][1]
            assert "gate.yaml:8:5" in cases[DELETION][1]


def test_an_acknowledged_regression_is_a_warning_until_it_passes_again(pytester, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    releases = Releases(pytester, "name")
    day = f"{datetime.now(UTC) + timedelta(days=30):%Y-%m-%d}"
    releases.command(
        "baseline", "ack", "deletion[tiny-ours-memory]", "deletion_auc", "--suite", "gate",
        "--reason", "finer maps follow", "--until", day,
    )  # fmt: skip
    result, folder = releases.release("worse")
    assert result.ret == 0
    said = f"acknowledged until {day}"
    record, page = (folder / "gate.json").read_text(), (folder / "gate.html").read_text()
    summary, junit = ((releases.path / one).read_text() for one in ("all.md", "junit.xml"))
    views = record, page, summary, junit, result.stdout.str()
    assert all(f"{said}: finer maps follow" in view for view in views)
    assert (page_of(page), markdown_of(summary)) == (("pass", PASS), ("pass", PASS))
    assert table_of(result.outlines) == PASS
    (worse,) = worse_lines(json.loads(record))
    assert worse.startswith("deletion[tiny-ours-memory]")
    assert worse.endswith(said)

    result, folder = releases.release("equal")
    expected = {DELETION: "invalid", INSERTION: "pass"}
    assert result.ret == 1
    assert table_of(result.outlines) == expected
    assert page_of((folder / "gate.html").read_text()) == ("invalid", expected)
    summary = (releases.path / "all.md").read_text()
    assert markdown_of(summary) == ("invalid", expected)
    assert "acknowledged.yaml:4:5" in junit_of("junit.xml")[DELETION][1]
