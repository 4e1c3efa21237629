"""A small world for every shipped explainer: a model, three pairs, and what may be left behind."""

import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import cache
from types import MappingProxyType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fxeval.contracts import Gallery, SaliencyMaps, traits_of
from fxeval.explainers import SHIPPED, shipped
from fxeval.hooks.returned import check_maps
from fxeval.tests.rounding import assert_rounded
from fxeval.tests.subjects import CROP, ConvNet
from fxeval.tests.transformers import Block, seeded
from fxeval.truth.planted import textures

# Small numbers for whatever costs forward passes, by the name of the field.
FEW = {"masks": 24, "rounds": 2, "steps": 3, "samples": 3, "iterations": 3, "top": 4, "step": 16}
IDS = [id for id in SHIPPED if id != "precomputed"]  # reads files, and has tests of its own


def cases() -> Iterator[Any]:
    """Every explainer, and every one with one choice made otherwise."""
    for id in IDS:
        kind = shipped(id)
        types, default = get_type_hints(kind), kind()
        yield pytest.param(id, {}, id=id)
        for field in fields(kind):
            chosen = getattr(default, field.name)
            others = (not chosen,) if types[field.name] is bool else get_args(types[field.name])
            if field.name == "objective":
                others = ("-cos", "arc_pair(m=0.2)", "arc_softmax(s=8)", "triplet", "neg_l2")
            elif types[field.name] is not bool and get_origin(types[field.name]) is not Literal:
                continue
            for other in others:
                if other != chosen:
                    yield pytest.param(id, {field.name: other}, id=f"{id}-{field.name}={other}")


def few(id: str, choice: Mapping[str, Any] = MappingProxyType({}), **more: Any) -> Any:
    kind = shipped(id)
    names = {field.name for field in fields(kind)}
    few = {name: value for name, value in {**FEW, **more}.items() if name in names}
    return kind(**{**few, **choice})


@dataclass(eq=False)
class Face:
    """A face model that puts its own training flags back, and counts what it embeds."""

    module: nn.Module | None
    embedder: nn.Module
    crop: Any
    similarity: str = "cosine"
    operating_threshold: float | None = 0.3
    name: str = "face"
    digest: str = "d"
    embedded: int = 0

    def embed(self, images: Tensor) -> Tensor:
        self.embedded += len(images)
        modes = [(part, part.training) for part in self.embedder.modules()]
        self.embedder.eval()
        try:
            with torch.inference_mode():
                return self.embedder(images).clone()
        finally:
            for part, mode in modes:
                part.training = mode


@dataclass(frozen=True, eq=False)
class Given:
    probes: Tensor
    references: Tensor
    nonmates: Tensor
    gallery: Gallery

    def rows(self, rows: slice) -> "Given":
        gallery = replace(self.gallery, probe_identity=self.gallery.probe_identity[rows])
        return Given(self.probes[rows], self.references[rows], self.nonmates[rows], gallery)


@cache
def images_of(size: tuple[int, int]) -> Tensor:
    """Three images of each of six identities, (6, 3, 3, H, W)."""
    images = torch.stack([textures(3, "every", identity) for identity in range(6)])
    small = torch.nn.functional.interpolate(images.flatten(0, 1), size, mode="area")
    return small.view(6, 3, 3, *size)


class Tokens(nn.Module):
    """A small transformer: a class token before places of 4 x 4 pixels."""

    def __init__(self, grid: tuple[int, int] = (4, 4)) -> None:
        super().__init__()
        self.patch, self.front = nn.Conv2d(3, 8, 4, 4), nn.Parameter(torch.zeros(1, 1, 8))
        self.place = nn.Parameter(torch.zeros(1, math.prod(grid), 8))
        self.blocks, self.fc = nn.Sequential(Block(8), Block(8)), nn.Linear(8, 8)
        seeded(self)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patch(images).flatten(2).transpose(1, 2) + self.place
        x = torch.cat([self.front.expand(len(x), -1, -1), x], dim=1)
        return self.fc(self.blocks(x)[:, 0])


NETWORKS: dict[str, type[Any]] = {"rollout": Tokens}
"""The kind of network that an explainer is for, where it is not for convolutions."""


def network_of(id: str) -> type[Any]:
    return NETWORKS.get(id, ConvNet)


@cache
def wide(id: str) -> type[Any]:
    """Computes in float64, where rounding is far below what a coupling of rows would do."""

    class Wide(network_of(id)):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.double()

        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images.double())

    return Wide


def small(kind: str = "cosine", *, is_black_box: bool = False, by: type[Any] = ConvNet) -> Face:
    module = by().eval()
    with torch.no_grad():
        if hasattr(module, "bn1"):  # statistics of a trained network: neither 0 nor 1
            module.bn1.running_mean.uniform_(-0.2, 0.2, generator=torch.Generator().manual_seed(1))
        module.fc.bias -= module(images_of(CROP.size).flatten(0, 1)).mean(dim=0)
    return Face(
        None if is_black_box else module, module, CROP, kind, 0.3 if kind == "cosine" else -1
    )


def given_to(model: Any) -> Given:
    images = images_of(model.crop.size)
    gallery = Gallery(model.embed(images[:, 1]), torch.arange(6), torch.arange(3))
    return Given(images[:3, 0].clone(), images[:3, 1].clone(), images[1:4, 1].clone(), gallery)


def ask(explainer: Any, model: Any, given: Given, *, contrast: bool | None = None) -> SaliencyMaps:
    """Call as the harness does; a contrast is handed in where it is needed, or asked for."""
    needs = traits_of(explainer).needs
    more: dict[str, Any] = {}
    if contrast or (contrast is None and "contrast" in needs):
        more["contrast"] = given.nonmates
    if "gallery" in needs:
        more["gallery"] = given.gallery
    generator = np.random.Generator(np.random.PCG64(7))
    found = explainer.explain(model, given.probes, given.references, generator=generator, **more)
    return check_maps("it", found, len(given.probes), tuple(given.probes.shape[2:]))


def same(one: SaliencyMaps, two: SaliencyMaps) -> bool:
    negatives = (one.negative is None and two.negative is None) or torch.equal(
        one.negative, two.negative
    )
    return negatives and torch.equal(one.positive, two.positive) and one.states == two.states


def scaled(maps: SaliencyMaps) -> Tensor:
    """Both parts of every row's map, (1 or 2, N, H, W), divided by the largest value of the row."""
    parts = [maps.positive] if maps.negative is None else [maps.positive, maps.negative]
    stacked = torch.stack(parts).double()
    largest = stacked.abs().amax(dim=(0, 2, 3))[:, None, None]
    return stacked / torch.where(largest > 0, largest, 1.0)


def close(explainer: Any, one: SaliencyMaps, two: SaliencyMaps, condition: float = 1.0) -> None:
    """Compare maps of a network that computes in float64.

    Explainers sum in float64, too, but for gradients at the image: those they may sum over channels
    and pixels in float32. Both maps are rounded, in those sums or as they are handed over.
    """
    assert one.states == two.states
    needs = traits_of(explainer).needs
    is_at_the_image = "gradients" in needs and "layers" not in needs
    summed = 3 * math.prod(two.positive.shape[1:]) if is_at_the_image else 1
    assert_rounded(scaled(one), scaled(two), terms=2 * summed, condition=condition)


def traces(module: nn.Module) -> list[Any]:
    """Everything an explainer might leave behind, in values."""
    found: list[Any] = [(name, value.clone()) for name, value in module.state_dict().items()]
    for name, value in module.named_parameters():
        gradient = None if value.grad is None else value.grad.clone()
        found.append((name, value.requires_grad, gradient, id(value)))
    for name, part in module.named_modules():
        hooks = (part._forward_hooks, part._forward_pre_hooks, part._backward_hooks,
                 part._backward_pre_hooks)  # fmt: skip
        found.append((name, part.training, [tuple(some) for some in hooks], sorted(vars(part))))
    return found


def equal(one: Any, two: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(two, Tensor):
        return torch.equal(one, two)
    if isinstance(one, list | tuple) and isinstance(two, list | tuple):
        return len(one) == len(two) and all(equal(a, b) for a, b in zip(one, two, strict=True))
    return bool(one == two)


def random_states() -> list[Any]:
    return [torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()]  # noqa: NPY002


def lived_in(model: Face) -> Face:
    """Give a model a past: mixed flags, a frozen parameter, a gradient, a hook."""
    module = model.embedder.train()
    next(module.children()).eval()
    parameters = list(module.parameters())
    parameters[0].requires_grad_(False)
    parameters[-1].grad = torch.ones_like(parameters[-1])
    module.register_forward_hook(lambda *_: None)
    return model
