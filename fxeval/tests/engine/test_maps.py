"""User code can do anything: only the rows at fault suffer, and the model is restored."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fxeval.contracts import ExplainerTraits, ModelTraits, RowState, SaliencyMaps
from fxeval.engine.forward_pool import ForwardPool, PooledModel
from fxeval.engine.maps import explain, why_unsupported
from fxeval.errors import ExplainerContractError, ModelContractError
from fxeval.explainers.grad_cam import GradCAM
from fxeval.explainers.gradients import Gradient
from fxeval.hooks.custody import Custody
from fxeval.tests.evidence import comparison
from fxeval.tests.rounding import assert_rounded
from fxeval.tests.subjects import ConvNet, CountingModel, make_pairs

N = 20  # more than one group


@pytest.fixture
def model():
    return PooledModel(CountingModel(ConvNet().eval()), ForwardPool(), "key")


class From:
    """An explainer made of a function of (model, probes, references, generator)."""

    def __init__(self, function):
        self.function = function

    def explain(self, model, probes, references, *, contrast=None, generator):
        return self.function(model, probes, references, generator)


def run(function, model, *, pairs=None, side="probe", seed=1):
    told = []
    maps = explain(
        From(function), model, comparison(pairs or make_pairs(N), side), seed=seed,
        progress=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    assert told[-1] == (N, N)
    return maps


def assert_means(maps, images):
    """Maps of the probes' means: three divisions by 255, two sums and a division by three."""
    assert_rounded(maps, images.double().mean(-3) / 255, terms=6)


def test_maps_come_back_in_order_with_the_sides_asked_for(model):
    pairs = make_pairs(N)
    probe = run(lambda m, p, r, g: p.mean(1), model, pairs=pairs)
    assert_means(probe.positive, pairs.images[:N])
    other = run(lambda m, p, r, g: p.mean(1), model, pairs=pairs, side="reference")
    assert_means(other.positive, pairs.images[N:])
    assert set(probe.states) == {RowState.OK}


def test_every_call_meets_the_generator_in_the_same_state(model):
    maps = run(
        lambda m, p, r, g: torch.from_numpy(g.random((16, 16))).expand(len(p), 16, 16), model
    )
    assert all(torch.equal(map_, maps.positive[0]) for map_ in maps.positive)


def test_a_global_generator_repeats_itself_and_is_put_back(model):
    def draw(m, p, r, g):
        return torch.rand(len(p), 16, 16) + torch.from_numpy(np.random.rand(1, 16, 16))  # noqa: NPY002

    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first, second = run(draw, model), run(draw, model)
    assert torch.equal(first.positive, second.positive)
    assert torch.equal(before[0], torch.random.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002


def planted(fault):
    """An explainer whose third pair of the list is at fault."""
    bad = make_pairs(N).images[3].float() / 255

    def function(model, probes, references, generator):
        maps = probes.mean(1)
        for row, probe in enumerate(probes):
            if torch.equal(probe, bad):
                maps = fault(model, maps, row)
        return maps

    return function


def spoil(value):
    def fault(model, maps, row):
        maps = maps.clone()
        maps[row] = value
        return maps

    return fault


def raises(model, maps, row):
    raise KeyError("layer9")


def train(model, maps, row):
    model.module.train()
    return maps


def hook(model, maps, row):
    model.module.conv1.register_forward_hook(lambda *a: None)
    return maps


def weights(model, maps, row):
    model.module.conv1.weight.data.add_(1.0)
    return maps


def weights_and_raise(model, maps, row):
    weights(model, maps, row)
    raise RuntimeError("half way")


def freeze(model, maps, row):
    model.module.fc.weight.requires_grad_(False)
    return maps


def gradients(model, maps, row):
    with torch.enable_grad():
        model.module(torch.rand(1, 3, 16, 16)).sum().backward()
    return maps


def swap(model, maps, row):
    model.module.conv2 = torch.nn.Conv2d(6, 8, 3, padding=1)
    return maps


def shadow(model, maps, row):
    model.module.forward = lambda x: x.flatten(1)
    return maps


def stride(model, maps, row):
    model.module.conv1.stride = (1, 1)
    return maps


def double(model, maps, row):
    model.module.double()
    return maps


def norm_weights(model, maps, row):
    torch.nn.utils.parametrizations.weight_norm(model.module.fc)
    return maps


def add(model, maps, row):
    model.module.extra = torch.nn.Linear(2, 2)
    return maps


def reshape(model, maps, row):
    model.module.fc.weight.data = torch.ones(2, 2)
    return maps


def embed_nan(model, maps, row):
    model.embed(torch.full((1, 3, 16, 16), torch.nan))
    return maps


def break_and_embed(model, maps, row):
    with torch.no_grad():
        model.module.fc.weight.fill_(torch.nan)
    model.embed(torch.rand(1, 3, 16, 16))
    return maps


def refuse(model, maps, row):
    raise ModelContractError("I don't like it")


@pytest.mark.parametrize(
    ("fault", "state", "reason"),
    [
        (spoil(torch.nan), RowState.NAN_MAP, "256 pixels are NaN"),
        (spoil(torch.inf), RowState.NAN_MAP, "NaN or infinite"),
        (spoil(0.25), RowState.DEGENERATE_MAP, "every pixel is 0.25"),
        (lambda m, maps, row: maps[:, :8], RowState.WRONG_SHAPE, "maps (1, 16, 16), one per probe"),
        (lambda m, maps, row: None, RowState.WRONG_SHAPE, "NoneType"),
        (
            raises,
            RowState.EXPLAINER_RAISED,
            f"KeyError (test_maps.py:{raises.__code__.co_firstlineno + 1})",
        ),
        (train, RowState.MODEL_CHANGED, "training and evaluation"),
        (hook, RowState.MODEL_CHANGED, "hooks were left"),
        (weights, RowState.MODEL_CHANGED, "weights or buffers"),
        (weights_and_raise, RowState.MODEL_CHANGED, "weights or buffers"),
        (freeze, RowState.MODEL_CHANGED, "requires_grad"),
        (gradients, RowState.MODEL_CHANGED, "gradients were left"),
        (swap, RowState.MODEL_CHANGED, "submodules were replaced"),
        (shadow, RowState.MODEL_CHANGED, "its attribute forward was changed"),
        (stride, RowState.MODEL_CHANGED, "its attribute conv1.stride was changed"),
        (double, RowState.MODEL_CHANGED, "weights or buffers"),
        (norm_weights, RowState.MODEL_CHANGED, "class of its module 'fc'"),
        (add, RowState.MODEL_CHANGED, "submodules were replaced"),
        (reshape, RowState.MODEL_CHANGED, "weights or buffers"),
        (embed_nan, RowState.EXPLAINER_RAISED, "ModelContractError: model 'counting'"),
        (break_and_embed, RowState.MODEL_CHANGED, "weights or buffers"),
        (refuse, RowState.EXPLAINER_RAISED, "I don't like it"),
    ],
)
def test_a_fault_marks_its_own_pair_only_and_the_model_is_put_back(model, fault, state, reason):
    custody, batch = Custody(model.module), torch.rand(4, 3, 16, 16)
    embedded = model.embed(batch)
    maps = run(planted(fault), model)
    assert maps.states[3] is state
    assert reason in maps.reasons[3]
    assert [s for row, s in enumerate(maps.states) if row != 3] == [RowState.OK] * (N - 1)
    assert custody.changes() == []
    assert torch.equal(model.embed(batch), embedded)
    assert_means(maps.positive[4], make_pairs(N).images[4])


def test_a_model_that_fails_under_the_explainer_is_the_models_fault(model):
    model.model.module.fc = torch.nn.Linear(3, 3)
    with pytest.raises(ModelContractError, match="embed raised"):
        run(lambda m, p, r, g: m.embed(p), model)


def test_states_that_the_explainer_declares_are_kept(model):
    def function(m, p, r, g):
        states = tuple([RowState.NO_GRADIENT] * len(p))
        return SaliencyMaps(torch.zeros(len(p), 16, 16), None, states, ("equal images",) * len(p))

    maps = run(function, model)
    assert set(maps.states) == {RowState.NO_GRADIENT}
    assert maps.reasons[0] == "equal images"


def test_an_interrupted_run_hands_the_model_back(model):
    def function(m, p, r, g):
        m.module.double()
        raise KeyboardInterrupt

    custody = Custody(model.module)
    with pytest.raises(KeyboardInterrupt):
        run(function, model)
    assert custody.changes() == []


def test_hooks_of_the_caller_are_no_change_and_can_be_removed_afterwards(model):
    passes = []
    handle = model.module.register_forward_pre_hook(lambda *_: passes.append(1))

    def function(m, p, r, g):
        m.module(p)
        m.module._forward_pre_hooks.clear()
        return p.mean(1)

    assert set(run(function, model).states) == {RowState.MODEL_CHANGED}
    assert len(passes) == 2 * 2 + N  # two groups, each twice, then every pair met the hook
    handle.remove()
    assert len(model.module._forward_pre_hooks) == 0


def test_what_cannot_be_undone_is_said(model, monkeypatch):
    monkeypatch.setattr(Custody, "restore", lambda self, *, is_same=False: None)
    with pytest.raises(ModelContractError, match="can't be undone: its attribute forward"):
        run(lambda m, p, r, g: setattr(m.module, "forward", None) or shadow(m, p.mean(1), 0), model)


def test_a_reused_output_buffer_keeps_every_groups_maps(model):
    buffer = torch.zeros(16, 16, 16)

    def function(m, p, r, g):
        buffer[: len(p)] = p.mean(1)
        return SaliencyMaps(buffer[: len(p)], buffer[: len(p)])

    pairs = make_pairs(N)
    maps = run(function, model, pairs=pairs)
    assert_means(maps.positive, pairs.images[:N])


def test_images_that_the_explainer_writes_over_are_its_own(model):
    pairs = make_pairs(N, shared_probe=True)
    images, seen = pairs.images.clone(), []

    def function(m, p, r, g):
        seen.append(p.clone())
        maps = p.mean(1)
        p.zero_()
        r.zero_()
        return maps

    maps = run(function, model, pairs=pairs)
    assert torch.equal(pairs.images, images)
    assert all(torch.equal(one, seen[0][0]) for group in seen for one in group)
    assert all(torch.equal(map_, maps.positive[0]) for map_ in maps.positive)


def test_modes_that_an_explainer_switches_are_put_back(model):
    def modes():
        return (
            torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.get_default_dtype(),
            torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(), np.geterr(),
        )  # fmt: skip

    met = []

    def function(m, p, r, g):
        met.append(modes())
        torch.set_grad_enabled(False)
        torch.set_default_dtype(torch.float64)
        torch.set_num_threads(torch.get_num_threads() + 1)
        torch.use_deterministic_algorithms(True, warn_only=True)
        np.seterr(all="ignore")
        if len(p) > 1:
            raise RuntimeError("and raises")
        return p.mean(1)

    before = modes()
    run(function, model)
    assert modes() == before
    assert set(map(str, met)) == {str(before)}


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_an_explainer_finds_gradients_on(model, mode):
    def function(m, p, r, g):
        p.requires_grad_()
        return torch.autograd.grad(m.module(p).sum(), p)[0].sum(1)

    with mode():
        maps = run(function, model)
        assert not torch.is_grad_enabled()
    assert set(maps.states) == {RowState.OK}


def test_an_explainer_that_refuses_every_pair_alike_is_not_set_up(model):
    def refuse(m, p, r, g):
        raise ExplainerContractError("mine: the file is not there. Make it.")

    with pytest.raises(ExplainerContractError, match=r"^mine: the file is not there. Make it.$"):
        run(refuse, model)


def test_an_explainer_that_refuses_some_pairs_loses_those(model):
    pairs = make_pairs(N)
    bad = pairs.images[3].float() / 255

    def refuse(m, p, r, g):
        if bool((p == bad).flatten(1).all(dim=1).any()):
            raise ExplainerContractError("not this one")
        return p.mean(1)

    maps = run(refuse, model, pairs=pairs)
    assert [row for row, state in enumerate(maps.states) if state is not RowState.OK] == [3]
    assert (maps.states[3], maps.reasons[3]) == (RowState.EXPLAINER_RAISED, "not this one")


def test_an_error_says_where_it_came_up_without_the_machines_paths(model, tmp_path):
    code = "def broken(m, p, r, g):\n    return p.no_such_thing\n"
    file = tmp_path / "conftest.py"
    file.write_text(code)
    found = {}
    exec(compile(code, str(file), "exec"), found)
    reason = run(found["broken"], model).reasons[0]
    assert reason.endswith("(conftest.py:2)")
    assert str(tmp_path) not in reason


def test_left_gradients_come_with_advice(model):
    def backward(m, p, r, g):
        p.requires_grad_()
        m.module(p).sum().backward()
        return p.grad.abs().sum(1)

    maps = run(backward, model)
    assert set(maps.states) == {RowState.MODEL_CHANGED}
    assert "Use torch.autograd.grad" in maps.reasons[0]


def test_a_nonmate_is_of_neither_identity_of_its_row(model):
    pairs = make_pairs(4)
    pairs = replace(pairs, probe_identity=torch.tensor([0, 1, 2, 3]),
                    reference_identity=torch.tensor([1, 0, 2, 3]))  # fmt: skip
    met = []

    class Contrasted(From):
        traits = ExplainerTraits(needs={"contrast"})

        def explain(self, model, probes, references, *, contrast=None, generator):
            met.append(contrast)
            return probes.mean(1)

    for seed in range(5):
        explain(Contrasted(None), model, comparison(pairs), seed=seed, progress=lambda *a: None)
    images = pairs.images.float() / 255
    forbidden = {0: (4, 5), 1: (4, 5), 2: (6,), 3: (7,)}
    for contrast in met:
        for row, image in enumerate(contrast):
            [which] = [i for i in range(8) if torch.equal(images[i], image)]
            assert which >= 4
            assert which not in forbidden[row]


def test_nonmates_of_the_list_are_handed_over_and_enter_the_gallery_under_their_own_names(model):
    pairs = make_pairs(N)
    named = replace(
        pairs,
        images=torch.cat([pairs.images, 255 - pairs.images[:2]]),
        image_digests=(*pairs.image_digests, "x" * 64, "y" * 64),
        contrast=torch.tensor([2 * N, 2 * N + 1] * (N // 2)),
        contrast_identity=torch.tensor([N, N + 1] * (N // 2)),
    )

    class Asking:
        traits = ExplainerTraits(needs={"contrast", "gallery"})

        def explain(self, model, probes, references, *, contrast=None, generator, gallery=None):
            rows = gallery.probe_identity % 2
            assert_rounded(contrast, 1 - pairs.images[rows].double() / 255, terms=1)
            assert gallery.identity[-2:].tolist() == [N, N + 1]
            return probes.mean(1)

    maps = explain(Asking(), model, comparison(named), seed=1, progress=lambda done, total: None)
    assert set(maps.states) == {RowState.OK}


def test_an_explainer_of_layers_is_not_let_loose_on_a_model_without_any():
    scripted = CountingModel(ConvNet().eval())
    scripted.traits = ModelTraits(has_layers=False)
    reason = why_unsupported(GradCAM(layer="conv2"), scripted)
    assert "hooks see nothing" in reason
    assert why_unsupported(Gradient(), scripted) is None
    assert why_unsupported(GradCAM(layer="conv2"), CountingModel(ConvNet().eval())) is None


def raises_always(probes):
    raise ValueError("no")


@pytest.mark.parametrize(
    ("answer", "state", "calls"),
    [
        (lambda probes: list(probes[:, 0]), RowState.WRONG_SHAPE, 2),
        (lambda probes: None, RowState.WRONG_SHAPE, 2),
        (lambda probes: probes[:, 0, ::2], RowState.WRONG_SHAPE, 2),
        (raises_always, RowState.EXPLAINER_RAISED, 17),
    ],
)
def test_an_explainer_that_fails_on_every_pair_is_not_asked_for_all_of_them(
    model, answer, state, calls
):
    asked = []

    def counted(model, probes, references, generator):
        asked.append(len(probes))
        return answer(probes)

    maps = explain(
        From(counted), model, comparison(make_pairs(40), "probe"), seed=1, progress=lambda *_: None
    )
    assert set(maps.states) == {state}
    assert len(maps.states) == 40
    assert len(asked) == calls
    assert maps.reasons[-1].startswith("not asked, as the first pairs all failed: ")
