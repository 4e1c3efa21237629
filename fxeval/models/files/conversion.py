"""A checkpoint -> safetensors, read in a process of its own with bounds."""

import hashlib
import itertools
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import IO, NamedTuple

from fxeval.errors import ModelContractError
from fxeval.strict import sandbox
from fxeval.strict.sandbox import SandboxError

CPU_SECONDS = 120
"""Seconds that the process may compute."""

MEMORY_TIMES = 6
"""Times the file's size, beside a gigabyte, that the process may take more than torch itself."""


class Converted(NamedTuple):
    """The file that was written.

    Attributes:
        sha256: Of the safetensors file.
        n_tensors: In it.
        n_values: In all of them.
        fits: Architectures of the catalogue that it fits.
        stored: How the checkpoint stores the weights if not all in float32, else "".
        front: What all names begin with, up to a dot; "" if nothing.
    """

    sha256: str
    n_tensors: int
    n_values: int
    fits: tuple[str, ...]
    stored: str
    front: str


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
    try:
        with sandbox.answer_of(__name__, given=request.encode()) as file:
            answer = _answer(file)
        part.replace(target)
    except SandboxError as error:
        raise ModelContractError(
            f"{source}: reading it {error}. Is it a file of weights?"
        ) from error
    except OSError as error:
        raise ModelContractError(f"{target}: cannot be written ({error.strerror}).") from error
    finally:
        part.unlink(missing_ok=True)
    return answer


def _answer(file: IO[bytes]) -> Converted:
    try:
        answer = json.loads(file.read().rpartition(b"\n")[2])
        if "error" in answer:
            raise ModelContractError(str(answer["error"]))
        return Converted(**{**answer, "fits": tuple(answer["fits"])})
    except (ValueError, TypeError, KeyError) as error:
        raise SandboxError(sandbox.ended("silence")) from error


def _main() -> None:
    """Run as that process: one request on standard input, one answer on standard output."""
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

    from fxeval.models.files.formats import as_float32, read_checkpoint, selected, stored_as
    from fxeval.models.from_card import fitting
    from fxeval.models.loading import read_weights

    data = read_weights(Path(source))
    memory, output = MEMORY_TIMES * len(data) + (1 << 30), 2 * len(data) + (16 << 20)
    sandbox.bound(memory=memory, output=output, seconds=CPU_SECONDS)
    raw = selected(read_checkpoint(data, source, key), prefix, (), source)
    state = as_float32(raw, source)
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
        "stored": stored_as(raw.values()),
        "front": _front(apart),
    }


def _front(names: Iterable[str]) -> str:
    """Return the parts that all names begin with, with their dots.

    >>> _front(["module.net.conv", "module.net.fc.bias"])
    'module.net.'
    """
    parts = zip(*(name.split(".")[:-1] for name in names), strict=False)
    shared = itertools.takewhile(lambda column: len(set(column)) == 1, parts)
    return "".join(f"{column[0]}." for column in shared)


if __name__ == "__main__":
    _main()
