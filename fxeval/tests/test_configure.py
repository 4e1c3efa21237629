"""A suite's parameters reach a dataclass, and wrong ones are named with their place."""

from dataclasses import dataclass

import pytest

from fxeval.cells import Use
from fxeval.configure import configured
from fxeval.errors import ExplainerContractError, SuiteError


@dataclass(frozen=True)
class Thing:
    size: int = 1

    def __post_init__(self):
        if self.size < 1:
            raise ExplainerContractError(f"size must be at least 1, got {self.size}.")


def use(**params):
    return Use("thing", params, "s.yaml:3:5")


def test_without_parameters_the_subject_is_handed_on_as_it_is():
    thing = object()
    assert configured(thing, use(), "explainer") is thing


def test_parameters_replace_fields_of_a_copy():
    thing = Thing()
    assert configured(thing, use(size=3), "explainer") == Thing(3)
    assert thing == Thing(1)


@pytest.mark.parametrize(
    ("subject", "params", "message"),
    [
        (
            Thing(),
            {"sise": 3},
            r"s.yaml:3:5: error: explainer 'thing' has no parameter 'sise'. Did",
        ),
        (Thing(), {"size": 0}, r"s.yaml:3:5: error: explainer 'thing': size must be at least 1"),
        (Thing(), {"size": "x"}, r"s.yaml:3:5: error: explainer 'thing': .*str"),
        (object(), {"size": 1}, r"s.yaml:3:5: error: explainer 'thing' takes no parameters"),
        (Thing, {"size": 1}, r"takes no parameters"),
    ],
)
def test_wrong_parameters_are_named_with_their_place(subject, params, message):
    with pytest.raises(SuiteError, match=message):
        configured(subject, use(**params), "explainer")
