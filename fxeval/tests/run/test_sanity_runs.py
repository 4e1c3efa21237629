"""Whole runs of the two-sided sanity verdict: from a suite to the page, and judged again."""

import pytest
from click.testing import CliRunner

from fxeval.cli import main
from fxeval.tests.world import cells, rows, the_record

SUITE = """\
fxeval: 1
suite: small
defaults: {seed: 7}
models: [tiny]
explainers: [EXPLAINER]
pairs: [{use: memory, n: 30}]
verification: {floor: none}
checks:
  - id: sanity
    kind: sanity.two_sided
    redraws: 2
    limits:
      - {metric: repeat_picture, at_least: 0.5}
      - {metric: change, at_least: -1.5}
      - {metric: compare, at_least: -1.5}
      - {metric: input, at_least: -1.5, severity: warning}
      - {metric: nudge, at_least: 0.5}
  - id: swap
    kind: sanity.impostor_swap
    limits:
      - {metric: repeat_picture, at_least: 0.5, under: {part: positive}}
"""


@pytest.mark.parametrize(("explainer", "outcome"), [("occlusion", "pass"), ("centre", "fail")])
def test_a_suite_of_the_verdict_runs_to_the_page_and_is_judged_again(world, explainer, outcome):
    result = world(edit=lambda _: SUITE.replace("EXPLAINER", explainer))
    assert result.ret == (outcome == "fail")
    record = the_record(world)
    found = cells(record)
    sanity, swap = (found[f"{one}[tiny-{explainer}-memory]"] for one in ("sanity", "swap"))
    assert {sanity["verdict"]["outcome"], swap["verdict"]["outcome"]} == {outcome}
    assert [one["made"] for one in sanity["networks"]] == ["nudged", "redrawn", "redrawn"]
    assert sanity["seeds"] == 1
    assert sanity["draws_itself"]
    assert len(rows(world)) == 60
    (page,) = world.path.glob("reports/*/small.html")
    text = page.read_text()
    assert "Similarity under repetition less that with a nonmate" in text
    assert "must repeat, and must change with the weights" in text
    (run,) = world.path.glob("reports/*/")
    again = CliRunner().invoke(main, ["report", str(run)])
    assert again.exit_code == 0, again.output
