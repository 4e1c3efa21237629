"""A checkpoint -> safetensors, read in a process of its own with bounded memory, time and output.

A pickle is the one format here whose reader has had holes; whatever the next one does, it does it
to a process that holds nothing and may write little.
"""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from fxeval.errors import ModelContractError
from fxeval.strict.text import brief

CPU_SECONDS = 120
TIMEOUT = 300
"""Seconds that the process may compute, and that it may take in all."""

MEMORY_TIMES = 6
"""Times the file's size, beside a gigabyte, that the process may take more than torch itself."""


class Converted(NamedTuple):
    """What was written.

    Attributes:
        sha256: Of the safetensors file.
        n_tensors: In it.
        n_values: In all of them.
        fits: Architectures of the catalogue that it fits.
    """

    sha256: str
    n_tensors: int
    n_values: int
    fits: tuple[str, ...]


def convert(source: Path, target: Path, *, key: str | None = None, prefix: str = "") -> Converted:
    """Write the state dict of a checkpoint as safetensors; the target is replaced all at once.

    Args:
        source: What ``torch.save`` wrote.
        target: The ``.safetensors`` file.
        key: Entry of the checkpoint that holds the state dict; None = the checkpoint is one.
        prefix: Only keys that start with it are taken, without it.

    Raises:
        ModelContractError: If the checkpoint cannot be read as plain tensors within the bounds.
    """
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    request = json.dumps({"source": str(source), "part": str(part), "key": key, "prefix": prefix})
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "fxeval.models.files.conversion"],
            input=request, capture_output=True, text=True, timeout=TIMEOUT, env=environment,
        )  # fmt: skip
        answer = _answer(done, source)
        part.replace(target)
    except subprocess.TimeoutExpired as error:
        raise ModelContractError(
            f"{source}: reading it took more than {TIMEOUT} seconds. Is it a file of weights?"
        ) from error
    except OSError as error:
        raise ModelContractError(f"{target}: cannot be written ({error.strerror}).") from error
    finally:
        part.unlink(missing_ok=True)
    return answer


def _answer(done: "subprocess.CompletedProcess[str]", source: Path) -> Converted:
    try:
        answer = json.loads(done.stdout.rpartition("\n")[2])
    except ValueError:
        answer = {}
    if not isinstance(answer, dict):
        answer = {}
    if "error" in answer:
        raise ModelContractError(str(answer["error"]))
    if done.returncode or "sha256" not in answer:
        last = done.stderr.strip().rpartition("\n")[2]
        reason = f"signal {-done.returncode}" if done.returncode < 0 else brief(last) or "silence"
        raise ModelContractError(
            f"{source}: reading it ended with {reason}; it may have asked for more memory, time "
            "or output than a file of its size needs. Is it a file of weights?"
        )
    return Converted(
        answer["sha256"], answer["n_tensors"], answer["n_values"], tuple(answer["fits"])
    )


def _main() -> None:
    """Be that process: one request on standard input, one answer on standard output."""
    request = json.load(sys.stdin)
    try:
        answer = _converted(**request)
    except ModelContractError as error:
        answer = {"error": str(error)}
    except MemoryError:
        answer = {
            "error": f"{request['source']}: more memory than its size explains was asked for."
        }
    sys.stdout.write("\n" + json.dumps(answer))


def _converted(source: str, part: str, key: str | None, prefix: str) -> dict[str, object]:
    import safetensors.torch

    from fxeval.models.files.formats import parse_checkpoint, selected
    from fxeval.models.from_card import fitting
    from fxeval.models.loading import read_weights

    data = read_weights(Path(source))
    _bound(len(data))
    state = selected(parse_checkpoint(data, source, key), prefix, (), source)
    # Tensors that share memory, as tied weights do, are written out one by one.
    apart = {name: value.clone().contiguous() for name, value in state.items()}
    content = safetensors.torch.save(apart, {"format": "pt"})
    with Path(part).open("xb") as file:
        file.write(content)
    return {
        "sha256": hashlib.sha256(content).hexdigest(),
        "n_tensors": len(apart),
        "n_values": sum(value.numel() for value in apart.values()),
        "fits": fitting(apart),
    }


def _bound(size: int) -> None:
    """Bound what this process may do from here on; on Windows only its time is."""
    if sys.platform == "win32":
        return
    import resource

    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    held = [int(line.split()[1]) << 10 for line in lines if line.startswith("VmSize")]
    if held:  # address space of torch differs a lot between builds
        most = held[0] + MEMORY_TIMES * size + (1 << 30)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    output = 2 * size + (16 << 20)
    resource.setrlimit(resource.RLIMIT_FSIZE, (output, output))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))


if __name__ == "__main__":
    _main()
