"""Networks that learnt too little say nothing about an explainer."""

import pytest

from fxeval.records.schema import Taught
from fxeval.results import Outcome
from fxeval.statistics.taught import teaching_notes, teaching_objection


def taught(labels="permuted", **changes):
    facts = {
        "accuracy": 0.99, "epochs": 8, "budget": 200, "n_images": 80, "n_identities": 20,
        "unchanged": 0.025,
    }  # fmt: skip
    return Taught(name=f"network trained on {labels} labels", labels=labels, **facts | changes)


def test_networks_that_know_their_labels_are_no_objection():
    assert teaching_objection([]) is None
    assert teaching_objection([taught("true"), taught()]) is None


@pytest.mark.parametrize("labels", ["true", "permuted"])
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"accuracy": 0.9899}, "knows 99.0% of its labels after 8 epochs (at least 99% needed)"),
        ({"accuracy": 0.0}, "knows 0.0% of its labels"),
        ({"n_identities": 19}, "learnt the faces of 19 people (at least 20 needed)"),
    ],
)
def test_one_that_learnt_too_little_lets_nothing_be_said(labels, changes, said):
    pair = [taught(one, **(changes if one == labels else {})) for one in ("true", "permuted")]
    objection = teaching_objection(pair)
    assert objection.outcome is Outcome.INCONCLUSIVE
    assert objection.reason.startswith(f"network trained on {labels} labels: ")
    assert said in objection.reason


def test_the_notes_say_whom_the_question_is_about_and_what_was_learnt():
    assert teaching_notes([]) == []
    about, one = teaching_notes([taught()])
    assert "the question is about the explainer" in about
    assert "the model itself has no part" in about
    assert one == (
        "network trained on permuted labels: 99.0% of 80 images of 20 people known by heart after "
        "8 of at most 200 epochs, 2.5% of the images with their own label"
    )
