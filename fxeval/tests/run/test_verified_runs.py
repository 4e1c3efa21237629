"""Whole runs: models are explained only if they verify as well as their card and the suite say."""

import pytest

from fxeval.tests.rounding import assert_rounded
from fxeval.tests.world import CONFTEST, cells, the_record

MORE = '''

from dataclasses import dataclass, replace
from fxeval.contracts import CardFacts, ModelTraits
from fxeval.redaction import PublicReason
from fxeval.listings import DataCard
from fxeval.models.cards import Claim


class Crowd(Memory):
    """As many nonmated pairs as mated ones."""

    name = "crowd"

    def listing(self):
        ids = [str(i) for i in range(self.n)]
        other = [str((i + 1) % self.n) for i in range(self.n)]
        return PairListing(
            tuple(f"{i}a" for i in ids + ids), tuple(f"{i}b" for i in ids + other),
            (True,) * self.n + (False,) * self.n, tuple(ids + ids), tuple(ids + other),
            set_aside=(PublicReason("wrongly labelled"),) + ("",) * (2 * self.n - 1),
        )

    def card(self):
        return DataCard("c" * 64, 2 * self.n, "made up", True, {PublicReason("no face found"): 3})


@pytest.fixture(scope="session")
def pairs_crowd():
    return Crowd(n=120)


def card(value):
    return CardFacts(
        claims=(Claim(pairs="crowd", metric="verification_accuracy", value=value, within=0.003),
                Claim(pairs="lfw_view2", metric="verification_auc", value=0.99, within=0.003)),
        threshold_set_by="a guess", licence="Apache-2.0",
    )


def carded(value, seed, blur=1.0):
    net = ConvNet(seed)
    with torch.no_grad():
        net.fc.bias.mul_(blur)
    return TorchFaceModel(
        "carded", CROP, net, "cosine", 0.5, "e" * 64, traits=ModelTraits(card=card(value))
    )


@pytest.fixture(scope="session")
def model_honest():
    return carded(0.9, 0)


@pytest.fixture(scope="session")
def model_boaster():
    return carded(0.999, 0)


@pytest.fixture
def explainer_threshold():
    """A map that shows the operating threshold it was given."""
    def show(m, p, r, g):
        maps = torch.arange(256.0).reshape(1, 16, 16).repeat(len(p), 1, 1)
        return SaliencyMaps(maps, diagnostics={"tau": torch.full((len(p),), m.operating_threshold)})
    return Explain(show)
'''

SUITE = """\
fxeval: 1
suite: small
defaults: {seed: 7}
models: [MODELS]
explainers: [threshold]
pairs: [{use: PAIRS, n: 32}]
ASKEDchecks:
  - id: thresholds
    kind: faithfulness.deletion_insertion
    steps: 4
    fills: [mean]
    controls: [random_blobs]
    limits: [{metric: deletion_auc, at_least: -0.99}]
"""


@pytest.fixture
def run(world, pytester):
    pytester.makeconftest(CONFTEST + MORE)

    def start(models="honest", *, pairs="crowd", asked="", checks=""):
        text = SUITE.replace("MODELS", models).replace("PAIRS", pairs).replace("ASKED", asked)
        world.result = world(edit=lambda _: text + checks)
        return the_record(world)

    start.world = world
    return start


def test_a_model_that_keeps_its_word_passes_and_the_record_says_how_well_it_verifies(run):
    record = run()
    assert record["verdict"]["outcome"] == "pass"
    [entry] = record["verification"]
    assert (entry["model"], entry["pairs"], entry["pair_list"]) == ("honest", "crowd", "crowd")
    assert (entry["n_mated"], entry["n_nonmated"], entry["n_identities"]) == (120, 120, 120)
    figures = {one["metric"]: one for one in entry["figures"]}
    accuracy = figures["verification_accuracy"]
    assert 0.9 < accuracy["low"] < accuracy["value"] < accuracy["high"] <= 1
    assert figures["tmr_at_fmr_1e-3"]["value"] is None
    assert "too few nonmated pairs" in figures["tmr_at_fmr_1e-3"]["reason"]
    assert {one["name"] for one in entry["thresholds"]} == {
        "tau_acc", "tau_eer", "tau_fmr_1e-2", "vendor"}  # fmt: skip
    assert [one["verdict"]["outcome"] for one in entry["claims"]] == ["pass", "inconclusive"]
    assert entry["operating_threshold"]["rule"] == "vendor"
    assert entry["forwards"] == 240
    [cell] = record["cells"]
    assert cell["diagnostics"][0]["mean"] == 0.5
    assert cell["forwards"] < 2000
    assert record["subjects"]["models"]["honest"]["card"]["licence"] == "Apache-2.0"
    assert "verification" not in record["subjects"]["models"]["honest"]
    assert record["subjects"]["pairs"]["crowd"]["card"] == {
        "root_digest": "c" * 64, "n_images": 240, "licence": "made up", "may_show": True,
        "failures": {"no face found": 3},
    }  # fmt: skip
    (page,) = run.world.path.glob("reports/*/small.html")
    assert "How well the models verify" in page.read_text()
    assert "<dt>never explained</dt><dd>1 pair: wrongly labelled</dd>" in page.read_text()
    run.world.result.stdout.fnmatch_lines(["verifies *honest on crowd: accuracy 0.9*"])


def test_a_weak_model_that_claims_more_is_invalid_and_no_map_is_made(run):
    record = run("boaster, honest")
    found = {cell["model"]: cell for cell in record["cells"]}
    assert found["honest"]["verdict"]["outcome"] == "pass"
    verdict = found["boaster"]["verdict"]
    assert verdict["outcome"] == "invalid"
    assert (
        "its card claims 0.999 within 0.003 of the population: the whole interval"
        in verdict["reason"]
    )
    assert found["boaster"]["forwards"] == 0
    assert found["boaster"]["estimates"] == []
    assert [entry["model"] for entry in record["verification"]] == ["boaster", "honest"]
    assert run.world.result.ret == 1


def test_a_demand_of_the_suite_makes_a_model_invalid_that_its_card_does_not(run):
    asked = (
        "verification:\n"
        "  limits: [{metric: verification_accuracy, at_least: 0.999}]\n"
        "  models: [honest]\n"
    )
    record = run("honest, tiny", asked=asked)
    found = {cell["model"]: cell["verdict"] for cell in record["cells"]}
    assert found["tiny"]["outcome"] == "pass"
    assert found["honest"]["outcome"] == "invalid"
    assert found["honest"]["reason"].endswith(
        "the suite demands at least 0.999 (suites/small.yaml:8:12)"
    )
    limits = {entry["model"]: entry["limits"] for entry in record["verification"]}
    assert limits["tiny"] == []
    assert limits["honest"][0]["verdict"]["outcome"] == "invalid"


def test_a_list_without_nonmated_pairs_says_so_and_the_floor_is_checked_on_drawn_ones(run):
    record = run(pairs="memory")
    assert record["verdict"]["outcome"] == "pass"
    [entry] = record["verification"]
    assert not entry["measured"]
    assert entry["reason"] == "the list has no nonmated pairs"
    assert entry["figures"] == []
    assert entry["forwards"] == 80
    assert entry["floor"]["verdict"]["outcome"] == "pass"
    assert "the list has no nonmated pairs" in entry["floor"]["verdict"]["reason"]
    assert record["subjects"]["pairs"]["memory"]["card"] is None
    run.world.result.stdout.fnmatch_lines(["verifies *not measured: the list has no nonmated*"])


def test_a_demand_that_cannot_be_checked_is_not_met(run):
    asked = "verification: {limits: [{metric: verification_eer, at_most: 0.5}]}\n"
    [cell] = run(pairs="memory", asked=asked)["cells"]
    assert cell["verdict"]["outcome"] == "invalid"
    assert "the list has no nonmated pairs; the suite demands" in cell["verdict"]["reason"]


def test_explainers_and_metrics_see_the_threshold_that_was_measured(run):
    record = run(asked="verification: {operating_threshold: tau_eer}\n")
    [entry] = record["verification"]
    [known] = [one for one in entry["thresholds"] if one["name"] == "tau_eer"]
    assert entry["operating_threshold"]["value"] == known["value"] != 0.5
    assert entry["operating_threshold"]["rule"] == "tau_eer"
    [cell] = cells(record).values()
    # Shown in float32.
    assert_rounded(cell["diagnostics"][0]["mean"], known["value"], terms=1)


FILES = """

import gc
import weakref

ALIVE = []


@dataclass(frozen=True)
class File:
    seed: int

    def load(self):
        gc.collect()
        assert not any(network() is not None for network in ALIVE)
        net = ConvNet(self.seed)
        ALIVE.append(weakref.ref(net))
        return TorchFaceModel("read", CROP, net, "cosine", 0.5, str(self.seed) * 64)


@pytest.fixture(scope="session")
def model_one():
    return File(1)


@pytest.fixture(scope="session")
def model_two():
    return File(2)
"""


def test_a_model_read_from_a_file_is_gone_before_the_next_is_read_even_if_it_failed(run, pytester):
    pytester.makeconftest(CONFTEST + MORE + FILES)
    redrawn = (
        "  - id: sanity\n"
        "    kind: sanity.two_sided\n"
        "    redraws: 1\n"
        "    limits: [{metric: repeat, at_least: 1}]\n"
    )
    record = run("one, two", checks=redrawn)
    assert [cell["model"] for cell in record["cells"]] == ["one"] * 2 + ["two"] * 2
    assert [cell["verdict"]["outcome"] for cell in record["cells"]] == ["pass", "fail"] * 2


THRESHOLDS = """

from dataclasses import dataclass as _dataclass
from fxeval import EmbeddingFunction


@pytest.fixture(scope="session")
def model_percent():
    return TorchFaceModel("percent", CROP, ConvNet(), "cosine", 60.0, "a" * 64)


@pytest.fixture(scope="session")
def model_distance():
    return EmbeddingFunction(
        "distance", CROP, ConvNet(), "neg_l2", version="1", operating_threshold=1.1
    )


@pytest.fixture(scope="session")
def model_strict():
    return TorchFaceModel("strict", CROP, ConvNet(), "cosine", 0.9999999, "b" * 64)


@pytest.fixture(scope="session")
def model_guessing():
    def embed(images):
        seeds = [int(image.double().sum() * 1e4) % 2**32 for image in images]
        return np.stack([np.random.default_rng(s).normal(0, 1, 8) for s in seeds])
    return EmbeddingFunction(
        "guessing", CROP, embed, "cosine", version="1", operating_threshold=0.3
    )
"""


def test_a_threshold_of_another_scale_is_refused_when_the_model_is_admitted(run, pytester):
    pytester.makeconftest(CONFTEST + MORE + THRESHOLDS)
    run("percent, distance, tiny")
    assert run.world.result.ret == 1
    reasons = {cell["model"]: cell["verdict"] for cell in the_record(run.world)["cells"]}
    assert reasons["tiny"]["outcome"] == "pass"
    for name, words in {
        "percent": "expected -1 to 1 for cosine, got 60: for a similarity in percent write 0.6.",
        "distance": "expected 0 or less (minus a distance) for neg_l2, got 1.1: write -1.1.",
    }.items():
        assert reasons[name]["outcome"] == "invalid"
        assert reasons[name]["reason"].endswith(f"from which it says match: {words}")


DECISIONS = """\
  - id: decisions
    kind: faithfulness.deletion_insertion
    steps: 4
    fills: [mean]
    controls: [random_blobs]
    limits: [{metric: deletion_fraction_to_nonmatch, at_most: 0.9}]
    explainers: [occlusion]
"""


def test_a_threshold_that_decides_nothing_makes_limits_on_decisions_invalid_and_no_others(
    run, pytester
):
    pytester.makeconftest(CONFTEST + MORE + THRESHOLDS)
    found = {cell["check"]: cell for cell in run("strict", checks=DECISIONS)["cells"]}
    assert found["thresholds"]["verdict"]["outcome"] == "pass"
    verdict = found["decisions"]["verdict"]
    assert verdict["outcome"] == "invalid"
    said = "the operating threshold 1 rejects nearly every mated pair of this list: FNMR 1.0000"
    assert "no row has a value" in verdict["reason"]
    assert said in verdict["reason"]
    assert any(note.startswith(said) for note in found["decisions"]["notes"])


@pytest.mark.parametrize("pairs", ["crowd", "memory"])
def test_a_model_that_guesses_is_invalid_and_no_explainer_is_blamed(run, pytester, pairs):
    pytester.makeconftest(CONFTEST + MORE + THRESHOLDS)
    [cell] = run("guessing", pairs=pairs)["cells"]
    assert cell["verdict"]["outcome"] == "invalid"
    assert "it does not tell mated from nonmated pairs" in cell["verdict"]["reason"]
    assert cell["forwards"] == 0


def test_a_suite_may_switch_the_floor_off_and_its_cells_and_its_page_say_so(run, pytester):
    pytester.makeconftest(CONFTEST + MORE + THRESHOLDS)
    [cell] = run("guessing", asked="verification: {floor: none}\n")["cells"]
    assert cell["verdict"]["outcome"] == "pass"
    assert any("switched off by the suite" in note for note in cell["notes"])
    (page,) = run.world.path.glob("reports/*/small.html")
    assert "switched off by the suite (verification: {floor: none})" in page.read_text()
