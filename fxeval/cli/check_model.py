"""``fxeval check-model``: checks whether the claims of a model's card hold."""

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fxeval.errors import DataContractError, FxevalError, ModelContractError
from fxeval.strict.text import either

if TYPE_CHECKING:
    from fxeval.contracts import FaceModel, PairSource
    from fxeval.models.cards import ModelCard

_HOLDS, _FAILS, _CANNOT_SAY = 0, 1, 2
_DLIB = "dlib_resnet"
_RENDERED = ("rendered", "rendered_age", "rendered_pose", "rendered_twins")


@click.command("check-model")
@click.argument("model")
@click.option(
    "--pairs",
    required=True,
    help=f"{either([*_RENDERED, 'lfw'])}, a .csv of pairs, or a list in LFW's format.",
)
@click.option(
    "--data", type=click.Path(path_type=Path), help="Folder of faces (default: $FXEVAL_DATA)."
)
@click.option(
    "--weights",
    type=click.Path(path_type=Path),
    help="Folder of weights (default: $FXEVAL_WEIGHTS).",
)
@click.option("--flip-fusion", is_flag=True, help="Fuse with the mirror image's embedding.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check_model(
    model: str,
    pairs: str,
    data: Path | None,
    weights: Path | None,
    flip_fusion: bool,
    as_json: bool,
) -> None:
    """Load a model, by its card or a shipped id, and measure how well it verifies.

    Exit status: 0 if every claim of the card about these pairs is shown; 1 if a claim is refuted,
    a check of the file fails, or the model does not tell mated from nonmated pairs; 2 if that
    cannot be told.
    """
    data = data or _folder("FXEVAL_DATA")
    weights = weights or _folder("FXEVAL_WEIGHTS") or (data / "weights" if data else None)
    report: dict[str, Any] = {"model": model, "pairs": pairs, "checks": [], "verification": None}
    try:
        status, reason = _check(report, (model, weights), (pairs, data), (flip_fusion, not as_json))
    except ModelContractError as error:
        status, reason = _FAILS, str(error)
    except FxevalError as error:
        status, reason = _CANNOT_SAY, str(error)
    outcome = {_HOLDS: "holds", _FAILS: "fails", _CANNOT_SAY: "cannot_say"}[status]
    if as_json:
        from fxeval.records.writing import json_text

        click.echo(json_text({**report, "outcome": outcome, "reason": reason}), nl=False)
    else:
        click.echo(f"{outcome.replace('_', ' ').upper()}: {reason}")
    raise SystemExit(status)


def _check(
    report: dict[str, Any],
    model: tuple[str, Path | None],
    pairs: tuple[str, Path | None],
    how: tuple[bool, bool],
) -> tuple[int, str]:
    """Fill the report; return the exit status and why."""
    from fxeval.engine.forward_pool import ForwardPool
    from fxeval.models.cards import read_card
    from fxeval.models.from_card import inside, load_card
    from fxeval.models.loading import read_weights
    from fxeval.scorecard.verification_rows import golden_text, tags_text
    from fxeval.verification.claims import entry_of
    from fxeval.verification.demands import Verification
    from fxeval.verification.measured import measure_list

    flip_fusion, aloud = how

    def passed(check: str, text: str) -> None:
        report["checks"].append({"check": check, "text": text})
        if aloud:
            click.echo(f"  {check:<10}{text}")

    source = _source(*pairs)
    file = _card_file(model[0])
    card = read_card(file)
    passed("card", f"{card.name}: no faults; tags: {tags_text(card.tags.model_dump())}")
    folder = _weights_of(card, model[1])
    if not (folder / card.weights).is_file():
        raise DataContractError(
            f"model '{card.name}': {folder / card.weights} does not exist. Name its folder with "
            f"--weights DIR or FXEVAL_WEIGHTS (source: {card.source or 'its vendor'})."
        )
    read_weights(inside(folder, card.weights, f"model '{card.name}'"), card.sha256)
    passed("digest", f"SHA-256 {card.sha256}")
    loaded = load_card(file, folder)
    module = loaded.module
    n = f"{sum(p.numel() for p in module.parameters()):,} parameters" if module else "black box"
    passed("finite", "no weight is NaN or infinite")
    passed("fits", f"{card.architecture or card.format}, {n}, {loaded.traits.runtime}")
    passed("smoke", "two noise images: finite, different, independent of their batch")
    passed("golden", golden_text(loaded.golden._asdict()))
    for check, text in _admitted(loaded, source):
        passed(check, text)
    measured = measure_list(
        loaded, source, ForwardPool(batch_size=16), flip_fusion=flip_fusion, progress=_told(aloud)
    )
    if measured.fault:
        raise DataContractError(measured.fault, public=measured.reason)
    entry = entry_of(measured, loaded, (source.name, pairs[0]), Verification())
    report["verification"] = entry
    if aloud:
        for line in _lines(entry):
            click.echo(line)
    status, reason = _judged(entry)
    if status == _HOLDS and loaded.golden.state == "not_checked" and card.golden is not None:
        return _CANNOT_SAY, f"{reason}, but {_no_golden(folder / card.golden.file)}"
    return status, reason


def _no_golden(file: Path) -> str:
    return (
        f"the golden embeddings are not checked: {file} does not exist. Put it there, or remove "
        "'golden' from the card."
    )


def _admitted(model: "FaceModel", source: "PairSource") -> list[tuple[str, str]]:
    """Return what a few faces of the list say about the model, as a run would find it.

    Raises:
        ModelContractError: If a run would refuse the model.
    """
    from fxeval.engine.selection import load_pairs
    from fxeval.models.admission import FACES, admit
    from fxeval.models.loading import device_of

    listing = source.listing()
    first = {who: row for row, who in reversed(list(enumerate(listing.probe_identity)))}
    rows = sorted(first.values())[:FACES]
    if not rows:
        return []  # nothing can be measured, which is said below
    faces = load_pairs(source, listing.take(rows), model.crop).faces()
    found = admit(model, faces, device_of(model))
    is_known = math.isfinite(found.spread)
    apart = f"{found.spread:.2f} of their length apart, " if is_known else ""
    gradient = "none: a black box" if model.module is None else "finite, with respect to the image"
    return [
        ("faces", f"{found.n_faces} of the list: {apart}repeatable, independent of their batch"),
        ("gradient", found.no_gradient or gradient),
    ]


def _judged(entry: dict[str, Any]) -> tuple[int, str]:
    from fxeval.records.subjects import is_elsewhere

    about = [one for one in entry["claims"] if not is_elsewhere(one)]
    fault = entry["operating_threshold"]["fault"]
    if faults := [*entry["objections"], *([fault] if fault else [])]:
        return _FAILS, "; ".join(faults)
    if not entry["measured"]:
        return _CANNOT_SAY, f"nothing was measured: {entry['reason']}"
    if not about:
        return _CANNOT_SAY, f"the card claims nothing about {entry['pair_list']}"
    unchecked = [one for one in about if one["verdict"]["outcome"] != "pass"]
    if unchecked:
        reasons = (f"{one['text']}: {one['verdict']['reason']}" for one in unchecked)
        return _CANNOT_SAY, "; ".join(reasons)
    return _HOLDS, f"{len(about)} of {len(about)} claims about {entry['pair_list']} are shown"


def _source(pairs: str, data: Path | None) -> "PairSource":
    """Return the pair list of a shipped id or a file.

    Raises:
        DataContractError: If it does not exist, or its folder is not named.
    """
    from importlib.resources import files

    from fxeval.datasets import shipped
    from fxeval.datasets.lists.lfw import LfwPairs
    from fxeval.datasets.lists.tables import CsvPairs

    if pairs in _RENDERED:
        pack = Path(str(files("fxeval.fixtures"))) / "data" / "rendered_faces"
        source: PairSource = shipped(pairs)(pack)
        return source
    if pairs == "lfw":
        if data is None:
            said = (
                "pairs 'lfw': no folder of real faces is named. Pass --data DIR or set FXEVAL_DATA."
            )
            raise DataContractError(said, public=said)
        return LfwPairs(data, errata_file=Path("pairs/lfw_errata.txt"))
    file = Path(pairs)
    if not file.is_file():
        raise DataContractError(
            f"pairs '{pairs}': expected {either([*_RENDERED, 'lfw'])}, or an existing file. "
            "Correct --pairs."
        )
    root, file = data or file.parent, file.absolute()
    names = (Path("faces_manifest.json"), Path("manifest.json"))
    manifest = next((name for name in names if (root / name).is_file()), names[0])
    if file.suffix == ".csv":
        return CsvPairs(root, file, manifest_file=manifest)
    return LfwPairs(root, pairs_file=file, manifest_file=manifest)


def _card_file(model: str) -> Path:
    """Return the card of a shipped id, or the file that is named.

    Raises:
        DataContractError: If it is neither.
    """
    from fxeval.strict.text import hint
    from fxeval.suite.preflight import SHIPPED_CARDS

    file = SHIPPED_CARDS.get(model.replace("-", "_"), Path(model))
    if not file.is_file():
        raise DataContractError(
            f"model '{model}': expected the file of a card or a shipped model. "
            f"{hint(model, SHIPPED_CARDS)}"
        )
    return file


def _weights_of(card: "ModelCard", weights: Path | None) -> Path:
    """Return the folder of a card's weights: the card's own, or the one that was named."""
    beside = card.file.parent
    if weights is None or (beside / card.weights).is_file():
        weights = beside
    if card.name == _DLIB and not (weights / card.weights).is_file():
        from fxeval.models.networks.dlib_resnet import installed_folder

        return installed_folder()
    return weights


def _folder(variable: str) -> Path | None:
    named = os.environ.get(variable)
    return Path(named) if named else None


def _told(aloud: bool) -> Any:  # noqa: ANN401  (a callback)
    """Return a callback that shows progress at every eighth of the way, or shows nothing."""
    shown = [0]

    def told(done: int, total: int) -> None:
        if aloud and 8 * done // max(total, 1) > shown[0] and done < total:
            shown[0] = 8 * done // total
            click.echo(f"  verifying {done}/{total} pairs", err=True)

    return told


def _lines(entry: dict[str, Any]) -> list[str]:
    from fxeval.scorecard.verification_rows import CROSSED, HEADS, RULES

    if not entry["measured"]:
        digest = entry["list_digest"] or "not known"
        return [f"not measured: {entry['reason']}", f"  {'digest of the list':<32}{digest}"]
    size = f"{entry['n_mated']:,} mated, {entry['n_nonmated']:,} nonmated"
    lines = [f"{entry['pair_list']}: {size} pairs of {entry['n_identities']:,} identities"]
    lines.append(f"  {'digest of the list':<32}{entry['list_digest']}")
    for one in entry["figures"]:
        text = one["reason"] if one["value"] is None else _numbers(one)
        lines.append(f"  {HEADS[one['metric']]:<32}{text}")
    lines.append(f"  {'operating threshold':<32}{'':<27}FMR      FNMR")
    lines += [
        f"  {names[one['name']]:<32}{_numbers(one):<27}"
        f"{one['fmr']['value']:<9.4f}{one['fnmr']['value']:.4f}"
        for names, key in ((RULES, "thresholds"), (CROSSED, "crossed_thresholds"))
        for one in entry[key]
    ]
    lines.append(f"  {entry['protocol']}")
    lines.append(f"floor  {entry['floor']['verdict']['reason']}")
    return lines + [f"claim  {one['text']}: {one['verdict']['reason']}" for one in entry["claims"]]


def _numbers(figure: dict[str, Any]) -> str:
    low, high = figure["low"], figure["high"]
    interval = "" if low != low else f" [{low:.4f}, {high:.4f}]"  # NaN: it has none
    return f"{figure['value']:.4f}{interval}"
