"""Class activation maps: parts that add up to the cosine, and models that have none."""

from copy import deepcopy
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fxeval.contracts import Crop, Explainer
from fxeval.datasets.faces.alignment import ARCFACE_112
from fxeval.datasets.lists.face_pack import FacePack
from fxeval.errors import ExplainerContractError, ModelContractError
from fxeval.explainers.cam_exact import CAM
from fxeval.fixtures.synthetic.evaluate import DATA
from fxeval.hooks.tails import Tail, tail_of
from fxeval.models.from_card import load_card
from fxeval.tests.cam_subjects import exact_model
from fxeval.tests.rounding import assert_rounded, condition_of, terms_of
from fxeval.tests.subjects import CountingModel

CHANNELS, SIDE, DIM = 4, 6, 5
CROP = Crop("tiny", (SIDE, SIDE), ())
RNG = np.random.default_rng(0)
WIDE = CHANNELS * SIDE * SIDE


class Lambda(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


HEADS = {
    "flatten": lambda: [
        nn.BatchNorm2d(CHANNELS), nn.Dropout(0.5), nn.Flatten(), nn.Linear(WIDE, DIM),
        nn.BatchNorm1d(DIM),
    ],
    "gap": lambda: [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(CHANNELS, DIM)],
    "mean": lambda: [Lambda(lambda x: x.mean(dim=(2, 3))), nn.Linear(CHANNELS, DIM)],
    "depthwise": lambda: [
        nn.Conv2d(CHANNELS, CHANNELS, SIDE, groups=CHANNELS), nn.BatchNorm2d(CHANNELS),
        nn.Flatten(), nn.Linear(CHANNELS, DIM, bias=False),
    ],
    "neck": lambda: [
        nn.Conv2d(CHANNELS, 3, 1), nn.BatchNorm2d(3), nn.AvgPool2d(2), nn.Flatten(),
        nn.Linear(3 * (SIDE // 2) ** 2, DIM),
    ],
}  # fmt: skip


class Net(nn.Module):
    """conv - BN - PReLU - conv - PReLU, (4, 6, 6) of (3, 6, 6) images, then a head; seeded."""

    def __init__(self, *head: nn.Module, seed: int = 0) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.PReLU(6),
            nn.Conv2d(6, CHANNELS, 3, padding=1), nn.PReLU(CHANNELS),
        )  # fmt: skip
        self.head = nn.Sequential(*head)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for tensor in [*self.parameters(), *self.buffers()]:
                if tensor.dtype.is_floating_point:
                    tensor.copy_(0.4 * torch.randn(tensor.shape, generator=generator))
            for name, buffer in self.named_buffers():
                if name.endswith("running_var"):
                    buffer.abs_().add_(0.5)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(images))


def face_net(head: str = "flatten", seed: int = 0, **fields) -> CountingModel:
    return with_head(*HEADS[head](), seed=seed, **fields)


def with_head(*head: nn.Module, seed: int = 0, **fields) -> CountingModel:
    return small(Net(*head, seed=seed), **fields)


def small(module: nn.Module, **fields) -> CountingModel:
    return CountingModel(module.eval(), crop=CROP, **fields)


def images(n: int, seed: int, side: int = SIDE) -> Tensor:
    return torch.rand((n, 3, side, side), generator=torch.Generator().manual_seed(seed))


def explain(model, probes, references, *, layer=None, contrast=None):
    return CAM(layer).explain(model, probes, references, contrast=contrast, generator=RNG)


def body_of(model: CountingModel, probe: Tensor) -> np.ndarray:
    with torch.no_grad():
        return deepcopy(model.module.body).double()(probe[None].double())[0].numpy()


def flatten_cam(model: CountingModel, probe: Tensor, weights: np.ndarray):
    """The map by algebra: r back through BN1d, linear and flatten, times BN2d's output."""
    bn2, _, _, fc, bn1 = (
        {name: value.double().numpy() for name, value in part.state_dict().items()}
        for part in model.module.head
    )
    eps = 1e-5
    feature = body_of(model, probe)
    coarse = np.zeros((SIDE, SIDE))
    constant = 0.0
    slope1 = bn1["weight"] / np.sqrt(bn1["running_var"] + eps)
    slope2 = bn2["weight"] / np.sqrt(bn2["running_var"] + eps)
    for d in range(DIM):
        shift = bn1["bias"][d] + slope1[d] * (fc["bias"][d] - bn1["running_mean"][d])
        constant += weights[d] * shift
        for k in range(CHANNELS):
            for i in range(SIDE):
                for j in range(SIDE):
                    normal = bn2["bias"][k] + slope2[k] * (
                        feature[k, i, j] - bn2["running_mean"][k]
                    )
                    entry = fc["weight"][d, (k * SIDE + i) * SIDE + j]
                    coarse[i, j] += weights[d] * slope1[d] * entry * normal
    return coarse, constant


def embedded(model: CountingModel, image: Tensor) -> np.ndarray:
    return model.embed(image[None])[0].double().numpy()


def unit(model: CountingModel, image: Tensor) -> np.ndarray:
    e = embedded(model, image)
    return e / np.linalg.norm(e)


def assert_equals(found, compute, model: CountingModel, *given: Tensor) -> None:
    """Compare results of a network in float32 with ``compute(model, *given)`` in float64."""
    exact = exact_model(model)
    compute = partial(compute, exact)
    assert_rounded(
        found,
        compute(*given),
        terms=terms_of(model.module, passes=2),
        condition=condition_of(compute, *given, module=exact.module),
    )


def sensitivity(model: CountingModel, *pairs: Tensor) -> float:
    """The condition number of the maps of pairs, computed with the explainer itself."""
    return condition_of(lambda *pairs: explain(model, *pairs).positive, *pairs, module=model.module)


# A model in float64 still rounds the references' embeddings to float32, and each map.
ENDS = 2


def test_a_flattened_head_is_taken_apart_as_by_algebra():
    model, probes, references = face_net(), images(3, 1), images(3, 2)
    maps = explain(model, probes, references)

    def by_algebra(model, probe: Tensor, reference: Tensor):
        e, r = embedded(model, probe), unit(model, reference)
        coarse, constant = (part / np.linalg.norm(e) for part in flatten_cam(model, probe, r))
        assert coarse.sum() + constant == pytest.approx(unit(model, probe) @ r, rel=1e-9)
        return coarse, abs(constant) / (abs(constant) + np.abs(coarse).sum())

    for row in range(3):
        pair = probes[row], references[row]
        for place, found in enumerate((maps.positive, maps.diagnostics["unplaced_share"])):
            assert_equals(found[row], lambda *of, i=place: by_algebra(*of)[i], model, *pair)
    assert float(maps.positive.min()) < 0 < float(maps.positive.max())


@pytest.mark.parametrize("head", ["gap", "mean"])
def test_with_global_average_pooling_it_is_the_map_of_the_pooled_features(head):
    model, probe, reference = face_net(head), images(1, 1), images(1, 2)

    def pooled(model, probe: Tensor, reference: Tensor) -> np.ndarray:
        fc = model.module.head[-1]
        weights = fc.weight.detach().numpy().T @ unit(model, reference)  # of each channel
        feature, length = body_of(model, probe), np.linalg.norm(embedded(model, probe))
        expected = np.zeros((SIDE, SIDE))
        for k in range(CHANNELS):
            expected += weights[k] * feature[k] / (SIDE * SIDE) / length
        return expected

    assert_equals(
        explain(model, probe, reference).positive[0], pooled, model, probe[0], reference[0]
    )


def from_layer(model: CountingModel, layer: str, image: Tensor, instead: Tensor) -> Tensor:
    handle = model.module.get_submodule(layer).register_forward_hook(lambda *_: instead[None])
    try:
        return model.embed(image[None])[0].double()
    finally:
        handle.remove()


def effects(layer: str | None, model: CountingModel, probe: Tensor, reference: Tensor) -> Tensor:
    """The contribution of activations to the cosine, one place of the layer at a time."""
    tail = tail_of(model, layer, (SIDE, SIDE), "cam")
    assert isinstance(tail, Tail)
    taken = []
    handle = model.module.get_submodule(tail.layer).register_forward_hook(
        lambda _module, _inputs, output: taken.append(output[0].clone())
    )
    e = model.embed(probe[None])[0].double()
    handle.remove()
    nothing = torch.zeros_like(taken[0])
    r = torch.from_numpy(unit(model, reference))
    empty = from_layer(model, tail.layer, probe, nothing)
    expected = torch.zeros(nothing.shape[1:], dtype=torch.float64)
    for i in range(nothing.shape[1]):
        for j in range(nothing.shape[2]):
            alone = nothing.clone()
            alone[:, i, j] = taken[0][:, i, j]
            expected[i, j] = r @ (from_layer(model, tail.layer, probe, alone) - empty) / e.norm()
    assert float(expected.sum() + r @ empty / e.norm()) == pytest.approx(
        float(r @ e / e.norm()), rel=1e-9
    )
    return F.interpolate(expected[None, None], (SIDE, SIDE), mode="bilinear")[0]


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("layer", [None, "body.4"])
def test_each_place_has_the_effect_of_its_activations_alone(head, layer):
    model, probe, reference = face_net(head, seed=3), images(1, 4)[0], images(1, 5)[0]
    ours = explain(model, probe[None], reference[None], layer=layer).positive
    assert_equals(ours, partial(effects, layer), model, probe, reference)


@pytest.fixture(scope="module")
def mini_resnet():
    return load_card(DATA / "cards" / "mini_resnet.yaml")


@pytest.fixture(scope="module")
def faces():
    pack = FacePack(DATA / "rendered_faces")
    listing = pack.listing()
    ids = [*listing.probe[:4], *listing.reference[:4]]
    return pack.images(ids, ARCFACE_112).float() / 255


@pytest.mark.parametrize("layer", [None, "head.0", "stage4"])
def test_the_parts_of_the_shipped_network_add_up_to_its_cosine(mini_resnet, faces, layer):
    probes, references = faces[:4], faces[4:]
    model = exact_model(mini_resnet.model)
    maps = explain(model, probes, references, layer=layer).positive.double()
    e, r = model.embed(probes), model.embed(references)
    name = layer or "head.1"
    layer_of = model.module.get_submodule(name)
    handle = layer_of.register_forward_hook(lambda _m, _i, output: torch.zeros_like(output))
    empty = model.embed(probes)
    handle.remove()
    constant = (empty * F.normalize(r)).sum(dim=1) / e.norm(dim=1)
    # 7 x 7 maps brought to 112 x 112: each part becomes 16 x 16 pixels, borders included.
    placed = maps.sum(dim=(1, 2)) / 16**2
    size = float((maps.abs().sum(dim=(1, 2)) / 16**2 + constant.abs()).max())
    assert_rounded(placed + constant, F.cosine_similarity(e, r), terms=ENDS, scale=size)
    assert maps.shape == (4, 112, 112)


def test_a_batch_norm_before_or_after_a_projection_without_bias_gives_one_map(mini_resnet, faces):
    model = exact_model(mini_resnet.model)
    before, after = (
        explain(model, faces[:2], faces[4:6], layer=layer).positive
        for layer in ("head.0", "head.1")
    )
    assert_rounded(before, after, terms=2 * ENDS)


def test_a_contrast_is_another_class_and_is_subtracted():
    model = exact_model(face_net())
    probes, references, contrast = images(2, 1), images(2, 2), images(2, 3)
    both = explain(model, probes, references, contrast=contrast).positive
    one = explain(model, probes, references).positive
    other = explain(model, probes, contrast).positive
    size = float(torch.maximum(one.abs(), other.abs()).max())
    assert_rounded(both, one.double() - other.double(), terms=3, scale=size)  # each is rounded
    assert (both - one).abs().max() > 0.01


def test_several_references_stand_for_the_mean_of_their_unit_embeddings():
    model, probes = face_net(), images(2, 1)
    references = torch.stack([images(2, 2), 3 * images(2, 3)], dim=1)
    maps = explain(model, probes, references).positive

    def by_algebra(model, probe: Tensor, references: Tensor) -> np.ndarray:
        r = np.mean([unit(model, one) for one in references], axis=0)
        coarse, _ = flatten_cam(model, probe, r / np.linalg.norm(r))
        return coarse / np.linalg.norm(embedded(model, probe))

    for row in range(2):
        assert_equals(maps[row], by_algebra, model, probes[row], references[row])


def test_a_euclidean_model_has_the_classes_of_a_nearest_centroid_classifier():
    model, probes, references = face_net(similarity="neg_l2"), images(2, 1), images(2, 2)
    maps = explain(model, probes, references)

    def by_algebra(model, probe: Tensor, reference: Tensor):
        e, r = embedded(model, probe), embedded(model, reference)
        coarse, constant = flatten_cam(model, probe, 2 * r)
        constant -= r @ r
        assert coarse.sum() + constant == pytest.approx(e @ e - ((e - r) ** 2).sum(), rel=1e-9)
        return coarse, abs(constant) / (abs(constant) + np.abs(coarse).sum())

    for row in range(2):
        pair = probes[row], references[row]
        for place, found in enumerate((maps.positive, maps.diagnostics["unplaced_share"])):
            assert_equals(found[row], lambda *of, i=place: by_algebra(*of)[i], model, *pair)


@given(st.floats(0.01, 100))
@settings(max_examples=15, deadline=None)
def test_the_length_of_embeddings_changes_no_map(scale):
    model, longer = exact_model(face_net("gap")), exact_model(face_net("gap"))
    with torch.no_grad():
        longer.module.head[-1].weight.mul_(scale)
        longer.module.head[-1].bias.mul_(scale)
    pairs = images(2, 1), images(2, 2)
    one, other = (explain(each, *pairs).positive for each in (model, longer))
    assert_rounded(one, other, terms=2 * ENDS, condition=sensitivity(model, *pairs))


def test_a_reference_that_is_the_probe_has_a_map_that_adds_up_to_one():
    model, probes = exact_model(face_net("depthwise")), images(2, 1)
    maps = explain(model, probes, probes)
    assert maps.states == ("ok", "ok")
    tail = tail_of(model, None, (SIDE, SIDE), "cam")
    e = model.embed(probes)
    constant = e @ tail.offset / e.square().sum(dim=1)
    places = maps.positive.double()
    size = float((places.abs().sum(dim=(1, 2)) + constant.abs()).max())
    assert_rounded(places.sum(dim=(1, 2)) + constant, [1.0, 1.0], terms=ENDS, scale=size)


def test_a_normalising_module_is_followed_to_what_it_normalises_if_cosines_are_compared():
    class Normalised(Net):
        def forward(self, batch: Tensor) -> Tensor:
            return F.normalize(super().forward(batch))

    module = Normalised(*HEADS["flatten"]())
    model, pairs = exact_model(face_net()), (images(2, 1), images(2, 2))
    expected = explain(model, *pairs).positive
    ours = explain(exact_model(small(module)), *pairs).positive
    assert_rounded(ours, expected, terms=2 * ENDS, condition=sensitivity(model, *pairs))
    assert "not an affine" in CAM().unsupported(small(module, similarity="neg_l2"))


def last(*parts: nn.Module) -> list[nn.Module]:
    return [nn.Conv2d(CHANNELS, 3, 1), *parts, nn.Flatten(), nn.Linear(3 * SIDE**2, DIM)]


BENT = {
    "a relu with no name": lambda: [
        Lambda(lambda x: x.relu().flatten(1)), nn.Linear(WIDE, DIM),
    ],
    "an activation after the pooling": lambda: [*HEADS["gap"](), nn.Tanh(), nn.Linear(DIM, DIM)],
    "a clamp": lambda: [*last(), Lambda(lambda e: e.clamp(-1, 1))],
    "a layer norm": lambda: [*last(), nn.LayerNorm(DIM)],
    "a maximum": lambda: [Lambda(lambda x: x.amax(dim=(2, 3))), nn.Linear(CHANNELS, DIM)],
    "a product": lambda: [Lambda(lambda x: (x * x).flatten(1)), nn.Linear(WIDE, DIM)],
    "a detached half": lambda: [
        Lambda(lambda x: torch.cat([x[:, :2].detach(), x[:, 2:]], dim=1).flatten(1)),
        nn.Linear(WIDE, DIM),
    ],
    "a detached map": lambda: [Lambda(lambda x: x.detach().flatten(1)), nn.Linear(WIDE, DIM)],
}  # fmt: skip


@pytest.mark.parametrize("what", BENT)
def test_a_tail_that_is_not_affine_is_declared_and_refused(what):
    model = with_head(*BENT[what]())
    reason = CAM().unsupported(model)
    assert "'counting' is not an affine function of the output of layer" in reason
    with pytest.raises(ExplainerContractError, match=r"cam: the embedding.*not an affine"):
        explain(model, images(1, 1), images(1, 2))


def test_an_operation_in_place_after_the_layer_does_not_reach_its_activations():
    in_place, apart = (
        with_head(Lambda(change), nn.Linear(WIDE, DIM))
        for change in (lambda x: x.mul_(2).add_(1).flatten(1), lambda x: (2 * x + 1).flatten(1))
    )
    one, other = (
        explain(model, images(2, 1), images(2, 2), layer="body.4").positive
        for model in (in_place, apart)
    )
    assert torch.equal(one, other)


@pytest.mark.parametrize("head", HEADS)
def test_affine_tails_are_supported_at_any_scale_of_the_activations(head):
    for scale in (1e-3, 1.0, 1e3):
        model = face_net(head)
        with torch.no_grad():
            model.module.body[3].weight.mul_(scale)
        assert CAM().unsupported(model) is None
    assert CAM("body.1").unsupported(model).endswith("Use gradcam.")


def test_layers_of_a_branch_are_passed_over_and_refused_by_name():
    class Branched(Net):
        def __init__(self) -> None:
            super().__init__(*HEADS["gap"]())
            self.aside = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)
            self.joined = nn.Identity()
            self.late = nn.Conv2d(CHANNELS, CHANNELS, 1)

        def forward(self, batch: Tensor) -> Tensor:
            x = self.body(batch)
            x = self.joined(x + self.aside(x))
            self.late(x)
            return self.head(x)

    model = small(Branched())
    assert CAM().unsupported(model) is None
    assert tail_of(model, None, (SIDE, SIDE), "cam").layer == "joined"
    assert "goes around layer 'aside'" in CAM("aside").unsupported(model)
    assert "goes around layer 'late'" in CAM("late").unsupported(model)
    with pytest.raises(ExplainerContractError, match="goes around layer 'aside'"):
        explain(model, images(1, 1), images(1, 2), layer="aside")
    # The body's output reaches the embedding along two ways, both after it: nothing goes around.
    assert CAM("body").unsupported(model) is None


def test_the_default_is_the_deepest_layer_of_3_by_3_pixels_with_an_affine_tail():
    names = {head: tail_of(face_net(head), None, (SIDE, SIDE), "cam").layer for head in HEADS}
    assert names == {
        "flatten": "head.1", "gap": "body", "mean": "body", "depthwise": "body", "neck": "head.2",
    }  # fmt: skip
    tiny = small(nn.Sequential(nn.Conv2d(3, 4, 5), nn.Flatten(), nn.Linear(16, 3)))
    assert "no layer of at least 3 x 3 pixels" in CAM().unsupported(tiny)
    assert CAM("0").unsupported(tiny) is None
    assert explain(tiny, images(1, 1), images(1, 2), layer="0").positive.shape == (1, SIDE, SIDE)


def test_layers_that_cannot_be_used_are_the_callers_mistake_not_the_models():
    model = face_net("gap")
    for layer, message in [
        ("nothing", "no layer 'nothing'"), ("head.2", "this Linear does not"),
        ("head.0", "gives 1 x 1 pixels, fewer than 2 x 2"), ("conv[2]", "out of range"),
    ]:  # fmt: skip
        assert CAM(layer).unsupported(model) is None
        with pytest.raises(ExplainerContractError, match=message):
            explain(model, images(1, 1), images(1, 2), layer=layer)
    twice = with_head(*HEADS["gap"]())
    twice.module.head = nn.Sequential(twice.module.body[4], *twice.module.head)
    with pytest.raises(ExplainerContractError, match=r"'body\[4\]' runs 2 times"):
        explain(twice, images(1, 1), images(1, 2), layer="body[4]")
    for layer in ("", 3):
        with pytest.raises(ExplainerContractError, match="cam: layer must be the name"):
            CAM(layer)


def test_a_black_box_is_declared_and_refused_and_broken_embeddings_are_the_models_fault():
    box = CountingModel(None, name="box")
    assert "'box' is a black box" in CAM().unsupported(box)
    with pytest.raises(ExplainerContractError, match=r"cam: needs gradients.*black box"):
        explain(box, images(1, 1), images(1, 2))
    broken = face_net()
    with torch.no_grad():
        broken.module.head[3].bias.fill_(torch.nan)
    with pytest.raises(ModelContractError, match="NaN"):
        explain(broken, images(1, 1), images(1, 2))


def test_a_collapsed_network_has_an_empty_map():
    model = face_net("gap")
    with torch.no_grad():
        model.module.head[-1].weight.zero_()
    maps = explain(model, images(2, 1), images(2, 2))
    assert not maps.positive.any()
    assert maps.diagnostics["unplaced_share"].tolist() == [1, 1]


def test_rows_do_not_depend_on_their_batch(monkeypatch):
    model, probes, references = exact_model(face_net()), images(7, 1), images(7, 2)
    together = explain(model, probes, references).positive
    alone = [explain(model, probes[i : i + 1], references[i : i + 1]).positive for i in range(7)]
    assert_rounded(together, torch.cat(alone), terms=2 * ENDS)
    monkeypatch.setattr("fxeval.explainers.cam_exact.ROWS", 3)
    chunked = explain(model, probes, references).positive
    assert_rounded(together, chunked, terms=2 * ENDS)
    assert explain(model, probes[:0], references[:0]).positive.shape == (0, SIDE, SIDE)


def test_the_model_and_the_generators_come_back_as_they_were():
    model = exact_model(face_net())
    module = model.module.train()
    module.head[0].eval()
    module.body[0].requires_grad_(False)
    state = {name: value.clone() for name, value in module.state_dict().items()}
    modes = [part.training for part in module.modules()]
    seeds = torch.get_rng_state(), RNG.bit_generator.state
    with torch.inference_mode():
        in_training = explain(model, images(2, 1), images(2, 2)).positive
    model.module.train()
    module.head[0].eval()
    assert [part.training for part in module.modules()] == modes
    for name, value in module.state_dict().items():
        assert value.numpy().tobytes() == state[name].numpy().tobytes(), name
    assert all(parameter.grad is None for parameter in module.parameters())
    assert not any(part._forward_hooks for part in module.modules())
    assert torch.equal(torch.get_rng_state(), seeds[0])
    assert RNG.bit_generator.state == seeds[1]
    expected = explain(exact_model(face_net()), images(2, 1), images(2, 2)).positive
    assert_rounded(in_training, expected, terms=2 * ENDS)


def test_it_is_an_explainer_with_declared_needs():
    assert isinstance(CAM(), Explainer)
    assert CAM.traits.needs == {"gradients", "layers"}
    assert CAM("a") != CAM()
