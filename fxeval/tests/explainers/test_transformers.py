"""Maps at layers of tokens and of channels last, by explicit computation."""

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxeval.contracts import MapLayer
from fxeval.errors import ExplainerContractError
from fxeval.explainers.adapters import from_captum, from_grad_cam
from fxeval.explainers.cam_exact import CAM
from fxeval.explainers.gap_head import gap_head
from fxeval.explainers.grad_cam import GradCAM
from fxeval.explainers.leam import LEAM
from fxeval.explainers.sdd_cam import SDDCAM
from fxeval.hooks.returned import check_maps
from fxeval.tests.cam_subjects import RNG, cosine, embedded, exact, upsampled
from fxeval.tests.explainers.test_grad_cam import METHODS, grad_cam
from fxeval.tests.peers import pytorch_grad_cam
from fxeval.tests.rounding import assert_rounded, condition_of, terms_of
from fxeval.tests.transformers import (
    SIDE,
    Square,
    ViT,
    Windowed,
    face_net,
    faces,
    seeded,
)

TOKENS = MapLayer("blocks.1.norm1", (37, 8), "tokens", (6, 6))
ROWS = MapLayer("last", (6, 6, 10), "channels_last", (6, 6))

PASSES = 4
"""Forward and backward, twice: the sums of attention and of normalisation, forward and
backward, are in no layer that ``terms_of`` counts."""


def cut_vit(net: ViT, probe: Tensor) -> tuple[Tensor, partial]:
    x = net.before(probe[None]).detach()
    return net.blocks[-1].norm1(x), partial(net.after, x)


def cut_windowed(net: Windowed, probe: Tensor) -> tuple[Tensor, partial]:
    rows = net.last(net.before(probe[None]))
    return rows, lambda last: net.head(last.tanh().mean(dim=(1, 2)))


def places_of(rows: Tensor) -> np.ndarray:
    """Tokens behind one in front, or channels last, as (C, 6, 6): one place at a time."""
    rows, found = rows[0].detach().numpy(), np.zeros((rows.shape[-1], 6, 6))
    for i, j in np.ndindex(6, 6):
        found[:, i, j] = rows[1 + 6 * i + j] if rows.ndim == 2 else rows[i, j]
    return found


def by_hand(net: nn.Module, cut, probe: Tensor, reference: Tensor, formula) -> np.ndarray:
    rows, after = cut(net, probe.double())
    rows = rows.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(cosine(after(rows)[0], reference), rows)
    return upsampled(formula(places_of(rows), places_of(gradient)), (SIDE, SIDE))


@pytest.mark.parametrize("method", ["gradcam", "gradcampp", "layercam", "signed"])
@pytest.mark.parametrize(
    ("make", "cut", "layer"),
    [(ViT, cut_vit, TOKENS), (Windowed, cut_windowed, ROWS)],
    ids=["tokens", "channels_last"],
)
def test_maps_equal_those_computed_by_hand(make, cut, layer, method):
    by, parameters, formula = METHODS[method]
    net = seeded(make())
    probes, references = faces(2, 1), faces(2, 2)
    by_default = by(**parameters).explain(face_net(net), probes, references, generator=RNG)
    for reading in (None, layer.reading):
        named = by(layer.name, reading=reading, **parameters)
        maps = named.explain(face_net(net), probes, references, generator=RNG)
        assert torch.equal(maps.positive, by_default.positive)
        assert maps.layers == (layer,)
    assert bool((by_default.positive.flatten(1).amax(dim=1) > 0).any())
    net = exact(net)
    for row in range(2):

        def compute(probe: Tensor, row=row) -> np.ndarray:
            return by_hand(net, cut, probe, embedded(net, references[row]), formula)

        assert_rounded(
            by_default.positive[row],
            compute(probes[row]),
            # Where the condition is large, it covers those sums as well.
            terms=terms_of(net, passes=2 if method in ("gradcampp", "layercam") else PASSES),
            condition=condition_of(compute, probes[row], module=net),
        )


def test_a_declared_reading_is_followed_where_another_was_found():
    net = seeded(Square())
    first = GradCAM("body.0").explain(face_net(net), faces(1, 1), faces(1, 2), generator=RNG)
    last = GradCAM("body.0", reading="channels_last").explain(
        face_net(net), faces(1, 1), faces(1, 2), generator=RNG
    )
    assert first.layers == (MapLayer("body.0", (12, 12, 12), "channels_first", (12, 12)),)
    assert last.layers == (MapLayer("body.0", (12, 12, 12), "channels_last", (12, 12)),)
    assert not torch.equal(first.positive, last.positive)


def test_layers_of_all_readings_are_averaged():
    net, probes, references = seeded(ViT()), faces(2, 1), faces(2, 2)
    both = LEAM(("patch", "blocks.1.norm1")).explain(
        face_net(net), probes, references, generator=RNG
    )
    assert [layer.reading for layer in both.layers] == ["channels_first", "tokens"]
    alone = [
        LEAM(layer).explain(face_net(net), probes, references, generator=RNG).positive
        for layer in ("patch", "blocks.1.norm1")
    ]
    assert_rounded(both.positive, torch.stack(alone).mean(dim=0), terms=2)


@pytest.mark.parametrize("make", [ViT, Windowed])
def test_leam_has_no_default_where_convolutions_only_cut_patches(make):
    with pytest.raises(
        ExplainerContractError,
        match=r"^leam: the convolutions of the model, patch \(6 x 6\), only cut the image into "
        "patches, so there is no default. Name layers, such as .*(norm|rows)",
    ):
        LEAM().explain(face_net(seeded(make())), faces(1, 1), faces(1, 2), generator=RNG)
    why = LEAM().unsupported(face_net(seeded(make())))
    assert why.startswith("the convolutions of the model, patch (6 x 6), only cut the image")
    assert LEAM("patch").unsupported(face_net(seeded(make()))) is None
    assert GradCAM().unsupported(face_net(seeded(make()))) is None


def test_a_model_without_a_default_layer_is_unsupported_and_one_that_fails_is_not():
    why = GradCAM().unsupported(face_net(seeded(ViT(keep=20))))
    assert why.startswith("the last map of the model, 'patch' (6 x 6), only cuts the image into")
    assert GradCAM().unsupported(face_net(nn.Linear(3, 3))) is None


def test_asking_whether_a_model_has_a_default_layer_leaves_no_trace_on_it():
    class Counting(Square):
        calls = 0

        def forward(self, images: Tensor) -> Tensor:
            self.calls += 1
            return super().forward(images)

    net = seeded(Counting())
    assert GradCAM().unsupported(face_net(net)) is None
    assert net.calls == 0


def test_an_attention_matrix_is_refused_by_every_cam():
    model, probe, reference = face_net(seeded(ViT())), faces(1, 1), faces(1, 2)
    layer = "blocks[-1].attn.weights"
    for by in (GradCAM, LEAM):
        with pytest.raises(ExplainerContractError, match="as those of an attention matrix do"):
            by(layer).explain(model, probe, reference, generator=RNG)
    with pytest.raises(ExplainerContractError, match="as those of an attention matrix do"):
        CAM(layer).explain(model, probe, reference, generator=RNG)
    with pytest.raises(ExplainerContractError, match="as those of an attention matrix do"):
        gap_head(model, layer, faces(4, 1), ["a", "a", "b", "b"])


def test_exact_maps_divide_the_cosine_among_tokens():
    net = seeded(ViT(in_front=0))
    maps = CAM().explain(face_net(net), faces(2, 1), faces(2, 2), generator=RNG)
    assert maps.layers == (MapLayer("norm", (36, 8), "tokens", (6, 6)),)
    net = exact(net)
    for row in range(2):
        r = embedded(net, faces(2, 2)[row])

        def compute(probe: Tensor, r=r) -> np.ndarray:
            with torch.no_grad():
                tokens = net.norm(net.blocks[-1](net.before(probe[None].double())))[0]
                e = net.head(tokens.mean(dim=0))
                coarse = tokens @ net.head.weight.T @ r / (36 * e.norm() * r.norm())
            return upsampled(coarse.reshape(6, 6).numpy(), (SIDE, SIDE))

        probe = faces(2, 1)[row]
        assert_rounded(
            maps.positive[row], compute(probe), terms=terms_of(net, passes=PASSES),
            condition=condition_of(compute, probe, module=net),
        )  # fmt: skip


def test_a_class_token_is_a_path_around_the_places_for_exact_maps():
    model = face_net(seeded(ViT()))
    assert "not an affine function of the output of layer 'patch'" in CAM().unsupported(model)
    assert "goes around layer 'blocks[0]'".replace("[0]", ".0") in CAM("blocks.0").unsupported(
        model
    )


def test_other_methods_read_the_same_layers():
    net = seeded(ViT())
    model = face_net(net)
    head = gap_head(model, "blocks.1.norm1", faces(4, 1), ["a", "a", "b", "b"])
    with torch.no_grad():
        tokens = net.blocks[-1].norm1(net.before(faces(2, 2)))[:, 1:]
    assert_rounded(
        head.features(faces(2, 2)), tokens.double().mean(dim=1), terms=terms_of(net),
        scale=float(tokens.abs().max()),
    )  # fmt: skip
    engine = SDDCAM(base="gradcam", layer="blocks.1.norm1", reading="tokens 6x6")
    assert engine.unsupported(model) is None


# --- adapters


class Kept:
    def __init__(self, reshape_transform) -> None:
        self.reshape_transform = reshape_transform

    def release(self) -> None:
        self.reshape_transform = None


class LibraryGradCAM:
    """The form of a method of pytorch-grad-cam: attributes, call, and channels first."""

    def __init__(self, net, target_layers, reshape_transform=None) -> None:
        self.net, self.target_layers = net, target_layers
        self.reshape_transform = reshape_transform
        self.activations_and_grads = Kept(reshape_transform)

    def __call__(self, input_tensor: Tensor, targets) -> np.ndarray:
        kept: list[Tensor] = []
        handle = self.target_layers[0].register_forward_hook(lambda m, i, out: kept.append(out))
        out = self.net(input_tensor)
        handle.remove()
        loss = sum(target(one) for target, one in zip(targets, out, strict=True))
        (gradient,) = torch.autograd.grad(loss, kept[0])
        reshape = self.activations_and_grads.reshape_transform or (lambda tensor: tensor)
        a, g = reshape(kept[0].detach()), reshape(gradient)
        cam = (g.mean(dim=(2, 3), keepdim=True) * a).sum(dim=1, keepdim=True).relu()
        return F.interpolate(cam, (SIDE, SIDE), mode="bilinear")[:, 0].numpy()


def ours(net: nn.Module, layer: str) -> Tensor:
    return GradCAM(layer).explain(face_net(net), faces(2, 1), faces(2, 2), generator=RNG).positive


def asked(explainer, net: nn.Module):
    return explainer.explain(face_net(net), faces(2, 1), faces(2, 2), generator=RNG)


def behind_one(tensor: Tensor) -> Tensor:
    return tensor[:, 1:].reshape(len(tensor), 6, 6, -1).permute(0, 3, 1, 2)


@pytest.mark.parametrize("how", ["reading", "reshape_transform", "found"])
def test_from_grad_cam_reads_tokens_as_declared(how):
    net = seeded(ViT())
    reshape = behind_one if how == "reshape_transform" else None
    explainer = from_grad_cam(
        lambda net: LibraryGradCAM(net, [net.blocks[-1].norm1], reshape),
        reading="tokens" if how == "reading" else None,
    )
    if how == "found":
        with pytest.raises(
            ExplainerContractError,
            match=r"layer 'blocks.1.norm1' gives 37 x 8, which the library would read channels "
            r"first; it is tokens, 1 \+ 6 x 6. Pass reading='tokens' to from_grad_cam, or a resh",
        ):
            asked(explainer, net)
        return
    maps = asked(explainer, net)
    expected = ours(net, "blocks.1.norm1")
    assert_rounded(maps.positive, expected, terms=2 * terms_of(net, passes=PASSES))
    read = "tokens" if how == "reading" else "reshape_transform"
    assert maps.layers == (MapLayer("blocks.1.norm1", (37, 8), read, (6, 6)),)
    assert check_maps("it", maps, 2, (SIDE, SIDE)).layers == maps.layers


def test_adapters_drop_registers_with_the_class_token():
    net = seeded(ViT(in_front=5))
    layer = MapLayer("blocks.1.norm1", (41, 8), "tokens", (6, 6))
    library = from_grad_cam(
        lambda net: LibraryGradCAM(net, [net.blocks[-1].norm1]), reading="tokens"
    )
    captum = from_captum(lambda f: OfLayer(f, f.module.blocks[-1].norm1), reading="tokens")
    expected = GradCAM().explain(face_net(net), faces(2, 1), faces(2, 2), generator=RNG)
    assert expected.layers == (layer,)
    maps = asked(library, net)
    assert_rounded(maps.positive, expected.positive, terms=2 * terms_of(net, passes=PASSES))
    assert maps.layers == asked(captum, net).layers == (layer,)
    with pytest.raises(ExplainerContractError, match=r"it is tokens, 5 \+ 6 x 6. Pass read"):
        asked(from_grad_cam(lambda net: LibraryGradCAM(net, [net.blocks[-1].norm1])), net)


@pytest.mark.parametrize(
    ("layer", "reshape", "reading", "message"),
    [
        ("blocks.1.attn.weights", None, None, "as those of an attention matrix do"),
        ("blocks.1.norm1", behind_one, "tokens", "got reading 'tokens' and a reshape_transform"),
        ("blocks.1.norm1", lambda one: one, None,
         "makes 37 x 8 of the 37 x 8 of layer 'blocks.1.norm1': expected C x h x w"),
        ("blocks.1.norm1", lambda one: one[:, None], None, "makes 1 x 37 x 8 of the 37 x 8"),
        ("blocks.1.norm1", None, "channels_last", r"channels_last reads \(N, h, w, C\)"),
    ],
)  # fmt: skip
def test_from_grad_cam_refuses_what_is_no_map(layer, reshape, reading, message):
    explainer = from_grad_cam(
        lambda net: LibraryGradCAM(net, [net.get_submodule(layer)], reshape), reading=reading
    )
    with pytest.raises(ExplainerContractError, match=message):
        asked(explainer, seeded(ViT()))


class OfLayer:
    """The form of captum's layer attributions: attribute ``layer`` and values of its shape."""

    pooled = False

    def __init__(self, forward, layer) -> None:
        self.forward, self.layer = forward, layer

    def attribute(self, images: Tensor, additional_forward_args) -> Tensor:
        kept: list[Tensor] = []
        handle = self.layer.register_forward_hook(lambda m, i, out: kept.append(out))
        value = self.forward(images, *additional_forward_args).sum()
        handle.remove()
        (gradient,) = torch.autograd.grad(value, kept[0])
        if self.pooled:  # as LayerGradCam does: channels first, whatever the layer
            weights = gradient.mean(dim=tuple(range(2, gradient.ndim)), keepdim=True)
            return (weights * kept[0]).sum(dim=1, keepdim=True)
        return gradient * kept[0]


class Pooled(OfLayer):
    pooled = True


@pytest.mark.parametrize("reading", [None, "tokens"])
def test_from_captum_reads_the_layer_of_a_method(reading):
    net = seeded(ViT())
    explainer = from_captum(
        lambda f: OfLayer(f, f.module.blocks[-1].norm1), reduce="positive_sum", reading=reading
    )
    maps = asked(explainer, net)
    assert maps.layers == (TOKENS,)

    def signed(a: np.ndarray, g: np.ndarray) -> np.ndarray:
        return (a * g).sum(axis=0)

    net = exact(net)
    for row in range(2):

        def compute(probe: Tensor, row=row) -> np.ndarray:
            return by_hand(net, cut_vit, probe, embedded(net, faces(2, 2)[row]), signed)

        probe = faces(2, 1)[row]
        assert_rounded(
            maps.positive[row] - maps.negative[row], compute(probe),
            terms=terms_of(net, passes=PASSES), condition=condition_of(compute, probe, module=net),
        )  # fmt: skip


@pytest.mark.parametrize(
    ("make", "layer", "width"), [(ViT, "blocks.1.norm1", 37), (Windowed, "last", 6)]
)
def test_from_captum_refuses_a_method_that_pools_as_if_channels_came_first(make, layer, width):
    explainer = from_captum(lambda f: Pooled(f, f.module.get_submodule(layer)))
    with pytest.raises(
        ExplainerContractError,
        match=f"layer '{layer}' gives {width} x .*the method combines dimensions as if channels",
    ):
        asked(explainer, seeded(make()))


def test_from_captum_refuses_attributions_without_the_proportions():
    class Alone(Pooled):
        def __init__(self, forward, layer) -> None:
            self.forward = forward
            self._hidden = layer

        @property
        def layer(self):
            return self._hidden if self.inside else None

        inside = False

        def attribute(self, images: Tensor, additional_forward_args) -> Tensor:
            self.inside = True
            return super().attribute(images, additional_forward_args)

    explainer = from_captum(lambda f: Alone(f, f.module.last))
    with pytest.raises(
        ExplainerContractError,
        match="attributions are 1 x 6 x 10, which has not the proportions of an image of 24 x 24",
    ):
        asked(explainer, seeded(Windowed()))


@pytest.mark.parametrize(("make", "layer"), [(ViT, "blocks.1.norm1"), (Windowed, "last")])
def test_grad_cam_equals_pytorch_grad_cam_at_the_same_layer(monkeypatch, make, layer):
    library = pytorch_grad_cam(monkeypatch)
    net = seeded(make())
    reading = "tokens" if make is ViT else "channels_last"
    explainer = from_grad_cam(
        lambda net: library.GradCAM(net, [net.get_submodule(layer)]), reading=reading
    )
    found, expected = asked(explainer, net).positive, ours(net, layer)
    has_order = expected.flatten(1).amax(dim=1) > 0
    assert bool(has_order.any())
    assert not bool(found[~has_order].any())
    for one, map_ in zip(found[has_order], expected[has_order], strict=True):
        # The library scales every map to [0, 1].
        scaled = (map_ - map_.min()) / (map_.max() - map_.min())
        assert_rounded(one, scaled, terms=2 * terms_of(net, passes=PASSES), condition=10)


def test_the_formula_of_the_tests_is_not_that_of_channels_first():
    """The comparison by hand would not pass if the dimensions were read in another order."""
    net = exact(seeded(Windowed(6)))
    rows, after = cut_windowed(net, faces(1, 1)[0].double())
    rows = rows.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(cosine(after(rows)[0], embedded(net, faces(1, 2)[0])), rows)
    right = grad_cam(places_of(rows), places_of(gradient))
    wrong = grad_cam(rows[0].detach().numpy(), gradient[0].numpy())
    assert abs(np.corrcoef(right.flatten(), wrong.flatten())[0, 1]) < 0.9
