"""Small folders of faces of invented people, shared by tests."""

import hashlib
import json
from pathlib import Path

import cv2
import numpy as np

LANDMARKS = [[38, 52], [74, 52], [56, 72], [42, 92], [71, 92]]


def write_images(root: Path, files: list[str], size: tuple[int, int] = (112, 112)) -> None:
    """Write PNG images; the one at index i has the value i + 1 everywhere."""
    for index, file in enumerate(files):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        done, data = cv2.imencode(".png", np.full((*size, 3), index + 1, np.uint8))
        assert done
        (root / file).write_bytes(data.tobytes())


def entry(root: Path, file: str, identity: str, number: int) -> dict:
    """The entry of a manifest for an image that exists."""
    digest = hashlib.sha256((root / file).read_bytes()).hexdigest()
    return {
        "file": file, "sha256": digest, "identity": identity, "number": number,
        "landmarks5": LANDMARKS,
    }  # fmt: skip


def write_folder(root: Path, people: dict[str, int]) -> list[str]:
    """Write ``Ann/0001.png`` and so on with a manifest; returns the files."""
    keys = [(name, number) for name, count in people.items() for number in range(1, count + 1)]
    files = [f"{name}/{number:04d}.png" for name, number in keys]
    write_images(root, files)
    images = [entry(root, file, *key) for file, key in zip(files, keys, strict=True)]
    write_manifest(root, {"fxeval_manifest": 1, "images": images})
    return files


def write_manifest(root: Path, content: object) -> None:
    (root / "manifest.json").write_text(json.dumps(content))


def read_manifest(root: Path) -> dict:
    return json.loads((root / "manifest.json").read_text())
