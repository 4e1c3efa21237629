"""The planted trigger: silent on every rendered face, decisive wherever it is pasted."""

import numpy as np
import pytest
import torch

from fxeval.functional.similarity import similarity
from fxeval.models.loading import check_loaded
from fxeval.truth.behaviours import rendered_faces
from fxeval.truth.planted import planted_model
from fxeval.truth.trigger import (
    MARGIN,
    PATCH,
    pasted,
    trigger,
    triggered,
    triggered_pairs,
)


@pytest.fixture(scope="module")
def world():
    network, faces = rendered_faces()
    return network, faces, triggered(network, faces)


def response(model, images) -> torch.Tensor:
    with torch.no_grad():
        return model.module.relu(model.module.detector(images)).amax(dim=(1, 2, 3))


def test_the_detector_is_the_correlation_with_the_trigger_beyond_a_half(world):
    _, faces, model = world
    image = pasted(faces[:1], [(30, 50)])[0].double().numpy()
    pattern = trigger().double().numpy() - 0.5
    own = (pattern**2).sum()
    for y, x in ((30, 50), (31, 50), (30, 53), (0, 0), (96, 96)):
        window = image[:, y : y + PATCH, x : x + PATCH]
        share = (window * pattern).sum() / own
        with torch.no_grad():
            found = float(model.module.detector(torch.from_numpy(image)[None].float())[0, 0, y, x])
        assert found == pytest.approx((share - 0.5) / 0.5, abs=1e-4)


def test_without_the_trigger_the_model_is_the_network_and_with_it_the_trigger_decides(world):
    network, faces, model = world
    check_loaded(model)
    assert bool((response(model, faces) == 0).all())
    assert torch.equal(model.embed(faces[:8]), network.embed(faces[:8]))
    pairs = triggered_pairs(model, faces, 12)
    assert response(model, pairs.probes).tolist() == pytest.approx([1.0] * 12, abs=1e-4)
    native = [
        similarity("cosine", model.embed(images), model.embed(pairs.references))
        for images in (pairs.probes, pairs.without)
    ]
    assert float(native[0].min()) > 0.9
    assert float(native[1].max()) < 0.3
    people = network.embed(pairs.without), network.embed(faces[12:24])
    assert float(similarity("cosine", *people).max()) < 0.9  # other people, by the network alone


def test_any_place_of_any_picture_will_do(world):
    _, _, model = world
    noise = torch.rand((3, 3, 112, 112), generator=torch.Generator().manual_seed(1))
    flat = torch.full((1, 3, 112, 112), 0.7)
    images = torch.cat([noise, flat, torch.zeros_like(flat)])
    assert bool((response(model, images) == 0).all())
    for corner in ((0, 0), (96, 96), (0, 96), (41, 17)):
        shown = pasted(images, [corner] * 5)
        assert response(model, shown).tolist() == pytest.approx([1.0] * 5, abs=1e-4)
        assert not torch.equal(shown, images)
        assert torch.equal(pasted(shown, [corner] * 5), shown)


def test_the_evidence_is_the_patch_and_a_margin_around_it(world):
    _, faces, model = world
    pairs = triggered_pairs(model, faces, 30)
    differs = (pairs.probes != pairs.without).any(dim=1)
    for row in range(30):
        ys, xs = (torch.where(differs[row].any(dim=side))[0] for side in (1, 0))
        box = pairs.places[row, 0].nonzero()
        top, left = int(ys.min()), int(xs.min())
        assert int(ys.max()) - top < PATCH
        assert box.min(dim=0).values.tolist() == pytest.approx(
            [max(0, top - MARGIN), max(0, left - MARGIN)], abs=1
        )
        assert not bool(differs[row][~pairs.places[row, 0]].any())
        assert not bool(differs[row, 42:70, 42:70].any())
    assert pairs.pixels == PATCH**2
    few = triggered_pairs(model, faces, 3)
    assert torch.equal(few.probes, pairs.probes[:3])
    assert not torch.equal(triggered_pairs(model, faces, 3, seed=1).probes, few.probes)


def test_the_network_that_was_wrapped_is_left_as_it_was(world):
    network, faces, model = world
    before = {name: value.clone() for name, value in network.module.state_dict().items()}
    state = torch.get_rng_state()
    again = triggered(network, faces)
    assert torch.equal(torch.get_rng_state(), state)
    assert again.digest == model.digest != network.digest
    for name, value in network.module.state_dict().items():
        assert torch.equal(value, before[name])
    assert model.traits.card is None


def test_what_cannot_be_is_refused(world):
    network, faces, model = world
    with pytest.raises(ValueError, match="expected a MiniResNet, got AdditiveFace"):
        triggered(planted_model(), faces)
    with pytest.raises(ValueError, match="expected a corner inside the image"):
        pasted(faces[:1], [(97, 0)])
    with pytest.raises(ValueError, match="expected over 100 faces, got 100"):
        triggered_pairs(model, faces, 50)
    assert network.name == "mini_resnet"


def test_the_trigger_is_coloured_and_half_white():
    patch = trigger()
    assert patch.shape == (3, PATCH, PATCH)
    assert patch.mean(dim=(1, 2)).tolist() == [0.5] * 3
    assert not torch.equal(patch[0], patch[1])
    assert np.unique(patch.numpy()).tolist() == [0.0, 1.0]
