"""The network that a card names: beside the card, or where Python finds it."""

import hashlib
import inspect
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

from fxeval.errors import ModelContractError
from fxeval.models.from_card import load_card
from fxeval.tests.models.test_from_card import FREE

NETWORK = """
import torch
from torch import nn
from fxeval_test_parts import SIZE

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        from fxeval_test_later import VALUES
        self.conv = nn.Conv2d(3, SIZE, 3, stride=2)
        self.fc = nn.Linear(SIZE, VALUES)

    def forward(self, x):
        return self.fc(torch.relu(self.conv(x)).mean((2, 3)))
"""


@pytest.fixture(autouse=True)
def modules_as_before():
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("fxeval_test_"):
            del sys.modules[name]


def written(folder: Path, size: int, module: str = "fxeval_test_net") -> Path:
    """A folder with a network of that size, its weights and their card."""
    file = folder / f"{module.replace('.', '/')}.py"
    file.parent.mkdir(parents=True)
    file.write_text(NETWORK)
    (folder / "fxeval_test_parts.py").write_text(f"SIZE = {size}\n")
    (folder / "fxeval_test_later.py").write_text("VALUES = 5\n")
    shapes = {"conv.weight": (size, 3, 3, 3), "conv.bias": (size,)}
    shapes |= {"fc.weight": (5, size), "fc.bias": (5,)}
    draw = torch.Generator().manual_seed(size)
    state = {name: torch.randn(shape, generator=draw) for name, shape in shapes.items()}
    data = safetensors.torch.save(state)
    (folder / "net.safetensors").write_bytes(data)
    card = folder / "card.yaml"
    card.write_text(
        f"card: 1\nname: own\nweights: net.safetensors\n"
        f"sha256: {hashlib.sha256(data).hexdigest()}\narchitecture: {module}:Net\n{FREE}"
    )
    return card


def test_modules_of_one_name_beside_two_cards_are_two_modules(tmp_path: Path):
    paths, modules = list(sys.path), set(sys.modules)
    cards = [written(tmp_path / str(size), size) for size in (4, 6)]
    models = [load_card(card) for card in (*cards, cards[0])]
    sizes = [model.module.network.conv.out_channels for model in models]
    assert sizes == [4, 6, 4]
    assert type(models[0].module.network) is type(models[2].module.network)
    code = (cards[0].parent / "fxeval_test_net.py").read_bytes()
    assert models[0].traits.code == hashlib.sha256(code).hexdigest()
    assert sys.path == paths
    added = {name for name in set(sys.modules) - modules if "fxeval_test" in name}
    assert all(name.startswith("fxeval_card_") for name in added)
    assert "class Net" in inspect.getsource(type(models[1].module.network))


def test_a_package_beside_the_card_is_found(tmp_path: Path):
    card = written(tmp_path / "a", 4, "fxeval_test_kit.nets")
    assert load_card(card).module.network.conv.out_channels == 4


def test_a_module_that_the_user_imports_elsewhere_is_not_replaced(tmp_path: Path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "fxeval_test_parts.py").write_text("SIZE = 99\n")
    monkeypatch.syspath_prepend(str(elsewhere))
    import fxeval_test_parts as users

    model = load_card(written(tmp_path / "a", 4))
    assert model.module.network.conv.out_channels == 4
    assert sys.modules["fxeval_test_parts"] is users


def test_a_module_that_python_finds_itself_is_the_one_that_others_import(tmp_path, monkeypatch):
    card = written(tmp_path / "a", 4)
    monkeypatch.syspath_prepend(str(card.parent))
    model = load_card(card)
    import fxeval_test_net

    assert type(model.module.network) is fxeval_test_net.Net


def test_a_missing_module_is_told_with_the_folder_and_the_way_out(tmp_path: Path):
    card = written(tmp_path / "a", 4)
    card.write_text(card.read_text().replace("fxeval_test_net", "fxeval_test_nett"))
    with pytest.raises(ModelContractError) as caught:
        load_card(card)
    assert str(caught.value) == (
        "architecture 'fxeval_test_nett:Net': cannot be built: there is no module "
        f"'fxeval_test_nett' beside the card, in {card.parent}, or where Python finds modules. Put "
        "it there, or set PYTHONPATH to the folder that holds it."
    )
    assert str(card.parent) not in caught.value.public


def test_a_missing_factory_and_a_module_missing_inside_are_told_apart(tmp_path: Path):
    card = written(tmp_path / "a", 4)
    card.write_text(card.read_text().replace(":Net", ":Nett"))
    with pytest.raises(ModelContractError, match=r"net\.py has no 'Nett'\. Did you mean 'Net'\?"):
        load_card(card)
    card.write_text(card.read_text().replace("_net:Nett", "_net.part:Net"))
    with pytest.raises(ModelContractError, match=r"no module 'fxeval_test_net' beside the card"):
        load_card(card)
    other = written(tmp_path / "b", 4)
    (other.parent / "fxeval_test_parts.py").write_text("import fxeval_test_of_nobody\n")
    with pytest.raises(ModelContractError, match="No module named 'fxeval_test_of_nobody'"):
        load_card(other)
