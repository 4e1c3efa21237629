"""Properties of every shipped explainer in the catalogue."""

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, get_args

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor, nn

from fxeval.contracts import BROKEN_STATES, ExplainerTraits, Need, RowState, SaliencyMaps, traits_of
from fxeval.datasets.faces.alignment import ARCFACE_112
from fxeval.errors import ExplainerContractError, ModelContractError
from fxeval.explainers import SHIPPED, shipped
from fxeval.explainers.map_levels import identity_maps
from fxeval.hooks.returned import check_explainer
from fxeval.models.from_card import load_card
from fxeval.models.networks.mini_vit import MiniViT
from fxeval.suite.preflight import check_params
from fxeval.tests import explained
from fxeval.tests.explained import (
    IDS,
    Face,
    Tokens,
    ask,
    cases,
    close,
    equal,
    few,
    given_to,
    images_of,
    lived_in,
    network_of,
    random_states,
    same,
    scaled,
    small,
    traces,
    wide,
)
from fxeval.tests.models.test_mini_networks import drawn
from fxeval.tests.rounding import condition_of
from fxeval.tests.subjects import CROP
from fxeval.tests.transformers import seeded
from fxeval.truth.planted import planted_model

REFUSING = {"EBP", "SDDCAM", "XSSAB", "FGGB", "Rollout"}  # take no contrast with their defaults
CARD = Path(__file__).parents[3] / "fixtures" / "data" / "cards" / "mini_resnet.yaml"
DEAR = 200  # forward passes a pair, above which the larger network is left out
EVERY_CASE = pytest.mark.parametrize(("id", "choice"), list(cases()))


@pytest.mark.parametrize("id", IDS)
def test_it_declares_what_it_is(id):
    explainer = shipped(id)()
    assert (type(explainer).__doc__ or "").splitlines()[0].endswith(".")
    check_explainer(id, explainer)
    traits = traits_of(explainer)
    assert traits.source.strip()
    assert traits.needs <= set(get_args(Need))
    assert traits.needs & {"gradients", "layers", "black_box"}
    assert not traits.maps_are_given
    assert explainer == shipped(id)()
    with pytest.raises(AttributeError):
        explainer.anything = 1
    defaults = {field.name: getattr(explainer, field.name) for field in fields(explainer)}
    assert check_params("explainer", id, defaults) == []


@pytest.mark.parametrize("id", SHIPPED)
def test_its_docstring_has_an_example_that_a_suite_accepts(id):
    example = inspect.getdoc(shipped(id)).partition("Example:\n")[2]
    (entry,) = yaml.safe_load(re.search(r"^ *- .*$", example, re.MULTILINE)[0])
    assert entry["use"] == id
    assert entry["params"]
    assert check_params("explainer", id, entry["params"]) == []


@EVERY_CASE
@pytest.mark.parametrize("kind", ["cosine", "neg_l2"])
def test_its_maps_are_finite_numbers_of_the_right_form(id, choice, kind):
    model = small(kind, by=network_of(id))
    given = given_to(model)
    copies = [given.probes.clone(), given.references.clone(), given.nonmates.clone()]
    # The operating threshold of a Euclidean model is not a cosine.
    own = {"operating_threshold": 0.3} if kind == "neg_l2" else {}
    maps = ask(few(id, choice, **own), model, given)
    assert maps.positive.shape == (3, *CROP.size)
    assert set(maps.states) <= {RowState.OK, RowState.DEGENERATE_MAP}
    assert RowState.OK in maps.states
    assert maps.positive.isfinite().all()
    if maps.negative is not None:
        assert maps.negative.isfinite().all()
        assert float(maps.positive.min()) >= 0
        assert float(maps.negative.min()) >= 0
    for name, values in maps.diagnostics.items():
        assert values.isfinite().all(), name
    now = [given.probes, given.references, given.nonmates]
    assert equal(now, copies), "it wrote into its inputs"


@EVERY_CASE
def test_it_leaves_no_trace_and_answers_alike_twice(id, choice):
    model = lived_in(small(by=network_of(id)))
    given = given_to(model)
    before, states = traces(model.embedder), random_states()
    first = ask(few(id, choice), model, given)
    assert equal(traces(model.embedder), before)
    assert equal(random_states(), states)
    torch.rand(3)
    assert same(ask(few(id, choice), model, given), first)
    with torch.inference_mode():
        assert same(ask(few(id, choice), model, given), first)
    with torch.no_grad():
        assert same(ask(few(id, choice), model, given), first)
    calm = small(by=network_of(id))
    calm.module.requires_grad_(False)
    assert same(ask(few(id, choice), calm, given), first)
    assert not any(parameter.requires_grad for parameter in calm.module.parameters())


def row_of(maps: SaliencyMaps, row: int) -> SaliencyMaps:
    one = slice(row, row + 1)
    negative = None if maps.negative is None else maps.negative[one]
    return SaliencyMaps(maps.positive[one], negative, maps.states[one])


def failing(kind: type[nn.Module]) -> nn.Module:
    """A network that fails before its last layer, in its n-th forward pass."""
    module = kind().eval()
    module.passes = module.limit = 0

    def count(_layer: nn.Module, _inputs: object) -> None:
        module.passes += 1
        if module.passes == module.limit:
            raise RuntimeError("failed half-way")

    module.fc.register_forward_pre_hook(count)
    return module


@pytest.mark.parametrize("id", IDS)
def test_it_leaves_no_trace_when_a_forward_pass_fails(id):
    module = failing(network_of(id))
    model = lived_in(Face(module, module, CROP))
    given = given_to(model)
    for limit in range(1, 9):
        module.passes, module.limit = 0, limit
        before, states = traces(module)[:], random_states()
        try:
            ask(few(id), model, given)
        except (RuntimeError, ExplainerContractError, ModelContractError):
            assert module.passes >= limit
        assert equal(traces(module), before), f"after a failure of forward pass {limit}"
        assert equal(random_states(), states)
        if module.passes < limit:
            break
    assert limit > 1, "it never asked the model"


@pytest.mark.parametrize("id", IDS)
def test_it_leaves_no_trace_when_its_references_do_not_fit(id):
    model = lived_in(small(by=network_of(id)))
    given = given_to(model)
    before, states = traces(model.embedder), random_states()
    wrong = replace(given, references=given.references[:, :, :9], nonmates=given.nonmates[:, :, :9])
    with pytest.raises(Exception, match=r"."):
        ask(few(id), model, wrong)
    assert equal(traces(model.embedder), before)
    assert equal(random_states(), states)


@EVERY_CASE
def test_a_row_does_not_depend_on_its_companions(id, choice):
    module = wide(id)().eval()
    model, explainer = Face(module, module, CROP), few(id, choice)
    given = given_to(model)
    together = ask(explainer, model, given)
    for row in range(3):
        rows = slice(row, row + 1)
        alone = ask(explainer, model, given.rows(rows))
        close(explainer, alone, row_of(together, row))


@pytest.mark.parametrize("id", IDS)
def test_nothing_to_explain_gives_no_maps(id):
    model = small(by=network_of(id))
    none = ask(few(id), model, given_to(model).rows(slice(0, 0)))
    assert none.positive.shape == (0, *CROP.size)


@EVERY_CASE
def test_a_reference_that_is_the_probe_gives_a_map_or_a_named_state(id, choice):
    model, explainer = small(by=network_of(id)), few(id, choice)
    given = given_to(model)
    references = given.references.clone()
    references[1] = given.probes[1]
    twin = ask(explainer, model, replace(given, references=references))
    assert twin.positive.isfinite().all()
    assert bool(twin.reasons[1]) == (twin.states[1] is not RowState.OK)
    if twin.states[1] in BROKEN_STATES:
        assert not twin.positive[1].any()
    model = small(by=wide(id))
    given = given_to(model)
    plain = ask(explainer, model, given)
    twin = ask(explainer, model, replace(given, references=references))
    for row in (0, 2):
        close(explainer, row_of(twin, row), row_of(plain, row))


@pytest.mark.parametrize("id", IDS)
def test_without_a_module_it_works_or_says_why_not(id):
    kind = network_of(id)
    box, model = small(is_black_box=True, by=kind), small(by=kind)
    given = given_to(model)
    explainer = few(id)
    why = explainer.unsupported(box) if hasattr(explainer, "unsupported") else None
    if traits_of(explainer).needs & {"gradients", "layers"}:
        assert why is not None
        assert "face" in why
        with pytest.raises(ExplainerContractError, match="black box"):
            ask(explainer, box, given)
    else:
        assert why is None
        assert same(ask(explainer, box, given), ask(explainer, model, given))
    if hasattr(explainer, "unsupported"):
        before = traces(model.module)
        assert explainer.unsupported(model) is None
        assert equal(traces(model.module), before)


@pytest.mark.parametrize("id", IDS)
def test_a_contrast_makes_another_map_or_is_refused(id):
    explainer, model = few(id), small(by=network_of(id))
    given = given_to(model)
    if type(explainer).__name__ in REFUSING:
        with pytest.raises(ExplainerContractError, match="takes no contrast"):
            ask(explainer, model, given, contrast=True)
        return
    maps = ask(explainer, model, given, contrast=True)
    assert set(maps.states) <= {RowState.OK, RowState.DEGENERATE_MAP}
    assert maps.positive.isfinite().all()
    if "contrast" not in traits_of(explainer).needs:
        assert not same(maps, ask(explainer, model, given, contrast=False))


@EVERY_CASE
def test_what_it_needs_and_does_not_get_is_refused_in_words(id, choice):
    explainer, model = few(id, choice), small(by=network_of(id))
    given = given_to(model)
    needed = traits_of(explainer).needs & {"contrast", "gallery"}
    for need in needed:
        more = {"contrast": given.nonmates, "gallery": given.gallery}
        more = {other: more[other] for other in needed - {need}}
        with pytest.raises(ExplainerContractError, match=need):
            explainer.explain(
                model, given.probes, given.references, generator=np.random.default_rng(0), **more
            )


@pytest.mark.parametrize("id", IDS)
def test_black_and_white_images_are_survived(id):
    model = small(by=network_of(id))
    given = given_to(model)
    for shade in (0.0, 1.0):
        flat = torch.full_like(given.probes, shade)
        for hostile in (replace(given, probes=flat), replace(given, references=flat)):
            maps = ask(few(id), model, hostile)
            assert maps.positive.isfinite().all()
            assert all(
                bool(reason) == (state is not RowState.OK)
                for state, reason in zip(maps.states, maps.reasons, strict=True)
            )


@dataclass(eq=False)
class Told(Face):
    """A model whose embeddings of some images are given."""

    images: Tensor | None = None
    embeddings: Tensor | None = None

    def embed(self, images: Tensor) -> Tensor:
        found = super().embed(images).clone()
        for one, embedding in zip(self.images, self.embeddings, strict=True):
            found[(images == one).flatten(1).all(dim=1)] = embedding
        return found


@pytest.mark.parametrize("id", IDS)
def test_a_centroid_of_equal_references_is_that_reference(id):
    explainer, model = few(id), small(by=wide(id))
    if not traits_of(explainer).takes_centroids:
        pytest.skip("takes single references only")
    given = given_to(model)
    plain = ask(explainer, model, given)
    thrice = given.references[:, None].expand(-1, 3, -1, -1, -1)

    def compute(embeddings: Tensor) -> Tensor:
        told = Told(**vars(model), images=given.references, embeddings=embeddings)
        return scaled(ask(explainer, told, given))

    # Centroids are unit vectors in float32: what does that do to a map?
    condition = condition_of(compute, model.embed(given.references))
    found = ask(explainer, model, replace(given, references=thrice))
    close(explainer, found, plain, condition)
    pixels = images_of(CROP.size)[:2].flatten(0, 1)
    if "contrast" in traits_of(explainer).needs:
        return
    names = torch.arange(6) // 3
    gallery = replace(given.gallery, probe_identity=names)
    found = identity_maps(
        explainer, model, pixels, names, generator=np.random.default_rng(0), gallery=gallery
    )
    assert found.counts.tolist() == [3, 3] or RowState.DEGENERATE_MAP in found.images.states


@pytest.mark.parametrize("id", IDS)
def test_a_crop_need_not_be_square(id):
    layers = [nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 8 * 6, 8)]
    is_for_tokens = network_of(id) is Tokens
    module = Tokens((4, 3)) if is_for_tokens else nn.Sequential(*layers).eval()
    with torch.no_grad():
        for place, parameter in enumerate(module.parameters()):
            parameter.normal_(generator=torch.Generator().manual_seed(place))
    model = Face(module, module, replace(CROP, size=(16, 12)))
    given = given_to(model)
    maps = ask(few(id), model, given)
    assert maps.positive.shape == (3, 16, 12)
    assert maps.states == (RowState.OK,) * 3


@cache
def larger(name: str) -> Any:
    if name in ("mini_inception", "mini_mobile"):
        return Face(net := drawn(name), net, ARCFACE_112)
    if name == "mini_vit":
        return Face(net := seeded(MiniViT()), net, ARCFACE_112)
    return planted_model() if name == "planted" else load_card(CARD)


LARGER = {"rollout": ["mini_vit"]}


def networks() -> Iterator[tuple[str, str]]:
    """Yield explainers and networks; only those that look for layers are asked about all."""
    for id in IDS:
        names = LARGER.get(id, ["planted", "mini_resnet"])
        if id not in LARGER and "layers" in traits_of(shipped(id)()).needs:
            names = [*names, "mini_inception", "mini_mobile"]
        yield from ((id, name) for name in names)


@pytest.mark.parametrize(("id", "name"), list(networks()))
def test_it_explains_larger_networks_and_leaves_them_as_they_were(id, name):
    explainer, model = few(id), larger(name)
    watched = Face(model.module, model.module, model.crop, "cosine", model.operating_threshold)
    if name != "planted":
        cheap = small(by=network_of(id))
        ask(explainer, cheap, given_to(cheap).rows(slice(0, 1)))
        if cheap.embedded > DEAR:
            pytest.skip(f"{cheap.embedded} forward passes a pair")
    given = given_to(model).rows(slice(0, 2))
    before = traces(model.module)
    maps = ask(explainer, watched, given)
    assert set(maps.states) <= {RowState.OK, RowState.DEGENERATE_MAP}
    assert maps.positive.isfinite().all()
    assert equal(traces(model.module), before)


@dataclass(frozen=True)
class Mean:
    """A faultless explainer; those below have one fault each."""

    traits: ClassVar[ExplainerTraits] = ExplainerTraits(needs={"black_box"}, source="nobody")

    def explain(self, model, probes, references, *, contrast=None, generator):
        model.embed(probes)
        model.embed(references)
        return (probes * references).mean(dim=1)


class Coupled(Mean):
    def explain(self, model, probes, references, **given):
        maps = super().explain(model, probes, references, **given)
        return maps - maps.mean(dim=0)


class Drawing(Mean):
    def explain(self, model, probes, references, **given):
        return super().explain(model, probes, references, **given) + torch.rand(1)


class Writing(Mean):
    def explain(self, model, probes, references, **given):
        return super().explain(model, probes.mul_(0.5), references, **given)


class Forgetting(Mean):
    def explain(self, model, probes, references, **given):
        handle = model.module.fc.register_forward_hook(lambda *_: None)
        maps = super().explain(model, probes, references, **given)
        handle.remove()
        return maps


class Training(Mean):
    def explain(self, model, probes, references, **given):
        model.module.eval()
        return super().explain(model, probes, references, **given)


class Inventing(Mean):
    def explain(self, model, probes, references, **given):
        maps = super().explain(model, probes, references, **given)
        states = (RowState.NO_GRADIENT,) * len(maps)
        return SaliencyMaps(maps, None, states, ("flat",) * len(maps))


FORM = test_its_maps_are_finite_numbers_of_the_right_form
TRACE, FAILURE = (
    test_it_leaves_no_trace_and_answers_alike_twice,
    (test_it_leaves_no_trace_when_a_forward_pass_fails),
)
COMPANIONS = test_a_row_does_not_depend_on_its_companions
TWIN = test_a_reference_that_is_the_probe_gives_a_map_or_a_named_state


@pytest.mark.parametrize(
    ("kind", "check", "given"),
    [
        (Coupled, COMPANIONS, ({},)), (Drawing, TRACE, ({},)), (Writing, FORM, ({}, "cosine")),
        (Forgetting, FAILURE, ()), (Training, TRACE, ({},)), (Inventing, TWIN, ({},)),
    ],
)  # fmt: skip
def test_these_tests_find_what_they_look_for(monkeypatch, kind, check, given):
    monkeypatch.setattr(explained, "shipped", lambda _: Mean)
    check("faultless", *given)
    monkeypatch.setattr(explained, "shipped", lambda _: kind)
    with pytest.raises(AssertionError):
        check("at fault", *given)
