import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from fxeval.datasets.faces.alignment import ARCFACE_112
from fxeval.datasets.lists.face_pack import FacePack
from fxeval.errors import ExplainerContractError
from fxeval.explainers.grad_cam import GradCAM
from fxeval.explainers.gradients import Gradient
from fxeval.fixtures.synthetic.evaluate import DATA
from fxeval.functional.ranking import (
    MOST_ORDERS,
    count,
    orders_needed,
    ranks,
    several_ranks,
    step_counts,
    tied_shares,
)
from fxeval.models.from_card import load_card

GOLDEN = torch.tensor([[0, 1, 2, 3], [3, 2, 1, 0], [5, 5, 5, 5], [0, 0, 0, 9]]).float()


def _splitmix64(seed: int, n: int) -> list[int]:
    outputs, mask = [], (1 << 64) - 1
    for i in range(1, n + 1):
        z = (seed + i * 0x9E3779B97F4A7C15) & mask
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        outputs.append(z ^ (z >> 31))
    return outputs


def _rounded(value: float) -> Fraction:
    """Round to 24 significant bits, halves away from 0, in whole numbers."""
    exact = abs(Fraction(value))
    if not exact:
        return exact
    step = Fraction(2) ** (math.frexp(value)[1] - 24)
    return math.copysign(1, value) * step * math.floor(exact / step + Fraction(1, 2))


def _slow_ranks(map_: Tensor, seed: int) -> list[int]:
    values = map_.double().flatten().tolist()
    low, high = min(values), max(values)
    constant = high - low <= 1e-12 * max(abs(low), abs(high))
    levels = [0 if constant else _rounded(value) for value in values]
    hashes = _splitmix64(seed, len(values))
    order = sorted(range(len(values)), key=lambda i: (-levels[i], hashes[i] >> 37, i))
    return [order.index(i) for i in range(len(values))]


def test_the_golden_order_of_the_specification_is_met():
    order = ranks(GOLDEN[None], None)[0].argsort()
    assert order.tolist() == [15, 8, 9, 10, 11, 3, 4, 2, 5, 1, 6, 0, 7, 12, 13, 14]


def test_the_slow_reference_agrees_and_its_hash_is_the_published_splitmix64():
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert _splitmix64(1234567, 3) == published
    tail = torch.exp(40 * torch.rand(4, 4, generator=torch.Generator().manual_seed(0)))
    narrow = torch.linspace(1, 1.001, 16).view(4, 4)
    maps = [GOLDEN, torch.zeros(4, 4), -GOLDEN.T, narrow, tail, -tail, 1000 + GOLDEN * 1e-3]
    seeds = [0, 1234567, 2**63 - 1, 5, 6, 7, 8]
    expected = [_slow_ranks(map_, seed) for map_, seed in zip(maps, seeds, strict=True)]
    assert ranks(torch.stack(maps), seeds).tolist() == expected


NEIGHBOURS = [1.0, -1.0, 1 + 2**-23, 1 - 2**-24, 1 + 2**-24, 1 + 2**-25, 2.0, 1e-40, -1e-40, -0.0]
FLOATS = st.one_of(
    st.sampled_from(NEIGHBOURS), st.floats(-1e300, 1e300, allow_subnormal=False),
    st.floats(-(2.0**99), 2.0**99, width=32),
)  # fmt: skip


@settings(deadline=None, max_examples=100)
@given(st.lists(FLOATS, min_size=6, max_size=6), st.integers(0, 2**63 - 1))
def test_ranks_equal_the_slow_ones_for_any_values(values, seed):
    map_ = torch.tensor(values, dtype=torch.float64).view(1, 2, 3)
    assert ranks(map_, [seed])[0].tolist() == _slow_ranks(map_[0], seed)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=6,
                max_size=6), st.integers(0, 2**63 - 1))  # fmt: skip
def test_float32_maps_are_sorted_exactly_and_only_equal_values_follow_the_hash(values, seed):
    map_ = torch.tensor(values).view(1, 2, 3)
    low, high = float(map_.double().min()), float(map_.double().max())
    order = ranks(map_, [seed])[0].argsort()
    if high - low <= 1e-12 * max(abs(low), abs(high)):
        assert torch.equal(order, ranks(torch.zeros(1, 2, 3), [seed])[0].argsort())
        return
    ordered, hashes = map_.flatten()[order], _splitmix64(seed, 6)
    for (one, other), (i, j) in zip(
        itertools.pairwise(ordered.tolist()), itertools.pairwise(order.tolist()), strict=True
    ):
        assert one > other or (one == other and (hashes[i] >> 37, i) < (hashes[j] >> 37, j))


# Below 1e-280 a factor of 2**-60 would leave subnormal numbers, which have lost their last bits.
_VALUES = st.floats(-1e6, 1e6).map(lambda value: value if abs(value) > 1e-280 else 0.0)


@settings(deadline=None, max_examples=60)
@example([0.0, 0.0, 0.0, 0.0, 0.0, 3.4e-280], -60)
@given(st.lists(_VALUES, min_size=6, max_size=6), st.integers(-60, 60))
def test_a_power_of_two_changes_no_rank_and_the_inverse_ties_the_same_pixels(values, power):
    map_ = torch.tensor(values, dtype=torch.float64).view(1, 2, 3)
    assert torch.equal(ranks(map_, [4]), ranks(map_ * 2.0**power, [4]))
    assert tied_shares(map_) == tied_shares(-map_)
    assert orders_needed(map_) == orders_needed(-map_)


def test_a_heavy_tail_and_a_huge_pixel_leave_all_other_pixels_their_order():
    even = torch.linspace(0, 1, 112 * 112, dtype=torch.float64)
    shuffled = even[torch.randperm(len(even), generator=torch.Generator().manual_seed(3))]
    tail = torch.exp(20 * shuffled).float().view(1, 112, 112)
    expected = ranks(shuffled.view(1, 112, 112), [0])
    for map_ in (tail, tail * 1e-30, -1 / tail):
        assert tied_shares(map_)[0] == 0
        assert torch.equal(ranks(map_, [0]), expected)
    for huge in (1e30, -1e30):
        map_ = shuffled.float().view(1, 112, 112).clone()
        map_[0, 7, 7] = huge
        assert tied_shares(map_)[0] < 0.001  # by chance, in float32
        moved = ranks(map_, [0]) - expected
        assert int(moved.flatten()[7 * 112 + 7].abs()) > 0
        assert int(moved.flatten()[torch.arange(12544) != 7 * 112 + 7].abs().max()) <= 1


def test_a_map_beside_a_large_offset_keeps_what_float32_keeps_of_it():
    small = torch.rand(1, 112, 112, generator=torch.Generator().manual_seed(3))
    lifted = 1000 + small
    order = ranks(lifted, [0])[0].argsort()
    assert bool((lifted.flatten()[order].diff() <= 0).all())
    distinct = len(lifted.unique())
    assert 8000 < distinct <= 2**14  # 1 / 1000 of float32's 24 bits
    assert orders_needed(lifted) == 1


def test_every_map_is_ranked_on_its_own():
    maps = torch.rand(5, 7, 9, generator=torch.Generator().manual_seed(0)).round(decimals=1)
    together = ranks(maps, range(5))
    alone = torch.cat([ranks(maps[i : i + 1], [i]) for i in range(5)])
    assert torch.equal(together, alone)
    assert together.dtype == torch.int32


def test_rounding_noise_moves_pixels_among_their_neighbours_only():
    map_ = torch.rand(1, 112, 112, generator=torch.Generator().manual_seed(1))
    noise = torch.rand(1, 112, 112, generator=torch.Generator().manual_seed(2)) * 2 - 1
    noisy = map_ * (1 + 1e-6 * noise)
    moved = (ranks(map_, [3]) - ranks(noisy, [3])).abs()
    assert float((moved > 0).float().mean()) < 0.02
    assert int(moved.max()) <= 3


def test_maps_of_another_batch_or_another_kernel_order_their_pixels_alike(monkeypatch):
    """Grad-CAM and the gradient on mini_resnet: what the precision is chosen for."""
    model = load_card(DATA / "cards" / "mini_resnet.yaml").model
    pack = FacePack(DATA / "rendered_faces")
    listing = pack.listing()
    pixels = pack.images([*listing.probe[:2], *listing.reference[:2]], ARCFACE_112).float() / 255
    probes, references = pixels.split(2)
    unused = np.random.default_rng(0)
    for explainer in (GradCAM(layer="stage4"), Gradient()):

        def order(*rows: int, explainer=explainer) -> Tensor:
            kept = [*rows]
            maps = explainer.explain(model, probes[kept], references[kept], generator=unused)
            return ranks(maps.positive, kept).double()

        together = order(0, 1)
        alone = torch.cat([order(0), order(1)])
        with monkeypatch.context() as patched:
            patched.setattr(torch.backends.mkldnn, "enabled", False)
            other = order(0, 1)
        for found in (alone, other):
            moved = (found - together).abs()
            assert float((moved > 0).double().mean()) < 0.01
            assert float(moved.mean()) < 0.02


def test_float64_values_that_are_one_float32_number_tie():
    """A sum in another order differs in its last digits of float64: no order comes of it."""
    parts = np.random.default_rng(0).random(50)
    turns = [np.random.default_rng(turn).permutation(parts) for turn in range(255)]
    map_ = torch.tensor([0.0, *(np.cumsum(turn)[-1] for turn in turns)], dtype=torch.float64)
    assert len(map_.unique()) > 4
    assert tied_shares(map_.view(1, 16, 16))[0] == 255 / 256


def test_a_positive_affine_change_of_the_map_changes_no_rank():
    map_ = torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(2)).round(decimals=2)
    assert torch.equal(ranks(map_, [1]), ranks(map_ * 8.0 - 2.0, [1]))


def test_a_constant_map_ranks_as_a_random_order_that_its_seed_decides():
    flat = torch.full((2, 40, 40), 0.3)
    one, other = ranks(flat, [1, 2]).double()
    assert torch.equal(ranks(flat, [1, 2])[0].double(), one)
    assert not torch.equal(one, other)
    index = torch.arange(1600.0, dtype=torch.float64)
    for order, against in ((one, index), (other, index), (one, other), (one, index % 40)):
        assert abs(float(torch.corrcoef(torch.stack([order, against]))[0, 1])) < 0.1


def test_removed_ties_have_no_spatial_bias_over_seeds():
    flat = torch.zeros(1, 8, 8).expand(4000, 8, 8)
    first_half = (ranks(flat, range(4000)) < 32).double().mean(0)
    assert float((first_half - 0.5).abs().max()) < 5 * 0.5 / 4000**0.5


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_map_that_is_not_finite_is_refused_by_number(bad):
    maps = torch.zeros(3, 4, 4)
    maps[1, 2, 2] = bad
    with pytest.raises(ExplainerContractError, match="saliency map 1 of 3"):
        ranks(maps, [0, 1, 2])


@pytest.mark.parametrize(
    ("maps", "seeds", "message"),
    [
        (torch.zeros(4, 4), [1], r"\(N, H, W\)"),
        (torch.zeros(1, 4, 4, dtype=torch.int64), [1], "floating"),
        (torch.zeros(2, 4, 4), [1], "one seed per map"),
        (torch.zeros(1, 0, 4), [1], "pixels"),
    ],
)
def test_wrong_forms_are_refused(maps, seeds, message):
    with pytest.raises(ValueError, match=message):
        ranks(maps, seeds)


def test_no_maps_give_no_ranks():
    assert ranks(torch.zeros(0, 4, 4), []).shape == (0, 16)


@pytest.mark.parametrize("fraction", [0.01, 0.05, 0.2])
@pytest.mark.parametrize("plateau", ["constant", "one pixel", "sparse", "coarse"])
def test_the_first_k_ranks_are_exactly_k_pixels_whatever_the_map(fraction, plateau):
    map_ = torch.zeros(1, 112, 112)
    if plateau == "one pixel":
        map_[0, 5, 5] = 1.0
    elif plateau == "sparse":
        map_[0, :8, :8] = torch.arange(1.0, 65.0).view(8, 8)
    elif plateau == "coarse":
        map_ = torch.arange(49.0).view(1, 7, 7).repeat_interleave(16, 1).repeat_interleave(16, 2)
    k = count(fraction, 112 * 112)
    assert int((ranks(map_, [9]) < k).sum()) == k


def test_tied_shares_count_pixels_whose_value_recurs():
    maps = torch.stack([GOLDEN, torch.arange(16.0).view(4, 4), torch.full((4, 4), 2.0)])
    assert tied_shares(maps).tolist() == [15 / 16, 0, 1]
    assert tied_shares(maps[:0]).tolist() == []


def test_the_number_of_orders_follows_the_chance_that_two_pixels_tie():
    def needed(zeros: int) -> int:
        map_ = torch.arange(1.0, 10001.0)
        map_[torch.randperm(10000, generator=torch.Generator().manual_seed(0))[:zeros]] = 0
        return int(orders_needed(map_.view(1, 100, 100))[0])

    shares = (0, 1000, 3500, 3600, 5000, 6100, 9000, 9900, 9999)
    assert [needed(zeros) for zeros in shares] == [1, 1, 1, 2, 2, 3, 7, 8, 8]
    coarse = torch.arange(49.0).view(1, 7, 7).repeat_interleave(16, 1).repeat_interleave(16, 2)
    assert (orders_needed(coarse), tied_shares(coarse)) == (1, 1.0)  # 49 small groups
    assert orders_needed(torch.full((2, 8, 8), 0.3)).tolist() == [1, 1]
    assert orders_needed(torch.zeros(0, 8, 8)).tolist() == []
    assert MOST_ORDERS == 8


def test_several_orders_of_a_map_are_the_ranks_of_each_of_its_seeds():
    maps = torch.rand(5, 9, 9, generator=torch.Generator().manual_seed(0))
    maps[1:] = (maps[1:] - torch.tensor([0.3, 0.6, 0.9, 2.0]).view(4, 1, 1)).relu()
    times, found = several_ranks(maps, lambda row, turn: 100 * row + turn)
    assert times.tolist() == orders_needed(maps).tolist()
    assert {1, MOST_ORDERS} < {*times.tolist()}
    assert times[-1] == 1  # constant
    seeds = [100 * row + turn for row in range(5) for turn in range(times[row])]
    assert torch.equal(found, ranks(maps[np.arange(5).repeat(times)], seeds))
    assert several_ranks(maps[:0], lambda row, turn: 0)[1].shape == (0, 81)


def test_counts_are_those_of_the_specification():
    assert [count(0.01, n) for n in (12544, 22500, 25600, 10752)] == [125, 225, 256, 108]
    assert (count(0.0, 100), count(1e-9, 100), count(0.005, 100), count(1.0, 100)) == (0, 1, 1, 100)


@settings(deadline=None)
@given(st.floats(0, 1), st.integers(1, 10**6))
def test_a_count_is_within_half_a_pixel_and_never_zero_for_a_fraction(fraction, n):
    k = count(fraction, n)
    assert (k == 0) == (fraction == 0.0)
    assert k <= n
    assert abs(k - fraction * n) <= 0.5 + 1e-6 or k == 1


@settings(deadline=None)
@given(st.integers(1, 5000), st.data())
def test_step_counts_rise_from_nothing_to_everything(n, data):
    steps = data.draw(st.integers(1, n))
    counts = step_counts(n, steps)
    assert (counts[0], counts[-1], len(counts)) == (0, n, steps + 1)
    assert all(a < b for a, b in itertools.pairwise(counts))
    assert all(abs(k * steps - i * n) * 2 <= steps for i, k in enumerate(counts))


def test_halves_round_up():
    assert step_counts(10, 4) == [0, 3, 5, 8, 10]


@pytest.mark.parametrize("call", [(count, 1.1, 5), (count, float("nan"), 5), (count, 0.5, 0),
                                  (step_counts, 5, 0), (step_counts, 5, 6)])  # fmt: skip
def test_impossible_counts_are_refused(call):
    function, *arguments = call
    with pytest.raises(ValueError, match="expected"):
        function(*arguments)


def test_ranking_leaves_the_maps_and_the_global_generators_alone():
    maps = torch.rand(2, 8, 8, generator=torch.Generator().manual_seed(0))
    before, torch_state = maps.clone(), torch.get_rng_state()
    numpy_state = np.random.get_state()[1].copy()  # noqa: NPY002
    ranks(maps, [1, 2])
    assert torch.equal(maps, before)
    assert torch.equal(torch_state, torch.get_rng_state())
    assert np.array_equal(numpy_state, np.random.get_state()[1])  # noqa: NPY002
