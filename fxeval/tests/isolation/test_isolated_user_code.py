"""User code in a process of its own: the same maps, and whatever it does, the run goes on."""

import json
import re
import sys

import pytest
import torch

from fxeval.contracts import Faces, RowState
from fxeval.engine.forward_pool import ForwardPool, PooledModel
from fxeval.engine.inputs import Comparison
from fxeval.engine.maps import explain
from fxeval.errors import ExplainerContractError
from fxeval.explainers.adapters import from_function
from fxeval.isolation import copies, host, served
from fxeval.isolation.explainer import IsolatedExplainer, isolated, why_not_isolated
from fxeval.isolation.messages import Message
from fxeval.metrics.deletion_insertion import Parameters
from fxeval.metrics.model_randomisation import Parameters as Redrawn
from fxeval.models.black_box import EmbeddingFunction
from fxeval.models.from_card import load_card
from fxeval.models.loading import TorchFaceModel
from fxeval.suite.preflight import shipped_card
from fxeval.tests.isolation import hostile
from fxeval.tests.isolation.hostile import HERE, Quiet
from fxeval.tests.toy_world import SMALL, Occlusion, measured, model
from fxeval.tests.world import cells, rows

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="bounds of Linux")
FEW = Parameters(steps=2, fills=("mean",), controls=("random_pixels",))


def cell(explainer):
    return measured("faithfulness.deletion_insertion", FEW, explainer=explainer)


def bad(way, **bounds):
    return IsolatedExplainer(f"{HERE}:Bad", {"way": way}, **{"timeout": 60, **bounds})


@pytest.fixture(scope="module")
def alone():
    """The honest rows of a run without anybody else."""
    return cell(Occlusion())[1]


@pytest.fixture(scope="module")
def asked():
    """Twenty pairs of noise, whose first pixel says which pair it is."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (41, 3, *SMALL.size), dtype=torch.uint8, generator=generator)
    images[:40, 0, 0, 0] = torch.arange(40)
    faces = Faces("noise", images, tuple(map(str, range(41))), torch.arange(41))
    probes = torch.arange(20)
    return Comparison(faces, tuple(map(str, range(20))), probes, torch.full((20,), 40))


def maps_of(explainer, asked):
    pooled = PooledModel(model(), ForwardPool(batch_size=16), "key")
    told = []
    maps = explain(explainer, pooled, asked, seed=1, progress=lambda *_: None, tell=told.append)
    return maps, told


def test_the_rows_are_those_of_the_same_explainer_in_the_run_to_the_last_bit():
    isolated_one = IsolatedExplainer(f"{HERE}:Quiet")
    for kind, parameters in (
        ("faithfulness.deletion_insertion", FEW),
        ("sanity.model_randomisation", Redrawn(redraws=1)),
    ):
        here, expected = measured(kind, parameters, explainer=Quiet())
        there, found = measured(kind, parameters, explainer=isolated_one)
        assert found == expected
        assert len(found) == 20
        costs = [[(one.n_maps, one.backwards) for one in each.explaining] for each in (there, here)]
        assert costs[0] == costs[1]
        assert all(one.backwards == one.n_maps for one in there.explaining)
        assert all(one.forwards > 0 for one in there.explaining)
        assert there.repeatability == here.repeatability
    isolated_one.close()


STATES = {
    "exit": (RowState.EXPLAINER_RAISED, r"SystemExit \(ways.py:\d+\)"),
    "hard_exit": (RowState.EXPLAINER_RAISED, r"SystemExit \("),
    "fork": (RowState.OK, ""),
    "background": (RowState.OK, ""),
    "interrupt": (RowState.EXPLAINER_RAISED, r"KeyboardInterrupt \(ways.py:\d+\)"),
    "generator_exit": (RowState.EXPLAINER_RAISED, r"GeneratorExit \(ways.py:\d+\)"),
    "memory_error": (RowState.EXPLAINER_RAISED, r"MemoryError \(.*\); memory_gib allows 8 GiB"),
    "recursion": (RowState.EXPLAINER_RAISED, r"RecursionError \(ways.py:\d+\)"),
    "weights": (RowState.MODEL_CHANGED, "its weights or buffers were changed"),
    "later": (RowState.MODEL_CHANGED, "its weights or buffers were changed"),
    "huge": (
        RowState.WRONG_SHAPE,
        r"maps \(1, 16, 16\), .* got \(1, 3000, 3000\)",
    ),
    "nothing": (RowState.WRONG_SHAPE, "expected saliency maps as SaliencyMaps, a torch.Tensor or"),
    "states": (RowState.WRONG_SHAPE, "a map.s state must be one of .*, got .great"),
    "folder": (RowState.OK, ""),
    "patch": (None, ""),
    "segfault": (RowState.EXPLAINER_RAISED, r"^its process ended \(signal 11, SIGSEGV\) before"),
}


def test_what_each_pair_does_is_its_own_state_and_costs_no_other_pair(asked, alone):
    """The first group fails as a whole; its pairs are asked for one by one."""
    settings = {"ways": list(STATES)}
    maps, told = maps_of(IsolatedExplainer(f"{HERE}:Turns", settings, timeout=60), asked)
    for (way, (state, words)), found, reason in zip(
        STATES.items(), maps.states, maps.reasons, strict=False
    ):
        if state is not None:
            assert found == state, (way, reason)
            assert re.search(words, reason), (way, reason)
    expected, _ = maps_of(hostile.Ramp(), asked)
    good = [row for row, state in enumerate(maps.states) if state == RowState.OK]
    assert {2, 3, 17, 18, 19} <= {*good}
    ones = [row for row in good if row != list(STATES).index("patch")]
    assert torch.equal(maps.positive[ones], expected.positive[ones])
    assert any(text.startswith("RecursionError: maximum recursion") for text in told)
    assert cell(Occlusion())[1] == alone


@pytest.mark.slow
@pytest.mark.parametrize("way", hostile.WAYS)
def test_after_each_bad_thing_an_honest_explainer_has_the_rows_of_a_run_without_it(
    way, alone, monkeypatch
):
    monkeypatch.setattr(host, "FAILURES_IN_A_ROW", 1)
    result, found = cell(bad(way, timeout=4, memory_gib=1))
    assert len(found) == 20
    assert cell(Occlusion())[1] == alone
    if way in {"allocate", "memory_error"}:
        assert "memory_gib allows 1 GiB" in result.problems[0].reason


def test_an_explainer_that_always_hangs_is_started_a_few_times_only(asked, monkeypatch):
    monkeypatch.setattr(host, "FAILURES_IN_A_ROW", 1)
    maps, _ = maps_of(bad("loop", timeout=0.5), asked)
    assert set(maps.states) == {RowState.EXPLAINER_RAISED}
    said = "its process took more than 0.5 s; after 1 failures it is not started again"
    assert set(maps.reasons) == {said, f"not asked, as the first pairs all failed: {said}"}


# Faults of factories and models, asked without a process of their own.


@pytest.fixture
def served_one(monkeypatch):
    monkeypatch.setattr(served, "bound", lambda **_: None)
    one = served.Served()

    def ask(task, tensors=None, **values):
        message = Message({"task": task, "number": 1, **values}, tensors or {})
        return Message.unpacked(one.answer(message.packed()))

    return ask


def started(ask, factory, **settings):
    return ask(
        "start", factory=factory, settings=settings, memory=1, threads=torch.get_num_threads(),
        dtype="float32", deterministic=[False], device="cpu",
    ).values  # fmt: skip


@pytest.mark.parametrize(
    ("factory", "words"),
    [
        (f"{HERE}:absent", f"module '{HERE}' has no 'absent'"),
        ("absent_module:any", "there is no module 'absent_module' to import 'absent_module:any'"),
        (f"{HERE}:failing", r"RuntimeError \(hostile.py:"),
        (f"{HERE}:no_explainer", "expected an object with explain"),
    ],
)
def test_a_factory_that_fails_is_an_error_that_says_so(served_one, factory, words):
    error = started(served_one, factory)["error"]
    assert re.search(words, error["reason"])
    assert "Ann Lee" not in error["reason"]


def test_a_factory_gets_its_settings_and_its_traits_are_told(served_one):
    found = started(served_one, f"{HERE}:Quiet")
    assert found["source"] == "nowhere"
    assert found["takes_contrast"] is True
    found = started(served_one, f"{HERE}:Bad", way=["a", "b"])
    assert found["needs"] == []
    assert found["takes_contrast"] is False


def lend(given, **values):
    return {
        "facts": copies.facts_of(given), "is_new": True, "tensors": copies.weights_of(given),
        "way": copies.way_of(given), **values,
    }  # fmt: skip


def test_a_model_is_built_by_its_class_or_a_factory_and_gets_the_weights(served_one):
    given = model(seed=5)
    expected = copies.two_embeddings(given)
    ways = [{}, *({"way": {"factory": f"{HERE}:{name}"}} for name in ("network", "fixture_model"))]
    for way in ways:
        assert started(served_one, f"{HERE}:Quiet")
        found = served_one("lend", **lend(given, **way))
        assert torch.equal(found.tensors["embeddings"], expected)


def test_the_copy_of_a_model_with_a_card_has_its_architecture(served_one):
    given = load_card(shipped_card("mini_resnet"))
    assert copies.way_of(given)["architecture"] == "mini_resnet"
    assert started(served_one, f"{HERE}:Quiet")
    found = served_one("lend", **lend(given))
    assert torch.equal(found.tensors["embeddings"], copies.two_embeddings(given))


class Local(torch.nn.Module):
    def __init__(self, size):
        super().__init__()


def test_what_cannot_go_into_a_process_is_named_with_what_to_do():
    function = EmbeddingFunction("box", SMALL, lambda images: images, "cosine", "1")
    odd = TorchFaceModel("odd", SMALL, Local(3), "cosine", None, "0" * 64)
    honest = Occlusion(side=2)
    assert why_not_isolated("mine", honest, model()) is None
    assert isolated("mine", honest).settings == {"side": 2}
    found = [
        why_not_isolated("mine", from_function(lambda m, p, r: p.mean(1)), model()),
        why_not_isolated("mine", hostile.Bad("exit"), model()),
        why_not_isolated("mine", type("Made", (), {})(), model()),
        why_not_isolated("mine", honest, function),
        why_not_isolated("mine", honest, odd),
    ]
    words = [
        "its 'f' is a function, no plain value", "it is no dataclass", "cannot be imported by name",
        "model 'box' cannot be copied into a process of its own: it is a black box",
        "Local cannot be built anew. Name a factory that returns it: {model: \"module:factory\"}",
    ]  # fmt: skip
    for text, part in zip(found, words, strict=True):
        assert part in text
    assert all("module:" in text for text in found)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"factory": "no place"}, "factory: expected 'module:callable', got 'no place'"),
        ({"factory": "a:b", "timeout": 0}, "timeout: expected more than 0, got 0"),
        ({"factory": "a:b", "memory_gib": float("nan")}, "memory_gib: expected more than 0"),
        ({"factory": "a:b", "settings": {"f": print}}, "settings: expected plain values"),
        ({"factory": "a:b", "model": "c"}, "model: expected 'module:callable', got 'c'"),
    ],
)
def test_wrong_parameters_are_refused_with_their_names(values, words):
    with pytest.raises(ExplainerContractError, match=re.escape(words)):
        IsolatedExplainer(**values)


def test_an_answer_that_is_a_message_and_nonsense_is_the_end_of_the_process(monkeypatch):
    class Liar:
        def __init__(self, module):
            self.answers = 0

        def ask(self, message, *, seconds, most):
            number = Message.unpacked(message).values["number"]
            return Message({"number": number, "needs": [["gradients"]]}, {}).packed()

        def close(self):
            pass

    monkeypatch.setattr(host, "Process", Liar)
    with pytest.raises(ExplainerContractError, match="its process gave an answer that cannot be"):
        _ = IsolatedExplainer("a:b").traits


def test_a_suite_names_a_factory_and_the_next_explainer_has_its_rows(world, monkeypatch):
    monkeypatch.setattr(host, "FAILURES_IN_A_ROW", 1)
    params = f"{{factory: '{HERE}:Bad', settings: {{way: stop}}, timeout: 1}}"
    hung = f"{{use: isolated, as: hung, params: {params}}}"

    def only(text):
        head, _, rest = text.partition("  - id: sanity")
        return head + rest[rest.index("  - id: deletion") :].replace("steps: 8", "steps: 2")

    world(edit=only)
    expected = rows(world)
    result = world(explainers=f"{hung}, occlusion", edit=only)
    assert result.ret == 1
    record = max(world.path.glob("reports/*/small.json"), key=lambda path: path.stat().st_mtime)
    found = json.loads(record.read_text())
    verdict = cells(found)["deletion-insertion[tiny-hung-memory]"]["verdict"]
    assert verdict["outcome"] == "fail"
    assert "its process took more than 1 s" in verdict["reason"]
    files = record.parent.glob("rows*.jsonl")
    again = [json.loads(line) for path in files for line in path.read_text().splitlines()]
    honest = [row for row in again if "-occlusion-" in row["cell"]]
    assert sorted(honest, key=lambda row: row["row"]) == expected


def test_a_suite_without_a_factory_is_an_error_of_collection(world):
    result = world(explainers="{use: isolated, as: mine, params: {timeout: 1, factry: 'a:b'}}")
    assert result.ret == 2
    result.stdout.fnmatch_lines(
        ["*5:48: error: expected the factory of*", "*5:61: error: unknown * mean 'factory'?*"]
    )
