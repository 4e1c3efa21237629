"""The options that fxeval adds to pytest."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def add_options(parser: pytest.Parser) -> None:
    """Add the options and ini values of fxeval."""
    group = parser.getgroup("fxeval", "evaluation of face-recognition explanations")
    group.addoption("--fx-data", metavar="DIR", help="folder of real faces (or $FXEVAL_DATA)")
    group.addoption(
        "--fx-weights", metavar="DIR",
        help="folder of model weights (or $FXEVAL_WEIGHTS; default: weights/ in --fx-data)",
    )  # fmt: skip
    group.addoption(
        "--fx-reports", metavar="DIR", default="reports", help="where records and scorecards go"
    )
    for name, what in (("baseline", "an earlier run"), ("base", "a run of the base version")):
        group.addoption(
            f"--fx-{name}", metavar="NAME|DIR",
            help=f"baseline, folder or record of {what}, for limits that compare with '{name}'",
        )  # fmt: skip
    group.addoption(
        "--fx-baselines", metavar="DIR",
        help="folder of the named baselines (default: baselines, here or in the root directory)",
    )  # fmt: skip
    group.addoption(
        "--fx-batch-size", type=_positive, metavar="N",
        help="most images in one forward pass (default: 16 on a CPU, 128 on a GPU)",
    )  # fmt: skip
    group.addoption(
        "--fx-threads", type=_positive, metavar="N",
        help="torch threads per process (default: the cores, shared by the workers)",
    )  # fmt: skip
    group.addoption(
        "--fx-markdown", metavar="FILE",
        help="where a summary in Markdown goes, such as $GITHUB_STEP_SUMMARY",
    )  # fmt: skip
    group.addoption(
        "--fx-store", metavar="URL",
        help="index over many runs that the finished run is added to (fxeval store)",
    )  # fmt: skip
    parser.addini(
        "fx_suites",
        "which YAML files are suites",
        type="args",
        default=["suites/*.yaml", "suites/*.yml"],
    )


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(f"expected at least 1, got {number}")
    return number
