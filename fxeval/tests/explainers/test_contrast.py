"""Who says that it takes a contrast explains what speaks for the mate rather than the nonmate."""

from typing import Any

import pytest
import torch

from fxeval.contracts import ExplainerTraits, traits_of
from fxeval.errors import ExplainerContractError
from fxeval.explainers.adapters import from_captum, from_function
from fxeval.explainers.precomputed import PrecomputedMaps
from fxeval.tests.explained import ask, cases, few, given_to, network_of, scaled, small


@pytest.mark.parametrize(("id", "choice"), list(cases()))
def test_it_takes_a_contrast_exactly_if_it_says_so(id: str, choice: dict[str, Any]) -> None:
    explainer, model = few(id, choice), small(by=network_of(id))
    given = given_to(model)
    if not traits_of(explainer).takes_contrast:
        with pytest.raises(ExplainerContractError, match="contrast"):
            ask(explainer, model, given, contrast=True)
        return
    found = ask(explainer, model, given, contrast=True)
    assert found.positive.isfinite().all()
    if "contrast" not in traits_of(explainer).needs:  # else there is no map without it
        plain = ask(explainer, model, given, contrast=False)
        assert not torch.allclose(scaled(found), scaled(plain), atol=1e-3)


def test_whoever_needs_a_contrast_takes_one() -> None:
    assert ExplainerTraits(needs={"contrast"}).takes_contrast
    assert not ExplainerTraits(needs={"gradients"}).takes_contrast


def test_given_maps_take_none() -> None:
    assert not traits_of(PrecomputedMaps()).takes_contrast


def test_a_function_takes_a_contrast_if_it_has_such_a_parameter() -> None:
    def without(model: Any, probes: Any, references: Any) -> Any:
        return probes.mean(1)

    def optional(model: Any, probes: Any, references: Any, contrast: Any = None) -> Any:
        return probes.mean(1)

    def needed(model: Any, probes: Any, references: Any, contrast: Any) -> Any:
        return probes.mean(1)

    found = [traits_of(from_function(one)) for one in (without, optional, needed)]
    assert [one.takes_contrast for one in found] == [False, True, True]
    assert [bool(one.needs) for one in found] == [False, False, True]


@pytest.mark.parametrize(("objective", "takes"), [("cos", True), ("arc_softmax(s=8)", False)])
def test_an_adapter_takes_one_if_its_objective_does(objective: str, takes: bool) -> None:
    def make(forward: Any) -> Any:
        return None

    assert traits_of(from_captum(make, objective=objective)).takes_contrast is takes
