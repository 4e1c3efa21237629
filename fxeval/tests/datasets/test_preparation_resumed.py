"""A preparation that is interrupted, or started again after something changed."""

import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fxeval.datasets.faces.alignment import DLIB_150
from fxeval.datasets.faces.manifests import read_manifest
from fxeval.datasets.preparing.detection import DetectedLandmarks
from fxeval.datasets.preparing.preparation import Settings, prepare
from fxeval.errors import DataContractError, StoreError
from fxeval.tests.photographs import Given, Seen, content, draw, photographs, run


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return photographs(tmp_path / "source")


def test_a_second_run_does_nothing_again(source):
    first, before = run(source), content(source.parent / "target")
    landmarks = Given()
    second = run(source, landmarks)
    assert landmarks.asked == []
    assert second.n_kept == first.n_images == 4
    assert content(source.parent / "target") == before


def test_what_changed_is_done_again_and_what_is_gone_is_removed(source):
    run(source)
    draw(source / "Ann" / "0001.jpg", 77)
    (source / "Bob" / "img7.jpeg").unlink()
    draw(source / "Eve" / "1.png", 5)
    (source.parent / "target" / "x" / "Cid" / "3.png").write_bytes(b"damaged")
    landmarks = Given()
    done = run(source, landmarks)
    assert sorted(landmarks.asked) == ["Ann/0001.jpg", "Eve/1.png", "x/Cid/3.JPG"]
    assert done.n_kept == 1
    run(source, to="fresh")
    assert content(source.parent / "target") == content(source.parent / "fresh")


def test_what_somebody_else_put_beside_the_faces_is_left_alone(source):
    run(source)
    (source.parent / "target" / "Bob" / "img7.png").write_bytes(b"edited by hand")
    (source.parent / "target" / "README").write_text("mine")
    (source / "Bob" / "img7.jpeg").unlink()
    run(source)
    assert (source.parent / "target" / "Bob" / "img7.png").read_bytes() == b"edited by hand"
    assert (source.parent / "target" / "README").exists()


KILLED = """
import os, signal, sys
from pathlib import Path
from fxeval.datasets.preparing.preparation import Settings, prepare

class Deadly:
    left = int(sys.argv[3])
    def landmarks(self, picture):
        self.left -= 1
        if self.left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return ((30.0, 40.0), (61.0, 42.0), (45.0, 55.0), (33.0, 70.0), (57.0, 71.0))
    def settings(self):
        return {"name": "given"}

prepare(Path(sys.argv[1]), Path(sys.argv[2]), Deadly(), Settings())
"""


def test_a_run_that_was_killed_goes_on_to_the_same_bytes(tmp_path):
    source = tmp_path / "source"
    for row in range(150):
        draw(source / f"P{row % 7}" / f"{row:04d}.jpg", row)
    (source / "P0" / "0000broken.jpg").write_bytes(b"\xff\xd8")
    whole = run(source, to="whole")
    for after in (70, 40):
        args = [sys.executable, "-c", KILLED, str(source), str(tmp_path / "target"), str(after)]
        killed = subprocess.run(args, capture_output=True, timeout=120, check=False)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert not (tmp_path / "target" / "manifest.json").exists()
    done = run(source)
    assert done.n_kept >= 64
    assert (done.n_images, done.failures) == (whole.n_images, whole.failures)
    assert content(tmp_path / "target") == content(tmp_path / "whole")


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_a_journal_that_was_cut_or_damaged_costs_work_and_nothing_else(source, data):
    target = source.parent / "target"
    shutil.rmtree(target, ignore_errors=True)
    run(source)
    expected, journal = content(target), target / ".prepare.jsonl"
    header, *lines = journal.read_bytes().splitlines(keepends=True)
    body = bytearray(b"".join(lines))
    if data.draw(st.booleans()):
        body = body[: data.draw(st.integers(0, len(body)))]
    for _ in range(data.draw(st.integers(0, 5))):
        if body:
            body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    journal.write_bytes(header + bytes(body) + data.draw(st.binary(max_size=20)))
    run(source)
    assert content(target) == expected


@pytest.mark.parametrize("cut", [0, 5, -1])
def test_a_journal_cut_in_its_first_line_is_begun_anew(source, cut):
    run(source)
    journal = source.parent / "target" / ".prepare.jsonl"
    before = content(source.parent / "target")
    journal.write_bytes(journal.read_bytes().splitlines()[0][:cut])
    assert run(source).n_kept == 0
    assert content(source.parent / "target") == before
    assert run(source).n_kept == 4


def test_a_run_with_other_settings_is_refused_and_says_which(source):
    run(source)
    with pytest.raises(DataContractError, match=r"crop\.name: arcface112, now dlib150.*empty"):
        run(source, crop=DLIB_150)
    with pytest.raises(DataContractError, match=r"landmarks\.name: given, now seen"):
        run(source, DetectedLandmarks(Seen()))
    done = run(source, licence="CC0", may_show=True)
    assert done.n_kept == 4
    assert read_manifest(done.manifest).may_show


def test_two_runs_at_once_are_refused(source):
    refused = []

    def meanwhile(_done, _all, _failed):
        with pytest.raises(DataContractError, match="being prepared by another run") as caught:
            run(source)
        refused.append(caught)

    prepare(source, source.parent / "target", Given(), Settings(), meanwhile)
    assert len(refused) == 4
    assert run(source).n_kept == 4


def test_a_journal_whose_numbers_were_changed_is_not_believed(source):
    run(source)
    expected, journal = content(source.parent / "target"), source.parent / "target/.prepare.jsonl"
    changed = journal.read_bytes().replace(b"61.0", b"67.0")
    assert changed != journal.read_bytes()
    journal.write_bytes(changed)
    assert run(source).n_kept == 0
    assert content(source.parent / "target") == expected


def test_after_a_cut_line_the_journal_goes_on_with_a_new_one(source):
    run(source)
    journal = source.parent / "target" / ".prepare.jsonl"
    journal.write_bytes(journal.read_bytes()[:-30])
    assert run(source).n_kept == 3
    assert run(source).n_kept == 4


@pytest.mark.parametrize("method", ["write_bytes", "replace"])
def test_a_full_disk_is_said_and_the_run_goes_on_later(source, monkeypatch, method):
    original, calls = getattr(Path, method), []

    def full(path, *args):
        calls.append(path)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(path, *args)

    monkeypatch.setattr(Path, method, full)
    with pytest.raises(StoreError, match=r"No space left.*continues where it stopped"):
        run(source)
    assert not list((source.parent / "target").rglob("*.part"))
    monkeypatch.undo()
    assert run(source).n_kept == 2
    run(source, to="fresh")
    assert content(source.parent / "target") == content(source.parent / "fresh")


def test_a_journal_on_a_full_disk_is_said(source, monkeypatch):
    def full(_descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match=r"prepare\.jsonl: .*No space left"):
        run(source)
    monkeypatch.undo()
    run(source)
    run(source, to="fresh")
    assert content(source.parent / "target") == content(source.parent / "fresh")
