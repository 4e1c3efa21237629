"""Facts about cells that are known before loading are looked up once."""

from dataclasses import replace
from pathlib import Path

import pytest

from fxeval.errors import SuiteError
from fxeval.suite import preflight
from fxeval.suite.cells import Use
from fxeval.tests.run.test_workshop import CELL

NOBODY = {"model": frozenset(), "explainer": frozenset(), "pairs": frozenset()}


def test_a_card_is_read_once_however_many_cells_want_it(tmp_path: Path, monkeypatch):
    met = []
    monkeypatch.setattr(preflight, "read_card", met.append)
    use = Use("card", {"file": "own.yaml"}, "s.yaml:3:5", "acme")
    cells = [replace(CELL, id=str(row), model=use) for row in range(50)]
    preflight.check_cards_of([*cells, CELL], NOBODY, tmp_path)
    assert met == [tmp_path / "own.yaml"]


def test_every_card_with_faults_is_named_and_one_of_a_fixture_of_ones_own_is_not_read(
    tmp_path: Path,
):
    cells = [
        replace(CELL, model=Use("card", {"file": name}, f"s.yaml:{line}:5", name[0]))
        for line, name in ((3, "a.yaml"), (4, "b.yaml"))
    ]
    with pytest.raises(SuiteError) as error:
        preflight.check_cards_of(cells, NOBODY, tmp_path)
    assert "s.yaml:3:5: error: model 'a'" in str(error.value)
    assert "s.yaml:4:5: error: model 'b'" in str(error.value)
    preflight.check_cards_of(cells, {**NOBODY, "model": frozenset({"card"})}, tmp_path)
