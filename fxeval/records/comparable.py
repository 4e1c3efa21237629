"""Whether two records answer the same question, so that their rows can be paired."""

from collections.abc import Iterator, Mapping

from fxeval.records.earlier import OF_A_MODEL
from fxeval.records.schema import Record

_SHOWN = 12  # digits of a digest


def why_not_comparable(before: Mapping[str, Record], after: Mapping[str, Record]) -> list[str]:
    """Return in words what differs between two runs besides the code under test.

    Args:
        before: Records of the one run, by the names of their files.
        after: Of the other one.

    Returns:
        A sentence for each suite, model and pair list that differs; [] = they can be paired.
    """
    mine = {one.suite.path: one for one in before.values()}
    theirs = {one.suite.path: one for one in after.values()}
    lines = [
        f"suite {path}: only {'the first' if path in mine else 'the second'} run has it"
        for path in sorted(mine.keys() ^ theirs.keys())
    ]
    for path in sorted(mine.keys() & theirs.keys()):
        lines += _of_suite(mine[path], theirs[path])
    return list(dict.fromkeys(lines))


def _of_suite(before: Record, after: Record) -> Iterator[str]:
    """Yield in words what differs between two records of a suite."""
    if before.suite.digest != after.suite.digest:
        name = after.suite.name
        yield f"suite {name}: {_was(before.suite.digest, after.suite.digest, 'digest')}"
    models = before.subjects.models, after.subjects.models
    for id in sorted(models[0].keys() & models[1].keys()):
        for key in OF_A_MODEL:
            was, now = (getattr(one[id], key) for one in models)
            if was != now:
                yield f"model {id} is another: {_was(was, now, key)}"
    pairs = before.subjects.pairs, after.subjects.pairs
    for id in sorted(pairs[0].keys() & pairs[1].keys()):
        first, second = pairs[0][id], pairs[1][id]
        if first.digest != second.digest:
            digests = _was(first.digest, second.digest, "digest")
            counts = f"{first.n_pairs} and {second.n_pairs} pairs"
            yield f"pairs {id} have other images: {digests}, {counts}"


def _was(was: object, now: object, what: str) -> str:
    return f"{what} {_short(was)} and {_short(now)}"


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:_SHOWN]}..."
