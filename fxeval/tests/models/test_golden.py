"""A vendor's own embeddings: differences that are detected, and hostile files."""

import hashlib
import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fxeval.errors import ModelContractError
from fxeval.models.from_card import load_card
from fxeval.models.golden import MAX_BYTES, read_array
from fxeval.models.preprocessing import LUMA
from fxeval.tests.models.test_from_card import (
    FREE,
    TERMS,
    Net,
    as_images,
    by_hand,
    own_code,
    pixels,
    seeded,
)
from fxeval.tests.models.test_outputs import Grey
from fxeval.tests.rounding import allowance

__all__ = ["own_code"]  # a fixture
GOLDEN = "golden: {file: g.npz, images: crops, embeddings: emb, at_most: AT_MOST}\n"


@pytest.fixture
def vendor(tmp_path: Path):
    """Returns a function that writes weights, goldens and card of one network."""
    net = seeded()
    images = pixels()
    right = by_hand(net, as_images(images)).numpy()

    def write(
        emb=right, crops=images, more: str = FREE, at_most: str = "1e-4", state=None, **others
    ) -> Path:
        data = safetensors.torch.save(net.state_dict() if state is None else state)
        (tmp_path / "acme.safetensors").write_bytes(data)
        np.savez_compressed(tmp_path / "g.npz", crops=crops, emb=emb, **others)
        card = tmp_path / "card.yaml"
        card.write_text(
            f"card: 1\nname: acme\nweights: acme.safetensors\narchitecture: acme:make\n"
            f"sha256: {hashlib.sha256(data).hexdigest()}\n{more}{GOLDEN}".replace(
                "AT_MOST", at_most
            )
        )
        return card

    write.right, write.images, write.net = right, images, net
    return write


def test_agreeing_embeddings_are_counted(vendor):
    found = load_card(vendor()).golden
    assert (found.state, found.n_images, found.at_most) == ("agrees", 3, 1e-4)
    assert found.largest <= allowance(TERMS) * np.abs(vendor.right).max()


def test_the_difference_is_the_largest_of_any_entry(vendor):
    emb = vendor.right.copy()
    emb[1, 2] += 0.01
    found = load_card(vendor(emb, at_most="0.02")).golden
    scale = np.abs(emb).max()
    assert found.largest == pytest.approx(0.01, abs=allowance(TERMS) * scale)
    relative = vendor(emb, at_most="0.1, relative: true")
    largest = load_card(relative).golden.largest
    assert largest == pytest.approx(0.01 / scale, abs=allowance(TERMS))
    with pytest.raises(ModelContractError, match=r"differ from the golden ones by 0\.01; at most"):
        load_card(vendor(emb, at_most="0.005"))


def test_without_the_file_nothing_is_checked_and_the_check_says_so(vendor, tmp_path: Path):
    card = vendor()
    (tmp_path / "g.npz").unlink()
    found = load_card(card).golden
    assert (found.state, found.n_images, found.largest) == ("not_checked", 0, None)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ([("BGR", "RGB")], "With 'colour: BGR' they agree: correct the card, or make"),
        ([("std: 128", "std: 127.5")], "With 'std: 128' they agree: correct the card"),
        ([("std: 128", "std: 1"), ("BGR", "RGB")], "With 'colour: BGR' and 'std: 128' they agree"),
    ],
)
def test_a_wrong_normalisation_is_named(vendor, wrong, named: str):
    more = FREE
    for change in wrong:
        more = more.replace(*change)
    with pytest.raises(ModelContractError, match=named):
        load_card(vendor(more=more))


def test_the_normalisation_of_imagenet_is_named_in_the_order_of_the_colours(vendor):
    mean = torch.tensor([103.53, 116.28, 123.675]).reshape(1, 3, 1, 1)
    std = torch.tensor([57.375, 57.12, 58.395]).reshape(1, 3, 1, 1)
    with torch.no_grad():
        emb = vendor.net((as_images(vendor.images).flip(1) * 255 - mean) / std).numpy()
    named = (
        r"With 'mean: \[103\.53, 116\.28, 123\.675\]' and 'std: \[57\.375, 57\.12, 58\.395\]' they "
    )
    with pytest.raises(ModelContractError, match=named):
        load_card(vendor(emb))


def test_mirrored_images_are_named(vendor):
    emb = by_hand(vendor.net, as_images(vendor.images).flip(3)).numpy()
    with pytest.raises(ModelContractError, match="With mirrored images they agree"):
        load_card(vendor(emb))


def test_a_grey_normalisation_is_named(vendor, own_code):
    grey = FREE.replace("BGR", "grey").replace("[100, 110, 120]", "110")
    net = seeded(Grey)
    luma = torch.tensor(LUMA).reshape(1, 3, 1, 1)
    with torch.no_grad():
        pixels = (as_images(vendor.images) * luma).sum(1, keepdim=True) * 255
        emb = net((pixels - 127.5) / 128).numpy()
    own_code.make = Grey
    with pytest.raises(ModelContractError, match=r"With 'mean: 127\.5' they agree"):
        load_card(vendor(emb, more=grey, state=net.state_dict()))


def test_a_difference_of_precision_is_told_from_one_of_colours(vendor):
    half = vendor.right.astype(np.float16)
    with pytest.raises(ModelContractError) as caught:
        load_card(vendor(half, at_most="1e-6"))
    message = str(caught.value)
    assert "They point the same way (cosine 0.99999" in message
    assert "the colours are right, and the rest is precision, such as float16" in message
    assert message.endswith(f"They were computed by torch {torch.__version__}.")
    with pytest.raises(ModelContractError, match=r"With 'colour: BGR' they differ by .* alone"):
        load_card(vendor(half, at_most="1e-6", more=FREE.replace("BGR", "RGB")))


def test_normalised_goldens_are_told_by_their_length(vendor):
    emb = vendor.right / np.linalg.norm(vendor.right, axis=1, keepdims=True) / 3
    with pytest.raises(ModelContractError, match=r"times as long: .* not normalised"):
        load_card(vendor(emb))


def test_a_slightly_wrong_mean_is_noticed(vendor):
    with pytest.raises(ModelContractError, match="or a slightly other mean or std"):
        load_card(vendor(more=FREE.replace("[100, 110,", "[101, 110,")))


def test_embeddings_of_another_network_are_noticed(vendor):
    with torch.random.fork_rng():
        other = Net().eval()
    emb = by_hand(other, as_images(vendor.images)).numpy()
    with pytest.raises(ModelContractError, match="Check colour, mean, std and architecture"):
        load_card(vendor(emb))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_goldens_that_are_not_finite_agree_with_nothing(vendor, value: float):
    emb = vendor.right.copy()
    emb[0, 0] = value
    for more in ("", ", relative: true"):
        with pytest.raises(ModelContractError, match="differ from the golden ones"):
            load_card(vendor(emb, at_most=f"1e-4{more}"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"crops": pixels(size=(16, 16))}, r"'crops': expected crops \(N, 16, 20, 3\) uint8 RGB"),
        ({"crops": pixels().astype(np.float32)}, "'crops': expected"),
        ({"crops": pixels(0), "emb": np.zeros((0, 5))}, "'crops': expected"),
        ({"emb": np.zeros((2, 5))}, r"'emb': expected floats \(3, D\)"),
        ({"emb": np.zeros((3, 5), int)}, "'emb': expected"),
        ({"emb": np.zeros((3, 4))}, r"expected embeddings \(3, 4\), .* got \(3, 5\)"),
    ],
)
def test_arrays_of_the_wrong_form_are_refused(vendor, change, message: str):
    with pytest.raises(ModelContractError, match=message):
        load_card(vendor(**change))


# the file


def npz(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


@pytest.mark.parametrize("order", ["C", "F"])
def test_an_array_comes_back_as_it_was(order: str):
    array = np.asarray(np.arange(24, dtype=np.float32).reshape(2, 3, 4), order=order)
    assert np.array_equal(read_array(npz(a=array, b=np.zeros(1)), "a", "x"), array)


def test_a_missing_array_is_named_with_those_there_are():
    with pytest.raises(ModelContractError, match="expected an array 'c', got a, b"):
        read_array(npz(a=np.zeros(1), b=np.zeros(1)), "c", "x")


def test_a_pickle_among_the_arrays_is_not_opened(tmp_path: Path):
    made = tmp_path / "made"

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {made}",)

    data = npz(a=np.array([Evil()], object))
    with pytest.raises(ModelContractError, match="plain arrays"):
        read_array(data, "a", "x")
    assert not made.exists()
    np.load(io.BytesIO(data), allow_pickle=True)["a"]  # a control: it would have
    assert made.exists()


def lying(shape: str, n_bytes: int) -> bytes:
    """An .npz file whose array claims a shape that does not match its bytes."""
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("a.npy", content + bytes(n_bytes))
    return file.getvalue()


def test_an_array_that_claims_more_than_it_has_takes_no_memory():
    assert read_array(lying("(2, 3)", 24), "a", "x").shape == (2, 3)  # a control
    for shape in ("(1000000, 1000000)", "(2, 2)", "(-2, -3)", "'x'", "((1, 2),)"):
        with pytest.raises(ModelContractError, match="plain arrays"):
            read_array(lying(shape, 24), "a", "x")


def test_an_array_that_would_fill_the_memory_is_not_unpacked():
    with pytest.raises(ModelContractError, match=f"at most {MAX_BYTES} bytes"):
        read_array(lying("(17000000,)", 68_000_000), "a", "x")


@settings(deadline=None, max_examples=100)
@given(data=st.data())
def test_a_damaged_file_is_refused_or_read(data):
    content = bytearray(npz(a=np.arange(6.0).reshape(2, 3)))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))] or content
    try:
        found = read_array(bytes(content), "a", "x")
    except ModelContractError:
        return
    assert np.array_equal(found, np.arange(6.0).reshape(2, 3))  # CRC-32 covers every value


@pytest.mark.parametrize("change", [(b"PK\1\2", 8, 1), (b"PK\1\2", 10, 99), (b"PK\1\2", 6, 255)])
def test_archives_that_are_encrypted_or_of_the_future_are_refused(change):
    mark, offset, value = change
    content = bytearray(npz(a=np.ones(3)))
    for start in (content.index(mark), content.index(b"PK\3\4") - 2):
        content[start + offset] = value
    with pytest.raises(ModelContractError, match="plain arrays saved by"):
        read_array(bytes(content), "a", "x")


def test_a_header_without_end_is_refused():
    with pytest.raises(ModelContractError, match="plain arrays saved by"):
        read_array(lying("(1, (", 24), "a", "x")


def test_names_in_a_message_are_printable():
    with pytest.raises(ModelContractError, match=r"got \?a\.$"):
        read_array(npz(**{"\u202ea": np.ones(3)}), "b", "x")
