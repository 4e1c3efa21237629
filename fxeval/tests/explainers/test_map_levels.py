"""Maps of pairs, triplets and identities against loops that explain one image at a time."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fxeval.contracts import Crop, ExplainerTraits, Gallery, RowState, SaliencyMaps
from fxeval.errors import ExplainerContractError, UnsupportedError
from fxeval.explainers.map_levels import IMAGES, identity_maps, joined, pair_maps, triplet_maps
from fxeval.tests.rounding import assert_rounded, condition_of

SIZE = (6, 5)
CROP = Crop("tiny", SIZE, ())
OK, EXCLUDED, DEGENERATE = RowState.OK, RowState.EXCLUDED, RowState.DEGENERATE_MAP


@dataclass(eq=False)
class BlackBox:
    name: str = "box"
    crop: Crop = CROP
    similarity: str = "cosine"
    operating_threshold: float | None = None
    digest: str = "0"
    module: nn.Module | None = None

    def embed(self, images: Tensor) -> Tensor:
        return images.flatten(1)


@dataclass(eq=False)
class Product:
    """Probe times (the mean of) its references, minus the contrast; notes what it was handed."""

    traits: ExplainerTraits = field(default=ExplainerTraits(takes_centroids=True))
    calls: list[int] = field(default_factory=list)
    draws: list[float] = field(default_factory=list)
    galleries: list[Gallery] = field(default_factory=list)

    def explain(self, model, probes, references, *, contrast=None, generator, gallery=None):
        several = references.shape[1] if references.ndim == 5 else 1
        self.calls.append(len(probes) * (1 + several + (contrast is not None)))
        self.draws.append(generator.random())
        if gallery is not None:
            self.galleries.append(gallery)
        other = references.mean(1) if references.ndim == 5 else references
        maps = (probes * other).mean(1)
        if contrast is not None:
            maps = maps - (probes * contrast).mean(1)
        lone = torch.arange(len(probes)) if gallery is None else gallery.probe_identity
        return SaliencyMaps(maps, -maps, diagnostics={"own": lone.float()})


@dataclass(eq=False)
class OneByOne(Product):
    traits: ExplainerTraits = field(default=ExplainerTraits())


def images(n: int, seed: int = 0) -> Tensor:
    return torch.rand((n, 3, *SIZE), generator=torch.Generator().manual_seed(seed))


def pcg() -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(5))


def slow_norm01(map_: np.ndarray) -> np.ndarray | None:
    low, high = map_.min(), map_.max()
    return None if high == low else (map_ - low) / (high - low)


def slow_identity_maps(pixels: Tensor, identity: list[int], reference: str):
    """Every image of every identity in a loop of its own, in numpy."""
    pixels = pixels.double().numpy()
    found = {}
    for own in sorted(set(identity)):
        rows = [row for row, name in enumerate(identity) if name == own]
        maps = []
        for row in rows if len(rows) > 1 else []:
            others = [other for other in rows if other != row]
            if reference == "centroid":
                map_ = (pixels[row] * pixels[others].mean(axis=0)).mean(axis=0)
            else:
                parts = [
                    slow_norm01((pixels[row] * pixels[other]).mean(axis=0)) for other in others
                ]
                parts = [part for part in parts if part is not None]
                map_ = np.mean(parts, axis=0) if parts else np.zeros(SIZE)
            scaled = slow_norm01(map_)
            if scaled is not None:
                maps.append(scaled)
        found[own] = (np.mean(maps, axis=0) if maps else np.zeros(SIZE), len(maps))
    return found


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=9),
    st.sampled_from(["centroid", "each"]),
    st.integers(0, 3),
)
def test_maps_of_identities_are_the_mean_of_their_scaled_images(identity, reference, black):
    pixels = images(len(identity))
    pixels[:black] = 0.0  # a black probe has a constant map
    found = identity_maps(
        Product(), BlackBox(), pixels, torch.tensor(identity) * 7 - 3,
        generator=pcg(), reference=reference,
    )  # fmt: skip
    expected = slow_identity_maps(pixels, identity, reference)

    def all_maps(pixels: Tensor) -> list[np.ndarray]:
        return [map_ for map_, _ in slow_identity_maps(pixels, identity, reference).values()]

    # A product, the means over three channels and over at most nine references, three ends of maps.
    condition = condition_of(all_maps, pixels) if found.maps.any() else 1.0
    assert found.identities.tolist() == [own * 7 - 3 for own in expected]
    for (map_, count), ours, n, state, reason in zip(
        expected.values(), found.maps, found.counts.tolist(), found.states, found.reasons,
        strict=True,
    ):  # fmt: skip
        assert n == count
        assert_rounded(ours, map_, terms=16, condition=condition)
        assert (state is OK) == (count > 0)
        assert bool(reason) == (count == 0)
    for row, own in enumerate(identity):
        assert (found.images.states[row] is EXCLUDED) == (identity.count(own) == 1)
        assert found.images.diagnostics["references"][row] == identity.count(own) - 1


def test_single_images_and_hopeless_identities_are_named_and_not_dropped():
    pixels = images(6)
    pixels[3:5] = 0.0
    found = identity_maps(
        Product(), BlackBox(), pixels, torch.tensor([9, 4, 4, 8, 8, 2]), generator=pcg()
    )
    assert found.identities.tolist() == [2, 4, 8, 9]
    assert found.states == (EXCLUDED, OK, DEGENERATE, EXCLUDED)
    assert found.counts.tolist() == [0, 2, 0, 0]
    assert found.reasons[0] == "expected at least 2 images of the identity to compare, got 1"
    assert found.reasons[2] == "none of 2 images gives a usable map: degenerate_map 2"
    assert not found.maps[[0, 2, 3]].any()
    assert found.images.states == (EXCLUDED, OK, OK, DEGENERATE, DEGENERATE, EXCLUDED)
    assert len(found.images.positive) == 6


def test_a_broken_state_of_the_explainer_keeps_its_map_out_of_the_mean():
    class Excused(Product):
        def explain(self, *args, **kwargs):
            maps = super().explain(*args, **kwargs).positive
            states = [RowState.NO_GRADIENT, *[OK] * (len(maps) - 1)]
            return SaliencyMaps(maps, None, tuple(states), ("flat", *[""] * (len(maps) - 1)))

    pixels = images(3)
    found = identity_maps(Excused(), BlackBox(), pixels, torch.tensor([1, 1, 1]), generator=pcg())
    full = identity_maps(Product(), BlackBox(), pixels, torch.tensor([1, 1, 1]), generator=pcg())
    assert found.counts.tolist() == [2]
    assert found.images.states[0] is RowState.NO_GRADIENT
    assert not torch.allclose(found.maps, full.maps)


def test_the_map_of_an_image_is_the_mean_over_its_usable_references():
    pixels = images(4)
    pixels[3] = 0.0  # as a reference, it makes a constant map
    found = identity_maps(
        Product(), BlackBox(), pixels, torch.ones(4), generator=pcg(), reference="each"
    )

    def by_hand(pixels: Tensor) -> np.ndarray:
        parts = [(pixels[0] * pixels[other]).numpy().mean(axis=0) for other in (1, 2)]
        return np.mean([slow_norm01(part) for part in parts], axis=0)

    # A product, a mean over three channels and another over two references, and rounded ends.
    condition = condition_of(by_hand, pixels)
    assert_rounded(found.images.positive[0], by_hand(pixels.double()), terms=8, condition=condition)
    assert found.images.diagnostics["references"].tolist() == [3, 3, 3, 3]
    assert found.counts.tolist() == [3]


def test_an_identity_without_a_map_takes_the_commonest_state():
    class Broken(Product):
        def explain(self, *args, **kwargs):
            maps = torch.zeros_like(super().explain(*args, **kwargs).positive)
            maps[0, 0, 0] = float("nan")
            return maps

    found = identity_maps(Broken(), BlackBox(), images(3), torch.ones(3), generator=pcg())
    assert found.states == (DEGENERATE,)
    assert found.reasons == ("none of 3 images gives a usable map: degenerate_map 2, nan_map 1",)


def test_identities_need_an_explainer_that_takes_centroids_or_a_mean_over_each():
    pixels, identity = images(5), torch.tensor([1, 1, 1, 2, 2])
    with pytest.raises(ExplainerContractError, match=r"OneByOne.*reference='each'"):
        identity_maps(OneByOne(), BlackBox(), pixels, identity, generator=pcg())
    one = identity_maps(OneByOne(), BlackBox(), pixels, identity, generator=pcg(), reference="each")
    two = identity_maps(Product(), BlackBox(), pixels, identity, generator=pcg(), reference="each")
    assert torch.equal(one.maps, two.maps)


@pytest.mark.parametrize("reference", ["centroid", "each"])
def test_calls_are_bounded_and_every_image_meets_the_same_draws(reference):
    pixels = images(60)
    identity = torch.cat([torch.zeros(30), torch.arange(30) // 5 + 1]).long()
    explainer, generator = Product(), pcg()
    identity_maps(explainer, BlackBox(), pixels, identity, generator=generator, reference=reference)
    assert max(explainer.calls) <= IMAGES
    assert len(set(explainer.draws)) == 1
    assert len(explainer.calls) < sum(explainer.calls) / 2  # not one call per image
    assert generator.random() == explainer.draws[0]  # read, not advanced


def test_pairs_and_triplets_are_explained_in_chunks_as_in_one_call():
    probes, mates, nonmates = images(70, 1), images(70, 2), images(70, 3)
    explainer = Product()
    pairs = pair_maps(explainer, BlackBox(), probes, mates, generator=pcg())
    triplets = triplet_maps(explainer, BlackBox(), probes, mates, nonmates, generator=pcg())
    whole = Product().explain(BlackBox(), probes, mates, generator=pcg())
    assert torch.equal(pairs.positive, whole.positive)
    assert torch.equal(pairs.negative, whole.negative)
    expected = (probes * mates).mean(1) - (probes * nonmates).mean(1)
    assert torch.equal(triplets.positive, expected)
    assert len(explainer.calls) > 2
    assert max(explainer.calls) <= IMAGES


def test_a_probe_with_more_references_than_a_call_holds_is_explained_alone():
    explainer = Product()
    references = images(IMAGES * 2 * 2).view(2, IMAGES * 2, 3, *SIZE)
    found = pair_maps(explainer, BlackBox(), images(2), references, generator=pcg())
    assert explainer.calls == [1 + 2 * IMAGES] * 2
    assert found.states == (OK, OK)


def test_a_gallery_reaches_those_that_need_it_cut_to_the_rows():
    gallery = Gallery(images(4).flatten(1), torch.arange(4), torch.tensor([3, 1, 2, 1, 3]))
    needy = Product(ExplainerTraits(needs={"gallery"}, takes_centroids=True))
    with pytest.raises(ExplainerContractError, match="needs a gallery"):
        pair_maps(needy, BlackBox(), images(2), images(2, 1), generator=pcg())
    found = identity_maps(
        needy, BlackBox(), images(5), gallery.probe_identity, generator=pcg(), gallery=gallery
    )
    assert found.images.diagnostics["own"][[0, 1, 3, 4]].tolist() == [3, 1, 1, 3]
    assert all(len(given.identity) == 4 for given in needy.galleries)
    content = Product()
    pair_maps(content, BlackBox(), images(5), images(5, 1), generator=pcg(), gallery=gallery)
    assert content.galleries == []


def test_what_cannot_be_explained_is_refused_with_the_reason():
    needy = Product(ExplainerTraits(needs={"contrast"}))
    with pytest.raises(ExplainerContractError, match=r"needs a contrast.*triplet_maps"):
        pair_maps(needy, BlackBox(), images(2), images(2, 1), generator=pcg())
    assert len(triplet_maps(needy, BlackBox(), *images(6).split(2), generator=pcg()).positive) == 2

    class Unfit(Product):
        def unsupported(self, model):
            return f"model '{model.name}' is a black box"

    with pytest.raises(UnsupportedError, match="'box' is a black box"):
        pair_maps(Unfit(), BlackBox(), images(2), images(2, 1), generator=pcg())

    class Wrong(Product):
        def explain(self, *args, **kwargs):
            return torch.zeros(3, 4)

    with pytest.raises(ExplainerContractError, match="Wrong"):
        pair_maps(Wrong(), BlackBox(), images(2), images(2, 1), generator=pcg())
    for wrong in (torch.arange(3), torch.zeros(2, 1)):
        with pytest.raises(ValueError, match=r"expected .* identities"):
            identity_maps(Product(), BlackBox(), images(2), wrong, generator=pcg())


def test_nothing_to_explain_gives_no_maps():
    none = pair_maps(Product(), BlackBox(), images(0), images(0), generator=pcg())
    assert none.positive.shape == (0, *SIZE)
    found = identity_maps(Product(), BlackBox(), images(0), torch.arange(0), generator=pcg())
    assert found.maps.shape == (0, *SIZE)
    alone = identity_maps(Product(), BlackBox(), images(2), torch.arange(2), generator=pcg())
    assert alone.states == (EXCLUDED, EXCLUDED)


def test_parts_without_a_negative_map_or_a_diagnostic_have_nan_there():
    first = SaliencyMaps(torch.ones(1, 2, 2), torch.ones(1, 2, 2), diagnostics={"a": torch.ones(1)})
    whole = joined([first, SaliencyMaps(torch.zeros(2, 2, 2))], (2, 2))
    assert whole.negative.isnan().flatten(1).all(1).tolist() == [False, True, True]
    assert whole.diagnostics["a"].isnan().tolist() == [False, True, True]
    assert whole.states == (OK,) * 3
