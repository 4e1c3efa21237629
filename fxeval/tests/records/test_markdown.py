"""The page about formats is made of the formats."""

from pathlib import Path

import pytest

from fxeval.records import judged, schema, selection
from fxeval.records.form import Form
from fxeval.records.markdown import PARTS, _kind, renewed

PAGE = Path(__file__).parents[3] / "docs" / "formats.md"

pytestmark = pytest.mark.skipif(not PAGE.is_file(), reason="no docs beside an installed fxeval")


def test_the_page_is_up_to_date():
    page = PAGE.read_text("utf-8")
    assert renewed(page) == page, "run python -m fxeval.records.markdown docs/formats.md"


def test_every_part_of_rows_and_records_stands_there():
    page = PAGE.read_text("utf-8")
    for part in PARTS:
        assert f"### {part.__name__}\n" in page
        for name, field in part.model_fields.items():
            assert f"`{field.alias or name}`" in page
    assert all(issubclass(part, Form) for part in PARTS)


def test_forms_stand_there_that_no_list_of_this_test_names():
    assert {selection.Selection, selection.Configuration, selection.Candidate} < {*PARTS}
    assert {judged.Regressions, judged.Regression} < {*PARTS}
    assert len({*PARTS}) == len(PARTS)


def test_types_are_written_as_people_read_them():
    kinds = {name: _kind(field.annotation) for name, field in schema.Row.model_fields.items()}
    assert kinds["identities"] == "list[int]"
    assert kinds["thumbnail"] == "list[list[float]] or null"
    assert kinds["diagnostics"] == "dict[str, dict[str, float or null]]"
    assert _kind(schema.CellResult.model_fields["states"].annotation) == "dict[RowState, int]"
