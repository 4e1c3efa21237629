"""The ledger principle: everything after the rows is a pure function of them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from fxeval.cli import main
from fxeval.tests.world import the_record

EXAMPLE = Path(__file__).parents[1] / "records" / "example_v2.json"

# A process that cannot import torch and other heavy libraries.
WITHOUT_TORCH = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "cv2", "onnx", "onnxruntime", "safetensors"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
from fxeval.cli import main
main(sys.argv[1:])
"""


@pytest.fixture
def run(world):
    """The folder of a finished run of four cells, one of them refused."""
    world(explainers="occlusion, constant", alone=True)
    (folder,) = world.path.glob("reports/*")
    return folder


def verdicts(text: str) -> bytes:
    record = json.loads(text)
    found = [record["verdict"], *(cell["verdict"] for cell in record["cells"])]
    found += [limit["verdict"] for cell in record["cells"] for limit in cell["limits"]]
    return json.dumps(found).encode()


def test_without_torch_the_rows_give_the_same_record_byte_by_byte(run, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, "report", str(run), "--out", str(tmp_path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    before, after = ((folder / "small.json").read_text() for folder in (run, tmp_path))
    assert verdicts(after) == verdicts(before)
    assert after == before
    assert (tmp_path / "small.html").read_text() == (run / "small.html").read_text()


def test_rows_in_another_order_and_in_several_files_give_the_same_record(run, tmp_path):
    before = (run / "small.json").read_text()
    path = run / "rows.jsonl"
    lines = path.read_text().splitlines()
    (run / "rows-b.jsonl").write_text("\n".join(lines[::-3]) + "\n")
    kept = [line for line in lines if line not in set(lines[::-3])]
    path.write_text("\n".join(reversed(kept)) + "\n")
    found = CliRunner().invoke(main, ["report", str(run), "--out", str(tmp_path)])
    assert found.exit_code == 0, found.output
    assert (tmp_path / "small.json").read_text() == before


def test_a_changed_row_is_told_and_a_changed_verdict_too(run, tmp_path):
    path = run / "rows.jsonl"
    before = path.read_text()
    rows = [json.loads(line) for line in before.splitlines()]
    for row in rows:
        for one in row["measured"]:
            if one["map"] == "explainer" and "deletion_auc" in one["values"]:
                one["values"]["deletion_auc"] = 1.0
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = CliRunner().invoke(main, ["report", str(run), "--out", str(tmp_path)])
    assert found.exit_code == 1
    assert "the rows say fail" in found.output
    path.write_text(before)
    record = json.loads((run / "small.json").read_text())
    record["cells"][0]["verdict"]["outcome"] = "inconclusive"
    (run / "small.json").write_text(json.dumps(record))
    found = CliRunner().invoke(main, ["report", str(run), "--out", str(tmp_path)])
    assert found.exit_code == 1
    assert "recorded inconclusive" in found.output


def test_rows_that_are_missing_are_no_verdict(run, tmp_path):
    path = run / "rows.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    found = CliRunner().invoke(main, ["report", str(run), "--out", str(tmp_path)])
    assert found.exit_code == 2
    assert "expected 32 rows, got 31" in found.output
    assert not list(tmp_path.iterdir())
    found = CliRunner().invoke(main, ["report", str(tmp_path)])
    assert found.exit_code == 2
    assert "got a folder without a record" in found.output


def test_a_cell_that_could_not_be_measured_stays_so(world, tmp_path):
    world(edit=lambda text: text.replace("models: [tiny]", "models: [absent, tiny]"), alone=True)
    (folder,) = world.path.glob("reports/*")
    found = CliRunner().invoke(main, ["report", str(folder), "--out", str(tmp_path)])
    assert found.exit_code == 0, found.output
    assert (tmp_path / "small.json").read_text() == (folder / "small.json").read_text()
    assert the_record(world)["verdict"]["outcome"] == "invalid"


def test_a_report_says_again_which_metrics_tell_known_maps_apart(run, tmp_path):
    path, markdown = run / "small.json", tmp_path / "summary.md"
    record = json.loads(path.read_text())
    record["self_checks"] = json.loads(EXAMPLE.read_text("utf-8"))["self_checks"]
    path.write_text(json.dumps(record))
    asked = ["report", str(run), "--out", str(tmp_path), "--markdown", str(markdown)]
    found = CliRunner().invoke(main, asked)
    assert found.exit_code == 0, found.output
    said = "of 3 metrics, each under one condition, 1 is unfit here, 1 was not checked, 1 tells"
    assert f"self-check  {said}" in found.output
    assert "unfit  faithfulness.deletion_insertion: insertion_fraction_to_match" in found.output
    assert f"Self-check of the metrics: {said}" in markdown.read_text("utf-8")
    assert '<section id="self-check"' in (tmp_path / "small.html").read_text("utf-8")
    assert json.loads((tmp_path / "small.json").read_text())["self_checks"] == record["self_checks"]
