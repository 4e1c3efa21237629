"""Slices in a suite file: what they may be, and what a limit may say of them."""

import json

import pytest

from fxeval.errors import SuiteError
from fxeval.slices import Slice
from fxeval.suite.load import load
from fxeval.suite.plan import cells
from fxeval.suite.schema import suite_schema
from fxeval.tests.suite.test_load import GOOD, KNOWN

SLICES = "    slices: [look, {column: yaw_degrees, edges: [-15, 15]}]\n"
LIMIT = "      - {metric: insertion_auc, at_least: 0.5, severity: info}\n"


def written(tmp_path, slices=SLICES, limit=LIMIT):
    path = tmp_path / "a.yaml"
    path.write_text(
        GOOD.replace("    steps: 24\n", f"    steps: 24\n{slices}").replace(LIMIT, limit)
    )
    return path


def test_slices_are_columns_with_edges_or_without(tmp_path):
    suite = load(written(tmp_path), KNOWN)
    expected = (Slice("look"), Slice("yaw_degrees", (-15.0, 15.0)))
    assert [check.slices for check in suite.checks] == [(), expected]
    assert [cell.slices for cell in cells(suite)] == [(), expected]


def test_a_limit_is_judged_in_the_slices_of_a_column_of_its_check(tmp_path):
    limit = LIMIT.replace("severity: info", "slice: look, judge: worst")
    found = load(written(tmp_path, limit=limit), KNOWN).checks[1].limits
    assert [(one.slice, one.judge) for one in found] == [("", "each"), ("look", "worst")]


def test_suites_without_slices_keep_their_digest_and_slices_change_it(tmp_path):
    """The digest is the one that this suite had before there were slices."""
    plain = load(written(tmp_path, ""), KNOWN).digest
    assert plain == "2ea2fa1fd58471e8339ee353f54203612e4d6b6661d17c10e172488480d2d696"
    others = {
        load(written(tmp_path, slices, limit), KNOWN).digest
        for slices, limit in (
            (SLICES, LIMIT),
            (SLICES.replace("-15,", "-16,"), LIMIT),
            (SLICES.replace("look, ", ""), LIMIT),
            (SLICES, LIMIT.replace("severity", "slice: look, severity")),
        )
    }
    assert len(others | {plain}) == 5


@pytest.mark.parametrize(
    ("slices", "message"),
    [
        ("[]", "'slices' needs 1 or more entries"),
        ("look", "'slices' must be a list"),
        ("[look, look]", "the column 'look' is listed twice"),
        ("[look, {column: look, edges: [1]}]", "the column 'look' is listed twice"),
        ("[fill]", "'fill' is a condition of this kind of check, and no column can have its name"),
        ("[half]", "'half' is a condition of this kind of check"),
        ("[' look']", "expected the name of a column of 1 to 64 printable characters"),
        ("['']", "expected the name of a column of 1 to 64 printable characters"),
        (f"[{'x' * 65}]", "expected the name of a column of 1 to 64 printable characters"),
        ("[3]", "must be"),
        ("[{column: yaw}]", "'edges' is missing"),
        ("[{edges: [1]}]", "'column' is missing"),
        ("[{column: yaw, edges: []}]", "'edges' needs 1 or more entries"),
        ("[{column: yaw, edges: [1, 1]}]", "expected edges in ascending order, each once"),
        ("[{column: yaw, edges: [2, 1]}]", "expected edges in ascending order, each once"),
        ("[{column: yaw, edges: [.nan]}]", "expected a finite number"),
        ("[{column: yaw, edges: [.inf]}]", "expected a finite number"),
        ("[{column: yaw, edges: [a]}]", "must be a number"),
        ("[{column: yaw, edges: [1,2,3,4,5,6,7,8,9,10,11,12]}]", "needs 11 or fewer entries"),
        ("[{column: yaw, edgs: [1]}]", "did you mean 'edges'?"),
    ],
)
def test_other_slices_are_refused_with_their_place(tmp_path, slices, message):
    with pytest.raises(SuiteError) as error:
        load(written(tmp_path, f"    slices: {slices}\n"), KNOWN)
    assert message in str(error.value)
    assert "a.yaml:16:" in str(error.value)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("slice: lok", "this check has no slices of 'lok'; it has: look, yaw_degrees"),
        ("slice: lok", "did you mean 'look'?"),
        ("slice: yaw", "this check has no slices of 'yaw'"),
        ("slice: look, judge: mean", "'judge: mean' would hide a slice behind the others"),
        ("slice: 3", "'slice' must be text"),
    ],
)
def test_a_limit_names_a_column_of_its_check(tmp_path, keys, message):
    with pytest.raises(SuiteError) as error:
        load(written(tmp_path, limit=LIMIT.replace("severity: info", keys)), KNOWN)
    assert message in str(error.value)


def test_a_limit_of_a_check_without_slices_has_none(tmp_path):
    limit = LIMIT.replace("severity: info", "slice: look")
    with pytest.raises(
        SuiteError, match="no slices of 'look'; list it under 'slices' of the check"
    ):
        load(written(tmp_path, "", limit), KNOWN)


def test_the_worst_slice_may_be_judged_where_a_kind_has_no_conditions(tmp_path):
    text = GOOD.replace(
        "    limits: [{metric: rank_correlation_fully_randomised, at_most: 0.4, "
        '"severity": info}]\n',
        "    slices: [look]\n    limits: [{metric: rank_correlation_fully_randomised, "
        "at_most: 0.4, slice: look, judge: worst, severity: info}]\n",
    )
    path = tmp_path / "a.yaml"
    path.write_text(text)
    assert load(path, KNOWN).checks[0].limits[0].slice == "look"


def test_the_json_schema_knows_slices():
    text = json.dumps(suite_schema())
    assert '"slices"' in text
    assert '"edges"' in text
