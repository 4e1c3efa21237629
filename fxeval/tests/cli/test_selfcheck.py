"""The command that says which metrics tell maps of known worth apart."""

import pytest
from click.testing import CliRunner

import fxeval.run.self_check
from fxeval.cli import main
from fxeval.tests.planted_ground import small_ground

SUITE = """\
fxeval: 1
suite: own
models: [my_model]
explainers: [my_explainer]
pairs: [my_pairs]
checks:
  - id: removal
    kind: faithfulness.deletion_insertion
    fills: [black, white]
    controls: [random_blobs]
    limits:
      - {metric: deletion_auc, better_than: control.random_blobs, FILL}
"""


@pytest.fixture(autouse=True)
def small_planted_network(monkeypatch):
    monkeypatch.setattr(fxeval.run.self_check, "planted", small_ground)


def run(*args):
    return CliRunner().invoke(main, ["selfcheck", *args], catch_exceptions=False)


@pytest.fixture
def of_suite(tmp_path):
    def of(limit, *args):
        (tmp_path / "own.yaml").write_text(SUITE.replace("FILL", limit))
        return run(str(tmp_path / "own.yaml"), *args)

    return of


def test_a_suite_whose_metrics_are_fit(of_suite):
    result = of_suite("fill: black")
    assert result.exit_code == 0, result.output
    head, values, reliability, end = result.output.splitlines()
    assert head == "tells known maps apart  faithfulness.deletion_insertion deletion_auc (black)"
    assert values.strip().startswith("oracle 0.1")
    assert "40 rows of 40 people" in reliability
    assert end.startswith("1 metrics: 1 tells known maps apart, 0 unfit here, 0 not checked; ")


def test_a_suite_that_rests_on_an_unfit_metric(of_suite):
    result = of_suite("severity: critical")
    assert result.exit_code == 1
    assert "unfit here              faithfulness.deletion_insertion deletion_auc" in result.output
    assert "does not put oracle before blurred oracle" in result.output


def test_two_checks_of_a_kind_are_two_questions(of_suite, tmp_path):
    """The second has one step: with it, no map is better than another."""
    of_suite("fill: black")
    path = tmp_path / "own.yaml"
    head, _, check = path.read_text().partition("checks:\n")
    second = check.replace("removal", "coarse").replace("    fills", "    steps: 1\n    fills")
    path.write_text(f"{head}checks:\n{check}{second}")
    result = run(str(path))
    assert result.exit_code == 1, result.output
    assert "2 metrics: 1 tells known maps apart, 1 unfit here, 0 not checked" in result.output


def test_a_kind_without_known_maps_is_named(of_suite, tmp_path):
    of_suite("fill: black")
    path = tmp_path / "own.yaml"
    more = "  - {id: steady, kind: stability.repetition, "
    more += "limits: [{metric: noise_correlation, at_least: 0.5}]}\n"
    path.write_text(path.read_text() + more)
    result = run(str(path))
    assert result.exit_code == 0, result.output
    assert "no known maps for stability.repetition: how steady a map is" in result.output


def test_a_table_in_markdown(of_suite):
    lines = of_suite("severity: critical", "--markdown").output.splitlines()
    assert len(lines) == 4
    assert {line.count("|") for line in lines} == {11}
    assert [line.split("|")[3:5] for line in lines[2:]] == [
        [" black ", " tells known maps apart "], [" white ", " unfit here "],
    ]  # fmt: skip


def test_a_suite_that_decides_nothing_says_nothing(of_suite):
    result = of_suite("severity: info")
    assert result.exit_code == 2
    assert "no critical limit rests on a metric that could be checked" in result.output


def test_without_a_suite_the_catalogue_is_checked():
    result = run("--kind", "faithfulness.deletion_insertion", "--fill", "black")
    assert result.exit_code == 1, "decisions flip at once in so small a world"
    assert "tells known maps apart  faithfulness.deletion_insertion insertion_auc" in result.output
    assert "unfit here              faithfulness.deletion_insertion" in result.output
    assert "(white)" not in result.output


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["fxeval:certification-level-9"], "expected one of fxeval:"),
        (["absent.yaml"], "absent.yaml"),
        (["--kind", "faithfulness.deletion"], "no kind 'faithfulness.deletion'"),
        (["--kind", "sanity.two_sided"], "no kind 'sanity.two_sided'"),
        (["--fill", "wite"], "no fill 'wite'"),
        (["--nonsense"], "--nonsense"),
        (["fxeval:quickstart", "--fill", "black"], "--kind and --fill go without SUITE"),
        ([""], "cannot be read"),
        (["one", "two"], "unexpected extra argument"),
    ],
)
def test_wrong_usage_has_a_status_of_its_own(args, words):
    result = run(*args)
    assert result.exit_code == 64
    assert words in result.output


def test_what_prevents_the_check_is_said(monkeypatch, of_suite):
    from fxeval.errors import ModelContractError

    def missing():
        raise ModelContractError("mini_patch.safetensors: no such file. Install fxeval again.")

    monkeypatch.setattr(fxeval.run.self_check, "planted", missing)
    result = of_suite("fill: black")
    assert result.exit_code == 2
    assert "CANNOT SAY: mini_patch.safetensors: no such file" in result.output
