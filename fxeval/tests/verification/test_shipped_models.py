"""Shipped models verify as their cards say, and a network that is fed wrongly does not."""

import json
from pathlib import Path

import pytest

from fxeval.datasets.lists.face_pack import FacePack
from fxeval.datasets.lists.lfw import LfwPairs
from fxeval.engine.forward_pool import ForwardPool
from fxeval.models.cards import read_card
from fxeval.models.from_card import load_card
from fxeval.suite.preflight import shipped_card
from fxeval.verification.claims import entry_of
from fxeval.verification.demands import Verification
from fxeval.verification.measured import ThresholdModel, measure_list


class Darkened(ThresholdModel):
    """The usual mistake: pixels in 0..1 that the network takes for 0..255."""

    def embed(self, images):
        return self.model.embed(images / 255)


def objections(model, source, *names):
    measured = measure_list(model, source, ForwardPool(batch_size=16))
    return entry_of(measured, model, (source.name, *names), Verification())["objections"]


def test_the_bundled_network_keeps_its_word_and_fed_wrongly_it_does_not():
    model = load_card(shipped_card("mini_resnet"))
    rendered = FacePack(shipped_card("mini_resnet").parents[1] / "rendered_faces")
    assert objections(model, rendered, "rendered") == []
    darkened = objections(Darkened(model, model.operating_threshold), rendered, "rendered")
    assert "verification accuracy 0.5" in darkened[0] or "accuracy 0.6" in darkened[0]
    assert "the whole interval lies below" in darkened[0]
    assert len(darkened) == 2


IDS = [
    "dlib_resnet", "edgeface_xs", "edgeface_xxs", "mobilefacenet_ms1m", "mobilenetv2_se_ov0095",
    "mobileface_v2", "mobileface_v3", "mobilenetv1_hse_vggface2",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", IDS)
def test_a_published_network_has_its_published_figures_on_lfw(data_root: Path, name: str):
    """The data's own manifest holds them; its AUC and rates follow the same rules."""
    model = loaded(name, data_root)
    source = LfwPairs(data_root, errata_file=Path("pairs/lfw_errata.txt"))
    found = measure_list(model, source, ForwardPool(batch_size=16)).verified
    manifest = json.loads((data_root / "weights" / "manifest.json").read_text("utf-8"))
    [known] = [one["measured"] for one in manifest["models"] if one["name"] == name]
    figures = {name: figure.value for name, figure in found.figures.items()}
    published = known["lfw_folds_1_5_shared"]
    # The published figures of dlib's network are of the cosine, which it is not meant for.
    same = model.similarity == "cosine"
    within = 1e-5 if same else 1e-3
    assert figures["verification_auc"] == pytest.approx(published["auc"], abs=within)
    tmr = pytest.approx(published["tar_at_far_1e-3"], abs=1e-4 if same else 3e-3)
    assert figures["tmr_at_fmr_1e-3"] == tmr
    # Another rule chooses the folds' thresholds there, and another the point of equal errors.
    assert figures["verification_accuracy"] == pytest.approx(published["accuracy_5fold"], abs=2e-3)
    assert figures["verification_eer"] == pytest.approx(published["eer"], abs=2e-3)
    assert (found.n_folds, found.n_mated, found.n_nonmated) == (5, 1500, 1500)


def loaded(name: str, data_root: Path):
    if read_card(shipped_card(name)).format == "onnx":
        pytest.importorskip("onnxruntime")
    return load_card(shipped_card(name), data_root / "weights")


DEMANDING = """\
fxeval: 1
suite: demanding
verification: {limits: [{metric: verification_accuracy, at_least: 0.97}]}
models: [mobileface_v3]
explainers: [{use: srise, params: {masks: 10}}]
pairs:
  - use: listed
    n: 30
    params: {file: pairs/core_pairs.txt, manifest_file: faces_manifest.json}
checks:
  - id: deletion
    kind: faithfulness.deletion_insertion
    steps: 4
    fills: [blur]
    controls: [random_blobs]
    limits: [{metric: deletion_auc, better_than: control.random_blobs}]
"""


def test_a_suite_that_demands_more_than_the_weak_network_can_calls_it_invalid(
    pytester, data_root: Path
):
    pytest.importorskip("onnxruntime")
    (pytester.mkdir("suites") / "demanding.yaml").write_text(DEMANDING)
    result = pytester.runpytest_subprocess(
        "suites/demanding.yaml", f"--fx-data={data_root.resolve()}", "--fx-threads=1"
    )
    assert result.ret == 1
    (path,) = pytester.path.glob("reports/*/demanding.json")
    record = json.loads(path.read_text())
    [cell] = record["cells"]
    assert cell["verdict"]["outcome"] == "invalid"
    assert "verification accuracy 0.8" in cell["verdict"]["reason"]
    assert "the suite demands at least 0.97 (suites/demanding.yaml:3:" in cell["verdict"]["reason"]
    assert cell["forwards"] == 0
    [entry] = record["verification"]
    assert entry["n_mated"] == 300
