"""What is asked for of many runs."""

import copy
import json
from pathlib import Path

import pytest

from fxeval.errors import StoreError
from fxeval.records.reading import read_record
from fxeval.records.series import Wanted, question_of

EXAMPLE = json.loads(Path(__file__).with_name("example_v2.json").read_text("utf-8"))


def test_what_is_not_named_may_be_anything():
    assert Wanted().named() == {}
    assert Wanted(suite="s", hardware_class="h", last=3).named() == {
        "suite": "s",
        "hardware_class": "h",
    }


@pytest.mark.parametrize("last", [0, -1])
def test_at_least_one_run_is_asked_for(last):
    with pytest.raises(StoreError, match="at least 1, got"):
        Wanted(last=last)


def asked(change=lambda data: None):
    data = copy.deepcopy(EXAMPLE)
    change(data)
    record = read_record(data)
    return question_of(record, record.cells[0])


def parts(data):
    """The parts of a record that the first cell's question is about."""
    cell = data["cells"][0]
    return cell, data["subjects"]["models"][cell["model"]], data["subjects"]["pairs"][cell["pairs"]]


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data["suite"].update(seed=99),
        lambda data: parts(data)[0]["parameters"].update(steps=7),
        lambda data: parts(data)[1].update(digest="0" * 64),
        lambda data: parts(data)[2].update(digest="0" * 64),
        lambda data: parts(data)[2].update(n_pairs=7),
    ],
    ids=["seed", "parameters", "model", "images", "pairs"],
)
def test_a_question_is_another_one_with_another_part(change):
    assert asked(change) != asked()
    assert len(asked()) == 16


def test_a_question_is_another_one_with_another_further_model():
    def judged_by(digest):
        def change(data):
            cell, model, _ = parts(data)
            cell["further"] = {"evaluators": ["judge"]}
            data["subjects"]["models"]["judge"] = {**model, "digest": digest}

        return change

    assert asked(judged_by("0" * 64)) == asked(judged_by("0" * 64))
    assert len({asked(), asked(judged_by("0" * 64)), asked(judged_by("1" * 64))}) == 3


def test_a_question_is_the_same_with_other_versions_and_values():
    def change(data):
        data["environment"] |= {"fxeval": "9.9", "commit": "0" * 12, "platform": "another"}
        data["run"] |= {"id": "another", "started": "2027-01-01T00:00:00Z"}
        data["suite"] |= {"digest": "0" * 64, "title": "another"}
        cell = data["cells"][0]
        data["subjects"]["explainers"][cell["explainer"]]["params"] = {"other": 1}
        cell["estimates"][0]["value"] = 0.9

    assert asked(change) == asked()


def test_a_question_without_a_model_is_not_known():
    assert asked(lambda data: data["subjects"]["models"].clear()) == ""
