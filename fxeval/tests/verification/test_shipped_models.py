"""Shipped models verify as their cards say, and a network that is fed wrongly does not."""

import json
from pathlib import Path

import pytest

from fxeval.contracts import CardFacts, Crop, ModelTraits
from fxeval.datasets.lists.face_pack import FacePack
from fxeval.datasets.lists.lfw import LfwPairs
from fxeval.datasets.lists.tables import CsvPairs
from fxeval.engine.forward_pool import ForwardPool
from fxeval.models.cards import Claim, read_card
from fxeval.models.from_card import load_card
from fxeval.records.subjects import is_elsewhere
from fxeval.suite.preflight import shipped_card
from fxeval.verification.claims import entry_of
from fxeval.verification.demands import Verification
from fxeval.verification.list_digest import image_digests, list_digest
from fxeval.verification.measured import ThresholdModel, measure_list


class Fed(ThresholdModel):
    """A network whose images are changed before it sees them."""

    def __init__(self, model, change=lambda images: images, crop=None, threshold=None):
        super().__init__(model, model.operating_threshold if threshold is None else threshold)
        object.__setattr__(self, "change", change)
        object.__setattr__(self, "own_crop", crop or model.crop)

    @property
    def crop(self):
        return self.own_crop

    def embed(self, images):
        return self.model.embed(self.change(images))


def entry(model, source, *names):
    measured = measure_list(model, source, ForwardPool(batch_size=16))
    return entry_of(measured, model, (source.name, *names), Verification())


@pytest.fixture(scope="module")
def mini():
    return load_card(shipped_card("mini_resnet"))


RENDERED = FacePack(shipped_card("mini_resnet").parents[1] / "rendered_faces")


def outcomes(found):
    """Return the outcomes of the claims about the list that was measured."""
    return [one["verdict"]["outcome"] for one in found["claims"] if not is_elsewhere(one)]


def shifted(crop):
    return Crop("shifted", crop.size, tuple((x, y + 8) for x, y in crop.template))


def test_the_bundled_network_keeps_its_word(mini):
    found = entry(mini, RENDERED, "rendered")
    assert found["objections"] == []
    assert outcomes(found) == ["pass", "pass"]
    assert found["operating_threshold"]["fault"] == ""


@pytest.mark.parametrize("mistake", ["twice", "swapped", "shifted"])
def test_a_network_that_is_fed_wrongly_has_every_claim_of_the_list_refuted(mini, mistake):
    model = {
        "twice": Fed(mini, lambda images: 2 * images - 1),  # normalised twice
        "swapped": Fed(mini, lambda images: images.flip(1)),
        "shifted": Fed(mini, crop=shifted(mini.crop)),
    }[mistake]
    found = entry(model, RENDERED, "rendered")
    assert outcomes(found) == ["invalid", "invalid"]
    assert "beyond it, which no sampling explains" in found["objections"][0]


def some(n):
    """A list of n mated and n nonmated pairs that merely has the list's name."""
    listing = RENDERED.listing()
    mated = [row for row, is_mated in enumerate(listing.is_mated) if is_mated]
    others = [row for row, is_mated in enumerate(listing.is_mated) if not is_mated]
    rows = [part[k * len(part) // n] for part in (mated, others) for k in range(n)]

    class Some(FacePack):
        def listing(self):
            return listing.take(rows)

    return Some(RENDERED.root)


class Boasting(Fed):
    """Its card claims more than it can."""

    @property
    def traits(self):
        one = Claim(pairs="rendered", metric="verification_accuracy", value=0.98, within=0.003)
        return ModelTraits(card=CardFacts(claims=(one, *self.model.traits.card.claims)))


@pytest.mark.parametrize("n", [20, 80])
def test_a_list_that_merely_has_the_name_shows_nothing(mini, n):
    weak = Boasting(mini, crop=shifted(mini.crop))
    of_people, *others = entry(weak, some(n), "rendered")["claims"]
    assert of_people["verdict"]["outcome"] == ("inconclusive" if n == 20 else "invalid")
    of_the_list = [one for one in others if one["pairs"] == "rendered"]
    assert len(of_the_list) == 2
    for one in of_the_list:
        assert one["verdict"]["outcome"] == "inconclusive"
        assert f"the claim is about the list {digest_of(RENDERED)}" in one["verdict"]["reason"]


@pytest.mark.parametrize("threshold", [0.99, -0.9])
def test_a_threshold_of_another_scale_is_no_operating_point(mini, threshold):
    found = entry(Fed(mini, threshold=threshold), some(80), "rendered")
    assert "of this list: F" in found["operating_threshold"]["fault"]
    assert "a similarity, not a distance or a percentage" in found["operating_threshold"]["fault"]


def test_a_list_keeps_its_digest_under_another_name_and_in_another_format(tmp_path):
    listing = RENDERED.listing()
    lines = [
        f"{one},{two},{int(mated)},{a},{b}"
        for one, two, mated, a, b in zip(
            listing.probe, listing.reference, listing.is_mated,
            listing.probe_identity, listing.reference_identity, strict=True,
        )
    ]  # fmt: skip

    def digest(rows):
        file = tmp_path / "mine.csv"
        file.write_text("\n".join(["img1,img2,label,id1,id2", *rows]) + "\n")
        return digest_of(CsvPairs(RENDERED.root, file))

    card = read_card(shipped_card("mini_resnet"))
    claimed = {one.list_digest for one in card.claims if one.pairs == "rendered"}
    assert claimed == {digest_of(RENDERED)}
    assert digest(lines) == digest_of(RENDERED)
    assert digest(lines[1:]) != digest_of(RENDERED)
    assert digest([*lines[1:], lines[0]]) != digest_of(RENDERED)


def digest_of(source):
    listing = source.listing()
    ids = list(dict.fromkeys([*listing.probe, *listing.reference]))
    return list_digest(listing, image_digests(source, ids))


def test_the_claims_on_lfw_are_bound_to_the_list_they_were_measured_on(data_root: Path):
    card = read_card(shipped_card("edgeface_xxs"))
    assert {one.list_digest for one in card.claims} == {digest_of(LfwPairs(data_root))}


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
    measured = measure_list(model, source, ForwardPool(batch_size=16))
    claims = entry_of(measured, model, (source.name,), Verification())["claims"]
    assert [one["verdict"]["outcome"] for one in claims] == ["pass"] * 4
    found = measured.verified
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
