"""However user code ends a cell, the record holds the cell with the reason, and other rows stay."""

import shutil

import pytest

from fxeval.tests.world import CONFTEST, cells, rows, the_record

HOSTILE = '''

import asyncio, os, signal, sys, unittest


class Unreadable(Exception):
    def __str__(self):
        raise ValueError("no message for you")


class Own(BaseException):
    pass


def endless(depth):
    return endless(depth + 1)


WAYS = {
    "exit": lambda: sys.exit(0),
    "hard_exit": lambda: os._exit(0),
    "generator_exit": lambda: (_ for _ in ()).throw(GeneratorExit()),
    "cancelled": lambda: (_ for _ in ()).throw(asyncio.CancelledError()),
    "own": lambda: (_ for _ in ()).throw(Own("hidden")),
    "skip": lambda: pytest.skip("no licence"),
    "unittest_skip": lambda: (_ for _ in ()).throw(unittest.SkipTest("no licence")),
    "memory": lambda: (_ for _ in ()).throw(MemoryError()),
    "recursion": lambda: endless(0),
    "unreadable": lambda: (_ for _ in ()).throw(Unreadable()),
    "fork": lambda: os.fork(),
    "fail": lambda: pytest.fail("too slow"),
    "leave": lambda: pytest.exit("enough", returncode=0),
    "interrupt": lambda: (_ for _ in ()).throw(KeyboardInterrupt()),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
}


def explaining(way):
    @pytest.fixture(name=f"explainer_{way}")
    def made():
        def explain(m, p, r, g):
            WAYS[way]()
            return occlusion(m, p, r, g)
        return Explain(explain)
    return made


class Leaves:
    """A model and a pair list that end as one of the ways says."""

    name, banner, crop, similarity, operating_threshold = "tiny", None, CROP, "cosine", 0.5
    digest, module = "c" * 64, None

    def __init__(self, way):
        self.way, self.whole = way, Memory()

    def embed(self, images):
        WAYS[self.way]()

    def listing(self):
        return self.whole.listing()

    def images(self, image_ids, crop):
        WAYS[self.way]()
        return self.whole.images(image_ids, crop)


def at_once(role, way):
    @pytest.fixture(name=f"{role}_{way}")
    def made():
        return Leaves(way)
    return made


for _way in WAYS:
    globals()[f"_in_explain_{_way}"] = explaining(_way)
    globals()[f"_in_embed_{_way}"] = at_once("model", _way)
    globals()[f"_in_images_{_way}"] = at_once("pairs", _way)
    globals()[f"_at_once_{_way}"] = pytest.fixture(name=f"explainer_once_{_way}")(WAYS[_way])
'''
ENDED = ["exit", "hard_exit", "generator_exit", "cancelled", "own", "skip", "unittest_skip"]
RAISED = [*ENDED, "memory", "recursion", "unreadable"]
NAMES = {
    "exit": "SystemExit", "hard_exit": "SystemExit", "generator_exit": "GeneratorExit",
    "cancelled": "CancelledError", "own": "Own", "skip": "Skipped", "unittest_skip": "SkipTest",
    "memory": "MemoryError", "recursion": "RecursionError", "unreadable": "Unreadable",
}  # fmt: skip


@pytest.fixture
def hostile(world):
    (world.path / "conftest.py").write_text(CONFTEST + HOSTILE)
    return world


def only(text):
    """Keep the check of deletion and insertion, few steps."""
    head, _, rest = text.partition("  - id: sanity")
    return head + rest[rest.index("  - id: deletion") :].replace("steps: 8", "steps: 2")


def honest(world):
    found = [row for row in rows(world) if "-occlusion-" in row["cell"]]
    assert len(found) == 32
    return found


def test_whatever_explain_raises_is_a_state_of_its_rows_and_the_next_explainer_is_as_it_was(
    hostile,
):
    hostile(edit=only)
    alone = honest(hostile)
    shutil.rmtree(hostile.path / "reports")
    ways = [*RAISED, "fork"]
    result = hostile(explainers=", ".join([*ways, "occlusion"]), edit=only)
    assert result.ret == 1
    record = the_record(hostile)
    assert record["run"]["complete"]
    for way in RAISED:
        cell = cells(record)[f"deletion-insertion[tiny-{way}-memory]"]
        assert cell["verdict"]["outcome"] == "fail", way
        assert cell["states"] == {"explainer_raised": 32}, way
        assert f"{NAMES[way]} (conftest.py:" in cell["verdict"]["reason"], way
    assert honest(hostile) == alone
    forked = [row for row in rows(hostile) if "-fork-" in row["cell"]]
    assert [{**row, "cell": ""} for row in forked] == [{**row, "cell": ""} for row in alone]


def swapped(role, ways):
    """Return an edit that lists hostile models or pair lists, then the honest one."""
    usual = {"models": "models: [tiny]", "pairs": "pairs: [{use: memory, n: 32}]"}[role]
    last = usual.partition(": [")[2]
    return lambda text: only(text).replace(usual, f"{role}: [{', '.join(ways)}, {last}")


def refusals(world):
    found = {key: cell["verdict"] for key, cell in cells(the_record(world)).items()}
    return {key: one for key, one in found.items() if "-tiny-occlusion-memory" not in key}


def test_whatever_ends_a_model_or_a_list_makes_its_cell_invalid_with_the_reason(hostile):
    for role, ways in (("models", RAISED), ("pairs", ENDED)):
        shutil.rmtree(hostile.path / "reports", ignore_errors=True)
        result = hostile(edit=swapped(role, ways))
        result.assert_outcomes(failed=len(ways), passed=1)
        found = [v for v in refusals(hostile).values() if v["outcome"] != "pass"]
        assert {one["outcome"] for one in found} == {"invalid"}
        assert len(found) == len(ways)
        for way, one in zip(ways, found, strict=True):
            assert f"{NAMES[way]} (conftest.py:" in one["reason"], (role, way)
            assert "explainer" not in one["reason"]


def test_whatever_ends_a_fixture_makes_its_cell_invalid_with_the_reason(hostile):
    ways = [f"once_{way}" for way in RAISED]
    result = hostile(explainers=", ".join([*ways, "occlusion"]), edit=only)
    result.assert_outcomes(failed=len(ways), passed=1)
    found = cells(the_record(hostile))
    for way in RAISED:
        verdict = found[f"deletion-insertion[tiny-once_{way}-memory]"]["verdict"]
        assert verdict["outcome"] == "invalid", way
        assert f"{NAMES[way]} (conftest.py:" in verdict["reason"], way


@pytest.mark.parametrize(
    ("way", "code", "words"),
    [
        ("interrupt", 2, "KeyboardInterrupt (conftest.py:"),
        pytest.param(
            "once_interrupt", 2, "KeyboardInterrupt (conftest.py:", marks=pytest.mark.slow
        ),
        pytest.param("once_leave", 1, "Exit (conftest.py:", marks=pytest.mark.slow),
        pytest.param("fail", 1, "Failed (conftest.py:", marks=pytest.mark.slow),
        ("leave", 1, "Exit (conftest.py:"),
    ],
)
def test_a_run_that_is_stopped_keeps_its_rows_and_gives_the_reason(hostile, way, code, words):
    result = hostile(explainers=f"occlusion, {way}", edit=only, alone="interrupt" in way)
    assert result.ret == code
    assert len(honest(hostile)) == 32
    record = the_record(hostile)
    found = cells(record)
    assert found["deletion-insertion[tiny-occlusion-memory]"]["verdict"]["outcome"] == "pass"
    verdict = found[f"deletion-insertion[tiny-{way}-memory]"]["verdict"]
    assert words in verdict["reason"]
    assert verdict["outcome"] in {"invalid", "fail"}
    assert record["run"]["complete"]


@pytest.mark.parametrize(
    ("way", "words"),
    [
        ("kill", "the worker crashed (signal 9, SIGKILL) while measuring this cell"),
        pytest.param(
            "interrupt",
            "the worker was interrupted (KeyboardInterrupt) while measuring this cell",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_worker_that_is_gone_leaves_an_invalid_cell_and_the_rows_of_the_others(
    hostile, way, words
):
    result = hostile(
        "-n", "2", "--dist=load", explainers=f"occlusion, {way}", edit=only, alone=True
    )
    assert result.ret != 0
    found = cells(the_record(hostile))
    assert len(honest(hostile)) == 32
    assert found["deletion-insertion[tiny-occlusion-memory]"]["verdict"]["outcome"] == "pass"
    verdict = found[f"deletion-insertion[tiny-{way}-memory]"]["verdict"]
    assert (verdict["outcome"], verdict["reason"]) == ("invalid", words)


@pytest.mark.parametrize(
    ("code", "n", "outcome"),
    [
        ("def pytest_runtest_setup(item): pytest.skip('not today')", 2, "invalid"),
        pytest.param(
            "def pytest_runtest_setup(item): raise SystemExit(0)",
            2,
            "invalid",
            marks=pytest.mark.slow,
        ),
        (
            "def pytest_collection_modifyitems(items):\n"
            "    items[0].add_marker(pytest.mark.skip(reason='not today'))",
            1,
            "inconclusive",
        ),
    ],
)
def test_a_cell_whose_setup_ends_is_recorded_and_one_that_is_marked_is_not_run(
    world, code, n, outcome
):
    (world.path / "conftest.py").write_text(f"{CONFTEST}\n\n{code}\n")
    result = world()
    record = the_record(world)
    assert record["verdict"]["outcome"] == outcome
    assert len(record["cells"]) == n
    if outcome == "invalid":
        assert result.ret == 1
        for cell in record["cells"]:
            assert "(conftest.py:" in cell["verdict"]["reason"]
    else:
        assert record["run"]["missing"] == ["sanity[tiny-occlusion-memory]"]
