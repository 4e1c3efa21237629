"""Describes the environment that a result depends on: versions, device, commit."""

import importlib.metadata
import platform
import subprocess
from pathlib import Path

import torch

import fxeval
from fxeval.records.hardware import hardware_class
from fxeval.records.subjects import Environment


def describe(device: torch.device, batch_size: int, folder: Path) -> dict[str, str | int | None]:
    """Return versions, device and commit as a flat mapping for the record.

    Args:
        device: Where the models ran.
        batch_size: Largest number of images in one forward pass.
        folder: A folder of the checkout whose commit is recorded.
    """
    facts = _machine(device, batch_size)
    facts["commit"] = _git(folder, "rev-parse", "HEAD")
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    facts["dirty"] = None if changed is None else bool(changed)
    return facts


def class_of(device: torch.device) -> str:
    """Return the hardware class of runs on a device of this machine."""
    facts = {**_machine(device, 1), "commit": None, "dirty": None}
    return hardware_class(Environment.model_validate(facts))


def this_class() -> str:
    """Return the hardware class of runs on the usual device of this machine."""
    return class_of(torch.device("cuda" if torch.cuda.is_available() else "cpu"))


def _machine(device: torch.device, batch_size: int) -> dict[str, str | int | None]:
    """Return versions and device."""
    facts: dict[str, str | int | None] = {
        "fxeval": fxeval.__version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),  # with the build, which the package's version may lack
        **{
            name: _version(package)
            for name, package in (
                ("numpy", "numpy"),
                ("opencv", "opencv-python-headless"),
                ("pytest", "pytest"),
            )
        },
        "platform": f"{platform.system()} {platform.machine()}",
        "device": str(device),
        "threads": torch.get_num_threads(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "precision": "float32",
        "batch_size": batch_size,
    }
    if device.type == "cuda":
        facts["gpu"] = torch.cuda.get_device_name(device)
        facts["cuda"] = torch.version.cuda
        facts["cudnn"] = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    return facts


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
