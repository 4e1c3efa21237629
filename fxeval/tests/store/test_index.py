"""The index says what the records say, in both databases, whoever writes it and however."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import insert, select, update
from sqlalchemy.dialects import sqlite

from fxeval.errors import StoreError
from fxeval.records.reading import load_record
from fxeval.records.series import Wanted
from fxeval.statistics.series import series_of
from fxeval.store.index import Rebuilt, Store
from fxeval.store.queries import points_statement
from fxeval.store.tables import METADATA, RUN, STORE
from fxeval.tests.store.stored_runs import write_run

ROOT = Path(__file__).parents[3]


def content(url):
    """All rows of all tables by table, without the keys that the database gives."""
    found = {}
    with Store(url).reading() as connection:
        ids = {row.key: (row.id, row.record) for row in connection.execute(select(RUN))}
        for table in METADATA.sorted_tables:
            rows = [dict(row) for row in connection.execute(select(table)).mappings()]
            for row in rows:
                row.pop("key", None)
                if "run" in row:
                    row["run"] = ids[row["run"]]
            found[table.name] = sorted(map(repr, rows))
    return found


def told(series):
    """Series as text, in which NaN equals itself and the order of a condition's axes is one."""
    return repr([replace(one, under=dict(sorted(one.under.items()))) for one in series])


def from_records(folders, wanted):
    records = [load_record(path) for folder in folders for path in sorted(folder.glob("*.json"))]
    return told(series_of(records, wanted))


def broken(record):
    """A record whose first cell is invalid and has no estimate."""
    record["cells"][0] |= {
        "verdict": {"outcome": "invalid", "reason": "no weights"}, "estimates": [], "limits": [],
        "differences": [], "curves": [],
    }  # fmt: skip
    return record


@pytest.fixture
def runs(tmp_path):
    """Five runs of two suites, of both versions of the format; one has an invalid cell."""
    reports = tmp_path / "reports"
    return [
        write_run(reports, "run-1", day=1, version=1),
        write_run(reports, "run-2", day=2, value=0.25),
        write_run(reports, "run-3", day=3, suite="other"),
        write_run(reports, "run-5", day=5, edit=broken),
        write_run(reports, "run-4", day=4, value=-0.125),
    ]


@pytest.fixture
def filled(url, runs):
    store = Store(url)
    for run in runs:
        store.add(run)
    return store


# --- what it says


def test_a_run_is_listed_with_its_facts_in_the_order_of_starts(filled):
    found = filled.runs()
    assert [one.id for one in found] == [f"run-{number}" for number in range(1, 6)]
    first = found[0]
    assert (first.suite, first.record, first.outcome) == ("quickstart", "quickstart", "invalid")
    assert (first.started, first.n_cells) == ("2026-05-01T00:00:00Z", 4)
    assert [one.id for one in filled.runs(Wanted(suite="other"))] == ["run-3"]
    assert [one.id for one in filled.runs(Wanted(last=2))] == ["run-4", "run-5"]
    assert [one.id for one in filled.runs(Wanted(metric="deletion_auc", last=1))] == ["run-5"]
    assert filled.runs(Wanted(explainer="absent")) == []
    assert filled.runs(Wanted(metric="absent")) == []


WANTED = [
    Wanted(),
    Wanted(last=2),
    Wanted(suite="other"),
    Wanted(metric="deletion_auc"),
    Wanted(metric="insertion_auc", explainer="gradcam", last=3),
    Wanted(check="deletion-insertion", model="mini_resnet"),
    Wanted(model="absent"),
    Wanted(hardware_class="Linux x86_64, torch 2.13, float32"),
    Wanted(hardware_class="a GPU"),
]


def test_series_are_what_the_records_say(filled, runs):
    for wanted in WANTED:
        assert told(filled.series(wanted)) == from_records(runs, wanted), wanted
    is_there = [bool(filled.series(wanted)) for wanted in WANTED]
    assert is_there == [True, True, True, True, True, True, False, True, False]


def test_a_cell_without_estimates_is_a_point_without_a_value(filled):
    (one, *_) = filled.series(Wanted(suite="quickstart", metric="deletion_auc"))
    assert [point.run for point in one.points] == ["run-1", "run-2", "run-4", "run-5"]
    assert [point.value == point.value for point in one.points] == [True, True, True, False]
    assert one.points[-1].outcome == "invalid"


@pytest.mark.parametrize(
    "wanted", [one for one in WANTED if one.named()], ids=lambda one: ",".join(one.named())
)
def test_a_trend_is_found_by_indices_and_never_by_looking_at_all_runs(wanted, runs, tmp_path):
    store = Store(f"sqlite:///{tmp_path}/index.sqlite")
    store.add(runs[0])
    asked = points_statement(wanted).compile(dialect=sqlite.dialect())
    with store.reading() as connection:
        plan = connection.exec_driver_sql(
            f"EXPLAIN QUERY PLAN {asked}", tuple(asked.params[name] for name in asked.positiontup)
        ).all()
    steps = [row[-1] for row in plan]
    assert any("USING INDEX" in step or "USING COVERING INDEX" in step for step in steps)
    scanned = [step for step in steps if re.match(r"SCAN (cell|estimate|run)\b", step)]
    assert scanned == [], steps
    of_all = [step for step in steps if "estimate_metric" in step]
    # Where cells are named, estimates of other suites must not be looked at.
    assert bool(of_all) is (wanted.named().keys() == {"metric"}), steps


def test_both_databases_answer_alike(runs, tmp_path, server):
    stores = [Store(f"sqlite:///{tmp_path}/index.sqlite"), Store(server.database())]
    for store in stores:
        for run in runs:
            store.add(run)
    one, other = stores
    for wanted in WANTED:
        assert told(one.series(wanted)) == told(other.series(wanted))
        assert [run.id for run in one.runs(wanted)] == [run.id for run in other.runs(wanted)]


def test_the_folder_of_a_run_is_found_by_its_id(filled, runs):
    assert filled.path_of("run-2") == runs[1]
    with pytest.raises(StoreError, match="expected the id of a run, got 'run-22': did you mean"):
        filled.path_of("run-22")
    with pytest.raises(StoreError, match="fxeval store list"):
        filled.path_of("\0'; DROP TABLE run")
    shutil.rmtree(runs[1])
    with pytest.raises(StoreError, match=r"run run-2: expected its files in .*, got nothing there"):
        filled.path_of("run-2")


# --- adding


@pytest.mark.parametrize("version", [1, 2])
def test_a_record_of_every_released_version_is_taken(url, tmp_path, version):
    run = write_run(tmp_path, version=version)
    store = Store(url)
    assert store.take(run) == ("run-1", "added")
    assert told(store.series()) == from_records([run], Wanted())
    assert len(store.series()) >= 14


def test_adding_a_run_twice_changes_nothing(filled, runs, url):
    before = content(url)
    assert filled.take(runs[0]) == ("run-1", "unchanged")
    assert filled.take(runs[0] / "quickstart.json") == ("run-1", "unchanged")
    assert content(url) == before


def test_a_run_whose_record_has_changed_is_replaced(filled, tmp_path):
    write_run(tmp_path / "reports", "run-2", day=2, value=0.75)
    assert filled.take(tmp_path / "reports" / "run-2") == ("run-2", "replaced")
    found = filled.series(Wanted(suite="quickstart", metric="deletion_auc"))
    assert {one.points[1].value for one in found} == {0.75}
    assert len(filled.runs()) == 5


def test_a_run_whose_rows_have_changed_is_replaced(filled, runs):
    (runs[1] / "rows.jsonl").write_text("{}\n")
    assert [(one.run, one.text) for one in filled.check()] == [
        ("run-2", f"{runs[1] / 'rows.jsonl'} has changed")
    ]
    assert filled.take(runs[1]) == ("run-2", "replaced")
    assert filled.check() == []


def test_a_run_that_was_moved_is_found_where_it_is_now(filled, runs, tmp_path):
    moved = tmp_path / "elsewhere" / "run-2"
    moved.parent.mkdir()
    runs[1].rename(moved)
    assert filled.take(moved) == ("run-2", "unchanged")
    assert filled.path_of("run-2") == moved


def test_an_index_beside_its_runs_moves_with_them(runs, tmp_path):
    Store(f"sqlite:///{tmp_path}/reports/index.sqlite").add(runs[0])
    (tmp_path / "reports").rename(tmp_path / "kept")
    moved = Store(f"sqlite:///{tmp_path}/kept/index.sqlite")
    assert moved.path_of("run-1") == tmp_path / "kept" / "run-1"
    assert moved.check() == []


def test_all_suites_of_a_run_come_and_go_together(url, tmp_path):
    write_run(tmp_path, suite="one")
    run = write_run(tmp_path, suite="two")
    store = Store(url)
    store.add(run)
    assert [one.record for one in store.runs()] == ["one", "two"]
    (run / "one.json").unlink()
    assert store.take(run) == ("run-1", "replaced")
    assert [one.record for one in store.runs()] == ["two"]


def test_a_removed_run_leaves_no_row(filled, runs, url):
    for number in range(1, 6):
        filled.remove(f"run-{number}")
    assert {name for name, rows in content(url).items() if rows} == {"fxeval_store"}
    assert runs[0].is_dir()
    with pytest.raises(StoreError, match="expected the id of a run"):
        filled.remove("run-1")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda run: (run / "quickstart.json").write_text('{"record": 2'), "not valid JSON"),
        (lambda run: (run / "quickstart.json").write_text('{"record": 3}'), "format version 1 or"),
        (lambda run: (run / "quickstart.json").unlink(), "got no record there"),
        (lambda run: shutil.rmtree(run), "got no record there"),
    ],
    ids=["cut", "of a later version", "without a record", "nothing"],
)
def test_what_is_no_run_is_refused_and_nothing_is_written(url, tmp_path, make, message):
    run = write_run(tmp_path / "reports")
    make(run)
    store = Store(url)
    with pytest.raises(StoreError, match=message):
        store.add(run)
    with pytest.raises(StoreError, match="no index is there"):
        store.runs()


def test_records_of_two_runs_in_one_folder_are_refused(url, tmp_path):
    write_run(tmp_path, "a", suite="one")
    write_run(tmp_path, "b", suite="two")
    (tmp_path / "b" / "two.json").rename(tmp_path / "a" / "two.json")
    with pytest.raises(StoreError, match="expected the records of one run, got those of 2: 'a'"):
        Store(url).add(tmp_path / "a")


def test_text_that_a_database_cannot_hold_is_replaced(url, tmp_path):
    def hostile(record):
        record["verdict"]["reason"] = "a\0b'; DROP TABLE run; --"
        record["cells"][0]["model"] = "m\0'"
        record["suite"]["title"] = "𝄞 \u202e"
        return record

    store = Store(url)
    store.add(write_run(tmp_path, edit=hostile))
    with store.reading() as connection:
        said = connection.execute(select(RUN.c.reason, RUN.c.title)).one()
    assert tuple(said) == ("a\ufffdb'; DROP TABLE run; --", "𝄞 \u202e")
    assert {found.model for found in store.series(Wanted(model="m\0'"))} == {"m\ufffd'"}


def test_a_number_too_large_for_a_database_is_an_error_of_ours(url, tmp_path):
    def hostile(record):
        record["cells"][0]["n_pairs"] = 10**30
        return record

    store = Store(url)
    with pytest.raises(StoreError, match="the database says"):
        store.add(write_run(tmp_path, edit=hostile))
    store.add(write_run(tmp_path, "run-2"))
    assert [one.id for one in store.runs()] == ["run-2"]


# --- rebuilding


def test_a_rebuilt_index_equals_the_one_that_grew(filled, url, new_url, tmp_path):
    other = new_url()
    found = Store(other).rebuild([tmp_path])
    assert found == Rebuilt(tuple(f"run-{number}" for number in range(1, 6)), ())
    grown, again = content(url), content(other)
    for of in (grown, again):
        of["run"] = [row.partition("'folder'")[0] for row in of["run"]]
    assert again == grown
    assert sum(map(len, grown.values())) > 300


def test_a_rebuild_repairs_what_was_changed_in_the_index(filled, url, tmp_path):
    before = content(url)
    with filled._database.writing() as connection:
        connection.execute(update(METADATA.tables["estimate"]).values(value=7.0))
        connection.execute(update(RUN).where(RUN.c.id == "run-3").values(id="gone"))
    assert content(url) != before
    filled.rebuild([tmp_path])
    assert content(url) == before


def test_a_rebuild_says_what_it_leaves_out(url, tmp_path):
    for name in "abcd":
        write_run(tmp_path / "reports", name)
    (tmp_path / "reports" / "a" / "quickstart.json").write_text('{\n "record": 2, "run":')
    (tmp_path / "reports" / "b" / "quickstart.json").unlink()
    shutil.copytree(tmp_path / "reports" / "c", tmp_path / "reports" / "z")
    shutil.copytree(tmp_path / "reports" / "d", tmp_path / "reports" / "y")
    (tmp_path / "reports" / "y" / "rows.jsonl").write_text("\n")
    (tmp_path / "package.json").write_text('{"name": "no record"}')
    found = Store(url).rebuild([tmp_path])
    assert found.added == ("c", "d")
    cut, without, copied = found.left_out
    assert "a: quickstart.json: not valid JSON" in cut
    assert "b: expected the folder of one run" in without
    assert f"y: run d: {tmp_path}/reports/d holds other files of it" in copied
    with pytest.raises(StoreError, match="expected a folder that holds runs, got no folder"):
        Store(url).rebuild([tmp_path / "absent"])


def test_an_index_of_another_version_says_to_rebuild_and_can_be(filled, url, tmp_path):
    before = content(url)
    with filled._database.writing() as connection:
        connection.execute(update(STORE).values(version=99))
    for use in (
        Store.runs,
        Store.series,
        Store.check,
        lambda one: one.add(tmp_path / "reports" / "run-1"),
    ):
        with pytest.raises(StoreError, match=r"got version 99. .* fxeval store rebuild FOLDER"):
            use(Store(url))
    Store(url).rebuild([tmp_path])
    assert content(url) == before


def test_a_database_of_something_else_is_left_alone(url, tmp_path):
    run = write_run(tmp_path)
    store = Store(url)
    with store._database._engine.begin() as connection:
        RUN.create(connection)
        connection.execute(insert(RUN).values(
            id="theirs", record="", suite="", title="", suite_digest="", started="", finished="",
            complete=True, fxeval="", hardware_class="", environment="", outcome="", reason="",
            folder="",
        ))  # fmt: skip
    with pytest.raises(StoreError, match="got a table 'run' of something else"):
        store.add(run)
    with pytest.raises(StoreError, match="got a table 'run' of something else"):
        store.rebuild([tmp_path])
    with store._database._engine.connect() as connection:
        assert connection.execute(select(RUN.c.id)).scalars().all() == ["theirs"]


# --- several processes


def start(code, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


ADDER = """
import sys
from dataclasses import replace
from pathlib import Path
from fxeval.store.index import Store
store = Store(sys.argv[1])
print("ready", flush=True)
sys.stdin.read()
print(*[store.add(Path(path)) for path in sys.argv[2:]])
"""


def test_two_processes_that_add_at_the_same_time_both_succeed(url, new_url, tmp_path):
    runs = [write_run(tmp_path, f"run-{number}", day=number) for number in range(1, 10)]
    asked = [runs[:5], runs[4:][::-1]]  # one of them is added by both
    adders = [start(ADDER, url, *some) for some in asked]
    for adder in adders:
        assert adder.stdout.readline() == "ready\n"
    for adder in adders:
        adder.stdin.close()
    said = []
    for adder in adders:
        assert adder.wait(timeout=120) == 0, adder.stderr.read()
        said.append(adder.stdout.read().split())
        for pipe in (adder.stdout, adder.stderr):
            pipe.close()
    assert said == [[run.name for run in some] for some in asked]
    alone = new_url()
    for run in runs:
        Store(alone).add(run)
    assert content(url) == content(alone)


KILLED = """
import os, signal, sys
from pathlib import Path
from fxeval.store import index
real = index.insert
def insert(table):
    if table.name == "limit":
        os.kill(os.getpid(), signal.SIGKILL)
    return real(table)
index.insert = insert
index.Store(sys.argv[1]).add(Path(sys.argv[2]))
"""


@pytest.mark.parametrize("is_there", [False, True], ids=["new", "replaced"])
def test_a_killed_process_leaves_nothing_half(url, tmp_path, is_there):
    store, first = Store(url), write_run(tmp_path, "run-1")
    store.add(first)
    run = write_run(tmp_path, "run-2", value=0.25)
    if is_there:
        store.add(run)
        write_run(tmp_path, "run-2", value=0.5)
    before = content(url)
    killed = start(KILLED, url, run)
    killed.communicate(timeout=120)
    assert killed.returncode == -signal.SIGKILL
    assert content(url) == before
    assert store.take(run) == ("run-2", "replaced" if is_there else "added")


# --- addresses


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("reports/store.sqlite", "expected the address of an index, sqlite:///FILE or"),
        ("mysql://ann:top-secret@db/x", "got 'mysql://'"),
        ("sqlite://", "got one without a file"),
        ("sqlite:///:memory:", "got one without a file"),
        ("sqlite:///file:x?mode=ro&uri=true", "got one with a host or options"),
        ("sqlite://host/file", "got one with a host or options"),
        ("postgresql+pg8000://ann:top-secret@db", "got one without a database"),
        ("postgresql+pg8000://ann:top-secret@db:port/x", "got something else"),
        ("postgresql://ann@db/x?password=top-secret", "got one named 'password'"),
        ("postgresql://ann@db/x?sslmode=prefer", "expected no option but sslmode=verify-full"),
    ],
)
def test_a_wrong_address_is_refused_without_its_password(address, message):
    with pytest.raises(StoreError, match="expected the address of an index") as caught:
        Store(address)
    assert message in str(caught.value)
    assert "top-secret" not in str(caught.value)


def test_a_password_is_neither_shown_nor_stored(server, tmp_path):
    url = server.database()
    store = Store(url)
    store.add(write_run(tmp_path))
    password = url.split(":")[2].split("@")[0]
    assert password not in store.shown
    assert password not in json.dumps(content(url))
    assert "fx:***@127.0.0.1" in store.shown
    wrong = Store(url.replace(password, "top-secret"))
    with pytest.raises(StoreError, match="password authentication failed") as caught:
        wrong.runs()
    assert "top-secret" not in str(caught.value)


def test_a_server_that_is_not_there_is_an_error_of_ours():
    store = Store("postgresql+pg8000://ann:top-secret@127.0.0.1:1/x")
    with pytest.raises(StoreError, match="the database says") as caught:
        store.runs()
    assert "top-secret" not in str(caught.value)


def test_a_server_without_the_encryption_that_is_asked_for_is_not_used(server, tmp_path):
    store = Store(f"{server.database()}?sslmode=verify-full")
    with pytest.raises(StoreError, match=r"the database says: .*(SSL|ssl)"):
        store.add(write_run(tmp_path))


def test_a_file_that_is_no_index_is_an_error_of_ours(tmp_path):
    path = tmp_path / "index.sqlite"
    path.write_bytes(b"no database " * 400)
    with pytest.raises(StoreError, match="not a database; remove it"):
        Store(f"sqlite:///{path}").runs()
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="can't be made"):
        Store(f"sqlite:///{tmp_path}/file/index.sqlite").add(write_run(tmp_path))


def test_asking_makes_no_index(tmp_path):
    store = Store(f"sqlite:///{tmp_path}/reports/index.sqlite")
    for ask in (store.runs, store.series, store.check, lambda: store.remove("run-1")):
        with pytest.raises(StoreError, match="no index is there"):
            ask()
    assert not (tmp_path / "reports").exists()
