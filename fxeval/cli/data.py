"""``fxeval data``: prepares folders of faces."""

import json
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fxeval.errors import DataContractError, FxevalError

if TYPE_CHECKING:
    from fxeval.contracts import Crop
    from fxeval.datasets.preparing.detection import LandmarkSource
    from fxeval.datasets.preparing.preparation import Preparation, Settings

SECONDS_BETWEEN_LINES = 30.0
"""Time between two lines of progress where there is no terminal."""

_SHOWN = 3
_ADVICE = {
    "CMYK": "save them as RGB.",
    "an animation": "save one of its pictures.",
    "landmarks given for the image as it is stored": "their manifest does not say 'orientation': "
    "'applied'.",
    "neither JPEG nor PNG": "save them as JPEG or PNG; a file's content counts, not its name.",
    "not 8 bits a channel": "save them with 8 bits a channel.",
    "too large": "at most 256 megapixels (PNG and progressive JPEG: 64), 64 MiB and 64 scans.",
    "transparent pixels": "put them on a background.",
}
"""What to do about a reason."""


@click.group("data")
def data() -> None:
    """Prepare folders of faces."""


@data.command("prepare")
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@click.option(
    "--detector",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="YuNet from the OpenCV Zoo, as ONNX.",
)
@click.option("--detector-sha256", metavar="HEX", help="Its digest, if it is not a known YuNet.")
@click.option(
    "--landmarks",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Instead of a detector: CSV with file,x1,y1,...,x5,y5, or a manifest.",
)
@click.option(
    "--crop",
    default="arcface112",
    show_default=True,
    metavar="CROP",
    help="arcface112, arcface112x96, facenet160, dlib150, openvino128, hse224, another size of "
    "arcface (arcface128, arcface224, arcface256, ...), or JSON with name, size and template.",
)
@click.option(
    "--landmarks-only", is_flag=True, help="Write a manifest for SOURCE, and copy no pixels."
)
@click.option(
    "--face",
    default="central",
    show_default=True,
    type=click.Choice(["central", "largest"]),
    help="Which face to take if there are several.",
)
@click.option(
    "--confidence", default=0.6, show_default=True, help="Least confidence of a face, in (0, 1)."
)
@click.option(
    "--identity",
    default="folder",
    show_default=True,
    type=click.Choice(["folder", "none"]),
    help="Where identities are named.",
)
@click.option("--licence", metavar="TEXT", help="Licence of the images.")
@click.option("--source", "origin", metavar="TEXT", help="Where the images come from.")
@click.option("--may-show", is_flag=True, help="Reports may show the images.")
def prepare(source: Path, target: Path, **options: Any) -> None:  # noqa: ANN401
    """Align the faces of SOURCE, and write them and a manifest to TARGET.

    SOURCE holds JPEG and PNG files of 8 bits a channel and at most 256 megapixels (PNG and
    progressive JPEG: 64), each in a folder of its identity. They are turned as their EXIF
    orientation says, and so are the landmarks that a file gives. Links to folders are not
    followed. A run that was stopped resumes when it is started again with the same settings.

    The exit code is 1 if no image could be used.
    """
    try:
        done = _prepared(source, target, options)
    except FxevalError as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        raise click.ClickException("stopped; start it again with the same settings") from None
    _report(done)
    if not done.n_images:
        sys.exit(1)


def _prepared(source: Path, target: Path, options: dict[str, Any]) -> "Preparation":
    from fxeval.datasets.preparing.preparation import prepare

    with _Line() as line:
        return prepare(source, target, _landmarks(options), _settings(options), line.show)


def _landmarks(options: dict[str, Any]) -> "LandmarkSource":
    from fxeval.datasets.preparing.detection import DetectedLandmarks, LandmarkFile, YuNet

    if (options["detector"] is None) == (options["landmarks"] is None):
        raise DataContractError(
            "expected either --detector or --landmarks. To find the faces, pass --detector "
            "face_detection_yunet_2026may.onnx (from the OpenCV Zoo)."
        )
    if options["landmarks"] is not None:
        return LandmarkFile(options["landmarks"])
    detector = YuNet(options["detector"], options["detector_sha256"], options["confidence"])
    return DetectedLandmarks(detector, options["face"])


def _settings(options: dict[str, Any]) -> "Settings":
    from fxeval.datasets.preparing.preparation import Settings

    return Settings(
        None if options["landmarks_only"] else _crop(options["crop"]),
        options["identity"],
        options["licence"],
        options["origin"],
        options["may_show"],
    )


def _crop(given: str) -> "Crop":
    """Return the crop that a name, or JSON, describes."""
    from fxeval.datasets.faces.alignment import crop_from

    value: object = given
    if given.lstrip().startswith("{"):
        try:
            value = json.loads(given)
        except ValueError as error:
            raise DataContractError(f"--crop: expected JSON ({error}).") from error
    return crop_from(value, "--crop")


class _Line:
    """Shows progress on standard error: a live line on a terminal, else a line now and then."""

    def __init__(self) -> None:
        self._is_live = sys.stderr.isatty()
        self._last = time.monotonic()
        self._is_open = False

    def __enter__(self) -> "_Line":
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_open:
            click.echo(err=True)

    def show(self, done: int, total: int, failed: int) -> None:
        now, pause = time.monotonic(), 0.1 if self._is_live else SECONDS_BETWEEN_LINES
        if now - self._last < pause and (done < total or not self._is_open):
            return
        self._last = now
        text = f"{done} of {total} images, {failed} can't be used"
        click.echo(f"\r\x1b[2K{text}" if self._is_live else text, nl=not self._is_live, err=True)
        self._is_open = self._is_live


def _report(done: "Preparation") -> None:
    """Print what was written, and a table of the reasons why images can't be used."""
    kept = f" ({done.n_kept} images were done already)" if done.n_kept else ""
    click.echo(f"{done.n_images} images can be used, {len(done.failures)} can't{kept}.")
    if done.n_ignored:
        click.echo(f"{done.n_ignored} other files and hidden folders were ignored.")
    if done.links:
        click.echo(
            f"Links to folders, which are not followed: {len(done.links)} ({_some(done.links)}). "
            "Prepare what they point to, or replace them by it."
        )
    if done.enlarged:
        click.echo(
            f"Faces that the crop enlarges more than twice ('enlarged' in the manifest): "
            f"{len(done.enlarged)}, up to {done.enlarged[0][1]:.1f} times "
            f"({_some([file for file, _ in done.enlarged])})."
        )
    click.echo(f"Manifest: {done.manifest}")
    files = defaultdict(list)
    for file, reason in done.failures:
        files[reason].append(file)
    rows = sorted(files.items(), key=lambda row: (-len(row[1]), row[0]))
    width = max((len(reason) for reason, _ in rows), default=0)
    if rows:
        click.echo(f"\n{'reason':<{width}}  images  files")
    for reason, names in rows:
        click.echo(f"{reason:<{width}}  {len(names):>6}  {_some(names)}")
    for reason, _ in rows:
        if reason in _ADVICE:
            click.echo(f"{reason}: {_ADVICE[reason]}")


def _some(names: Sequence[str]) -> str:
    """Return the first few of many names, printable."""
    from fxeval.strict.text import printable

    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(map(printable, names[:_SHOWN])) + more
