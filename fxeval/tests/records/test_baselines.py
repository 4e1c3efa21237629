"""Baselines: what is kept, what is refused, and that nothing damaged is compared with."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import date

import pytest

from fxeval.errors import StoreError
from fxeval.records.baseline_moves import Asked, move, prune
from fxeval.records.baselines import (
    MOST_BYTES,
    checked_folder,
    names_in,
    path_of,
    pointer_of,
    read_baseline,
)
from fxeval.records.earlier import EarlierRun, Question
from fxeval.records.hardware import hardware_class
from fxeval.records.named_baseline import NamedBaseline
from fxeval.records.stored_run import read_run
from fxeval.tests.records.kept_runs import changed, measured, on_another_class

TODAY = date(2026, 11, 20)
LATER = date(2026, 11, 30)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return measured(tmp_path_factory.mktemp("reports"), n=4)


@pytest.fixture
def run(made, tmp_path):
    """A run of its own for each test, beside the baselines."""
    return changed(made, tmp_path / "reports" / "run-1")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "baselines"


def moved(folder, run, name="main", **asked):
    return move(folder, name, read_run(run), Asked(TODAY, **{"allow_dirty": True, **asked}))


def question(run, **changes):
    (record,) = read_run(run).records.values()
    own = hardware_class(record.environment)
    asked = Question.of(record, record.cells[0])
    return replace(asked, **{"hardware_class": own, **changes})


def test_a_baseline_names_a_run_its_files_and_the_day(folder, run):
    done = moved(folder, run, reason="the first release")
    found = read_baseline(folder, "main")
    assert found.pointers == {done.hardware_class: done.after}
    pointer = found.pointers[done.hardware_class]
    assert (pointer.run, pointer.set_on, pointer.reason) == (
        "run-1", "2026-11-20", "the first release",
    )  # fmt: skip
    assert pointer.folder == "runs/run-1"
    assert [one.suite for one in pointer.suites] == ["evaluate"]
    assert {one.file for one in pointer.files()} == {"evaluate.json", "rows.jsonl"}
    shutil.rmtree(run)  # a fork has the copy alone
    where = checked_folder(folder, pointer)
    assert [*read_run(where).records] == ["evaluate"]


def test_in_place_names_the_folder_of_the_run_and_copies_nothing(folder, run):
    pointer = moved(folder, run, in_place=True).after
    assert pointer.folder == "../reports/run-1"
    assert checked_folder(folder, pointer).resolve() == run.resolve()
    assert not (folder / "runs").exists()


def test_a_run_outside_of_the_folder_that_holds_the_baselines_is_not_named_in_place(
    folder, run, tmp_path_factory
):
    far = tmp_path_factory.mktemp("far") / "run-1"
    shutil.copytree(run, far)
    with pytest.raises(StoreError, match="Leave out --in-place to copy it"):
        moved(folder, far, in_place=True)
    assert not names_in(folder)


def test_every_hardware_class_has_a_pointer_of_its_own(folder, run):
    other = changed(run, run.with_name("run-2"), on_another_class)
    first, second = moved(folder, run), moved(folder, other)
    assert first.hardware_class != second.hardware_class
    found = read_baseline(folder, "main")
    assert {key: one.run for key, one in found.pointers.items()} == {
        first.hardware_class: "run-1", second.hardware_class: "run-2",
    }  # fmt: skip
    assert second.before is None
    assert moved(folder, run).before == first.after
    with pytest.raises(StoreError, match="no run of the hardware class 'abacus', only of: Linux"):
        pointer_of(found, "abacus")


def invalid(record):
    record["cells"][0]["verdict"]["outcome"] = "invalid"


def incomplete(record):
    record["run"].update(complete=False, missing=["b[m-e-p]"])


def again(record):
    record["cells"][0]["earlier"] = ["fail"]


def early(record):
    record["cells"][0]["looks_taken"] = {
        "kind": "planned", "units": "identities", "identities": [30, 60], "rows": [30, 60],
        "left_out": 0, "used": 1, "seed": 7, "confidence": 0.99,
    }  # fmt: skip


def short(record):
    record["cells"][0]["n_pairs"] += 1


def dirty(record):
    record["environment"]["dirty"] = True


def odd_id(record):
    record["run"]["id"] = "../../etc"


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (invalid, r"has invalid cells: check\["),
        (incomplete, r"did not run completely \(1 cells missing\)"),
        (again, r"cells that were run again: check\["),
        (early, r"cells that stopped at an early look: check\[.*'on_inconclusive: fail'"),
        (short, r"rows are not all there: check\["),
        (dirty, "give --allow-dirty"),
        (odd_id, r"expected a run id that can name a folder, got '\.\./\.\./etc'"),
    ],
)
def test_an_unfit_run_does_not_become_a_baseline(folder, run, edit, said):
    bad = changed(run, run.with_name("run-2"), edit)
    with pytest.raises(StoreError, match=said):
        moved(folder, bad, allow_dirty=False)
    assert not names_in(folder)


def test_a_run_of_changed_code_becomes_one_if_that_is_allowed(folder, run):
    assert moved(folder, changed(run, run.with_name("run-2"), dirty)).after.run == "run-2"


def test_records_of_two_runs_or_of_two_classes_are_no_baseline(folder, run):
    shutil.copy(run / "evaluate.json", run / "other.json")
    with pytest.raises(StoreError, match="got two of the same name"):
        moved(folder, run)
    record = json.loads((run / "other.json").read_text())
    record["suite"]["name"], record["run"]["id"] = "other", "run-9"
    (run / "other.json").write_text(json.dumps(record))
    with pytest.raises(StoreError, match="expected the records of one run, got run-1, run-9"):
        moved(folder, run)
    record["run"]["id"] = "run-1"
    on_another_class(record)
    (run / "other.json").write_text(json.dumps(record))
    with pytest.raises(StoreError, match="expected a run on one hardware class, got "):
        moved(folder, run)


def test_a_suite_that_a_baseline_loses_is_named(folder, run):
    record = json.loads((run / "evaluate.json").read_text())
    record["suite"]["name"] = "other"
    (run / "other.json").write_text(json.dumps(record))
    rows = (run / "rows.jsonl").read_text()
    (run / "rows-other.jsonl").write_text(rows.replace('"suite":"evaluate"', '"suite":"other"'))
    moved(folder, run)
    alone = changed(run, run.with_name("run-2"))
    (alone / "other.json").unlink()
    assert moved(folder, alone).lost_suites() == ["other"]


def test_a_copy_with_other_files_is_not_overwritten_and_a_second_name_shares_it(folder, run):
    moved(folder, run)
    assert moved(folder, run, name="release").after.folder == "runs/run-1"
    (run / "evaluate.json").write_text((run / "evaluate.json").read_text() + "\n")
    with pytest.raises(StoreError, match="expected the files of run run-1, got others"):
        moved(folder, run)
    checked_folder(folder, read_baseline(folder, "main").pointers.popitem()[1])


def test_pruning_removes_what_no_baseline_names_and_nothing_else(folder, run):
    moved(folder, run)
    moved(folder, changed(run, run.with_name("run-2")), name="release")
    moved(folder, changed(run, run.with_name("run-3")))
    (folder / "runs" / ".run-8.77").mkdir()  # of a process that was killed
    (folder / "runs" / "link").symlink_to(run)
    assert [path.name for path in prune(folder)] == [".run-8.77", "run-1"]
    assert {path.name for path in (folder / "runs").iterdir()} == {"run-2", "run-3", "link"}
    (folder / "release.json").write_text("{")
    with pytest.raises(StoreError, match="not a valid baseline"):
        prune(folder)
    assert (folder / "runs" / "run-2").is_dir()


# Hostile input


@pytest.mark.parametrize("name", ["", "../main", "a/b", ".hidden", "a" * 200, "-x", "a\n", "é"])
def test_what_is_no_name_never_becomes_a_path(folder, name):
    with pytest.raises(StoreError, match="expected a name of letters"):
        path_of(folder, name)


def damage(text):
    return lambda data: text


def with_pointer(**changes):
    def edit(text):
        data = json.loads(text)
        (pointer,) = data["pointers"].values()
        pointer.update(changes)
        return json.dumps(data)

    return edit


def with_file(**changes):
    def edit(text):
        data = json.loads(text)
        (pointer,) = data["pointers"].values()
        pointer["rows"][0].update(changes)
        return json.dumps(data)

    return edit


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (damage(""), "not a valid baseline"),
        (damage("{"), "not a valid baseline"),
        (damage("[]"), "not a valid baseline"),
        (damage("[" * 100_000), "not a valid baseline"),
        (damage('{"baseline": 2, "name": "main", "pointers": {}}'), "baseline: Input should be 1"),
        (damage('{"baseline": 1, "name": "other", "pointers": {}}'), "got that of 'other'"),
        (damage(" " * (MOST_BYTES + 1)), f"at most {MOST_BYTES} bytes"),
        (with_pointer(run="../x"), "run: expected a name"),
        (with_pointer(rows=[]), "rows: List should have at least 1 item"),
        (with_pointer(set_on="2026-02-30"), "set_on: day is out of range"),
        (with_pointer(set_on="yesterday"), "set_on: "),
        (with_pointer(colour="red"), "colour: Extra inputs are not permitted"),
        (with_file(file="../rows.jsonl"), "file: expected a name"),
        (with_file(file="rows.jsonl\n"), "file: expected a name"),
        (with_file(sha256="0"), "sha256: String should match pattern"),
        (with_file(n_bytes=-1), "n_bytes: "),
        (with_file(n_bytes="7"), "n_bytes: "),
    ],
)
def test_a_damaged_baseline_is_refused_in_plain_words(folder, run, edit, said):
    path = moved(folder, run).path
    path.write_text(edit(path.read_text()))
    with pytest.raises(StoreError) as caught:
        read_baseline(folder, "main")
    assert said in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_bytes_that_are_no_text_and_a_folder_in_place_of_the_file_are_refused(folder, run):
    path = moved(folder, run).path
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(StoreError, match="not a valid baseline"):
        read_baseline(folder, "main")
    path.unlink()
    path.mkdir()
    with pytest.raises(StoreError, match="can't be read"):
        read_baseline(folder, "main")


def climbs(folder, pointer):
    return pointer.model_copy(update={"folder": "../../etc"})


def absolute(folder, pointer):
    return pointer.model_copy(update={"folder": "/etc"})


def nul(folder, pointer):
    return pointer.model_copy(update={"folder": "runs/a\0b"})


def link(folder, pointer):
    shutil.rmtree(folder / "runs")
    (folder / "runs").symlink_to("/etc")
    return pointer


def linked_file(folder, pointer):
    path = folder / "runs" / "run-1" / "rows.jsonl"
    path.unlink()
    path.symlink_to("/dev/zero")
    return pointer


def circle(folder, pointer):
    path = folder / "runs" / "run-1" / "rows.jsonl"
    path.unlink()
    path.symlink_to(path)
    return pointer


def gone(folder, pointer):
    (folder / "runs" / "run-1" / "rows.jsonl").unlink()
    return pointer


def other_bytes(folder, pointer):
    path = folder / "runs" / "run-1" / "rows.jsonl"
    data = bytearray(path.read_bytes())
    data[50] ^= 1
    path.write_bytes(data)
    return pointer


def longer(folder, pointer):
    with (folder / "runs" / "run-1" / "rows.jsonl").open("a") as file:
        file.write("\n")
    return pointer


def one_more(folder, pointer):
    (folder / "runs" / "run-1" / "rows-gw1.jsonl").write_text("")
    return pointer


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (climbs, "got one outside of it"),
        (absolute, "got one outside of it"),
        (nul, "got one outside of it"),
        (link, "got one outside of it"),
        (linked_file, "got one outside of it"),
        (circle, "got one outside of it"),
        (gone, "runs/run-1/rows.jsonl: expected a file, got nothing there"),
        (other_bytes, "runs/run-1/rows.jsonl: damaged"),
        (longer, "runs/run-1/rows.jsonl: damaged"),
        (one_more, "runs/run-1: it holds rows-gw1.jsonl, which the baseline does not name"),
    ],
)
def test_files_that_are_not_those_that_were_set_are_never_compared_with(folder, run, change, said):
    pointer = change(folder, moved(folder, run).after)
    with pytest.raises(StoreError) as caught:
        checked_folder(folder, pointer)
    assert said in str(caught.value)


WRITER = """
import sys
from datetime import date
from pathlib import Path
from fxeval.records.baseline_moves import Asked, move
from fxeval.records.stored_run import read_run
folder, run = map(Path, sys.argv[1:])
run = read_run(run)
for number in range(20):
    move(folder, "main", run, Asked(date(2026, 11, 20), str(number), allow_dirty=True))
"""


def test_two_processes_that_set_two_classes_at_once_lose_neither(folder, run):
    other = changed(run, run.with_name("run-2"), on_another_class)
    at_once = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(folder), str(one)], env=os.environ)
        for one in (run, other)
    ]
    assert [one.wait(timeout=120) for one in at_once] == [0, 0]
    found = read_baseline(folder, "main")
    assert sorted((one.run, one.reason) for one in found.pointers.values()) == [
        ("run-1", "19"), ("run-2", "19"),
    ]  # fmt: skip
    assert sorted(path.name for path in folder.iterdir()) == ["main.json", "runs"]


# As an earlier run


def named(folder, **given):
    return NamedBaseline("baseline", folder, read_baseline(folder, "main"), LATER, **given)


def test_the_values_of_the_named_run_come_with_its_age(folder, run):
    moved(folder, run, reason="2.0 is out")
    found = named(folder, remark="moved in this change").paired(question(run))
    assert (
        found.values.keys() == EarlierRun.read("baseline", run).paired(question(run)).values.keys()
    )
    assert found.remark.startswith("baseline: run run-1 of fxeval ")
    assert found.remark.endswith(
        "8 rows; baseline main, set on 2026-11-20, 10 days before this run; moved in this change"
    )
    assert (found.baseline.days, found.baseline.reason) == (10, "2.0 is out")


def test_another_class_another_suite_and_damaged_files_have_no_values(folder, run):
    pointer = moved(folder, run).after
    found = named(folder).paired(question(run, hardware_class="abacus"))
    assert not found.values
    assert found.remark.startswith(
        "baseline: no values: baseline main has no run of the hardware class 'abacus', only of: "
    )
    found = named(folder).paired(question(run, suite="other"))
    assert not found.values
    assert "baseline: no values: it is of the suite evaluate, this is other" in found.remark
    longer(folder, pointer)
    found = named(folder).paired(question(run))
    assert not found.values
    assert found.remark == (
        "baseline: no values: runs/run-1/rows.jsonl: damaged: its digest is not the one that the "
        "baseline names"
    )


def test_a_folder_of_the_machine_that_a_baseline_names_does_not_reach_a_record(folder, run):
    path = moved(folder, run).path
    path.write_text(with_pointer(folder="/home/ann/secret")(path.read_text()))
    found = named(folder).paired(question(run))
    assert found.remark.startswith("baseline: no values: secret: expected a place in the folder")
    assert "/home" not in found.remark


def test_a_folder_given_directly_is_compared_on_its_own_class_only(run):
    found = EarlierRun.read("base", run).paired(question(run, hardware_class="abacus"))
    assert not found.values
    assert "base: no values in run run-1: it was made on another hardware class: 'Linux" in (
        found.remark
    )
    assert found.remark.endswith("this is 'abacus'")
    assert EarlierRun.read("base", run).paired(question(run, hardware_class="")).values
