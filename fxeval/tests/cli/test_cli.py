"""The command describes what is there, in 80 columns or as JSON, and loads no torch to start."""

import importlib
import json
import subprocess
import sys
import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import ClassVar, Literal

import pytest
from click.testing import CliRunner, Result

import fxeval
from fxeval import cli, datasets
from fxeval.cli import listing
from fxeval.contracts import ExplainerTraits
from fxeval.explainers import SHIPPED, shipped


@dataclass(frozen=True)
class Odd:
    """Everything a field may be, in one explainer whose summary takes more than one line.

    More, which a list does not show.
    """

    objective: str = "native"
    layers: tuple[str, ...] = ("stage3", "stage4")
    fill: Literal["blur", "mean", "black"] = "blur"
    layer: str | None = None
    path: str = ""
    sigma: float = 0.1
    is_signed: bool = False
    made: list[str] = field(default_factory=lambda: ["here"])
    state: int = field(default=0, init=False)

    @property
    def traits(self) -> ExplainerTraits:
        return ExplainerTraits({"layers", "contrast" if self.objective == "native" else "gallery"})


@dataclass(frozen=True)
class Silent:
    """Nothing but a map."""

    traits: ClassVar[ExplainerTraits] = ExplainerTraits(
        source="Nobody, Journal of Nothing 1999, " + "sec. 1 and " * 9 + "sec. 2"
    )


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.main, arguments)


@pytest.fixture
def odd_catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    catalogue = {"silent": f"{__name__}:Silent", "odd": f"{__name__}:Odd"}
    monkeypatch.setattr(listing, "SHIPPED", catalogue)
    monkeypatch.setattr("fxeval.explainers.SHIPPED", catalogue)


def test_every_shipped_explainer_is_described_with_every_field():
    result = run("list", "explainers", "--json")
    assert result.exit_code == 0, result.output
    cards = {card["id"]: card for card in json.loads(result.output)}
    assert cards.keys() == SHIPPED.keys()
    for id, card in cards.items():
        explainer = shipped(id)
        assert card["summary"].endswith("."), id
        assert card["needs"] == sorted(explainer().traits.needs), id
        assert card["source"] == explainer().traits.source, id
        assert [one["name"] for one in card["params"]] == [
            one.name for one in fields(explainer) if one.init
        ]
        for one in card["params"]:
            assert one["default"] == _plain(getattr(explainer(), one["name"])), id


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def test_the_list_for_people_names_what_the_one_for_machines_does():
    text, cards = run("list", "explainers").output, run("list", "explainers", "--json").output
    for card in json.loads(cards):
        assert f"\n{card['id']}\n" in f"\n{text}"
        for one in card["params"]:
            assert f"{one['name']} = " in text


def test_the_list_for_people_fits_into_80_columns_without_a_terminal(odd_catalogue: None):
    result = run("list", "explainers")
    assert result.exit_code == 0, result.output
    assert max(map(len, result.output.splitlines())) <= 80
    assert not any(line != line.rstrip() for line in result.output.splitlines())
    assert "\x1b" not in result.output


@pytest.mark.usefixtures("odd_catalogue")
def test_types_and_defaults_are_written_as_a_suite_writes_them():
    assert run("list", "explainers").output == (
        "odd\n"
        "  Everything a field may be, in one explainer whose summary takes more than one\n"
        "  line.\n"
        "  needs   contrast, layers\n"
        "  params  objective = native  (text)\n"
        "          layers = [stage3, stage4]  (list of text)\n"
        "          fill = blur  (blur, mean or black)\n"
        "          layer = null  (text or null)\n"
        '          path = ""  (text)\n'
        "          sigma = 0.1  (number)\n"
        "          is_signed = false  (true or false)\n"
        "          made = [here]  (list of text)\n"
        "  source  -\n"
        "\n"
        "silent\n"
        "  Nothing but a map.\n"
        "  needs   nothing\n"
        "  params  -\n"
        "  source  Nobody, Journal of Nothing 1999, sec. 1 and sec. 1 and sec. 1 and sec.\n"
        "            1 and sec. 1 and sec. 1 and sec. 1 and sec. 1 and sec. 1 and sec. 2\n"
    )


def test_an_unknown_command_is_refused_with_usage():
    result = run("list", "explainer")
    assert result.exit_code == 2
    assert "Usage: " in result.output


@pytest.mark.parametrize(
    "arguments",
    [["--version"], ["-h"], ["list", "-h"], ["convert", "-h"], ["data", "-h"], ["schema", "-h"]],
)
def test_starting_the_command_loads_no_torch(arguments: list[str]):
    code = (
        "import sys, runpy\n"
        f"sys.argv = ['fxeval', *{arguments}]\n"
        "try:\n    runpy.run_module('fxeval', run_name='__main__')\n"
        "except SystemExit as end:\n    assert not end.code\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert found.returncode == 0, found.stderr
    assert "fxeval" in found.stdout


def test_the_version_is_that_of_the_package():
    assert run("--version").output == f"fxeval, version {fxeval.__version__}\n"


def test_the_package_installs_the_command():
    path = Path(__file__).parents[3] / "pyproject.toml"
    if not path.is_file():
        pytest.skip("not a checkout")
    project = tomllib.loads(path.read_text("utf-8"))["project"]
    assert project["scripts"] == {"fxeval": "fxeval.cli:main"}
    assert any(name.startswith("click") for name in project["dependencies"])


def test_every_shipped_model_is_described_by_its_card_and_has_a_fixture():
    found = json.loads(run("list", "models", "--json").output)
    ids = {one["id"] for one in found["models"]}
    fixtures = importlib.import_module("fxeval.fixtures.models")
    assert {f"model_{id}" for id in ids} | {"model_card"} == {
        name for name in vars(fixtures) if name.startswith("model_")
    }
    assert len(ids) == 13
    for one in found["models"]:
        assert len(one["sha256"]) == 64
        assert one["licence"]
        assert one["source"]
        assert one["has_layers"] or "ONNX" in one["reason"]
    tags = {one["id"]: one["tags"] for one in found["models"]}
    assert tags["edgeface_xs"] == {"training_data": "real", "family": "hybrid"}
    text = run("list", "models").output
    assert "\n  tags    training data: synthetic, family: convolutional\n" in text
    assert max(map(len, text.splitlines())) <= 80
    for name in found["architectures"]:
        assert f"\n  {name} " in text


def test_every_shipped_pair_list_is_described_and_has_a_fixture():
    found = json.loads(run("list", "pairs", "--json").output)
    fixtures = importlib.import_module("fxeval.fixtures.pairs")
    assert {f"pairs_{one['id']}" for one in found} == {
        name for name in vars(fixtures) if name.startswith("pairs_")
    }
    assert {one["id"] for one in found} == set(datasets.SHIPPED)
    for one in found:
        kind = datasets.shipped(one["id"])
        names = [param["name"] for param in one["params"]]
        assert sorted(names) == sorted(own.name for own in fields(kind) if own.init)
        assert names[-3:] == ["regions", "label_maps", "mesh"]  # which every list has
    text = run("list", "pairs").output
    assert max(map(len, text.splitlines())) <= 80
    assert "root  (path; --fx-data unless set)" in text
    assert (
        "root  (path; the bundled faces unless set)" in run("list", "pairs", "rendered_age").output
    )


@pytest.mark.parametrize("what", ["suites", "checks", "metrics", "controls", "fills"])
def test_every_catalogue_is_listed_whole_for_people_and_machines(what):
    from fxeval.functional.controls import CONTROLS
    from fxeval.functional.fills import SHIPPED_FILLS
    from fxeval.metrics import CATALOGUE
    from fxeval.suite.recognition import shipped_suites

    names = {
        "suites": [*shipped_suites()],
        "checks": [*CATALOGUE],
        "metrics": [metric.name for one in CATALOGUE.values() for metric in one.METRICS],
        "controls": [*CONTROLS],
        "fills": [*SHIPPED_FILLS],
    }[what]
    entries = json.loads(run("list", what, "--json").output)
    assert [entry["id"] for entry in entries] == names
    assert all(entry["summary"] for entry in entries)
    text = run("list", what).output
    assert [line for line in text.splitlines() if line[:1].strip()] == names
    assert max(map(len, text.splitlines())) <= 80
    assert json.loads(run("list", what, names[0], "--json").output) == entries[:1]


@pytest.mark.parametrize(
    ("what", "name", "other"),
    [
        ("explainers", "gradcam", "srise"),
        ("pairs", "lfw", "rendered"),
        ("models", "mini-resnet", "dlib_resnet"),
        ("suites", "quickstart", "lfw"),
    ],
)
def test_one_entry_can_be_asked_for(what, name, other):
    text = run("list", what, name).output
    assert text.startswith(f"{name.replace('-', '_')}\n")
    assert f"\n{other}\n" not in text
    wrong = run("list", what, name + "x")
    assert wrong.exit_code == 2
    assert f"expected one of the {what}, got '{name}x'; " in wrong.stderr
    assert f"did you mean '{name.replace('-', '_')}'?" in wrong.stderr
