"""A suite's parameters reach a dataclass, and wrong ones are named with their place."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from fxeval.errors import ExplainerContractError, SuiteError
from fxeval.suite.cells import Use
from fxeval.suite.configure import configured


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


@dataclass(frozen=True)
class Filed:
    file: Path | None = None
    names: tuple[str, ...] = ()
    size: float = 1.0
    anything: object = None


def test_relative_paths_start_at_the_suites_folder(tmp_path):
    found = configured(Filed(), use(file="maps/a.npz"), "explainer", tmp_path)
    assert found.file == tmp_path / "maps" / "a.npz"
    absolute = configured(Filed(), use(file="/b.npz"), "explainer", tmp_path)
    assert absolute.file == Path("/b.npz")
    assert configured(Filed(), use(names=["a"], size=2), "pairs", tmp_path).names == ("a",)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"file": 3}, "'file' expected path or null, got 3"),
        ({"names": "a"}, "'names' expected list of text, got 'a'"),
        ({"size": True}, "'size' expected number, got True"),
    ],
)
def test_a_parameter_of_another_type_is_refused_before_the_run(params, message):
    with pytest.raises(SuiteError, match=message):
        configured(Filed(), use(**params), "explainer")
    assert configured(Filed(), use(anything=[1]), "explainer").anything == (1,)


@dataclass(frozen=True)
class Rooted:
    root: Path = Path()
    file: Path = Path("pairs.csv")


def test_paths_of_a_subject_with_a_root_start_there(tmp_path):
    found = configured(Rooted(), use(root="faces", file="b.csv"), "pairs", tmp_path)
    assert found == Rooted(tmp_path / "faces", Path("b.csv"))
