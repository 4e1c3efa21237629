"""A layer is a map only if its places are places of the image; otherwise it is read or refused."""

import pytest
import torch
from torch import nn

from fxeval import models
from fxeval.errors import ExplainerContractError
from fxeval.hooks.evidence import _ones
from fxeval.hooks.layers import candidates, convolutions, layers_of, resolve
from fxeval.hooks.readings import Reading, check_reading, fits, token_readings
from fxeval.suite.preflight import layers_of_shipped
from fxeval.tests.transformers import PlacesFirst, Square, ViT, Windowed, faces, seeded


def layers(net: nn.Module, seed: int = 0):
    return layers_of(seeded(net, seed), faces(1, 1))


def one(layer, found, reading=None):
    (only,) = resolve(layer, found, "gradcam", reading)
    return only.name, only.found.reading.spoken()


@pytest.mark.parametrize(
    ("grid", "size", "is_map"),
    [
        ((7, 7), (112, 112), True),
        ((37, 37), (48, 48), True),  # the proportions of an attention matrix may be right
        ((8, 24), (64, 64), False),
        ((37, 8), (48, 48), False),
        ((7, 6), (112, 96), True),
        ((14, 12), (112, 92), True),  # rounded up
        ((110, 94), (112, 96), True),  # without padding
        ((3, 2), (39, 31), True),  # four convolutions without padding
        ((43, 43), (112, 96), False),
        ((6, 7), (112, 96), False),
        ((6, 7), (96, 112), True),
        ((1, 1), (112, 96), True),
    ],
)
def test_a_map_has_the_proportions_of_the_image(grid, size, is_map):
    assert fits(*grid, size) is is_map


@pytest.mark.parametrize(
    ("tokens", "size", "grids", "expected"),
    [
        (37, (48, 48), (), ["1 + 6 x 6"]),
        (36, (48, 48), (), ["6 x 6"]),
        (50, (112, 112), (), ["1 + 7 x 7"]),
        (201, (112, 112), (), ["5 + 14 x 14"]),  # four registers beside the class
        (169, (112, 96), (), ["1 + 14 x 12"]),
        (16, (48, 48), (), ["4 x 4", "7 + 3 x 3"]),
        (16, (48, 48), ((3, 3), (12, 12)), ["7 + 3 x 3"]),  # the network has such a map
        (30, (48, 48), (), ["5 + 5 x 5"]),
        (3, (48, 48), (), []),
    ],
)
def test_tokens_are_the_places_of_a_grid_with_a_few_in_front(tokens, size, grids, expected):
    found = [read.spoken() for read in token_readings(tokens, size, grids)]
    assert found == [f"tokens, {text}" for text in expected]


@pytest.mark.parametrize(
    ("reading", "shape"),
    [
        (Reading("channels_first", 2, 3), (4, 5, 2, 3)),
        (Reading("channels_last", 2, 3), (4, 2, 3, 5)),
        (Reading("tokens", 2, 3, 2), (4, 8, 5)),
    ],
)
def test_places_are_read_and_written_where_they_stand(reading, shape):
    output = torch.arange(torch.tensor(shape).prod()).reshape(shape)
    places = reading.places(output)
    assert places.shape == (4, 5, 2, 3)
    assert reading.channels(shape) == 5
    assert torch.equal(reading.written(places, output), output)
    if reading.order == "tokens":
        assert torch.equal(places[1, :, 1, 2], output[1, 2 + 5])
        changed = reading.written(torch.zeros_like(places), output)
        assert torch.equal(changed[:, :2], output[:, :2])
        assert not changed[:, 2:].any()
    if reading.order == "channels_last":
        assert torch.equal(places[1, :, 1, 2], output[1, 1, 2])


@pytest.mark.parametrize("seed", range(3))
def test_the_default_of_a_vision_transformer_is_where_its_places_last_count(seed):
    found = layers(ViT(), seed)
    assert one(None, found) == ("blocks.1.norm1", "tokens, 1 + 6 x 6")
    assert one("stage[-1]", found) == ("blocks.0", "tokens, 1 + 6 x 6")
    assert one("blocks[-1].norm1", found) == ("blocks.1.norm1", "tokens, 1 + 6 x 6")
    assert one("conv[-1]", found) == ("patch", "channels_first, 6 x 6")
    assert one(None, layers(ViT(in_front=5), seed)) == ("blocks.1.norm1", "tokens, 5 + 6 x 6")
    # Without a class token the mean of all places is the embedding.
    assert one(None, layers(ViT(in_front=0), seed)) == ("norm", "tokens, 6 x 6")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("width", [10, 6])
def test_channels_last_are_found_even_where_channels_rows_and_columns_are_as_many(width, seed):
    found = layers(Windowed(width), seed)
    assert one(None, found) == ("last", "channels_last, 6 x 6")
    assert one("stage[-1]", found) == ("rows", "channels_last, 6 x 6")
    assert one("patch", found) == ("patch", "channels_first, 6 x 6")


@pytest.mark.parametrize(
    ("net", "layer", "message"),
    [
        (ViT, "blocks.0.attn.weights",
         "gives 2 x 37 x 37, whose values sum to 1 along its places, as those of an attention"),
        (ViT, "blocks[-1].attn.scores",
         r"gives 2 x 37 x 37, whose places do not follow the image: only \d\d% of them change"),
        (ViT, "norm", "on whose places the embedding does not depend, as after the last attention"),
        (ViT, "head", r"one \(N, C, h, w\) tensor, but this Linear does not"),
        (Windowed, "mix", r"gives \(4, 10, 9\) for 1 images, so its first dimension is not the"),
        (Windowed, "window", r"gives \(4, 10, 3, 3\) for 1 images"),
        (PlacesFirst, "norm", r"gives \(36, 1, 8\) for 1 images"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("reading", [None, "tokens"])
def test_what_is_no_map_is_refused_by_name(net, layer, message, reading):
    if reading == "tokens" and layer in ("norm", "head"):
        reading = None  # a declaration is right for the first, and too much for the second
    with pytest.raises(ExplainerContractError, match=rf"^gradcam: layer '.*' .*{message}") as error:
        one(layer, layers(net()), reading)
    assert "Layers that can be used: " in str(error.value)


def test_a_map_without_the_proportions_is_refused_and_never_a_default_nor_a_stage():
    net = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.Unflatten(1, (1, 4)), nn.Flatten(1, 2))
    net.append(nn.Sequential(nn.Flatten(2), nn.Unflatten(2, (16, 9))))
    net.extend([nn.Flatten(), nn.Linear(576, 8)])
    found = layers(net)
    with pytest.raises(
        ExplainerContractError,
        match="layer '3' gives 4 x 16 x 9, which has not the proportions of an image of 24 x 24, "
        r"neither as \(N, C, h, w\) nor as \(N, h, w, C\). Layers that can be used: 0 \(12 x 12\)",
    ):
        one("3", found)
    assert one(None, found)[0] == "2"
    assert one("stage[-1]", found)[0] == "2"


def test_without_a_readable_layer_after_the_patches_there_is_no_default():
    found = layers(ViT(keep=20))  # the other tokens are dropped: what is left has no grid
    with pytest.raises(
        ExplainerContractError,
        match=r"the last map of the model, 'patch' \(6 x 6\), only cuts the image into patches; "
        r"tokens come after it, such as 'norm' \(20 x 8\), .* declare 'reading: tokens'",
    ):
        one(None, found)
    assert "tokens" not in candidates(found)


def test_a_declared_reading_goes_before_what_is_found_and_says_what_is_missing():
    found = layers(ViT(keep=20))
    assert one("norm", found, "tokens") == ("norm", "tokens, 4 + 4 x 4")
    found = layers(ViT(keep=16))
    with pytest.raises(
        ExplainerContractError,
        match=r"'norm' gives 16 tokens, whose grid over an image of 24 x 24 is not clear "
        r"\(possible: 4 x 4 or 7 \+ 3 x 3\). Say the grid, such as 'reading: tokens 6x6'",
    ):
        one("norm", found, "tokens")
    assert one("norm", found, "tokens 3x3") == ("norm", "tokens, 7 + 3 x 3")
    for reading, message in {
        "tokens 5x5": "gives 16 tokens, which cannot be 5 x 5 places of an image of 24 x 24",
        "tokens 2x8": "cannot be 2 x 8 places",
        "channels_last": r"gives 16 x 8, and channels_last reads \(N, h, w, C\)",
    }.items():
        with pytest.raises(ExplainerContractError, match=message):
            one("norm", found, reading)
    with pytest.raises(
        ExplainerContractError,
        match="gives 10 x 6 x 6; read channels_last, its map is 10 x 6, which has not the prop",
    ):
        one("patch", layers(Windowed()), "channels_last")
    square = layers(Square())
    assert one("body.0", square, "channels_last") == ("body.0", "channels_last, 12 x 12")


@pytest.mark.parametrize("reading", ["token", "tokens 6", "tokens 0x6", "", 3, True, "NHWC"])
def test_what_is_no_reading_is_refused(reading):
    with pytest.raises(ExplainerContractError, match=r"^x: reading must be channels_first, chan"):
        check_reading(reading, "norm", "x")


def test_a_reading_needs_a_layer():
    check_reading(None, None, "x")
    with pytest.raises(ExplainerContractError, match="Name the layer, too"):
        check_reading("tokens", None, "x")


def test_a_convolutional_network_is_read_channels_first_in_a_single_pass():
    net, passes = seeded(Square()), []
    with torch.no_grad():
        handle = net.register_forward_hook(lambda *_: passes.append(1))
        found = layers_of(net, faces(1, 1))
        handle.remove()
    assert one(None, found) == ("body", "channels_first, 12 x 12")
    assert len(passes) == 1


def test_a_reading_does_not_depend_on_the_image():
    net = seeded(ViT())
    black = [one.found for one in layers_of(net, torch.zeros(1, 3, 24, 24))]
    assert black == [one.found for one in layers_of(net, faces(3, 5))]


@pytest.mark.parametrize("id", sorted({*models.SHIPPED} - {"mini_vit"}))
def test_the_layers_of_shipped_networks_are_those_of_their_shapes(id):
    """What rules and defaults mean: by shapes alone, as (N, C, h, w), and by kind.

    The layers of ``mini_vit`` are tokens: ``tests/models/test_mini_vit.py``.
    """
    found = layers_of_shipped(id)
    maps = [one for one in found if one.runs == 1 and len(one.shape) == 4]
    large = [one for one in maps if min(one.shape[2:]) >= 4]
    assert resolve(None, found, "x") == (large[-1],)
    spread = [
        one for one in maps
        if one.is_convolution and not one.is_shortcut and min(one.shape[2:]) >= 3
    ]  # fmt: skip
    assert convolutions(found) == spread
    assert all(one.reading.order == "channels_first" for one in large)


@pytest.mark.parametrize("side", [1, 2, 3])
def test_outputs_that_sum_to_one_everywhere_are_told_from_those_that_do_so_somewhere(side):
    shares = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0)).softmax(dim=side)
    assert _ones(shares) == {side}
    assert _ones(1.0009 * shares) == {side}
    assert _ones(1.0015 * shares) == set()
    assert _ones(-shares) == _ones(1.01 * shares) == set()
    last = shares.clone()
    last[0, -1, -1, -1] += 0.5  # its first sum is still 1
    assert _ones(last) == set()
    last = shares.clone()
    last[1] += 0.5  # of another image
    assert _ones(last) == {side}
