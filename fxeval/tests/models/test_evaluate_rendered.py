"""What is measured of the networks trained on rendered faces, on toy packs with known answers."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fxeval.datasets.lists.face_pack import BANNER, FacePack
from fxeval.datasets.lists.twin_pairs import TwinPairs
from fxeval.errors import DataContractError, EvidenceError
from fxeval.fixtures.synthetic import evaluate
from fxeval.fixtures.synthetic.cards import Faces, model_of, write_card
from fxeval.fixtures.synthetic.evaluate import lists_of, on_twins, verified, verify
from fxeval.fixtures.synthetic.train import save
from fxeval.tests.datasets.test_twin_pairs import PARTS, PLACES, write_folder
from fxeval.tests.models.test_training import blots, pack, untrained

__all__ = ["pack"]  # a fixture


class Grid(nn.Module):
    """Compares brightness place by place, above a line only."""

    def __init__(self, line: int = 112) -> None:
        super().__init__()
        self.line = line

    def forward(self, images: Tensor) -> Tensor:
        return images[:, :, : self.line, ::2].flatten(1) - 0.5


@pytest.fixture
def twins(tmp_path):
    write_folder(tmp_path)
    return TwinPairs(tmp_path)


def test_a_model_that_sees_everything_decides_every_triplet(twins):
    found = on_twins(model_of("grid", Grid()), twins)
    assert list(found) == sorted(PARTS, key=lambda pair: pair[0] == "pasted")
    for one in found.values():
        assert one.n == 6
        assert one.decided.value == 1
        assert 0 < one.decided.low < 1
        assert 0 < one.moved.low <= one.moved.value <= one.moved.high


def test_a_model_that_does_not_see_a_part_does_not_decide_by_it(twins):
    line = PLACES["jaw"][0]
    found = on_twins(model_of("half", Grid(line)), twins)
    blind = found["redrawn", "jaw"]
    assert (blind.decided.value, blind.moved.value) == (0, pytest.approx(0, abs=1e-6))
    assert found["redrawn", "brows"].decided.value == 1


def test_a_folder_without_twins_is_refused_by_name(pack):
    with pytest.raises(DataContractError, match="twins"):
        on_twins(model_of("grid", Grid()), TwinPairs(pack))


def test_a_list_that_tells_nothing_is_refused_with_the_reason(twins):
    with pytest.raises(EvidenceError, match="identities"):
        verify(model_of("grid", Grid()), FacePack(twins.root))


def test_a_good_and_a_useless_model_differ_on_every_list(pack):
    class Useless(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images[:, :, ::9, ::9].flatten(1).sin() * 1e4 % 1 - 0.5

    for source in lists_of(pack).values():
        good = verified(verify(model_of("grid", Grid()), source)).figures
        useless = verified(verify(model_of("useless", Useless()), source)).figures
        assert good["verification_accuracy"].value > 0.95
        assert useless["verification_accuracy"].value < 0.7


def test_the_command_writes_a_table_of_each_question(tmp_path, pack, twins, monkeypatch, capsys):
    weights = tmp_path / "mini_mobile.safetensors"
    save(untrained("mini_mobile"), weights)
    write_card("mini_mobile", weights, Faces(blots(8, 4), (4, 4)), pack)
    monkeypatch.setattr(evaluate, "TwinPairs", lambda _root: twins)
    evaluate.main(["--pack", str(pack), "--card", str(weights.with_suffix(".yaml"))])
    written = capsys.readouterr().out
    assert written.count("(95 % interval)") == 4
    assert "| network | rendered | rendered_age | rendered_pose |" in written
    assert "| network | twins | nose | mouth | eyes | brows | jaw |" in written
    assert written.count("| mini_mobile | pasted |") == 2
    assert " of 6 |" in written
    assert BANNER in written
    rows = [line.count("|") for line in written.splitlines() if line.startswith("|")]
    assert set(rows) == {5, 6, 8}


def test_embedding_in_batches_keeps_the_order():
    faces = np.random.default_rng(0).integers(0, 256, (70, 112, 112, 3), np.uint8)
    model = model_of("grid", Grid())
    alone = model.embed(torch.from_numpy(faces[69:]).permute(0, 3, 1, 2) / 255)
    assert torch.equal(evaluate.embed(model, faces)[69:], alone)
