"""The hardware class of a run: what must be the same for values to repeat but for rounding."""

import re

from fxeval.records.subjects import Environment


def hardware_class(environment: Environment) -> str:
    """Return in words on which kind of machine a run was made.

    Runs of one class differ by rounding alone. Threads and batch size move the last digits within
    a class; another processor kernel, another GPU or another release of torch can move more.

    Example:
        ``Linux x86_64, AVX512, torch 2.13, float32``, ``NVIDIA H200, CUDA 13, torch 2.13,
        float32``.
    """
    if environment.gpu is not None:
        cuda = f"CUDA {environment.cuda.split('.')[0]}" if environment.cuda else ""
        machine = [environment.gpu, cuda]
    else:
        machine = [environment.platform, environment.capability or ""]
    release = re.match(r"\d+\.\d+", environment.torch or "")
    torch = f"torch {release.group()}" if release else ""
    return ", ".join(filter(None, [*machine, torch, environment.precision]))
