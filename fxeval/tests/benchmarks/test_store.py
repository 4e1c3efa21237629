"""The time of a trend's question to an index with 100 and with 1,000 runs of other suites.

    python -m pytest fxeval/tests/benchmarks/test_store.py -m slow --benchmark-enable

The times of one database are to be compared: unrelated history must not matter.
"""

import pytest

from fxeval.records.series import Wanted
from fxeval.store.index import Store
from fxeval.tests.store.conftest import server as server
from fxeval.tests.store.stored_runs import small, write_run

pytestmark = pytest.mark.slow
OWN = 50
QUESTION = Wanted(suite="own", metric="deletion_auc")


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def database(request, tmp_path_factory):
    """Makes addresses of empty databases of one kind."""
    if request.param == "postgresql":
        return request.getfixturevalue("server").database
    return lambda: f"sqlite:///{tmp_path_factory.mktemp('index')}/index.sqlite"


@pytest.fixture(scope="module", params=[100, 1000], ids="{} unrelated".format)
def store(request, database, tmp_path_factory):
    """An index of 50 runs of the suite "own", and of many of other suites."""
    reports = tmp_path_factory.mktemp("reports")
    for number in range(request.param):
        write_run(reports, f"other-{number}", suite=f"other{number % 7}", edit=small)
    for number in range(OWN):
        write_run(reports, f"own-{number}", day=1 + number % 28, suite="own", edit=small)
    found = Store(database())
    found.rebuild([reports])
    return found


def test_a_trend_is_asked_for(benchmark, store):
    series = benchmark(store.series, QUESTION)
    assert {len(one.points) for one in series} == {OWN}
    assert len(store.runs()) > OWN


def test_the_folder_of_a_run_is_asked_for(benchmark, store):
    assert benchmark(store.path_of, "own-7").name == "own-7"
