"""A person's name in every place an error can come from: it is printed, and in no file of a report.

Records and scorecards are handed on to others; what a run prints is for whoever runs it.
"""

import copy
import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fxeval import errors
from fxeval.datasets.faces.alignment import ARCFACE_112
from fxeval.datasets.faces.face_folder import FaceFolder
from fxeval.datasets.faces.manifests import KNOWN_FAILURES, PATH_FAULTS, read_manifest
from fxeval.datasets.lists.file_pairs import parse_file_pairs
from fxeval.datasets.lists.flat_pairs import parse_flat, parse_patch
from fxeval.datasets.lists.identity_folders import IdentityFolders
from fxeval.datasets.lists.insightface_bin import InsightfaceBin
from fxeval.datasets.lists.lfw import LfwPairs, parse_pairs
from fxeval.datasets.lists.spaced_lists import parse_listed_pairs, parse_listed_triplets
from fxeval.datasets.lists.tables import (
    CsvIdentities,
    CsvPairs,
    identities_of,
    parse_csv_pairs,
    parse_csv_triplets,
    parse_gallery_probe,
    parse_identities,
)
from fxeval.datasets.preparing import detection, preparation
from fxeval.datasets.preparing.detection import LandmarkFile, Picture
from fxeval.datasets.preparing.preparation import Settings, prepare
from fxeval.datasets.text_files import read_text
from fxeval.errors import DataContractError, ModelContractError, for_a_record
from fxeval.redaction import OTHER_REASON, PublicReason, of_user_code, public_counts
from fxeval.tests.face_folders import write_folder
from fxeval.tests.label_pictures import png
from fxeval.tests.photographs import Given
from fxeval.tests.world import CONFTEST, cells, the_record

NAME = "Ann Lee"
FOLDED = ("annlee", "ann_lee", "ann lee")
EVERY_ERROR = [one for one in vars(errors).values() if isinstance(one, type)]
PLACE = f"/srv/{NAME}/photos of {NAME}"


def names_nobody(text: str) -> bool:
    return not any(one in text.lower() for one in FOLDED)


# Fields of errors


@pytest.mark.parametrize("kind", EVERY_ERROR)
def test_both_fields_of_an_error_survive_a_trip_between_processes(kind):
    for given in (None, "lfw.txt:3: expected a pair"):
        error = kind(f"{PLACE}/lfw.txt:3: got {NAME}", public=given)
        for make in (lambda one: pickle.loads(pickle.dumps(one)), copy.copy, copy.deepcopy):
            found = make(error)
            assert (type(found), found.detail, found.public) == (kind, error.detail, error.public)
            assert found.detail == str(found) == str(error)


def test_an_error_of_data_that_says_nothing_for_a_record_is_not_quoted_whatever_its_words():
    for text in (
        f"pairs 'lfw': the image of {NAME} has no landmarks.",
        f"landmarks: {NAME}",
        f"pair listing: {NAME}",
        f"3 of 40 images of {NAME}",
        f"{NAME}.csv:3: 40 of 40 pairs are missing",
    ):
        said = for_a_record(DataContractError(text))
        assert said == "the data cannot be used; the output of the run says why"


def test_what_is_given_for_a_record_is_quoted_as_it_is_but_for_folders():
    error = DataContractError(f"{NAME}: no", public=f"{PLACE}/lfw.txt:3: expected 'name i j'")
    assert for_a_record(error) == "lfw.txt:3: expected 'name i j'"


def test_other_errors_are_quoted_in_one_line_without_folders_and_excerpts():
    error = ModelContractError(f"{PLACE}/net.pt: cut.\n  3 | {NAME}\n    | ^\n  Fetch it.")
    assert for_a_record(error) == "net.pt: cut. Fetch it."


def test_an_error_that_never_met_our_constructor_has_both_fields():
    class OwnError(DataContractError):
        def __init__(self, who):
            self.who = who

    assert names_nobody(OwnError(NAME).public)
    assert NAME in OwnError(NAME).detail


def test_an_error_of_user_code_is_its_type_and_its_place():
    with pytest.raises(KeyError) as caught:
        raise KeyError(NAME)
    assert of_user_code(caught.value).startswith("KeyError (test_privacy.py:")
    assert of_user_code(KeyError(NAME)) == "KeyError"


def test_the_place_of_an_error_is_in_user_code_wherever_it_came_up(tmp_path):
    code = f"import json\ndef read():\n    json.loads('{{{NAME}')\n"
    found = {}
    exec(compile(code, str(tmp_path / NAME / "album.py"), "exec"), found)
    with pytest.raises(ValueError, match="Expecting") as caught:
        found["read"]()
    assert of_user_code(caught.value) == "JSONDecodeError (album.py:3)"


# Readers of lists, manifests, landmarks and images


LISTS = {
    "lfw": (parse_pairs, f"1\t1\n{NAME}\t1\t2\t3\t4\nx\t1\ty\t1"),
    "lfw header": (parse_pairs, f"{NAME}\n"),
    "lfw, one image twice": (parse_pairs, "1\t1\nAnn_Lee\t1\t1\nAnn_Lee\t1\tx\t1"),
    "lfw, wrong kind": (parse_pairs, "1\t1\nAnn_Lee\t1\tx\t1\nAnn_Lee\t1\tx\t1"),
    "lfw, control character": (parse_pairs, f"1\t1\n{NAME}\x00\n"),
    "csv header": (parse_csv_pairs, f"{NAME},img2,label,id1,id2\n"),
    "csv further column": (parse_csv_pairs, f"img1,img2,label,id1,id2, {NAME}\na,b,1,c,c,d\n"),
    "csv, no row": (parse_csv_pairs, "img1,img2,label,id1,id2\n"),
    "csv cells": (parse_csv_pairs, f"img1,img2,label,id1,id2\n{NAME}.jpg,\n"),
    "csv quotes": (parse_csv_pairs, f'img1,img2,label,id1,id2\n"{NAME}\n'),
    "csv label": (parse_csv_pairs, f"img1,img2,label,id1,id2\na,b,{NAME},c,d\n"),
    "csv labels": (parse_csv_pairs, f"img1,img2,label,id1,id2\na,b,1,{NAME},Bob\n"),
    "csv path": (parse_csv_pairs, f"img1,img2,label,id1,id2\n../{NAME},b,1,{NAME},{NAME}\n"),
    "csv fold": (parse_csv_pairs, f"img1,img2,label,id1,id2,fold\na,b,1,x,x,{NAME}\n"),
    "csv, one image": (parse_csv_pairs, f"img1,img2,label,id1,id2\n{NAME},{NAME},1,x,x\n"),
    "csv, twice": (
        parse_csv_pairs, f"img1,img2,label,id1,id2\n{NAME},b,1,x,x\n{NAME},b,1,x,x\n",
    ),
    "csv, two owners": (
        parse_csv_pairs, f"img1,img2,label,id1,id2\n{NAME},b,1,{NAME},{NAME}\n{NAME},c,1,x,x\n",
    ),
    "csv triplets": (
        parse_csv_triplets, "anchor,mate,nonmate,anchor_id,mate_id,nonmate_id\n"
        f"a,b,c,{NAME},{NAME},{NAME}\n",
    ),
    "gallery": (parse_gallery_probe, f"G,P,T\n{NAME},b,7\n"),
    "gallery, contradiction": (parse_gallery_probe, f"G,P,T\n{NAME},b,1\nb,{NAME},0\n"),
    "identities": (parse_identities, f"img,identity\n{NAME}.jpg,{NAME}\n{NAME}.jpg,x\n"),
    "identities, splits": (
        lambda text, where: parse_identities(text, where, shared_identities=False),
        f"img,identity,split\na,{NAME},train\nb,{NAME},test\n",
    ),
    "calfw": (parse_flat, f"{NAME}\n"),
    "calfw, no identity": (
        lambda text, where: parse_flat(text, where, 1), "AnnLee.jpg 1\nx 1\na_1.jpg 0\nb_1.jpg 0\n",
    ),
    "patch": (parse_patch, f"{NAME} x\n"),
    "patch, table": (
        lambda text, where: parse_patch(text, where, {}), "Ann_Lee.jpg b.jpg 1\n",
    ),
    "file pairs": (parse_file_pairs, f"{NAME}.jpg x\n"),
    "file pairs, labels": (
        parse_file_pairs,
        f"Ann_Lee/1.jpg Ann_Lee/2.jpg 0\nb/1.jpg {NAME.replace(' ', '_')}/2.jpg 1\n",
    ),
    "file pairs, no identity": (
        lambda text, where: parse_file_pairs(text, where, "stem"), "Ann_Lee/a.jpg b.jpg 1\n",
    ),
    "listed": (parse_listed_pairs, f"{NAME}/1 x\n"),
    "listed image": (parse_listed_pairs, "Ann_Lee Ann_Lee/2 1\n"),
    "listed columns": (parse_listed_pairs, "a/1 a/2 1\nAnn_Lee/1 x/2\n"),
    "listed triplets": (parse_listed_triplets, "Ann_Lee/1 Ann_Lee/2 Ann_Lee/3\n"),
}  # fmt: skip


@pytest.mark.parametrize("case", LISTS)
def test_a_fault_of_a_list_names_the_list_and_the_line_and_nobody(case):
    parse, text = LISTS[case]
    with pytest.raises(DataContractError) as caught:
        parse(text, f"{PLACE}/list.txt")
    error = caught.value
    assert error.public.startswith("list.txt")
    assert names_nobody(error.public)
    assert error.detail.startswith(f"{PLACE}/list.txt")


MANIFESTS = {
    "no JSON": f"{{{NAME}",
    "no list": json.dumps({"images": NAME}),
    "crop": json.dumps({"images": [], "crop": {"name": NAME}}),
    "licence": json.dumps({"images": [], "licence": [NAME]}),
    "failures": json.dumps({"images": [], "failures": [NAME]}),
    "entry": json.dumps({"images": [NAME]}),
    "file": json.dumps({"images": [{"file": f"../{NAME}"}]}),
    "digest": json.dumps({"images": [{"file": NAME, "sha256": NAME}]}),
    "identity": json.dumps({"images": [{"file": NAME, "sha256": "a" * 64, "identity": [NAME]}]}),
    "landmarks": json.dumps(
        {"images": [{"file": NAME, "sha256": "a" * 64, "identity": NAME, "landmarks5": [NAME]}]}
    ),
}


@pytest.mark.parametrize("case", MANIFESTS)
def test_a_fault_of_a_manifest_names_the_manifest_and_the_entry_and_nobody(case, tmp_path):
    folder = tmp_path / NAME
    folder.mkdir()
    (folder / "manifest.json").write_text(MANIFESTS[case])
    with pytest.raises(DataContractError) as caught:
        read_manifest(folder / "manifest.json")
    assert caught.value.public.startswith("manifest.json: ")
    assert names_nobody(caught.value.public)
    assert NAME in caught.value.detail


LANDMARKS = {
    "header": f"{NAME}\n",
    "line": "file,x1,y1,x2,y2,x3,y3,x4,y4,x5,y5\nAnn Lee.jpg,1,2\n",
    "twice": "file,x1,y1,x2,y2,x3,y3,x4,y4,x5,y5\n" + "Ann Lee.jpg,1,2,3,4,5,6,7,8,9,9\n" * 2,
    "far": "file,x1,y1,x2,y2,x3,y3,x4,y4,x5,y5\nAnn Lee.jpg,1e9,2,3,4,5,6,7,8,9,9\n",
}


@pytest.mark.parametrize("case", LANDMARKS)
def test_a_fault_of_landmarks_names_their_file_and_nobody(case, tmp_path):
    (tmp_path / NAME).mkdir()
    file = tmp_path / NAME / "points.csv"
    file.write_text(LANDMARKS[case])
    with pytest.raises(DataContractError) as caught:
        LandmarkFile(file).landmarks(Picture("x.jpg", "a" * 64, None))
    assert caught.value.public.startswith("points.csv")
    assert names_nobody(caught.value.public)
    assert NAME in caught.value.detail


def spoil_missing(path: Path) -> None:
    path.unlink()


def spoil_text(path: Path) -> None:
    path.write_text("no image")


def spoil_cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:60])


def spoil_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("spoil", [spoil_missing, spoil_text, spoil_cut, spoil_folder])
@pytest.mark.parametrize("aligned_to", [None, ARCFACE_112])
def test_images_that_cannot_be_used_are_counted_for_a_record_and_named_for_the_user(
    spoil, aligned_to, tmp_path
):
    root = tmp_path / NAME
    files = write_folder(root, {NAME: 2})
    folder = FaceFolder(root, aligned_to=aligned_to)
    ids = [face.id for face in folder.faces]
    spoil(root / files[0])
    with pytest.raises(DataContractError) as caught:
        folder.images(ids, ARCFACE_112)
    assert caught.value.public.startswith("1 of 2 images cannot be used; the first: ")
    assert names_nobody(caught.value.public)
    assert f"{NAME}/0001.png" in caught.value.detail


def refused(root: Path) -> dict[str, Callable[[], object]]:
    """Calls that a folder named after a person cannot satisfy."""
    write_folder(root, {NAME: 2, "Bob": 2})
    (root / "missing.csv").write_text(f"img1,img2,label,id1,id2\nx/{NAME}.png,b,1,x,x\n")
    (root / "images.csv").write_text(f"img,identity\n{NAME}/0009.png,{NAME}\n")
    (root / "parts.csv").write_text(f"img,identity,split\n{NAME}/0001.png,Bob,train\n")
    (root / "gone.csv").write_text(f"img,identity,split\n{NAME}/0009.png,{NAME},train\n")
    (root / "no text.csv").write_bytes(b"\xff\xfe" + NAME.encode())
    (root / "small.bin").write_bytes(pickle.dumps(([NAME.encode()] * 2, [True])))
    (root / "other.bin").write_bytes(pickle.dumps([NAME, Path(NAME)]))
    manifest = Path("manifest.json")
    for folder, classes in (
        ("maps", "1: skin\n"),
        ("odd", f"1: skin\n{NAME}: 2\n"),
        ("none", "1: skin\n"),
    ):
        (root / folder / NAME).mkdir(parents=True)
        (root / folder / "classes.yaml").write_text(classes)
    (root / "maps" / NAME / "0001.png").write_bytes(png(np.zeros((112, 112), np.uint8)))

    def labelled(**how) -> Callable[[], object]:
        def call() -> object:
            source = IdentityFolders(root, manifest, **how)
            return source.labels(source.identities().image, ARCFACE_112)

        return call

    return {
        "missing": CsvPairs(root, Path("missing.csv")).listing,
        "subset": CsvPairs(root, Path("missing.csv"), on_missing="exclude").listing,
        "images": CsvIdentities(root, Path("images.csv")).identities,
        "parts": IdentityFolders(root, manifest, splits_file=Path("parts.csv")).identities,
        "gone": IdentityFolders(root, manifest, splits_file=Path("gone.csv")).identities,
        "nowhere": IdentityFolders(root / "nowhere").identities,
        "none": IdentityFolders(root, manifest, min_images=9).identities,
        "no part": IdentityFolders(root, manifest, split="x").listing,
        "text": lambda: read_text(root / "no text.csv"),
        "no file": lambda: read_text(root / "none.csv"),
        "no list": LfwPairs(root).listing,
        "table": lambda: identities_of(root, Path("none.csv")),
        "bin": InsightfaceBin(root / "small.bin", "small").listing,
        "pickle": InsightfaceBin(root / "other.bin", "other").listing,
        "prepare": lambda: prepare(root, root / "out", Given(), Settings()),
        "prepare nothing": lambda: prepare(root / "none", root.parent, Given(), Settings()),
        "label map": labelled(label_maps=Path("maps")),
        "classes": labelled(label_maps=Path("odd")),
        "no label maps": labelled(label_maps=Path("none")),
        "no folder of label maps": labelled(label_maps=Path(NAME) / "x"),
        "labels": labelled(regions="labels"),
        "network": labelled(mesh=root / "other.bin"),
        "regions": labelled(regions=NAME),
        "crop": lambda: CsvPairs(root, Path("x.csv"), aligned_to=NAME),
        "on_missing": lambda: CsvPairs(root, Path("x.csv"), on_missing=NAME),
    }


def test_what_a_folder_cannot_give_is_said_without_its_name(tmp_path):
    for case, call in refused(tmp_path / NAME).items():
        with pytest.raises(DataContractError) as caught:
            call()
        assert names_nobody(for_a_record(caught.value)), case
        assert "cannot be used; why" not in caught.value.public, case
        assert NAME in caught.value.detail, case


def test_reasons_are_quoted_only_if_they_are_marked_as_public():
    found = public_counts({PublicReason("no face found"): 3, f"{NAME} moved": 1, "x": 2})
    assert found == {"no face found": 3, OTHER_REASON: 3}
    again = pickle.loads(pickle.dumps(copy.deepcopy(PublicReason("x"))))
    assert isinstance(again, PublicReason)


def test_reasons_of_failures_in_a_manifest_are_public_only_if_fxeval_gave_them(tmp_path):
    reasons = ["no face found", f"no face of {NAME}", f"name with {PATH_FAULTS[1]}"]
    failures = [{"file": f"{NAME}.jpg", "reason": reason} for reason in reasons]
    (tmp_path / "manifest.json").write_text(json.dumps({"images": [], "failures": failures}))
    found = public_counts(read_manifest(tmp_path / "manifest.json").failures)
    assert found == {reasons[0]: 1, reasons[2]: 1, OTHER_REASON: 1}


def test_every_reason_that_a_preparation_gives_is_known(tmp_path):
    sources = [Path(module.__file__).read_text() for module in (preparation, detection)]
    given = re.findall(r"""(?:reason=|Error\(|failures\[file\] = )"([^"{]+)\"""", "".join(sources))
    assert len(given) > 8
    assert set(given) <= KNOWN_FAILURES


# Whole runs

MORE = '''

from dataclasses import dataclass
from fxeval.contracts import Exclusion
from fxeval.errors import DataContractError
from fxeval.listings import DataCard
from fxeval.models.cards import Claim

NAME = "Ann Lee"


class Says(Memory):
    """Raises where it is told to."""

    def __init__(self, error, at="listing"):
        super().__init__()
        self.error, self.at = error, at

    def listing(self):
        if self.at == "listing":
            raise self.error
        return super().listing()

    def images(self, image_ids, crop):
        if self.at == "images":
            raise self.error
        return super().images(image_ids, crop)

    def card(self):
        if self.at == "card":
            raise self.error
        return DataCard(None, 80)


@pytest.fixture
def pairs_ours():
    return Says(DataContractError(f"pairs 'lfw': the image of {NAME} 1 has no landmarks."))


@pytest.fixture
def pairs_own():
    return Says(DataContractError(f"{NAME} 2 looks away"), "images")


@pytest.fixture
def pairs_value():
    return Says(ValueError(f"{NAME} 3"))


@pytest.fixture
def pairs_key():
    return Says(KeyError(f"{NAME} 4"), "images")


@pytest.fixture
def pairs_card():
    return Says(KeyError(f"{NAME} 5"), "card")


@pytest.fixture
def pairs_skipped():
    pytest.skip(f"no photographs of {NAME} 6")


@pytest.fixture
def pairs_given():
    return Says(DataContractError(f"{NAME} 7", public="the album holds 8 faces"))


@dataclass(frozen=True)
class Album:
    folder: str = ""
    name = "album"
    banner = None

    def __post_init__(self):
        if self.folder:
            raise ValueError(f"{NAME} 8")

    def listing(self):
        raise AssertionError

    def images(self, image_ids, crop):
        raise AssertionError


@pytest.fixture
def pairs_album():
    return Album()


class Aside(Memory):
    def __init__(self):
        super().__init__(48)

    def listing(self):
        ids = [str(i) for i in range(self.n)]
        return PairListing(
            tuple(f"{i}a" for i in ids), tuple(f"{i}b" for i in ids), (True,) * self.n,
            tuple(ids), tuple(ids), (Exclusion("x", f"{NAME} 21 is missing"),),
            set_aside=(f"{NAME} 22 is wrongly labelled",) + ("",) * (self.n - 1),
        )

    def card(self):
        return DataCard(None, 80, failures={f"{NAME} 23 has no face": 1})


@pytest.fixture
def pairs_aside():
    return Aside()


class Crowd(Memory):
    """Mated pairs that can be explained, nonmated ones that cannot be verified."""

    def listing(self):
        ids = [str(i) for i in range(self.n)]
        other = [str((i + 1) % self.n) for i in range(self.n)]
        return PairListing(
            tuple(f"{i}a" for i in ids + ids),
            tuple(f"{i}b" for i in ids) + tuple(f"{i}c" for i in other),
            (True,) * self.n + (False,) * self.n, tuple(ids + ids), tuple(ids + other),
        )

    def images(self, image_ids, crop):
        if any(one.endswith("c") for one in image_ids):
            raise DataContractError(f"pairs 'crowd': the image of {NAME} 31 is gone.")
        return super().images(image_ids, crop)


@pytest.fixture
def pairs_crowd():
    return Crowd()


@pytest.fixture
def model_claiming():
    from fxeval.contracts import CardFacts, ModelTraits

    claim = Claim(pairs="memory", metric="verification_accuracy", value=0.9, within=0.01)
    card = CardFacts(claims=(claim,))
    traits = ModelTraits(card=card)
    return TorchFaceModel("claiming", CROP, ConvNet(), "cosine", 0.5, "a" * 64, traits=traits)


class Rude:
    """A model that fails, at once or at the images of a list."""

    name, crop, similarity, operating_threshold = "rude", CROP, "cosine", 0.5
    digest, module = "d" * 64, None

    def __init__(self, number, calls):
        self.number, self.calls = number, calls

    def embed(self, images):
        self.calls -= 1
        if self.calls < 0:
            raise KeyError(f"{NAME} {self.number}")
        return images.flatten(1)


@pytest.fixture
def model_rude():
    return Rude(41, 0)


@pytest.fixture
def model_later():
    return Rude(42, 7)  # as many calls as a look at a model takes


@pytest.fixture
def explainer_rude():
    def fail(m, p, r, g):
        raise ValueError(f"out of ideas about {NAME} 51")
    return Explain(fail)


@pytest.fixture
def explainer_moody():
    def fail(m, p, r, g):
        if float(p.mean()) > 0.5:
            raise KeyError(f"{NAME} 52")
        return p.mean(1)
    return Explain(fail)


class Unsure(Explain):
    def unsupported(self, model):
        raise RuntimeError(f"{NAME} 53")


@pytest.fixture
def explainer_unsure():
    return Unsure(None)


@pytest.fixture
def explainer_torn():
    yield Explain(lambda m, p, r, g: p.mean(1))
    raise RuntimeError(f"{NAME} 54")
'''

CHECK = """\
fxeval: 1
suite: small
defaults: {seed: 7}
models: [MODELS]
explainers: [EXPLAINERS]
pairs: [PAIRS]
checks:
  - id: deletion
    kind: faithfulness.deletion_insertion
    steps: 2
    fills: [mean]
    controls: [random_blobs]
    limits: [{metric: deletion_auc, at_least: -0.99}]
"""


@pytest.fixture
def run(world, pytester):
    """Run a suite; search every file of the report and the output for the name."""
    pytester.makeconftest(CONFTEST + MORE)

    def start(numbers, *args, models="tiny", explainers="centre", pairs="{use: memory, n: 32}",
              alone=False):  # fmt: skip
        text = CHECK.replace("MODELS", models).replace("EXPLAINERS", explainers)
        result = world(*args, edit=lambda _: text.replace("PAIRS", pairs), alone=alone)
        files = [path for path in world.path.glob("reports/*/*") if path.is_file()]
        assert {".json", ".html"} <= {path.suffix for path in files}
        for path in files:
            assert names_nobody(path.read_text()), path.name
            assert str(world.path) not in path.read_text(), path.name
        for number in numbers:
            assert f"{NAME} {number}" in result.stdout.str(), number
        return cells(the_record(world))

    start.path = world.path
    return start


def reasons(found: dict) -> list[str]:
    return [cell["verdict"]["reason"] for cell in found.values()]


@pytest.mark.parametrize("args", [(), ("-n", "2")])
def test_what_a_pair_source_of_the_user_says_is_printed_and_not_recorded(run, args):
    pairs = "ours, own, value, key, card, skipped, given, {use: album, params: {folder: x}}"
    found = run(range(1, 9), *args, pairs=pairs, alone=bool(args))
    ours, own, value, key, card, skipped, given, album = reasons(found)
    assert ours == own == "the data cannot be used; the output of the run says why"
    assert value.startswith("ValueError (conftest.py:")
    assert key.startswith("KeyError (conftest.py:")
    assert card.startswith("KeyError (conftest.py:")
    assert skipped.startswith("Skipped (conftest.py:")
    assert given == "the album holds 8 faces"
    assert "small.yaml:6:" in album
    assert "pairs 'album': ValueError (conftest.py:" in album
    assert {cell["verdict"]["outcome"] for cell in found.values()} == {"invalid"}


FILES = {
    "csv": f"img1,img2,label,id1,id2\n{NAME} 11.png,,1,x,x\n",
    "csv_triplets": f"anchor,mate,nonmate,anchor_id,mate_id,nonmate_id\n{NAME} 12,,x,x,x,x\n",
    "gallery_probe": f"G,P,T\n{NAME} 13.png,b.png,7,8\n",
    "arcface_pairs": f"a/1.jpg a/2.jpg 1\n{NAME} 19 x y\n",
    "listed": f"a/1 a/2 1\n{NAME} 14 x\n",
    "listed_triplets": f"a/1 a/2 b/1\n{NAME} 15 x\n",
    "calfw": f"{NAME} 16.jpg 1\n",
    "patch_lfw": f"a.jpg b.jpg 1\n{NAME} 17.jpg\n",
    "lfw": f"1\t1\n{NAME} 18 x\nb 1 c 1\n",
}


def test_what_the_readers_of_lists_say_of_a_line_is_printed_and_not_recorded(run):
    folder = run.path / NAME
    write_folder(folder, {NAME: 2})
    uses = []
    for number, (use, text) in enumerate(FILES.items()):
        (folder / f"list{number}.txt").write_text(text)
        key = "pairs_file" if use == "lfw" else "file"
        file = f"'{folder}/list{number}.txt'"
        uses.append(f"{{use: {use}, params: {{root: '{folder}', {key}: {file}}}}}")
    found = run(range(11, 20), pairs=", ".join(uses))
    for number, reason in enumerate(reasons(found)):
        assert reason.startswith(f"list{number}.txt:"), reason


def test_images_and_manifests_and_cards_that_cannot_be_used_are_not_recorded_by_name(run):
    folder = run.path / f"{NAME} 61"
    files = write_folder(folder, {f"{NAME} 62": 2, "Bob": 2})
    (folder / files[0]).write_text("no image")
    row = "{}/0001.png,{}/0002.png,1,{},{}\n"
    lines = [row.format(*[name] * 4) for name in (f"{NAME} 62", "Bob")]
    (folder / "pairs.csv").write_text("img1,img2,label,id1,id2\n" + "".join(lines))
    (folder / "gone.csv").write_text("img1,img2,label,id1,id2\n" + row.format(*[f"{NAME} 63"] * 4))
    (folder / "other.json").write_text(json.dumps({"images": [f"{NAME} 64"]}))
    (folder / "no.bin").write_bytes(pickle.dumps(NAME))
    (folder / "own.yaml").write_text(
        f"card: 1\nname: own\nweights: gone.safetensors\nsha256: {64 * 'a'}\n"
        "architecture: iresnet18\n"
    )
    root = f"root: '{folder}'"
    pairs = [
        f"{{use: csv, params: {{{root}, file: pairs.csv}}, as: a}}",
        f"{{use: csv, params: {{{root}, file: gone.csv}}, as: b}}",
        f"{{use: csv, params: {{{root}, file: pairs.csv, manifest_file: other.json}}, as: c}}",
        f"{{use: insightface_bin, params: {{file: '{folder}/no.bin'}}, as: d}}",
        f"{{use: identity_folders, params: {{root: '{folder}/none'}}, as: e}}",
        f"{{use: identity_folders, params: {{{root}, manifest_file: other.json}}, as: f}}",
    ]
    card = f"{{use: card, params: {{file: '{folder}/own.yaml'}}, as: acme}}"
    found = run(range(61, 65), models=f"tiny, {card}", pairs=", ".join(pairs))
    assert reasons(found)[:6] == [
        "1 of 4 images cannot be used; the first: expected the SHA-256 of the manifest, got "
        "another",
        "1 of 1 pairs have a missing image; the first is gone.csv:2",
        "other.json: images[0]: expected an object",
        "no.bin: expected a pickle of (list of encoded images, list of truth values), got "
        "something else",
        "the folder: cannot be read",
        "other.json: images[0]: expected an object",
    ]
    assert all("gone.safetensors: the weights" in reason for reason in reasons(found)[6:])


def test_what_models_of_the_user_say_is_printed_and_not_recorded(run):
    found = run((41, 42), models="rude, later")
    rude, later = reasons(found)
    assert "cannot embed (2, 3, 16, 16) images of its crop" in rude
    assert "KeyError (conftest.py:" in rude
    assert "embed raised KeyError (conftest.py:" in later


@pytest.mark.parametrize("args", [(), ("-n", "2")])
def test_what_explainers_of_the_user_say_is_printed_and_not_recorded(run, args):
    found = run(range(51, 55), *args, explainers="rude, moody, unsure, torn", alone=bool(args))
    rude, moody, unsure, torn = reasons(found)
    assert "ValueError (conftest.py:" in rude
    assert "KeyError (conftest.py:" in moody
    assert "Draw" not in moody  # advice on generators is none to an explainer that raises
    assert "unsupported(model) raised RuntimeError (conftest.py:" in unsure
    assert torn.startswith("teardown failed: RuntimeError (conftest.py:")
    raised = [row for row in rows_of(run.path) if row["state"] == "explainer_raised"]
    given = [
        row["reason"].removeprefix("not asked, as the first pairs all failed: ") for row in raised
    ]
    assert {reason.partition(" ")[0] for reason in given} == {"ValueError", "KeyError"}


def rows_of(path: Path) -> list[dict]:
    files = path.glob("reports/*/rows*.jsonl")
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def test_the_same_words_of_an_explainer_are_printed_once(run, world):
    run((51,), explainers="rude", pairs="{use: memory, n: 32}")
    result = world(edit=lambda _: (world.path / "suites" / "small.yaml").read_text())
    lines = [line for line in result.outlines if f"{NAME} 51" in line]
    assert len(lines) == 1
    assert lines[0].startswith("deletion[tiny-rude-memory]: ValueError: out of ideas")


def test_reasons_of_a_pair_source_are_printed_and_recorded_only_as_a_number(run, world):
    run((21, 22, 23), pairs="{use: aside, n: 32}")
    entry = the_record(world)["subjects"]["pairs"]["aside"]
    assert entry["set_aside"] == entry["excluded"] == {OTHER_REASON: 1}
    assert entry["card"]["failures"] == {OTHER_REASON: 1}


def test_data_that_cannot_be_verified_is_no_news_for_a_claim_of_the_record(run, world):
    run((31,), models="claiming", pairs="{use: crowd, n: 32}")
    [entry] = the_record(world)["verification"]
    assert entry["reason"] == "the data cannot be used; the output of the run says why"
    [claim] = entry["claims"]
    assert claim["verdict"]["reason"].startswith("not checked: the data cannot be used")
