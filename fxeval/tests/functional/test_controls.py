"""Controls against scipy and plain loops; a row's control never depends on its batch."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from torch import Tensor

from fxeval.errors import EvidenceError
from fxeval.functional.controls import (
    CONTROLS,
    ControlInputs,
    centre,
    control_maps,
    drawn_from_others,
    edge,
    inverse,
    luma,
    mean_map,
    random_blobs,
    random_pixels,
    random_rectangle,
)
from fxeval.functional.map_similarity import norm01
from fxeval.functional.ranking import ranks
from fxeval.hooks.returned import check_maps
from fxeval.seeding import generator_of
from fxeval.tests.rounding import assert_rounded

SIZE = (20, 16)


def probes(n: int, seed: int = 0, size: tuple[int, int] = SIZE) -> Tensor:
    return torch.rand((n, 3, *size), generator=torch.Generator().manual_seed(seed))


def inputs(rows: list[int]) -> ControlInputs:
    seeds, identities = [31, 5, 77, 12, 9, 4], [0, 0, 1, 2, 2, 3]
    return ControlInputs(
        probes(6)[rows], [seeds[row] for row in rows], [identities[row] for row in rows],
        probes(6, 1)[rows, 0],
    )  # fmt: skip


@pytest.mark.parametrize("name", CONTROLS)
def test_every_control_gives_orderly_maps_of_the_probes_size(name):
    maps = control_maps(name, inputs([0, 1, 2, 3, 4, 5]))
    assert maps.dtype == torch.float32
    assert set(check_maps(name, maps, 6, SIZE).states) == {"ok"}


OF_THE_LIST = ("mean_map", "shuffled_identity")  # made from the maps of all rows


@pytest.mark.parametrize("name", [name for name in CONTROLS if name not in OF_THE_LIST])
def test_a_rows_control_does_not_depend_on_its_batch(name):
    together = control_maps(name, inputs([0, 1, 2, 3, 4, 5]))
    apart = control_maps(name, inputs([4, 2]))
    assert torch.equal(apart, together[[4, 2]])


@pytest.mark.parametrize("name", CONTROLS)
def test_controls_that_do_not_depend_on_the_explainer_need_no_maps(name):
    given_maps = inputs([0, 2, 3])
    no_maps = ControlInputs(given_maps.probes, given_maps.row_seeds, given_maps.identities)
    if CONTROLS[name].depends_on_explainer:
        with pytest.raises(EvidenceError, match="need the maps"):
            control_maps(name, no_maps)
    else:
        assert torch.equal(control_maps(name, no_maps), control_maps(name, given_maps))


def test_the_catalogue_has_the_eight_controls():
    dependent = [name for name, control in CONTROLS.items() if control.depends_on_explainer]
    assert list(CONTROLS) == [
        "random_pixels", "random_blobs", "random_rectangle", "centre", "edge",
        "mean_map", "shuffled_identity", "inverse",
    ]  # fmt: skip
    assert dependent == ["mean_map", "shuffled_identity", "inverse"]
    with pytest.raises(EvidenceError, match=r"unknown control 'center'.*centre"):
        control_maps("center", inputs([0]))


def test_random_pixels_are_uniform_and_repeat_with_their_seed():
    maps = random_pixels([1, 2, 1], (112, 112))
    assert torch.equal(maps[0], maps[2])
    flat = maps[0].flatten().sort().values.double()
    uniform = torch.arange(1, len(flat) + 1) / len(flat)
    assert float((flat - uniform).abs().max()) < 1.63 / math.sqrt(len(flat))  # Kolmogorov, 1 %
    assert abs(float(torch.corrcoef(maps[:2].flatten(1))[0, 1])) < 0.03
    # Committed numbers: a release must not change them silently.
    first = generator_of("random_pixels", 1).random((112, 112))
    np.testing.assert_array_equal(maps[0].numpy(), first.astype(np.float32))


def test_random_pixels_and_blobs_of_one_seed_share_no_draw():
    noise = generator_of("random_blobs", 1).standard_normal((4, 4))
    assert not np.array_equal(noise, generator_of("random_pixels", 1).standard_normal((4, 4)))


def lines_of(chosen: np.ndarray) -> tuple[int, int, int, int]:
    """The first and last row and column of some pixels."""
    rows, columns = (np.flatnonzero(chosen.any(axis=axis)) for axis in (1, 0))
    return rows[0], rows[-1], columns[0], columns[-1]


@pytest.mark.parametrize("size", [(20, 16), (9, 9), (7, 24), (1, 5)])
@pytest.mark.parametrize("seed", [3, 8, 41])
def test_any_number_of_pixels_of_a_rectangle_lacks_less_than_a_line_of_being_one(seed, size):
    (order,) = ranks(random_rectangle([seed], size), None).view(-1, *size).numpy()
    for k in range(1, order.size + 1):
        chosen = order < k
        top, bottom, left, right = lines_of(chosen)
        box = chosen[top : bottom + 1, left : right + 1]
        missing = np.argwhere(~box)
        if len(missing):  # the end of one line at the border of the box
            at = [(0, 0), (0, box.shape[0] - 1), (1, 0), (1, box.shape[1] - 1)]
            assert any(
                (missing[:, axis] == line).all()
                and len(missing) < box.shape[1 - axis] == missing[:, 1 - axis].max() + 1
                for axis, line in at
            )
        assert abs(box.shape[0] / size[0] - box.shape[1] / size[1]) < 1 / min(size) + 1e-9


def test_a_rectangle_is_at_every_place_inside_the_image_equally_often():
    size, k = (10, 15), 24  # of 4 x 6 pixels, for which there are 7 x 10 places
    order = ranks(random_rectangle(range(3500), size), None).view(-1, *size).numpy()
    found = np.array([lines_of(one < k) for one in order])
    assert (found[:, 1] - found[:, 0] == 3).all()
    assert (found[:, 3] - found[:, 2] == 5).all()
    counts = np.zeros((7, 10))
    np.add.at(counts, (found[:, 0], found[:, 2]), 1)
    # Chi squared with 69 degrees of freedom: 115 or more once in 2,500 times.
    assert ((counts - 50) ** 2 / 50).sum() < 115


@pytest.mark.parametrize("size", [(112, 112), (50, 30), (20, 3), (9, 1)])
def test_blobs_are_white_noise_blurred_with_a_tenth_of_the_height(size):
    sigma = size[0] / 10
    noise = generator_of("random_blobs", 8).standard_normal(size)
    radius = math.ceil(3 * sigma)
    expected = ndimage.gaussian_filter(noise, sigma, mode="mirror", radius=radius)
    assert_rounded(random_blobs([8], size)[0], expected, terms=1)  # all else is in float64


def test_blobs_are_smooth_where_pixels_are_not():
    def neighbours(map_: Tensor) -> float:
        pair = torch.stack([map_[:, 1:].flatten(), map_[:, :-1].flatten()])
        return float(torch.corrcoef(pair)[0, 1])

    assert neighbours(random_blobs([3], (112, 112))[0]) > 0.99
    assert abs(neighbours(random_pixels([3], (112, 112))[0])) < 0.05


@pytest.mark.parametrize("size", [(112, 112), (7, 4), (150, 150)])
def test_the_centre_is_a_gaussian_around_the_middle(size):
    map_ = centre(2, size)
    height, width = size
    expected = np.zeros(size)
    for i, j in np.ndindex(size):
        square = (i - (height - 1) / 2) ** 2 + (j - (width - 1) / 2) ** 2
        expected[i, j] = math.exp(-square / (2 * (height / 4) ** 2))
    assert_rounded(map_[1], expected, terms=1)  # all else is in float64
    assert torch.equal(map_[0], map_[0].flip(0))
    assert torch.equal(map_[0], map_[0].flip(1))


def test_edges_are_the_sobel_magnitude_of_the_luma():
    batch = probes(3)
    luma = np.einsum("c,nchw->nhw", [0.299, 0.587, 0.114], batch.double().numpy())
    for row in range(3):
        expected = np.hypot(
            ndimage.sobel(luma[row], 0, mode="mirror"), ndimage.sobel(luma[row], 1, mode="mirror")
        )
        assert_rounded(edge(batch)[row], expected, terms=1)  # all else is in float64


def test_a_flat_image_has_no_edges_and_a_step_has_its_own():
    image = torch.full((1, 3, 8, 8), 0.3)
    assert edge(image).abs().max() == 0
    image[..., 4:] = 0.8
    map_ = edge(image)[0]
    assert map_[:, 3:5].min() > 1.9
    assert map_[:, :3].abs().max() == map_[:, 5:].abs().max() == 0


def slow_mean_map(maps: np.ndarray, identities: list[int]) -> list[np.ndarray | None]:
    means = []
    for own in identities:
        others = []
        for map_, identity in zip(maps, identities, strict=True):
            if identity == own or not np.isfinite(map_).all() or map_.max() == map_.min():
                continue
            others.append((map_ - map_.min()) / (map_.max() - map_.min()))
        means.append(np.mean(others, axis=0) if others else None)
    return means


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(-2, 3), st.sampled_from(["ok", "ok", "nan", "inf", "flat"])),
             min_size=1, max_size=9),
    st.integers(0, 99),
)  # fmt: skip
def test_the_mean_map_equals_the_slow_one_and_leaves_broken_maps_out(rows, seed):
    identities = [identity for identity, _ in rows]
    maps = np.random.default_rng(seed).normal(size=(len(rows), 4, 5)).astype(np.float32)
    for map_, (_, state) in zip(maps, rows, strict=True):
        if state == "flat":
            map_[:] = map_[0, 0]
        elif state != "ok":
            map_[2, 3] = np.nan if state == "nan" else -np.inf
    expected = slow_mean_map(maps.astype(np.float64), identities)
    missing = sum(mean is None for mean in expected)
    if missing:
        with pytest.raises(EvidenceError, match=f"{missing} of {len(rows)} rows"):
            mean_map(torch.from_numpy(maps), identities)
    else:
        ours = mean_map(torch.from_numpy(maps), identities)
        assert_rounded(ours, np.stack(expected), terms=1)  # all else is in float64


def test_the_mean_map_is_exactly_zero_where_all_others_are():
    maps = torch.rand((9, 6, 6), generator=torch.Generator().manual_seed(0))
    maps[1:, :3] = 0.0
    map_ = mean_map(maps, list(range(9)))[0]
    assert map_[:3].eq(0).all()
    assert map_[3:].gt(0).all()


def test_a_map_does_not_enter_the_mean_map_of_its_own_identity():
    maps = probes(4)[:, 0]
    changed = maps.clone()
    changed[0] = changed[0].flip(0)
    before, after = mean_map(maps, [5, 5, 6, 7]), mean_map(changed, [5, 5, 6, 7])
    assert torch.equal(before[:2], after[:2])
    assert not torch.equal(before[2:], after[2:])


def test_a_pair_gets_the_mean_map_of_people_that_neither_of_its_images_shows():
    maps, identities = probes(5)[:, 0], [5, 6, 7, 7, 8]
    found = mean_map(maps, identities, [(5, 6), (6, 5), (7, 7), (9,)])
    scaled, _ = norm01(maps)
    expected = [scaled[2:].mean(0), scaled[2:].mean(0), scaled[[0, 1, 4]].mean(0), scaled.mean(0)]
    assert_rounded(found, torch.stack(expected), terms=1)  # all else is in float64
    assert torch.equal(found[0], found[1])
    with pytest.raises(EvidenceError, match="1 of 2 rows"):
        mean_map(maps, identities, [(5,), (5, 6, 7, 8)])


def test_another_persons_map_is_of_nobody_in_the_row():
    identities, is_usable = [5, 6, 7, 7, 8], [True, True, True, True, False]
    drawn = drawn_from_others(is_usable, identities, [(5, 6)] * 40, range(40)).tolist()
    assert {*drawn} == {2, 3}
    assert drawn == drawn_from_others(is_usable, identities, [(6, 5)] * 40, range(40)).tolist()
    with pytest.raises(EvidenceError, match="row 1 of 2"):
        drawn_from_others(is_usable, identities, [(5,), (5, 6, 7)], [1, 2])


def test_luma_is_the_weighted_sum_of_the_channels():
    image = torch.tensor([1.0, 0.5, 0.25]).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    assert_rounded(luma(image), torch.full((1, 2, 2), 0.299 + 0.2935 + 0.0285), terms=3)


def test_the_inverse_removes_last_what_the_map_removes_first():
    maps = probes(2)[:, 0]
    assert torch.equal(inverse(maps).flatten(1).argmax(1), maps.flatten(1).argmin(1))
    assert torch.equal(inverse(inverse(maps)), maps)


def test_an_empty_list_has_empty_controls():
    for name in CONTROLS:
        nothing = ControlInputs(probes(1)[:0], [], [], probes(1)[:0, 0])
        assert control_maps(name, nothing).shape == (0, *SIZE)
