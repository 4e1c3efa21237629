"""Finds the network that a card names: in the catalogue, beside the card, or as Python finds it.

Modules beside a card are loaded under names of their own. Two cards in different folders may both
name ``network:Net``, and neither hides a module of the same name that the user imports elsewhere.
"""

import hashlib
import importlib
import sys
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from types import ModuleType

from torch import nn

from fxeval.errors import ModelContractError
from fxeval.models import ARCHITECTURES, construct, takes_preprocessing
from fxeval.models.preprocessing import Preprocessing
from fxeval.redaction import of_user_code
from fxeval.strict.text import brief, hint


def network_of(
    factory: str, preprocessing: Preprocessing | None, folder: Path | None = None
) -> nn.Module:
    """Return a network without its weights, from the catalogue or from the user's own code.

    Args:
        factory: A key of ``ARCHITECTURES``, or ``module:callable``.
        preprocessing: Passed to a factory that takes it; None = the factory's own.
        folder: Folder of the card, where modules are looked for first; None = nowhere.

    Raises:
        ModelContractError: If it cannot be built.
    """
    try:
        make, home = _callable(factory, folder)
        with _importing_from(home):
            network = construct(make, preprocessing)
    except ModelContractError:
        raise
    except (Exception, SystemExit) as error:  # user code may raise anything
        said = f"architecture '{brief(factory)}': cannot be built"
        raise ModelContractError(
            f"{said}: {type(error).__name__}: {brief(str(error))}. Name an importable module and a "
            "callable in it that takes no argument or 'preprocessing'.",
            public=f"{said}: {of_user_code(error)}",
        ) from error
    if not isinstance(network, nn.Module):
        raise ModelContractError(
            f"architecture '{brief(factory)}': expected a torch.nn.Module, got "
            f"{type(network).__name__}."
        )
    return network


def takes_the_preprocessing(factory: str, folder: Path | None) -> bool:
    """Say whether a factory has a parameter ``preprocessing``; False if it cannot be imported."""
    try:
        return takes_preprocessing(_callable(factory, folder)[0])
    except (Exception, SystemExit):  # reported when the network is built
        return False


def code_digest(factory: str, folder: Path | None) -> str | None:
    """Return the SHA-256, as hex, of the file that holds a factory; None if it has no file."""
    try:
        file = _module(factory, folder)[0].__file__
        return None if file is None else hashlib.sha256(Path(file).read_bytes()).hexdigest()
    except (AttributeError, OSError):
        return None


def _place(factory: str) -> str:
    return ARCHITECTURES[factory].factory if factory in ARCHITECTURES else factory


def _callable(factory: str, folder: Path | None) -> tuple[Callable[..., nn.Module], Path | None]:
    """Return a factory, and the folder of the card if it was found there."""
    name = _place(factory).partition(":")[2]
    found, home = _module(factory, folder)
    if not hasattr(found, name):
        own = [
            key
            for key, value in vars(found).items()
            if callable(value) and getattr(value, "__module__", "") == found.__name__
        ]
        said = f"architecture '{brief(factory)}': cannot be built: the module"
        raise ModelContractError(
            f"{said} {getattr(found, '__file__', None) or found.__name__} has no '{brief(name)}'. "
            f"{hint(name, own[:20])}",
            public=f"{said} has no '{brief(name)}'",
        )
    make: Callable[..., nn.Module] = getattr(found, name)
    return make, home


def _module(factory: str, folder: Path | None) -> tuple[ModuleType, Path | None]:
    """Import a module from the card's folder if it is there, and else as Python finds modules.

    Returns:
        The module, and the folder if the module was found there and only there.
    """
    name = _place(factory).partition(":")[0]
    if folder is not None and factory not in ARCHITECTURES:
        folder = folder.resolve()
        if _is_beside(name, folder):
            with _importing_from(folder):
                return importlib.import_module(f"{_package(folder)}.{name}"), folder
    try:
        return importlib.import_module(name), None
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if not f"{name}.".startswith(f"{missing}."):  # it is there, and one that it imports is not
            raise
        beside_it = f" beside the card, in {folder}," if folder is not None else ""
        said = f"architecture '{brief(factory)}': cannot be built: there is no module"
        help = "Put it there, or set PYTHONPATH to the folder that holds it."
        raise ModelContractError(
            f"{said} '{brief(missing)}'{beside_it} or where Python finds modules. {help}",
            public=f"{said} '{brief(missing)}' beside the card or where Python finds modules. "
            f"{help}",
        ) from error


def _is_beside(name: str, folder: Path) -> bool:
    """Say whether a module lies in a folder and is not what Python finds by itself."""
    path = folder.joinpath(*name.split("."))
    file = next(
        (one for one in (path.with_suffix(".py"), path / "__init__.py") if one.is_file()), None
    )
    if file is None:
        return False
    try:
        spec = find_spec(name)
    except ModuleNotFoundError:  # the package that holds it is not found
        return True
    except ValueError:  # a module that was made in memory has no spec
        return False
    return spec is None or spec.origin is None or Path(spec.origin).resolve() != file.resolve()


def _package(folder: Path) -> str:
    """Return the name of the package that stands for a folder; it is made once."""
    name = f"fxeval_card_{hashlib.sha256(str(folder).encode()).hexdigest()[:16]}"
    if name not in sys.modules:
        spec = ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = [str(folder)]
        sys.modules[name] = module_from_spec(spec)
    return name


_SIBLINGS: dict[Path, dict[str, ModuleType]] = {}
"""For each folder, the modules that the modules in it imported from it by plain names."""


@contextmanager
def _importing_from(folder: Path | None) -> Iterator[None]:
    """Let modules in a folder import each other by plain names, and leave no trace of it."""
    if folder is None:
        yield
        return
    root = folder.resolve()
    ours = {file.stem for file in root.glob("*.py")}
    ours |= {file.parent.name for file in root.glob("*/__init__.py")}
    ours -= sys.stdlib_module_names | {"fxeval", "torch"}  # what runs now depends on these
    before = _loaded(ours)
    hidden = {name: one for name, one in before.items() if not _is_in(one, root)}
    for name in hidden:
        del sys.modules[name]
    sys.modules.update(_SIBLINGS.get(root, {}))
    sys.path.insert(0, str(root))
    try:
        yield
    finally:
        sys.path.remove(str(root))
        new = {name: one for name, one in _loaded(ours).items() if before.get(name) is not one}
        for name in new:
            del sys.modules[name]
        _SIBLINGS[root] = new
        sys.modules.update(hidden)


def _loaded(names: Set[str]) -> dict[str, ModuleType]:
    """Return the loaded modules that belong to the given top-level names."""
    return {name: one for name, one in sys.modules.items() if name.partition(".")[0] in names}


def _is_in(module: ModuleType, root: Path) -> bool:
    file = getattr(module, "__file__", None)
    return file is not None and Path(file).resolve().is_relative_to(root)
