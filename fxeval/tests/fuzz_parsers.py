"""All parsers of fxeval that read files of users."""

from pathlib import Path

from fxeval.tests import fuzz_baselines, fuzz_data, fuzz_models
from fxeval.tests.fuzzing import Parser


def parsers(data: Path | None) -> list[Parser]:
    found = fuzz_data.parsers(data), fuzz_models.parsers(data), fuzz_baselines.parsers(data)
    return [parser for some in found for parser in some]
