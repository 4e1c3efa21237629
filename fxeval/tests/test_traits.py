"""Traits of explainers and models: read in one place, and none is ignored silently."""

import hashlib
import pickle
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
from torch import nn

from fxeval.contracts import (
    CardFacts,
    ExplainerTraits,
    GoldenCheck,
    ModelTags,
    ModelTraits,
    model_traits,
    traits_of,
)
from fxeval.engine.forward_pool import ForwardPool, PooledModel
from fxeval.engine.maps import why_unsupported
from fxeval.errors import ExplainerContractError, ModelContractError
from fxeval.explainers import SHIPPED, shipped
from fxeval.explainers.adapters import from_function
from fxeval.explainers.gradients import Gradient
from fxeval.explainers.map_levels import pair_maps
from fxeval.explainers.precomputed import PrecomputedMaps, save_maps
from fxeval.hooks.returned import check_explainer
from fxeval.models.cards import Claim
from fxeval.models.loading import ModelAround, check_loaded
from fxeval.seeding import generator_of
from fxeval.tests.subjects import ConvNet, CountingModel, make_pairs
from fxeval.traits import check_explainer_traits, check_model_traits, own_refusal
from fxeval.verification.claims import claims_of, model_card
from fxeval.verification.measured import ThresholdModel


class Plain:
    def explain(self, model, probes, references, *, contrast=None, generator):
        return probes.mean(1)


def with_attribute(name, value):
    """An explainer with an attribute of its own, and one of a class with it."""
    one = Plain()
    setattr(one, name, value)
    return one, type("Other", (Plain,), {name: value})()


def model_of(**attributes):
    model = CountingModel(ConvNet())
    vars(model).update(attributes)
    return model


# --- what is said


def test_who_says_nothing_has_the_defaults():
    assert traits_of(Plain()) == ExplainerTraits()
    assert ExplainerTraits() == ExplainerTraits(frozenset(), False, False, None, None)
    assert model_traits(CountingModel(None)) == ModelTraits()
    assert ModelTraits() == ModelTraits(True, None, None, "", None, ModelTags())
    assert ModelTags() == ModelTags(None, None)


def test_any_set_of_needs_is_kept_as_a_frozenset():
    for needs in ({"contrast"}, ["contrast"], frozenset({"contrast"})):
        traits = ExplainerTraits(needs=needs)
        assert traits.needs == frozenset({"contrast"})
        assert hash(traits) == hash(ExplainerTraits({"contrast"}))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"needs": {"contrasts"}}, "unknown need 'contrasts'. Did you mean 'contrast'?"),
        ({"needs": {3}}, "unknown need '3'. Known: black_box, contrast"),
        ({"needs": "gradients"}, "needs: expected a set of black_box, .* got 'gradients'"),
        ({"needs": None}, "needs: expected a set of .* got None"),
        ({"takes_centroids": "yes"}, "takes_centroids: expected True or False, got 'yes'"),
        ({"maps_are_given": 1}, "maps_are_given: expected True or False, got 1"),
        ({"source": 3}, "source: expected text or None, got 3"),
        ({"digest": b"a"}, "digest: expected text or None, got b'a'"),
    ],
)
def test_a_wrong_trait_of_an_explainer_is_refused_when_it_is_set(wrong, message):
    with pytest.raises(ExplainerContractError, match=f"ExplainerTraits: {message}"):
        ExplainerTraits(**wrong)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"has_layers": "no"}, "has_layers: expected True or False, got 'no'"),
        ({"card": SimpleNamespace()}, "card: expected CardFacts"),
        ({"golden": ("agrees", 3)}, "golden: expected GoldenCheck"),
        ({"runtime": None}, "runtime: expected text, got None"),
        ({"code": 3}, "code: expected text or None, got 3"),
        ({"tags": {"family": "mobile"}}, r"tags: expected ModelTags\(...\), got {"),
        ({"tags": None}, r"tags: expected ModelTags\(...\), got None"),
    ],
)
def test_a_wrong_trait_of_a_model_is_refused_when_it_is_set(wrong, message):
    with pytest.raises(ModelContractError, match=f"ModelTraits: {message}"):
        ModelTraits(**wrong)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"family": "cnn"}, "family: expected one of convolutional, .*hybrid or None, got 'cnn'"),
        ({"family": ["mobile"]}, r"family: expected one of .* got \['mobile'\]"),
        ({"training_data": ""}, "training_data: expected one of synthetic, real, mixed or None"),
        ({"training_data": "Real"}, "training_data: expected one of .* got 'Real'"),
    ],
)
def test_a_tag_that_is_none_of_the_words_is_refused(wrong, message):
    with pytest.raises(ModelContractError, match=f"ModelTags: {message}"):
        ModelTags(**wrong)


def test_traits_may_depend_on_the_parameters():
    @dataclass(frozen=True)
    class Choosy(Plain):
        objective: str = "native"

        @property
        def traits(self):
            return ExplainerTraits({"contrast"} if self.objective == "triplet" else ())

    assert traits_of(Choosy()).needs == frozenset()
    assert traits_of(check_explainer("choosy", Choosy("triplet"))).needs == {"contrast"}
    assert traits_of(Gradient("triplet")).needs == {"gradients", "contrast"}


def test_traits_survive_pickling():
    for traits in (
        ExplainerTraits({"contrast", "layers"}, takes_centroids=True, source="nobody"),
        ModelTraits(False, CardFacts(licence="none"), GoldenCheck("none"), "torch", "c" * 64),
    ):
        assert pickle.loads(pickle.dumps(traits)) == traits
    explainer = pickle.loads(pickle.dumps(Gradient("triplet")))
    assert traits_of(explainer) == traits_of(Gradient("triplet"))


def test_given_maps_tell_one_file_from_another(tmp_path: Path):
    path = tmp_path / "maps.npz"
    explainer = PrecomputedMaps(path)
    assert traits_of(explainer).digest is None
    for n in (6, 5):
        save_maps(path, torch.rand(n, 16, 16), make_pairs(6).images[:n])
        traits = traits_of(explainer)
        assert traits.digest == hashlib.sha256(path.read_bytes()).hexdigest()
        assert (traits.maps_are_given, traits.needs) == (True, frozenset())


# --- what is said wrongly


@pytest.mark.parametrize(
    ("traits", "got"),
    [
        ({"contrast"}, "got set"),
        (None, "got NoneType"),
        (ModelTraits(), "got ModelTraits"),
        (ExplainerTraits, "got the class ExplainerTraits"),
    ],
)
def test_traits_of_another_kind_are_refused(traits, got):
    for explainer in with_attribute("traits", traits):
        for ask in (traits_of, lambda it: check_explainer("mine", it)):
            with pytest.raises(
                ExplainerContractError, match=rf"traits: expected ExplainerTraits\(...\), {got}"
            ):
                ask(explainer)


def test_a_method_is_no_property():
    class Forgotten(Plain):
        def traits(self):
            return ExplainerTraits({"contrast"})

    with pytest.raises(ExplainerContractError, match=r"'Forgotten'.* got a method. Make it a prop"):
        traits_of(Forgotten())


def test_a_property_that_fails_is_not_taken_for_none():
    for error, message in (
        (AttributeError("no 'objectve'"), "'Failing': its traits raised AttributeError: no 'obj"),
        (KeyError("x"), "raised KeyError"),
        (ExplainerContractError("objective 'x'"), "^objective 'x'$"),
    ):

        class Failing(Plain):
            @property
            def traits(self, error=error):
                raise error

        with pytest.raises(ExplainerContractError, match=message):
            traits_of(Failing())


@pytest.mark.parametrize(
    ("name", "value", "help"),
    [
        ("need", {"contrast"}, r"set traits = ExplainerTraits\(needs=\{...\}\)"),
        ("needs", {"contrast"}, r"set traits = ExplainerTraits\(needs=\{...\}\)"),
        ("NEEDS", {"contrast"}, r"set traits = ExplainerTraits\(needs=\{...\}\)"),
        ("nedes", {"contrast"}, r"set traits = ExplainerTraits\(needs=\{...\}\)"),
        ("takes_centroids", True, r"set traits = ExplainerTraits\(takes_centroids=True\)"),
        ("takes_centroid", True, r"set traits = ExplainerTraits\(takes_centroids=True\)"),
        ("takes_contrast", True, r"set traits = ExplainerTraits\(takes_contrast=True\)"),
        ("takes_contrasts", True, r"set traits = ExplainerTraits\(takes_contrast=True\)"),
        ("maps_are_given", True, r"set traits = ExplainerTraits\(maps_are_given=True\)"),
        ("map_is_given", True, r"set traits = ExplainerTraits\(maps_are_given=True\)"),
        ("maps_given", True, r"set traits = ExplainerTraits\(maps_are_given=True\)"),
        ("source", "nobody", r"set traits = ExplainerTraits\(source=...\)"),
        ("digest", "a" * 64, r"set traits = ExplainerTraits\(digest=...\)"),
        ("trait", ExplainerTraits({"contrast"}), r"set traits = ExplainerTraits\(...\)"),
    ],
)
def test_a_misspelt_or_misplaced_trait_of_an_explainer_is_refused(name, value, help):
    for explainer in with_attribute(name, value):
        with pytest.raises(ExplainerContractError) as error:
            check_explainer("mine", explainer)
        error.match(f"^explainer 'mine': '{name}' is not read as a trait: {help}")
    by_property = type("Other", (Plain,), {name: property(lambda self: 1 / 0)})
    for one in (by_property(), by_property):
        with pytest.raises(ExplainerContractError, match=f"'{name}' is not read as a trait"):
            check_explainer_traits("mine", one)


@pytest.mark.parametrize(
    ("name", "value", "help"),
    [
        ("has_layers", False, r"set traits = ModelTraits\(has_layers=False\)"),
        ("has_layer", False, r"set traits = ModelTraits\(has_layers=False\)"),
        ("card", SimpleNamespace(), r"set traits = ModelTraits\(card=...\)"),
        ("cards", SimpleNamespace(), r"set traits = ModelTraits\(card=...\)"),
        ("golden", None, r"set traits = ModelTraits\(golden=...\)"),
        ("run_time", "ort", r"set traits = ModelTraits\(runtime=...\)"),
        ("code", "c" * 64, r"set traits = ModelTraits\(code=...\)"),
        ("tags", {"family": "mobile"}, r"set traits = ModelTraits\(tags=...\)"),
        ("trait", ModelTraits(), r"set traits = ModelTraits\(...\)"),
    ],
)
def test_a_misspelt_or_misplaced_trait_of_a_model_is_refused(name, value, help):
    with pytest.raises(ModelContractError) as error:
        check_loaded(model_of(**{name: value}))
    error.match(f"^model 'counting': '{name}' is not read as a trait: {help}")
    with pytest.raises(ModelContractError, match=r"'mine': traits: expected Model.* got dict"):
        check_model_traits("mine", model_of(traits={"has_layers": False}))


def test_the_old_ways_are_refused_even_as_methods():
    class Asking(Plain):
        def needs(self):
            return {"contrast"}

    with pytest.raises(ExplainerContractError, match="'needs' is not read as a trait"):
        check_explainer("asking", Asking())

    class Lazy(Plain):
        @cached_property
        def needs(self):
            return {"contrast"}

    with pytest.raises(ExplainerContractError, match="'needs' is not read as a trait"):
        check_explainer("lazy", Lazy())


def test_a_slot_is_an_attribute_too():
    class Slotted(Plain):
        __slots__ = ("need",)

    with pytest.raises(ExplainerContractError, match="'need' is not read as a trait"):
        check_explainer("slotted", Slotted())


def test_who_is_asked_without_a_suite_is_held_to_it_too():
    images = torch.rand(2, 3, 16, 16)
    for explainer in with_attribute("need", {"contrast"}):
        with pytest.raises(ExplainerContractError, match="'need' is not read as a trait"):
            pair_maps(
                explainer, CountingModel(ConvNet()), images, images, generator=generator_of("t", 0)
            )


def test_a_shipped_explainer_with_a_stray_trait_is_refused_at_collection(monkeypatch):
    for id in SHIPPED:
        check_explainer(id, shipped(id)())
    monkeypatch.setattr(Gradient, "needs", frozenset({"gradients"}), raising=False)
    with pytest.raises(
        ExplainerContractError, match="explainer 'gradient': 'needs' is not read as a trait"
    ):
        shipped("gradient")


# --- what is no mistake


def test_parameters_may_be_called_as_they_like():
    @dataclass(frozen=True)
    class Parameters(Plain):
        need: float = 0.5
        source: str = "probe"
        trait: int = 3
        takes_centroid: bool = False
        sources: tuple[str, ...] = field(default=())
        level: ClassVar[int] = 3

    check_explainer("mine", Parameters())

    @dataclass(frozen=True)
    class Handed(Plain):
        needs: frozenset[str] = frozenset()

        @property
        def traits(self):
            return ExplainerTraits(self.needs)

    assert traits_of(check_explainer("mine", Handed(frozenset({"contrast"})))).needs == {"contrast"}


def test_a_parameter_named_needs_is_no_accident_if_there_are_no_traits():
    @dataclass(frozen=True)
    class Annotated(Plain):
        needs: frozenset[str] = frozenset({"contrast"})

    with pytest.raises(ExplainerContractError, match="'needs' is not read as a trait"):
        check_explainer("mine", Annotated())
    OldModel = dataclass(type("OldModel", (), {"__annotations__": {"has_layers": bool}}))
    with pytest.raises(ModelContractError, match="'has_layers' is not read as a trait"):
        check_model_traits("mine", OldModel(False))


@pytest.mark.parametrize(
    "name", ["seeds", "nodes", "model", "steps", "resource", "takes_time", "layers", "images"]
)
def test_other_words_are_free(name):
    for explainer in with_attribute(name, 3):
        check_explainer("mine", explainer)
        check_model_traits("mine", model_of(**{name: 3}))


def test_what_is_private_or_near_and_can_be_called_is_free():
    class Free(Plain):
        _needs = frozenset({"contrast"})

        def need(self):
            return 3

        @classmethod
        def sources(cls):
            return ()

        class Digests:
            pass

    check_explainer("mine", Free())
    check_model_traits("a network", nn.Sequential(nn.Linear(2, 2)))


# --- who passes traits on


def test_models_around_models_pass_traits_on():
    card = CardFacts(
        "d" * 64,
        (Claim(pairs="people", metric="verification_auc", value=0.9, within=0.1),),
        licence="none",
    )
    tags = ModelTags("real", "mobile")
    traits = ModelTraits(card=card, runtime="ort 1", golden=GoldenCheck("none"), tags=tags)
    model = model_of(traits=traits)
    pooled = PooledModel(ThresholdModel(model, 0.3), ForwardPool(), "key")
    assert model_traits(pooled) == model_traits(ModelAround(model)) == traits
    assert claims_of(pooled) == card.claims
    half = SimpleNamespace(pairs="people", metric="verification_auc", value=0.9)
    with pytest.raises(ModelContractError, match="without within, of, list_digest, protocol"):
        claims_of(model_of(traits=ModelTraits(card=CardFacts("d" * 64, (half,)))))
    assert model_card(pooled)["licence"] == "none"
    box = ModelAround(CountingModel(None))
    assert not model_traits(box).has_layers
    assert not model_traits(ModelAround(replace_layers(model))).has_layers


def replace_layers(model):
    model.traits = replace(model.traits, has_layers=False)
    return model


def test_a_wrapper_that_delegates_passes_traits_on():
    class Wrapper(Plain):
        def __init__(self, inner):
            self.inner = inner

        def __getattr__(self, name):
            return getattr(self.inner, name)

    assert traits_of(check_explainer("mine", Wrapper(Gradient()))) == traits_of(Gradient())
    assert traits_of(Wrapper(Plain())) == ExplainerTraits()


def test_a_function_that_insists_on_a_contrast_is_given_one():
    def f(model, probes, references, contrast):
        return probes.mean(1)

    explainer = check_explainer("f", from_function(f, needs={"gradients"}))
    assert traits_of(explainer) == ExplainerTraits({"gradients", "contrast"})


# --- and the one method that may be there


def test_the_refusal_of_an_explainer_is_read_in_one_place():
    class Picky(Plain):
        def __init__(self, answer):
            self.answer = answer

        def unsupported(self, model):
            return self.answer

    model = CountingModel(ConvNet())
    images = torch.rand(2, 3, 16, 16)
    assert own_refusal(Plain(), model) is own_refusal(Picky(None), model) is None
    assert own_refusal(Picky("a sigmoid"), model) == "a sigmoid"
    assert why_unsupported(Picky("a sigmoid"), model) == "a sigmoid"
    for odd in ("", 3):
        for ask in (
            own_refusal,
            why_unsupported,
            lambda it, model: pair_maps(it, model, images, images, generator=generator_of("t", 0)),
        ):
            with pytest.raises(ExplainerContractError, match="expected the reason as text"):
                ask(Picky(odd), model)
