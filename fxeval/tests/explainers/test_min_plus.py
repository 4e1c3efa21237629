"""MinPlus against explicit loops: planted truth, greed that accumulates, stops, costs."""

from copy import deepcopy
from functools import partial
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fxeval.contracts import Explainer, RowState
from fxeval.engine.forward_pool import ForwardPool, PooledModel
from fxeval.errors import ExplainerContractError, ModelContractError
from fxeval.explainers.min_plus import CHUNK, NOTHING_GAINED, MinPlus, MinPlusMap, _bumps
from fxeval.functional.map_similarity import norm01, spearman
from fxeval.tests.black_boxes import InFloat64, with_condition
from fxeval.tests.rounding import allowance, assert_rounded, condition_of
from fxeval.tests.subjects import ConvNet, CountingModel, Patches

SIX = get_args(MinPlusMap)
COARSE = {"sigma": 14.0, "step": 28}  # 2 pixels, and 4 x 4 centres at H = 16


def images(n: int, seed: int, size: tuple[int, int] = (16, 16)) -> Tensor:
    return torch.rand((n, 3, *size), generator=torch.Generator().manual_seed(seed))


def explained(explainer, model, probes, references, contrast=None):
    return explainer.explain(
        model, probes, references, contrast=contrast, generator=np.random.default_rng(0)
    )


def map_of(explainer, model, probes, references, contrast=None) -> np.ndarray:
    """The first pair's map with its sign."""
    found = explained(explainer, model, probes, references, contrast)
    negative = 0 if found.negative is None else found.negative.double()
    return (found.positive.double() - negative)[0].numpy()


def alike(kind: str, one: np.ndarray, two: np.ndarray) -> float:
    if kind == "cosine":
        return float(one @ two / max(np.sqrt((one @ one) * (two @ two)), 1e-12))
    return -float(np.sqrt(((one - two) ** 2).sum()))


def exact(module: nn.Module) -> nn.Module:
    return deepcopy(module).eval().double()


# Rounded are both profiles of a bump, their product, its complement, the masked image and the
# embedding. A map is a small difference of similarities, which float32 networks would drown.
ROUNDINGS = 6


class Slow:
    """The six maps by loops over centres and pixels, from the formulas alone, in float64."""

    def __init__(self, model, probe, reference, contrast, sigma, centres) -> None:
        self.kind, self.net, self.probe = model.similarity, exact(model.module), probe.double()
        self.targets = [(1, self.embedded(reference))]
        self.targets += [] if contrast is None else [(-1, self.embedded(contrast))]
        self.height, self.width = probe.shape[1:]
        self.rows, self.columns = centres
        self.places = [
            ((i + 0.5) * self.height / self.rows - 0.5, (j + 0.5) * self.width / self.columns - 0.5)
            for i in range(self.rows) for j in range(self.columns)
        ]  # fmt: skip
        y, x = np.mgrid[: self.height, : self.width]
        self.bumps = [
            np.exp(-((y - v) ** 2 + (x - u) ** 2) / (2 * sigma**2)) for v, u in self.places
        ]

    def s(self, mask: np.ndarray) -> float:
        one = self.embedded(self.probe * torch.from_numpy(mask))
        return sum(sign * alike(self.kind, one, other) for sign, other in self.targets)

    def embedded(self, image: Tensor) -> np.ndarray:
        with torch.no_grad():
            return self.net(image[None].double())[0].numpy()

    def s0(self) -> np.ndarray:
        full = np.ones((self.height, self.width))
        return self.upsampled([self.s(full) - self.s(full - bump) for bump in self.bumps])

    def s1(self) -> np.ndarray:
        empty = np.zeros((self.height, self.width))
        return self.upsampled([self.s(bump) - self.s(empty) for bump in self.bumps])

    def s0_minus(self, rounds: int = 5) -> np.ndarray:
        mask, drawn = np.ones((self.height, self.width)), np.zeros((self.height, self.width))
        for _ in range(rounds):
            decreases = [self.s(mask) - self.s(mask * (1 - bump)) for bump in self.bumps]
            best = int(np.argmax(decreases))
            if decreases[best] <= 0:
                break
            drawn += decreases[best] * self.bumps[best]
            mask = mask * (1 - self.bumps[best])
        return drawn

    def s1_plus(self, rounds: int = 5) -> np.ndarray:
        mask, drawn = np.zeros((self.height, self.width)), np.zeros((self.height, self.width))
        for _ in range(rounds):
            increases = [self.s(np.maximum(mask, bump)) - self.s(mask) for bump in self.bumps]
            best = int(np.argmax(increases))
            if increases[best] <= 0:
                break
            drawn += increases[best] * self.bumps[best]
            mask = np.maximum(mask, self.bumps[best])
        return drawn

    def minplus(self, rounds: int = 5) -> np.ndarray:
        return unit(self.s0_minus(rounds) + self.s1_plus(rounds))

    def avg(self, rounds: int = 5) -> np.ndarray:
        four = (self.s0(), self.s1(), self.s0_minus(rounds), self.s1_plus(rounds))
        return np.mean([unit(one) for one in four], axis=0)

    def upsampled(self, values: list[float]) -> np.ndarray:
        """Bilinear with half-pixel centres, pixel by pixel."""
        grid = np.array(values).reshape(self.rows, self.columns)
        out = np.zeros((self.height, self.width))
        for y in range(self.height):
            for x in range(self.width):
                v = min(max((y + 0.5) * self.rows / self.height - 0.5, 0), self.rows - 1)
                u = min(max((x + 0.5) * self.columns / self.width - 0.5, 0), self.columns - 1)
                i, j = min(int(v), self.rows - 2), min(int(u), self.columns - 2)
                left = grid[i, j] + (v - i) * (grid[i + 1, j] - grid[i, j])
                right = grid[i, j + 1] + (v - i) * (grid[i + 1, j + 1] - grid[i, j + 1])
                out[y, x] = left + (u - j) * (right - left)
        return out


def unit(map_: np.ndarray) -> np.ndarray:
    return (map_ - map_.min()) / (map_.max() - map_.min())


def slow_map(model, probe, reference, contrast=None, *, which, rounds=5) -> np.ndarray:
    slow = Slow(model, probe, reference, contrast, 2.0, (4, 4))
    return getattr(slow, which)(*([] if which in ("s0", "s1") else [rounds]))


@pytest.mark.parametrize("which", SIX)
@pytest.mark.parametrize("kind", ["cosine", "neg_l2"])
@pytest.mark.parametrize("has_contrast", [False, True])
def test_each_map_equals_explicit_loops(which, kind, has_contrast):
    net = ConvNet()
    net.fc.weight = nn.Parameter(net.fc.weight[:, : 8 * 8 * 7])
    model = CountingModel(InFloat64(net), similarity=kind)
    probe, reference, contrast = images(3, 1, (16, 14))[:, None]
    nonmate = contrast if has_contrast else None
    found = map_of(MinPlus(which, **COARSE, rounds=5), model, probe, reference, nonmate)
    rows = (probe[0], reference[0], *([contrast[0]] if has_contrast else []))
    slow = with_condition(model, partial(slow_map, which=which), *rows)
    assert np.ptp(slow["expected"]) > 0
    assert_rounded(found, **slow, terms=ROUNDINGS)


class Linear(nn.Module):
    """One number, a weighted sum of brightness: linear similarity to what has a larger one."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight.flatten())

    def forward(self, images: Tensor) -> Tensor:
        return (images.mean(dim=1).flatten(1) @ self.weight)[:, None]


def linear(weight: Tensor) -> CountingModel:
    return CountingModel(Linear(weight), similarity="neg_l2")


BRIGHT = torch.full((1, 3, 16, 16), 8.0)  # brighter than any probe behind any mask


@pytest.mark.parametrize("which", ["s0", "s1"])
def test_on_an_additive_model_single_bumps_show_the_blurred_truth(which):
    module = Patches((16, 16), dim=1)
    probe = images(1, 2)
    truth = probe[0].double().mean(dim=0).numpy() * module.weight.double().view(16, 16).numpy()
    blurred = np.zeros((16, 16))
    for y in range(16):
        for x in range(16):
            for v in range(16):
                for u in range(16):
                    bump = np.exp(-((y - v) ** 2 + (x - u) ** 2) / (2 * (10 / 7) ** 2))
                    blurred[y, x] += bump * truth[v, u]
    found = map_of(
        MinPlus(which, step=1), CountingModel(InFloat64(module), similarity="neg_l2"), probe, BRIGHT
    )
    # Differences of embeddings, the largest of which is the whole truth.
    assert_rounded(found, blurred, terms=ROUNDINGS, scale=truth.sum())
    ranks = spearman(torch.from_numpy(found).view(1, -1), torch.from_numpy(blurred).view(1, -1))
    assert ranks[0] > 0.9999
    raw = spearman(torch.from_numpy(found).view(1, -1), torch.from_numpy(truth).view(1, -1))
    assert raw[0] < 0.99  # the control: the unblurred truth is something else


def spots(values: dict[tuple[int, int], float]) -> Tensor:
    weight = torch.zeros(16, 16)
    for place, value in values.items():
        weight[place] = value
    return weight


POINTS = {"sigma": 0.1, "step": 7}  # a bump is one pixel, and every pixel is a centre


@pytest.mark.parametrize("which", ["s0_minus", "s1_plus"])
def test_a_greedy_search_goes_on_from_what_it_has_done(which):
    # Without accumulation, the strongest spot would be found 30 times and the others never.
    values = {(2, 3): 0.5, (9, 9): 0.3, (15, 0): 0.2, (7, 7): -0.4}
    model, probe = linear(spots(values)), torch.ones(1, 3, 16, 16)
    answer = explained(MinPlus(which, **POINTS), model, probe, BRIGHT)
    found = answer.positive[0]
    expected = spots({place: max(value, 0) for place, value in values.items()})
    # Sums of 3 channels and 4 spots are subtracted and make a map; at most 1 + 0.4 is summed.
    assert_rounded(found, expected, terms=3 + 4 + 2, scale=1.4)
    assert answer.diagnostics["rounds_used"].tolist() == [3]
    assert answer.negative is None
    # Three rounds that gain and one that does not; the first is the bank's. And the reference.
    assert sum(model.batches) == 1 + (1 + 256) + 3 * 256


@pytest.mark.parametrize("which", ["s0_minus", "s1_plus"])
def test_a_greedy_search_ends_after_its_rounds(which):
    model = linear(spots({(2, 3): 0.5, (9, 9): 0.3, (15, 0): 0.2}))
    answer = explained(MinPlus(which, **POINTS, rounds=2), model, torch.ones(1, 3, 16, 16), BRIGHT)
    assert answer.diagnostics["rounds_used"].tolist() == [2]
    assert float(answer.positive[0, 15, 0]) == 0
    assert sum(model.batches) == 1 + (1 + 256) + 256


def test_what_greedy_rounds_record_adds_up_to_what_was_gained():
    module, probe = InFloat64(Patches((16, 16), dim=1)), images(1, 3)
    model = CountingModel(module, similarity="neg_l2")
    slow = Slow(model, probe[0], BRIGHT[0], None, 2.0, (4, 4))
    mask = np.ones((16, 16))
    for _ in range(7):
        worst = min(slow.bumps, key=lambda bump, mask=mask: slow.s(mask * (1 - bump)))
        mask = mask * (1 - worst)
    found = map_of(MinPlus("s0_minus", **COARSE, rounds=7), model, probe, BRIGHT)
    drawn = np.stack([bump.ravel() for bump in slow.bumps], axis=1)

    def records_of(map_: np.ndarray | Tensor) -> np.ndarray:
        return np.linalg.lstsq(drawn, np.asarray(map_).ravel(), rcond=None)[0]

    records = records_of(found)
    assert_rounded(
        records.sum(),
        slow.s(np.ones((16, 16))) - slow.s(mask),
        terms=ROUNDINGS,
        condition=condition_of(lambda map_: records_of(map_).sum(), torch.from_numpy(found)),
        scale=float(slow.embedded(probe[0])[0]),  # the larger of the two embeddings
    )
    assert 1 < (records > 1e-5).sum() <= 7


def test_single_bumps_have_signs():
    weight, probe = spots({(3, 3): 1.0, (12, 12): -1.0}), torch.ones(1, 3, 16, 16)
    model, reference = linear(weight), BRIGHT * (weight > 0)
    for which in ("s0", "s1"):
        answer = explained(MinPlus(which, step=7), model, probe, reference)
        for part, place in ((answer.positive, (3, 3)), (answer.negative, (12, 12))):
            assert divmod(int(part[0].argmax()), 16) == place
            assert float(part.min()) == 0
        assert not (answer.positive * answer.negative).any()
        assert not answer.diagnostics


def test_the_composed_maps_are_made_of_the_others():
    model, pair = CountingModel(ConvNet()), images(2, 5)
    one = {which: map_of(MinPlus(which, **COARSE), model, pair[:1], pair[1:]) for which in SIX}
    two = one["s0_minus"] + one["s1_plus"]
    four = np.stack([one[w] for w in ("s0", "s1", "s0_minus", "s1_plus")])
    # Maps are rounded, and larger than what is left of them when their smallest value is taken out.
    of_two = two.max() / np.ptp(two)
    of_four = max(np.abs(map_).max() / np.ptp(map_) for map_ in four)
    assert_rounded(one["minplus"], unit(two), terms=3, condition=of_two)
    mean = norm01(torch.from_numpy(four))[0].mean(dim=0)
    assert_rounded(one["avg"], mean, terms=3, condition=of_four)
    assert one["minplus"].min() == 0
    assert one["minplus"].max() == 1
    assert min(one["s0_minus"].min(), one["s1_plus"].min()) >= 0


def test_a_row_in_which_nothing_is_gained_is_degenerate_and_alone():
    # The second probe is black: no bump changes it.
    model, probes = linear(spots({(3, 3): 1.0})), torch.ones(2, 3, 16, 16)
    probes[1] = 0
    for which in ("minplus", "avg", "s0_minus", "s1_plus"):
        answer = explained(MinPlus(which, **COARSE), model, probes, BRIGHT.expand(2, -1, -1, -1))
        assert answer.states == (RowState.OK, RowState.DEGENERATE_MAP)
        assert answer.reasons == ("", NOTHING_GAINED)
        assert not answer.positive[1].any()
        assert answer.diagnostics["rounds_used"][1] == 0


def test_a_search_for_the_opposite_finds_nothing():
    model, probe = linear(spots({(3, 3): -1.0, (9, 2): -0.5})), torch.ones(1, 3, 16, 16)
    for which in ("s0_minus", "s1_plus"):
        answer = explained(MinPlus(which, **COARSE), model, probe, torch.zeros_like(probe))
        assert answer.states == (RowState.DEGENERATE_MAP,)


@pytest.mark.parametrize(
    ("which", "shared"), [("s0", 17), ("s1", 17), ("minplus", 34), ("avg", 34)]
)
def test_pairs_of_one_probe_share_what_does_not_depend_on_the_pair(which, shared):
    probes, references = images(2, 6), images(3, 7)
    for rows, distinct in (([0], 1), ([0, 0, 0], 1), ([0, 1, 0], 2)):
        model = CountingModel(ConvNet())
        explained(MinPlus(which, **COARSE, rounds=1), model, probes[rows], references[: len(rows)])
        assert sum(model.batches) == len(rows) + distinct * shared


def test_the_stated_cost_is_the_most_it_takes():
    model, pair = CountingModel(ConvNet()), images(2, 8)
    answer = explained(MinPlus(**COARSE, rounds=6), model, pair[:1], pair[1:])
    assert sum(model.batches) <= 1 + 2 + 2 * 16 * 6
    assert sum(model.batches) >= 1 + 2 + 16 * int(answer.diagnostics["rounds_used"])
    assert 2 + 2 * 784 * 30 == 47_042


def test_chunks_have_the_stated_size():
    model, pair = CountingModel(Patches((18, 18))), images(2, 9, (18, 18))
    explained(MinPlus("s1_plus", step=1, rounds=3), model, pair[:1], pair[1:])
    assert max(model.batches) == CHUNK
    assert 18 * 18 - CHUNK in model.batches


def test_the_six_maps_share_the_single_bumps_in_the_harness():
    pool, pair = ForwardPool(), images(2, 10)
    model = PooledModel(CountingModel(ConvNet()), pool, "key")
    costs = []
    for which in ("s0", "s1", *SIX):
        before = pool.forwards
        explained(MinPlus(which, **COARSE, rounds=1), model, pair[:1], pair[1:])
        costs.append(pool.forwards - before)
    assert costs == [1 + 17, 1 + 17, 1, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("which", SIX)
def test_a_row_does_not_depend_on_its_company(which):
    model, explainer = CountingModel(InFloat64(ConvNet())), MinPlus(which, **COARSE, rounds=4)
    probes, references = images(4, 11), images(4, 12)
    probes[3] = probes[1]
    together = explained(explainer, model, probes, references).positive
    for row in range(4):
        alone = explained(explainer, model, probes[row : row + 1], references[row : row + 1])
        # Each is rounded once, at its end.
        assert_rounded(alone.positive[0], together[row], terms=2)
    assert not torch.equal(together[1], together[3])


@pytest.mark.parametrize(
    ("size", "centres"),
    [((112, 112), 784), ((150, 150), 784), ((112, 96), 28 * 24), ((16, 16), 256), ((1, 3), 3)],
)
def test_the_centres_scale_with_the_crop(size, centres):
    for removes in (True, False):
        bumps = _bumps(removes, 10.0, 4, size)
        assert tuple(bumps.bank.masks.shape) == (1 + centres, *size)
        assert bool((bumps.bank.masks[0] == float(removes)).all())


def test_the_first_default_bump_is_golden():
    # Its centre is (1.5, 1.5), the middle of the first 4 x 4 pixels.
    bank = _bumps(False, 10.0, 4, (112, 112)).bank.masks
    # Two profiles are rounded, and their product; and the golden number's last digit.
    golden = pytest.approx(0.99750312, abs=5e-9 + allowance(3))
    assert_rounded(bank[1, 0, 0], np.exp(-2 * 1.5**2 / 200), terms=3)
    assert float(bank[1, 1, 1]) == golden
    assert float(bank[2, 1, 5]) == golden  # row by row
    assert_rounded(bank[1, 31, 1], np.exp(-(29.5**2 + 0.5**2) / 200), terms=3)
    removing = _bumps(True, 10.0, 4, (112, 112)).bank.masks
    assert torch.equal(removing, 1 - bank)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"map": "plusmin"}, "minplus: map must be one of minplus, avg, .*, got 'plusmin'"),
        ({"map": None}, "minplus: map must be one of"),
        ({"step": 0}, "minplus: step must be a whole number of at least 1, got 0"),
        ({"step": 4.0}, "minplus: step must be a whole number"),
        ({"rounds": 0}, "minplus: rounds must be a whole number of at least 1, got 0"),
        ({"rounds": True}, "minplus: rounds must be a whole number"),
        ({"sigma": 0.0}, "minplus: sigma must be a finite number of pixels above 0, got 0.0"),
        ({"sigma": float("nan")}, "minplus: sigma must be"),
        ({"sigma": float("inf")}, "minplus: sigma must be"),
        ({"sigma": "10"}, "minplus: sigma must be"),
        ({"sigma": False}, "minplus: sigma must be"),
    ],
)
def test_bad_values_are_refused_by_name(fields, message):
    with pytest.raises(ExplainerContractError, match=message):
        MinPlus(**fields)


def test_a_step_larger_than_the_image_leaves_one_centre():
    model, pair = CountingModel(ConvNet()), images(2, 13)
    found = map_of(MinPlus("s1", step=1000), model, pair[:1], pair[1:])
    assert np.ptp(found) == 0


def test_embeddings_that_break_in_a_later_round_are_the_models_fault():
    class Breaking(CountingModel):
        def embed(self, images: Tensor) -> Tensor:
            found = super().embed(images)
            return found * torch.nan if sum(self.batches) > 18 else found

    pair = images(2, 14)
    with pytest.raises(ModelContractError, match="NaN"):
        explained(MinPlus("s0_minus", **COARSE), Breaking(ConvNet()), pair[:1], pair[1:])


def test_it_keeps_the_contract_and_draws_nothing():
    explainer, pair = MinPlus(**COARSE, rounds=2), images(2, 15)
    model = CountingModel(InFloat64(ConvNet()))
    assert isinstance(explainer, Explainer)
    assert explainer.traits.needs == {"black_box"}
    generator, before = np.random.default_rng(3), pair.clone()
    first = explainer.explain(model, pair[:1], pair[1:], generator=generator)
    assert generator.integers(1 << 40) == np.random.default_rng(3).integers(1 << 40)
    assert torch.equal(pair, before)
    assert torch.equal(first.positive, explained(explainer, model, pair[:1], pair[1:]).positive)
    several = explained(explainer, model, pair[:1], pair[1:].expand(3, -1, -1, -1)[None])
    slow = with_condition(model, partial(slow_map, which="minplus", rounds=2), *pair)
    assert_rounded(first.positive[0], **slow, terms=ROUNDINGS)
    # The centroid: a length of 8 numbers, a division by it and a mean of 3, in float32.
    assert_rounded(several.positive[0], **slow, terms=ROUNDINGS + 8 + 1 + 3)
