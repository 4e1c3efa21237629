"""Whole runs: a suite file in, verdicts, record and scorecard out."""

import json
import shutil
import subprocess
import sys
from collections import Counter

import pytest

from fxeval.tests.world import CONFTEST, SUITE, cells, rows, the_record


def test_a_suite_runs_to_a_record_a_scorecard_and_a_table(world):
    result = world()
    result.assert_outcomes(passed=2)
    assert result.ret == 0
    record = the_record(world)
    assert record["verdict"]["outcome"] == "pass"
    assert record["run"]["complete"]
    assert record["banners"] == ["Made up: says nothing about anybody."]
    found = cells(record)["deletion-insertion[tiny-occlusion-memory]"]
    assert found["n_pairs"] == found["n_identities"] == 32
    assert {one["map"] for one in found["estimates"]} == {
        "explainer", "control.random_blobs", "control.random_pixels"}  # fmt: skip
    assert len(rows(world)) == 64
    (page,) = world.path.glob("reports/*/small.html")
    assert "Made up: says nothing about anybody." in page.read_text()
    result.stdout.fnmatch_lines(["*fxeval: small*", "*wrote reports/*small.html"])


def test_node_ids_name_the_cell_and_select_it(world):
    result = world("--collect-only", "-q")
    result.stdout.fnmatch_lines(["suites/small.yaml::sanity?tiny-occlusion-memory?"])
    result = world("-k", "sanity")
    result.assert_outcomes(passed=1, deselected=1)
    record = the_record(world)
    assert record["verdict"]["outcome"] == "inconclusive"
    assert "1 not run" in record["verdict"]["reason"]
    assert not record["run"]["complete"]


@pytest.mark.parametrize(
    ("explainer", "check", "reason"),
    [
        ("constant", "deletion-insertion", "degenerate (constant)"),
        ("noise", "sanity", "change (part positive)"),
        ("centre", "sanity", "repeat_picture (part positive)"),
        ("nan", "deletion-insertion", "nan_map"),
        ("shape", "deletion-insertion", "got (1, 7, 7). Upsample"),
        ("raises", "sanity", "RuntimeError (conftest.py:"),
        ("vandal", "deletion-insertion", "its weights or buffers were changed"),
    ],
)
def test_an_explainer_that_says_nothing_fails_and_the_record_says_why(
    world, explainer, check, reason
):
    result = world(explainers=explainer)
    assert result.ret == 1
    record = the_record(world)
    cell = cells(record)[f"{check}[tiny-{explainer}-memory]"]
    assert cell["verdict"]["outcome"] == "fail"
    assert reason in cell["verdict"]["reason"]
    assert "/home" not in json.dumps(record)
    assert record["verdict"]["outcome"] == "fail"


def test_a_vandal_leaves_the_next_explainer_a_whole_model(world):
    alone = world(explainers="occlusion")
    assert alone.ret == 0
    before = {row["cell"]: row for row in rows(world)}
    for path in world.path.glob("reports/*"):
        for file in path.iterdir():
            file.unlink()
        path.rmdir()
    world(explainers="vandal, occlusion")
    after = {row["cell"]: row for row in rows(world)}
    assert {cell: after[cell] for cell in before} == before


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (("models: [tiny]", "models: [absent, tiny]"), "weights.safetensors: not there"),
        (("models: [tiny]", "models: [nan, tiny]"), "NaN"),
        (("models: [tiny]", "models: [bug, tiny]"), "KeyError (conftest.py:"),
        (("pairs: [{use: memory, n: 32}]", "pairs: [broken, memory]"), "data cannot be used"),
        (("pairs: [{use: memory, n: 32}]", "pairs: [{use: memory, n: 99, as: many}, memory]"),
         "expected at least 99 mated pairs, the list holds 40. Lower n (suites/small.yaml:6:26)"),
    ],
)  # fmt: skip
def test_what_cannot_be_measured_is_invalid_and_the_rest_goes_on(world, line, words):
    result = world(edit=lambda text: text.replace(*line))
    result.assert_outcomes(passed=2, failed=2)
    record = the_record(world)
    outcomes = [cell["verdict"]["outcome"] for cell in record["cells"]]
    assert sorted(outcomes) == ["invalid", "invalid", "pass", "pass"]
    assert record["verdict"]["outcome"] == "invalid"
    reasons = [c["verdict"]["reason"] for c in record["cells"]]
    assert sum(words in reason for reason in reasons) == 2


def test_what_a_record_says_of_an_error_names_no_place_of_the_machine_and_nobody(world):
    named = f"{{use: csv, params: {{root: '{world.path}', file: Ann_Other.csv}}}}"
    gone = f"{{use: card, params: {{file: '{world.path}/own.yaml'}}, as: a}}"
    (world.path / "own.yaml").write_text(OWN_CARD)
    (world.path / "Ann_Other.csv").write_text("img1,img2,label,id1,id2\nAnn/1.jpg,,1,Ann,Ann\n")
    result = world(
        explainers="occlusion",
        edit=lambda text: text.replace(
            "pairs: [{use: memory, n: 32}]", f"pairs: [{named}, broken]"
        ).replace("models: [tiny]", f"models: [{gone}, tiny]"),
    )
    result.stdout.fnmatch_lines(
        ["*/gone.safetensors: the weights *", "*:2: *'Ann/1.jpg,,1,Ann,Ann'*"]
    )
    [page], [file] = world.path.glob("reports/*/*.html"), world.path.glob("reports/*/*.json")
    for text in (page.read_text(), file.read_text()):
        assert "gone.safetensors: the weights cannot be read" in text
        assert "Ann_Other.csv:2" in text
        assert str(world.path) not in text
        assert "Ann/1" not in text


def test_a_suite_outside_of_the_current_folder_is_recorded_by_its_name(
    world, pytester, monkeypatch
):
    world("--co")
    monkeypatch.chdir(pytester.mkdir("inner"))
    pytester.runpytest_inprocess("../suites/small.yaml", "--fx-threads=1")
    (path,) = world.path.glob("inner/reports/*/small.json")
    assert json.loads(path.read_text())["suite"]["path"] == "small.yaml"


OWN_CARD = f"""\
card: 1
name: own
weights: gone.safetensors
sha256: {64 * "a"}
architecture: iresnet18
"""


def test_a_faulty_card_is_an_error_of_collection_with_its_place(world):
    models = "models: [{use: card, params: {file: ../own.yaml}, as: acme}]"
    (world.path / "own.yaml").write_text(OWN_CARD.replace("iresnet18", "iresnet19"))
    result = world(edit=lambda text: text.replace("models: [tiny]", models))
    assert result.ret == 2
    result.stdout.fnmatch_lines(["*small.yaml:4:*model 'acme': *own.yaml:5:15: error: *iresnet19*"])
    (world.path / "own.yaml").unlink()
    result = world(edit=lambda text: text.replace("models: [tiny]", models))
    assert result.ret == 2
    result.stdout.fnmatch_lines(["*small.yaml:4:*own.yaml:1:1: error: *cannot be read*"])


def test_few_identities_are_inconclusive_and_warn_only_if_asked(world):
    result = world(edit=lambda text: text.replace("n: 32", "n: 20"))
    assert result.ret == 1
    assert the_record(world)["verdict"]["outcome"] == "inconclusive"

    def warn(text):
        return text.replace("n: 32", "n: 20").replace("seed: 7", "seed: 7, on_inconclusive: warn")

    result = world("-W", "default", edit=warn)
    assert result.ret == 0
    result.assert_outcomes(passed=2)
    # pytest and its plugins may have warnings of their own
    ours = [line for line in result.outlines if "PytestWarning" in line and "inconclusive" in line]
    assert len(ours) == 2


def comparable(rows):
    return json.dumps(rows, sort_keys=True)


def test_the_same_suite_twice_and_in_two_processes_gives_the_same_rows(world):
    found = []
    for args in ((), (), ("-n", "2")):
        world(*args, explainers="occlusion, noise", alone=True)
        found.append(comparable(rows(world)))
        record = the_record(world)
        assert len(record["cells"]) == 4
        for file in [*world.path.glob("reports/*/*")]:
            file.unlink()
        for folder in world.path.glob("reports/*"):
            folder.rmdir()
    assert found[0] == found[1] == found[2]


def test_a_faulty_suite_is_an_error_at_collection_with_its_place(world):
    result = world(edit=lambda text: text.replace("steps: 8", "stps: 8"))
    assert result.ret == 2
    result.stdout.fnmatch_lines(
        ["*suites/small.yaml:17:5: error: *stps*", "*did you mean 'steps'*"]
    )
    assert not (world.path / "reports").exists()


def test_a_misspelt_first_key_does_not_skip_a_named_file(world):
    result = world(edit=lambda text: text.replace("fxeval: 1", "fxevl: 1"))
    assert result.ret == 2
    result.stdout.fnmatch_lines(["*a suite starts with 'fxeval: 1'*"])


def test_a_file_without_its_first_key_is_not_skipped_in_silence(pytester):
    (pytester.path / "suites").mkdir()
    (pytester.path / "suites" / "small.yaml").write_text(SUITE.replace("fxeval: 1\n", ""))
    result = pytester.runpytest_inprocess("suites")
    assert result.ret == 5
    result.stdout.fnmatch_lines(
        ["not collected: suites?small.yaml has the keys of a suite; *starts with 'fxeval: 1'"]
    )


EXTENDED = """\
fxeval: 1
suite: small
extends: fxeval:quickstart
models: [tiny]
explainers: [layercam, {use: gradcam, as: rollout}]
pairs: [{use: memory, n: 4}]
"""


def test_a_shipped_suite_runs_on_the_subjects_of_a_conftest_alike_in_a_worker(pytester):
    pytester.makeconftest(CONFTEST)
    (pytester.path / "suites").mkdir()
    (pytester.path / "suites" / "small.yaml").write_text(EXTENDED)
    found = []
    for run, processes in (
        (pytester.runpytest_inprocess, ()),
        (pytester.runpytest_subprocess, ("-n", "1")),
    ):
        run("--fx-threads=1", *processes).stdout.no_fnmatch_line("*INTERNALERROR*")
        record = the_record(pytester)
        assert set(cells(record)) == {
            *(f"sanity[tiny-{name}-memory]" for name in ("layercam", "rollout")),
            *(f"deletion-insertion[tiny-{name}-memory]" for name in ("layercam", "rollout")),
            "sanity-of-rollout[tiny-rollout-memory]",
        }
        for cell in record["cells"]:
            decided = {"pass", "fail", "inconclusive"}
            expected = {"information"} if cell["check"] == "sanity-of-rollout" else decided
            assert cell["verdict"]["outcome"] in expected, cell["verdict"]
            assert cell["states"] == {"ok": 4}
            assert cell["where"].startswith("fxeval:quickstart:")
        assert (record["suite"]["name"], record["suite"]["title"]) == ("small", "small")
        found.append(rows(pytester))
        shutil.rmtree(pytester.path / "reports")
    assert found[0] == found[1]


def test_a_failed_test_of_an_extended_suite_points_at_the_line_that_asks_for_it(pytester):
    pytester.makeconftest(CONFTEST)
    (pytester.path / "mine.yaml").write_text(EXTENDED.replace("n: 4", "n: 99"))
    result = pytester.runpytest_inprocess(
        "mine.yaml", "--fx-threads=1", "-k", "deletion and rollout"
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["invalid: *Lower n (mine.yaml:6:26)*", "fxeval:quickstart:*:5"])
    items, _ = pytester.inline_genitems("mine.yaml")
    assert {item.reportinfo()[:2] for item in items} == {(pytester.path / "mine.yaml", 2)}


def test_an_extended_suite_without_its_first_key_is_not_skipped_in_silence(pytester):
    (pytester.path / "suites").mkdir()
    (pytester.path / "suites" / "small.yaml").write_text(EXTENDED.replace("fxeval: 1\n", ""))
    result = pytester.runpytest_inprocess()
    result.stdout.fnmatch_lines(["not collected: suites?small.yaml has the keys of a suite; *"])


FOREIGN = {
    "compose": "services: {web: {image: nginx}}\n",
    "api": "checks:\n  - {url: /health, status: 200}\n",
    "deploy": "suite: staging\nchecks: [ping]\nmodels: [db]\n",
    "nested": "tool:\n  fxeval: 1\n",
    "text": "about: |\n  fxeval: 1 is the first line of a suite\n",
    "empty": "",
    "listed": "- checks\n- suite\n",
    "broken": "checks: [\n",
}


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_yaml_never_breaks_a_test_run(pytester, name):
    (pytester.path / "suites").mkdir()
    (pytester.path / "suites" / f"{name}.yaml").write_text(FOREIGN[name])
    pytester.makepyfile("def test_one(): pass")
    result = pytester.runpytest_inprocess()
    result.assert_outcomes(passed=1)
    assert result.ret == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "*mine.yaml:1:1: error: the file is empty; a suite starts with 'fxeval: 1'"),
        ("# to be written\n", "*mine.yaml:1:1: error: the file is empty; a suite starts with*"),
        (
            "- fxeval: 1\n",
            "*mine.yaml:1:1: error: expected a suite, a mapping that *, got a list",
        ),
        ("[]\n", "*mine.yaml:1:1: error: expected a suite, a mapping *, got an empty list"),
        ("suite: a\n", "*mine.yaml:1:1: error: a suite starts with 'fxeval: 1'"),
        ("{}\n", "*mine.yaml:1:1: error: *"),
    ],
)
def test_a_named_file_that_is_no_suite_gets_a_message(pytester, text, message):
    (pytester.path / "mine.yaml").write_text(text)
    result = pytester.runpytest_inprocess("mine.yaml")
    assert result.ret == 2
    result.stdout.fnmatch_lines([message])
    assert "Traceback" not in result.stdout.str()


def test_a_shipped_suite_runs_by_its_name_from_anywhere(pytester):
    result = pytester.runpytest_subprocess("fxeval:quickstart", "--collect-only", "-q")
    assert result.ret == 0
    cells = [line for line in result.outlines if "::" in line]
    assert len(cells) == 3
    one = cells[0].partition("::")[2]
    result = pytester.runpytest_subprocess(f"fxeval:quickstart::{one}", "--collect-only", "-q")
    assert [line.partition("::")[2] for line in result.outlines if "::" in line] == [one]


def test_a_shipped_suite_that_does_not_exist_is_named(pytester):
    result = pytester.runpytest_subprocess("fxeval:quikstart")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*fxeval:quikstart: expected one of *did you mean 'quickstart'?*"])


@pytest.mark.parametrize("processes", [(), ("-n", "2")])
def test_a_reports_folder_that_takes_no_files_is_found_before_the_first_cell(world, processes):
    (world.path / "taken").write_text("a file")
    result = world("--fx-reports", "taken/here", *processes, alone=True)
    assert result.ret != 0
    result.assert_outcomes(errors=1)
    text = result.stdout.str()
    assert "taken: no file can be made there: Not a directory. Name another folder with" in text
    assert "Traceback" not in text


def test_a_device_that_is_not_there_is_a_fault_at_its_key(world):
    result = world(edit=lambda text: text.replace("seed: 7", "seed: 7, device: 'cuda:99'"))
    assert result.ret == 2
    result.stdout.fnmatch_lines(["*small.yaml:*: error: 'device': expected a device of this *"])


def test_an_unrelated_project_hears_nothing_of_fxeval_and_loads_no_torch(pytester):
    pytester.makepyfile(
        """
        import sys

        def test_nothing_heavy_was_imported():
            assert "fxeval.plugin" in sys.modules
            for name in ("torch", "cv2", "pydantic", "yaml", "jinja2"):
                assert name not in sys.modules, name
        """
    )
    result = pytester.runpytest_subprocess("-q", "-W", "error")
    result.assert_outcomes(passed=1)
    assert "fxeval" not in result.stdout.str()
    assert not (pytester.path / "reports").exists()


def test_importing_the_plugin_imports_no_torch():
    code = "import fxeval.plugin, sys; assert not {'torch', 'cv2', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_parameters_reach_a_conftests_dataclass_and_wrong_ones_are_named(world):
    conftest = world.path / "conftest.py"
    conftest.write_text(
        CONFTEST
        + """

from dataclasses import dataclass

@dataclass(frozen=True)
class Power:
    exponent: float = 1.0

    def explain(self, model, probes, references, *, contrast=None, generator):
        return occlusion(model, probes, references, generator).clamp(min=0) ** self.exponent

@pytest.fixture
def explainer_power():
    return Power()
"""
    )
    result = world(explainers="{use: power, params: {exponent: 2.0}}")
    assert the_record(world)["subjects"]["explainers"]["power"]["params"] == {"exponent": 2.0}
    result = world(explainers="{use: power, params: {expnent: 2.0}}")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*suites/small.yaml:5:*no parameter 'expnent'*exponent*"])
    result = world(explainers="{use: occlusion, params: {side: 2}}")
    result.stdout.fnmatch_lines(["*takes no parameters*"])


def test_a_killed_run_keeps_the_rows_it_had(world):
    conftest = world.path / "conftest.py"
    conftest.write_text(
        CONFTEST
        + """

@pytest.fixture
def explainer_killer():
    def kill(m, p, r, g):
        import os, signal
        os.kill(os.getpid(), signal.SIGKILL)
    return Explain(kill)
"""
    )
    world(explainers="occlusion, killer", alone=True)
    assert rows(world)
    assert all(row["cell"] == "sanity[tiny-occlusion-memory]" for row in rows(world))


EXCUSES = """

@pytest.fixture
def explainer_skips():
    pytest.skip("no licence here")


@pytest.fixture
def explainer_xfails():
    pytest.xfail("later")


@pytest.fixture
def explainer_imports():
    pytest.importorskip("a_library_that_is_not_there")


@pytest.fixture
def explainer_exits():
    raise SystemExit(0)
"""


@pytest.mark.parametrize("explainer", ["skips", "xfails", "imports", "exits"])
def test_a_cell_that_excuses_itself_is_invalid_and_never_green(world, explainer):
    (world.path / "conftest.py").write_text(CONFTEST + EXCUSES)
    result = world(explainers=explainer)
    assert result.ret == 1
    result.assert_outcomes(failed=2)
    assert {c["verdict"]["outcome"] for c in the_record(world)["cells"]} == {"invalid"}


def test_two_suites_that_call_two_explainers_alike_do_not_share_their_maps(world):
    world(explainers="{use: occlusion, as: cam}")
    expected = cells(the_record(world))["deletion-insertion[tiny-cam-memory]"]["estimates"]
    text = SUITE.replace("EXPLAINERS", "{use: noise, as: cam}").replace("small", "first")
    (world.path / "suites" / "another.yaml").write_text(text)
    for folder in world.path.glob("reports/*"):
        shutil.rmtree(folder)
    world("suites/another.yaml", explainers="{use: occlusion, as: cam}")
    found = cells(the_record(world))["deletion-insertion[tiny-cam-memory]"]["estimates"]
    assert found == expected


SIDED = '''

class Sided:
    """Good maps, but broken ones where the network or the image is another."""

    def __init__(self, wrong):
        self.wrong = wrong

    def explain(self, model, probes, references, *, contrast=None, generator):
        maps = occlusion(model, probes, references, generator)
        for row in range(len(probes)):
            if self.wrong(model, probes[row], references[row]):
                maps[row] = torch.nan
        return maps


@pytest.fixture
def explainer_redrawn():
    return Sided(lambda m, p, r: m.digest != "a" * 64 and float(p.mean()) > 0.5)


@pytest.fixture
def explainer_reference():
    return Sided(lambda m, p, r: float(p.mean()) > float(r.mean()))
'''


@pytest.mark.parametrize(
    ("explainer", "check", "edit"),
    [
        ("redrawn", "sanity", ("", "")),
        ("reference", "deletion-insertion", ("steps: 8", "steps: 8\n    side: both")),
    ],
)
def test_broken_maps_count_on_either_side_and_under_the_redrawn_network(
    world, explainer, check, edit
):
    (world.path / "conftest.py").write_text(CONFTEST + SIDED)
    world(explainers=explainer, edit=lambda text: text.replace(*edit) if edit[0] else text)
    cell = cells(the_record(world))[f"{check}[tiny-{explainer}-memory]"]
    assert cell["verdict"]["outcome"] == "fail"
    assert "NaN" in cell["verdict"]["reason"]
    assert cell["states"]["nan_map"] > 1


def test_a_failing_teardown_makes_the_cell_invalid(world):
    conftest = (
        CONFTEST
        + """

@pytest.fixture
def explainer_torn():
    yield Explain(occlusion)
    raise RuntimeError("the lid fell off")
"""
    )
    (world.path / "conftest.py").write_text(conftest)
    result = world(explainers="torn")
    assert result.ret == 1
    for cell in the_record(world)["cells"]:
        assert cell["verdict"]["outcome"] == "invalid"
        assert "teardown failed: RuntimeError (conftest.py:" in cell["verdict"]["reason"]


def test_without_a_terminal_the_run_still_goes_through(world):
    assert world("-p", "no:terminal", alone=True).ret == 0
    assert the_record(world)["verdict"]["outcome"] == "pass"


def test_the_recorded_command_is_the_users_without_machine_paths(world):
    world("-n", "2", f"--rootdir={world.path}", alone=True)
    command = the_record(world)["run"]["command"]
    assert command.startswith("pytest ")
    assert " suites/small.yaml --fx-threads=1 -n 2 --rootdir=" in command
    assert str(world.path) not in command


def test_yaml_of_others_is_left_alone_even_when_named(pytester):
    pytester.makefile(".yaml", other="stages: [one]\n")
    result = pytester.runpytest_subprocess("other.yaml")
    assert "fxeval" not in "".join(line for line in result.outlines if "plugins:" not in line)


def test_an_interrupted_run_says_where_its_rows_are(world):
    conftest = world.path / "conftest.py"
    conftest.write_text(
        CONFTEST
        + """
def pytest_runtest_logreport(report):
    if report.when == "call":
        raise KeyboardInterrupt
"""
    )
    result = world(alone=True)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(["rows measured so far: reports/*/rows.jsonl"])
    assert len(rows(world)) == 32


AGAIN = """
from _pytest.runner import runtestprotocol

def pytest_runtest_protocol(item, nextitem):  # as plug-ins do that run failed tests again
    for _ in range(3):
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
        for report in reports:
            item.ihook.pytest_runtest_logreport(report=report)
    return True
"""


def test_a_cell_that_is_run_again_says_so_and_its_rows_are_told_apart(world):
    (world.path / "conftest.py").write_text(CONFTEST + AGAIN)
    world("-k", "sanity", explainers="constant", alone=True)
    found = rows(world)
    assert Counter(one["attempt"] for one in found) == {1: 32, 2: 32, 3: 32}
    record = the_record(world)
    (cell,) = record["cells"]
    assert (cell["attempt"], cell["earlier"]) == (3, ["fail", "fail"])
    (folder,) = world.path.glob("reports/*")
    done = subprocess.run(
        [sys.executable, "-m", "fxeval", "report", str(folder)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    page = (folder / "small.html").read_text()
    assert "Run 3 times, of which the last counts; before: fail, fail." in page


TWICE = """

@pytest.fixture(autouse=True, params=[1, 2])
def twice(request):
    return request.param
"""


def test_what_makes_two_tests_of_a_cell_is_an_error_that_says_so(world):
    (world.path / "conftest.py").write_text(CONFTEST + TWICE)
    result = world("-k", "sanity")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        ["suites/small.yaml: expected one test a cell, got 4 tests*sanity[[]1-tiny*autouse*"]
    )


def test_suites_of_one_title_are_told_apart_on_the_terminal(world):
    shutil.copytree(world.path / "suites", world.path / "more")
    text = SUITE.replace("EXPLAINERS", "occlusion")
    (world.path / "more" / "small.yaml").write_text(text)
    result = world("more/small.yaml", "-k", "sanity")
    result.stdout.fnmatch_lines(
        ["*fxeval: small (suites/small.yaml)*", "*fxeval: small (more/small.yaml)*"]
    )


def test_the_table_names_the_state_of_maps_that_cannot_be_judged(world):
    result = world("-k", "deletion", explainers="nan")
    result.stdout.fnmatch_lines(["FAIL*32 nan map*"])
    assert "see below" not in result.stdout.str()


GAMER = """

@pytest.fixture
def explainer_gamer(model_tiny):
    trained = float(model_tiny.module.conv1.weight.sum())

    def map_of(model, probes, references, generator):
        is_trained = abs(float(model.module.conv1.weight.sum()) - trained) < 1e-6
        if not is_trained:  # any map that differs will do
            return torch.from_numpy(generator.random(tuple(probes[:, 0].shape)))
        line = torch.exp(-((torch.arange(probes.shape[-1]) - (probes.shape[-1] - 1) / 2) ** 2) / 32)
        return (line[:, None] * line).expand(len(probes), -1, -1).clone()

    return Explain(map_of)
"""


def test_an_explainer_that_games_randomisation_with_one_map_fails_and_is_named(world):
    (world.path / "conftest.py").write_text(CONFTEST + GAMER)
    result = world("-k", "sanity", explainers="gamer, occlusion", alone=True)
    gamer, honest = the_record(world)["cells"]
    assert gamer["verdict"]["outcome"] == "fail"
    # The maps of random networks are others indeed; nothing of one map for all is of a face.
    assert "repeat_picture (part positive): 0 [0, 0]" in gamer["verdict"]["reason"]
    assert "change" not in gamer["verdict"]["reason"]
    words = "32 of 32 people have the same saliency map"
    assert gamer["same_map"].startswith(words)
    assert honest["same_map"] == ""
    result.stdout.fnmatch_lines([f"warning*tiny-gamer-memory?: {words}*"])
    (page,) = world.path.glob("reports/*/small.html")
    assert page.read_text().count(f'role="note">{words}') == 1


@pytest.mark.parametrize("server", ["", "true"], ids=["at a desk", "on a CI server"])
def test_a_list_that_does_not_fit_its_folder_is_told_once_and_so_is_what_is_left_out(
    world, monkeypatch, server
):
    from fxeval.tests.face_folders import write_images

    monkeypatch.delenv("BUILD_NUMBER", raising=False)
    monkeypatch.setenv("CI", server)  # there pytest's summary quotes messages without a cut
    write_images(world.path, [f"P{i}/{n}.png" for i in range(32) for n in (1, 2)])
    lines = [f"P{i}/1.png P{i}/2.png 1\n" for i in range(40)]
    (world.path / "list.txt").write_text("".join(lines))

    def use(on_missing):
        given = f"root: '{world.path}', file: list.txt, aligned_to: arcface112"
        pairs = f"use: arcface_pairs, params: {{{given}, on_missing: {on_missing}}}, n: 32"
        return lambda text: text.replace("use: memory, n: 32", pairs)

    output = world(edit=use("error")).stdout.str()
    assert output.count("list.txt:33: the image 'P32/1.png'") == 1
    first_line = "8 of 40 pairs have a missing image: 16 images are not in"
    assert output.count(first_line) == (2 if server else 1)  # the summary quotes it
    assert "(the whole message is in the output of the first such cell)" in output
    output = world("-k", "deletion", edit=use("exclude")).stdout.str()
    told = "pairs 'arcface_pairs': 8 of 40 are left out (an image is not in the folder: 8)"
    assert output.count(told) == 1
