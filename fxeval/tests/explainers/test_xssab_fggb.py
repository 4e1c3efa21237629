"""xSSAB and FGGB against plain loops in float64, and by hand on a linear model."""

import math
from copy import deepcopy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fxeval.contracts import RowState
from fxeval.errors import ExplainerContractError
from fxeval.explainers.image_gradients import CHUNK
from fxeval.explainers.xssab_fggb import FGGB, XSSAB
from fxeval.tests.rounding import FLOAT64, allowance, assert_rounded, condition_of, terms_of
from fxeval.tests.subjects import ConvNet, CountingModel

SIZE = (16, 16)
ALL = [XSSAB(), XSSAB(form="arguments"), FGGB(), FGGB(post_blur=True)]
each = pytest.mark.parametrize(
    "explainer", ALL, ids=["xssab", "xssab-arguments", "fggb", "fggb-blur"]
)


def images(n: int, seed: int, size: tuple[int, int] = SIZE) -> Tensor:
    return torch.rand((n, 3, *size), generator=torch.Generator().manual_seed(seed))


def explain(explainer, model, probes, references, contrast=None):
    return explainer.explain(
        model, probes, references, contrast=contrast, generator=np.random.default_rng(0)
    )


def signed(maps) -> np.ndarray:
    return (maps.positive.double() - maps.negative.double()).numpy()


def jacobian(net: nn.Module, probe: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The unit embedding, and its gradient dimension by dimension: D plain backward passes."""
    x = probe.double().clone().requires_grad_()
    e = net(x[None])[0]
    unit = e / e.norm()
    rows = [torch.autograd.grad(one, x, retain_graph=True)[0].numpy() for one in unit]
    return unit.detach().numpy(), np.stack(rows)


def slow(net: nn.Module, probe: Tensor, reference: Tensor, tau: float) -> dict[str, np.ndarray]:
    """Both methods on one pair, term by term."""
    net = deepcopy(net).double().eval()
    unit, gradients = jacobian(net, probe)
    other = nn.functional.normalize(net(reference[None].double()), dim=1)[0].detach().numpy()
    D = len(unit)
    pro = sum(
        (other[k] * gradients[k] for k in range(D) if unit[k] * other[k] >= tau / D),
        np.zeros(probe.shape),
    )
    contra = sum(
        (other[k] * gradients[k] for k in range(D) if unit[k] * other[k] < tau / D),
        np.zeros(probe.shape),
    )
    fggb = np.zeros(probe.shape[1:])
    for k in range(D):
        one = np.abs(gradients[k]).mean(axis=0)
        fggb += one / (math.sqrt((one**2).sum()) + 1e-8) * (unit[k] * other[k] - tau / D)
    return {
        "pro": np.abs(pro).mean(axis=0),
        "contra": np.abs(contra).mean(axis=0),
        "fggb": fggb,
        "combined": np.abs(pro).mean(axis=0) - np.abs(contra).mean(axis=0),
        "share": np.mean([unit[k] * other[k] >= tau / D for k in range(D)]),
    }


def rounding(
    net: nn.Module, probe: Tensor, reference: Tensor, tau: float, *maps: str
) -> dict[str, float]:
    """Worst-case terms of the rounding of maps of a pair; both arguments have one scale."""
    net = deepcopy(net).double().eval()
    largest = {one: np.abs(map_).max() for one, map_ in slow(net, probe, reference, tau).items()}
    largest["pro"] = largest["contra"] = max(largest["pro"], largest["contra"])

    def compute(probe: Tensor, reference: Tensor) -> np.ndarray:
        found = slow(net, probe, reference, tau)
        return np.stack([found[one] / largest[one] for one in maps])

    condition = condition_of(compute, probe, reference, module=net)
    return {"terms": terms_of(net, passes=2), "condition": condition}


def twice(terms: float, condition: float) -> dict[str, float]:
    """Terms of the rounding of two maps that are compared."""
    return {"terms": 2 * terms, "condition": condition}


def both(maps) -> Tensor:
    return torch.stack([maps.positive, maps.negative])


def made_of(explainer) -> tuple[str, ...]:
    """The maps above that an explainer's are made of; blurring lets no rounding grow."""
    if isinstance(explainer, FGGB):
        return ("fggb",)
    return ("combined",) if explainer.form == "combined" else ("pro", "contra")


@pytest.mark.parametrize("tau", [None, 0.0, -0.7, 0.95])
# Fewer and more dimensions than a chunk has images; with 3, both arguments nearly cancel.
@pytest.mark.parametrize("dim", [5, 8, 70])
def test_maps_equal_plain_loops_in_float64(tau, dim):
    net = ConvNet(seed=1, dim=dim).eval()
    model = CountingModel(net, operating_threshold=0.3)
    probes, references = images(3, 1), images(3, 2)
    combined = explain(XSSAB(operating_threshold=tau), model, probes, references)
    arguments = explain(XSSAB(tau, form="arguments"), model, probes, references)
    fggb = explain(FGGB(tau), model, probes, references)
    for row in range(3):
        given_ = net, probes[row], references[row], 0.3 if tau is None else tau
        expected = slow(*given_)
        bound = rounding(*given_, "pro", "contra")
        pro_and_contra = np.stack([expected["pro"], expected["contra"]])
        assert_rounded(both(arguments)[:, row], pro_and_contra, **bound)
        largest = pro_and_contra.max()  # the combined map is what is left of their difference
        assert_rounded(signed(combined)[row], expected["combined"], **bound, scale=largest)
        assert_rounded(signed(fggb)[row], expected["fggb"], **rounding(*given_, "fggb"))
        for maps in (combined, arguments, fggb):  # a share is one division of whole numbers
            share = maps.diagnostics["supporting_share"][row]
            assert_rounded(share, expected["share"], terms=1)


class Own(nn.Module):
    """Every dimension of the embedding is the brightness of a pixel of its own."""

    def forward(self, images: Tensor) -> Tensor:
        return images.sum(dim=1).flatten(1)


def test_golden_maps_where_each_dimension_is_a_pixel():
    """e1 = 3 (1, 2, 2) / 3, e2 = 3 (2, 1, -2) / 3: u = (1, 2, 2) / 3, v = (2, 1, -2) / 3.

    w = (2, 2, -4) / 9, c = 0. With tau = 0 the first two dimensions support. du_k/de = (d_kj - u_k
    u_j) / 3 for each of the three channels.
    """
    probe = torch.tensor([[[1.0, 2.0, 2.0]]]) / 3 * torch.ones(3, 1, 1)
    reference = torch.tensor([[[2.0, 1.0, -2.0]]]) / 3 * torch.ones(3, 1, 1)
    model = CountingModel(Own(), operating_threshold=0.0)
    bound = rounding(Own(), probe, reference, 0.0, "pro", "contra", "combined", "fggb")
    bound["terms"] = 2 * (3 + 3)  # forth and back over three channels and three dimensions
    arguments = explain(XSSAB(form="arguments"), model, probe[None], reference[None])
    # w+ = v with its last entry 0; w+ . u = 4/9; G+ = (v+ - 4/9 u) / 3 = (14, 1, -8) / 81.
    assert_rounded(arguments.positive[0, 0], np.array([14, 1, 8]) / 81, **bound)
    # w- = (0, 0, -2/3); w- . u = -4/9; G- = (4, 8, -10) / 81.
    assert_rounded(arguments.negative[0, 0], np.array([4, 8, 10]) / 81, **bound)
    combined = explain(XSSAB(), model, probe[None], reference[None])
    assert_rounded(signed(combined)[0, 0], np.array([10, -7, -2]) / 81, **bound)
    assert_rounded(combined.diagnostics["supporting_share"], [2 / 3], terms=1)
    # |du_1| = (8, 2, 2) / 27 and so on; scaled to length 1; weights 2/9, 2/9, -4/9.
    rows = np.array([[8, 2, 2], [2, 5, 4], [2, 4, 5]])
    rows = rows / np.sqrt((rows**2).sum(axis=1))[:, None]
    expected = np.array([2, 2, -4]) / 9 @ rows
    fggb = explain(FGGB(), model, probe[None], reference[None])
    assert_rounded(signed(fggb)[0, 0], expected, **bound)


def test_the_threshold_is_shared_among_the_dimensions():
    """tau itself instead of tau / D would leave nothing positive."""
    model = CountingModel(ConvNet(seed=1, dim=32), operating_threshold=0.4)
    probes = images(4, 1)
    references = (probes + 0.02 * images(4, 2)).clamp(0, 1)
    maps = explain(FGGB(), model, probes, references)
    assert float(maps.positive.amax(dim=(1, 2)).min()) > 0
    trap = explain(FGGB(1.0), CountingModel(ConvNet(seed=1, dim=1)), probes, references)
    # 1 - 1 but for a cosine's rounding in float64, times a map of at most 1.
    assert float(trap.positive.max()) <= allowance(terms=3, unit=FLOAT64)


def test_a_higher_threshold_leaves_less_for_and_more_against():
    model, probes, references = CountingModel(ConvNet(seed=1)), images(2, 1), images(2, 2)
    low, high = (signed(explain(FGGB(tau), model, probes, references)) for tau in (-0.5, 0.5))
    assert (low > high).all()


@each
@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_the_length_of_embeddings_changes_nothing(explainer, scale):
    class Scaled(ConvNet):
        def forward(self, images):
            return scale * super().forward(images)

    probes, references = images(2, 1), images(2, 2)
    one = explain(explainer, CountingModel(ConvNet(seed=1)), probes, references)
    two = explain(explainer, CountingModel(Scaled(seed=1)), probes, references)
    for row in range(2):
        given_ = ConvNet(seed=1), probes[row], references[row], 0.5
        bound = twice(**rounding(*given_, *made_of(explainer)))
        assert_rounded(both(two)[:, row], both(one)[:, row], **bound)


@each
def test_the_opposite_reference_exchanges_what_is_for_and_against(explainer):
    """With tau = 0 every term changes its sign; no dimension is exactly 0."""

    class Opposite(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = ConvNet(seed=1)

        def forward(self, images: Tensor) -> Tensor:
            is_marked = (images[:, 0, 0, 0] == 0)[:, None]
            return self.net(images) * torch.where(is_marked, -1.0, 1.0)

    probes, references = images(2, 1), images(2, 2)
    explainer = type(explainer)(**{**vars(explainer), "operating_threshold": 0.0})
    negated = references.clone()
    references[:, :, 0, 0] = 1e-30
    negated[:, :, 0, 0] = 0.0
    model = CountingModel(Opposite())
    one = explain(explainer, model, probes, references)
    two = explain(explainer, model, probes, negated)
    for row in range(2):
        given_ = model.module, probes[row], references[row], 0.0
        bound = twice(**rounding(*given_, *made_of(explainer)))
        assert_rounded(both(two).flip(0)[:, row], both(one)[:, row], **bound)
    assert float(one.positive.max()) > 0


def test_of_twins_only_the_combined_form_of_xssab_has_nothing_to_say():
    probes, references = images(2, 1), images(2, 2)
    references[0] = probes[0]
    model = CountingModel(ConvNet(seed=1))
    combined = explain(XSSAB(), model, probes, references)
    assert combined.states == (RowState.NO_GRADIENT, RowState.OK)
    assert float(combined.positive[0].max()) == float(combined.negative[0].max()) == 0
    arguments = explain(XSSAB(form="arguments"), model, probes, references)
    twin = ConvNet(seed=1), probes[0], references[0], 0.5
    assert_rounded(
        arguments.positive[0], arguments.negative[0], **twice(**rounding(*twin, "pro", "contra"))
    )
    fggb = explain(FGGB(), model, probes, references)
    for maps in (arguments, fggb):
        assert set(maps.states) == {RowState.OK}
        assert float(maps.positive[0].max()) > 0
    assert_rounded(signed(fggb)[0], slow(*twin)["fggb"], **rounding(*twin, "fggb"))


def calls_of(net: nn.Module) -> list[int]:
    """The number of images in each call of the network, from now on."""
    calls: list[int] = []
    net.register_forward_pre_hook(lambda _net, inputs: calls.append(len(inputs[0])))
    return calls


@pytest.mark.parametrize(
    ("n", "copied"), [(1, [32]), (5, [30]), (16, [32]), (20, [20]), (37, [32, 30])]
)
def test_fggb_carries_a_chunk_back_at_once_and_forwards_once(n, copied):
    calls = calls_of(net := ConvNet(dim=40))
    explain(FGGB(), CountingModel(net), images(n, 1), images(n, 2))
    assert CHUNK == 32
    assert calls == [n, *copied]


def test_xssab_forwards_each_probe_once():
    calls = calls_of(net := ConvNet())
    explain(XSSAB(), CountingModel(net), images(37, 1), images(37, 2))
    assert calls == [37, 32, 5]


class NoBatchingRule(torch.autograd.Function):
    """A backward that leaves torch for numpy: vmap cannot trace it."""

    @staticmethod
    def forward(context, x):
        return x * 2

    @staticmethod
    def backward(context, gradient):
        return torch.from_numpy(gradient.numpy() * 2)


def test_fggb_explains_modules_that_vmap_cannot_trace():
    class Untraceable(ConvNet):
        def forward(self, images):
            return super().forward(NoBatchingRule.apply(images) / 2)

    probes, references = images(2, 1), images(2, 2)
    net = Untraceable(seed=1).eval()
    x = probes.clone().requires_grad_()
    with pytest.raises(RuntimeError):
        torch.autograd.grad(net(x), x, torch.eye(8)[:, None].repeat(1, 2, 1), is_grads_batched=True)
    maps = explain(FGGB(), CountingModel(net), probes, references)
    plain = explain(FGGB(), CountingModel(ConvNet(seed=1)), probes, references)
    for row in range(2):
        bound = rounding(ConvNet(seed=1), probes[row], references[row], 0.5, "fggb")
        assert_rounded(maps.positive[row], plain.positive[row], **twice(**bound))


def test_the_blur_is_a_gaussian_of_25_pixels_at_a_height_of_112():
    size = (112, 96)
    net = nn.Sequential(nn.AvgPool2d(16), nn.Flatten(), nn.Linear(3 * 42, 2)).requires_grad_(False)
    net[2].weight.copy_(torch.randn(2, 126, generator=torch.Generator().manual_seed(0)))
    model, probes, references = CountingModel(net), images(1, 1, size), images(1, 2, size)
    sharp = signed(explain(FGGB(), model, probes, references))[0]
    soft = signed(explain(FGGB(post_blur=True), model, probes, references))[0]
    profile = np.exp(-(np.arange(-12, 13) ** 2) / 50)
    kernel = np.outer(profile, profile) / profile.sum() ** 2
    framed = np.pad(sharp, 12, mode="reflect")
    places = ((0, 0), (50, 33), (111, 95), (3, 90))
    expected = [(framed[i : i + 25, j : j + 25] * kernel).sum() for i, j in places]
    # Computed alike and blurred in float64: rounded are both maps, as they are handed over.
    found = [soft[place] for place in places]
    assert_rounded(found, expected, terms=2, scale=np.abs(sharp).max())
    assert np.abs(soft - sharp).max() > 0.1 * np.abs(sharp).max()


def test_the_blur_fits_into_narrow_images():
    maps = explain(
        FGGB(post_blur=True), CountingModel(Own()), images(1, 1, (60, 2)), images(1, 2, (60, 2))
    )
    assert bool(torch.isfinite(maps.positive).all())


@each
def test_the_operating_threshold_must_come_from_somewhere(explainer):
    probes, references = images(1, 1), images(1, 2)
    name = f"{explainer.id}: operating_threshold must be given"
    with pytest.raises(ExplainerContractError, match=f"{name}.* has none"):
        explain(explainer, CountingModel(ConvNet(), operating_threshold=None), probes, references)
    euclidean = CountingModel(ConvNet(), similarity="neg_l2", operating_threshold=-0.6)
    with pytest.raises(ExplainerContractError, match=f"{name}.* is not a cosine"):
        explain(explainer, euclidean, probes, references)
    given_ = type(explainer)(**{**vars(explainer), "operating_threshold": 0.5})
    expected = explain(explainer, CountingModel(ConvNet()), probes, references)
    assert torch.equal(explain(given_, euclidean, probes, references).positive, expected.positive)


@each
def test_black_boxes_and_contrasts_are_refused(explainer):
    probes, references = images(1, 1), images(1, 2)
    assert "black box" in explainer.unsupported(CountingModel(None))
    assert explainer.unsupported(CountingModel(ConvNet())) is None
    with pytest.raises(ExplainerContractError, match=f"{explainer.id}: needs gradients"):
        explain(explainer, CountingModel(None), probes, references)
    with pytest.raises(ExplainerContractError, match=f"{explainer.id}: .* takes no contrast"):
        explain(explainer, CountingModel(ConvNet()), probes, references, contrast=references)


@pytest.mark.parametrize(
    ("kind", "given_", "message"),
    [
        (XSSAB, {"operating_threshold": 1.5}, "xssab: operating_threshold must be a cosine"),
        (XSSAB, {"form": "both"}, "xssab: form must be one of combined, arguments"),
        (FGGB, {"operating_threshold": True}, "fggb: operating_threshold must be a cosine"),
        (FGGB, {"operating_threshold": float("nan")}, "fggb: operating_threshold must be a cosine"),
        (FGGB, {"post_blur": 1}, "fggb: post_blur must be true or false"),
    ],
)
def test_bad_parameters_are_refused(kind, given_, message):
    with pytest.raises(ExplainerContractError, match=message):
        kind(**given_)


def test_several_references_are_explained_by_their_centroid():
    net = ConvNet(seed=1).eval()
    probes, references = images(2, 1), images(6, 2).view(2, 3, 3, *SIZE)
    found = signed(explain(FGGB(), CountingModel(net), probes, references))
    twin = deepcopy(net).double()

    def compute(probe: Tensor, references: Tensor) -> np.ndarray:
        unit, gradients = jacobian(twin, probe)
        units = nn.functional.normalize(twin(references), dim=1).mean(dim=0)
        other = (units / units.norm()).detach().numpy()
        sizes = np.abs(gradients).mean(axis=1)
        sizes /= np.sqrt((sizes**2).sum(axis=(1, 2), keepdims=True))
        return np.einsum("k,khw->hw", unit * other - 0.5 / 8, sizes)

    for row in range(2):
        assert_rounded(
            found[row],
            compute(probes[row], references[row].double()),
            terms=terms_of(twin, passes=2),
            condition=condition_of(compute, probes[row], references[row], module=twin),
        )


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), tau=st.floats(-1, 1))
def test_maps_are_finite_and_split_without_overlap(seed, tau):
    model = CountingModel(ConvNet(seed=seed))
    probes, references = images(2, seed), images(2, seed + 1)
    for explainer in (XSSAB(tau), FGGB(tau)):
        maps = explain(explainer, model, probes, references)
        for part in (maps.positive, maps.negative):
            assert bool(torch.isfinite(part).all())
            assert float(part.min()) >= 0
        assert float((maps.positive * maps.negative).max()) == 0
