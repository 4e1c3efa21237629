"""Objectives: golden slopes, a slow reference, and what is refused."""

import cmath
import math
from collections.abc import Callable
from copy import deepcopy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fxeval.contracts import Gallery
from fxeval.errors import ExplainerContractError, ModelContractError
from fxeval.explainers.objectives import (
    CHUNK,
    Objective,
    Targets,
    centroid_embeddings,
    targets_of,
    twins,
)
from fxeval.tests.rounding import FLOAT64, assert_rounded, condition_of, terms_of
from fxeval.tests.subjects import ConvNet, CountingModel

PROBE = torch.eye(5)[:1]


def at_cosine(c: float, axis: int) -> Tensor:
    """Return a (1, 5) unit vector with cosine c to PROBE, leaning towards one axis; float64."""
    vector = torch.zeros(1, 5, dtype=torch.float64)
    vector[0, 0], vector[0, axis] = c, math.sqrt(1 - c * c)
    return vector


def bank(*others: Tensor) -> dict[str, Tensor]:
    return {
        "others": torch.cat(others),
        "is_own": torch.zeros(1, len(others), dtype=torch.bool),
    }


def slope(objective: str, c: float, **more: Tensor) -> float:
    """Return dJ/dc of the reference: the gradient along the axis of the reference alone."""
    pull = Objective.parse(objective, "x").pull("cosine", PROBE, Targets(at_cosine(c, 1), **more))
    return float(pull.gradient[0, 1]) / math.sqrt(1 - c * c)


@pytest.mark.parametrize(
    ("m", "golden", "half_a_digit"), [(0.2, 3.1e-5, 5e-7), (0.3, 0.012, 5e-4), (0.5, 77.0, 0.5)]
)
def test_the_slope_of_the_softmax_is_golden(m, golden, half_a_digit):
    """Cosines 0.6; 0.2, 0.1, scale 64: the slope of the loss is minus this."""
    found = slope(f"arc_softmax(m={m})", 0.6, **bank(at_cosine(0.2, 2), at_cosine(0.1, 3)))
    assert found == pytest.approx(golden, abs=half_a_digit)


@pytest.mark.parametrize(("m", "golden"), [(0.2, 1.39), (0.3, 1.57), (0.5, 1.87)])
def test_the_weight_of_a_margin_is_golden(m, golden):
    theta = math.acos(0.9)
    found, weight = slope(f"arc_pair(m={m})", 0.9), math.sin(theta + m) / math.sin(theta)
    assert found == pytest.approx(golden, abs=0.005)  # half a unit of the last digit
    assert found == pytest.approx(weight, rel=1e-12)
    assert slope(f"-arc_pair(m={m})", 0.9) == pytest.approx(-found, rel=1e-12)


@pytest.mark.parametrize("m", [0.2, 0.3, 0.5])
def test_straight_through_keeps_the_value_and_drops_the_weight_of_the_margin(m):
    others, theta = bank(at_cosine(0.2, 2), at_cosine(0.1, 3)), math.acos(0.6)
    literal = slope(f"arc_softmax(m={m})", 0.6, **others)
    passed = slope(f"arc_softmax(m={m},straight_through=true)", 0.6, **others)
    assert literal / passed == pytest.approx(math.sin(theta + m) / math.sin(theta), rel=1e-12)
    targets = Targets(at_cosine(0.6, 1), **others)
    literal, passed = (
        Objective("arc_softmax", m=m, straight_through=way).pull("cosine", PROBE, targets).value
        for way in (False, True)
    )
    # The cosine is taken away and added again; the softmax multiplies its rounding by s = 64.
    assert_rounded(literal, passed, terms=2, condition=64, unit=FLOAT64)


def by_loops(name: str, e: np.ndarray, r: np.ndarray, c: np.ndarray, others, m: float, s: float):
    """Return the objective's value from scalars alone; ``e`` may be complex."""

    def cos(a, b):
        return sum(x * y for x, y in zip(a, b, strict=True)) / cmath.sqrt(
            sum(x * x for x in a) * sum(y * y for y in b)
        )

    def margin(value):
        return cmath.cos(cmath.acos(value) + m)

    if name == "arc_softmax":
        logits = [s * margin(cos(e, r))] + [s * cos(e, one) for one in others]
        top = max(one.real for one in logits)
        return logits[0] - top - cmath.log(sum(cmath.exp(one - top) for one in logits))
    shape = {
        "cos": cos, "triplet": cos, "one_minus_cos": lambda a, b: cos(a, b) - 1,
        "arc_pair": lambda a, b: margin(cos(a, b)),
        "neg_l2": lambda a, b: -sum((x - y) ** 2 for x, y in zip(a, b, strict=True)),
    }[name]  # fmt: skip
    return shape(e, r) - (0 if c is None else shape(e, c))


NAMES = ["cos", "one_minus_cos", "arc_pair", "triplet", "neg_l2", "arc_softmax"]


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(NAMES), st.booleans(), st.integers(0, 2**20), st.sampled_from([1, -1]))
def test_values_and_gradients_agree_with_scalars_and_finite_differences(
    name, contrasted, seed, sign
):
    e, r, c, *others = np.random.default_rng(seed).normal(size=(7, 4)) * 3
    if name != "triplet" and not contrasted:
        c = None
    others = [one / np.linalg.norm(one) for one in others]
    objective = Objective(name, m=0.25, s=4.0, sign=sign)
    targets = Targets(
        torch.tensor(r)[None],
        None if c is None or name == "arc_softmax" else torch.tensor(c)[None],
        torch.tensor(np.stack(others)),
        torch.zeros(1, 4, dtype=torch.bool),
    )
    pull = objective.pull("cosine", torch.tensor(e)[None], targets)

    def value(point):
        against = None if name == "arc_softmax" else c
        return sign * by_loops(name, point, r, against, others, 0.25, 4.0)

    assert float(pull.value) == pytest.approx(value(e).real, rel=1e-9, abs=1e-9)
    # A step in the imaginary direction: the difference is the imaginary part, and does not cancel.
    step = 1e-30
    slopes = [value(e + 1j * step * u).imag / step for u in np.eye(4)]
    # Gradients of like embeddings and of near angles cancel: by far less than a million times.
    assert_rounded(pull.gradient[0], slopes, terms=30, condition=1e6, unit=FLOAT64)
    assert pull.value.dtype == pull.gradient.dtype == torch.float64
    assert pull.is_flat.tolist() == [False]


def test_the_value_of_a_sure_softmax_is_not_lost_to_rounding():
    """J = -log(1 + sum_j exp(z_j - z_target)), also where the target is nearly certain."""
    others = torch.nn.functional.normalize(torch.eye(8)[1:].double() * 0.995 + 0.1, dim=1)
    e = torch.eye(8)[:1].double()
    for c, m in ((0.9, 0.3), (0.8, 0.0)):
        r = torch.zeros(1, 8, dtype=torch.float64)
        r[0, 0], r[0, 7] = c, math.sqrt(1 - c * c)
        targets = Targets(r, None, others, torch.zeros(1, 7, dtype=torch.bool))
        value = float(Objective("arc_softmax", m=m).pull("cosine", e, targets).value)
        theta = math.acos(c)
        logits = 64 * (others @ e[0]).numpy()
        rest = math.fsum(math.exp(logit - 64 * math.cos(theta + m)) for logit in logits)
        assert value == pytest.approx(-math.log1p(rest), rel=1e-9)
        assert value < 0


def test_a_zero_embedding_has_no_direction():
    pull = Objective("cos").pull("cosine", torch.zeros(1, 4), Targets(torch.ones(1, 4)))
    assert pull.is_flat.tolist() == [True]


@pytest.mark.parametrize("several", [1, 3])
def test_a_probe_that_is_all_of_its_references_is_their_twin(several):
    probes = torch.rand(2, 3, 4, 4)
    references = probes[:, None].repeat(1, several, 1, 1, 1)
    assert twins(probes, references).tolist() == [True, True]
    references[1, -1] += 0.1
    assert twins(probes, references).tolist() == [True, False]


def test_the_softmax_takes_no_contrast():
    targets = Targets(torch.ones(1, 4), torch.ones(1, 4), torch.eye(4).double(),
                      torch.zeros(1, 4, dtype=torch.bool))  # fmt: skip
    with pytest.raises(ExplainerContractError, match="takes no contrast"):
        Objective("arc_softmax").pull("cosine", torch.eye(4)[:1], targets)


def test_neither_identity_of_a_nonmated_pair_is_its_rival():
    gallery = Gallery(torch.eye(4), torch.arange(4), torch.tensor([0, 1]), torch.tensor([2, 1]))
    expected = [[True, False, True, False], [False, True, False, False]]
    assert gallery.is_of_the_pair(gallery.centroids()[0]).tolist() == expected


def test_references_are_embedded_in_chunks():
    model = CountingModel(ConvNet().eval())
    targets_of(model, torch.rand(40, 4, 3, 16, 16))
    assert sum(model.batches) == 160
    assert max(model.batches) <= CHUNK


def test_an_own_centroid_is_no_other_identity():
    others = torch.cat([at_cosine(0.9, 2), at_cosine(0.2, 3)]).double()
    own = torch.tensor([[True, False]])
    without = slope("arc_softmax", 0.6, **bank(at_cosine(0.2, 3)))
    found = slope("arc_softmax", 0.6, others=others, is_own=own)
    assert found == pytest.approx(without, rel=1e-12)
    assert slope("arc_softmax", 0.6, others=others, is_own=~own) != pytest.approx(without)


@pytest.mark.parametrize("kind", ["cosine", "neg_l2"])
def test_native_is_the_models_own(kind):
    e, r = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    ours = Objective().pull(kind, e, Targets(r))
    other = Objective({"cosine": "cos", "neg_l2": "neg_l2"}[kind]).pull("cosine", e, Targets(r))
    assert torch.equal(ours.gradient, other.gradient)


@pytest.mark.parametrize("name", ["cos", "one_minus_cos", "arc_pair(m=0.3)", "neg_l2"])
def test_equal_embeddings_are_flat_and_others_of_their_batch_are_not(name):
    e = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    r = e.clone()
    r[1] = r[1].roll(1)
    if name != "neg_l2":
        r[2] *= 3  # a cosine does not see the length
    pull = Objective.parse(name, "x").pull("cosine", e, Targets(r))
    assert pull.is_flat.tolist() == [True, False, True]
    assert torch.isfinite(pull.gradient).all()


def test_opposite_embeddings_are_flat_and_so_is_a_contrast_that_is_the_reference():
    e, r = torch.randn(2, 2, 8, generator=torch.Generator().manual_seed(0))
    assert Objective("cos").pull("cosine", e, Targets(-e)).is_flat.all()
    assert Objective("arc_pair").pull("cosine", e, Targets(-e)).gradient.isfinite().all()
    assert Objective("triplet").pull("cosine", e, Targets(r, r.clone())).is_flat.all()
    assert not Objective("triplet").pull("cosine", e, Targets(r, r.flip(0))).is_flat.any()


@pytest.mark.parametrize("m", [0.0, 0.2])
def test_a_saturated_softmax_is_small_but_not_flat(m):
    """A slope of 3.1e-5 or less still has a direction; only its size is small."""
    targets = Targets(at_cosine(0.6, 1), **bank(at_cosine(0.2, 2), at_cosine(0.1, 3)))
    pull = Objective("arc_softmax", m=m).pull("cosine", PROBE, targets)
    assert 0 < float(pull.gradient.norm()) < (1e-4 if m else 1e-8)
    assert not pull.is_flat.any()


def test_the_size_of_an_embedding_does_not_make_it_flat():
    e, r = torch.randn(2, 2, 8, generator=torch.Generator().manual_seed(0))
    for size in (1e-4, 1e4):
        assert not Objective("cos").pull("cosine", size * e, Targets(r)).is_flat.any()
        assert not Objective("neg_l2").pull("neg_l2", size * e, Targets(size * r)).is_flat.any()


@pytest.mark.parametrize(
    ("text", "objective"),
    [
        ("native", Objective()),
        (" - cos ", Objective("cos", sign=-1)),
        ("arc_softmax(s=30, m=0.5,straight_through=true)",
         Objective("arc_softmax", s=30.0, m=0.5, straight_through=True)),
        ("arc_pair()", Objective("arc_pair")),
        ("arc_pair(m=0)", Objective("arc_pair", m=0.0)),
    ],
)  # fmt: skip
def test_an_objective_is_read_as_it_is_written(text, objective):
    assert Objective.parse(text, "x") == objective


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cosine", "must be one of native, cos"),
        ("", "must be one of"),
        ("+cos", "must be one of"),
        ("--cos", "must be one of"),
        ("cos(", "must be one of"),
        ("cos)x", "must be one of"),
        ("cos(m=1)", "'cos' takes no numbers"),
        ("arc_pair(s=1)", "'arc_pair' takes m=..."),
        ("arc_pair(0.3)", "'arc_pair' takes m=..."),
        ("arc_pair(m=0.1,m=0.2)", "'arc_pair' takes m=..."),
        ("arc_pair(m=x)", "'m' must be a number"),
        ("arc_pair(m=-0.1)", "0 <= m < pi"),
        ("arc_pair(m=3.15)", "0 <= m < pi"),
        ("arc_pair(m=nan)", "0 <= m < pi"),
        ("arc_softmax(s=0)", "0 < s <= 10000"),
        ("arc_softmax(s=inf)", "0 < s <= 10000"),
        ("arc_softmax(s=1e308)", "0 < s <= 10000"),
        ("arc_softmax(straight_through=1)", "true or false"),
        (None, "must be one of"),
    ],
)
def test_what_is_no_objective_is_refused_with_the_explainers_name(text, message):
    with pytest.raises(ExplainerContractError, match=r"^saliency: objective .*got ") as error:
        Objective.parse(text, "saliency")
    assert message in str(error.value)


def test_what_an_objective_lacks_is_named():
    assert Objective("triplet").needs == {"contrast"}
    assert Objective("arc_softmax").needs == {"gallery"}
    assert Objective("cos").needs == frozenset()
    targets = Targets(at_cosine(0.5, 1))
    with pytest.raises(ExplainerContractError, match="needs a contrast"):
        Objective("triplet").pull("cosine", PROBE, targets)
    with pytest.raises(ExplainerContractError, match="needs a gallery"):
        Objective("arc_softmax").pull("cosine", PROBE, targets)
    own = Targets(at_cosine(0.5, 1), None, PROBE.double(), torch.ones(1, 1, dtype=torch.bool))
    with pytest.raises(ExplainerContractError, match="only the probe's own identity"):
        Objective("arc_softmax").pull("cosine", PROBE, own)


def test_a_centroid_is_the_mean_of_unit_embeddings_or_of_raw_ones():
    net, images = ConvNet().eval(), torch.rand(2, 3, 3, 16, 16)
    exact = deepcopy(net).double()

    def raw(images: Tensor) -> Tensor:
        return torch.stack([exact(one) for one in images])

    def unit(images: Tensor) -> Tensor:
        return raw(images) / raw(images).norm(dim=2, keepdim=True)

    def equals(found: Tensor, compute: Callable[[Tensor], Tensor]) -> None:
        condition = condition_of(compute, images, module=exact)
        assert_rounded(found, compute(images.double()), terms=terms_of(net), condition=condition)

    equals(centroid_embeddings(CountingModel(net), images), lambda images: unit(images).mean(1))
    euclidean = CountingModel(net, similarity="neg_l2")
    equals(centroid_embeddings(euclidean, images), lambda images: raw(images).mean(1))
    single = centroid_embeddings(CountingModel(net), images[:, 0])
    equals(single, lambda images: raw(images)[:, 0])


def test_targets_hold_ordinary_tensors_and_know_whose_centroid_is_whose():
    model, images = CountingModel(ConvNet()), torch.rand(2, 3, 16, 16)
    vectors = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    gallery = Gallery(vectors, torch.tensor([7, 3, 7, 3, 9]), torch.tensor([9, 7]))
    with torch.inference_mode():
        targets = targets_of(model, images, images.flip(0), gallery)
    assert not targets.reference.is_inference()
    assert targets.is_own.tolist() == [[False, False, True], [False, True, False]]
    wide = vectors.double()
    mean = wide[0] / wide[0].norm() + wide[2] / wide[2].norm()
    # In float64 over 8 dimensions, and the sum of two; both are rounded.
    assert_rounded(targets.others[1], mean / mean.norm(), terms=2 * (8 + 2), unit=FLOAT64)
    part = targets.rows(slice(1, 2))
    assert torch.equal(part.reference, targets.reference[1:])
    assert torch.equal(part.contrast, targets.contrast[1:])
    assert part.is_own.tolist() == [[False, True, False]]
    assert part.others is targets.others


def test_broken_embeddings_are_the_models_fault():
    model = CountingModel(ConvNet())
    model.embed = lambda images: torch.full((len(images), 8), torch.nan)
    with pytest.raises(ModelContractError, match="NaN"):
        targets_of(model, torch.rand(1, 3, 16, 16))


def test_twins_are_equal_to_the_last_pixel():
    probes = torch.rand(3, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    references = probes.clone()
    references[1, 2, 3, 3] += 1e-7
    assert twins(probes, references).tolist() == [True, False, True]
    assert twins(probes, references[:, None]).tolist() == [True, False, True]
    several = torch.stack([references, probes.flip(0)], dim=1)
    assert not twins(probes, several).any()  # a centroid is no image
