"""Maps from a file belong to the images they were made of, or to none."""

import hashlib
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from fxeval.contracts import RowState
from fxeval.engine.forward_pool import ForwardPool, PooledModel
from fxeval.engine.maps import explain
from fxeval.errors import ExplainerContractError, FxevalError
from fxeval.explainers import precomputed
from fxeval.explainers.precomputed import PrecomputedMaps, image_digests, save_maps
from fxeval.tests.effort import at_most_bytes
from fxeval.tests.evidence import comparison
from fxeval.tests.subjects import ConvNet, CountingModel, make_pairs

PAIRS = make_pairs(6)
IMAGES = PAIRS.images
PROBES, REFERENCES = IMAGES[:6], IMAGES[6:]
MAPS = torch.from_numpy(np.random.default_rng(0).normal(size=(6, 16, 16)).astype(np.float32))
each_format = pytest.mark.parametrize("suffix", [".npz", ".safetensors"])


def seen(images: Tensor) -> Tensor:
    """Images as the harness hands them over."""
    return images.to(torch.float32).div_(255.0)


def look_up(path: Path | str, probes: Tensor = PROBES, references: Tensor = REFERENCES) -> Tensor:
    maps = PrecomputedMaps(str(path)).explain(
        CountingModel(None), seen(probes), seen(references), generator=np.random.default_rng(0)
    )
    assert set(maps.states) <= {RowState.OK}
    return maps.positive


def write_npz(path: Path, **arrays: object) -> Path:
    np.savez(path, **arrays)
    return path


@each_format
def test_every_probe_gets_its_own_map_in_whatever_order_it_is_asked_for(
    tmp_path: Path, suffix: str
):
    path = tmp_path / f"maps{suffix}"
    save_maps(path, MAPS, seen(PROBES))
    order = [4, 0, 0, 5]
    assert torch.equal(look_up(path, PROBES[order], REFERENCES[[1, 2, 3, 4]]), MAPS[order])


@each_format
def test_a_probe_in_two_pairs_gets_the_map_of_the_pair(tmp_path: Path, suffix: str):
    path = tmp_path / f"maps{suffix}"
    save_maps(path, MAPS.double().numpy(), PROBES[[0] * 6], REFERENCES)
    order = [3, 1]
    assert torch.equal(look_up(path, PROBES[[0, 0]], REFERENCES[order]), MAPS[order])
    with pytest.raises(ExplainerContractError, match="no map for 1 of 1 pairs"):
        look_up(path, PROBES[:1], PROBES[:1])


def test_digests_are_those_of_the_pair_list_for_every_grey_level():
    assert image_digests(seen(IMAGES)) == list(PAIRS.image_digests)
    levels = torch.arange(768, dtype=torch.uint8).reshape(1, 3, 16, 16)
    expected = hashlib.sha256(bytes(n % 256 for n in range(768))).hexdigest()
    for images in (levels, levels.float() / 255, levels.float() * (1 / 255), levels.double() / 255):
        assert image_digests(images) == [expected]


@each_format
def test_the_harness_finds_maps_of_either_side(tmp_path: Path, suffix: str):
    path = tmp_path / f"maps{suffix}"
    save_maps(path, MAPS, REFERENCES, PROBES)
    model = PooledModel(CountingModel(ConvNet()), ForwardPool(), "key")
    found = explain(
        PrecomputedMaps(str(path)), model, comparison(PAIRS, "reference"), seed=0,
        progress=lambda done, of: None,
    )  # fmt: skip
    assert torch.equal(found.positive, MAPS)
    other = explain(
        PrecomputedMaps(str(path)), model, comparison(PAIRS), seed=0,
        progress=lambda done, of: None,
    )  # fmt: skip
    assert set(other.states) == {RowState.EXPLAINER_RAISED}
    assert "no map for 1 of 1 pairs" in other.reasons[0]


@each_format
def test_the_first_missing_digests_are_named(tmp_path: Path, suffix: str):
    path = tmp_path / f"maps{suffix}"
    save_maps(path, MAPS[:1], PROBES[:1])
    with pytest.raises(ExplainerContractError) as error:
        look_up(path)
    assert "no map for 5 of 6 probes (it holds 1)" in str(error.value)
    for digest in PAIRS.image_digests[1:4]:
        assert digest[:12] in str(error.value)
    assert PAIRS.image_digests[4][:12] not in str(error.value)
    assert "and 2 more" in str(error.value)


@given(
    pixel=st.tuples(st.integers(0, 2), st.integers(0, 15), st.integers(0, 15)),
    step=st.sampled_from([-1, 1]),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
def test_an_image_one_grey_level_away_has_no_map(
    tmp_path: Path, pixel: tuple[int, int, int], step: int
):
    path = tmp_path / "maps.npz"
    save_maps(path, MAPS[:1], PROBES[:1])
    other = PROBES[:1].clone()
    other[(0, *pixel)] += step
    with pytest.raises(ExplainerContractError, match="no map for 1 of 1 probes"):
        look_up(path, other, REFERENCES[:1])


@pytest.mark.parametrize("value", [0.5 / 255, 100.01 / 255, 256 / 255, -1 / 255, float("nan")])
def test_images_that_are_not_8_bit_have_no_map(tmp_path: Path, value: float):
    path = tmp_path / "maps.npz"
    save_maps(path, MAPS, PROBES)
    probes = seen(PROBES)
    probes[2, 1, 3, 4] = value
    with pytest.raises(ExplainerContractError, match="1 of 6 hold other values"):
        PrecomputedMaps(str(path)).explain(
            CountingModel(None), probes, probes, generator=np.random.default_rng(0)
        )


@each_format
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_nan_and_every_floating_type_are_passed_on(tmp_path: Path, suffix: str, dtype: torch.dtype):
    maps = MAPS.to(dtype, copy=True)
    maps[1, 2, 3] = torch.nan
    path = tmp_path / f"maps{suffix}"
    save_maps(path, maps, PROBES)
    assert torch.equal(look_up(path).nan_to_num(7.0), maps.float().nan_to_num(7.0))


def test_other_byte_orders_and_layouts_are_read_as_they_are_meant(tmp_path: Path):
    arrays = {"maps": np.asfortranarray(MAPS.numpy().astype(">f8"))}
    digests = np.array(PAIRS.image_digests[:6], "S64")
    path = tmp_path / "maps.npz"
    np.savez_compressed(path, probe=digests, **arrays)
    assert torch.equal(look_up(path), MAPS)


def test_a_file_is_read_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path, reads = tmp_path / "maps.npz", []
    read = precomputed._READERS[".npz"]
    monkeypatch.setitem(precomputed._READERS, ".npz", lambda at: reads.append(at) or read(at))
    save_maps(path, MAPS, PROBES)
    look_up(path)
    look_up(path)
    assert len(reads) == 1
    save_maps(path, MAPS[:5] + 1, PROBES[:5])
    assert torch.equal(look_up(path, PROBES[:5], REFERENCES[:5]), MAPS[:5] + 1)
    assert len(reads) == 2


def test_a_relative_path_starts_at_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for folder, shift in (("one", 1.0), ("two", 2.0)):
        (tmp_path / folder).mkdir()
        monkeypatch.chdir(tmp_path / folder)
        save_maps("maps.npz", MAPS + shift, PROBES)
        assert torch.equal(look_up("maps.npz"), MAPS + shift)
        assert [path.name for path in Path().iterdir()] == ["maps.npz"]


@pytest.mark.parametrize("file", ["maps.pt", "maps", "maps.npz.zip", 3, True])
def test_another_kind_of_file_is_refused_at_once(file: object):
    with pytest.raises(ExplainerContractError, match=r"^precomputed: file must be .* got "):
        PrecomputedMaps(file)


@pytest.mark.parametrize(
    ("file", "fault"),
    [("", "file must name the maps"), ("none.npz", "cannot be read"), ("a\0b.npz", "null byte")],
)
def test_a_file_that_is_not_there_is_an_error_with_its_name(file: str, fault: str):
    with pytest.raises(ExplainerContractError, match=fault):
        look_up(file)


def test_a_contrast_and_several_references_of_pair_maps_are_refused(tmp_path: Path):
    path = tmp_path / "maps.npz"
    save_maps(path, MAPS, PROBES, REFERENCES)
    explainer, ask = PrecomputedMaps(str(path)), {"generator": np.random.default_rng(0)}
    model, probes, references = CountingModel(None), seen(PROBES), seen(REFERENCES)
    with pytest.raises(ExplainerContractError, match="takes no contrast"):
        explainer.explain(model, probes, references, contrast=references, **ask)
    with pytest.raises(ExplainerContractError, match="one reference each"):
        explainer.explain(model, probes, references[:, None], **ask)
    with pytest.raises(ExplainerContractError, match="expected maps of 8 x 16 pixels"):
        explainer.explain(model, probes[:, :, :8], references, **ask)
    save_maps(path, MAPS, PROBES)
    explainer.explain(model, probes, references[:, None].repeat(1, 2, 1, 1, 1), **ask)


DIGESTS = list(PAIRS.image_digests[:6])
GOOD = {"maps": MAPS.numpy(), "probe": np.array(DIGESTS)}
FAULTY = {
    "pickled digests": ({**GOOD, "probe": np.array(DIGESTS, object)}, "numbers or text"),
    "pickled maps": ({**GOOD, "maps": np.array([None, 1])}, "numbers or text"),
    "whole numbers": ({**GOOD, "maps": np.ones((6, 16, 16), np.int64)}, "numbers or text"),
    "complex maps": ({**GOOD, "maps": np.ones((6, 16, 16), complex)}, "numbers or text"),
    "long doubles": ({**GOOD, "maps": np.ones((6, 4, 4), np.longdouble)}, "must be floating"),
    "maps of text": ({**GOOD, "maps": np.array(["a"])}, "must be floating"),
    "digests that are numbers": ({**GOOD, "probe": np.ones(6)}, "must be text"),
    "digests in a table": ({**GOOD, "probe": np.array([DIGESTS])}, "must be text"),
    "one digest too few": ({**GOOD, "probe": np.array(DIGESTS[:5])}, "each of the 6 maps, got 5"),
    "no digests": ({"maps": MAPS.numpy()}, "'maps', 'probe'"),
    "no maps": ({"probe": np.array(DIGESTS)}, "'maps', 'probe'"),
    "a misspelt name": ({**GOOD, "references": np.array(DIGESTS)}, "Did you mean 'reference'"),
    "channels": ({**GOOD, "maps": np.ones((6, 1, 16, 16))}, r"must be \(M, H, W\)"),
    "no pixels": ({**GOOD, "maps": np.ones((6, 0, 16))}, r"must be \(M, H, W\)"),
    "md5": ({**GOOD, "probe": np.array(["d" * 32] * 6)}, "64 digits of 0-9a-f, got 'dddd"),
    "capitals": ({**GOOD, "probe": np.array(["D" * 64] * 6)}, "64 digits"),
    "a repetition": ({**GOOD, "probe": np.array(DIGESTS[:5] + DIGESTS[:1])}, "rows 0 and 5 are"),
}  # fmt: skip


@pytest.mark.parametrize(("arrays", "fault"), FAULTY.values(), ids=FAULTY.keys())
def test_a_file_that_does_not_keep_the_format_is_refused(
    tmp_path: Path, arrays: dict[str, np.ndarray], fault: str
):
    path = write_npz(tmp_path / "maps.npz", **arrays)
    with pytest.raises(ExplainerContractError, match=fault) as error:
        look_up(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("tensors", "metadata", "fault"),
    [
        ({"maps": MAPS}, None, "__metadata__"),
        ({"maps": MAPS}, {"probe": "1"}, "JSON list"),
        ({"maps": MAPS}, {"probe": "[1]"}, "JSON list"),
        ({"maps": MAPS}, {"probe": "[" * 100_000}, "RecursionError"),
        ({"maps": MAPS}, {"probe": json.dumps(DIGESTS), "author": "me"}, "unknown array 'author'"),
        ({"maps": MAPS, "x": MAPS + 1}, {"probe": json.dumps(DIGESTS)}, "unknown array 'x'"),
        ({"probe": MAPS}, {"maps": json.dumps(DIGESTS)}, "one tensor"),
        ({"maps": MAPS.bfloat16()}, {"probe": json.dumps(DIGESTS)}, "bfloat16"),
        ({"maps": MAPS.int()}, {"probe": json.dumps(DIGESTS)}, "int32"),
    ],
)
def test_a_safetensors_file_that_does_not_keep_the_format_is_refused(
    tmp_path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None, fault: str
):
    path = tmp_path / "maps.safetensors"
    path.write_bytes(safetensors.torch.save(tensors, metadata))
    with pytest.raises(ExplainerContractError, match=fault):
        look_up(path)


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path):
    path = tmp_path / "maps.npz"
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (9000, 300, 300)}
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("maps.npy", "w", force_zip64=True) as file:
            file.write(header.getvalue())
            for _ in range(4):
                file.write(bytes(1 << 20))
        archive.writestr("probe.npy", b"")
    with (
        at_most_bytes(16 << 20),
        pytest.raises(ExplainerContractError, match="announces"),  # the array's header lies
    ):
        look_up(path)
    data = path.read_bytes()
    place = data.rindex(b"PK\1\2", 0, data.rindex(b"PK\1\2"))  # the archive's entry of 'maps'
    lie = data[: place + 24] + (0xFFFFFFF0).to_bytes(4, "little") + data[place + 28 :]
    path.write_bytes(lie)
    with at_most_bytes(16 << 20), pytest.raises(ExplainerContractError, match="bytes are unpacked"):
        look_up(path)


def test_a_map_that_is_announced_to_be_larger_than_the_file_is_not_asked_for(tmp_path: Path):
    path = tmp_path / "maps.npz"
    save_maps(path, MAPS, PROBES)
    data = bytearray(path.read_bytes())
    assert len(look_up(path)) == 6  # a control
    at = data.index(b"PK\1\2") + 20  # compressed size in the list of members
    data[at : at + 4] = (0xF0000000).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(ExplainerContractError, match="larger than the file"):
        look_up(path)


def test_what_a_library_says_of_a_file_is_fit_for_a_terminal(tmp_path: Path):
    path = tmp_path / "maps.safetensors"
    save_maps(path, MAPS, PROBES)
    path.write_bytes(path.read_bytes().replace(b'"dtype":"F32"', b'"dtype":"\\u0007"'))
    with pytest.raises(ExplainerContractError) as caught:
        look_up(path)
    assert str(caught.value).isprintable()


def test_a_file_too_large_to_read_is_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "maps.safetensors"
    with path.open("wb") as file:
        file.truncate(precomputed.MAX_BYTES + 1)  # sparse
    with pytest.raises(ExplainerContractError, match="bytes are read"):
        look_up(path)


@pytest.mark.parametrize(
    ("maps", "probes", "references", "fault"),
    [
        (MAPS[:5], PROBES, None, "each of the 5 maps, got 6"),
        (MAPS[:, :8], PROBES, None, "number and size"),
        (MAPS, PROBES, REFERENCES[:5], "each of the 6 maps, got 5"),
        (MAPS.int(), PROBES, None, "int32"),
        (MAPS, PROBES[[0] * 6], None, "rows 0 and 1 are both maps of"),
        (MAPS, PROBES[:, :1], None, r"images \(N, 3, H, W\)"),
        (MAPS, PROBES.float(), None, "hold other values"),
        (MAPS, PROBES.int(), None, "uint8 or floating"),
    ],
)
@each_format
def test_nothing_is_written_that_could_not_be_read(
    tmp_path: Path, maps: Tensor, probes: Tensor, references: Tensor | None, fault: str, suffix: str
):
    with pytest.raises(ExplainerContractError, match=fault):
        save_maps(tmp_path / f"maps{suffix}", maps, probes, references)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ExplainerContractError, match="name ending in"):
        save_maps(tmp_path / "maps.npy", MAPS, PROBES)


def _bytes_of(suffix: str, packed: bool = False) -> bytes:
    if suffix == ".safetensors":
        return safetensors.torch.save({"maps": MAPS}, {"probe": json.dumps(DIGESTS)})
    file = io.BytesIO()
    (np.savez_compressed if packed else np.savez)(file, **GOOD)
    return file.getvalue()


FILES = [(".npz", _bytes_of(".npz")), (".npz", _bytes_of(".npz", True)),
         (".safetensors", _bytes_of(".safetensors"))]  # fmt: skip


@st.composite
def broken(draw: st.DrawFn) -> tuple[str, bytes, bool]:
    """A file with flipped bits, cut off, or with bytes put in; and whether its archive can tell."""
    suffix, whole = draw(st.sampled_from(FILES))
    data = bytearray(whole)
    # Headers are where a reader goes wrong; they are at both ends.
    places = st.one_of(
        st.integers(0, min(700, len(data) - 1)), st.integers(1, 500).map(lambda n: len(data) - n),
        st.integers(0, len(data) - 1),
    )  # fmt: skip
    for place in draw(st.lists(places, min_size=1, max_size=4)):
        data[place] ^= 1 << draw(st.integers(0, 7))
    if draw(st.booleans()):
        place = draw(places)
        data[place:place] = draw(st.binary(max_size=12))
    if draw(st.booleans()):
        del data[draw(places) :]
    return suffix, bytes(data), suffix == ".npz"


@given(file=broken())
@example(file=(".npz", b"", True))
@example(file=(".safetensors", b"\0" * 8, False))
@example(file=(".safetensors", b"\2" + b"\0" * 7 + b"[]", False))
@example(file=(".safetensors", b"\1" + b"\0" * 7 + b"1", False))
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300, deadline=5000
)
def test_a_damaged_file_gives_the_right_maps_or_an_error_of_ours(
    tmp_path: Path, file: tuple[str, bytes, bool]
):
    suffix, data, has_checksums = file
    path = tmp_path / f"maps{suffix}"
    path.write_bytes(data)
    precomputed._read.cache_clear()
    try:
        maps = look_up(path)
    except FxevalError:
        return
    assert maps.shape == MAPS.shape
    if has_checksums:
        assert torch.equal(maps, MAPS)
