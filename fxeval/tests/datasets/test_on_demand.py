"""Faces that are rendered when they are first used."""

import json
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fxeval.contracts import LabelSource, PairSource
from fxeval.datasets.faces.alignment import ARCFACE_112
from fxeval.datasets.faces.face_folder import FaceFolder
from fxeval.datasets.lists.face_pack import BANNER
from fxeval.datasets.prepared_source import PreparedSource
from fxeval.errors import DataContractError
from fxeval.fixtures.synthetic import make_pack, on_demand
from fxeval.fixtures.synthetic.identity import sample_identity
from fxeval.fixtures.synthetic.nuisance import sample_nuisance
from fxeval.fixtures.synthetic.on_demand import RenderedOnDemand, cache_folder
from fxeval.fixtures.synthetic.render import Rendering, render
from fxeval.fixtures.synthetic.training_set import CALIBRATION, PACK, TRAINING
from fxeval.run.workshop import Subjects, Workshop
from fxeval.suite.cells import Use
from fxeval.tests.run.test_workshop import CELL, Mean, tiny

SMALL = RenderedOnDemand(n_identities=2, n_images=2)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FXEVAL_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Noise in place of renderings; the seeds of those that were asked for."""
    asked: list[int] = []

    def noise(person, nuisance):
        asked.append(person.seed)
        generator = np.random.default_rng([person.seed, nuisance.seed])
        image = generator.integers(0, 256, (112, 112, 3), np.uint8)
        return Rendering(image, image[:, :, 0] % 19, *[None] * (len(Rendering.__annotations__) - 2))

    monkeypatch.setattr(make_pack, "render", noise)
    return asked


def again(**values) -> RenderedOnDemand:
    """The same list, as another process has it."""
    return RenderedOnDemand(**{"n_identities": 2, "n_images": 2, **values})


def folders(cache: Path) -> list[Path]:
    return sorted(one for one in (cache / "rendered").iterdir() if one.is_dir())


def files(folder: Path) -> dict[str, bytes]:
    return {one.name: one.read_bytes() for one in folder.iterdir()}


def test_the_faces_are_those_of_their_seeds_with_their_labels(cache):
    source = again(first_seed=300_000, nuisance="aged")
    assert isinstance(source, PairSource)
    assert isinstance(source, LabelSource)
    assert isinstance(source, PreparedSource)
    assert source.banner == BANNER
    assert source.name == "rendered_on_demand_age"
    listing = source.listing()
    assert listing.is_mated == (True, True, False, False)
    assert {*listing.probe_identity} <= {"300000", "300001"}
    expected = render(sample_identity(300_001), sample_nuisance(300_001, 1, "aged"))
    found = source.images(["300001_1.jpg"], ARCFACE_112)[0].permute(1, 2, 0).numpy()
    assert np.abs(found.astype(int) - expected.image).mean() < 6  # JPEG's own loss
    labels = source.labels(["300001_1.jpg"], ARCFACE_112).labels[0]
    assert np.array_equal(labels, expected.labels)
    points = source.landmarks(["300001_1.jpg"], ARCFACE_112)[0]
    assert np.abs(points.numpy() - ARCFACE_112.template).max() < 1
    coarse = replace(source, regions="coarse").labels(["300001_1.jpg"], ARCFACE_112)
    assert coarse.source == "five landmarks (coarse)"
    assert source.card().n_images == 4
    face = FaceFolder(folders(cache)[0]).faces[3]
    assert face.attributes.keys() == {
        "nuisance",
        "yaw_degrees",
        "pitch_degrees",
        "age",
        "look",
    }
    assert face.attributes["nuisance"] == "aged"
    [folder] = folders(cache)
    assert folder.name.startswith("v")
    assert "-300000-2x2-aged-numpy-" in folder.name


def test_what_is_in_the_cache_is_not_rendered_again(quick, cache):
    counts: list[tuple[int, int]] = []
    again().prepare(lambda done, total: counts.append((done, total)))
    assert counts == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert len(quick) == 4
    other = again()
    other.prepare(lambda done, total: counts.append((done, total)))
    assert len(other.listing()) == 4
    assert (len(quick), len(counts)) == (4, 4)
    again(n_images=3).listing()
    assert len(quick) == 4 + 6  # other parameters are other faces
    assert len(folders(cache)) == 2
    again(seed=3).listing()
    assert len(folders(cache)) == 2  # the draw of pairs needs no faces of its own


def test_the_same_faces_are_the_same_bytes(quick, cache, monkeypatch):
    again().listing()
    [folder] = folders(cache)
    first = files(folder)
    monkeypatch.setenv("FXEVAL_CACHE", str(cache / "elsewhere"))
    again().listing()
    [other] = folders(cache / "elsewhere")
    assert files(other) == first
    assert folder.name == other.name
    assert sorted(first) == [
        "200000_0.jpg", "200000_1.jpg", "200001_0.jpg", "200001_1.jpg", "labels.npz",
        "manifest.json", "manifest.sha256",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["200001_0.jpg", "labels.npz", "manifest.json", "manifest.sha256"])
@pytest.mark.parametrize("damage", ["gone", "cut", "changed"])
def test_a_damaged_cache_is_rendered_again(quick, cache, name, damage):
    again().listing()
    [folder] = folders(cache)
    sound = files(folder)
    data = bytearray(sound[name])
    data[-20] ^= 1
    if damage == "gone":
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(data if damage == "changed" else data[:-5])
    again().listing()
    assert len(quick) == 8
    assert folders(cache) == [folder]  # and nothing beside it
    assert files(folder) == sound


def test_a_manifest_of_other_faces_is_not_taken_for_sound(quick, cache):
    again().listing()
    [folder] = folders(cache)
    content = json.loads((folder / "manifest.json").read_text())
    content["images"].pop()
    text = json.dumps(content)
    (folder / "manifest.json").write_text(text)
    (folder / "manifest.sha256").write_text(on_demand._sha256(text.encode()))
    assert len(again().listing()) == 4
    assert len(quick) == 8


def test_rendering_that_is_interrupted_leaves_nothing(quick, cache):
    def interrupt(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        again().prepare(interrupt)
    assert folders(cache) == []
    assert len(again().listing()) == 4


@pytest.mark.parametrize("ending", ["part", "damaged"])
def test_what_a_process_left_that_was_ended_is_removed(quick, cache, ending):
    again().listing()
    [folder] = folders(cache)
    left = folder.with_name(f"{folder.name}.1-abc.{ending}")
    folder.rename(left)
    again().listing()
    assert folders(cache) == [folder]


def test_one_renders_while_another_waits(quick, cache):
    start = threading.Barrier(3)

    def run() -> None:
        start.wait()
        again().listing()

    threads = [threading.Thread(target=run) for _ in range(3)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(quick) == 4
    assert len(folders(cache)) == 1


def test_without_locks_the_faces_of_one_are_kept(quick, cache, monkeypatch):
    def no_lock(file, how):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(on_demand.fcntl, "flock", no_lock)

    def meanwhile(done: int, total: int) -> None:
        if done == 2:  # another process starts later and ends earlier
            again().listing()

    source = again()
    source.prepare(meanwhile)
    assert len(quick) == 8
    assert len(folders(cache)) == 1
    assert len(source.listing()) == 4


def test_two_processes_at_once_have_the_same_faces(cache):
    code = (
        "from fxeval.fixtures.synthetic.on_demand import RenderedOnDemand as R\n"
        "source = R(n_identities=2, n_images=2)\n"
        "print(source.card().root_digest, *source.listing().probe)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as other:
        own = again()
        expected = " ".join([str(own.card().root_digest), *own.listing().probe])
        assert other.communicate()[0].strip() == expected
    assert other.returncode == 0
    assert len(folders(cache)) == 1


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"first_seed": TRAINING[0]}, "'first_seed': .* the seeds 1000 to 1199, and 1000 to 1799"),
        ({"first_seed": TRAINING[-1]}, "those that the bundled networks were trained on"),
        ({"first_seed": TRAINING[0] - 1, "n_identities": 2}, "were trained on"),
        ({"first_seed": 0, "n_identities": 5000}, "were trained on.* Start at 200000 or above"),
        ({"first_seed": CALIBRATION[0] - 100}, "those that their thresholds were set with"),
        ({"first_seed": PACK[-1]}, "the bundled ones"),
        ({"first_seed": -1}, "'first_seed': expected 0 to 999999800, got -1"),
        ({"first_seed": 10**9}, "'first_seed': expected 0 to"),
        ({"n_identities": 1}, "'n_identities': expected 2 to 5000, got 1"),
        ({"n_identities": 5001}, "'n_identities': expected 2 to 5000, got 5001"),
        ({"n_images": 1}, "'n_images': expected 2 to 20, got 1"),
        ({"n_images": 21}, "'n_images': expected 2 to 20, got 21"),
        ({"nuisance": "wild"}, "'nuisance': expected mild, aged or posed, got 'wild'"),
    ],
)
def test_what_cannot_be_rendered_is_refused_before_anything_is(params, message, cache):
    with pytest.raises(DataContractError, match=message):
        RenderedOnDemand(**params)
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("first", [TRAINING.stop, CALIBRATION.stop, PACK.stop])
def test_people_next_to_those_of_another_set_are_further_people(first):
    assert RenderedOnDemand(first_seed=first).seeds[0] == first


def test_a_cache_that_cannot_be_written_is_one_plain_error(cache, monkeypatch, quick):
    (cache / "file").write_text("")
    monkeypatch.setenv("FXEVAL_CACHE", str(cache / "file"))
    with pytest.raises(DataContractError, match=r"cannot be kept .*set FXEVAL_CACHE") as error:
        again().listing()
    assert str(cache) not in error.value.public


def test_a_full_disk_leaves_nothing(cache, monkeypatch, quick):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(make_pack, "encoded", full)
    with pytest.raises(DataContractError, match=r"No space left on device\). Make room"):
        again().listing()
    assert folders(cache) == []


def test_the_cache_is_the_user_s_own_unless_another_is_named(monkeypatch, tmp_path):
    assert cache_folder() == tmp_path
    monkeypatch.delenv("FXEVAL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    assert cache_folder() == tmp_path / "caches" / "fxeval"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder().parent.parent == Path.home()


def test_a_run_shows_how_many_images_are_rendered(quick):
    shown = []
    workshop = Workshop(
        batch_size=16, emit=lambda rows: None, progress=lambda *said: shown.append(said)
    )
    cell = replace(CELL, pairs=Use("rendered_on_demand"))
    workshop.prepare(cell, Subjects(tiny(), Mean(), again()))
    assert [one for one in shown if one[1] == "preparing"] == [
        (cell.id, "preparing", done, 4) for done in (1, 2, 3, 4)
    ]
