"""The command ``fxeval data prepare``."""

import importlib
import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from fxeval.datasets.faces.alignment import CROPS
from fxeval.datasets.preparing import preparation

# As an attribute of its package the module's name stands for the command.
command = importlib.import_module("fxeval.cli.data")
HEADER = "file,x1,y1,x2,y2,x3,y3,x4,y4,x5,y5\n"
FACE = "30,40,60,40,45,55,33,70,57,70"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch) -> Path:
    """Two images of Ann, one of Bob whose landmarks nobody gave."""
    monkeypatch.chdir(tmp_path)
    for name in ("Ann/1.png", "Ann/2.png", "Bob/1.png"):
        (tmp_path / "faces" / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / "faces" / name), np.full((90, 80, 3), 99, np.uint8))
    (tmp_path / "a.csv").write_text(f"{HEADER}Ann/1.png,{FACE}\nAnn/2.png,{FACE}\n")
    return tmp_path


def run(*args: str):
    return CliRunner().invoke(command.data, ["prepare", *args])


def test_faces_are_prepared_and_failures_printed_as_a_table(folder):
    done = run("faces", "out", "--landmarks", "a.csv", "--licence", "CC0")
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines() == [
        "2 images can be used, 1 can't.",
        "Manifest: out/manifest.json",
        "",
        "reason              images  files",
        "no landmarks given       1  Bob/1.png",
    ]
    assert done.stderr == ""
    assert json.loads(Path("out/manifest.json").read_text())["licence"] == "CC0"
    assert "(3 images were done already)" in run("faces", "out", "--landmarks", "a.csv").stdout


def test_without_a_usable_image_the_exit_code_says_so(folder):
    (folder / "a.csv").write_text(HEADER)
    done = run("faces", "out", "--landmarks", "a.csv")
    assert done.exit_code == 1
    assert re.search(r"no landmarks given +3  Ann/1\.png, Ann/2\.png, Bob/1\.png$", done.stdout)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["faces", "out"], "expected either --detector or --landmarks"),
        (["faces", "out", "--landmarks", "a.csv", "--detector", "x"], "expected either --detector"),
        (["faces", "out", "--detector", "missing.onnx"], "missing.onnx: cannot be read"),
        (["faces", "out", "--detector", "a.csv"], "SHA-256 of a known YuNet"),
        (["faces", "out", "--detector", "a.csv", "--confidence", "7"], "confidence"),
        (["faces", "out", "--landmarks", "faces"], "expected a file, got a folder"),
        (["faces", "out", "--landmarks", "a.csv", "--crop", "none\x1b"], r"unknown crop 'none\?'"),
        (["faces", "faces/out", "--landmarks", "a.csv"], "nor is inside it"),
        (["missing", "out", "--landmarks", "a.csv"], "expected a folder of images"),
    ],
)
def test_what_cannot_be_done_is_one_line_without_a_traceback(folder, args, message):
    done = run(*args)
    assert done.exit_code == 1
    assert re.search(message, done.stderr), done.stderr
    assert done.stderr.startswith("Error: ")
    assert isinstance(done.exception, SystemExit)


def test_a_run_with_other_settings_is_refused(folder):
    run("faces", "out", "--landmarks", "a.csv")
    done = run("faces", "out", "--landmarks", "a.csv", "--crop", "dlib150")
    assert done.exit_code == 1
    assert "arcface112, now dlib150" in done.stderr


def test_only_a_manifest_can_be_written(folder):
    done = run("faces", "out", "--landmarks", "a.csv", "--landmarks-only", "--may-show")
    assert done.exit_code == 0
    raw = json.loads(Path("out/manifest.json").read_text())
    assert (raw["crop"], raw["may_show"]) == (None, True)
    assert [path.name for path in Path("out").iterdir() if path.name[0] != "."] == ["manifest.json"]


def test_names_with_control_characters_reach_no_terminal(folder):
    shutil.move("faces/Bob", "faces/B\x1b[2Job")
    done = run("faces", "out", "--landmarks", "a.csv")
    assert "\x1b" not in done.output
    assert "B?[2Job/1.png" in done.stdout


def test_a_run_says_now_and_then_how_far_it_is(folder, monkeypatch):
    monkeypatch.setattr(command, "SECONDS_BETWEEN_LINES", 0.0)
    done = run("faces", "out", "--landmarks", "a.csv")
    assert done.stderr.splitlines() == [
        "1 of 3 images, 0 can't be used",
        "2 of 3 images, 0 can't be used",
        "3 of 3 images, 1 can't be used",
    ]


def test_a_run_that_is_interrupted_says_how_to_go_on(folder, monkeypatch):
    def interrupted(*_args):
        raise KeyboardInterrupt

    monkeypatch.setattr(preparation, "prepare", interrupted)
    done = run("faces", "out", "--landmarks", "a.csv")
    assert done.exit_code == 1
    assert "start it again with the same settings" in done.stderr


def test_the_help_names_every_crop():
    text = " ".join(run("--help").stdout.split())
    for name in CROPS:
        assert name in text


def test_a_crop_can_be_a_size_of_arcface_or_json(folder):
    template = [[33, 44], [63, 44], [48, 61], [36, 79], [61, 79]]
    mine = json.dumps({"name": "mine", "size": [96, 80], "template": template})
    for crop, size in (("arcface224", (224, 224)), (mine, (96, 80))):
        done = run("faces", f"out-{size[0]}", "--landmarks", "a.csv", "--crop", crop)
        assert done.exit_code == 0, done.output
        assert cv2.imread(f"out-{size[0]}/Ann/1.png").shape[:2] == size
    done = run("faces", "out", "--landmarks", "a.csv", "--crop", "{")
    assert done.stderr.startswith("Error: --crop: expected JSON (")


def test_links_small_faces_and_formats_are_told_with_what_to_do(folder):
    (folder / "faces" / "again").symlink_to(folder / "faces" / "Ann")
    cv2.imwrite(str(folder / "faces/Ann/3.png"), np.full((90, 80, 3), 99, np.uint16))
    tiny = ",".join(str(20 + float(value) / 9) for value in FACE.split(","))
    (folder / "a.csv").write_text(f"{HEADER}Ann/1.png,{FACE}\nAnn/2.png,{tiny}\n")
    done = run("faces", "out", "--landmarks", "a.csv")
    assert "not followed: 1 (again). Prepare what they point to" in done.stdout
    assert re.search(r"more than twice .*: 1, up to 1\d\.\d times \(Ann/2\.png\)\.", done.stdout)
    assert "not 8 bits a channel: save them with 8 bits a channel." in done.stdout
