"""The direction of imports: a module imports from its own layer or from lower ones only."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = [
    "errors discretion results listings registry seeding strict_yaml strict_forms",
    "records",
    "statistics",
    "contracts traits admission cells parameters",
    "similarity ranking perturbation randomisation map_similarity verification weighted_pairs",
    "models explainers datasets metrics",
    "planted",
    "plan forward_pool explain meter bench cell_engine described row_tables chosen_pairs baseline "
    "claims preflight run configure",
    "suite suite_forms suite_rules suite_schema store environment scorecard gather",
    "plugin session cli __main__",
]
LAYERS = [set(layer.split()) for layer in LAYERS]
HOMES = {
    "click": {"cli"},
    "yaml": {"strict_yaml"},
    "jinja2": {"scorecard"},
    "pytest": {"plugin", "session"},
    "cv2": {"datasets"},
    "scipy": set(),
}
FILES = [path for path in sorted(ROOT.rglob("*.py")) if "tests" not in path.parts]


def layer(unit: str) -> int:
    return next(number for number, units in enumerate(LAYERS) if unit in units)


def imports(path: Path) -> set[str]:
    """Every module that a file imports, wherever in the file."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import"
            module = node.module or ""
            found |= {f"{module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_from_its_own_layer_or_lower_ones(path: Path):
    unit = path.relative_to(ROOT).parts[0].removesuffix(".py")
    if unit == "__init__":
        return
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "fxeval" and len(parts) > 1 and parts[1] in set().union(*LAYERS):
            assert layer(parts[1]) <= layer(unit), f"{unit} must not import {parts[1]}"
        if parts[0] in HOMES:
            assert unit in HOMES[parts[0]], f"{parts[0]} is at home in {HOMES[parts[0]]}"


def test_every_module_has_a_layer():
    units = {path.relative_to(ROOT).parts[0].removesuffix(".py") for path in FILES}
    assert units - {"__init__"} <= set().union(*LAYERS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_is_short_enough_to_read(path: Path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400
