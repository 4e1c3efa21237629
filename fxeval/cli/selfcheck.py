"""``fxeval selfcheck``: says which metrics tell maps of known worth apart."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fxeval.cli.usage import Command, WrongUsage
from fxeval.errors import FxevalError, SuiteError

if TYPE_CHECKING:
    from fxeval.records.self_checks import SelfCheck
    from fxeval.run.self_check import SelfChecks
    from fxeval.run.workshop import Workshop
    from fxeval.suite.cells import Cell

_ALL_FIT, _SOME_UNFIT, _CANNOT_SAY = 0, 1, 2
_SEED = 20260101
_STEPS = 20  # resolution of decisions, enough for their order
_HEADS = ("check", "metric", "under", "fitness", "oracle", "blurred oracle", "random", "inverse",
          "reliability", "detectable")  # fmt: skip


@click.command(cls=Command)
@click.argument("suite", required=False)
@click.option("--kind", "only", multiple=True, metavar="KIND", help="Without SUITE: only these.")
@click.option("--fill", "fills", multiple=True, metavar="FILL", help="Without SUITE: only these.")
@click.option("--markdown", is_flag=True, help="Print a table in Markdown.")
def selfcheck(
    suite: str | None, only: tuple[str, ...], fills: tuple[str, ...], markdown: bool
) -> None:
    """Check metrics on maps of known worth: an oracle, the oracle blurred, noise, its inverse.

    With SUITE, a file or fxeval:NAME: those that its critical limits rest on. Without: every metric
    that asks how alike two faces are, under every fill, with the parameters that checks have by
    default but for 20 steps. A metric is fit if each map comes out better than the next worse one,
    with an interval clear of zero.

    Kinds of checks for which no map of known worth exists are named with the reason.

    Exit status: 0 if all that can be checked are fit; 1 if one is unfit; 2 if one could not be
    checked, or nothing can be; 64 if the command was used wrongly.
    """
    from fxeval.engine.forward_pool import fastest_batch_size
    from fxeval.metrics import kinds
    from fxeval.run.self_check import SelfChecks, deciding, why_not
    from fxeval.run.workshop import Workshop

    if suite is not None and (only or fills):
        raise WrongUsage("--kind and --fill go without SUITE: a suite says what it rests on.")

    def workshop() -> Workshop:
        size = fastest_batch_size()
        return Workshop(batch_size=size, emit=lambda _: None, progress=lambda *_: None)

    try:
        wanted = [*_of_suite(suite)] if suite is not None else [*_of_catalogue(only, fills)]
    except FxevalError as error:
        raise WrongUsage(str(error)) from None
    checks = SelfChecks(workshop)
    own = workshop()
    found: dict[str, SelfCheck] = {}
    uncheckable: dict[str, str] = {}
    try:
        for cell in wanted:
            for one in _checked(checks, cell, own):
                found.setdefault(one.model_dump_json(exclude={"seconds", "forwards"}), one)
            if deciding(cell) and not hasattr(kinds()[cell.kind], "SELF_CHECK"):
                uncheckable[cell.kind] = why_not(cell.kind)
    except FxevalError as error:
        click.echo(f"CANNOT SAY: {error}", err=True)
        raise SystemExit(_CANNOT_SAY) from None
    lines = _markdown if markdown else _text
    for line in lines([*found.values()]):
        click.echo(line)
    for kind, reason in uncheckable.items():
        click.echo(f"no known maps for {kind}: {reason}")
    raise SystemExit(_status([*found.values()]))


def _of_suite(name: str) -> Iterator["Cell"]:
    """Yield the cells of a suite.

    Raises:
        SuiteError: If it cannot be read.
    """
    from fxeval.suite.extending import read_suite
    from fxeval.suite.load import KnownIds, load
    from fxeval.suite.plan import cells
    from fxeval.suite.recognition import resolved

    path = Path(resolved(name))
    data = read_suite(path).data
    # Nothing is loaded for most metrics, so any id will do: fixtures are of pytest alone.
    ids = {key: frozenset(_named(data, key)) for key in ("models", "explainers", "pairs")}
    yield from cells(load(path, KnownIds(ids["models"], ids["explainers"], ids["pairs"])))


def _named(data: Any, key: str) -> Iterator[str]:  # noqa: ANN401  (plain data)
    """Yield the ids of subjects that a suite and its checks name."""
    checks = data.get("checks")
    for part in (data, *(checks if isinstance(checks, list) else ())):
        entries = part.get(key) if isinstance(part, dict) else None
        for entry in entries if isinstance(entries, list) else ():
            name = entry.get("use") if isinstance(entry, dict) else entry
            if isinstance(name, str):
                yield name


def _of_catalogue(only: Sequence[str], fills: Sequence[str]) -> Iterator["Cell"]:
    """Yield a cell for each kind that the planted network can check, under each fill.

    Raises:
        SuiteError: If a kind or a fill is not known.
    """
    from fxeval.functional.fills import fills as known_fills
    from fxeval.metrics import kinds
    from fxeval.statistics.limits import BetterThan
    from fxeval.strict.text import hint
    from fxeval.suite.cells import Cell, Use

    checked = [name for name, one in kinds().items() if _asks_likeness(one)]
    for named, known, what in ((only, checked, "kind"), (fills, known_fills(), "fill")):
        for name in named:
            if name not in known:
                raise SuiteError(f"selfcheck: no {what} '{name}'. {hint(name, [*known])}")
    for kind in only or checked:
        protocol = kinds()[kind]
        fields = protocol.Parameters.model_fields
        steps = {"steps": _STEPS} if "steps" in fields else {}
        for fill in fills or known_fills():
            yield Cell(
                id=kind, suite="selfcheck", check="selfcheck", kind=kind, why="",
                model=Use("planted"), explainer=Use("oracle"), pairs=Use("rendered"), n=None,
                parameters=protocol.Parameters(fills=(fill,), **steps),
                limits=tuple(
                    BetterThan(metric.name, better_than="control.random_pixels")
                    for metric in protocol.METRICS
                    if not metric.information_only
                ),
                seed=_SEED, confidence=0.95, on_inconclusive="fail", on_unsupported="fail",
                device="auto", where="selfcheck:1:1",
            )  # fmt: skip


def _asks_likeness(protocol: Any) -> bool:  # noqa: ANN401  (a module)
    return getattr(protocol, "SELF_CHECK", None) == "likeness"


def _checked(checks: "SelfChecks", cell: "Cell", workshop: "Workshop") -> list["SelfCheck"]:
    """Return what is known of the metrics of a cell; those on twins need its own model."""
    from fxeval.metrics import kinds
    from fxeval.run.evaluation import shipped
    from fxeval.run.self_check import deciding, unchecked
    from fxeval.run.workshop import Subjects
    from fxeval.suite.configure import configured

    subjects: Any = None
    if deciding(cell) and getattr(kinds()[cell.kind], "SELF_CHECK", None) == "margin":
        try:
            model, source = (
                configured(shipped(role, use.id), use, role)
                for role, use in (("model", cell.model), ("pairs", cell.pairs))
            )
        except SuiteError as error:
            said = f"{error} With your own fixtures, run the suite with 'self_check: true'"
            return unchecked(cell, said)
        load = getattr(model, "load", None)
        subjects = Subjects(model if load is None else load(), None, source)  # type: ignore[arg-type]
    return checks.checked(cell, subjects, workshop)


def _status(found: Sequence["SelfCheck"]) -> int:
    outcomes = {one.fitness for one in found}
    if "unfit" in outcomes:
        return _SOME_UNFIT
    return _ALL_FIT if outcomes == {"fit"} else _CANNOT_SAY


def _text(found: Sequence["SelfCheck"]) -> Iterator[str]:
    """Yield the lines of a table for a terminal."""
    from fxeval.scorecard.self_checks import WORDS
    from fxeval.statistics.limit import in_words

    if not found:
        yield "no critical limit rests on a metric that could be checked"
    for one in found:
        yield f"{WORDS[one.fitness]:<23} {one.kind} {one.metric}{in_words(one.under)}"
        if one.maps:
            shown = ", ".join(f"{name.replace('_', ' ')} {v}" for name, v in _values(one))
            yield f"{'':<24}{shown}"
            yield (
                f"{'':<24}reliability {_number(one.reliability)}, detectable difference "
                f"{_number(one.detectable)}, {one.n_rows} rows of {one.n_identities} people"
            )
        if one.reason:
            yield f"{'':<24}{one.reason}"
    counts = ", ".join(
        f"{sum(one.fitness == name for one in found)} {words}" for name, words in WORDS.items()
    )
    yield f"{len(found)} metrics: {counts}; {sum(one.seconds for one in found):.1f} s of processor"


def _markdown(found: Sequence["SelfCheck"]) -> Iterator[str]:
    """Yield the lines of a table in Markdown."""
    from fxeval.scorecard.self_checks import WORDS
    from fxeval.statistics.limit import in_words

    yield f"| {' | '.join(_HEADS)} |"
    yield f"|{'---|' * len(_HEADS)}"
    for one in found:
        values = [value for _, value in _values(one)] or [""] * 4
        cells = [
            f"`{one.kind}`", f"`{one.metric}`", in_words(one.under).strip(" ()"),
            WORDS[one.fitness], *values, _number(one.reliability), _number(one.detectable),
        ]  # fmt: skip
        yield f"| {' | '.join(cells)} |"


def _values(one: "SelfCheck") -> list[tuple[str, str]]:
    return [(known.map, _number(known.value)) for known in one.maps]


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.3g}"
