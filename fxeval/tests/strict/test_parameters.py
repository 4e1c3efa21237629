"""The catalogue of shipped explainers, and what a suite may set of them."""

import fnmatch
import json
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar, Literal

import pytest

import fxeval.fixtures.explainers
from fxeval.contracts import Explainer, ExplainerTraits
from fxeval.explainers import SHIPPED, shipped
from fxeval.models import SHIPPED as MODELS
from fxeval.models import architecture
from fxeval.strict.parameters import faults_of, frozen, typed
from fxeval.suite import preflight
from fxeval.suite.preflight import check_layers, check_params, layers_of_shipped


@pytest.mark.parametrize("id", SHIPPED)
def test_every_shipped_explainer_works_with_its_defaults(id):
    explainer = shipped(id)()
    assert isinstance(explainer, Explainer)
    assert explainer.traits.needs or id == "precomputed"  # a file asks nothing of a model
    assert explainer.traits.source or id == "precomputed"
    assert check_params("explainer", id, {}) == []
    with pytest.raises(AttributeError):
        setattr(explainer, fields(explainer)[0].name if fields(explainer) else "x", 1)


@pytest.mark.parametrize("id", SHIPPED)
def test_every_shipped_explainer_has_a_fixture_that_gives_its_defaults(id):
    fixture = getattr(fxeval.fixtures.explainers, f"explainer_{id}")
    assert fixture.__wrapped__() == shipped(id)()
    assert fixture.__doc__


def test_no_fixture_is_without_an_entry_in_the_catalogue():
    names = [name for name in vars(fxeval.fixtures.explainers) if name.startswith("explainer_")]
    assert {name.removeprefix("explainer_") for name in names} == set(SHIPPED)


@pytest.mark.parametrize(
    ("id", "params", "faults"),
    [
        ("srise", {"masks": 10, "sigma": 7, "coverage_corrected": True}, {}),
        ("gradcam", {"layer": "conv1"}, {}),
        ("gradcam", {"layer": None}, {}),
        ("occlusion", {"stride": 28, "patch": 28}, {}),
        ("occlusion", {"stride": 28}, {"stride": "at most the patch's side, 14"}),
        ("occlusion", {"stride": 28, "patch": 28, "fill": "x"}, {"fill": "got 'x'"}),
        ("occlusion", {"stride": 28, "patch": 0}, {"stride": "14", "patch": "at least 1"}),
        ("gradcam", {"layer": ["conv[-1]", "stage[0]"]}, {}),
        ("gradcam", {"objective": "-arc_pair(m=0.3)"}, {}),
        ("gradcampp", {"variant": "authors"}, {}),
        ("gradcampp", {"variant": "author"}, {"variant": "library or authors, got 'author' (str)"}),
        ("gradcam", {"layer": []}, {"layer": "must be the name of a module"}),
        ("gradcam", {"layer": ["a", 3]}, {"layer": "text, list of text or null, got ['a', 3]"}),
        ("gradcam", {"layer": "conv[x]"}, {"layer": "conv[i]"}),
        ("gradcam", {"objective": "cosine"}, {"objective": "must be one of native, cos"}),
        ("srise", {"maks": 10}, {"maks": "Did you mean 'masks'"}),
        ("gradcam", {"zzz": 1}, {"zzz": "Known: layer"}),
        ("srise", {"masks": "10"}, {"masks": "expected whole number, got '10' (str)"}),
        ("srise", {"masks": True}, {"masks": "expected whole number, got True (bool)"}),
        ("srise", {"masks": 1.0}, {"masks": "expected whole number, got 1.0 (float)"}),
        ("srise", {"coverage_corrected": 1}, {"coverage_corrected": "expected true or false"}),
        ("gradcam", {"layer": 3}, {"layer": "expected text, list of text or null, got 3 (int)"}),
        (
            "srise",
            {"masks": 0, "patches": 5, "sigma": -1.0},
            {"masks": "at least 1", "sigma": "above 0"},
        ),
    ],
)
def test_faulty_parameters_are_found_all_at_once_and_by_key(id, params, faults):
    found = check_params("explainer", id, params)
    assert [key for key, _ in found] == list(faults)
    for key, message in found:
        assert faults[key] in message


def test_a_model_s_card_is_named_and_a_shipped_model_takes_no_parameters():
    assert preflight.check_params("model", "card", {"file": "own.yaml"}) == []
    assert preflight.check_params("model", "mini_resnet", {}) == []
    for params, key, words in (
        ({}, "file", "expected the file of a card"),
        ({"file": None}, "file", "expected the file of a card"),
        ({"fil": "own.yaml"}, "fil", "Did you mean 'file'"),
    ):
        assert words in dict(preflight.check_params("model", "card", params))[key]
    [(key, message)] = preflight.check_params("model", "mini_resnet", {"file": "own.yaml"})
    assert (key, "takes no parameters" in message) == ("file", True)


def test_types_within_types_are_checked():
    @dataclass(frozen=True)
    class Odd:
        traits: ClassVar[ExplainerTraits] = ExplainerTraits()
        level: Literal[1, "one"] = 1
        several: tuple[int, ...] = ()

    assert faults_of(Odd, "odd", {"level": "one", "several": [1, 2]}) == []
    assert [key for key, _ in faults_of(Odd, "odd", {"level": True, "several": [1, 2.5]})] == [
        "level",
        "several",
    ]


def test_every_type_that_yaml_can_write_is_judged_and_no_other():
    @dataclass(frozen=True)
    class Odd:
        file: str | Path | None = None
        files: tuple[Path, ...] = ()
        corner: tuple[int, int] = (0, 0)
        either: int | dict[str, int] | None = None
        grid: tuple[tuple[float, ...], ...] = ()
        sigma: float = 1.0

    good = {
        "file": "a.npz", "files": ["b"], "corner": [1, 2], "either": "text", "grid": [[1, 2.5]],
        "sigma": 7,
    }  # fmt: skip
    values, wrong = typed(Odd, good)
    assert wrong == {}
    assert values == {
        "file": Path("a.npz"), "files": (Path("b"),), "corner": (1, 2), "either": "text",
        "grid": ((1, 2.5),), "sigma": 7,
    }  # fmt: skip
    bad = {"corner": [1], "grid": [[1, "x"]], "sigma": True, "files": "b", "file": 1, "xyz": 0}
    values, wrong = typed(Odd, {**bad, "either": 1})
    assert values == {"either": 1}
    assert wrong == {
        "corner": "expected list of 2: whole number, whole number, got [1] (list)",
        "grid": "expected list of list of number, got [[1, 'x']] (list)",
        "sigma": "expected number, got True (bool)",
        "files": "expected list of path, got 'b' (str)",
        "file": "expected text, path or null, got 1 (int)",
        "xyz": "Known: corner, either, file, files, grid, sigma.",
    }


def test_types_whose_names_do_not_exist_are_not_judged():
    @dataclass(frozen=True)
    class Odd:
        size: "NoSuchType" = 1  # noqa: F821

    assert typed(Odd, {"size": [1, "x"]}) == ({"size": (1, "x")}, {})


def test_a_list_of_yaml_becomes_what_a_frozen_field_holds():
    assert frozen(["a", ["b", 1]]) == ("a", ("b", 1))
    assert hash(shipped("gradcam")(layer=frozen(["a", "b"])))


@pytest.mark.parametrize("id", MODELS)
def test_layers_of_shipped_networks_are_found_without_weights(id):
    assert {parameter.device.type for parameter in architecture(id).parameters()} == {"meta"}
    layers = layers_of_shipped(id)
    assert check_layers("gradcam", {"layer": "stage[-1]"}, layers) is None
    assert check_layers("gradcam", {}, layers) is None
    assert "out of range" in check_layers("gradcam", {"layer": "stage[9]"}, layers)
    wrong = check_layers("layercam", {"layer": ["conv[0]", "no.such"]}, layers)
    assert fnmatch.fnmatch(wrong, "layercam: the model has no layer 'no.such'.*(* x *)*")


SUITE = """\
fxeval: 1
suite: layers
models: [mini_resnet]
explainers:
  - {use: gradcam, params: {layer: stge4}}
  - {use: layercam, params: {layer: ["stage[-1]", "conv[99]"]}}
  - {use: gradcam, params: {layer: stage4}, as: sound}
pairs: [{use: rendered, n: 2}]
checks:
  - id: randomisation
    kind: sanity.model_randomisation
    limits: [{metric: absolute_rank_correlation_fully_randomised, at_most: 0.4, severity: info}]
"""


def test_a_wrong_layer_is_an_error_of_collection_that_lists_the_candidates(pytester):
    pytester.makefile(".yaml", layers=SUITE)
    result = pytester.runpytest_inprocess("layers.yaml", "--collect-only")
    assert result.ret == 2
    result.stdout.fnmatch_lines(
        [
            "layers.yaml:5:*: error: model 'mini_resnet': gradcam: the model has no layer 'stge4'. "
            "Did you mean 'stage4'?*stage4 (7 x 7)*",
            "layers.yaml:6:*: error: model 'mini_resnet': layercam: layer 'conv[[]99]'*range*",
        ]
    )


def test_layers_of_a_users_own_model_are_left_to_the_run(pytester):
    pytester.makefile(".yaml", layers=SUITE)
    pytester.makeconftest(
        """
        import pytest

        @pytest.fixture
        def model_mini_resnet():
            raise AssertionError("never asked for")
        """
    )
    result = pytester.runpytest_inprocess("layers.yaml", "--collect-only")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*3 tests collected*"])


ALL = Path(fxeval.__file__).parents[1] / "suites"
NAMED = re.compile(r"^  - (?:\{use: )?(\w+)", re.MULTILINE)


@pytest.mark.skipif(not ALL.is_dir(), reason="no suites beside an installed fxeval")
@pytest.mark.parametrize("suite", ["explainers.yaml", "lfw-explainers.yaml"])
def test_the_comparing_suites_name_every_shipped_explainer(suite):
    explainers = (ALL / suite).read_text(encoding="utf-8").partition("explainers:\n")[2]
    assert set(NAMED.findall(explainers.partition("\npairs:")[0])) == set(SHIPPED) - {"precomputed"}


@pytest.mark.slow
@pytest.mark.skipif(not ALL.is_dir(), reason="no suites beside an installed fxeval")
def test_every_cell_of_the_comparison_on_the_bundled_default_is_measured(pytester):
    text = (ALL / "explainers.yaml").read_text(encoding="utf-8")
    pytester.makefile(".yaml", few=text.replace("n: 40", "n: 3"))
    pytester.runpytest_subprocess("few.yaml", "--fx-threads=1")
    (path,) = pytester.path.glob("reports/*/explainers.json")
    found = json.loads(path.read_text())["cells"]
    assert {cell["verdict"]["outcome"] for cell in found} <= {"inconclusive", "unsupported", "fail"}
    assert {cell["explainer"] for cell in found if cell["n_pairs"] == 3} == {
        cell["explainer"] for cell in found
    }
