"""Code from elsewhere in place of a version's own is found."""

import json

import pytest

from fxeval.versions import loaded_modules
from fxeval.versions.origins import loaded_from_elsewhere, loaded_in, module_name

CHANGED = ["packages/it/src/it/maps.py", "packages/it/src/it/__init__.py", "README.md"]


@pytest.fixture
def places(tmp_path):
    """Another version of a package in each of: a worktree, the checkout, installed packages."""
    roots = {name: tmp_path / name for name in ("worktree", "checkout", "installed")}
    for name, root in roots.items():
        folder = root if name == "installed" else root / "packages/it/src"
        for file in ("it/maps.py", "it/__init__.py", "it/same.py", "types.py", "it/types.py"):
            path = folder / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("same" if "same" in file else name)
    return roots


def found(places, loaded, changed=CHANGED):
    return [*loaded_from_elsewhere(loaded, places["worktree"], places["checkout"], changed)]


def test_a_version_that_ran_its_own_code_is_fine(places):
    own = places["worktree"] / "packages/it/src/it"
    assert found(places, {"it.maps": own / "maps.py", "it": own / "__init__.py"}) == []


@pytest.mark.parametrize("where", ["checkout", "installed"])
def test_code_of_the_checkout_or_of_an_installed_copy_is_named(places, where):
    folder = places[where] / ("packages/it/src/it" if where == "checkout" else "it")
    loaded = {"it": folder / "__init__.py", "it.maps": folder / "maps.py"}
    assert found(places, loaded) == [
        (CHANGED[0], folder / "maps.py"), (CHANGED[1], folder / "__init__.py"),
    ]  # fmt: skip


def test_code_of_the_checkout_is_known_by_its_place_whatever_its_name(places):
    file = places["checkout"] / "packages/it/src/it/maps.py"
    assert found(places, {"renamed": file}) == [(CHANGED[0], file)]


def test_equal_code_does_no_harm_wherever_it_comes_from(places):
    loaded = {"it.same": places["installed"] / "it/same.py"}
    assert found(places, loaded, ["packages/it/src/it/same.py"]) == []


def test_code_that_did_not_change_does_no_harm(places):
    assert found(places, {"it.maps": places["installed"] / "it/maps.py"}, ["README.md"]) == []


@pytest.mark.parametrize("where", ["checkout", "installed"])
def test_weights_of_a_package_from_elsewhere_are_named(places, where):
    package = "packages/it/src/it"
    for name, root in places.items():
        file = root / ("it" if name == "installed" else package) / "data/weights.npz"
        file.parent.mkdir()
        file.write_text(name)
    changed = [f"{package}/data/weights.npz", "README.md", "docs/figure.png"]
    folder = places[where] / ("it" if where == "installed" else package)
    loaded = {"it": folder / "__init__.py"}
    assert found(places, loaded, changed) == [(changed[0], folder / "data/weights.npz")]
    own = {"it": places["worktree"] / package / "__init__.py"}
    assert found(places, own, changed) == []
    (folder / "data/weights.npz").write_text("worktree")
    assert found(places, loaded, changed) == []


def test_a_file_that_this_version_lacks_is_named_if_another_has_it(places):
    path = places["worktree"] / CHANGED[0]
    path.unlink()
    file = places["installed"] / "it/maps.py"
    assert found(places, {"it.maps": file}) == [(CHANGED[0], file)]


def test_the_standard_library_is_not_taken_for_a_file_of_the_same_name(places, tmp_path):
    loaded = {"types": tmp_path / "installed/types.py"}
    changed = ["packages/it/src/types.py", "packages/it/src/it/types.py"]
    assert found(places, loaded, changed) == []


def test_a_name_is_that_of_the_packages_around_a_file(places):
    root = places["worktree"]
    assert module_name(root, "packages/it/src/it/maps.py") == "it.maps"
    assert module_name(root, "packages/it/src/it/__init__.py") == "it"
    assert module_name(root, "packages/it/src/types.py") == "types"


def test_each_process_writes_down_the_files_of_its_modules(tmp_path, monkeypatch):
    monkeypatch.setenv(loaded_modules.FOLDER, str(tmp_path))
    loaded_modules.pytest_unconfigure()
    (tmp_path / "another.json").write_text(json.dumps({"made.up": "/srv/made/up.py"}))
    modules = loaded_in(tmp_path)
    assert str(modules["made.up"]) == "/srv/made/up.py"
    assert str(modules[__name__]) == __file__
    assert "sys" not in modules


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.delenv(loaded_modules.FOLDER, raising=False)
    monkeypatch.chdir(tmp_path)
    loaded_modules.pytest_unconfigure()
    assert [*tmp_path.iterdir()] == []
