"""Files of users by the thousand: each is refused in fxeval's own words, or is read correctly.

``pytest -s`` shows a table of what became of the inputs. A finding names its input's file: feed it
to the parser of that name in ``fuzz_parsers``. FXEVAL_FUZZ_SEED asks for other inputs.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fxeval.tests import fuzz_planted
from fxeval.tests.fuzzing import MAX_GROWTH, MAX_SECONDS, Report, fuzz

FAULTS = {
    "crashes": "KeyError in fuzz_planted.py",
    "exits": "SystemExit",
    "hangs": "hangs",
    "dies": "killed by SIGSEGV",
    "eats": "MemoryError",
    "eats and says so": "asks for too much memory",
    "warns": "warns: 'odd'",
    "runs code": "reached for os.system",
    "speaks in tongues": "a message with",
    "breaks the contract": "accepted, but AssertionError",
}


@pytest.fixture(scope="module")
def planted(tmp_path_factory) -> Report:
    names = [parser.name for parser in fuzz_planted.parsers(None)]
    counts = {name: 20 if "sound" in name else 6 for name in names}
    folder = tmp_path_factory.mktemp("planted")
    return fuzz("fxeval.tests.fuzz_planted", counts, folder, limit=1)


@pytest.mark.parametrize("fault", FAULTS)
def test_every_planted_fault_is_found_with_its_input(planted: Report, fault: str):
    found = [one for one in planted.findings if one.parser == fault]
    assert found
    assert all(FAULTS[fault] in one.what for one in found)
    assert all(one.file.is_file() for one in found)
    assert planted.tallies[fault].failed >= len(found)


def test_sound_parsers_are_read_to_the_end_whatever_the_others_did(planted: Report):
    assert {one.parser for one in planted.findings} == set(FAULTS)
    for name in ("sound", "sound again"):
        tally = planted.tallies[name]
        assert tally.failed == 0
        assert tally.accepted + tally.refused == tally.inputs == 20
        assert min(tally.accepted, tally.refused) > 0


def test_a_crash_does_not_hide_the_inputs_behind_it(planted: Report):
    assert planted.tallies["dies"].inputs == planted.tallies["hangs"].inputs == 6
    assert planted.tallies["dies"].failed > 1


def test_equal_seeds_give_equal_inputs_and_other_seeds_others(tmp_path: Path):
    def inputs(name: str, seed: int) -> list[bytes]:
        folder = tmp_path / name
        folder.mkdir()
        found = fuzz("fxeval.tests.fuzz_planted", {"crashes": 12}, folder, seed=seed).findings
        return [one.file.read_bytes() for one in found]

    assert inputs("one", 1) == inputs("again", 1) != inputs("other", 2)


def test_parsers_that_cannot_even_be_set_up_are_no_success(tmp_path: Path):
    with pytest.raises(RuntimeError, match="no_such_module"):
        fuzz("fxeval.tests.no_such_module", {"x": 1}, tmp_path)


@pytest.fixture
def data(request: pytest.FixtureRequest) -> Iterator[Path | None]:
    """Real weights, None where there are none."""
    try:
        yield request.getfixturevalue("data_root")
    except pytest.skip.Exception:
        yield None


def fuzz_everything(total: int, folder: Path, data: Path | None) -> Report:
    from fxeval.tests.fuzz_parsers import parsers

    known = parsers(data)
    shares = {one.name: one.most for one in known if one.most}
    each = -(-(total - sum(shares.values())) // (len(known) - len(shares)))
    counts = {one.name: shares.get(one.name, each) for one in known}
    seed = int(os.environ.get("FXEVAL_FUZZ_SEED", "0"))
    report = fuzz("fxeval.tests.fuzz_parsers", counts, folder, seed=seed, data=data)
    print(f"\n{report.table()}\nmemory of the process: {report.growth / 2**20:+.0f} MB")  # noqa: T201
    assert {name: tally.inputs for name, tally in report.tallies.items()} == counts
    assert report.inputs >= total
    assert not report.findings, "\n".join(map(str, report.findings))
    assert max(tally.slowest for tally in report.tallies.values()) < MAX_SECONDS
    assert max(report.growth, *(one.growth for one in report.tallies.values())) < MAX_GROWTH
    return report


def test_a_thousand_hostile_files_are_refused_or_sound(tmp_path: Path):
    report = fuzz_everything(1000, tmp_path, None)
    assert sum(tally.accepted for tally in report.tallies.values()) > 100
    assert sum(tally.refused for tally in report.tallies.values()) > 500


@pytest.mark.slow
def test_ten_thousand_hostile_files_are_refused_or_sound(tmp_path: Path, data: Path | None):
    report = fuzz_everything(10_000, tmp_path, data)
    for name, tally in report.tallies.items():
        assert tally.refused > 0, name
        assert tally.accepted > 0 or name == "dlib made", name  # that one is always cut
