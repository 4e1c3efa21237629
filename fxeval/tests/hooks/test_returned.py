"""What user code returns: forms that are taken, forms that are refused, what is a constant map."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fxeval.contracts import LabelMaps, RowState, SaliencyMaps
from fxeval.errors import DataContractError, ExplainerContractError
from fxeval.functional.map_similarity import norm01
from fxeval.functional.ranking import ranks
from fxeval.hooks.returned import check_label_maps, check_landmarks, check_maps, is_constant

N, H, W = 3, 5, 4
MAPS = torch.rand((N, H, W), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
FACTORS = [1e-300, 1e-45, 1e-30, 1e-13, 1.0, 1e13, 1e38, 1e300]


def states(maps):
    return set(check_maps("cam", maps, N, (H, W)).states)


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("offset", [0.0, 0.5, -0.5, -2.0])
def test_a_map_times_a_constant_is_the_same_map_to_every_reader(factor, offset):
    maps = MAPS + offset
    found = check_maps("cam", maps * factor, N, (H, W))
    assert found.states == (RowState.OK,) * N
    expected = check_maps("cam", maps, N, (H, W)).positive
    seeds = range(N)
    assert torch.equal(ranks(found.positive, seeds), ranks(expected, seeds))
    assert bool(norm01(found.positive)[1].all())


@pytest.mark.parametrize("factor", [1e-38, 1e-30, 1e-12, 1.0, 1e12, 1e38])
def test_single_precision_is_judged_as_double_precision_is(factor):
    maps = (MAPS * factor).float()
    assert states(maps) == {RowState.OK}
    assert states(torch.full_like(maps, factor)) == {RowState.DEGENERATE_MAP}


@settings(deadline=None)
@given(st.floats(-1e300, 1e300) | st.integers(-(2**24), 2**24).map(np.float32))
def test_one_value_everywhere_is_constant_whatever_it_is(value):
    maps = torch.from_numpy(np.full((N, H, W), value))
    assert states(maps) == {RowState.DEGENERATE_MAP}


def test_what_rounding_leaves_of_a_constant_is_constant():
    noise = 1.0 + 1e-13 * MAPS[0]
    assert is_constant(noise)
    assert is_constant(noise * 1e-200)
    assert not is_constant(1.0 + 1e-9 * MAPS[0])
    assert is_constant(torch.zeros(H, W))


def test_positive_and_negative_maps_are_scaled_alike():
    huge = check_maps("cam", SaliencyMaps(MAPS * 1e200, MAPS * 1e199), N, (H, W))
    assert huge.negative is not None
    assert float((huge.negative / huge.positive).max()) == pytest.approx(0.1)


@pytest.mark.parametrize(
    "maps",
    [
        MAPS.numpy(), MAPS.numpy().astype(">f8"), MAPS[:, None], MAPS[:, None].numpy(),
        (MAPS * 200).to(torch.uint8), (MAPS * 200).numpy().astype(np.uint16), MAPS.half(),
        SaliencyMaps(MAPS[:, None]), SaliencyMaps(MAPS.numpy(), MAPS[:, None]),
    ],
)  # fmt: skip
def test_forms_that_mean_one_map_a_probe_are_taken(maps):
    found = check_maps("cam", maps, N, (H, W))
    assert found.positive.shape == (N, H, W)
    assert found.positive.dtype == torch.float32
    assert found.states == (RowState.OK,) * N


def test_maps_of_user_code_are_copied():
    given = MAPS.numpy().copy()
    found = check_maps("cam", given, N, (H, W))
    given[:] = 0.0
    assert bool((found.positive > 0).any())


@pytest.mark.parametrize(
    ("maps", "words"),
    [
        (list(MAPS), "got a list of 3. Return torch.stack(maps)."),
        ([one.numpy() for one in MAPS], "got a list of 3. Return numpy.stack(maps)"),
        (None, "got NoneType. Return the maps."),
        (MAPS.numpy().astype(object), "got an array of object (3, 5, 4)."),
        (MAPS > 0, "real numbers, got torch.bool. Use .float()."),
        (MAPS.to(torch.complex64), "real numbers, got torch.complex64. Use .abs() or .real."),
        (MAPS[:, None].expand(N, 3, H, W), "(3, 3, 5, 4). Reduce the channels: maps.sum(1)"),
        (MAPS[..., None].expand(N, H, W, 3), "(3, 5, 4, 3). Channels come last"),
        (MAPS.transpose(1, 2), "(3, 4, 5). Height comes before width: maps.transpose(1, 2)."),
        (MAPS.flatten(1), "(3, 20). Return maps.reshape(3, 5, 4)."),
        (MAPS[:2], "(2, 5, 4). Return one map for each probe"),
        (MAPS[:, ::2, ::2], "(3, 3, 2). Upsample inside the explainer."),
    ],
)
def test_a_wrong_form_is_told_with_the_way_to_the_right_one(maps, words):
    with pytest.raises(ExplainerContractError) as caught:
        check_maps("cam", maps, N, (H, W))
    assert words in str(caught.value)


def test_a_map_of_one_pair_without_its_axis_is_told_so():
    with pytest.raises(ExplainerContractError, match=r"Add the axis of the pairs: maps\[None\]"):
        check_maps("cam", MAPS[0], 1, (H, W))


# Landmarks and label maps

POINTS = torch.arange(20, dtype=torch.float64).reshape(2, 5, 2)


def test_landmarks_may_be_a_tensor_or_an_array_of_any_numbers():
    swapped = POINTS.numpy().astype(">f4")
    for value in (POINTS, POINTS.float(), POINTS.long(), POINTS.numpy(), swapped):
        found = check_landmarks("faces", value, 2)
        assert found.dtype == torch.float64
        assert torch.equal(found, POINTS)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, r"expected landmarks \(2, 5, 2\), got NoneType"),
        ([[1, 2]], "got a list of 1"),
        (POINTS[:1], r"got a tensor of torch.float64 \(1, 5, 2\)"),
        (POINTS.bool(), "torch.bool"),
        (POINTS.to(torch.complex64), "torch.complex64"),
        (POINTS.numpy().astype(object), "an array of object"),
        (POINTS / 0, "expected finite landmarks"),
    ],
)
def test_landmarks_of_another_form_are_refused(value, said):
    with pytest.raises(DataContractError, match=said) as caught:
        check_landmarks("faces", value, 2)
    assert caught.value.public == str(caught.value)


LABELS = torch.tensor([[[-1, 0], [1, 1]]])


def test_label_maps_are_taken_as_whole_numbers_with_their_names():
    for labels in (LABELS, LABELS.to(torch.int8), LABELS.numpy()):
        found = check_label_maps("faces", LabelMaps(("skin", "nose"), labels, "mine"), 1, (2, 2))
        assert torch.equal(found.labels, LABELS)
        assert (found.names, found.source) == (("skin", "nose"), "mine")
    assert found.is_known().tolist() == [True]
    assert LabelMaps(("skin",), -torch.ones_like(LABELS)).is_known().tolist() == [False]


def test_what_says_how_parts_were_found_is_one_short_line_of_text():
    told = LabelMaps(("skin", "nose"), LABELS, "by\n\x1b[2J" + "a" * 9999)
    found = check_label_maps("faces", told, 1, (2, 2)).source
    assert found.startswith("by ?[2Jaaa")
    assert len(found) == 500


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (LABELS, "expected fxeval.contracts.LabelMaps as label maps, got a tensor"),
        (LabelMaps((), LABELS), "expected the names of the parts"),
        (LabelMaps(("skin", "nose" * 20), LABELS), "at most 64 characters each"),
        (LabelMaps("skin", LABELS), "expected the names of the parts"),
        (LabelMaps(("skin", ""), LABELS), "expected the names of the parts"),
        (LabelMaps(("skin", "skin"), LABELS), "got one twice"),
        (LabelMaps(("skin",), LABELS), "labels from -1 to 0, one for each name, got -1 to 1"),
        (LabelMaps(("skin", "nose"), LABELS - 1), "got -2 to 0"),
        (LabelMaps(("skin", "nose"), LABELS[0]), r"expected label maps \(1, 2, 2\), got a tensor"),
        (LabelMaps(("skin", "nose"), LABELS.double()), "whole numbers, got torch.float64"),
        (LabelMaps(("skin", "nose"), LABELS.bool()), "whole numbers, got torch.bool"),
        (LabelMaps(("skin", "nose"), LABELS.tolist()), "got a list of 1"),
    ],
)
def test_label_maps_of_another_form_are_refused(value, said):
    with pytest.raises(DataContractError, match=said):
        check_label_maps("faces", value, 1, (2, 2))
