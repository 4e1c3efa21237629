"""Whole runs that are compared with other explainers and with earlier runs."""

import pytest

from fxeval.tests.world import cells, rows, the_record

MORE = """

@pytest.fixture
def explainer_masks():
    def masks(m, p, r, g):
        drawn = torch.from_numpy(g.random((1, *p.shape[-2:]))).float()
        return drawn * p.mean(1)
    return Explain(masks)


@pytest.fixture
def explainer_unready():
    from fxeval.errors import FxevalError
    raise FxevalError("captum is not installed. Install it.")
"""
SUITE = """\
fxeval: 1
suite: small
defaults: {seed: 7, seeds: 2}
models: [tiny]
explainers: [occlusion, masks, unready]
pairs: [{use: memory, n: 6}]
checks:
  - id: deletion
    kind: faithfulness.deletion_insertion
    steps: 2
    fills: [mean]
    explainers: [occlusion, masks]
    limits:
      - {metric: deletion_auc, better_than: "explainer:masks"}
      - {metric: deletion_auc, better_than: "explainer:unready", severity: info}
      - {metric: deletion_auc, not_worse_than: baseline, within: {absolute: 0.01}, severity: info}
"""


@pytest.fixture
def run(world):
    """Run the suite; returns the records of this run and the rows."""
    with (world.path / "conftest.py").open("a") as file:
        file.write(MORE)

    def once(*args, edit=lambda text: text):
        before = {*world.path.glob("reports/*")}
        result = world(*args, edit=lambda _: edit(SUITE))
        (found,) = {*world.path.glob("reports/*")} - before or {None}
        return result, found

    once.world = world
    return once


def maps_of(found):
    return {
        (row["cell"].partition("-")[2].partition("-")[0], one["map"], one["seed"])
        for row in found for one in row["measured"]
    }  # fmt: skip


def test_a_run_holds_the_values_of_other_explainers_and_of_an_earlier_run(run):
    world = run.world
    _, first = run()
    record, found = the_record(world), rows(world)
    assert maps_of(found) == {
        ("occlusion", "explainer", 0), ("occlusion", "explainer:masks", 0),
        ("occlusion", "explainer:masks", 1), ("masks", "explainer", 0), ("masks", "explainer", 1),
    }  # fmt: skip
    occlusion, masks = cells(record).values()
    assert (occlusion["seeds"], masks["repeatability"]["depends_on_seed"]) == (2, True)
    assert not occlusion["repeatability"]["depends_on_seed"]
    assert (
        "explainer:unready: no values: captum is not installed. Install it."
        in (occlusion["remarks"])
    )
    values = {
        (row["row"], one["seed"]): one["values"]
        for row in found for one in row["measured"] if "masks-" in row["cell"]
    }  # fmt: skip
    for row in found:
        for one in row["measured"]:
            if one["map"] == "explainer:masks":
                assert one["values"] == values[row["row"], one["seed"]]
    masks_run = next(one for one in occlusion["explaining"] if one["side"] == "probe, masks")
    again = next(one for one in masks["explaining"] if one["side"] == "probe")
    assert {masks_run["was_shared"], again["was_shared"]} == {True, False}

    first.rename(world.path / "before")
    _, second = run("--fx-baseline", "before", "-n2", "--dist=load")
    record, later = the_record(world), rows(world)
    for row, old in zip(later, found, strict=True):
        own = [one["values"] for one in old["measured"] if one["map"] == "explainer"]
        assert [one["values"] for one in row["measured"] if one["map"] == "baseline"] == own
        assert [one for one in row["measured"] if one["map"] != "baseline"] == old["measured"]
    for cell in record["cells"]:
        (said,) = [text for text in cell["remarks"] if text.startswith("baseline: ")]
        assert first.name in said
        assert said.endswith("6 rows")
    assert "before" in record["run"]["command"]

    (world.path / "reports" / second.name).rename(world.path / "then")
    run("--fx-base=then", edit=lambda text: text.replace("steps: 2", "steps: 4"))
    for cell in the_record(world)["cells"]:
        (said,) = [text for text in cell["remarks"] if text.startswith("base: ")]
        assert "its check has other parameters: steps was 2, is 4" in said
    assert all(one[1] != "base" for one in maps_of(rows(world)))


def test_a_path_that_is_no_run_is_told_before_any_cell_is_measured(run):
    result, found = run("--fx-baseline=nowhere")
    assert result.ret == 2
    assert found is None
    result.stdout.fnmatch_lines(
        ["*--fx-baseline *nowhere: expected the folder of one run (<suite>.json*"]
    )
