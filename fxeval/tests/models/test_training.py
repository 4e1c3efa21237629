"""How the shipped networks are trained, and how their cards are written."""

import hashlib
import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from fxeval.errors import ModelContractError
from fxeval.fixtures.synthetic import cards, evaluate, train
from fxeval.fixtures.synthetic.cards import FAMILY_OF, calibrate, model_of
from fxeval.fixtures.synthetic.evaluate import lists_of, verified, verify
from fxeval.fixtures.synthetic.train import RECIPES, Recipe, cosface, save
from fxeval.models import ARCHITECTURES, build
from fxeval.models.cards import read_card
from fxeval.models.files.formats import parse_safetensors
from fxeval.models.from_card import load_card
from fxeval.tests.rounding import assert_rounded

EVERY_NETWORK = pytest.mark.parametrize("name", RECIPES)


def blots(n_identities: int, n_images: int, seed: int = 0) -> np.ndarray:
    """Return (I, K, 112, 112, 3) pictures: blots of colour for each identity, and noise."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(40, 216, (n_identities, 7, 7, 3)).astype(np.uint8)
    faces = np.stack([cv2.resize(one, (112, 112)) for one in coarse]).astype(int)
    noise = generator.integers(-30, 31, (n_identities, n_images, 112, 112, 3))
    return (faces[:, None] + noise).astype(np.uint8)


@pytest.fixture(scope="module")
def faces():
    return blots(8, 4)


def untrained(name: str) -> nn.Module:
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(0)
        return build(ARCHITECTURES[name].factory).eval()


def test_every_network_with_a_recipe_is_in_the_catalogue_and_has_a_family():
    assert RECIPES.keys() == FAMILY_OF.keys()
    assert RECIPES.keys() == {name for name in ARCHITECTURES if name.startswith("mini_")}


def test_cosface_of_a_known_case():
    embeddings, centers = torch.tensor([[3.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 5.0]])
    right = cosface(embeddings, centers, torch.tensor([0]), 0.9)
    # The logits, 24 times a cosine less a margin, are rounded.
    assert_rounded(right, np.log1p(np.exp(-24 * 0.1)), terms=4, scale=24)
    wrong = cosface(embeddings, centers, torch.tensor([1]), 0.3)
    assert_rounded(wrong, 24 * 1.3, terms=4)


@EVERY_NETWORK
def test_few_steps_lower_the_loss_of_each_network(name, faces):
    state, seen = torch.random.get_rng_state(), []
    recipe = replace(RECIPES[name], epochs=5, batch=16, learning_rate=1e-3, warm_up=0.2, margin=0.0)
    network, losses = train.train(
        name, faces, recipe, lambda network, epoch: seen.append((network.training, epoch.loss))
    )
    assert losses[-1] < 0.6 * losses[0]
    assert seen == [(False, loss) for loss in losses]
    assert not network.training
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_network_learns_the_embeddings_of_its_teacher(faces, tmp_path):
    teacher = untrained("mini_resnet")
    save(teacher, tmp_path / "teacher.safetensors")
    again = train.restored("mini_resnet", tmp_path / "teacher.safetensors")
    images = faces.reshape(-1, *faces.shape[2:])
    wanted = evaluate.embed(model_of("teacher", again), images).clone()
    recipe = replace(RECIPES["mini_resnet"], epochs=5, batch=16, learning_rate=1e-3, seed=3)
    # A direction for each person: what a teacher of untrained weights says is alike for all.
    wanted = wanted - wanted.mean(0)

    def agreement(taught):
        network, _ = train.train("mini_resnet", faces, recipe, taught=taught)
        found = evaluate.embed(model_of("pupil", network), images)
        return torch.cosine_similarity(found, wanted).mean()

    assert agreement(wanted) > agreement(None) + 0.2


def test_training_repeats_itself_with_its_dropout(faces):
    recipe = Recipe(epochs=1, batch=16)
    _, once = train.train("mini_inception", faces, recipe)
    torch.rand(3)
    _, again = train.train("mini_inception", faces, recipe)
    _, other = train.train("mini_inception", faces, replace(recipe, seed=2))
    # After a training step no sum bounds the error: rounding grows from step to step.
    assert again[0] == pytest.approx(once[0], rel=1e-4)
    assert other[0] != pytest.approx(once[0], rel=1e-3)


def test_only_weights_and_centres_decay():
    class Small(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.norm, self.prelu = nn.Linear(2, 3), nn.BatchNorm1d(3), nn.PReLU(3)
            self.token, self.places = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(4, 3))

    network, centers = Small(), nn.Parameter(torch.ones(5, 3))
    optimizer = train._optimizer(network, centers, Recipe(epochs=1, weight_decay=0.1))
    decays = {
        id(one): group["weight_decay"]
        for group in optimizer.param_groups
        for one in group["params"]
    }
    assert len(decays) == 8
    assert [one for one, decay in decays.items() if decay] == [id(centers), id(network.fc.weight)]


def test_a_shift_moves_images_by_a_few_pixels_and_fills_in_their_edges():
    images = torch.zeros(64, 3, 20, 20, dtype=torch.uint8)
    images[:, :, 10, 10] = 255
    images[:, :, :, 0] = 100
    generator = torch.Generator().manual_seed(0)
    moved = train._augment(images, 3, generator)
    assert moved.shape == images.shape
    places = {divmod(int(one[0].argmax()), 20) for one in moved}
    assert {row for row, _ in places} == set(range(7, 14))
    assert {column for _, column in places} <= set(range(6, 14))  # flipped or not
    still = train._augment(images, 0, torch.Generator().manual_seed(0))
    assert {int(one[0].argmax()) for one in still} == {210, 209}


@EVERY_NETWORK
def test_saved_weights_are_those_of_the_network_in_half_precision(tmp_path, name):
    network, file = untrained(name), tmp_path / f"{name}.safetensors"
    network.to(memory_format=torch.channels_last)
    file.write_bytes(b"older weights")
    save(network, file)
    assert file.stat().st_size <= 3_000_000
    stored = parse_safetensors(file.read_bytes(), name)
    for key, value in network.state_dict().items():
        expected = value.half().float() if value.is_floating_point() else value
        assert torch.equal(stored[key], expected), key
    assert list(tmp_path.iterdir()) == [file]


def test_calibration_finds_the_threshold_that_balances_errors(faces):
    class Flat(nn.Module):
        def forward(self, images):
            return images.mean((2, 3))  # the mean colour

    found = calibrate(model_of("flat", Flat()), faces)
    assert found.auc == found.accuracy == 1
    assert -1 < found.threshold < 1
    mixed = calibrate(
        model_of("flat", Flat()), np.roll(faces, 2, axis=1).reshape(4, 8, *faces.shape[2:])[:, ::3]
    )
    assert mixed.accuracy < 1


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    """Thirty identities with two mild, an aged and a posed picture each."""
    folder = tmp_path_factory.mktemp("pack")
    images = []
    for identity, pictures in enumerate(blots(30, 4, seed=1)):
        for number, picture in enumerate(pictures):
            name = f"{identity}_{number}.jpg"
            data = cv2.imencode(".jpg", picture)[1].tobytes()
            (folder / name).write_bytes(data)
            nuisance = ("mild", "mild", "aged", "posed")[number]
            images.append(
                {
                    "file": name, "sha256": hashlib.sha256(data).hexdigest(), "identity": identity,
                    "number": number, "attributes": {"nuisance": nuisance},
                }
            )  # fmt: skip
    manifest = {"crop": "arcface112", "generator_version": 2, "images": images}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture
def quick(tmp_path, faces, monkeypatch):
    """Options of a training of two steps, into the folder ``out``."""
    few = {name: replace(recipe, epochs=1, batch=8) for name, recipe in RECIPES.items()}
    monkeypatch.setattr(train, "RECIPES", few)
    np.savez(tmp_path / "faces.npz", training=blots(4, 4), calibration=faces)
    return [str(tmp_path / "faces.npz"), "--out", str(tmp_path / "out"), "--threads", "1"]


def test_training_leaves_weights_and_a_card_whose_claims_hold(tmp_path, quick, pack):
    train.main(["mini_mobile", *quick, "--pack", str(pack)])
    out = tmp_path / "out"
    assert {file.name for file in out.iterdir()} == {"mini_mobile.yaml", "mini_mobile.safetensors"}
    card = read_card(out / "mini_mobile.yaml")
    assert (card.name, card.architecture) == ("mini_mobile", "mini_mobile")
    assert card.trained_on == "4 rendered identities x 4 images; no real faces"
    assert "8 rendered identities x 4 images" in card.threshold_set_by
    assert dict(card.tags) == {"training_data": "synthetic", "family": "mobile"}
    model, lists = load_card(card.file), lists_of(pack)
    assert [claim.pairs for claim in card.claims] == [pairs for pairs in lists for _ in range(2)]
    found = {pairs: verify(model, source) for pairs, source in lists.items()}
    for claim in card.claims:
        one = found[claim.pairs]
        value = verified(one).figures[claim.metric].value
        assert value == pytest.approx(claim.value, abs=claim.within)
        assert (claim.of, claim.list_digest) == ("list", one.list_digest)
    written = card.file.read_bytes()
    cards.main(["mini_mobile", quick[0], "--folder", str(out), "--pack", str(pack)])
    assert card.file.read_bytes() == written


def test_a_training_that_is_stopped_leaves_the_weights_of_its_last_epoch(
    tmp_path, quick, monkeypatch
):
    def stop(*_args):
        raise KeyboardInterrupt

    out = tmp_path / "out"
    out.mkdir()
    save(untrained("mini_resnet"), out / "mini_resnet.safetensors")  # its teacher
    monkeypatch.setattr(train, "calibrate", stop)
    with pytest.raises(KeyboardInterrupt):
        train.main(["mini_vit", *quick])
    checkpoint = out / "mini_vit.checkpoint.safetensors"
    assert {*out.iterdir()} == {checkpoint, out / "mini_resnet.safetensors"}
    stored = parse_safetensors(checkpoint.read_bytes(), "checkpoint")
    assert stored.keys() == untrained("mini_vit").state_dict().keys()


def test_a_network_without_its_teacher_is_told_which_file_is_missing(quick):
    with pytest.raises(ModelContractError, match=r"mini_resnet.safetensors: the weights"):
        train.main(["mini_vit", *quick])
