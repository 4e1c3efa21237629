"""Model cards: what they may say, and every fault in them by place."""

import contextlib
import re
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fxeval.fixtures.models
from fxeval.contracts import Crop
from fxeval.datasets.faces.alignment import CROPS, arcface_crop
from fxeval.errors import ModelContractError
from fxeval.fixtures.models import CARDS
from fxeval.models import ARCHITECTURES, SHIPPED, architecture
from fxeval.models.cards import SUFFIXES, Claim, Golden, Tags, read_card
from fxeval.models.from_card import CardModel, ShippedModel
from fxeval.models.preprocessing import Preprocessing

DIGEST = "Ab" * 32
SHORT = f"""\
card: 1
name: acme-net
weights: acme.safetensors
sha256: {DIGEST}
architecture: iresnet50
"""
LONG = f"""\
card: 1
name: acme-net
weights: nets/acme.ckpt
sha256: {DIGEST}
architecture: acme.nets:make
state: {{key: state_dict, prefix: model., ignore: [logits.]}}
crop:
  name: acme
  size: [96, 80]
  template: [[26, 44], [54, 44], [40, 60.5], [29, 78], [51, 78]]
colour: BGR
mean: [103.9, 116.8, 123.7]
std: 128
similarity: neg_l2
operating_threshold: -1.1
threshold_set_by: own calibration set
claims:
  - {{pairs: lfw_view2, metric: verification_accuracy, value: 0.994}}
  - {{pairs: lfw_view2, metric: tmr_at_fmr_1e-3, value: 0.97, within: 0.01}}
golden: {{file: golden.npz, images: crops, embeddings: emb, at_most: 1e-3, relative: true}}
tags: {{training_data: real, family: convolutional}}
licence: proprietary
source: Acme
trained_on: Acme's own faces
notes: none
"""
FREE = "crop: arcface112\ncolour: RGB\nmean: 127.5\nstd: 127.5\nsimilarity: cosine\n"


@pytest.fixture
def card(tmp_path: Path):
    """Returns a function that reads a card's text."""

    def read(text: str):
        path = tmp_path / "card.yaml"
        path.write_text(text, "utf-8")
        return read_card(path)

    return read


def faults(card, text: str) -> list[str]:
    with pytest.raises(ModelContractError) as caught:
        card(text)
    pattern = r"^\S*card\.yaml:(\d+):(\d+): error: (.*)$"
    return [":".join(found) for found in re.findall(pattern, str(caught.value), re.MULTILINE)]


def test_a_short_card_takes_the_rest_from_its_architecture(card, tmp_path: Path):
    read = card(SHORT)
    assert read.file == tmp_path / "card.yaml"
    assert (read.name, read.weights, read.sha256) == (
        "acme-net", "acme.safetensors", DIGEST.lower(),
    )  # fmt: skip
    assert (read.format, read.architecture) == ("safetensors", "iresnet50")
    assert read.crop is CROPS["arcface112"]
    assert read.preprocessing == Preprocessing()
    assert (read.similarity, read.operating_threshold) == ("cosine", None)
    assert (read.key, read.prefix, read.ignore) == (None, "", ())
    assert (read.claims, read.golden, read.licence, read.trained_on) == ((), None, "", "")
    assert read.tags == Tags(training_data=None, family=None)


def test_a_long_card_says_all_of_it(card):
    read = card(LONG)
    assert (read.format, read.architecture) == ("state_dict", "acme.nets:make")
    assert (read.key, read.prefix, read.ignore) == ("state_dict", "model.", ("logits.",))
    assert read.crop == Crop(
        "acme", (96, 80), ((26.0, 44.0), (54.0, 44.0), (40.0, 60.5), (29.0, 78.0), (51.0, 78.0))
    )
    assert read.preprocessing == Preprocessing("BGR", (103.9, 116.8, 123.7), (128.0,) * 3)
    assert (read.similarity, read.operating_threshold) == ("neg_l2", -1.1)
    assert read.claims == (
        Claim(pairs="lfw_view2", metric="verification_accuracy", value=0.994, within=0.003),
        Claim(pairs="lfw_view2", metric="tmr_at_fmr_1e-3", value=0.97, within=0.01),
    )
    assert read.golden == Golden(
        file="golden.npz", images="crops", embeddings="emb", at_most=1e-3, relative=True
    )
    assert (read.licence, read.source, read.notes) == ("proprietary", "Acme", "none")
    assert read.tags == Tags(training_data="real", family="convolutional")


def test_one_tag_may_be_stated_without_the_other(card):
    assert card(SHORT + "tags: {family: hybrid}\n").tags == Tags(family="hybrid")


def test_the_card_wins_over_the_architecture(card):
    read = card(SHORT + "colour: BGR\nmean: 0\ncrop: openvino128\nsimilarity: neg_l2\n")
    assert read.preprocessing == Preprocessing("BGR", (0.0,) * 3, (127.5,) * 3)
    assert (read.crop.name, read.similarity) == ("openvino128", "neg_l2")


def test_cards_that_say_different_things_have_different_digests(card):
    assert card(SHORT).digest == card(SHORT.replace("\n", "\r\n")).digest
    assert card(SHORT).digest != card(SHORT + "colour: BGR\n").digest


def test_keys_that_published_weights_have_beside_the_network_are_left_out(card):
    text = SHORT.replace("iresnet50", "inception_resnet_v1") + "state: {ignore: [head.]}\n"
    assert card(text).ignore == ("head.", "logits.")


def test_no_operating_threshold_is_an_answer(card):
    assert card(SHORT + "operating_threshold: null\n").operating_threshold is None


@pytest.mark.parametrize("suffix", sorted(SUFFIXES))
def test_the_format_follows_from_the_ending(card, suffix: str):
    format = SUFFIXES[suffix]
    architecture = {"dlib": "dlib_resnet"}.get(format, "iresnet18")
    head = SHORT.replace(".safetensors", suffix.upper()).replace("iresnet50", architecture)
    if format in ("onnx", "torchscript", "torch_export"):
        head = head.replace(f"architecture: {architecture}\n", FREE)
    if format == "torch_export":
        (fault,) = faults(card, head)
        assert "torch_export is refused: torch.export.load unpickles" in fault
    else:
        assert card(head).format == format


def test_the_format_may_be_said(card):
    read = card(SHORT.replace(".safetensors", ".bin") + "format: safetensors\n")
    assert read.format == "safetensors"
    (fault,) = faults(card, SHORT.replace(".safetensors", ".bin"))
    assert fault.startswith("3:10:'weights' has none of the endings .safetensors, .pt")


def test_every_fault_is_told_at_once_and_by_place(card):
    text = (
        LONG.replace(DIGEST, "ab12")
        .replace("card: 1", "card: 2")
        .replace("nets/acme", "../acme")
        .replace("BGR", "GBR")
        .replace("std: 128", "std: [1, 2]")
        .replace("0.994", "99.4")
        .replace("tmr_at_fmr_1e-3", "tar")
        .replace("[96, 80]", "[96]")
        .replace("at_most: 1e-3", "at_most: 3")
        .replace("notes:", "note:")
    )
    assert [":".join(fault.split(":")[:2]) for fault in faults(card, text)] == [
        "1:7", "3:10", "4:9", "9:9", "11:9", "13:6", "18:62", "19:32", "20:69", "25:1",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (("name: acme-net", "name: 4 net"), "2:7:'name': expected a letter, then letters"),
        (("name: acme-net\n", ""), "1:1:the key 'name' is missing"),
        (("acme.safetensors", "null"), "3:10:'weights' has no value"),
        (("architecture: iresnet50", "architecture: ''"), "5:15:no architecture ''"),
        (("iresnet50", "iresnet51"), "5:15:no architecture 'iresnet51', and no module:factory"),
        (("iresnet50", "os.system('x'):y"), "5:15:no architecture"),
        (("architecture: iresnet50\n", FREE), "3:10:safetensors holds weights and no network"),
        (("iresnet50", "acme:make"), "1:1:missing: crop, colour, mean, std, similarity;"),
        (("iresnet50", "iresnet50\ncrop: arcface"), "6:7:no crop 'arcface'"),
        (("iresnet50", "iresnet50\ncrop: 112"), "6:7:'crop' must be a name or a mapping, got 112"),
        (("iresnet50", "iresnet50\nstd: 0"), "6:6:'std': expected more than 0, got 0"),
        (
            ("iresnet50", "iresnet50\nmean: 0.5\nstd: 0.5"),
            "7:6:'std': expected 1 or more, for pixels of",
        ),
        (("iresnet50", "iresnet50\nstd: [1, 0.229, 1]"), "6:6:'std': expected 1 or more"),
        (("iresnet50", "iresnet50\nstd: [1, 0, 1]"), "6:6:'std': expected more than 0"),
        (
            ("iresnet50", "iresnet50\nmean: true"),
            "6:7:'mean': expected a number or a list of three",
        ),
        (
            ("iresnet50", "iresnet50\nmean: [1, a, 2]"),
            "6:7:'mean': expected a number or a list of three",
        ),
        (
            ("iresnet50", "iresnet50\nmean: -3"),
            "6:7:'mean': expected numbers for pixels of 0 to 255",
        ),
        (("iresnet50", "iresnet50\nmean: .nan"), "6:7:expected a finite number"),
        (
            ("iresnet50", "iresnet50\ntags: {family: cnn}"),
            "6:16:'family' must be 'convolutional', 'inception', 'mobile', 'transformer' or 'hyb",
        ),
        (
            ("iresnet50", "iresnet50\ntags: {familly: mobile}"),
            "6:8:unknown key 'familly'",
        ),
        (("iresnet50", "iresnet50\ntags: mobile"), "6:7:'tags' must be a mapping of"),
        (("iresnet50", "iresnet50\nlicence: null"), "6:10:'licence' has no value"),
        (("iresnet50", "iresnet50\nstate: {key: a}"), "6:9:'key' is only for checkpoints"),
        (("iresnet50", "iresnet50\nruntime: auto"), "6:1:'runtime' is only for the format onnx"),
        (("iresnet50", "iresnet50\nlayout: NCHW"), "6:1:'layout' is only for the format onnx"),
        (
            ("iresnet50", "iresnet50\noutput: emb"),
            "6:1:'output' is for networks of your own: iresnet50 has one output",
        ),
        (("iresnet50", f"acme:make\n{FREE}output: [1]"), "11:9:'output': expected the name of an"),
        (("iresnet50", f"acme:make\n{FREE}output: true"), "11:9:'output': expected the name of an"),
        (
            ("iresnet50", "iresnet50\ncolour: grey"),
            "6:9:iresnet50 takes three channels: expected RGB or BGR, got 'grey'",
        ),
        (("acme.safetensors", "acme.onnx"), "5:1:'architecture' is only for files of weights"),
        (("acme.safetensors", "acme.dat"), "5:15:expected 'dlib_resnet' for the format dlib"),
        (("iresnet50", "iresnet50\nname: b"), "6:1:the key 'name' is already given in line 2"),
        (
            ("iresnet50", "iresnet50\noperating_threshold: 30\nthreshold_set_by: us"),
            "6:22:'operating_threshold': expected -1 to 1 for cosine, got 30: for a similarity in "
            "percent write 0.3",
        ),
        (
            ("iresnet50", "dlib_resnet\noperating_threshold: 0.6\nthreshold_set_by: us"),
            "6:22:'operating_threshold': expected 0 or less (minus a distance) for neg_l2, got 0.6"
            ": write -0.6",
        ),
        (
            ("iresnet50", "iresnet50\noperating_threshold: 0.3"),
            "6:1:'threshold_set_by' is missing: say on which data and by which rule",
        ),
    ],
)
def test_a_fault_is_named_where_it_is_and_alone(card, change: tuple[str, str], fault: str):
    (found,) = faults(card, SHORT.replace(*change))
    assert found.startswith(fault)


def test_a_grey_network_has_one_mean_and_one_std(card):
    grey = SHORT.replace("iresnet50", f"acme:make\n{FREE}").replace("RGB", "grey")
    assert card(grey).preprocessing == Preprocessing("grey", (127.5,), (127.5,))
    (fault,) = faults(card, grey.replace("std: 127.5", "std: [1, 2, 3]"))
    assert fault == "9:6:'std': expected a number for the one channel of grey, got three"


def test_an_output_is_a_name_or_a_place_and_in_a_graph_a_name(card):
    own = SHORT.replace("iresnet50", f"acme:make\n{FREE}output: OUTPUT")
    assert card(own.replace("OUTPUT", "1")).output == 1
    assert card(own.replace("OUTPUT", "embedding")).output == "embedding"
    graph = own.replace(".safetensors", ".onnx").replace("architecture: acme:make\n", "")
    assert card(graph.replace("OUTPUT", "'683'")).output == "683"
    (fault,) = faults(card, graph.replace("OUTPUT", "683"))
    assert fault.startswith("10:9:'output': expected the name of an output of the graph, got the n")


@pytest.mark.parametrize("size", [112, 128, 224, 448])
def test_the_crops_of_arcface_have_names_at_every_size(card, size: int):
    read = card(f"{SHORT}crop: arcface{size}\n")
    assert read.crop == arcface_crop(size)
    (fault,) = faults(card, f"{SHORT}crop: arcface{size + 1}\n")
    assert fault.startswith(f"6:7:no crop 'arcface{size + 1}'")
    own = LONG.replace("name: acme\n", f"name: arcface{size}\n")
    assert faults(card, own)[0].startswith(f"8:9:the crop arcface{size} of the catalogue has ano")


@pytest.mark.parametrize(
    "template",
    [
        "[[44, 26], [44, 54], [60.5, 40], [78, 29], [78, 51]]",  # (y, x)
        "[[.3, .4], [.7, .4], [.5, .6], [.4, .8], [.6, .8]]",  # shares of the side
        "[[54, 44], [26, 44], [40, 60.5], [51, 78], [29, 78]]",  # the person's left and right
    ],
)
def test_a_template_that_is_no_upright_face_is_refused(card, template: str):
    own = LONG.replace("[[26, 44], [54, 44], [40, 60.5], [29, 78], [51, 78]]", template)
    (fault,) = faults(card, own)
    assert fault.startswith("10:13:'template': expected five points (x, y) in pixels: eye at")


def test_a_known_crop_is_not_redefined(card):
    own = LONG.replace("name: acme\n", "name: arcface112\n")
    (fault,) = faults(card, own)
    assert fault.startswith("8:9:the crop arcface112 of the catalogue has another size or template")


@pytest.mark.parametrize(
    "path",
    ["../x.onnx", "/x.onnx", "a/../../x.onnx", "a//x.onnx", "./x.onnx", "a\\\\x.onnx", "C:x.onnx",
     "~/x.onnx", "", ".", "..", "x.onnx/", "a\\tx.onnx"],
)  # fmt: skip
def test_paths_that_lead_out_of_the_folder_are_refused(card, path: str):
    (fault,) = faults(card, SHORT.replace("acme.safetensors", f'"{path}"'))
    assert fault.startswith("3:10:'weights': expected a file inside the folder of the weights")


@pytest.mark.parametrize("text", ["", "[]", "card: 1", "card: &a 1", "[" * 100_000, "\0", "a: b"])
def test_a_file_that_is_no_card_is_refused_by_place(card, text: str):
    assert faults(card, text)


def test_a_missing_card_is_named(tmp_path: Path):
    with pytest.raises(ModelContractError, match=r"gone\.yaml:1:1: error: the file cannot be read"):
        read_card(tmp_path / "gone.yaml")


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_garbled_card_is_read_or_refused_by_place(card, data):
    lines = LONG.splitlines()
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(lines) - 1))
        key = lines[at].partition(":")[0]
        value = data.draw(
            st.sampled_from(["null", "[]", "{}", "1", "-1e9", "x", "[1, 2, 3]", "''"])
        )
        lines[at] = data.draw(st.sampled_from([f"{key}: {value}", "", lines[at] * 2]))
    with contextlib.suppress(ModelContractError):
        card("\n".join(lines))


# the catalogue, and the cards that come with fxeval


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_embeds_faces_of_its_crop(name: str):
    known = ARCHITECTURES[name]
    network = architecture(name).eval()
    images = torch.empty(2, 3, *CROPS[known.crop].size, device="meta")
    embeddings = network(images)
    assert embeddings.ndim == 2
    assert len(embeddings) == 2
    assert {value.device.type for value in network.state_dict().values()} == {"meta"}
    assert known.summary
    assert known.source


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_catalogue_normalises_as_the_factory_does(name: str):
    known = ARCHITECTURES[name]
    network = architecture(name)
    if not hasattr(network, "normalisation"):
        assert name == "dlib_resnet" or name.startswith("mini_")  # have it written into forward
        return
    with torch.random.fork_rng():
        module, _, factory = known.factory.partition(":")
        make = getattr(__import__(module, fromlist=[factory]), factory)
        (default,) = make.__defaults__
    assert default == Preprocessing(known.colour, known.mean, known.std)


def test_every_shipped_model_has_a_card_of_its_name_and_states_its_licence():
    cards = {path.stem: read_card(path) for path in sorted(CARDS.glob("*.yaml"))}
    assert len(cards) == 13
    for id, card in cards.items():
        assert card.name == id
        assert card.licence
        assert card.source
        assert card.claims
        assert card.threshold_set_by
        assert card.tags.training_data == ("synthetic" if id.startswith("mini_") else "real")
        assert card.tags.family is not None
        assert SHIPPED.get(id) == card.architecture
        if id in SHIPPED:
            assert card.crop.name == ARCHITECTURES[SHIPPED[id]].crop
    assert set(SHIPPED) <= set(cards)


def test_every_card_is_a_fixture_and_the_package_of_dlib_brings_its_weights(tmp_path, monkeypatch):
    fixtures = {
        name.removeprefix("model_"): value.__wrapped__
        for name, value in vars(fxeval.fixtures.models).items()
        if name.startswith("model_")
    }
    assert fixtures.pop("card")() == CardModel()
    assert fixtures.keys() == {path.stem for path in CARDS.glob("*.yaml")}
    monkeypatch.setattr(
        "fxeval.models.networks.dlib_resnet.installed_folder", lambda: tmp_path / "package"
    )
    assert fixtures.pop("dlib_resnet")(None).weights_dir == tmp_path / "package"
    for bundled in ("mini_inception", "mini_mobile", "mini_patch", "mini_resnet", "mini_vit"):
        assert fixtures.pop(bundled)().weights_dir == CARDS
    for id, fixture in fixtures.items():
        assert fixture.__doc__
        assert fixture(tmp_path) == ShippedModel(CARDS / f"{id}.yaml", tmp_path)
        assert fixture(None).weights_dir is None
