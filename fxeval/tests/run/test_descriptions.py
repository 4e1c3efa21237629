"""Whole runs: what explainers need, cost and say, and what models they do not support."""

import pytest
import torch

from fxeval.contracts import ExplainerTraits, ModelTags, ModelTraits
from fxeval.errors import ExplainerContractError
from fxeval.fixtures.models import CARDS
from fxeval.models.black_box import EmbeddingFunction
from fxeval.models.from_card import load_card
from fxeval.records.subjects import ExplainerEntry, ModelEntry
from fxeval.run.descriptions import explainer_entry, model_entry
from fxeval.tests.subjects import ConvNet, CountingModel
from fxeval.tests.world import CONFTEST, rows, the_record


def test_what_a_model_does_not_support_is_skipped_only_if_the_suite_says_so(world):
    result = world(explainers="picky", edit=lambda text: text.replace("tiny]", "tiny, sigmoid]"))
    result.assert_outcomes(passed=2, failed=2)
    reasons = [cell["verdict"] for cell in the_record(world)["cells"]]
    assert [one["outcome"] for one in reasons] == ["pass", "pass", "invalid", "invalid"]
    assert "picky cannot explain sigmoid: it has a sigmoid" in reasons[2]["reason"]

    def skip(text):
        text = text.replace("tiny]", "tiny, sigmoid]")
        return text.replace("seed: 7", "seed: 7, on_unsupported: skip")

    for file in [*world.path.glob("reports/*/*")]:
        file.unlink()
    result = world(explainers="picky", edit=skip)
    result.assert_outcomes(passed=2, skipped=2)
    record = the_record(world)
    assert record["verdict"]["outcome"] == "pass"
    assert record["verdict"]["reason"] == "of 4 cells 2 passed, 2 unsupported"
    result.stdout.fnmatch_lines(["UNSUPPORTED  *sigmoid-picky-memory]: picky cannot explain *"])
    (page,) = world.path.glob("reports/*/small.html")
    assert "Not supported" in page.read_text()

    for file in [*world.path.glob("reports/*/*")]:
        file.unlink()
    result = world(explainers="picky", edit=lambda text: skip(text).replace("[tiny, ", "["))
    assert result.ret == 1  # nothing was measured: that is never green
    assert the_record(world)["verdict"]["outcome"] == "inconclusive"
    result.stdout.fnmatch_lines(["error: check 'sanity' measured nothing*"])


def test_what_an_explainer_refuses_of_all_pairs_is_invalid_and_says_where_to_look(world):
    world(explainers="{use: precomputed, params: {file: none.npz}}")
    sanity, faithful = (cell["verdict"] for cell in the_record(world)["cells"])
    assert (sanity["outcome"], faithful["outcome"]) == ("invalid", "invalid")
    assert "none.npz" in faithful["reason"]
    assert faithful["reason"].endswith("small.yaml:5:14)")
    # No map is asked for where given ones are of no use.
    assert "the maps of precomputed are given" in sanity["reason"]


def test_maps_from_a_file_are_not_judged_by_a_network_they_cannot_follow(world):
    (world.path / "conftest.py").write_text(CONFTEST + SAVED)
    world(explainers="saved")
    sanity, faithful = the_record(world)["cells"]
    assert sanity["verdict"]["outcome"] == "invalid"
    assert "do not change with other pictures and nonmates" in sanity["verdict"]["reason"]
    assert faithful["states"] == {"ok": 32}
    assert len(the_record(world)["subjects"]["explainers"]["saved"]["digest"]) == 64


def test_tags_reach_the_record_from_a_card_and_from_a_model_without_one():
    carded = model_entry(load_card(CARDS / "mini_resnet.yaml"))
    assert carded["tags"] == {"training_data": "synthetic", "family": "convolutional"}
    own = CountingModel(ConvNet())
    untagged = ModelEntry(**model_entry(own))
    assert (untagged.tags.training_data, untagged.tags.family) == (None, None)
    own.traits = ModelTraits(tags=ModelTags(family="transformer"))
    entry = ModelEntry(**model_entry(own))
    assert entry.card is None
    assert (entry.tags.training_data, entry.tags.family) == (None, "transformer")
    box = EmbeddingFunction("box", own.crop, torch.flatten, "cosine", "1", traits=own.traits)
    assert ModelEntry(**model_entry(box)).tags == entry.tags


def test_what_user_code_says_of_itself_fits_into_a_record_or_is_refused():
    class Odd:
        traits = ExplainerTraits(needs={"gradients"}, source="2023", digest="7")

    entry = ExplainerEntry.model_validate(explainer_entry(Odd(), {"layer": "stage4"}))
    assert (entry.source, entry.digest, entry.needs) == ("2023", "7", ["gradients"])
    assert entry.params == {"layer": "stage4"}
    for wrong in ({"source": 2023}, {"digest": 7}):
        with pytest.raises(ExplainerContractError, match=next(iter(wrong))):
            ExplainerTraits(**wrong)


SAVED = """

@pytest.fixture
def explainer_saved(tmp_path):
    from fxeval.explainers.precomputed import PrecomputedMaps, save_maps

    listing = Memory().listing()
    probes = Memory().images(listing.probe, CROP).float() / 255
    save_maps(tmp_path / "maps.npz", probes.mean(1), probes)
    return PrecomputedMaps(str(tmp_path / "maps.npz"))
"""


RANDOMISATION = """\
  - id: randomisation
    kind: sanity.model_randomisation
    limits: [{metric: absolute_rank_correlation_fully_randomised, at_most: 0.4, severity: info}]
"""


def on_the_same_maps(text):
    """Put a check of the pairs themselves first, whose maps the next check has again."""
    head, _, rest = text.partition("  - id: sanity")
    return head + RANDOMISATION + rest[rest.index("  - id: deletion") :]


def test_diagnostics_and_costs_reach_rows_record_and_page(world):
    world(explainers="picky", edit=on_the_same_maps).assert_outcomes(passed=1, skipped=1)
    record = the_record(world)
    diagnostics = {one["name"]: one for one in record["cells"][0]["diagnostics"]}
    diagnostic = diagnostics["negative_activation_share"]
    assert (diagnostic["least"], diagnostic["largest"]) == (0, 1)
    assert diagnostic["mean"] == pytest.approx(0.5)
    first, second = record["cells"]
    made = {one["side"]: one for one in first["explaining"] if one["network"] == "trained"}
    # 16 places, the whole probe and the reference; the gallery comes from memory
    assert made["probe"]["forwards"] == 32 * (16 + 2) + 64
    assert made["probe, again"]["forwards"] == 8 * (16 + 2)
    assert [one["was_shared"] for one in second["explaining"]] == [True, True]
    said = [row["diagnostics"]["probe"]["negative_activation_share"] for row in rows(world)]
    assert (min(said), max(said)) == (0, 1)
    (page,) = world.path.glob("reports/*/small.html")
    text = page.read_text()
    assert "Nobody, nowhere, p. 1" in text
    assert "Cost of explaining" in text
    assert "negative activation share" in text
