"""The command that compares a model with its card: figures, claims, exit status."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
from click.testing import CliRunner

from fxeval.cli.check_model import check_model
from fxeval.datasets.lists.face_pack import FacePack
from fxeval.models.loading import file_digest
from fxeval.models.networks.mini_resnet import MiniResNet
from fxeval.suite.preflight import shipped_card

CARD = """\
card: 1
name: own
weights: own.safetensors
sha256: {digest}
architecture: mini_resnet
claims:
{claims}
"""
# Words in capitals stand for numbers about the measured accuracy and its interval.
FALSE = "  - {pairs: rendered_faces, metric: verification_accuracy, value: 1, within: HALF_WAY}"
TRUE = "  - {pairs: rendered, metric: verification_accuracy, value: LOWER_END}"
UNTOLD = "  - {pairs: rendered, metric: verification_accuracy, value: MIDDLE, within: 1.0e-6}"
BOUND = (
    "  - {pairs: renamed, of: list, list_digest: DIGEST, metric: verification_accuracy, "
    "value: MEASURED, within: 0.001}"
)
OTHERS = BOUND.replace("renamed", "rendered").replace("DIGEST", "sha256:" + "1" * 64)
UNBOUND = "  - {pairs: rendered, of: list, metric: verification_accuracy, value: MEASURED}"
ELSEWHERE = "  - {pairs: lfw_view2, metric: verification_accuracy, value: 0.99}"
TOO_RARE = "  - {pairs: rendered, metric: tmr_at_fmr_1e-3, value: 0.9}"


@pytest.fixture(scope="module")
def measured():
    """The figures of mini_resnet, measured once."""
    from fxeval.cli.check_model import _source
    from fxeval.engine.forward_pool import ForwardPool
    from fxeval.models.from_card import load_card
    from fxeval.verification.measured import measure_list

    return measure_list(
        load_card(shipped_card("mini_resnet")), _source("rendered", None), ForwardPool()
    )


@pytest.fixture
def run(measured, monkeypatch):
    """Runs the command; the embedding itself, the same for every card, is not repeated."""
    for name in ("FXEVAL_DATA", "FXEVAL_WEIGHTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(
        "fxeval.verification.measured.measure_list", lambda *args, **options: measured
    )
    return lambda *args: CliRunner().invoke(check_model, [*map(str, args), "--pairs", "rendered"])


@pytest.fixture
def told(measured):
    """Replaces words in capitals by what they stand for."""
    found = measured.verified.figures["verification_accuracy"]
    assert 0.9 < found.low < found.value < found.high < 1
    words = {
        "HALF_WAY": (1 - found.high) / 2, "LOWER_END": found.low, "BESIDE": found.value - 0.002,
        "MIDDLE": (found.low + found.high) / 2, "MEASURED": found.value,
        "DIGEST": measured.list_digest,
    }  # fmt: skip

    def replaced(text):
        for word, value in words.items():
            text = text.replace(word, str(value))
        return text

    return replaced


@pytest.fixture
def card(tmp_path, told):
    """Writes a card of the bundled weights with other claims."""

    def write(*claims, digest=None):
        weights = tmp_path / "own.safetensors"
        weights.write_bytes(shipped_card("mini_resnet").with_suffix(".safetensors").read_bytes())
        path = tmp_path / "own.yaml"
        path.write_text(
            CARD.format(
                digest=digest or file_digest(weights), claims=told("\n".join(claims)) or "  []"
            )
        )
        return path

    return write


def test_a_model_that_a_run_would_refuse_fails_for_the_same_reason(run, card):
    path = card()
    weights = path.with_name("own.safetensors")
    state, digest = safetensors.torch.load_file(weights), file_digest(weights)
    first = next(key for key, value in state.items() if value.ndim == 4)
    state[first] /= 255  # it expects pixels that are 255 times as large
    safetensors.torch.save_file(state, weights)
    path.write_text(path.read_text().replace(digest, file_digest(weights)))
    result = run(path)
    assert result.exit_code == 1, result.output
    assert "FAILS: model 'own': its embeddings of 8 faces of different people are nearly" in (
        result.output
    )


def test_a_shipped_model_keeps_its_word_and_every_check_is_shown(run, told):
    result = run("mini_resnet")
    assert result.exit_code == 0, result.output
    for word in ("card", "digest", "finite", "fits", "smoke", "golden", "faces", "gradient"):
        assert f"\n  {word:<10}" in f"\n{result.output}"
    tags = "training data: synthetic, family: convolutional"
    assert f"  card      mini_resnet: no faults; tags: {tags}\n" in result.output
    listing = FacePack(shipped_card("mini_resnet").parents[1] / "rendered_faces").listing()
    n, people = len(listing), len({*listing.probe_identity, *listing.reference_identity})
    mated = sum(listing.is_mated)
    assert f"{mated:,} mated, {n - mated:,} nonmated pairs of {people} identities" in result.output
    assert f"accuracy                        {float(told('MEASURED')):.4f} [" in result.output
    assert f"too few nonmated pairs: {n - mated:,}, at least 1,000 needed" in result.output
    assert "HOLDS: 2 of 2 claims" in result.output.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("claims", "status", "words"),
    [
        ([TRUE], 0, "HOLDS: 1 of 1 claims"),
        ([TRUE, ELSEWHERE], 0, "HOLDS: 1 of 1 claims"),
        ([FALSE], 1, "the whole interval lies below that"),
        ([TRUE, FALSE], 1, "FAILS: model own on rendered_faces"),
        (
            [TRUE, TOO_RARE],
            2,
            "CANNOT SAY: tmr_at_fmr_1e-3 0.9 within 0.003, of the population: not checked",
        ),
        ([UNTOLD], 2, "a part of the interval clears that, a part does not"),
        ([BOUND], 0, "HOLDS: 1 of 1 claims"),
        ([BOUND.replace("MEASURED", "BESIDE")], 1, "of this very list"),
        ([OTHERS], 2, "the digest of this one is DIGEST"),
        ([UNBOUND], 2, "If it is about this list, add list_digest: DIGEST"),
        ([ELSEWHERE], 2, "the card claims nothing about rendered_faces"),
    ],
)
def test_the_exit_status_says_whether_claims_hold(run, card, told, claims, status, words):
    result = run(card(*claims))
    assert result.exit_code == status, result.output
    assert told(words) in result.output


def test_the_json_holds_checks_figures_and_outcome(run, card):
    found = json.loads(run(card(TRUE), "--json").output)
    assert (found["outcome"], found["model"][-8:], found["pairs"]) == (
        "holds", "own.yaml", "rendered",
    )  # fmt: skip
    assert [one["check"] for one in found["checks"]] == [
        "card", "digest", "finite", "fits", "smoke", "golden", "faces", "gradient"]  # fmt: skip
    assert found["checks"][0]["text"] == "own: no faults; tags: none"
    figures = {one["metric"]: one for one in found["verification"]["figures"]}
    accuracy = figures["verification_accuracy"]
    assert 0.9 < accuracy["low"] < accuracy["value"] < accuracy["high"] < 1
    assert figures["tmr_at_fmr_1e-3"]["value"] is None


def test_a_check_that_fails_ends_it_after_those_that_passed(run, card, told, tmp_path):
    wrong = run(card(TRUE, digest="a" * 64))
    assert wrong.exit_code == 1
    assert "  card" in wrong.output
    assert "  digest" not in wrong.output
    assert "FAILS: " in wrong.output
    assert "SHA-256 aaaa" in wrong.output
    path = card(TRUE)
    state = MiniResNet().state_dict()
    state[next(iter(state))] *= float("nan")
    safetensors.torch.save_file(state, tmp_path / "own.safetensors")
    digest = file_digest(tmp_path / "own.safetensors")
    path.write_text(CARD.format(digest=digest, claims=told(TRUE)))
    broken = json.loads(run(path, "--json").output)
    assert broken["outcome"] == "fails"
    assert [one["check"] for one in broken["checks"]] == ["card", "digest"]
    assert "NaN" in broken["reason"]
    assert broken["verification"] is None


@pytest.mark.parametrize(
    ("args", "status", "words"),
    [
        (("mini_resnet", "--pairs", "lfw"), 2, "Pass --data DIR or set FXEVAL_DATA"),
        (("mini_resnet", "--pairs", "nowhere.csv"), 2, "rendered_twins or lfw, or an existing"),
        (("mini_resnet",), 2, "--pairs"),
        (
            ("edgeface_xs", "--pairs", "rendered"),
            2,
            "does not exist. Name its folder with --weights",
        ),
        (("mini-resnett", "--pairs", "rendered"), 2, "Did you mean 'mini_resnet'?"),
    ],
)
def test_what_is_not_there_is_named(args, status, words, monkeypatch):
    for name in ("FXEVAL_DATA", "FXEVAL_WEIGHTS"):
        monkeypatch.delenv(name, raising=False)
    result = CliRunner().invoke(check_model, args)
    assert result.exit_code == status, result.output
    assert words in result.output


@pytest.mark.parametrize(("id", "nuisance"), [("rendered_age", "aged"), ("rendered_pose", "posed")])
def test_each_list_of_rendered_faces_can_be_named(id, nuisance):
    from fxeval.cli.check_model import _source

    assert _source(id, None).nuisance == nuisance


def test_nothing_measured_is_nothing_said(run, card, monkeypatch, measured):
    nothing = replace(measured, verified=None, reason="the list has no nonmated pairs")
    monkeypatch.setattr(
        "fxeval.verification.measured.measure_list", lambda *args, **options: nothing
    )
    result = run(card(TRUE))
    assert result.exit_code == 2
    assert "not measured: the list has no nonmated pairs" in result.output


def test_the_command_needs_no_torch_to_be_imported():
    code = "import sys, fxeval.cli.check_model; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_list_of_one_s_own_is_measured(card, tmp_path, monkeypatch):
    """Through everything, with the bundled faces under another list."""
    monkeypatch.delenv("FXEVAL_DATA", raising=False)
    from fxeval.cli.check_model import _source

    rendered = _source("rendered", None)
    listing = rendered.listing()
    table = tmp_path / "mine.csv"
    rows = [
        f"{one},{two},{int(mated)},{a},{b}"
        for one, two, mated, a, b in zip(
            listing.probe, listing.reference, listing.is_mated,
            listing.probe_identity, listing.reference_identity, strict=True,
        )
    ]  # fmt: skip
    n_mated = sum(listing.is_mated)
    some = rows[:60] + rows[n_mated : n_mated + 100]
    table.write_text("\n".join(["img1,img2,label,id1,id2", *some]) + "\n")
    result = CliRunner().invoke(
        check_model, ["mini_resnet", "--pairs", str(table), "--data", str(Path(rendered.root))]
    )
    assert "mine: 60 mated, 100 nonmated pairs" in result.output, result.output
    assert result.exit_code == 2  # the card claims nothing about it
    assert "CANNOT SAY: the card claims nothing about mine" in result.output


def test_golden_embeddings_that_are_not_there_leave_it_open_whether_the_card_holds(run, card):
    file = card(TRUE)
    golden = "golden: {file: gone.npz, images: a, embeddings: b}\n"
    file.write_text(file.read_text() + golden)
    result = run(file)
    assert result.exit_code == 2
    assert "gone.npz does not exist" in result.output.splitlines()[-1]
