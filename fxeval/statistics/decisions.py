"""Decisions that no map has a part in: rows that the start decides, limits that noise meets.

A metric with ``is_decision`` says where the model's decision flips while pixels go or come back.
Two things can decide in place of the map:

* **The start.** A pair that the model accepts with the whole image filled, or does not accept with
  the whole image there, is decided before the first pixel. Such rows enter no estimate, for the
  explainer and the controls alike, as the start is the same for all of them. If they are more than
  ``MAX_DECIDED_SHARE`` of the rows, the metric is unfit under this condition.
* **The fill.** A few black pixels anywhere can make a model reject a face, and a few sharp pixels
  anywhere on a blurred one can make it accept. So a limit can be passed only where a random order
  of pixels, and one of smooth blobs, fail the same limit on the same rows. Where the limit asks to
  be better than another map, and a random order is neither better nor worse than that one, the
  explainer must be better than the random order too.
"""

from collections.abc import Collection, Mapping

from fxeval.results import Condition, Estimate, Metric, Outcome, RowState, Verdict
from fxeval.statistics.limits import Limit, in_words
from fxeval.statistics.verdict import judge

MAX_DECIDED_SHARE = 0.2
"""Largest share of a cell's rows that the start may decide."""

RANDOM_ORDERS = ("random_pixels", "random_blobs")
"""Controls that know nothing of the face; they must fail what an explainer passes."""


def unfit(
    metric: Metric, under: Condition, states: Mapping[RowState, int], n: int, model: str
) -> str | None:
    """Return why a metric says nothing about maps under a condition; None if it does.

    Args:
        metric: The metric.
        under: The condition.
        states: Number of the cell's rows in each state, of the explainer's values.
        n: Number of the cell's rows.
        model: Name of the model.
    """
    filled, rejected = (states.get(one, 0) for one in (RowState.START_BEYOND, RowState.EXCLUDED))
    if metric.void_if:
        if rejected <= metric.void_share * n:
            return None
        return (
            f"{metric.name}{in_words(under)}: {rejected} of {n} rows have no value on {model}, as "
            f"{metric.void_if}; at most {metric.void_share:.0%} may be of this kind"
        )
    if not (metric.is_decision or filled) or filled + rejected <= MAX_DECIDED_SHARE * n:
        return None
    subject = f"{metric.name}{in_words(under)}"
    if rejected == n:
        return (
            f"{subject}: no row has a value, as none of {n} pairs matches to begin with, or the "
            "model has no operating threshold"
        )
    counts = {
        "already match when the whole image is filled": filled,
        "do not match to begin with": rejected,
    }
    parts = [f"{count} of {n} pairs {words}" for words, count in counts.items() if count]
    allowed = f"{'together ' if len(parts) > 1 else ''}at most {MAX_DECIDED_SHARE:.0%} may"
    about = f"say nothing about {metric.name} on {model}"
    if rejected > filled:
        advice = f"These pairs {about}: use pairs that the model accepts"
    else:
        advice = f"This fill {about.replace('say', 'says', 1)}: use another fill"
    return f"{subject}: {' and '.join(parts)}; {allowed}. {advice}"


def against_random_orders(
    verdict: Verdict,
    limit: Limit,
    under: Condition,
    random: Mapping[str, Estimate],
    beaten: Collection[str] = (),
) -> Verdict:
    """Return the verdict of a limit on a decision: a pass stands only where random orders fail.

    Args:
        verdict: On the explainer.
        limit: The limit.
        under: The condition.
        random: Estimate of what the limit judges, with each of ``RANDOM_ORDERS`` in the place of
            the explainer.
        beaten: Those that the explainer is better than, where the limit asks to be better.

    Returns:
        The same verdict unless it is a pass. A pass is invalid if a random order passes too or was
        not measured, and inconclusive if one neither clearly fails nor is beaten.
    """
    if verdict.outcome is not Outcome.PASS:
        return verdict
    found = {name: judge(limit, estimate, under).outcome for name, estimate in random.items()}
    for outcome in (Outcome.INVALID, Outcome.PASS, Outcome.INCONCLUSIVE):
        is_open = outcome is Outcome.INCONCLUSIVE
        name = next(
            (
                name
                for name in RANDOM_ORDERS
                if found[name] is outcome and not (is_open and name in beaten)
            ),
            None,
        )
        if name is None:
            continue
        words, one = name.replace("_", " "), random[name]
        figures = f"{one.value:.3g} [{one.low:.3g}, {one.high:.3g}]"
        another = "set a limit that they fail" + (", or use another fill" * ("fill" in under))
        if outcome is Outcome.INVALID:
            reason = f"this needs control.{name}, which has no value: add {name} to the controls"
            return Verdict(Outcome.INVALID, f"{verdict.reason}, but {reason}")
        if outcome is Outcome.PASS:
            reason = f"{words}, which know nothing of the face, pass it too with {figures}"
            return Verdict(
                Outcome.INVALID,
                f"{verdict.reason}, but {reason}. This limit says nothing about the map: {another}",
            )
        reason = f"{words}, which know nothing of the face, do not clearly fail it: {figures}"
        return Verdict(Outcome.INCONCLUSIVE, f"{verdict.reason}, but {reason}; {another}")
    return verdict
