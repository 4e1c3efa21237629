"""The dlib ResNet: parser, port and accuracy."""

import contextlib
import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fxeval.contracts import Embeddings
from fxeval.datasets.faces.alignment import DLIB_150
from fxeval.datasets.lists.lfw import LfwPairs
from fxeval.errors import ModelContractError
from fxeval.functional.similarity import similarity
from fxeval.models.loading import TorchFaceModel
from fxeval.models.networks import dlib_resnet
from fxeval.models.networks.dlib_resnet import DlibResNet, load_dlib_resnet, parse_dlib_dat
from fxeval.tests.published import assert_printed
from fxeval.tests.rounding import allowance, assert_rounded, terms_of
from fxeval.tests.slow_figures import auc, k_fold_accuracy

FILE = "dlib_face_recognition_resnet_model_v1.dat"
HEADER = 400  # bytes: all of the preamble and the first layer's name


@pytest.fixture(scope="module")
def dat(data_root: Path) -> bytes:
    return (data_root / "weights" / FILE).read_bytes()


@pytest.fixture(scope="module")
def model(data_root: Path) -> TorchFaceModel:
    return load_dlib_resnet(data_root / "weights" / FILE)


def embed_pixels(model: TorchFaceModel, pixels: np.ndarray) -> np.ndarray:
    """Embed (N, H, W, 3) uint8."""
    return model.embed(torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255).numpy()


# --- the port


def test_the_noise_image_has_its_golden_embedding(model: TorchFaceModel):
    generator = np.random.Generator(np.random.PCG64(0))
    image = generator.integers(0, 256, (150, 150, 3), np.uint8)
    embedding = embed_pixels(model, image[None])[0]
    rounding = allowance(2 * terms_of(model.module))  # the golden length was rounded too
    assert np.linalg.norm(embedding) == pytest.approx(1.2808069, rel=rounding)
    expected = [-0.0922, 0.0842, 0.0432, -0.0117, -0.1569]
    assert_printed(torch.from_numpy(embedding), expected, 4, model.module)


@pytest.mark.parametrize(
    ("crops", "embeddings"),
    [("crop_dlib150", "emb_dlib_resnet"), ("dlib_native_chips", "dlib_native_descriptors")],
)
def test_real_faces_have_the_golden_embeddings(model, data_root: Path, crops, embeddings):
    golden = np.load(data_root / "weights" / "golden.npz")
    got = embed_pixels(model, golden[crops])
    # Golden embeddings were rounded too.
    assert_rounded(got, golden[embeddings], terms=2 * terms_of(model.module))


def test_swapped_channels_and_a_wrong_range_miss_the_golden_embeddings(model, data_root: Path):
    golden = np.load(data_root / "weights" / "golden.npz")
    expected = golden["emb_dlib_resnet"]
    for wrong in (golden["crop_dlib150"][..., ::-1].copy(), golden["crop_dlib150"] // 255):
        assert np.abs(embed_pixels(model, wrong) - expected).max(axis=1).min() > 1e-3


def test_the_maps_have_the_sizes_of_the_original():
    module = DlibResNet().eval()
    shapes = []
    for block in module.blocks:
        block.register_forward_hook(lambda _, __, output: shapes.append(tuple(output.shape[1:])))
    assert module(torch.zeros(1, 3, 150, 150)).shape == (1, 128)
    assert shapes == [(32, 35, 35)] * 3 + [(64, 17, 17)] * 4 + [(128, 8, 8)] * 3 + [
        (256, 4, 4)
    ] * 3 + [(256, 2, 2)]


def test_the_network_has_as_many_parameters_as_the_file():
    assert sum(parameter.numel() for parameter in DlibResNet().parameters()) == 5_614_592


@pytest.mark.parametrize("side", [8, 9])
def test_an_odd_shortcut_is_padded_with_zeros_at_the_end(side: int):
    block = dlib_resnet.Block(2, 3, halves=True).eval()
    x = torch.rand(1, 2, side, side) + 1
    for parameter in block.conv2.parameters():
        parameter.data.zero_()  # the convolutions give 0, so only the shortcut is left
    pooled = torch.nn.functional.avg_pool2d(x, 2)
    result = block(x)
    assert result.shape == (1, 3, side // 2, side // 2)
    assert torch.equal(result[:, :2], pooled)
    assert not result[:, 2].any()


def test_a_convolution_smaller_than_its_shortcut_ends_in_the_corner():
    block = dlib_resnet.Block(2, 2, halves=True).eval()
    x = torch.zeros(1, 2, 8, 8)
    for parameter in block.conv2.parameters():
        parameter.data.zero_()
    block.conv2.bias.data.fill_(5)
    expected = torch.zeros(4, 4)
    expected[:3, :3] = 5
    assert torch.equal(block(x)[0, 0], expected)


def test_affine_layers_are_exact_until_their_statistics_are_estimated_anew():
    affine = DlibResNet().eval().affine
    affine.weight.data.uniform_(0.5, 2)
    x = torch.randn(1, 32, 4, 4)
    assert torch.equal(affine(x), x * affine.weight.reshape(1, 32, 1, 1))


def test_gradients_reach_the_image(model: TorchFaceModel):
    image = torch.rand(1, 3, 150, 150, requires_grad=True)
    (gradient,) = torch.autograd.grad(model.module(image).square().sum(), image)
    assert gradient.abs().sum() > 0


# --- the weight file


def test_the_parser_fills_every_parameter(dat: bytes):
    shapes = {name: value.shape for name, value in parse_dlib_dat(dat).items()}
    assert shapes == {name: value.shape for name, value in DlibResNet().named_parameters()}


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_a_file_cut_anywhere_is_refused(dat: bytes, data):
    at = data.draw(st.one_of(st.integers(0, HEADER), st.integers(0, len(dat) - 1)))
    with pytest.raises(ModelContractError, match="byte"):
        parse_dlib_dat(dat[:at])


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_damage_in_the_first_layers_is_refused(dat: bytes, data):
    damaged = bytearray(dat[:60_000])  # the whole file would cost 22 MB an example
    first_affine = dat.index(b"affine_")
    places = st.integers(0, HEADER) | st.integers(first_affine - 70, first_affine + 80)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(places)] = data.draw(st.integers(0, 255))
    with pytest.raises(ModelContractError, match="byte"):
        parse_dlib_dat(bytes(damaged))


@settings(deadline=None, max_examples=10)
@given(st.integers(1, 4000), st.integers(0, 255))
def test_damage_in_the_last_layer_is_refused_or_changes_one_weight(dat: bytes, at, value):
    damaged = bytearray(dat)
    damaged[-at] = value
    with contextlib.suppress(ModelContractError):
        assert len(parse_dlib_dat(bytes(damaged))) == 4 * 29 + 1


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_garbage_is_refused(garbage: bytes):
    with pytest.raises(ModelContractError, match="dlib weights, byte"):
        parse_dlib_dat(garbage)


def test_nan_weights_and_trailing_bytes_are_refused(dat: bytes):
    with pytest.raises(ModelContractError, match="1 more bytes"):
        parse_dlib_dat(dat + b"x")
    at = len(dat) - 4096
    with pytest.raises(ModelContractError, match=r"'fc\.weight' are NaN"):
        parse_dlib_dat(dat[:at] + struct.pack("<f", float("nan")) + dat[at + 4 :])


def test_another_file_is_refused_by_its_digest(dat: bytes, tmp_path: Path):
    (tmp_path / "x.dat").write_bytes(dat[:-1] + bytes([dat[-1] ^ 1]))
    with pytest.raises(ModelContractError, match=r"x\.dat: expected SHA-256 5553"):
        load_dlib_resnet(tmp_path / "x.dat")


def test_without_the_package_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelContractError, match=r'pip install "fxeval\[dlib\]"'):
        load_dlib_resnet()


def test_the_installed_package_is_found_and_not_imported(data_root, tmp_path: Path, monkeypatch):
    package = tmp_path / "face_recognition_models"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('imported')")
    (package / "models" / FILE).symlink_to(data_root / "weights" / FILE)
    monkeypatch.syspath_prepend(tmp_path)
    assert load_dlib_resnet().digest == dlib_resnet.DIGEST


# --- accuracy on real faces


def embed_all(model: TorchFaceModel, pairs: LfwPairs) -> tuple[Embeddings, Embeddings, np.ndarray]:
    listing = pairs.listing()
    ids = sorted({*listing.probe, *listing.reference})
    images = pairs.images(ids, model.crop)
    embedded = torch.cat([model.embed(batch / 255) for batch in images.split(64)])
    row = {image_id: index for index, image_id in enumerate(ids)}
    probes = embedded[[row[image_id] for image_id in listing.probe]]
    return (
        probes,
        embedded[[row[image_id] for image_id in listing.reference]],
        np.array(listing.is_mated),
    )


def test_core_pairs_are_told_apart(model: TorchFaceModel, data_root: Path, tmp_path: Path):
    rows = [
        line.split("\t")
        for line in (data_root / "pairs" / "core_pairs.txt").read_text().splitlines()
        if not line.startswith("#")
    ]
    # 100 pairs of each kind, in LFW's own format
    mated = [row for row in rows if row[2] == "1"][:100]
    nonmated = [row for row in rows if row[2] == "0"][:100]
    lines = ["1\t100"]
    for one, two, _ in mated + nonmated:
        (name1, i), (name2, j) = one.split("/"), two.split("/")
        second = [] if name1 == name2 else [name2]
        lines.append("\t".join([name1, str(int(i)), *second, str(int(j))]))
    (tmp_path / "core.txt").write_text("\n".join(lines))
    probes, references, is_mated = embed_all(
        model, LfwPairs(data_root, pairs_file=tmp_path / "core.txt")
    )
    native = similarity(model.similarity, probes, references).numpy()
    assert auc(native, is_mated) > 0.995
    assert ((native >= model.operating_threshold) == is_mated).mean() > 0.97


@pytest.mark.slow
def test_lfw_is_decided_as_accurately_as_published(model: TorchFaceModel, data_root: Path):
    manifest = json.loads((data_root / "weights" / "manifest.json").read_text())
    card = next(entry for entry in manifest["models"] if entry["name"] == "dlib_resnet")
    published = card["measured"]["lfw_folds_1_5_shared"]
    probes, references, is_mated = embed_all(model, LfwPairs(data_root))
    native = similarity("neg_l2", probes, references).numpy()
    cosine = similarity("cosine", probes, references).numpy()
    accuracy = k_fold_accuracy("neg_l2", native, is_mated, n_folds=5)
    assert accuracy.mean == pytest.approx(published["accuracy_5fold"], abs=0.005)
    assert auc(cosine, is_mated) == pytest.approx(published["auc"], abs=1e-5)
    assert ((native >= model.operating_threshold) == is_mated).mean() > 0.98
    assert model.crop == DLIB_150
