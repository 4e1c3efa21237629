"""Invented photographs, and landmarks for them without a detector."""

from pathlib import Path

import cv2
import numpy as np

from fxeval.datasets.preparing.detection import Detection, Picture
from fxeval.datasets.preparing.preparation import Preparation, Settings, prepare

FACE = ((30.0, 40.0), (61.0, 42.0), (45.0, 55.0), (33.0, 70.0), (57.0, 71.0))


class Given:
    """The landmarks of every image are the same, or as listed; counts what it is asked."""

    def __init__(self, points=FACE, **others):
        self.points, self.others, self.asked = points, others, []

    def landmarks(self, picture: Picture):
        self.asked.append(picture.file)
        return self.others.get(Path(picture.file).stem, self.points)

    def settings(self):
        return {"name": "given"}


class Seen:
    """A detector that finds the same boxes in every image."""

    def __init__(self, *boxes):
        self.boxes = boxes

    def detect(self, image):
        return tuple(Detection(box, FACE, 0.9) for box in self.boxes)

    def settings(self):
        return {"name": "seen"}


def picture(seed: int) -> np.ndarray:
    noise = np.random.Generator(np.random.PCG64(seed)).normal(size=(100, 90, 3))
    noise = cv2.GaussianBlur(noise, (0, 0), 3)
    return (255 * (noise - noise.min()) / np.ptp(noise)).astype(np.uint8)


def draw(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), picture(seed))


def photographs(folder: Path) -> Path:
    """Fill a folder with four images of three people."""
    for row, name in enumerate(["Ann/0001.jpg", "Ann/0002.png", "Bob/img7.jpeg", "x/Cid/3.JPG"]):
        draw(folder / name, row)
    return folder


def run(folder: Path, landmarks=None, to: str = "target", **settings) -> Preparation:
    return prepare(folder, folder.parent / to, landmarks or Given(), Settings(**settings))


def content(folder: Path) -> dict[str, bytes]:
    """Every file that is not a journal."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name[0] != ".")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
