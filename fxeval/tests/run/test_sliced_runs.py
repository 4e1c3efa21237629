"""Whole runs whose results are told apart by a column of a table, or by what images are like."""

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from fxeval.cli import main
from fxeval.tests.world import cells, rows, the_record

SUITE = """\
fxeval: 1
suite: small
defaults: {seed: 7}
models: [tiny]
explainers: [occlusion]
pairs: [PAIRS]
verification: {floor: none}
checks:
  - id: deletion
    kind: faithfulness.deletion_insertion
    steps: 2
    fills: [mean]
    controls: [random_pixels]
    slices: SLICES
    limits:
      - {metric: deletion_auc, at_most: 0.9999, over: list}
      - {metric: deletion_auc, at_most: 0.9999, slice: COLUMN, judge: worst}
"""
N = 34


def suite(pairs, slices, column):
    found = SUITE.replace("PAIRS", pairs).replace("SLICES", slices).replace("COLUMN", column)
    return lambda _: found


@pytest.fixture
def table(world):
    """A folder of aligned faces and a table of pairs with two columns."""
    root = world.path / "faces"
    files = [f"p{who:02}/{number}.png" for who in range(N) for number in (1, 2)]
    generator = np.random.default_rng(0)
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        person = np.random.default_rng(int(file[1:3])).uniform(0, 255, (7, 7, 3))
        coarse = (person + generator.normal(0, 20, person.shape)).clip(0, 255).astype(np.uint8)
        cv2.imwrite(str(root / file), cv2.resize(coarse, (112, 112)))

    def write(glasses):
        lines = ["img1,img2,label,id1,id2,glasses,age gap"]
        for who in range(N):
            one, two = files[2 * who], files[2 * who + 1]
            gap = round(float(generator.uniform(0, 40)), 1)
            lines.append(f"{one},{two},1,p{who:02},p{who:02},{glasses(who)},{gap}")
        for who in range(N):
            other = (who + 1) % N
            lines.append(f"{files[2 * who]},{files[2 * other + 1]},0,p{who:02},p{other:02},,")
        (root / "pairs.csv").write_text("\n".join(lines) + "\n")

    write(lambda who: "<b>yes</b>" if who < 4 else "no")
    write.pairs = f"{{use: csv, params: {{root: {root}, file: pairs.csv, aligned_to: arcface112}}}}"
    return write


def test_a_column_of_a_table_tells_results_apart_and_four_people_pass_nothing(world, table):
    slices = "[glasses, {column: age gap, edges: [10, 20]}]"
    world(edit=suite(table.pairs, slices, "glasses"))
    (cell,) = cells(the_record(world)).values()
    found = rows(world)
    assert len(found) == N
    assert {row["slices"]["glasses"] for row in found} == {"<b>yes</b>", "no"}
    assert {row["slices"]["age gap"] for row in found} == {"below 10", "10 to 20", "20 or more"}
    assert cell["slices"] == [
        {"column": "glasses", "edges": []}, {"column": "age gap", "edges": [10.0, 20.0]},
    ]  # fmt: skip
    whole, worst = cell["limits"]
    assert (worst["verdict"]["outcome"], worst["under"]["glasses"]) == (
        "inconclusive", "<b>yes</b>",
    )  # fmt: skip
    assert worst["verdict"]["reason"].startswith("worst of 2 slices of glasses: deletion_auc (mean")
    assert worst["estimate"]["n_identities"] == 4
    assert cell["verdict"]["outcome"] == "inconclusive"
    words = [
        one["under"]["age gap"]
        for one in cell["estimates"]
        if "age gap" in one["under"]
        and (one["metric"], one["map"]) == ("deletion_auc", "explainer")
    ]
    assert words == ["below 10", "10 to 20", "20 or more"]
    assert whole["slice"] == ""
    (page,) = world.path.glob("reports/*/small.html")
    assert "<b>yes</b>" not in page.read_text()
    again = CliRunner().invoke(main, ["report", str(page.parent), "--out", str(world.path / "x")])
    assert again.exit_code == 0, again.output  # the verdicts follow from the rows alone


def test_a_column_that_names_people_is_refused_and_no_name_is_recorded(world, table):
    table(lambda who: f"Ann Example {who}")
    world(edit=suite(table.pairs, "[glasses]", "glasses"))
    (cell,) = cells(the_record(world)).values()
    assert cell["verdict"]["outcome"] == "invalid"
    assert "as many words as the list has people" in cell["verdict"]["reason"] or (
        "34 different words; expected at most 30" in cell["verdict"]["reason"]
    )
    for path in world.path.glob("reports/*/*"):
        assert "Ann Example" not in path.read_text()


def test_a_column_that_the_list_lacks_is_named_with_the_ones_it_has(world, table):
    result = world(edit=suite(table.pairs, "[glases]", "glases"))
    (cell,) = cells(the_record(world)).values()
    assert cell["verdict"]["outcome"] == "invalid"
    assert "have the column 'glases' of 'slices'" in cell["verdict"]["reason"]
    assert "did you mean 'glasses'?" in result.stdout.str()


def test_a_column_that_the_bundled_faces_lack_is_a_fault_of_the_suite(world):
    result = world(edit=suite("{use: rendered, n: 24}", "[lok, yaw_degrees]", "lok"))
    said = "*small.yaml:9:5: error: check 'deletion': pairs 'rendered_faces': "
    lok = "neither the list nor its images have the column 'lok' of 'slices'; did you mean 'look'?"
    yaw = "the column 'yaw_degrees' of 'slices' holds * different numbers, more than 12; expected*"
    result.stdout.fnmatch_lines([said + lok, said + yaw])
    assert result.ret == 2


def test_the_looks_of_the_bundled_faces_are_slices(world):
    world(edit=suite("{use: rendered, n: 24}", "[look, {column: age, edges: [0.5]}]", "look"))
    (cell,) = cells(the_record(world)).values()
    looks = {row["slices"]["look"] for row in rows(world)}
    assert looks <= {*"abcdef"}
    assert len(looks) > 3
    worst = cell["limits"][1]
    assert worst["under"]["look"] in looks
    assert worst["verdict"]["reason"].startswith(f"worst of {len(looks)} slices of look: ")
    assert worst["verdict"]["outcome"] == "inconclusive"
