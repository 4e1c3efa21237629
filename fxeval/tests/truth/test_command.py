"""``python -m fxeval.truth``: which table is printed, and what is wrong usage."""

import pytest

from fxeval.tests.truth.test_behaviours import FEW
from fxeval.truth import __main__ as command
from fxeval.truth.behaviour_table import behaviour_table


def test_behaviours_are_named_and_printed(monkeypatch, capsys):
    asked = []

    def few(*, behaviours):
        asked.append(list(behaviours))
        return behaviour_table(FEW, explainers={}, behaviours=behaviours)

    monkeypatch.setattr(command.behaviour_table, "behaviour_table", few)
    assert command.main(["behaviours", "absence", "brightness"]) == 0
    head, _, oracle, *others = capsys.readouterr().out.splitlines()
    assert head == "| maps | absence | brightness |"
    assert oracle.startswith("| oracle | right 1.00 [")
    assert len(others) == 6
    monkeypatch.setattr(command.behaviour_table, "behaviour_table", lambda **given: asked.append(
        list(given["behaviours"])) or [])  # fmt: skip
    assert command.main(["behaviours"]) == 0
    assert asked == [["absence", "brightness"], list(command.BEHAVIOURS)]


def test_the_planted_table_is_printed_unless_another_is_named(monkeypatch, capsys):
    monkeypatch.setattr(command.table, "planted_table", list)
    for arguments in ([], ["planted"]):
        assert command.main(arguments) == 0
        assert capsys.readouterr().out.startswith("| maps | Spearman with the truth |")


@pytest.mark.parametrize("word", ["-h", "--help"])
def test_help_says_which_tables_and_behaviours_there_are(word, capsys):
    assert command.main([word]) == 0
    said = capsys.readouterr().out
    assert "planted" in said
    assert all(name in said for name in command.BEHAVIOURS)
    assert command.main(["planted", word]) == 64


@pytest.mark.parametrize("arguments", [["behaviour"], ["behaviours", "xor"], ["planted", "both"]])
def test_anything_else_is_wrong_usage(arguments, capsys):
    assert command.main(arguments) == 64
    shown = capsys.readouterr()
    assert shown.out == ""
    assert f"got {' '.join(arguments)}." in shown.err
