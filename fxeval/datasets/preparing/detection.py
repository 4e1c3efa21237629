"""Finds the faces in an image with a user-supplied detector, or reads their landmarks from a list.

Landmarks are five (x, y) points in pixels of the image, in the order of
``datasets/faces/alignment.py``.
"""

import csv
import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Protocol, TypeAlias, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from fxeval.datasets.faces.alignment import Points, points_of
from fxeval.datasets.faces.manifests import read_manifest
from fxeval.datasets.faces.photographs import to_scale
from fxeval.datasets.faults import each, of_all, of_list
from fxeval.datasets.text_files import MAX_BYTES, read_bytes
from fxeval.errors import DataContractError
from fxeval.strict.text import brief, printable

Rule: TypeAlias = Literal["central", "largest"]
RULES: tuple[Rule, ...] = get_args(Rule)

MAX_DETECTOR_BYTES = 64 << 20
"""Largest detector file read; YuNet has 230 kB."""
KNOWN_YUNETS: Mapping[str, str] = MappingProxyType(
    {
        "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4": "2023mar",
        "ebafce4e3c118d6554634be5c27ab333b4c047a9a8c3faf1d7cf93101c22f0f0": "2026may",
    }
)
"""SHA-256 of the YuNet files that are accepted without a digest (OpenCV Zoo; latest: 2026may)."""
MAX_POSITION = 100_000
"""Greatest coordinate of a landmark, in pixels."""


class UnusableImageError(DataContractError):
    """An image has no usable face.

    Attributes:
        reason: Short reason, the same for many images.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, eq=False)
class Picture:
    """An image as it was read.

    Attributes:
        file: Path relative to its folder.
        sha256: SHA-256 of the file, as hex.
        pixels: (H, W, 3) uint8 RGB, upright.
        scale: Pixels of the photograph, in which landmarks are, for one of these pixels.
        is_tagged: Whether its EXIF orientation turned it.
    """

    file: str
    sha256: str
    pixels: NDArray[np.uint8]
    scale: int = 1
    is_tagged: bool = False


@dataclass(frozen=True)
class Detection:
    """A detected face.

    Attributes:
        box: Left, top, width, height in pixels; may extend beyond the image.
        landmarks: Five (x, y) points in pixels.
        confidence: In [0, 1], higher = more certain.
    """

    box: tuple[float, float, float, float]
    landmarks: Points
    confidence: float


class Detector(Protocol):
    """A face detector."""

    def detect(self, image: NDArray[np.uint8]) -> tuple[Detection, ...]:
        """Return the faces in a (H, W, 3) uint8 RGB image, in any order."""

    def settings(self) -> Mapping[str, Any]:
        """Return everything that the result depends on, for the manifest, without paths."""


class LandmarkSource(Protocol):
    """A source of the landmarks of the face that an image is about."""

    def landmarks(self, picture: Picture) -> Points:
        """Return five points.

        Raises:
            UnusableImageError: If there is no face, or it is unclear which of several is meant.
        """

    def settings(self) -> Mapping[str, Any]:
        """Return everything that the result depends on, for the manifest, without paths."""


@dataclass(frozen=True)
class YuNet:
    """The face detector YuNet, run by OpenCV; implements ``Detector``.

    OpenCV parses the file in this process, and a damaged file can crash the process. Only known
    files and files whose digest is given are therefore parsed.

    Attributes:
        file: ``face_detection_yunet_*.onnx`` of the OpenCV Zoo.
        sha256: Expected digest of the file; None = one of ``KNOWN_YUNETS``.
        confidence: Least confidence of a face.
        nms: Boxes that overlap more than this are one face.
        top: Greatest number of candidates.
        longest: Images with a longer side are first scaled down to this length, because YuNet finds
            faces of about 10 to 300 pixels.
    """

    file: Path
    sha256: str | None = None
    confidence: float = 0.6
    nms: float = 0.3
    top: int = 5000
    longest: int = 640

    def __post_init__(self) -> None:
        if not (0 < self.confidence < 1 and 0 < self.nms < 1 and self.top > 0 < self.longest):
            raise of_all(
                "detector 'yunet': expected confidence and nms in (0, 1), top and longest from 1, "
                f"got {self.confidence}, {self.nms}, {self.top} and {self.longest}"
            )

    def detect(self, image: NDArray[np.uint8]) -> tuple[Detection, ...]:
        """Return the faces in a (H, W, 3) uint8 RGB image, the most certain first.

        Raises:
            DataContractError: If the file is missing, not the expected one, or not YuNet.
        """
        _, network = self._loaded
        height, width = image.shape[:2]
        ratio = min(1.0, self.longest / max(height, width))
        size = (max(1, round(width * ratio)), max(1, round(height * ratio)))
        if ratio < 1:
            image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
        rows = _run(network, image)
        # Scale back as images are scaled: about the corner of the first pixel, not its centre.
        scale = np.array([width / size[0], height / size[1]])
        points = (rows[:, 4:14].reshape(-1, 5, 2) + 0.5) * scale - 0.5
        boxes = rows[:, :4] * np.tile(scale, 2)
        faces = (
            Detection(
                tuple(box.tolist()),
                tuple((float(x), float(y)) for x, y in landmarks),
                float(np.clip(row[14], 0, 1)),
            )
            for box, landmarks, row in zip(boxes, points, rows, strict=True)
        )
        return tuple(sorted(faces, key=lambda face: (-face.confidence, face.box)))

    def settings(self) -> Mapping[str, Any]:
        """Return name, digest, thresholds and the version of OpenCV."""
        digest, _ = self._loaded
        return {
            "name": "yunet",
            "sha256": digest,
            "confidence": self.confidence,
            "nms": self.nms,
            "top": self.top,
            "longest": self.longest,
            "opencv": cv2.__version__,
        }

    @cached_property
    def _loaded(self) -> tuple[str, Any]:
        data = read_bytes(self.file, MAX_DETECTOR_BYTES)
        digest = hashlib.sha256(data).hexdigest()
        if digest not in (KNOWN_YUNETS if self.sha256 is None else [self.sha256.lower()]):
            expected = printable(brief(self.sha256)) if self.sha256 else "of a known YuNet"
            raise of_list(
                self.file,
                f"expected SHA-256 {expected}, got {digest}",
                then="Download face_detection_yunet_2026may.onnx, or give the digest of a file "
                "that you trust.",
            )
        try:
            network = _quietly(
                lambda: cv2.FaceDetectorYN.create(
                    "onnx",
                    np.frombuffer(data, np.uint8),
                    np.zeros(0, np.uint8),
                    (320, 320),
                    self.confidence,
                    self.nms,
                    self.top,
                )
            )
            _quietly(lambda: _run(network, np.zeros((320, 320, 3), np.uint8)))
        except (cv2.error, DataContractError) as error:
            raise of_list(
                self.file,
                "expected the detector YuNet as an ONNX file, got one that OpenCV "
                f"{cv2.__version__} cannot run",
                then="Download face_detection_yunet_2026may.onnx.",
            ) from error
        return digest, network


def _run(network: Any, image: NDArray[np.uint8]) -> NDArray[np.float64]:  # noqa: ANN401
    """Return (F, 15) rows: box, five points, confidence.

    YuNet's points are right eye, left eye, nose, right and left mouth corner. Right is the person's
    own, which is the image's left, so this is the order used here.
    """
    network.setInputSize((image.shape[1], image.shape[0]))
    _, rows = network.detect(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    found = np.zeros((0, 15)) if rows is None else np.asarray(rows, np.float64)
    if found.ndim != 2 or found.shape[1] != 15:
        raise of_all(f"detector: expected rows (F, 15), got {found.shape}")
    return found[np.isfinite(found).all(axis=1)]


def _quietly(call: Callable[[], Any]) -> Any:  # noqa: ANN401
    """Call a function without the warnings that OpenCV prints about every network."""
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        return call()
    finally:
        cv2.utils.logging.setLogLevel(level)


def choose(faces: Sequence[Detection], size: tuple[int, int], rule: Rule = "central") -> Detection:
    """Return the face that an image is about.

    Args:
        faces: All detected faces.
        size: (height, width) of the image.
        rule: ``central``: the box whose centre is closest to the image's, as in LFW; ``largest``:
            the box with the largest area.

    Raises:
        UnusableImageError: If there is none, or if the second best is nearly as good: less than
            5 % of the image's diagonal further from the centre, or at least 80 % as large.
    """
    if rule not in RULES:
        raise ValueError(f"expected a rule of {RULES}, got {rule!r}")
    if not faces:
        raise UnusableImageError("no face found")
    height, width = size

    def distance(face: Detection) -> float:
        left, top, wide, high = face.box
        return float(np.hypot(left + wide / 2 - width / 2, top + high / 2 - height / 2))

    def area(face: Detection) -> float:
        return face.box[2] * face.box[3]

    if rule == "central":
        best, *others = sorted(faces, key=distance)
        margin = 0.05 * float(np.hypot(height, width))
        rivals = [one for one in others if distance(one) - distance(best) < margin]
    else:
        best, *others = sorted(faces, key=area, reverse=True)
        rivals = [one for one in others if area(one) >= 0.8 * area(best)]
    if rivals:
        raise UnusableImageError(f"several faces, none the {rule} one by far")
    return best


@dataclass(frozen=True)
class DetectedLandmarks:
    """Landmarks of the face that a detector finds; implements ``LandmarkSource``.

    Attributes:
        detector: Finds the faces.
        rule: Selects one of them.
    """

    detector: Detector
    rule: Rule = "central"

    def landmarks(self, picture: Picture) -> Points:
        """Return the landmarks of the chosen face."""
        faces = self.detector.detect(picture.pixels)
        found = choose(faces, picture.pixels.shape[:2], self.rule).landmarks
        return points_of(to_scale(found, 1 / picture.scale)) if picture.scale > 1 else found

    def settings(self) -> Mapping[str, Any]:
        """Return the detector's settings and the rule."""
        return {**self.detector.settings(), "rule": self.rule}


@dataclass(frozen=True)
class LandmarkFile:
    """Landmarks from a file; implements ``LandmarkSource``.

    Attributes:
        file: A CSV file with the header ``file,x1,y1,x2,y2,x3,y3,x4,y4,x5,y5``, in pixels of the
            image turned upright; or a manifest (``*.json``), whose digests must be the images'.
    """

    file: Path

    def landmarks(self, picture: Picture) -> Points:
        """Return the landmarks that the file gives for the image.

        Raises:
            DataContractError: If the file cannot be read or is malformed.
            UnusableImageError: If it does not list the image, or lists another image of this name.
        """
        known = self._content[1].get(picture.file)
        if known is None:
            raise UnusableImageError("no landmarks given")
        points, sha256 = known
        if sha256 not in (None, picture.sha256):
            raise UnusableImageError("landmarks given for another image of this name")
        if picture.is_tagged and self._is_of_stored:
            raise UnusableImageError("landmarks given for the image as it is stored")
        return points

    def settings(self) -> Mapping[str, Any]:
        """Return the file's digest."""
        return {"name": "landmark_file", "sha256": self._content[0]}

    @cached_property
    def _is_of_stored(self) -> bool:
        """Whether a manifest does not say that its landmarks are of images turned upright."""
        is_manifest = self.file.suffix.lower() == ".json"
        return is_manifest and read_manifest(self.file).orientation != "applied"

    @cached_property
    def _content(self) -> tuple[str, dict[str, tuple[Points, str | None]]]:
        data = read_bytes(self.file, MAX_BYTES)
        digest = hashlib.sha256(data).hexdigest()
        if self.file.suffix.lower() == ".json":
            faces = read_manifest(self.file).faces
            known = {face.file: (face.landmarks, face.sha256) for face in faces}
        else:
            known = {file: (points, None) for file, points in _csv(data, str(self.file)).items()}
        for file, (points, _) in known.items():
            if np.abs(points).max() > MAX_POSITION:
                raise of_list(
                    self.file,
                    f"expected landmarks within {MAX_POSITION} pixels, got some further out",
                    f": those of '{printable(brief(file))}'",
                    "Give them in pixels of the image.",
                )
        return digest, known


_HEADER = ["file", *(f"{axis}{number}" for number in range(1, 6) for axis in "xy")]


def _csv(data: bytes, where: str) -> dict[str, Points]:
    try:
        lines = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        rows = [(lines.line_num, row) for row in lines if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise of_list(where, "expected a CSV file in UTF-8", f" ({error})") from error
    if not rows or [cell.strip() for cell in rows[0][1]] != _HEADER:
        raise of_list(f"{where}:1", f"expected the header '{','.join(_HEADER)}'")
    found: dict[str, Points] = {}

    def take(numbered: tuple[int, list[str]]) -> None:
        line, row = numbered
        try:
            values = [float(cell) for cell in row[1:]]
        except ValueError:
            values = []
        if len(values) != 10 or not np.isfinite(values).all():
            raise of_list(
                f"{where}:{line}",
                "expected a file and ten finite numbers",
                f", got '{printable(brief(','.join(row)))}'",
                "Correct the line.",
            )
        if row[0] in found:
            raise of_list(
                f"{where}:{line}",
                "expected each file once, got one of them twice",
                f": '{printable(brief(row[0]))}'",
                "Remove one of the two.",
            )
        found[row[0]] = tuple(zip(values[::2], values[1::2], strict=True))

    each(rows[1:], take)
    return found
