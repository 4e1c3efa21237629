"""Checks of a suite's cells before anything is loaded.

They cover shipped subjects and models with a card. Faults in your own fixtures only show when the
suite runs.
"""

from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fxeval import datasets, explainers, models
from fxeval.contracts import traits_of
from fxeval.errors import DataContractError, FxevalError, ModelContractError, SuiteError
from fxeval.isolation.explainer import IsolatedExplainer
from fxeval.models.cards import read_card
from fxeval.models.from_card import CardModel, Preview, preview
from fxeval.strict.parameters import faults_of, frozen, typed
from fxeval.suite.cells import Cell, Use

if TYPE_CHECKING:
    from fxeval.hooks.layer_info import LayerInfo

Overridden = Mapping[str, frozenset[str]]
SHIPPED_CARDS: Mapping[str, Path] = {
    file.stem: file
    for file in sorted((Path(str(files("fxeval.fixtures"))) / "data" / "cards").glob("*.yaml"))
}
"""Cards of the shipped models, by id."""
PACK = Path(str(files("fxeval.fixtures"))) / "data" / "rendered_faces"
"""The bundled faces."""
BUNDLED_PAIRS = frozenset({"rendered", "rendered_age", "rendered_pose", "rendered_twins"})
"""Lists of the bundled faces, which can be read before anything is measured."""


def devices() -> list[str]:
    """Return the names of this machine's devices, as a suite writes them."""
    import torch

    cuda = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    return ["auto", "cpu", *(["cuda", *cuda] if cuda else [])]


def check_params(role: str, id: str, params: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return every fault of a shipped subject's parameters as (key, message); [] if none.

    >>> check_params("explainer", "srise", {"maks": 10})
    [('maks', "unknown parameter of srise. Did you mean 'masks'?")]

    Args:
        role: ``model``, ``explainer`` or ``pairs``.
        id: Id of the subject; one that is not shipped is not checked.
        params: Name to value, as a suite file gives them.
    """
    if role == "model":
        return _faults_of_model(id, params)
    if role == "explainer" and id == "isolated":
        return _faults_of_isolated(params)
    catalogue = {"explainer": explainers, "pairs": datasets}[role]
    if id not in catalogue.SHIPPED:
        return []
    return faults_of(catalogue.shipped(id), id, params)


def check_cards_of(cells: Sequence[Cell], overridden: Overridden, folder: Path) -> None:
    """Read the cards of the user's models, to find their faults before anything is measured.

    Args:
        cells: Cells of a suite.
        overridden: For each role, the ids for which the user has a fixture.
        folder: Folder of the suite.

    Raises:
        SuiteError: With the faults of every card.
    """
    # Each card is read once: a suite may have thousands of cells and few cards.
    uses = dict.fromkeys(
        (model.where, model.name, _card_of(model, overridden, folder))
        for cell in cells
        for model in cell.models
        if model.id == "card"
    )
    faults = []
    for where, name, card in uses:
        if card is not None:
            try:
                read_card(card)
            except ModelContractError as error:
                faults.append(f"{where}: error: model '{name}': {error}")
    if faults:
        raise SuiteError("\n".join(faults))


def check_layers_of(cells: Sequence[Cell], overridden: Overridden) -> None:
    """Refuse layers that a shipped model does not have.

    Args:
        cells: Cells of a suite.
        overridden: For each role, the ids for which the user has a fixture.

    Raises:
        SuiteError: With every such explainer, its model, and the layers that exist.
    """
    faults: dict[str, None] = {}
    known: dict[str, Any] = {}
    for cell in cells:
        model, explainer = cell.model.id, cell.explainer
        is_ours = model in models.SHIPPED and model not in overridden["model"]
        is_ours &= explainer.id in explainers.SHIPPED
        is_ours &= explainer.id not in overridden["explainer"]
        if is_ours and "layer" in explainer.params:
            if model not in known:
                known[model] = layers_of_shipped(model)
            fault = check_layers(explainer.id, explainer.params, known[model])
            if fault is not None:
                faults[f"{explainer.where}: error: model '{model}': {fault}"] = None
    if faults:
        raise SuiteError("\n".join(faults))


def check_slices_of(cells: Sequence[Cell], overridden: Overridden) -> None:
    """Refuse slices of the bundled faces by columns that they do not have.

    Args:
        cells: Cells of a suite.
        overridden: For each role, the ids for which the user has a fixture.

    Raises:
        SuiteError: With every such column, and the columns that exist.
    """
    from fxeval.engine.slicing import Columns

    faults: dict[str, None] = {}
    known: dict[str, Columns] = {}
    for cell in cells:
        id, params = cell.pairs.id, cell.pairs.params
        if not cell.slices or id not in BUNDLED_PAIRS or id in overridden["pairs"] or params:
            continue
        if id not in known:
            source = datasets.shipped(id)(PACK)
            known[id] = Columns(source, source.listing())
        for one in cell.slices:
            try:
                known[id].check(one)
            except DataContractError as error:
                faults[f"{cell.where}: error: check '{cell.check}': {error}"] = None
    if faults:
        raise SuiteError("\n".join(faults))


def unsupported(
    cells: Sequence[Cell], overridden: Overridden, folder: Path
) -> Iterator[tuple[str, str]]:
    """Yield (cell id, reason) where a model's card rules out what its explainer needs.

    Args:
        cells: Cells of a suite.
        overridden: For each role, the ids for which the user has a fixture.
        folder: Folder of the suite.
    """
    known: dict[Path, Preview | None] = {}
    for cell in cells:
        if cell.explainer.id not in explainers.SHIPPED or (
            cell.explainer.id in overridden["explainer"]
        ):
            continue
        card = _card_of(cell.model, overridden, folder)
        if card is None:
            continue
        if card not in known:
            known[card] = _preview(card)
        offered = known[card]
        reason = None if offered is None else _reason(_needs(cell), offered)
        if reason is not None:
            what = f"{cell.explainer.name} cannot explain {cell.model.name}"
            yield cell.id, f"{what}: {reason}"


def shipped_card(id: str) -> Path:
    """Return the card of a shipped model.

    Raises:
        KeyError: If there is no such model.
    """
    return SHIPPED_CARDS[id]


def check_layers(id: str, params: Mapping[str, Any], layers: Sequence["LayerInfo"]) -> str | None:
    """Return why a network does not have the layers that the parameters name; None if it does.

    Args:
        id: A key of ``SHIPPED``.
        params: Without faults (:func:`check_params`).
        layers: Layers of the network.
    """
    from fxeval.hooks.layers import resolve

    layer = frozen(params.get("layer"))
    if layer is None:
        return None
    try:
        resolve(layer, layers, id, params.get("reading"))
    except FxevalError as error:
        return str(error)
    return None


def layers_of_shipped(model: str) -> "list[LayerInfo]":
    """Return the layers of a shipped model, found without its weights.

    Raises:
        KeyError: If there is no such model.
    """
    import torch

    from fxeval.datasets.faces.alignment import CROPS
    from fxeval.hooks.layers import layers_of

    name = models.SHIPPED[model]
    size = CROPS[models.ARCHITECTURES[name].crop].size
    # On the meta device shapes are computed and no numbers.
    images = torch.empty((1, 3, *size), device="meta")
    return layers_of(models.architecture(name), images)


def _faults_of_model(id: str, params: Mapping[str, Any]) -> list[tuple[str, str]]:
    if id in SHIPPED_CARDS:
        return [(key, f"{id} comes with fxeval and takes no parameters.") for key in params]
    if id != "card":
        return []
    faults = faults_of(CardModel, id, params)
    if not params.get("file") and not any(key == "file" for key, _ in faults):
        example = "{use: card, params: {file: my-model.yaml}}"
        faults.append(("file", f"expected the file of a card. Write: {example}"))
    return faults


def _faults_of_isolated(params: Mapping[str, Any]) -> list[tuple[str, str]]:
    faults = faults_of(IsolatedExplainer, "isolated", params)
    if not params.get("factory") and not any(key == "factory" for key, _ in faults):
        example = '{use: isolated, params: {factory: "my_package:MyExplainer"}}'
        faults.append(("factory", f"expected the factory of an explainer. Write: {example}"))
    return faults


def _card_of(model: Use, overridden: Overridden, folder: Path) -> Path | None:
    if model.id in overridden["model"]:
        return None
    if model.id != "card":
        return SHIPPED_CARDS.get(model.id)
    file = model.params.get("file")
    return (model.folder or folder) / file if isinstance(file, str) else None


def _preview(card: Path) -> Preview | None:
    try:
        return preview(read_card(card))
    except ModelContractError:  # reported by every cell that uses the model
        return None


def _needs(cell: Cell) -> frozenset[str]:
    kind = explainers.shipped(cell.explainer.id)
    try:
        explainer = kind(**typed(kind, cell.explainer.params)[0])
    except (FxevalError, TypeError):  # reported where parameters are checked
        return frozenset()
    return frozenset(traits_of(explainer).needs)


def _reason(needs: frozenset[str], offered: Preview) -> str | None:
    if "gradients" in needs and not offered.has_gradients:
        return f"it needs gradients; {offered.reason}"
    if "layers" in needs and not offered.has_layers:
        return f"it needs layers; {offered.reason}"
    return None
