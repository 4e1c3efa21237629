"""A fault of the model is the model's, whoever explains it; what a service answered is kept."""

import json
from dataclasses import dataclass, field, replace
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

import fxeval
from fxeval.contracts import PairListing, RowState, SaliencyMaps
from fxeval.errors import ModelContractError, UnansweredError, UnsupportedError
from fxeval.hooks.custody import Custody
from fxeval.models import black_box
from fxeval.models.black_box import EmbeddingFunction
from fxeval.models.loading import TorchFaceModel
from fxeval.run.fixture_names import fixture_names
from fxeval.run.session import _is_same
from fxeval.tests.models.test_admission import NO_GRADIENT, UNFIT, Net, WithoutTruth, model_of
from fxeval.tests.run.test_workshop import Mean, Memory, tiny
from fxeval.tests.subjects import CROP

SMALL = {"fills": ["blur"], "steps": 3, "controls": ["random_blobs"]}
BLACK_BOX = {"use": "corrrise", "params": {"masks": 20}}
OWN = {"fgsm": Mean(), "corrrise": BLACK_BOX, "gradient": "gradient", "layercam": "layercam"}


def measured(model, explainer, n: int = 4, **also):
    record = fxeval.evaluate(model, explainer, Memory(n=n), n=n, **SMALL, **also)
    return record.cells[0]


@pytest.mark.parametrize("explainer", OWN.values(), ids=OWN)
@pytest.mark.parametrize("fault", ["the length first", "one number", "0 to 255", "a counter"])
def test_no_explainer_is_blamed_for_an_unfit_model(fault: str, explainer):
    make, _ = UNFIT[fault]
    with pytest.raises(ModelContractError, match=r"^model 'own': "):
        measured(model_of(make()), explainer)


@pytest.mark.parametrize("explainer", ["gradient", "layercam", Mean()], ids=["g", "l", "own"])
@pytest.mark.parametrize("fault", ["numpy", "detached", "made in inference mode"])
def test_where_gradients_are_missing_the_model_is_named(fault: str, explainer):
    make, reason = NO_GRADIENT[fault]
    with pytest.raises(UnsupportedError, match=f"cannot explain own: .* in this model .*{reason}"):
        measured(model_of(make()), explainer)


@pytest.mark.parametrize("fault", ["no_grad", "numpy", "detached", "made in inference mode"])
def test_where_gradients_are_missing_embeddings_are_still_explained(fault: str):
    make, _ = NO_GRADIENT[fault]
    found, plain = (
        measured(model_of(network), BLACK_BOX) for network in (make(), NO_GRADIENT["no_grad"][0]())
    )
    assert found.n_pairs == plain.n_pairs == 4


def test_another_error_of_an_explainer_stays_its_own():
    @dataclass
    class Broken:
        def explain(self, model, probes, references, *, contrast=None, generator):
            raise ValueError("a bug")

    make, _ = NO_GRADIENT["numpy"]
    with pytest.warns(UserWarning, match="a bug"):
        found = measured(model_of(make()), Broken())
    assert found.verdict.outcome.value == "fail"


def rows_of(folder) -> list[dict]:
    (path,) = folder.glob("*/rows.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_network_without_length_truth_and_equality_is_measured_as_any_other(tmp_path):
    for name, kind in (("odd", WithoutTruth), ("plain", Net)):
        for explainer in (BLACK_BOX, "gradient", "layercam"):
            folder = tmp_path / name / str(explainer)[:9]
            measured(model_of(kind()), explainer, reports=folder)
    for folder in (tmp_path / "odd").iterdir():
        odd, plain = (rows_of(one) for one in (folder, tmp_path / "plain" / folder.name))
        assert [row["measured"] for row in odd] == [row["measured"] for row in plain]


def test_admission_is_no_cost_of_the_cell():
    model = tiny()
    alone, again = measured(model, Mean()), measured(model, Mean())
    assert alone.forwards == again.forwards
    box = EmbeddingFunction("box", CROP, model.embed, "cosine", "1")
    seen = measured(box, BLACK_BOX)
    assert seen.forwards > 0
    assert box.calls.made > 0


@dataclass
class Service:
    """Embeds; fails at calls of given numbers, and drifts from a given call on."""

    fails: range | set = frozenset()
    drifts_from: int = 1 << 30
    asked: list[int] = field(default_factory=list)

    def __call__(self, images):
        self.asked.append(len(images))
        if len(self.asked) in self.fails:
            raise ConnectionError("503")
        found = tiny().embed(images)
        if len(self.asked) >= self.drifts_from:
            found = found.flip(1)
        return found


def box(service, **also) -> EmbeddingFunction:
    return EmbeddingFunction("api", CROP, service, "cosine", "1", **also)


def made_too():
    return None


@pytest.fixture(autouse=True)
def waits(monkeypatch):
    found: list[float] = []
    monkeypatch.setattr(black_box, "sleep", found.append)
    return found


def test_one_failed_call_changes_nothing_but_a_remark(tmp_path, waits):
    calm, shaken = box(Service()), box(Service(fails={9, 12}))
    measured(calm, BLACK_BOX, reports=tmp_path / "calm")
    found = measured(shaken, BLACK_BOX, reports=tmp_path / "shaken")
    assert rows_of(tmp_path / "calm") == rows_of(tmp_path / "shaken")
    assert found.remarks[-1] == (
        "model 'api': 2 calls were repeated after an error that passes (ConnectionError 2)"
    )
    assert waits == [1.0, 1.0]


def test_when_a_service_stays_away_what_was_measured_is_kept(tmp_path):
    service = Service()
    whole = measured(box(service), BLACK_BOX, n=20, reports=tmp_path / "whole")
    assert whole.n_pairs == 20
    n_calls = len(service.asked)
    away = Service(fails=range(n_calls - 1, n_calls + 20))
    model = box(away)
    with pytest.raises(UnansweredError, match=r"ConnectionError .* It was called 4 times"):
        measured(model, BLACK_BOX, n=20, reports=tmp_path / "away")
    kept, rows = rows_of(tmp_path / "away"), rows_of(tmp_path / "whole")
    assert kept == rows[: len(kept)]
    assert len({row["row"] for row in kept}) == 16  # the first group
    away.fails, before = frozenset(), len(away.asked)
    measured(model, BLACK_BOX, n=20, reports=tmp_path / "again")
    assert rows_of(tmp_path / "again") == rows
    assert len(away.asked) - before < n_calls / 4  # only the rest, and the checks


def test_an_explainer_is_not_blamed_for_a_service_that_is_away():
    service = Service()

    @dataclass
    class Asks:
        def explain(self, model, probes, references, *, contrast=None, generator):
            service.fails = range(len(service.asked) + 1, len(service.asked) + 5)
            try:
                return model.embed(probes * 0.5)
            except Exception as error:
                raise RuntimeError("no map") from error

    with pytest.raises(UnansweredError):
        measured(box(service), Asks())


def test_a_service_that_changes_during_the_run_is_refused_at_the_end(tmp_path):
    service = Service(drifts_from=40)
    with pytest.raises(ModelContractError, match="its answers changed during the run") as caught:
        measured(box(service), BLACK_BOX, n=20, reports=tmp_path)
    assert "network" not in str(caught.value)
    assert rows_of(tmp_path)


def test_columns_of_a_list_may_be_arrays_and_lists():
    columns = ["a", "b"], ["c", "d"], [True, True], ["x", "y"], ["x", "y"]
    expected = PairListing(*map(tuple, columns))
    assert PairListing(*columns) == PairListing(*map(np.array, columns)) == expected
    nonmates = {"contrast": np.array(["b", "a"]), "contrast_identity": np.array(["y", "x"])}
    assert PairListing(*columns, **nonmates).contrast == ("b", "a")


def test_states_of_maps_may_be_an_array():
    maps = SaliencyMaps(torch.rand(2, 4, 4), states=np.array([RowState.OK, RowState.OK]))
    assert list(maps.states) == ["ok", "ok"]


def test_files_of_models_are_compared_without_trust_in_their_equality():
    class Raises:
        def __eq__(self, other):
            raise TypeError("no equal")

        __hash__ = None

    class Array:
        def __eq__(self, other):
            return np.ones(2)

        __hash__ = None

    one = Raises()
    assert _is_same(one, one)
    assert not _is_same(one, Raises())
    assert not _is_same(Array(), Array())
    assert _is_same((1, 2), (1, 2))


def test_keys_of_a_network_need_not_be_comparable():
    network = nn.Conv2d(3, 3, 1)
    network.table = {torch.ones(2): "a", torch.zeros(2): "b", "c": 1}
    custody = Custody(network)
    assert custody.changes() == []
    network.table = {torch.ones(2): "a", torch.zeros(2): "b", "c": 2}
    assert custody.changes()
    custody.restore()
    assert network.table["c"] == 1


def test_a_conftest_may_hold_objects_that_answer_nothing():
    class Silent:
        def __getattr__(self, name):
            raise RuntimeError("no answer")

        def __bool__(self):
            raise TypeError("no truth")

    @pytest.fixture(name="model_own")
    def made():
        return None

    conftest = ModuleType("conftest")
    vars(conftest).update(silent=Silent(), explainer_x=pytest.fixture(made_too), other=made)
    assert sorted(fixture_names(conftest)) == ["explainer_x", "model_own"]


def test_a_similarity_of_another_name_is_refused_where_the_model_is_made():
    for name, words in {
        "cosine_distance": r"got 'cosine_distance'\. A cosine distance d is the cosine 1 - d",
        "Cosine": r"got 'Cosine'\. Give 'cosine'",
        "l2": "A Euclidean distance d is the similarity -d",
        "euclidean": "give 'neg_l2'",
        "dot": "inner product of embeddings of length 1",
        "ip": "inner product",
        "": "expected cosine or neg_l2 as similarity, got ''",
        None: "got NoneType",
    }.items():
        with pytest.raises(ModelContractError, match=f"^model 'own': .*{words}"):
            TorchFaceModel("own", CROP, Net(), name, 0.5, "0" * 64)
        with pytest.raises(ModelContractError, match=f"^model 'api': .*{words}"):
            replace(box(Service()), similarity=name)


def test_what_is_no_module_is_refused_where_the_model_is_made():
    with pytest.raises(ModelContractError, match=r"expected a torch\.nn\.Module, got function"):
        TorchFaceModel("own", CROP, lambda x: x, "cosine", 0.5, "0" * 64)
    with pytest.raises(ModelContractError, match=r"expected a torch\.nn\.Module, got type"):
        TorchFaceModel("own", CROP, Net, "cosine", 0.5, "0" * 64)
