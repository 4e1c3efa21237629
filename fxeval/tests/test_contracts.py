"""Values from user code are checked once, where they enter."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fxeval.contracts import BROKEN_STATES, PairListing, RowState, SaliencyMaps
from fxeval.errors import DataContractError, ExplainerContractError, ModelContractError
from fxeval.hooks.returned import check_embeddings, check_maps

SIZE = (4, 5)


def checked(maps, n=3):
    return check_maps("cam", maps, n, SIZE)


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from(["fine", "constant", "zero", "nan", "inf", "tiny"]), min_size=1, max_size=8
    ),
    st.sampled_from([torch.float16, torch.float32, torch.float64, torch.bfloat16]),
)
def test_every_map_gets_the_state_it_deserves(kinds, dtype):
    made = {
        "fine": torch.arange(20.0), "constant": torch.full((20,), 3.0), "zero": torch.zeros(20),
        "nan": torch.arange(20.0).index_fill(0, torch.tensor([7]), torch.nan),
        "inf": torch.arange(20.0).index_fill(0, torch.tensor([7]), torch.inf),
        "tiny": torch.full((20,), 1.0),
    }  # fmt: skip
    maps = torch.stack([made[kind].reshape(SIZE) for kind in kinds]).to(dtype)
    expected = {
        "fine": RowState.OK, "constant": RowState.DEGENERATE_MAP, "zero": RowState.DEGENERATE_MAP,
        "nan": RowState.NAN_MAP, "inf": RowState.NAN_MAP, "tiny": RowState.DEGENERATE_MAP,
    }  # fmt: skip
    found = check_maps("cam", maps, len(kinds), SIZE)
    assert list(found.states) == [expected[kind] for kind in kinds]
    assert found.positive.dtype == torch.float32


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        (None, "got NoneType"),
        ([1, 2], "got a list of 2"),
        (torch.rand(3, 4, 4), r"expected .* \(3, 4, 5\).*got \(3, 4, 4\). Upsample"),
        (torch.rand(2, 4, 5), r"got \(2, 4, 5\)"),
        (torch.rand(3, 3, 4, 5), r"got \(3, 3, 4, 5\)"),
        (torch.rand(3, 4, 5) > 0.5, "real numbers"),
        (torch.rand(3, 4, 5) * 1j, "real numbers"),
        (SaliencyMaps(torch.rand(3, 4, 5), torch.rand(3, 2, 2)), r"got \(3, 2, 2\)"),
    ],
)
def test_a_wrong_form_is_refused_with_what_was_expected(maps, message):
    with pytest.raises(ExplainerContractError, match=message):
        checked(maps)


def test_integers_views_and_gradients_are_taken_as_they_are():
    base = torch.arange(120).reshape(3, 5, 8)[:, :, ::2].transpose(1, 2)
    found = checked(base)
    assert torch.equal(found.positive, base.float())
    graph = torch.rand(3, 4, 5, requires_grad=True) * 2
    assert not checked(graph).positive.requires_grad


def test_maps_are_copied_so_that_a_buffer_may_be_used_again():
    buffer = torch.rand(3, 4, 5)
    found = checked(buffer)
    before = found.positive.clone()
    buffer.fill_(0)
    assert torch.equal(found.positive, before)


@pytest.mark.parametrize("state", sorted(BROKEN_STATES))
def test_an_explainer_may_say_that_a_map_is_broken(state):
    maps = SaliencyMaps(torch.rand(3, 4, 5), None, (RowState.OK, state, RowState.OK))
    assert checked(maps).states[1] is state


@pytest.mark.parametrize(
    "state", [RowState.EXCLUDED, RowState.NOT_CROSSED, RowState.START_BEYOND, "fine", "excluded"]
)
def test_an_explainer_may_not_excuse_itself_from_a_pair(state):
    maps = SaliencyMaps(torch.rand(3, 4, 5), None, (RowState.OK, state, RowState.OK))
    with pytest.raises(ExplainerContractError, match="state must be one of"):
        checked(maps)


def test_a_declared_ok_does_not_hide_a_nan():
    maps = torch.rand(3, 4, 5)
    maps[1, 0, 0] = torch.nan
    found = checked(SaliencyMaps(maps, None, ("ok", "ok", "ok")))
    assert found.states == (RowState.OK, RowState.NAN_MAP, RowState.OK)


def test_one_state_and_reason_per_map():
    with pytest.raises(ExplainerContractError, match="one state and one reason per map"):
        SaliencyMaps(torch.rand(3, 4, 5), None, (RowState.OK,))


@pytest.mark.parametrize(
    ("embeddings", "message"),
    [
        ([1.0], "got list"),
        (torch.rand(3), r"\(3, D\)"),
        (torch.rand(2, 4), r"must return \(3, D\) for 3 images, got \(2, 4\)"),
        (torch.ones(3, 4, dtype=torch.int32), "must be float"),
        (torch.full((3, 4), torch.inf), "infinite"),
    ],
)
def test_wrong_embeddings_are_refused(embeddings, message):
    with pytest.raises(ModelContractError, match=message):
        check_embeddings("net", embeddings, 3)


def test_a_listing_whose_labels_contradict_its_identities_is_refused():
    with pytest.raises(DataContractError, match="row 1 is marked mated but its identities differ"):
        PairListing(("a", "b"), ("c", "d"), (True, True), ("x", "x"), ("x", "y"))
    with pytest.raises(DataContractError, match="row 0 is marked nonmated but its identities are"):
        PairListing(("a",), ("c",), (False,), ("x",), ("x",))
    with pytest.raises(DataContractError, match="one length"):
        PairListing(("a",), ("c", "d"), (False,), ("x",), ("y",))


def test_rows_are_taken_in_the_order_asked_for():
    listing = PairListing(("a", "b"), ("c", "d"), (True, False), ("x", "y"), ("x", "z"))
    assert listing.take([1, 0]).probe == ("b", "a")
    assert len(listing.take([1])) == 1


def test_a_broken_negative_map_is_a_broken_map():
    positive = torch.rand(2, *SIZE)
    negative = torch.rand(2, *SIZE)
    negative[1, 0, 0] = torch.nan
    maps = check_maps("mine", SaliencyMaps(positive, negative), 2, SIZE)
    assert maps.states == (RowState.OK, RowState.NAN_MAP)


@pytest.mark.parametrize("wrong", [torch.ones(3), 1.0, np.ones((2, 1))])
def test_a_diagnostic_is_one_number_for_each_map(wrong):
    with pytest.raises(ExplainerContractError, match="diagnostic 'odd': expected a tensor"):
        SaliencyMaps(torch.rand(2, *SIZE), diagnostics={"odd": wrong})


def test_diagnostics_of_numpy_are_taken_too():
    maps = SaliencyMaps(torch.rand(2, *SIZE), diagnostics={"fine": np.array([1.0, 2.0])})
    assert check_maps("mine", maps, 2, SIZE).diagnostics["fine"].tolist() == [1, 2]


def test_a_triplet_is_a_mated_and_a_nonmated_pair():
    triplets = PairListing(
        probe=("1", "4"), reference=("2", "5"), is_mated=(True, True), probe_identity=("a", "b"),
        reference_identity=("a", "b"), fold=(0, 1), contrast=("3", "1"),
        contrast_identity=("c", "a"),
    )  # fmt: skip
    pairs = triplets.with_nonmates()
    assert pairs.reference == ("2", "5", "3", "1")
    assert pairs.is_mated == (True, True, False, False)
    assert pairs.reference_identity == ("a", "b", "c", "a")
    assert pairs.fold == (0, 1, 0, 1)
    assert pairs.with_nonmates() is pairs
