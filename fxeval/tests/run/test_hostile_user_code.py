"""Whatever user code leaves changed, the next explainer's rows are those of a run without it."""

import builtins
import copy
import decimal
import faulthandler
import gc
import logging
import multiprocessing
import os
import queue
import random
import signal
import socket
import sys
import threading
import warnings
import weakref
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd import forward_ad
from torch.nn.modules import module as modules
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from fxeval.contracts import Crop, ExplainerTraits
from fxeval.engine.forward_pool import ForwardPool
from fxeval.errors import (
    DataContractError,
    EvidenceError,
    ModelContractError,
    SuiteError,
    UnsupportedError,
)
from fxeval.explainers.mask_banks import bank_of
from fxeval.functional import similarity
from fxeval.hooks.process_modes import Modes
from fxeval.metrics import CATALOGUE, deletion_insertion
from fxeval.models.black_box import EmbeddingFunction
from fxeval.models.loading import TorchFaceModel
from fxeval.results import Outcome, RowState
from fxeval.run.guard import Guard
from fxeval.run.measure import measure_cell
from fxeval.run.workshop import Subjects, Workshop
from fxeval.suite.cells import Use
from fxeval.tests import toy_world
from fxeval.tests.subjects import ConvNet

KIND = "faithfulness.deletion_insertion"
PARAMETERS = CATALOGUE[KIND].Parameters(fills=["mean"], steps=4, controls=["random_pixels"])
REDRAWN = "sanity.model_randomisation"
KEPT = []  # what a behaviour keeps alive after its call


class Honest:
    """Needs gradients, embeddings, numpy, and functions of torch."""

    def explain(self, model, probes, references, *, contrast=None, generator):
        images = probes.clone().requires_grad_()
        likeness = F.cosine_similarity(model.module(images), model.embed(references).detach())
        (gradient,) = torch.autograd.grad(likeness.sum(), images)
        shift = np.float32(np.mean(generator.random(8)))
        return (gradient.abs() * (images + float(shift))).sum(1).detach()


class Hostile:
    """Does something to the process, then returns maps that are no worse than others."""

    def __init__(self, act):
        self.act = act

    def explain(self, model, probes, references, *, contrast=None, generator):
        maps = probes.mean(1) + torch.arange(probes.shape[-1]) / 100
        self.act(model)
        return maps


class World:
    """A workshop, and the rows of its cells as they were written."""

    def __init__(self, model=None, source=None, kind=KIND, parameters=PARAMETERS):
        self.rows = {}
        self.during = lambda cell: None
        self.workshop = Workshop(batch_size=16, emit=self._emit, progress=lambda *_: None)
        self.model = model or toy_world.model()
        self.source = source or toy_world.People(2)
        self.cell = replace(toy_world.cell_of(kind, parameters), n=2)

    def _emit(self, rows):
        for row in rows:
            self.rows.setdefault(row.cell, []).append(row.model_dump_json(exclude={"cell"}))
        self.during(rows[0].cell)

    def measure(self, name, explainer):
        cell = replace(self.cell, id=name, explainer=Use(name))
        subjects = Subjects(self.model, explainer, self.source)
        result = measure_cell(cell, subjects, self.workshop)
        notes = [note for note in result.notes if not _is_of_two_people(note)]
        return result.model_copy(update={"notes": notes})


def _is_of_two_people(note):
    """Say whether a note is about two people, an untrained network or ties, as everywhere."""
    return (
        note.startswith("whether the model tells mated")
        or note.endswith("use another fill")
        or "tie more than" in note
    )


@pytest.fixture(scope="module")
def alone():
    """The rows of the honest explainer where nobody was before it."""
    world = World()
    assert world.measure("honest", Honest()).states == {RowState.OK: 2}
    return world.rows["honest"]


def measured_after(act, alone):
    """Measure a hostile explainer, then the honest one, whose rows must not differ."""
    world = World()
    hostile = world.measure("hostile", Hostile(act))
    honest = world.measure("honest", Honest())
    assert world.rows["honest"] == alone
    assert honest.states == {RowState.OK: 2}
    assert honest.notes == []
    assert honest.verdict.outcome is not Outcome.INVALID
    return hostile


# Settings that decide how torch and numpy compute: put back, and noted.


class Doubles(TorchFunctionMode):
    def __torch_function__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        return found * 2 if isinstance(found, torch.Tensor) and found.is_floating_point() else found


class Counts(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return function(*args, **(kwargs or {}))


def entered(make):
    def act(model):
        KEPT.append(make())
        KEPT[-1].__enter__()

    return act


def saved_hooks():
    top = torch._C._autograd._top_saved_tensors_default_hooks(True)
    return top, torch._C._autograd._saved_tensors_hooks_get_disabled_error_message()


def autocast():
    return (
        torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu"),
        torch.is_autocast_cache_enabled(),
    )  # fmt: skip


def flushes():
    return bool(torch.tensor([5e-324], dtype=torch.float64).mul(1.0) == 0)


def switch(owner, name, value):
    return lambda model: setattr(owner, name, value), lambda: getattr(owner, name)


SETTINGS = {
    "default dtype": (
        lambda m: torch.set_default_dtype(torch.float64), torch.get_default_dtype,
    ),
    "default device": (lambda m: torch.set_default_device("meta"), torch.get_default_device),
    "stack of TorchFunctionMode": (
        entered(Doubles), torch.overrides._get_current_function_mode_stack,
    ),
    "stack of TorchDispatchMode": (
        entered(Counts), torch.utils._python_dispatch._get_current_dispatch_mode_stack,
    ),
    "torch function overrides": (
        entered(torch._C.DisableTorchFunctionSubclass), torch._C._is_torch_function_enabled,
    ),
    "number of threads": (
        lambda m: torch.set_num_threads(torch.get_num_threads() + 1), torch.get_num_threads,
    ),
    "deterministic algorithms": (
        lambda m: torch.use_deterministic_algorithms(True),
        torch.are_deterministic_algorithms_enabled,
    ),
    "anomaly detection": (
        lambda m: torch.autograd.set_detect_anomaly(True), torch.is_anomaly_enabled,
    ),
    "autocast on cpu": (entered(lambda: torch.autocast("cpu", torch.bfloat16)), autocast),
    "cache of autocast": (lambda m: torch.set_autocast_cache_enabled(False), autocast),
    "hooks of saved tensors": (
        entered(lambda: torch.autograd.graph.saved_tensors_hooks(lambda x: x * 2, lambda x: x)),
        saved_hooks,
    ),
    "flushing of denormal numbers": (lambda m: torch.set_flush_denormal(True), flushes),
    "precision of float32 matrix products": (
        lambda m: torch.set_float32_matmul_precision("medium"),
        torch.get_float32_matmul_precision,
    ),
    "float32 precision of generic all": switch(torch.backends, "fp32_precision", "tf32"),
    "cudnn.benchmark": switch(torch.backends.cudnn, "benchmark", True),
    "cudnn.deterministic": switch(torch.backends.cudnn, "deterministic", True),
    "cudnn.enabled": switch(torch.backends.cudnn, "enabled", False),
    "mkldnn.enabled": (
        lambda m: torch._C._set_mkldnn_enabled(False), torch._C._get_mkldnn_enabled,
    ),
    "mkldnn.deterministic": switch(torch.backends.mkldnn, "deterministic", True),
    "plain attention": (
        lambda m: torch.backends.cuda.enable_math_sdp(False), torch.backends.cuda.math_sdp_enabled,
    ),
    "fast path of attention modules": (
        lambda m: torch.backends.mha.set_fastpath_enabled(False),
        torch.backends.mha.get_fastpath_enabled,
    ),
    "forward-mode level": (
        lambda m: forward_ad.enter_dual_level(), lambda: forward_ad._current_level,
    ),
    "numpy's reactions to errors": (lambda m: np.seterr(all="raise"), np.geterr),
    "numpy's handler of errors": (lambda m: np.seterrcall(print), np.geterrcall),
    "numpy's buffer size": (lambda m: np.setbufsize(16), np.getbufsize),
}  # fmt: skip


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_that_decides_how_torch_computes_is_put_back_and_noted(name, alone):
    act, read = SETTINGS[name]
    before = read()
    hostile = measured_after(act, alone)
    assert read() == before
    assert hostile.states == {RowState.OK: 2}
    (note,) = hostile.notes
    assert note.startswith("explainer 'Hostile' changed settings of the process, which were put")
    assert name in note


def test_hooks_of_saved_tensors_can_be_forbidden_by_nobody(alone):
    before = saved_hooks()
    measured_after(entered(lambda: torch.autograd.graph.disable_saved_tensors_hooks("no")), alone)
    assert saved_hooks() == before


# The rest of the process: put back, and never mentioned, since no number depends on it.


def chdir(model):
    os.chdir("/")


def seeds(model):
    torch.manual_seed(3)  # noqa: TID251
    np.random.seed(3)  # noqa: NPY002
    random.seed(3)


def drawn():
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    return str(states)


def grow_path(model):
    sys.path.insert(0, "/nowhere")


def trace(model):
    sys.settrace(lambda *_: None)


def lower(model):
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft - 1, hard))


def open_files():
    import resource

    return resource.getrlimit(resource.RLIMIT_NOFILE)


def other_faulthandler(model):
    if faulthandler.is_enabled():
        faulthandler.disable()
    else:
        faulthandler.enable(sys.__stderr__)


def umask():
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


SURROUNDINGS = {
    "gradients off": (lambda m: torch.set_grad_enabled(False), torch.is_grad_enabled),
    "inference mode": (entered(torch.inference_mode), torch.is_inference_mode_enabled),
    "threads of autograd": (
        entered(lambda: torch.autograd.set_multithreading_enabled(False)),
        torch._C._is_multithreading_enabled,
    ),
    "seeds": (seeds, drawn),
    "filters of warnings": (
        lambda m: warnings.simplefilter("error"), lambda: list(warnings.filters),
    ),
    "warnings of torch": (lambda m: torch.set_warn_always(True), torch.is_warn_always_enabled),
    "recursion limit": (lambda m: sys.setrecursionlimit(200_000), sys.getrecursionlimit),
    "switch interval": (lambda m: sys.setswitchinterval(0.5), sys.getswitchinterval),
    "signal handler": (
        lambda m: signal.signal(signal.SIGTERM, signal.SIG_IGN),
        lambda: signal.getsignal(signal.SIGTERM),
    ),
    "alarm": (
        lambda m: signal.setitimer(signal.ITIMER_REAL, 1000),
        lambda: signal.getitimer(signal.ITIMER_REAL),
    ),
    "blocked signal": (
        lambda m: signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1]),
        lambda: signal.pthread_sigmask(signal.SIG_BLOCK, []),
    ),
    "profile function": (lambda m: sys.setprofile(lambda *_: None), sys.getprofile),
    "trace function": (trace, sys.gettrace),
    "trace function of threads": (
        lambda m: threading.settrace(lambda *_: None), threading.gettrace,
    ),
    "sys.excepthook": switch(sys, "excepthook", print),
    "threading.excepthook": switch(threading, "excepthook", print),
    "standard output": switch(sys, "stdout", None),
    "standard error": switch(sys, "stderr", None),
    "environment": (
        lambda m: os.environ.update(FXEVAL_HOSTILE="1", PATH=""), lambda: dict(os.environ),
    ),
    "working folder": (chdir, os.getcwd),
    "umask": (lambda m: os.umask(0o777), umask),
    "import path": (grow_path, lambda: list(sys.path)),
    "decimals": (
        lambda m: setattr(decimal.getcontext(), "prec", 2), lambda: decimal.getcontext().prec,
    ),
    "garbage collection": (lambda m: gc.disable(), gc.isenabled),
    "fault handler": (other_faulthandler, faulthandler.is_enabled),
    "logging": (lambda m: logging.disable(logging.CRITICAL), lambda: logging.root.manager.disable),
    "log handler": (
        lambda m: logging.root.addHandler(logging.NullHandler()),
        lambda: list(logging.root.handlers),
    ),
    "sockets": (lambda m: socket.setdefaulttimeout(1e-3), socket.getdefaulttimeout),
    "start method": (
        lambda m: multiprocessing.set_start_method("spawn", force=True),
        lambda: multiprocessing.get_start_method(allow_none=True),
    ),
    "sharing of tensors": (
        lambda m: torch.multiprocessing.set_sharing_strategy("file_system"),
        torch.multiprocessing.get_sharing_strategy,
    ),
    "open files": (lower, open_files),
    "processors": (
        lambda m: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}),
        lambda: os.sched_getaffinity(0),
    ),
}  # fmt: skip


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="settings of Linux")
@pytest.mark.parametrize("name", SURROUNDINGS)
def test_the_rest_of_the_process_is_put_back_without_a_word(name, alone):
    act, read = SURROUNDINGS[name]
    before = read()
    hostile = measured_after(act, alone)
    assert read() == before
    assert hostile.states == {RowState.OK: 2}
    assert hostile.notes == []


# Code and hooks that every network meets: the explainer changed the model.


def replaced(owner, name):
    """Replace a function by another that gives something else."""

    def act(model):
        old = getattr(owner, name)
        setattr(owner, name, lambda *args, **kwargs: spoilt(old(*args, **kwargs)))

    return act


def spoilt(value):
    return value * 1.25 if isinstance(value, torch.Tensor | float | np.floating) else value


def other_code(model):
    similarity.similarity.__code__ = (lambda kind, one, two: one.sum(1) * 0).__code__


def other_defaults(model):
    F.normalize.__defaults__ = (1.0, 0, 1e-3, None)


def hide_a_method(model):
    nn.PReLU._call_impl = lambda self, *args, **kwargs: args[0] * 0


def hide_a_builtin(model):
    deletion_insertion.max = min


def override(model):
    KEPT.append(torch.library.Library("aten", "IMPL"))
    KEPT[-1].impl("prelu", lambda x, weight: x * 0, "CompositeImplicitAutograd")


def other_module(model):
    sys.modules["numpy"] = copy


def of_the_object(name, value):
    def act(model):
        inner = model
        while hasattr(inner, "model"):
            inner = inner.model
        vars(inner)[name] = value

    return act


def other_crop(model):
    vars(model.crop)["size"] = (8, 8)


def weights(model):
    with torch.no_grad():
        model.module.fc.weight.mul_(1.5)


def blind_and_change(model):
    torch.equal = lambda one, other: True
    weights(model)


def registered(register, function):
    return lambda model: KEPT.append(register(function))


def grow(module, inputs, output):
    return output * 1.25 if isinstance(output, torch.Tensor) else output


HOOKS = "hooks were set on all modules at once"
CHANGES = {
    "forward hook of all": (registered(modules.register_module_forward_hook, grow), HOOKS),
    "forward hook of all, always": (
        lambda m: modules.register_module_forward_hook(grow, always_call=True), HOOKS,
    ),
    "pre-hook of all": (
        registered(
            modules.register_module_forward_pre_hook, lambda module, inputs: (inputs[0] * 1.25,)
        ),
        HOOKS,
    ),
    "backward hook of all": (
        registered(
            modules.register_module_full_backward_hook,
            lambda module, inputs, outputs: (inputs[0] * 1.25, *inputs[1:])
            if inputs[0] is not None else None,
        ),
        HOOKS,
    ),
    "backward pre-hook of all": (
        registered(
            modules.register_module_full_backward_pre_hook, lambda module, outputs: outputs
        ),
        HOOKS,
    ),
    "hook of new parameters": (
        registered(
            modules.register_module_parameter_registration_hook, lambda module, name, one: None
        ),
        HOOKS,
    ),
    "torch function": (replaced(F, "cosine_similarity"), "torch.nn.functional.cosine_similarity"),
    "convolution": (replaced(F, "conv2d"), "torch.nn.functional.conv2d was replaced"),
    "torch.cat": (replaced(torch, "cat"), "torch.cat was replaced"),
    "method of tensors": (
        lambda m: setattr(torch.Tensor, "mul", lambda one, other: one),
        "torch.Tensor.mul was added",
    ),
    "forward of a layer": (replaced(nn.Linear, "forward"), "Linear.forward was replaced"),
    "call of modules": (replaced(nn.Module, "__call__"), "Module.__call__ was replaced"),
    "hidden method": (hide_a_method, "PReLU._call_impl was added"),
    "forward of the network": (replaced(ConvNet, "forward"), "ConvNet.forward was replaced"),
    "defaults of a function": (other_defaults, "the code of torch.nn.functional.normalize"),
    "operator": (override, "the operator aten::prelu"),
    "numpy function": (replaced(np, "mean"), "numpy.mean was replaced"),
    "Python's own function": (replaced(builtins, "sum"), "builtins.sum was replaced"),
    "Python's comparison": (
        lambda m: setattr(builtins, "all", lambda some: True), "builtins.all was replaced",
    ),
    "comparison of weights": (blind_and_change, "its weights or buffers were changed"),
    "module in the place of another": (other_module, "the module numpy was replaced"),
    "copies": (
        lambda m: copy._deepcopy_dispatch.update({ConvNet: lambda net, memo: net}),
        "copy._deepcopy_dispatch was changed",
    ),
    "function of fxeval": (
        replaced(similarity, "similarity"), "fxeval.functional.similarity.similarity was replaced",
    ),
    "code of a function": (other_code, "the code of fxeval.functional.similarity.similarity"),
    "metric of fxeval": (
        replaced(deletion_insertion, "measure"), "deletion_insertion.measure was replaced",
    ),
    "hidden builtin": (hide_a_builtin, "deletion_insertion.max was added"),
    "number of fxeval": (
        lambda m: setattr(sys.modules["fxeval.run.measure"], "GROUP_BYTES", 1),
        "fxeval.run.measure.GROUP_BYTES was replaced",
    ),
    "embed of the object": (
        of_the_object("embed", lambda images: torch.ones(len(images), 8)),
        "the model's attribute embed was changed",
    ),
    "threshold of the object": (
        of_the_object("operating_threshold", -1.0),
        "the model's attribute operating_threshold was changed",
    ),
    "embed of the class": (
        replaced(type(toy_world.model()), "embed"), "TorchFaceModel.embed was replaced",
    ),
    "crop": (other_crop, "the model's crop was changed"),
    "weights": (weights, "its weights or buffers were changed"),
    "hook of the network": (
        lambda m: m.module.fc.register_forward_hook(grow), "hooks were left on its modules",
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Warning only once for all operators")
@pytest.mark.parametrize("name", CHANGES)
def test_code_and_hooks_that_every_network_meets_are_put_back_and_blamed(name, alone):
    act, words = CHANGES[name]
    hostile = measured_after(act, alone)
    assert hostile.states == {RowState.MODEL_CHANGED: 2}
    assert words in hostile.problems[0].reason
    assert hostile.verdict.outcome is Outcome.FAIL


# Errors: no more than a state of the rows.


class NeedsTwoError(Exception):
    def __init__(self, one, two):
        super().__init__(one, two)


def recursion(model):
    recursion(model)


def circle(model):
    try:
        try:
            raise ValueError("one")
        except ValueError as one:
            raise KeyError("two") from one
    except KeyError as two:
        two.__cause__.__cause__ = two
        raise


def raises(error):
    def act(model):
        raise error

    return act


ERRORS = {
    "ValueError": raises(ValueError("no")),
    "AssertionError": raises(AssertionError()),
    "MemoryError": raises(MemoryError()),
    "out of memory": raises(RuntimeError("CUDA out of memory. Tried to allocate")),
    "RecursionError": recursion,
    "StopIteration": raises(StopIteration(3)),
    "StopAsyncIteration": raises(StopAsyncIteration()),
    "ExceptionGroup": raises(ExceptionGroup("several", [ValueError("a"), TypeError("b")])),
    "Warning": raises(UserWarning("no warning")),
    "unprintable": raises(UnicodeError("\udc80\x00\x1b[2J")),
    "of its own": raises(NeedsTwoError(1, 2)),
    "circle of causes": circle,
    "OSError": raises(FileNotFoundError(2, "no such file", "/home/ann/secret")),
    "ModelContractError": raises(ModelContractError("no")),
    "DataContractError": raises(DataContractError("no")),
    "EvidenceError": raises(EvidenceError("no")),
    "UnsupportedError": raises(UnsupportedError("no")),
    "SuiteError": raises(SuiteError("no")),
    "bare FxevalError": raises(EvidenceError()),
}


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_is_a_state_of_the_rows_and_harms_nobody(name, alone):
    hostile = measured_after(ERRORS[name], alone)
    assert hostile.states == {RowState.EXPLAINER_RAISED: 2}
    assert "secret" not in hostile.problems[0].reason


def test_an_error_under_a_left_mode_is_recorded_and_the_mode_put_back(alone):
    class Refuses(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            raise RuntimeError("nothing works any more")

    hostile = measured_after(entered(Refuses), alone)
    assert "stack of TorchDispatchMode" in hostile.notes[0]


# What remembers: nothing that was computed under a change is remembered.


def masks():
    draw = torch.rand(6, 16, 16, generator=torch.Generator().manual_seed(2))
    return bank_of(draw.round())


class Masks:
    """Honest: the mean of the masks, weighted with similarities that are remembered by image."""

    def explain(self, model, probes, references, *, contrast=None, generator):
        bank, target = masks(), model.embed(references)
        found = []
        for probe, reference in zip(probes, target, strict=True):
            likeness = torch.cosine_similarity(model.embed_masked(probe, bank, "mean"), reference)
            found.append((likeness[:, None, None] * bank.masks).mean(0))
        return torch.stack(found)


class Meanwhile:
    """Asks for the same embeddings while something is changed, and leaves nothing changed."""

    def __init__(self, changed):
        self.changed = changed

    def explain(self, model, probes, references, *, contrast=None, generator):
        with self.changed():
            for probe in probes:
                model.embed_masked(probe, masks(), "mean")
        return probes.mean(1)


@contextmanager
def hooked():
    handle = modules.register_module_forward_hook(grow)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def patched():
    old, F.prelu = F.prelu, F.hardtanh
    try:
        yield
    finally:
        F.prelu = old


@pytest.mark.parametrize(
    "changed", [hooked, patched, Doubles, lambda: torch.autocast("cpu", torch.bfloat16)]
)
def test_what_is_computed_under_a_change_is_not_remembered_for_others(changed):
    alone, world = World(), World()
    alone.measure("masks", Masks())
    world.measure("hostile", Meanwhile(changed))
    world.measure("masks", Masks())
    assert world.rows["masks"] == alone.rows["masks"]


# Threads: what is changed outside of every call makes the cell invalid in which it is found.


class Sleeper:
    """Starts a thread that changes something whenever the test says so."""

    def __init__(self, change):
        self.change = change
        self.turns, self.done = queue.Queue(), queue.Queue()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def __call__(self, model):
        self.model = model
        if not self.thread.is_alive():
            self.thread.start()

    def run(self):
        while self.turns.get():
            self.change(self.model)
            self.done.put(True)

    def strike(self):
        self.turns.put(True)
        assert self.done.get(timeout=60)

    def stop(self):
        self.turns.put(False)
        self.thread.join(60)


@pytest.fixture
def sleeper():
    made = []

    def make(change):
        made.append(Sleeper(change))
        return made[-1]

    yield make
    for one in made:
        one.stop()


LATE = {
    "weights": (weights, "model 'a': its weights or buffers were changed"),
    "hook of the network": (CHANGES["hook of the network"][0], "hooks were left on its modules"),
    "forward hook of all": (CHANGES["forward hook of all"][0], HOOKS),
    "convolution": (CHANGES["convolution"][0], "torch.nn.functional.conv2d was replaced"),
    "metric of fxeval": (CHANGES["metric of fxeval"][0], "deletion_insertion.measure was replaced"),
    "embed of the object": (CHANGES["embed of the object"][0], "attribute embed was changed"),
    "default dtype": (SETTINGS["default dtype"][0], "default dtype"),
    "determinism": (
        lambda m: torch.backends.cudnn.__setattr__("deterministic", True), "cudnn.deterministic",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LATE)
def test_a_thread_that_changes_something_later_makes_the_cell_invalid(name, alone, sleeper):
    change, words = LATE[name]
    late, world = sleeper(change), World()
    world.during = lambda cell: late.strike()
    hostile = world.measure("hostile", Hostile(late))
    assert hostile.verdict.outcome is Outcome.INVALID
    assert words in hostile.verdict.reason
    assert "outside of every watched call" in hostile.verdict.reason
    assert "user code left threads running: 1" in hostile.remarks
    assert len(world.rows["hostile"]) == 2  # nothing that was measured is lost
    assert hostile.estimates == []
    world.during = lambda cell: None
    world.measure("honest", Honest())
    assert world.rows["honest"] == alone


def test_a_later_cell_that_a_thread_changes_is_invalid_and_the_one_after_it_is_as_ever(
    alone, sleeper
):
    late, world, masked = sleeper(weights), World(), World()
    assert world.measure("hostile", Hostile(late)).states == {RowState.OK: 2}
    world.during = lambda cell: late.strike()
    victim = world.measure("victim", Masks())
    assert victim.verdict.outcome is Outcome.INVALID
    assert "its weights or buffers were changed" in victim.verdict.reason
    world.during = lambda cell: None
    world.measure("honest", Honest())
    assert world.rows["honest"] == alone
    masked.measure("masks", Masks())
    world.measure("masks", Masks())
    assert world.rows["masks"] == masked.rows["masks"]


class Struck(Honest):
    """Honest, but the thread of another explainer strikes during some of its calls."""

    def __init__(self, late, times):
        self.late, self.times = late, times

    def explain(self, model, probes, references, *, contrast=None, generator):
        self.times -= 1
        if self.times >= 0:
            self.late.strike()
        return super().explain(model, probes, references, generator=generator)


def test_an_explainer_under_which_a_thread_strikes_once_is_asked_again(alone, sleeper):
    late, world = sleeper(weights), World()
    world.measure("hostile", Hostile(late))
    honest = world.measure("honest", Struck(late, 1))
    assert world.rows["honest"] == alone
    assert honest.notes[0].startswith("explainer 'Struck': the model was changed during a call")


def test_a_change_that_is_made_once_is_noted(alone):
    met = []

    def once(model):
        if not met:
            met.append(model.module.fc.register_forward_hook(grow))

    hostile = measured_after(once, alone)
    assert hostile.states == {RowState.OK: 2}
    assert hostile.notes == [
        "explainer 'Hostile': the model was changed during a call, and was not when the call was "
        "made again: hooks were left on its modules or taken from them"
    ]


def test_an_explainer_is_not_blamed_for_a_thread_that_strikes_again_and_again(alone, sleeper):
    late, world = sleeper(CHANGES["forward hook of all"][0]), World()
    world.measure("hostile", Hostile(late))
    victim = world.measure("victim", Struck(late, 100))
    assert victim.verdict.outcome is Outcome.INVALID
    assert "it can't be told which of them did it" in victim.verdict.reason
    world.measure("honest", Honest())
    assert world.rows["honest"] == alone


# Between cells: put back before the next one, which is valid.


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (weights, "model 'a' was changed between its cells, and put back: its weights"),
        (CHANGES["hook of the network"][0], "model 'a' was changed between its cells"),
        (CHANGES["convolution"][0], "torch.nn.functional.conv2d was replaced"),
        (SETTINGS["default device"][0], "default device"),
        (SETTINGS["stack of TorchFunctionMode"][0], "stack of TorchFunctionMode"),
        (lambda m: torch.set_grad_enabled(False), "gradients"),
    ],
)
def test_what_is_changed_between_cells_is_put_back_before_the_next(change, words, alone):
    world = World()
    world.measure("first", Hostile(lambda m: None))
    change(world.model)
    honest = world.measure("honest", Honest())
    assert world.rows["honest"] == alone
    (note,) = honest.notes
    assert words in note


def test_what_cannot_be_undone_makes_later_cells_invalid(monkeypatch):
    monkeypatch.setattr(Modes, "restore", Modes.changes)
    world = World()
    world.measure("first", Honest())
    torch.set_default_dtype(torch.float64)
    try:
        for _ in range(2):
            with pytest.raises(EvidenceError, match="in a way that can't be undone: default dtype"):
                world.measure("honest", Honest())
    finally:
        torch.set_default_dtype(torch.float32)
    assert world.measure("honest", Honest()).states == {RowState.OK: 2}


# User code of models and pair lists.


@dataclass(frozen=True, eq=False)
class Careless(TorchFaceModel):
    """A model that leaves settings behind whenever it embeds."""

    def embed(self, images):
        found = super().embed(images)
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)
        torch.set_num_threads(torch.get_num_threads() + 1)
        np.seterr(all="raise")
        torch.set_flush_denormal(True)
        return found


def test_a_model_that_leaves_settings_changed_has_the_rows_of_one_that_does_not(alone):
    model = toy_world.model()
    careless = Careless(
        model.name, model.crop, model.module, "cosine", model.operating_threshold, model.digest
    )
    world = World(model=careless)
    before = torch.get_num_threads(), torch.get_default_dtype(), np.geterr(), flushes()
    found = world.measure("honest", Honest())
    assert world.rows["honest"] == alone
    assert found.notes[0].startswith("model 'a' changed settings of the process, which were put")
    assert torch.is_grad_enabled()
    assert (torch.get_num_threads(), torch.get_default_dtype(), np.geterr(), flushes()) == before


@dataclass(frozen=True)
class CarelessPeople(toy_world.People):
    """Leaves settings behind, and writes later to the images that it returned."""

    def listing(self):
        torch.set_default_device("meta")
        return super().listing()

    def images(self, image_ids, crop):
        for old in KEPT_IMAGES:
            old.zero_()
        found = super().images(image_ids, crop)
        KEPT_IMAGES.append(found)
        torch.set_default_dtype(torch.float64)
        return found


KEPT_IMAGES = []


def test_a_pair_list_that_leaves_settings_changed_has_the_rows_of_one_that_does_not(alone):
    world = World(source=CarelessPeople(2))
    found = world.measure("honest", Honest())
    assert world.rows["honest"] == alone
    assert "pairs 'people' changed settings of the process" in found.notes[0]
    for old in KEPT_IMAGES:
        old.zero_()
    world.measure("masks", Masks())
    masked = World()
    masked.measure("masks", Masks())
    assert world.rows["masks"] == masked.rows["masks"]


class Scribbler:
    """Writes to what it was given, at once and in later calls."""

    traits = ExplainerTraits(needs={"contrast", "gallery"})

    def explain(self, model, probes, references, *, contrast=None, generator, gallery=None):
        maps = probes.mean(1)
        KEPT_IMAGES.extend([probes, references, contrast, gallery.embeddings, maps])
        KEPT_IMAGES.append(model.embed(probes))
        for one in KEPT_IMAGES:
            one.zero_()
        for one in (gallery.identity, gallery.probe_identity, gallery.reference_identity):
            one.zero_()
        return probes[:, 0] + torch.rand(16, 16)


def test_what_an_explainer_was_given_is_its_own(alone):
    world = World()
    world.measure("hostile", Scribbler())
    world.measure("honest", Honest())
    assert world.rows["honest"] == alone


def images_of_the_list(model):
    """Write to the images of the list itself, which no argument leads to."""
    frame = sys._getframe()
    while "asked" not in frame.f_locals:
        frame = frame.f_back
    frame.f_locals["asked"].faces.images.zero_()


def test_images_of_the_list_that_are_overwritten_make_the_cell_invalid_and_are_read_again(alone):
    world = World()
    hostile = world.measure("hostile", Hostile(images_of_the_list))
    assert hostile.verdict.outcome is Outcome.INVALID
    assert "the images of the pair list were changed" in hostile.verdict.reason
    world.measure("honest", Honest())
    assert world.rows["honest"] == alone


def write_to_memory(model):
    for one in model.pool._memory.values():
        one.zero_()


def test_remembered_embeddings_that_are_overwritten_are_computed_again(alone):
    world, written = World(), World()
    world.measure("first", Hostile(lambda m: None))
    hostile = world.measure("hostile", Hostile(write_to_memory))
    assert "user code wrote to remembered embeddings, which were computed again" in hostile.notes
    world.measure("honest", Honest())
    assert world.rows["honest"] == alone
    written.measure("hostile", Hostile(lambda m: None))
    assert world.rows["hostile"] == written.rows["hostile"]


def test_the_batch_size_is_not_the_explainers_to_choose(alone):
    hostile = measured_after(lambda m: setattr(m.pool, "batch_size", 1), alone)
    assert hostile.states == {RowState.EXPLAINER_RAISED: 2}


# Re-drawn networks, other models, black boxes.


def redrawn_world():
    return World(kind=REDRAWN, parameters=CATALOGUE[REDRAWN].Parameters())


@pytest.fixture(scope="module")
def redrawn_alone():
    world = redrawn_world()
    world.measure("honest", Honest())
    return world.rows["honest"]


def test_a_redrawn_network_that_is_changed_in_a_call_is_put_back(redrawn_alone):
    met, world = [], redrawn_world()

    def act(model):
        met.append(model.digest)
        if len(set(met)) == 2:
            weights(model)

    hostile = world.measure("hostile", Hostile(act))
    assert hostile.states == {RowState.MODEL_CHANGED: 2}
    world.measure("honest", Honest())
    assert world.rows["honest"] == redrawn_alone


def test_a_redrawn_network_that_a_thread_changes_makes_the_cell_invalid(redrawn_alone, sleeper):
    late, world = sleeper(weights), redrawn_world()
    world.during = lambda cell: late.strike()
    hostile = world.measure("hostile", Hostile(late))
    assert hostile.verdict.outcome is Outcome.INVALID
    assert "model 're-drawn network 1': its weights" in hostile.verdict.reason
    world.during = lambda cell: None
    world.measure("honest", Honest())
    assert world.rows["honest"] == redrawn_alone


def test_every_model_of_a_cell_is_compared_and_none_is_kept_alive():
    guard, one, two = Guard(ForwardPool(), tuple), toy_world.model("a"), toy_world.model("b")
    with guard.cell() as faults:
        guard.admit("a", one)
        guard.admit("b", two)
        weights(two)
    assert faults == ["model 'b': its weights or buffers were changed"]
    gone = weakref.ref(one.module)
    del one
    gc.collect()
    assert gone() is None
    with guard.cell() as faults:
        guard.admit("b", two)
    assert faults == []


@dataclass(eq=False)
class Lazy:
    """A black box that loads its library at its first image, and counts calls."""

    name: str = "lazy"
    crop: Crop = toy_world.SMALL
    similarity: str = "cosine"
    operating_threshold: float | None = None
    digest: str = "l" * 64
    module: None = None
    library: Callable | None = None
    cache: dict = field(default_factory=dict)
    calls: int = 0

    def embed(self, images):
        self.calls += 1
        self.library = self.library or (lambda of: of.flatten(1)[:, :32] + 0.1)
        self.cache[self.calls] = images
        return self.library(images)


def test_a_black_box_may_load_count_and_cache():
    world = World(model=Lazy())
    found = world.measure("occlusion", toy_world.Occlusion(8))
    assert found.states == {RowState.OK: 2}
    assert found.verdict.outcome is not Outcome.INVALID


def test_the_function_of_a_black_box_is_put_back():
    def function(images):
        return images.flatten(1)[:, :32] + 0.1

    def act(model):
        vars(model.model)["function"] = lambda images: images.flatten(1)[:, :32] * 0

    def world_of():
        crop = toy_world.model().crop
        return World(model=EmbeddingFunction("box", crop, function, "cosine", "1"))

    world, alone = world_of(), world_of()
    hostile = world.measure("hostile", Hostile(act))
    assert hostile.states == {RowState.MODEL_CHANGED: 2}
    assert "the model's attribute function was changed" in hostile.problems[0].reason
    for one in (world, alone):
        one.measure("occlusion", toy_world.Occlusion(8))
    assert world.rows["occlusion"] == alone.rows["occlusion"]
