"""Attention rollout against loops in numpy, for every form of attention, and what it refuses."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from fxeval.contracts import MapLayer
from fxeval.errors import ExplainerContractError
from fxeval.explainers.rollout import Rollout
from fxeval.models import build
from fxeval.models.networks.mini_vit import MiniViT
from fxeval.tests.cam_subjects import RNG, exact, upsampled
from fxeval.tests.rounding import assert_rounded, condition_of, terms_of
from fxeval.tests.subjects import ConvNet
from fxeval.tests.transformers import (
    SIDE,
    Attention,
    PlacesFirst,
    ViT,
    Windowed,
    face_net,
    faces,
    seeded,
)

HEADS = 2


class Fused(Attention):
    def forward(self, x: Tensor) -> Tensor:
        n, t, d = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        return self.proj(self.mixed(q, k, v).transpose(1, 2).reshape(n, t, d))

    def mixed(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v)


class Masked(Fused):
    """Scaled by another number than the square root, and blind to the token after."""

    def mixed(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        mask = torch.zeros(q.shape[2], k.shape[2], dtype=q.dtype).diagonal_scatter(
            torch.full((k.shape[2] - 1,), -3.0, dtype=q.dtype), offset=1
        )
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=0.25)


class OwnKernel(Fused):
    """Insists on a kernel, as a network may for speed."""

    def mixed(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        with sdpa_kernel([SDPBackend.FLASH_ATTENTION]):
            return super().mixed(q, k, v)


class HeadsFirst(Fused):
    """(heads x images, T, T), heads first: the order in which some networks split them."""

    def mixed(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (one.transpose(0, 1).flatten(0, 1) for one in (q, k, v))
        weights = (q @ k.transpose(1, 2) * q.shape[-1] ** -0.5).softmax(dim=-1)
        return (weights @ v).unflatten(0, (self.heads, -1)).transpose(0, 1)


class Modular(nn.Module):
    """``nn.MultiheadAttention``, asked for its weights or not."""

    def __init__(self, width: int, needs_weights: bool) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(width, HEADS, batch_first=True)
        self.needs_weights = needs_weights

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x, x, x, need_weights=self.needs_weights)[0]


class Windows(Fused):
    def mixed(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        front, rest = ([one[:, :, :1] for one in (q, k, v)], [one[:, :, 1:] for one in (q, k, v)])
        parts = [one.unflatten(2, (4, 9)).transpose(1, 2).flatten(0, 1) for one in rest]
        mixed = super().mixed(*parts).unflatten(0, (-1, 4)).transpose(1, 2).flatten(2, 3)
        return torch.cat([front[2], mixed], dim=2)


class AmongChannels(Fused):
    def mixed(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return super().mixed(*(one.transpose(2, 3) for one in (q, k, v))).transpose(2, 3)


class Reduced(Fused):
    """Only the first 16 tokens are attended to, and 16 among them in front of that."""

    def mixed(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        few = super().mixed(q[:, :, :16], k[:, :, :16], v[:, :, :16])
        return torch.cat([few, super().mixed(q, k, v)[:, :, 16:]], dim=2)


class Columns(Fused):
    """Holds its weights as keys x queries, whose columns sum to 1."""

    def mixed(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        weights = (k @ q.transpose(2, 3) * q.shape[-1] ** -0.5).softmax(dim=-2)
        return weights.transpose(2, 3) @ v


class OneByOne(Fused):
    """Computes each head by itself: two softmaxes of one layer, which look like two layers."""

    def mixed(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        heads = zip(q.split(1, 1), k.split(1, 1), v.split(1, 1), strict=True)
        return torch.cat([super(OneByOne, self).mixed(*head) for head in heads], dim=1)


class Encoder(nn.Module):
    """A vision transformer around ``nn.TransformerEncoder``."""

    def __init__(self, is_batch_first: bool = True, width: int = 8) -> None:
        super().__init__()
        self.patch, self.front = nn.Conv2d(3, width, 4, 4), nn.Parameter(torch.zeros(1, 1, width))
        layer = nn.TransformerEncoderLayer(
            width, HEADS, 2 * width, batch_first=is_batch_first, dropout=0.1
        )
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head, self.is_batch_first = nn.Linear(width, 16), is_batch_first

    def forward(self, images: Tensor) -> Tensor:
        x = self.patch(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.front.expand(len(x), -1, -1), x], dim=1)
        if self.is_batch_first:
            return self.head(self.encoder(x)[:, 0])
        return self.head(self.encoder(x.transpose(0, 1))[0])


def with_attention(make: Callable[[], nn.Module], in_front: int = 1) -> nn.Module:
    net = ViT(in_front)
    for block in net.blocks:
        block.attn = make()
    return seeded(net)


def mixed_blocks(last: nn.Module) -> nn.Module:
    """A network of two forms of attention."""
    net = with_attention(lambda: Fused(8))
    net.blocks[-1].attn = last
    return seeded(net)


def explain(net: nn.Module, probes: Tensor, references: Tensor | None = None, **parameters):
    references = faces(len(probes), 99) if references is None else references
    return Rollout(**parameters).explain(face_net(net), probes, references, generator=RNG)


# --- the slow reference


def softmax(scores: np.ndarray) -> np.ndarray:
    return np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()


def matrices(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, is_masked: bool) -> np.ndarray:
    """(heads, T, T) from the (T, D) tokens at the entrance of attention, one row at a time."""
    t, d = x.shape
    each = d // HEADS
    found = np.zeros((HEADS, t, t))
    for head in range(HEADS):
        own = slice(head * each, (head + 1) * each)
        q = x @ weight[:d][own].T + bias[:d][own]
        k = x @ weight[d : 2 * d][own].T + bias[d : 2 * d][own]
        for i in range(t):
            scores = np.array([q[i] @ k[j] for j in range(t)])
            scores *= 0.25 if is_masked else each**-0.5
            if is_masked and i + 1 < t:
                scores[i + 1] -= 3
            found[head, i] = softmax(scores)
    return found


def rolled(attention: list[np.ndarray], combine: Callable[..., np.ndarray]) -> np.ndarray:
    """(T, T): the share of token j at the entrance in token i at the end."""
    t = attention[0].shape[-1]
    found = np.eye(t)
    for one in attention:
        mixed = combine(one, axis=0) + np.eye(t)
        after = np.zeros((t, t))
        for i in range(t):
            for middle in range(t):
                after[i] += mixed[i, middle] / mixed[i].sum() * found[middle]
        found = after
    return found


def by_hand(
    net: nn.Module, probe: Tensor, rows: list[int], in_front: int = 1, combine=np.mean
) -> np.ndarray:
    """The map of a network in float64, from what enters its attention and the weights there."""
    taken: list[tuple[nn.Module, np.ndarray]] = []
    parts = [
        part for part in net.modules()
        if isinstance(part, Attention | nn.MultiheadAttention)
    ]  # fmt: skip

    def keep(part: nn.Module, given: tuple[Tensor, ...]) -> None:
        is_first = getattr(part, "batch_first", True)
        taken.append((part, given[0][:, 0].numpy() if not is_first else given[0][0].numpy()))

    handles = [part.register_forward_pre_hook(keep) for part in parts]
    with torch.no_grad():
        net(probe[None])
    for handle in handles:
        handle.remove()
    attention = []
    for part, x in taken:
        is_own = isinstance(part, Attention)
        weight, bias = (
            (part.qkv.weight, part.qkv.bias) if is_own else (part.in_proj_weight, part.in_proj_bias)
        )
        found = matrices(
            x, weight.detach().numpy(), bias.detach().numpy(), isinstance(part, Masked)
        )
        attention.append(found)
    row = rolled(attention, combine)[rows].mean(axis=0)
    return upsampled(row[in_front:].reshape(6, 6), (SIDE, SIDE))


FORMS = {
    "softmax": partial(with_attention, lambda: Attention(8)),
    "fused": partial(with_attention, lambda: Fused(8)),
    "masked": partial(with_attention, lambda: Masked(8)),
    "heads_first": partial(with_attention, lambda: HeadsFirst(8)),
    "multihead": partial(with_attention, lambda: Modular(8, needs_weights=False)),
    "multihead_weights": partial(with_attention, lambda: Modular(8, needs_weights=True)),
    "encoder": lambda: seeded(Encoder()),
    "encoder_tokens_first": lambda: seeded(Encoder(is_batch_first=False)),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_attention_gives_the_map_of_the_slow_loops(form):
    net, probes = FORMS[form](), faces(2, 1)
    # Tokens before images are not read by themselves.
    reading = "tokens 6x6" if form == "encoder_tokens_first" else None
    maps = explain(net, probes, reading=reading)
    net = exact(net)
    for row in range(2):

        def compute(probe: Tensor) -> np.ndarray:
            return by_hand(net, probe.double(), [0])

        assert_rounded(
            maps.positive[row], compute(probes[row]), terms=terms_of(net, passes=2),
            condition=condition_of(compute, probes[row], module=net),
        )  # fmt: skip
    assert bool((maps.positive.flatten(1).std(dim=1) > 0.01 * maps.positive.mean()).all())
    assert maps.layers[-1].shape == (HEADS, 37, 37)
    assert (maps.layers[-1].reading, maps.layers[-1].grid) == ("tokens", (6, 6))


@pytest.mark.parametrize(("heads", "combine"), [("min", np.min), ("max", np.max)])
def test_heads_are_combined_as_asked(heads, combine):
    net, probe = FORMS["fused"](), faces(1, 1)
    maps = explain(net, probe, heads=heads)
    assert not torch.equal(maps.positive, explain(net, probe).positive)
    net = exact(net)

    def compute(probe: Tensor) -> np.ndarray:
        return by_hand(net, probe.double(), [0], combine=combine)

    assert_rounded(
        maps.positive[0], compute(probe[0]), terms=terms_of(net, passes=2),
        condition=condition_of(compute, probe[0], module=net),
    )  # fmt: skip


class Pooling(ViT):
    """Reads other tokens than the class token."""

    def __init__(self, read: Callable[[Tensor], Tensor], in_front: int = 1) -> None:
        super().__init__(in_front)
        self.read = read

    def after(self, x: Tensor, normed: Tensor | None = None) -> Tensor:
        return self.head(self.read(self.norm(self.blocks[-1](x))))


PLACES = list(range(1, 37))


@pytest.mark.parametrize(
    ("read", "rows", "in_front"),
    [
        (lambda x: x[:, 0], [0], 1),
        (lambda x: x[:, 1:].mean(dim=1), PLACES, 1),  # the class token is there, and ignored
        (lambda x: x.mean(dim=1), [0, *PLACES], 1),
        (lambda x: x.mean(dim=1), list(range(36)), 0),
        (lambda x: x[:, 0] + x[:, 1], [0, 1], 3),  # class and distillation token, and a register
    ],
    ids=["class", "places", "all", "no class token", "two in front"],
)
def test_the_rows_are_those_of_the_tokens_that_make_the_embedding(read, rows, in_front):
    net, probe = seeded(Pooling(read, in_front)), faces(1, 1)
    maps = explain(net, probe)
    net = exact(net)

    def compute(probe: Tensor) -> np.ndarray:
        return by_hand(net, probe.double(), rows, in_front)

    assert_rounded(
        maps.positive[0], compute(probe[0]), terms=terms_of(net, passes=2),
        condition=condition_of(compute, probe[0], module=net),
    )  # fmt: skip


def test_the_share_of_tokens_in_front_and_of_places_is_all_there_is():
    net, probes = seeded(ViT(in_front=3)), faces(2, 1)
    share = explain(net, probes).diagnostics["share_in_front"]
    for row in range(2):
        coarse = by_hand(exact(net), probes[row].double(), [0], 3)
        # Bilinear with half-pixel centres: at these pixels of 4 x 4 the mean is that of places.
        inner = coarse.reshape(6, 4, 6, 4).mean(axis=(1, 3))
        assert 0 < float(share[row]) < 1
        assert abs(float(share[row]) + inner.sum() - 1) < 0.05
    assert explain(seeded(Pooling(lambda x: x.mean(dim=1), 0)), probes).diagnostics[
        "share_in_front"
    ].tolist() == [0, 0]


# --- what it cannot know, and what it sees where it can


def test_the_reference_is_ignored():
    net, probes = FORMS["fused"](), faces(3, 1)
    maps = explain(net, probes, faces(3, 2))
    for references in (probes, faces(3, 3), faces(6, 4).view(3, 2, 3, SIDE, SIDE)):
        assert torch.equal(explain(net, probes, references).positive, maps.positive)
    assert not torch.equal(explain(net, faces(3, 5)).positive, maps.positive)
    with pytest.raises(ExplainerContractError, match=r"^rollout: it takes no contrast, as it expl"):
        Rollout().explain(face_net(net), probes, probes, contrast=faces(3, 2), generator=RNG)
    with pytest.raises(ExplainerContractError, match="expected references of the probes' shape"):
        explain(net, probes, faces(2, 2))


def test_the_head_is_ignored_too():
    net, probes = FORMS["fused"](), faces(2, 1)
    before = explain(net, probes).positive
    with torch.no_grad():
        net.head.weight.copy_(torch.randn(16, 8, generator=torch.Generator().manual_seed(4)))
    assert torch.equal(explain(net, probes).positive, before)
    with torch.no_grad():
        for block in net.blocks:
            block.attn.qkv.weight[:16] *= -1.3
            block.attn.qkv.bias[:8] += 1
    assert not torch.equal(explain(net, probes).positive, before)


def test_a_row_does_not_depend_on_its_companions_to_the_last_bit():
    for form in ("softmax", "fused", "heads_first", "encoder"):
        net, probes = FORMS[form](), faces(3, 1)
        together = explain(net, probes).positive
        for row in range(3):
            assert torch.equal(explain(net, probes[row : row + 1]).positive[0], together[row])


def test_attention_to_one_place_is_found_there_and_uniform_attention_says_nothing():
    net = FORMS["fused"]()
    with torch.no_grad():
        for block in net.blocks:
            block.attn.qkv.weight.zero_()
            block.attn.qkv.bias.zero_()
            # Of places, only the value of the last channel is looked for.
            block.attn.qkv.weight[0, 7] = block.attn.qkv.weight[8, 7] = 20
            block.attn.qkv.bias[0] = 20
            block.attn.qkv.weight[16:] = torch.eye(8) * 0.1
    flat = FORMS["fused"]()
    with torch.no_grad():
        for block in flat.blocks:
            block.attn.qkv.weight[:16].zero_()
    probe = faces(1, 1)
    with torch.no_grad():
        last = net.blocks[0].norm1(net.before(probe))[0, 1:, 7]
    assert last.std() > 0
    even = explain(flat, probe).positive
    assert float(even.max() - even.min()) < 1e-6
    uneven = explain(net, probe).positive
    assert float(uneven.max()) > 3 * float(even.max())


# --- what is refused


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ConvNet(side=SIDE),
         r"the model shows no attention: no softmax .* \(heads, T, T\)"),
        (Windowed, "the model shows no attention"),
        (PlacesFirst, "the model shows no attention"),
        (lambda: with_attention(lambda: Windows(8)),
         r"layer 'blocks.0.attn' attends within windows \(4 x 2 x 9 x 9 weights for one image\)"),
        (lambda: with_attention(lambda: AmongChannels(8)),
         r"the attention is among 4, and no layer gives that many tokens .* among channels is of"),
        (lambda: with_attention(lambda: Reduced(8)),
         "layer 'blocks.0.attn' attends among 16 tokens and layer 'blocks.0.attn' among 37"),
        (lambda: with_attention(lambda: Columns(8)), "the model shows no attention"),
        (lambda: mixed_blocks(Columns(8)),
         r"layer 'blocks.1.attn' has 1 x 2 x 37 x 37 weights whose rows do not sum to 1"),
        (lambda: with_attention(lambda: OneByOne(8)),
         "attention at layer 'blocks.0.attn' does not depend on that at layer 'blocks.0.attn'"),
        (lambda: mixed_blocks(OneByOne(8)),
         "attention at layer 'blocks.1.attn' does not depend on that at layer 'blocks.1.attn'"),
        (lambda: with_attention(lambda: OwnKernel(8)),
         "layer 'blocks.0.attn' computes attention by _scaled_dot_product_flash_attention_for_cpu"),
        (lambda: seeded(Encoder(is_batch_first=False)),
         "the attention is among 37, and no layer gives .* declare their grid"),
        (lambda: seeded(Pooled()), "layer 'pool' attends from 1 to 37 tokens, as attention pool"),
        (lambda: seeded(Pooling(lambda x: torch.ones_like(x[:, 0]))),
         "the embedding does not depend on the last attention of the model"),
    ],
    ids=["convolutions", "no attention", "tokens alone", "windows", "channels", "sizes", "columns",
         "one layer of columns", "heads one by one", "one layer of such heads", "kernel",
         "tokens first", "pooling", "unread"],
)  # fmt: skip
def test_a_network_without_attention_among_all_tokens_is_unsupported(make, message):
    net = make().eval()
    why = Rollout().unsupported(face_net(net))
    assert why is not None
    with pytest.raises(ExplainerContractError, match=message) as told:
        explain(net, faces(1, 1))
    assert told.value.detail == f"rollout: {why}"


class Pooled(ViT):
    """Ends with attention of one learned query."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.MultiheadAttention(8, HEADS, batch_first=True)
        self.query = nn.Parameter(torch.zeros(1, 1, 8))

    def after(self, x: Tensor, normed: Tensor | None = None) -> Tensor:
        x = self.norm(self.blocks[-1](x))
        return self.head(self.pool(self.query.expand(len(x), -1, -1), x, x)[0][:, 0])


@pytest.mark.parametrize("name", ["mini_resnet", "edgeface_xs"])
def test_networks_of_the_catalogue_without_attention_among_tokens_are_unsupported(name):
    from fxeval.datasets.faces.alignment import CROPS
    from fxeval.models import ARCHITECTURES
    from fxeval.tests.cam_subjects import FaceNet

    net = build(ARCHITECTURES[name].factory).eval()
    why = Rollout().unsupported(FaceNet(net, crop=CROPS[ARCHITECTURES[name].crop]))
    said = {"mini_resnet": "shows no attention", "edgeface_xs": "'stages.1.blocks.2.xca' attends"}
    assert said[name] in why


def test_black_boxes_and_wrong_parameters_are_refused():
    box = face_net(nn.Identity())
    box.module = None
    assert Rollout().unsupported(box).startswith("needs attention, but model 'tiny' is a black b")
    with pytest.raises(ExplainerContractError, match=r"^rollout: needs attention, but model 'tin"):
        Rollout().explain(box, faces(1, 1), faces(1, 2), generator=RNG)
    with pytest.raises(ExplainerContractError, match="heads must be one of mean, min, max, got 'm"):
        Rollout(heads="median")
    with pytest.raises(
        ExplainerContractError, match=r"reading must be channels_first, .* got 'row"
    ):
        Rollout(reading="rows")
    for reading in ("channels_first", "tokens 7x7"):
        with pytest.raises(ExplainerContractError, match=r"^rollout: the attention gives "):
            explain(FORMS["fused"](), faces(1, 1), reading=reading)


def test_a_network_whose_attention_depends_on_the_image_is_named():
    class Shy(ViT):
        def forward(self, images: Tensor) -> Tensor:
            x = self.before(images)
            return self.head(x[:, 0]) if bool((images == 0).any()) else self.after(x)

    dark = faces(1, 1)
    dark[:] = 0
    with pytest.raises(ExplainerContractError, match="not compute the same attention for every"):
        explain(seeded(Shy()), dark)


def test_settings_of_attention_are_put_back_even_after_an_error():
    def settings() -> list[bool]:
        cuda = torch.backends.cuda
        return [
            torch.backends.mha.get_fastpath_enabled(), cuda.flash_sdp_enabled(),
            cuda.mem_efficient_sdp_enabled(), cuda.math_sdp_enabled(),
        ]  # fmt: skip

    before = settings()
    explain(FORMS["encoder"](), faces(1, 1))
    assert settings() == before
    net = FORMS["encoder"]()
    net.head = nn.Linear(3, 3)
    with pytest.raises(RuntimeError):
        explain(net, faces(1, 1))
    assert settings() == before
    assert Rollout().unsupported(face_net(net)) is None  # it is the network that fails


def test_the_bundled_transformer_is_explained_at_its_places():
    from fxeval.datasets.faces.alignment import ARCFACE_112
    from fxeval.tests.cam_subjects import FaceNet

    net = seeded(MiniViT())
    model = FaceNet(net, crop=ARCFACE_112)
    assert Rollout().unsupported(model) is None
    probes = faces(1, 1, 112)
    maps = Rollout().explain(model, probes, probes, generator=RNG)
    assert maps.layers == tuple(
        MapLayer(f"blocks.{block}.attention", (4, 54, 54), "tokens", (7, 7)) for block in range(6)
    )
    assert maps.positive.shape == (1, 112, 112)
    assert float(maps.positive.std()) > 0
