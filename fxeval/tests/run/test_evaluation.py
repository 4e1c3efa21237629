"""``fxeval.evaluate``: a suite of one cell, without a file and without pytest."""

import json
import re

import pytest
import torch
from click.testing import CliRunner

import fxeval
from fxeval.cli import main
from fxeval.errors import (
    DataContractError,
    ExplainerContractError,
    FxevalError,
    ModelContractError,
    SuiteError,
)
from fxeval.tests.run.test_workshop import Mean, Memory, tiny
from fxeval.tests.subjects import CROP


class Drawing:
    """One drawn map for all pairs of a call."""

    def explain(self, model, probes, references, *, contrast=None, generator):
        drawn = torch.from_numpy(generator.random((1, *probes.shape[-2:]))).float()
        return drawn * probes.mean(1)


LIMIT = {"metric": "deletion_auc", "better_than": "control.random_blobs", "fill": "blur"}
SMALL = {"fills": ["blur"], "steps": 4, "controls": ["random_blobs"]}
SUITE = """
fxeval: 1
suite: small
defaults: {seed: 0}
models: [mini_resnet]
explainers: [{use: gradcam, params: {layer: stage4}}]
pairs: [{use: rendered, n: 4}]
checks:
  - id: check
    kind: faithfulness.deletion_insertion
    fills: [blur]
    steps: 4
    controls: [random_blobs]
    limits: [{metric: deletion_auc, better_than: control.random_blobs, fill: blur}]
"""


def test_it_says_what_a_suite_says_to_the_last_digit(pytester):
    (pytester.path / "suites").mkdir()
    (pytester.path / "suites" / "small.yaml").write_text(SUITE)
    # A process of its own: modules of torch that it imports first cannot be imported twice.
    pytester.runpytest_subprocess("suites/small.yaml", f"--fx-threads={torch.get_num_threads()}")
    (path,) = pytester.path.glob("reports/*/small.json")
    [expected] = json.loads(path.read_text())["cells"]
    explainer = {"use": "gradcam", "params": {"layer": "stage4"}}
    record = fxeval.evaluate("mini_resnet", explainer, "rendered", n=4, limits=[LIMIT], **SMALL)
    [found] = json.loads(record.model_dump_json(by_alias=True))["cells"]
    told = ("nodeid", "seconds", "where", "explaining")
    for cell in (expected, found):
        for one in (cell, *cell["limits"], *cell["asked"]):
            for key in told:
                one.pop(key, None)
    assert found == expected


def test_objects_of_ones_own_are_measured(tmp_path):
    record = fxeval.evaluate(tiny(), Mean(power=2.0), Memory(n=12), limits=[LIMIT], **SMALL)
    [cell] = record.cells
    assert (cell.model, cell.explainer, cell.pairs) == ("tiny", "Mean", "memory")
    assert cell.n_pairs == 12
    assert record.subjects.explainers["Mean"].params == {"power": 2.0}
    assert [limit.text for limit in cell.limits]
    assert not list(tmp_path.iterdir())


def test_without_limits_nothing_is_decided():
    record = fxeval.evaluate(tiny(), Mean(), Memory(n=4), **SMALL)
    assert record.verdict.outcome == "inconclusive"
    assert record.cells[0].limits == []
    assert "no critical limit" in record.cells[0].verdict.reason
    assert record.cells[0].estimates


def test_another_check_and_its_parameters():
    record = fxeval.evaluate(tiny(), Mean(), Memory(n=4), check="sanity.model_randomisation")
    assert record.cells[0].kind == "sanity.model_randomisation"
    assert record.cells[0].networks


def test_what_is_written_can_be_judged_again(tmp_path):
    record = fxeval.evaluate(
        tiny(), Mean(), Memory(n=4), limits=[LIMIT], reports=tmp_path / "reports", **SMALL
    )
    (folder,) = (tmp_path / "reports").iterdir()
    assert {path.name for path in folder.iterdir()} == {
        "evaluate.html", "evaluate.json", "rows.jsonl",
    }  # fmt: skip
    assert json.loads((folder / "evaluate.json").read_text())["run"]["id"] == record.run.id
    again = CliRunner().invoke(main, ["report", str(folder), "--out", str(tmp_path / "again")])
    assert again.exit_code in (0, 1, 2), again.output
    written = (folder / "evaluate.json").read_text()
    assert (tmp_path / "again" / "evaluate.json").read_text() == written


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"fils": ["blur"]}, "unknown key 'fils'.*did you mean 'fills'"),
        ({"check": "faithfulness.deletion"}, "'kind' must be .*did you mean"),
        ({"limits": [{"metric": "deletoin_auc", "at_most": 1}]}, "did you mean 'deletion_auc'"),
        ({"limits": [{"metric": "deletion_auc"}]}, "expected exactly one of at_most, at_least"),
        ({"n": 0}, "'n' must be at least 1, got 0"),
        ({"seed": -1}, "'seed' must be at least 0, got -1"),
        ({"device": "tpu"}, "auto, cpu, cuda"),
        ({"models": ["tiny"]}, "expected parameters of faithfulness.*got models"),
        ({"fills": [object()]}, "expected plain values"),
    ],
)
def test_an_argument_that_no_suite_could_hold_is_refused(change, words):
    with pytest.raises(SuiteError) as caught:
        fxeval.evaluate(tiny(), Mean(), Memory(n=4), **{**SMALL, **change})
    assert re.search(words, str(caught.value), re.DOTALL), caught.value
    assert str(caught.value).startswith("evaluate")
    assert len(re.findall("error:", str(caught.value))) <= 1


@pytest.mark.parametrize(
    ("subjects", "error", "words"),
    [
        (("mini_resnt", Mean(), Memory()), SuiteError, "unknown model 'mini_resnt'.*mini_resnet"),
        ((tiny(), "gradcamm", Memory()), SuiteError, "unknown explainer 'gradcamm'"),
        ((tiny(), Mean(), "lwf"), SuiteError, "unknown pairs 'lwf'"),
        ((None, Mean(), Memory()), ModelContractError, "expected a face model, got NoneType"),
        ((type(tiny()), Mean(), Memory()), ModelContractError, "got the class TorchFaceModel"),
        ((tiny(), 3, Memory()), ExplainerContractError, "explain"),
        ((tiny(), Mean, Memory()), ExplainerContractError, "class Mean"),
        ((tiny(), Mean(), [("a", "b")]), DataContractError, "got list without name, banner"),
        ((tiny(), Mean(), Memory), DataContractError, "got the class Memory"),
    ],
)
def test_what_is_no_subject_is_refused_in_plain_words(subjects, error, words):
    with pytest.raises(error) as caught:
        fxeval.evaluate(*subjects, n=4, **SMALL)
    assert re.search(words, str(caught.value)), caught.value


@pytest.mark.parametrize(
    ("attribute", "value", "words"),
    [("crop", (112, 112), "expected a fxeval.Crop as crop, got tuple"),
     ("similarity", "euclid", "expected cosine or neg_l2 as similarity, got 'euclid'")],
)  # fmt: skip
def test_a_model_of_another_form_is_refused(attribute, value, words):
    class Odd:
        name, crop, similarity, operating_threshold = "odd", CROP, "cosine", None
        digest, module = "0" * 64, None

        def embed(self, images):
            return torch.ones(len(images), 4)

    setattr(Odd, attribute, value)
    with pytest.raises(ModelContractError, match=words):
        fxeval.evaluate(Odd(), Mean(), Memory(n=4), **SMALL)


def test_folders_of_shipped_subjects_come_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("FXEVAL_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("FXEVAL_DATA", str(tmp_path / "faces"))
    with pytest.raises(FxevalError, match=str(tmp_path / "faces")):
        fxeval.evaluate(tiny(), Mean(), "lfw", n=4, **SMALL)
    with pytest.raises(FxevalError, match="weights"):
        fxeval.evaluate("edgeface_xs", Mean(), Memory(n=4), **SMALL)


def test_what_user_code_raised_is_a_warning_and_in_no_record():
    class Raising:
        def explain(self, model, probes, references, *, contrast=None, generator):
            raise KeyError("Ann Lee")

    with pytest.warns(UserWarning, match="evaluate: .*Ann Lee"):
        record = fxeval.evaluate(tiny(), Raising(), Memory(n=4), **SMALL)
    assert record.cells[0].states == {"explainer_raised": 4}
    assert "Ann Lee" not in record.model_dump_json()


def test_an_explainer_that_draws_is_measured_at_several_seeds():
    record = fxeval.evaluate(tiny(), Drawing(), Memory(n=4), seeds=2, **SMALL)
    [cell] = record.cells
    assert cell.seeds == 2
    assert cell.repeatability.depends_on_seed
    assert [one.side for one in cell.explaining] == ["probe", "probe, again", "probe, seed 1"]
    assert fxeval.evaluate(tiny(), Drawing(), Memory(n=4), **SMALL).cells[0].seeds == 3


@pytest.mark.parametrize("seeds", [0, 21, 2.5, "3"])
def test_a_number_of_seeds_that_no_suite_may_ask_for_is_refused(seeds):
    with pytest.raises(fxeval.FxevalError, match="'seeds'"):
        fxeval.evaluate(tiny(), Mean(), Memory(n=4), seeds=seeds, **SMALL)
