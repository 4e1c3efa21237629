"""The direction of imports: from the same floor or down, and never in a circle."""

import ast
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = """
errors redaction
strict
contracts listings results seeding slices traits
records
versions
statistics
store
functional
hooks
datasets
models
explainers
metrics
engine
isolation
verification
truth
suite
scorecard
run
plugin hookspec
cli
__main__
""".strip().splitlines()
"""From the lowest up: one room a line, but for the words that every room shares."""

FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms.split()}
HOMES = {
    "click": {"cli"},
    "yaml": {"strict"},
    "jinja2": {"scorecard"},
    "pytest": {"plugin", "hookspec", "run"},
    "cv2": {"datasets", "functional"},
    "scipy": set[str](),
    "ruptures": {"statistics"},
    "sqlalchemy": {"store"},
    "mlflow": {"store"},
}
WITHOUT_TORCH = ("records", "statistics", "scorecard", "store", "versions")
FILES = [path for path in sorted(ROOT.rglob("*.py")) if not {"tests", "fixtures"} & {*path.parts}]


def module(path: Path) -> str:
    """Return a module's dotted name without ``fxeval.``; a package's is its folder's."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module(path): path.read_text(encoding="utf-8") for path in FILES}

NAMES = [name for name in MODULES if name]  # all but fxeval itself


def imports(source: str, modules: Iterable[str] = MODULES) -> set[str]:
    """Return what a module imports, wherever in it; of fxeval the module that is meant."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            for alias in node.names:
                deeper = f"{node.module}.{alias.name}"
                found.add(deeper if deeper.removeprefix("fxeval.") in modules else str(node.module))
    return found


def within(source: str, modules: Iterable[str]) -> set[str]:
    """Return the modules of fxeval that a module imports."""
    named = imports(source, modules)
    return {name.removeprefix("fxeval.") for name in named if name.startswith("fxeval.")}


def climbs(name: str, source: str, modules: Iterable[str] = MODULES) -> list[str]:
    """Return the imports of a module that go up."""
    own = FLOOR_OF[name.split(".")[0]]
    return sorted(one for one in within(source, modules) if FLOOR_OF[one.split(".")[0]] > own)


def circle(modules: Mapping[str, str]) -> list[str]:
    """Return the modules of one circle of imports; nothing if there is none."""
    arrows = {name: within(source, modules) & modules.keys() for name, source in modules.items()}
    while arrows:
        ends = [name for name, into in arrows.items() if not into & arrows.keys()]
        if not ends:
            break
        for name in ends:
            del arrows[name]
    return sorted(arrows)


@pytest.mark.parametrize("name", NAMES)
def test_a_module_imports_from_its_own_floor_or_lower_ones(name: str):
    assert climbs(name, MODULES[name]) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_library_is_imported_in_its_home_only(name: str):
    room = name.split(".")[0]
    for one in {one.split(".")[0] for one in imports(MODULES[name])} & HOMES.keys():
        assert room in HOMES[one], f"{one} is at home in {HOMES[one]}, not in {room}"
    if room in WITHOUT_TORCH:
        assert "torch" not in {one.split(".")[0] for one in imports(MODULES[name])}


def test_no_import_goes_in_a_circle():
    assert circle(MODULES) == []


def test_what_this_file_looks_for_is_found():
    planted = "def late():\n    from fxeval.run.workshop import Workshop\n"
    assert climbs("engine.maps", planted) == ["run.workshop"]
    assert climbs("models", "from fxeval import explainers") == ["explainers"]
    assert climbs("strict.text", "import fxeval.contracts") == ["contracts"]
    assert climbs("metrics.orders", "from fxeval.functional.ranking import ranks") == []
    pair = {
        "models.files.one": "from fxeval.models.files.two import x",
        "models.files.two": "def f():\n    from fxeval.models.files import one",
        "models": "import fxeval.models.files.one",
    }
    assert circle(pair) == ["models", "models.files.one", "models.files.two"]
    assert circle({"one": "import fxeval.two", "two": "import torch"}) == []


def test_every_room_has_a_floor_and_every_floor_a_room():
    assert {name.split(".")[0] for name in MODULES if name} == FLOOR_OF.keys()
    assert len(FLOORS) == len(FLOOR_OF) - sum(len(rooms.split()) - 1 for rooms in FLOORS)


@pytest.mark.parametrize("name", MODULES)
def test_a_module_is_short_enough_to_read(name: str):
    assert len(MODULES[name].splitlines()) <= 400


@pytest.mark.parametrize("name", MODULES)
def test_a_function_is_short_enough_to_read(name: str):
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    found = [node for node in ast.walk(ast.parse(MODULES[name])) if isinstance(node, functions)]
    long = [one.name for one in found if (one.end_lineno or 0) - one.lineno >= 60]
    assert long == []
