"""A suite whose undecided cells are measured further, from pytest to the report of its files."""

import json

import pytest
from click.testing import CliRunner

from fxeval.cli import main
from fxeval.tests.world import CONFTEST

pytest_plugins = ["pytester"]

SUITE = """\
fxeval: 1
suite: extended
defaults: {seed: 7, on_inconclusive: extend, looks: 3}
models: [tiny]
explainers: [centre]
pairs: [memory]
checks:
  - {id: clear, kind: faithfulness.deletion_insertion, steps: 2, fills: [mean], controls: [edge],
     limits: [{metric: deletion_auc, at_least: -0.9}]}
  - {id: bets, kind: faithfulness.deletion_insertion, steps: 2, fills: [mean], controls: [edge],
     looks: open, limits: [{metric: deletion_auc, at_least: -0.9}]}
  - {id: open, kind: faithfulness.deletion_insertion, steps: 2, fills: [mean], controls: [edge],
     limits: [{metric: deletion_auc, equivalent_to: control.edge, within: {absolute: 0.0001}}]}
  - {id: once, kind: faithfulness.deletion_insertion, steps: 2, fills: [mean], controls: [edge],
     on_inconclusive: warn, limits: [{metric: deletion_auc, at_least: -0.9}]}
"""


@pytest.fixture
def run_of_it(pytester):
    pytester.makeconftest(CONFTEST.replace("return Memory()", "return Memory(90)"))
    (pytester.path / "suite.yaml").write_text(SUITE)
    return pytester.runpytest_inprocess("suite.yaml", "--fx-reports", "reports", "-q")


def test_cells_stop_where_they_are_decided_and_open_ones_fail(pytester, run_of_it):
    run_of_it.assert_outcomes(passed=3, failed=1)
    run_of_it.stdout.fnmatch_lines(
        [
            "looks *open[[]tiny-centre-memory]: look 3 of 3, 90 of 90 identities, left open at *",
            "looks *clear[[]*: look 1 of 3, 30 of 90 identities, decided at 99.979 %",
            "looks *bets[[]*: open look 1, 30 of 90 identities, decided at 95 % over all looks",
        ],
        consecutive=False,
    )
    (folder,) = (one for one in (pytester.path / "reports").iterdir() if one.is_dir())
    record = json.loads((folder / "extended.json").read_text())
    cells = {cell["check"]: cell for cell in record["cells"]}
    assert [cells[name]["n_pairs"] for name in ("clear", "bets", "open", "once")] == [
        30,
        30,
        90,
        90,
    ]
    assert cells["once"]["looks_taken"] is None
    assert cells["open"]["verdict"]["outcome"] == "inconclusive"
    again = CliRunner().invoke(main, ["report", str(folder), "--out", str(pytester.path / "again")])
    assert again.exit_code == 0, again.output
    for suffix in ("json", "html"):
        same = (pytester.path / "again" / f"extended.{suffix}").read_text()
        assert same == (folder / f"extended.{suffix}").read_text()
    assert "look 3 of 3, 90 of 90 identities, left open at" in same
    refuse_other_looks(folder)


def refuse_other_looks(folder):
    """Looks that are none are damage, and no traceback."""
    file = folder / "extended.json"
    text = file.read_text()
    for old, new, said in (
        ('"used": 3', '"used": 4', "no more looks used"),
        ('"used": 3', '"used": 0', "used"),
        ('"kind": "open"', '"kind": "closed"', "kind"),
    ):
        assert old in text
        file.write_text(text.replace(old, new, 1))
        found = CliRunner().invoke(main, ["report", str(folder), "--out", "again"])
        assert found.exit_code != 0
        assert said in found.output
        assert "Traceback" not in found.output
