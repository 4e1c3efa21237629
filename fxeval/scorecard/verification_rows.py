"""How well the models verify: rows of a table and lines of text, from a record."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fxeval.records.subjects import is_elsewhere
from fxeval.scorecard.wording import clipped, counted, number

Json = Mapping[str, Any]

HEADS: Mapping[str, str] = {
    "verification_accuracy": "accuracy",
    "verification_auc": "AUC",
    "verification_eer": "EER",
    "tmr_at_fmr_1e-2": "TMR at FMR 0.01",
    "tmr_at_fmr_1e-3": "TMR at FMR 0.001",
    "tmr_at_fmr_1e-4": "TMR at FMR 0.0001",
}
RULES: Mapping[str, str] = {
    "vendor": "the model's own",
    "tau_acc": "best accuracy on this list",
    "tau_eer": "equal error rate on this list",
    "tau_fmr_1e-2": "FMR 0.01 on this list",
    "tau_fmr_1e-3": "FMR 0.001 on this list",
    "tau_fmr_1e-4": "FMR 0.0001 on this list",
}
CROSSED: Mapping[str, str] = {
    name: text.replace("on this list", "of all comparisons")
    for name, text in RULES.items()
    if name.startswith("tau_fmr_")
}
_CLAIMED = {"pass": "shown", "invalid": "refuted", "inconclusive": "cannot be told"}
_CLAIMED_ONCE = {"pass": "not refuted", "invalid": "is false", "inconclusive": "not checked"}
_OF = {"list": ", of this list", "population": ", of the population"}
_DEMANDED = {"pass": "met", "invalid": "not met"}
_FLOOR = {"pass": "met", "invalid": "not met", "inconclusive": "not checked"}
_PLACES = 4
_SET_BY = 160  # characters
_NONE: Json = dict.fromkeys(("value", "low", "high", "std"))  # a figure that a record lacks


@dataclass(frozen=True)
class Shown:
    """A value and its interval, or a reason in its place."""

    value: str
    interval: str


@dataclass(frozen=True)
class Judged:
    """A claim or a demand.

    Attributes:
        outcome: ``pass``, ``invalid`` or ``inconclusive``, for shape and colour.
        word: The outcome in words.
        text: The claim or demand.
        reason: The figures, or why there are none.
        is_elsewhere: Whether it is a claim about another pair list.
    """

    outcome: str
    word: str
    text: str
    reason: str
    is_elsewhere: bool = False


@dataclass(frozen=True)
class VerificationView:
    """One model on one pair list.

    Attributes:
        entry: The entry of the record.
        figures: One figure for each column of the table; () if nothing was measured.
        threshold: The operating threshold that the cells use.
        rule: How it was set.
        judged: Claims, demands, the floor, and a threshold that decides nothing.
        thresholds: Rows: threshold, similarity, FMR, FNMR.
        facts: Names and values of further facts.
    """

    entry: Json
    figures: tuple[Shown, ...]
    threshold: Shown
    rule: str
    judged: tuple[Judged, ...]
    thresholds: tuple[tuple[str, ...], ...]
    facts: tuple[tuple[str, str], ...]


def columns(record: Json) -> tuple[str, ...]:
    """Return the figures that get a column; the smallest FMR only if a list is long enough."""
    measured = {
        figure["metric"]
        for entry in record.get("verification", ())
        for figure in entry["figures"]
        if figure["value"] is not None
    }
    return tuple(name for name in HEADS if name in measured or name != "tmr_at_fmr_1e-4")


def views(record: Json) -> tuple[VerificationView, ...]:
    """Return one view per model and pair list; none for a record without verification."""
    shown = columns(record)
    return tuple(_view(entry, shown) for entry in record.get("verification", ()))


def lines(record: Json) -> list[str]:
    """Return one line of text per model and pair list."""
    return [_line(view) for view in views(record)]


def golden_text(golden: Json | None) -> str:
    """Say how a model compares with its vendor's own embeddings.

    >>> golden_text({"state": "agrees", "n_images": 8, "largest": 1.5e-05, "at_most": 1e-4})
    'agrees on 8 images (largest difference 1.5e-05, at most 0.0001)'
    """
    if golden is None or golden["state"] == "none":
        return "none named"
    if golden["state"] == "not_checked":
        return "not checked: the file is missing"
    difference = f"largest difference {golden['largest']:.2g}, at most {golden['at_most']:g}"
    return f"agrees on {counted(golden['n_images'], 'image')} ({difference})"


def tags_text(tags: Json) -> str:
    """Say by which words a model is grouped.

    >>> tags_text({"training_data": "synthetic", "family": None})
    'training data: synthetic'
    """
    stated = ((name.replace("_", " "), word) for name, word in tags.items() if word)
    return ", ".join(f"{name}: {word}" for name, word in stated) or "none"


def _head(metric: str) -> str:
    return HEADS.get(metric, metric)


def _view(entry: Json, shown: Sequence[str]) -> VerificationView:
    found = {figure["metric"]: figure for figure in entry["figures"]}
    used = entry["operating_threshold"]
    claims = [
        Judged(
            one["verdict"]["outcome"],
            _claimed(one),
            f"card: {_head(one['metric'])} {one['value']:g} within {one['within']:g}"
            + (f", on {one['pairs']}" if is_elsewhere(one) else _OF.get(one["of"], "")),
            one["verdict"]["reason"],
            is_elsewhere(one),
        )
        for one in entry["claims"]
    ]
    demands = [
        Judged(
            one["verdict"]["outcome"],
            _DEMANDED.get(one["verdict"]["outcome"], one["verdict"]["outcome"]),
            f"suite: {_head(one['metric'])} {one['text'].removeprefix(one['metric']).strip()}",
            one["verdict"]["reason"],
        )
        for one in entry["limits"]
    ]
    rules = CROSSED if entry["crossed_thresholds"] else RULES
    return VerificationView(
        entry=entry,
        figures=tuple(_shown(found.get(name, _NONE)) for name in shown)
        if entry["measured"]
        else (),
        threshold=_shown(used),
        rule=(
            {**RULES, **rules}.get(used["rule"], used["rule"])
            if used["value"] is not None
            else "none"
        ),
        judged=(*demands, *claims, *_floor(entry)),
        thresholds=tuple(
            (names.get(one["name"], one["name"]), *map(_text, (one, one["fmr"], one["fnmr"])))
            for names, key in ((RULES, "thresholds"), (CROSSED, "crossed_thresholds"))
            for one in entry[key]
        ),
        facts=tuple(_facts(entry, found)),
    )


def _claimed(claim: Json) -> str:
    """Say what became of a claim; one in an older record passed if it was not refuted."""
    outcome: str = claim["verdict"]["outcome"]
    words = _CLAIMED_ONCE if claim["of"] is None else _CLAIMED
    if claim["verdict"]["reason"].startswith("not checked"):
        words = _CLAIMED_ONCE
    return words.get(outcome, outcome)


def _floor(entry: Json) -> Iterator[Judged]:
    """Yield whether the model tells mated from nonmated pairs, and whether its threshold does."""
    floor, fault = entry["floor"], entry["operating_threshold"]["fault"]
    if floor is not None:
        outcome = floor["verdict"]["outcome"]
        text = f"floor: AUC at least {floor['at_least']:g}"
        yield Judged(outcome, _FLOOR.get(outcome, outcome), text, floor["verdict"]["reason"])
    if fault:
        yield Judged("invalid", "decides nothing", "operating threshold", fault)


def _facts(entry: Json, found: Mapping[str, Json]) -> list[tuple[str, str]]:
    if not entry["measured"]:
        return []
    accuracy = found.get("verification_accuracy", _NONE)
    pairs = f"{entry['n_mated']:,} mated, {entry['n_nonmated']:,} nonmated"
    facts = [
        ("protocol", entry["protocol"]),
        ("digest of the list", entry["list_digest"] or "not known"),
        ("pairs", f"{pairs}, of {counted(entry['n_identities'], 'identity', 'identities')}"),
        ("accuracy over the folds", f"SD {number(accuracy['std'], _PLACES)}"),
        (
            "forward passes",
            f"{entry['forwards']:,}, in {entry['seconds']:.1f} s; not counted in any cell",
        ),
    ]
    if entry["n_crossed"]:
        few = "an FMR that allows 30 false matches among them may set the operating threshold"
        facts.append(("comparisons of different people", f"{entry['n_crossed']:,}; {few}"))
    set_by = entry["operating_threshold"]["set_by"]
    if set_by:
        facts.append(("operating threshold set by", clipped(set_by, _SET_BY)))
    return facts


def _shown(figure: Json) -> Shown:
    value, low, high = (figure[key] for key in ("value", "low", "high"))
    if value is None:
        return Shown("none", str(figure.get("reason", "")))
    reason = str(figure.get("reason") or "")
    if low is not None:
        ends = f"[{number(low, _PLACES)}, {number(high, _PLACES)}]"
    elif high is not None:
        ends = f"at most {number(high, _PLACES)}, no lower end: {reason}"
    else:
        ends = f"no interval: {reason}" if reason else ""
    return Shown(number(value, _PLACES), ends)


def _text(figure: Json) -> str:
    shown = _shown(figure)
    return f"{shown.value} {shown.interval}".strip()


def _line(view: VerificationView) -> str:
    entry = view.entry
    about = f"verifies  {entry['model']} on {entry['pairs']}: "
    if not entry["measured"]:
        text = f"not measured: {entry['reason']}"
    else:
        found = {figure["metric"]: figure for figure in entry["figures"]}
        names = ("verification_accuracy", "verification_auc", "verification_eer")
        text = ", ".join(f"{HEADS[name]} {_text(found.get(name, _NONE))}" for name in names)
    said = "".join(
        f"; {one.text}: {one.word}"
        for one in view.judged
        if one.outcome != "pass" and not one.is_elsewhere
    )
    elsewhere = sum(one.is_elsewhere for one in view.judged)
    said += f"; {counted(elsewhere, 'claim')} about other lists" if elsewhere else ""
    kept = sum(one.outcome == "pass" for one in view.judged if not one.text.startswith("floor"))
    held = f"; {counted(kept, 'claim or demand', 'claims and demands')} held" if kept else ""
    return (about + text + held + said).replace("−", "-")
