"""Untrusted weight files: those that load, and those that are refused without being run."""

import contextlib
import copy
import io
import os
import pickle
import struct
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fxeval.errors import ModelContractError
from fxeval.models.files import formats
from fxeval.models.files.formats import (
    parse_checkpoint,
    parse_safetensors,
    parse_torchscript,
    repacked,
    selected,
)
from fxeval.tests.rounding import assert_rounded, terms_of


def saved(content: object, **options: object) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


class Evil:
    """Runs a command when it is unpickled, which leaves a file as evidence."""

    def __init__(self, made: Path) -> None:
        self.made = made

    def __reduce__(self):
        return os.system, (f"touch {self.made}",)


@pytest.fixture
def state():
    generator = torch.Generator().manual_seed(0)
    return OrderedDict(
        {
            "conv.weight": torch.randn(3, 4, generator=generator),
            "conv.bias": torch.randn(3, generator=generator).half(),
            "bn.num_batches_tracked": torch.tensor(7),
        }
    )


def assert_equal(loaded, state):
    assert loaded.keys() == state.keys()
    for name, value in state.items():
        expected = value.float() if value.is_floating_point() else value
        assert loaded[name].dtype == expected.dtype
        assert torch.equal(loaded[name], expected)


# safetensors


def test_safetensors_come_back_exactly_and_half_precision_as_float32(state):
    assert_equal(parse_safetensors(safetensors.torch.save(state), "x"), state)


@pytest.mark.parametrize("kept", [0, 7, 8, 30, -1])
def test_truncated_safetensors_are_refused(state, kept: int):
    with pytest.raises(ModelContractError, match=r"x\.st: expected a "):
        parse_safetensors(safetensors.torch.save(state)[:kept], "x.st")


def test_an_endless_header_is_refused():
    data = struct.pack("<Q", 5 << 20) + b" " * (6 << 20)
    with pytest.raises(ModelContractError, match="header of 5242880"):
        parse_safetensors(data, "x")


@settings(deadline=None)
@given(data=st.data())
def test_damaged_safetensors_load_or_are_refused(data):
    content = bytearray(safetensors.torch.save({"a": torch.ones(3), "b": torch.zeros(2, 2)}))
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ModelContractError):
        parse_safetensors(bytes(content), "x")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    ("save", "parse"),
    [(safetensors.torch.save, parse_safetensors), (saved, parse_checkpoint)],
    ids=["safetensors", "checkpoint"],
)
def test_weights_that_are_not_finite_are_counted_and_named(value: float, save, parse):
    weight = torch.ones(3, 4)
    weight[1, :2] = value
    data = save({"fc.weight": weight})
    with pytest.raises(ModelContractError, match=r"2 of 12 values of 'fc\.weight'"):
        parse(data, "x")


# checkpoints


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
def test_a_checkpoint_comes_back_exactly(state, is_zip: bool):
    data = saved(state, _use_new_zipfile_serialization=is_zip)
    assert data.startswith(b"PK") == is_zip
    assert_equal(parse_checkpoint(data, "x"), state)


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
def test_a_checkpoint_in_another_version_of_pickle_loads_without_a_warning(state, is_zip: bool):
    data = saved(state, pickle_protocol=3, _use_new_zipfile_serialization=is_zip)
    assert_equal(parse_checkpoint(data, "x"), state)  # warnings are errors


def test_the_state_dict_may_be_an_entry_and_parameters_are_tensors(state):
    parameters = {"w": nn.Parameter(torch.ones(2))}
    data = saved({"epoch": 3, "state_dict": state, "ema": parameters})
    assert_equal(parse_checkpoint(data, "x", "state_dict"), state)
    loaded = parse_checkpoint(data, "x", "ema")
    assert type(loaded["w"]) is torch.Tensor
    assert not loaded["w"].requires_grad


def test_an_entry_of_an_entry_is_found_where_the_hint_says(state):
    data = saved({"epoch": 3, "model": {"step": 1, "net": state}, "a.b": {"c": state}})
    with pytest.raises(ModelContractError, match=r"the entry 'model' or 'a\.b', name it"):
        parse_checkpoint(data, "x")
    with pytest.raises(ModelContractError, match=r"the entry 'model\.net', name it: 's"):
        parse_checkpoint(data, "x", "model")
    assert_equal(parse_checkpoint(data, "x", "model.net"), state)
    for absent in ("model.state", "epoch.net", "model.net.w.x", "net", ".", "a.b.c"):
        with pytest.raises(ModelContractError, match=f"expected an entry '{absent}'"):
            parse_checkpoint(data, "x", absent)


def test_a_missing_entry_is_named_and_the_right_one_is_hinted_at(state):
    data = saved({"epoch": 3, "state_dict": state})
    with pytest.raises(ModelContractError, match=r"an entry 'm', got 'epoch', 'state_dict'\."):
        parse_checkpoint(data, "x", "m")
    with pytest.raises(ModelContractError, match=r"'epoch' is of type int.*entry 'state_dict', "):
        parse_checkpoint(data, "x")


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
def test_a_pickle_that_runs_code_is_refused_and_does_not_run(tmp_path: Path, is_zip: bool):
    made = tmp_path / "made"
    data = saved({"w": torch.ones(2), "x": Evil(made)}, _use_new_zipfile_serialization=is_zip)
    with pytest.raises(ModelContractError, match=r"asks for (posix|nt)\.system\. It would run"):
        parse_checkpoint(data, "x.pt")
    assert not made.exists()
    torch.load(io.BytesIO(data), weights_only=False)  # a control: it would have
    assert made.exists()


def test_a_bare_pickle_is_refused_and_does_not_run(tmp_path: Path):
    made = tmp_path / "made"
    with pytest.raises(ModelContractError, match="restricted unpickler refuses"):
        parse_checkpoint(pickle.dumps(Evil(made)), "x.pt")
    assert not made.exists()


def test_a_whole_pickled_network_is_refused():
    with pytest.raises(ModelContractError, match=r"more than tensors.* found\.state_dict\(\)"):
        parse_checkpoint(saved(nn.Linear(2, 2)), "x.pt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.ones(2)], "expected a state dict, got list"),
        ({}, "expected a state dict, got dict"),
        (torch.ones(2), "expected a state dict, got Tensor"),
        ({3: torch.ones(2)}, "'3' is a key of type int"),
        ({"a": torch.ones(2).to_sparse()}, "'a' is sparse, quantised"),
        ({"a": torch.ones(1).expand(10**9)}, "'a' is larger than its storage"),
        ({f"k{i}": i for i in range(9)}, "'k2' is of type int; and 6 more"),
        ({"\x1b[31m" + "k" * 300: 1}, r"'.{0,70}' is of type int"),
    ],
)
def test_what_is_no_state_dict_is_refused_by_name(content, message: str):
    with pytest.raises(ModelContractError, match=message):
        parse_checkpoint(saved(content), "x")


def test_a_torch_with_known_holes_reads_no_pickle(state, monkeypatch):
    monkeypatch.setattr(formats.torch, "__version__", "2.9.1+cu128")
    with pytest.raises(ModelContractError, match=r"expected torch 2\.10 or later .*got 2\.9\.1"):
        parse_checkpoint(saved(state), "x")


def test_every_truncation_of_a_checkpoint_is_refused(state):
    data = saved(state)
    for kept in range(0, len(data), 29):
        with pytest.raises(ModelContractError, match=r"^x\.pt: "):
            parse_checkpoint(data[:kept], "x.pt")


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_a_flipped_bit_in_the_weights_of_a_checkpoint_is_noticed_even_without_a_digest(data):
    weight = torch.arange(256, dtype=torch.float32)
    content = bytearray(saved({"w": weight}))
    at = content.find(weight.numpy().tobytes()) + data.draw(st.integers(0, 1023))
    content[at] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(ModelContractError, match="Bad CRC-32"):
        parse_checkpoint(bytes(content), "x")


# archives


def archive(entries: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as made:
        for name, content in entries.items():
            made.writestr(name, content)
    return file.getvalue()


def test_an_archive_that_would_fill_the_memory_is_not_unpacked():
    with pytest.raises(ModelContractError, match=r"would unpack from \d+ to 64000000 bytes"):
        repacked(archive({"a/data.pkl": b"\0" * 64_000_000}), "x")


def test_an_archive_with_one_name_twice_is_refused():
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w") as made:
        warnings.simplefilter("ignore")
        made.writestr("a/data.pkl", b"1")
        made.writestr("a/data.pkl", b"2")
    with pytest.raises(ModelContractError, match="each name once"):
        repacked(file.getvalue(), "x")


def test_a_long_pickle_is_refused():
    entries = {"a/data.pkl": os.urandom(formats.MAX_PICKLE_BYTES + 1)}
    with pytest.raises(
        ModelContractError, match="a pickle of at most 16777216 bytes, got 16777217"
    ):
        repacked(archive(entries, zipfile.ZIP_STORED), "x")


def test_an_archive_packed_anew_holds_the_same():
    entries = {"a/data.pkl": b"1" * 999, "a/data/0": b"2"}
    data, names = repacked(archive(entries), "x")
    with zipfile.ZipFile(io.BytesIO(data)) as anew:
        assert names == list(entries)
        assert {name: anew.read(name) for name in anew.namelist()} == entries
        assert {info.compress_type for info in anew.infolist()} == {zipfile.ZIP_STORED}


# selection


def test_a_prefix_selects_and_is_dropped_and_ignored_names_are_left_out():
    state = {name: torch.ones(1) for name in ("model.a", "model.logits.b", "head.kernel")}
    assert selected(state, "model.", (), "x").keys() == {"a", "logits.b"}
    assert selected(state, "model.", ("logits.",), "x").keys() == {"a"}
    assert selected(state, "", (), "x").keys() == state.keys()
    with pytest.raises(ModelContractError, match=r"prefix 'net\.'\. .* are 'model\.a'"):
        selected(state, "net.", (), "x")


# TorchScript


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.tail = nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, x):
        return self.tail(self.conv(x))


class Writes(nn.Module):
    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, x):
        torch.save(x, self.path)
        return x.flatten(1)


def script(module: nn.Module) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(module), file)
    return file.getvalue()


@pytest.fixture(scope="module")
def net():
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(0)
        return Net().eval()


def test_torchscript_computes_what_the_network_did_and_has_gradients(net):
    module = parse_torchscript(script(net), "x.ts")  # no warning either: warnings are errors
    assert not module.training
    images = torch.rand(2, 3, 9, 9, generator=torch.Generator().manual_seed(1))
    expected = copy.deepcopy(net).double()(images.double())
    images.requires_grad_()
    for _ in range(4):  # the interpreter optimises after the first runs
        assert_rounded(module(images), expected, terms=terms_of(net))
    module(images).sum().backward()
    assert bool((images.grad != 0).any())


def test_torch_calls_no_hooks_in_torchscript(net):
    module = parse_torchscript(script(net), "x.ts")
    with pytest.raises(RuntimeError, match="not supported on ScriptModules"):
        module.conv.register_forward_hook(lambda *_: None)


def test_a_program_that_writes_files_is_refused_and_does_not_run(tmp_path: Path):
    made = tmp_path / "made"
    data = script(Writes(str(made)))
    with pytest.raises(ModelContractError, match="uses 'save', which may reach beyond"):
        parse_torchscript(data, "x.ts")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.load(io.BytesIO(data))(torch.ones(1, 2))  # a control: it would have
    assert made.exists()


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("x = torch . save(y, 'f')", "save"),
        ("x = torch.from_file('f')", "from_file"),
        ("x = ops.c10d.broadcast(y)", r"ops\.c10d"),
        ("x = ops .\n  inductor.load(y)", r"ops \. inductor"),
        ("x = __torch__.torch.classes.rnn.Cell()", "classes"),
        ('x = getattr(y, "\\x73ave")', "getattr"),
    ],
)
def test_programs_that_name_what_reaches_beyond_are_refused(line: str, found: str):
    data = archive({"a/code/__torch__/x.py": line.encode(), "a/data.pkl": b""})
    with pytest.raises(ModelContractError, match=f"uses '{found}"):
        parse_torchscript(data, "x.ts")


@pytest.mark.parametrize("line", ["x = ops.prim.data(y)", "saved = torch.relu(savers)"])
def test_other_programs_are_not(line: str):
    formats._check_code(line, "x")


@pytest.mark.parametrize("kept", [0, 100, -1])
def test_a_tensor_without_all_its_values_is_refused_before_memory_is_read(net, kept: int):
    with zipfile.ZipFile(io.BytesIO(script(net))) as whole:
        entries = {name: whole.read(name) for name in whole.namelist()}
    parse_torchscript(archive(entries), "x.ts")  # a control
    (record,) = (name for name, values in entries.items() if len(values) == 4 * 108)
    entries[record] = entries[record][:kept]
    with pytest.raises(ModelContractError, match=r"expected 432 bytes in '.*', got \d+"):
        parse_torchscript(archive(entries), "x.ts")


def test_a_traced_network_loads_though_the_values_of_its_example_are_left_out(net):
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.trace(net, torch.zeros(1, 3, 9, 9)), file)
    assert parse_torchscript(file.getvalue(), "x.ts").state_dict().keys() == net.state_dict().keys()


def test_damaged_torchscript_is_refused(net):
    data = script(net)
    for kept in (0, 10, len(data) // 2, len(data) - 1):
        with pytest.raises(ModelContractError, match=r"^x\.ts: "):
            parse_torchscript(data[:kept], "x.ts")
    with pytest.raises(ModelContractError, match="an archive without 'code'"):
        parse_torchscript(saved({"a": torch.ones(1)}), "x.ts")
    with pytest.raises(ModelContractError, match="TorchScript cannot be loaded"):
        parse_torchscript(archive({"a/code/__torch__/x.py": b"x"}), "x.ts")


def test_torchscript_in_place_of_weights_is_named(net):
    with pytest.raises(ModelContractError, match="Set 'format: torchscript'"):
        parse_checkpoint(script(net), "x.pt")


def test_torchscript_with_nan_is_refused():
    with torch.random.fork_rng():
        net = Net().eval()
    with torch.no_grad():
        net.conv.bias[0] = float("nan")
    with pytest.raises(ModelContractError, match=r"1 of 4 values of 'conv\.bias'"):
        parse_torchscript(script(net), "x.ts")


# torch.export


@pytest.mark.filterwarnings("ignore")
def test_why_exported_programs_are_refused_pytorch_runs_what_is_in_them(tmp_path: Path, net):
    """If this fails, PyTorch has closed the vulnerability, and cards may allow the format."""
    made = tmp_path / "made"
    file = io.BytesIO()
    torch.export.save(torch.export.export(net, (torch.rand(2, 3, 9, 9),)), file)
    with zipfile.ZipFile(file) as whole:
        entries = {name: whole.read(name) for name in whole.namelist()}
    (inputs,) = (name for name in entries if "sample_inputs" in name)
    entries[inputs] = saved(Evil(made))
    with contextlib.suppress(Exception), contextlib.redirect_stderr(io.StringIO()):
        torch.export.load(io.BytesIO(archive(entries, zipfile.ZIP_STORED)))
    assert made.exists()
