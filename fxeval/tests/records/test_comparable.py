"""Two records are of one question, or it is said in what they differ."""

import json
from pathlib import Path

import pytest

from fxeval.records.comparable import why_not_comparable
from fxeval.records.reading import read_record

EXAMPLE = json.loads((Path(__file__).parent / "example_v2.json").read_text())


def records(edit=lambda data: None):
    data = json.loads(json.dumps(EXAMPLE))
    edit(data)
    return {"example": read_record(data)}


def test_the_same_question_has_no_difference_whatever_the_code_does():
    def another_explainer(data):
        data["run"]["id"], data["environment"]["commit"] = "another", "0" * 40
        for entry in data["subjects"]["explainers"].values():
            entry["params"], entry["digest"] = {"made": "up"}, "f" * 64

    assert why_not_comparable(records(), records(another_explainer)) == []


@pytest.mark.parametrize("key", ["digest", "crop", "size", "similarity", "operating_threshold"])
def test_another_model_is_named(key):
    (id,) = EXAMPLE["subjects"]["models"]
    other = {"size": [7, 7], "similarity": "neg_l2", "operating_threshold": 0.123}

    def edit(data):
        data["subjects"]["models"][id][key] = other.get(key, "other")

    (line,) = why_not_comparable(records(), records(edit))
    assert line.startswith(f"model {id} is another: {key} ")
    assert line.endswith(f" and {other.get(key, 'other')}")


def test_other_images_are_named_with_their_number():
    id = next(iter(EXAMPLE["subjects"]["pairs"]))

    def edit(data):
        data["subjects"]["pairs"][id].update(digest="0" * 64, n_pairs=7)

    (line,) = why_not_comparable(records(), records(edit))
    assert line.startswith(f"pairs {id} have other images: digest ")
    assert line.endswith(f"and 000000000000..., {EXAMPLE['subjects']['pairs'][id]['n_pairs']} and "
                         "7 pairs")  # fmt: skip


def test_another_suite_is_named():
    def edit(data):
        data["suite"]["digest"] = "0" * 64

    (line,) = why_not_comparable(records(), records(edit))
    assert line.startswith(f"suite {EXAMPLE['suite']['name']}: digest ")


def test_a_suite_that_one_run_lacks_is_named():
    def edit(data):
        data["suite"]["path"] = "suites/other.yaml"

    assert why_not_comparable(records(), records(edit)) == [
        f"suite {path}: only the {which} run has it"
        for path, which in sorted(
            [(EXAMPLE["suite"]["path"], "first"), ("suites/other.yaml", "second")]
        )
    ]


def test_a_model_that_one_side_could_not_load_is_left_to_its_cells():
    def edit(data):
        data["subjects"]["models"].clear()

    assert why_not_comparable(records(), records(edit)) == []
