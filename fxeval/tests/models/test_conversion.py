"""``fxeval convert``: checkpoints become safetensors, hostile ones become messages."""

import hashlib
import io
import json
import os
import subprocess
from pathlib import Path

import pytest
import safetensors.torch
import torch
from click.testing import CliRunner

from fxeval.cli.convert import convert as command
from fxeval.errors import ModelContractError
from fxeval.fixtures.models import CARDS
from fxeval.models.files.conversion import _converted, convert
from fxeval.models.files.formats import parse_safetensors
from fxeval.models.from_card import load_card
from fxeval.strict import sandbox
from fxeval.tests.models.test_from_card import seeded


@pytest.fixture
def in_process(monkeypatch):
    """The same steps without a process of their own, and without its bounds."""
    monkeypatch.setattr(sandbox, "bound", lambda **_: None)


def run(*arguments: object):
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def mini_state() -> dict[str, torch.Tensor]:
    return parse_safetensors((CARDS / "mini_resnet.safetensors").read_bytes(), "mini")


def test_a_checkpoint_becomes_safetensors_and_its_card_loads(tmp_path: Path):
    state = mini_state()
    wrapped = {f"model.{name}": value for name, value in state.items()} | {"head.w": torch.ones(2)}
    torch.save({"epoch": 3, "state_dict": wrapped}, tmp_path / "a.ckpt")
    target = tmp_path / "a #b.safetensors"  # where YAML would see a comment
    done = run(tmp_path / "a.ckpt", target, "--key", "state_dict", "--prefix", "model.")
    assert done.exit_code == 0, done.output
    loaded = safetensors.torch.load_file(target)
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[name], state[name]) for name in state)
    digest = hashlib.sha256(target.read_bytes()).hexdigest()
    assert f"sha256 {digest}" in done.output
    assert "architecture: mini_resnet" in done.output
    card = tmp_path / "card.yaml"
    card.write_text(done.output.partition("A card for it:\n\n")[2])
    model = load_card(card)
    assert (model.name, model.digest) == ("a__b", digest)
    assert list(tmp_path.glob(".*.part")) == []


def test_a_prefix_and_half_precision_are_told(tmp_path: Path, in_process):
    state = {f"module.{name}": value.half() for name, value in seeded().state_dict().items()}
    torch.save(state, tmp_path / "a.pth")
    found = _converted(str(tmp_path / "a.pth"), str(tmp_path / "x"), None, "")
    assert (found["stored"], found["front"], found["fits"]) == ("float16", "module.", [])
    found = _converted(str(tmp_path / "a.pth"), str(tmp_path / "y"), None, "module.")
    assert found["front"] == ""
    done = run(tmp_path / "a.pth", tmp_path / "a.safetensors")
    assert "They are stored in float16 and were written in float32." in done.output
    assert "All names begin with 'module.'." in done.output
    assert "leave it out: --prefix module." in done.output


def test_a_pickle_that_runs_code_is_refused_without_a_traceback(tmp_path: Path):
    made = tmp_path / "made"

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {made}",)

    torch.save({"w": torch.ones(2), "x": Evil()}, tmp_path / "evil.pt")
    done = run(tmp_path / "evil.pt", tmp_path / "x.safetensors")
    assert done.exit_code == 1
    assert isinstance(done.exception, SystemExit)
    assert done.output.startswith("Error: ")
    assert "asks for posix.system" in done.output or "asks for nt.system" in done.output
    assert "Traceback" not in done.output
    assert not made.exists()
    assert {path.name for path in tmp_path.iterdir()} == {"evil.pt"}


def test_a_file_that_asks_for_more_memory_than_its_size_explains_is_refused(tmp_path: Path):
    file = io.BytesIO()
    torch.save({"w": torch.ones(1000)}, file, _use_new_zipfile_serialization=False)
    # 1,000 numbers, says the pickle; 2^31 - 1, says this one
    data = file.getvalue().replace(b"M\xe8\x03", b"J\xff\xff\xff\x7f")
    (tmp_path / "big.pt").write_bytes(data)
    with pytest.raises(ModelContractError, match=r"big\.pt: .* asks for more memory than"):
        convert(tmp_path / "big.pt", tmp_path / "x.safetensors")
    assert not (tmp_path / "x.safetensors").exists()


@pytest.mark.parametrize(
    ("code", "stdout", "stderr", "message"),
    [
        (-9, "", "", "ended with signal 9; it may have asked for more memory"),
        (1, "", "Traceback ...\nMemoryError: no\n", "ended with MemoryError: no;"),
        (0, "", "", "ended with silence"),
        (0, "junk", "", "ended with silence"),
        (0, "[]", "", "ended with silence"),
        (0, "3", "", "ended with silence"),
        (0, '\n{"error": "x.pt: too bad."}', "", r"^x\.pt: too bad\.$"),
    ],
)
def test_a_process_that_ends_early_is_an_error_and_leaves_nothing(
    tmp_path: Path, monkeypatch, code: int, stdout: str, stderr: str, message: str
):
    def run(*_, **options):
        Path(json.loads(options["input"])["part"]).write_bytes(b"half of it")
        options["stdout"].write(stdout.encode())
        options["stderr"].write(stderr.encode())
        return subprocess.CompletedProcess([], code)

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(ModelContractError, match=message):
        convert(tmp_path / "x.pt", tmp_path / "x.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_does_not_end_is_an_error(tmp_path: Path, monkeypatch):
    def run(*_, **options):
        raise subprocess.TimeoutExpired("x", options["timeout"])

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(ModelContractError, match="took more than 300 seconds"):
        convert(tmp_path / "x.pt", tmp_path / "x.safetensors")


def test_a_target_is_replaced_only_on_demand_and_only_by_a_whole_file(tmp_path: Path, monkeypatch):
    target = tmp_path / "x.safetensors"
    target.write_bytes(b"precious")
    done = run(tmp_path / "gone.pt", target)
    assert (done.exit_code, target.read_bytes()) == (1, b"precious")
    assert "exists already. Replace it with --force" in done.output

    def failed(*_, **options):
        options["stdout"].write(b'{"error": "no"}')
        return subprocess.CompletedProcess([], 0)

    monkeypatch.setattr(subprocess, "run", failed)
    done = run(tmp_path / "gone.pt", target, "--force")
    assert (done.exit_code, target.read_bytes()) == (1, b"precious")
    done = run(tmp_path / "gone.pt", tmp_path / "x.bin")
    assert "expected a name that ends in .safetensors" in done.output
    done = run(tmp_path / "gone.pt", tmp_path / "absent" / "x.safetensors")
    assert "absent: no such folder" in done.output


def test_tensors_that_share_memory_are_written_out(tmp_path: Path, in_process):
    weight = torch.arange(12.0).reshape(3, 4)
    state = {"a": weight, "b": weight, "t": weight.T, "n": torch.tensor(3), "h": weight.half()}
    torch.save(state, tmp_path / "a.pt")
    part = tmp_path / "part"
    answer = _converted(str(tmp_path / "a.pt"), str(part), None, "")
    loaded = safetensors.torch.load_file(part)
    assert {name: value.dtype for name, value in loaded.items()} == {
        "a": torch.float32, "b": torch.float32, "t": torch.float32, "n": torch.int64,
        "h": torch.float32,
    }  # fmt: skip
    assert all(torch.equal(loaded[name], state[name].to(loaded[name].dtype)) for name in state)
    assert (answer["n_tensors"], answer["n_values"], answer["fits"]) == (5, 49, [])


def test_values_that_are_no_tensors_are_named(tmp_path: Path, in_process):
    torch.save({"w": torch.ones(2), "lr": 0.1, "steps": 3}, tmp_path / "a.pt")
    with pytest.raises(ModelContractError, match="'lr' is of type float; 'steps' is of type int"):
        _converted(str(tmp_path / "a.pt"), str(tmp_path / "part"), None, "")
    assert not (tmp_path / "part").exists()
