"""The catalogue of metrics: every kind of check in one visible list, one module per protocol.

A protocol whose values come under conditions says so with ``CONDITIONS``: for each axis, the
parameter that lists its values, or the values themselves. A limit may name these (``under``). A
parameter that makes a check show how a method goes wrong is in ``DEMONSTRATIONS``, with the reason:
no limit of such a check decides. One that chooses among configurations says how with ``SELECTS``
(:class:`fxeval.statistics.selected.Choice`). One whose conditions do not all judge says what its
limits are about unless they pin something else with ``JUDGED_UNDER``, and why any other value of
that axis is for information with ``WHY_INFORMS``. One that compares maps with those of another seed
of the explainer says ``DRAWS_ITSELF = True``: it is measured at one seed, and that decides. One
whose metrics can be checked on maps of known worth says what they ask for with ``SELF_CHECK``:
``"likeness"`` or ``"margin"`` (``fxeval.run.self_check``), and with ``SELF_CHECK_WITH`` what
replaces its parameters there: a number is the largest value, and where limits rest on decisions,
numbers and None replace nothing. ``NO_SELF_CHECK`` says why there is no such check.
Plug-ins add kinds of their own (:func:`add_metrics`).
"""

import re
from collections.abc import Mapping
from types import MappingProxyType, ModuleType

from fxeval.errors import FxevalError
from fxeval.metrics import (
    accuracy_curves,
    classifier_deletion_retention,
    cross_model_transfer,
    data_randomisation,
    deletion_insertion,
    explaining_cost,
    explaining_resources,
    false_match,
    guided_occlusion,
    hiding_game,
    identification,
    impostor_swap,
    layer_objective_search,
    model_randomisation,
    occlusion_generalisability,
    patch_replacement,
    pattern_regions,
    pattern_similarity,
    reject_decisions,
    self_occlusion,
    stability,
    truth_flip,
    truth_localisation,
    two_sided,
)

CATALOGUE: Mapping[str, ModuleType] = MappingProxyType(
    {
        "sanity.model_randomisation": model_randomisation,
        "sanity.two_sided": two_sided,
        "sanity.impostor_swap": impostor_swap,
        "sanity.data_randomisation": data_randomisation,
        "truth.localisation": truth_localisation,
        "truth.flip": truth_flip,
        "faithfulness.deletion_insertion": deletion_insertion,
        "faithfulness.accuracy_curves": accuracy_curves,
        "transfer.cross_model": cross_model_transfer,
        "faithfulness.guided_occlusion": guided_occlusion,
        "faithfulness.hiding_game": hiding_game,
        "faithfulness.reject_decisions": reject_decisions,
        "identification.deletion_insertion": identification,
        "generalisability.occlusion": occlusion_generalisability,
        "search.layer_objective": layer_objective_search,
        "classifier.deletion_retention": classifier_deletion_retention,
        "occluders.self_occlusion": self_occlusion,
        "occluders.patch_replacement": patch_replacement,
        "occluders.false_match": false_match,
        "patterns.similarity": pattern_similarity,
        "patterns.regions": pattern_regions,
        "stability.repetition": stability,
        "cost.explaining": explaining_cost,
        "cost.resources": explaining_resources,
    }
)
"""The kinds of check that come with fxeval."""

_added: dict[str, ModuleType] = {}
_PARTS = ("ROWS", "METRICS", "Parameters", "measure")


def kinds() -> Mapping[str, ModuleType]:
    """Return all kinds of check by name, those of plug-ins last."""
    return {**CATALOGUE, **_added}


def draws_itself(kind: str) -> bool:
    """Say whether a kind of check compares maps with those of another seed of the explainer."""
    return bool(getattr(kinds().get(kind), "DRAWS_ITSELF", False))


def judged_under(kind: str) -> Mapping[str, str]:
    """Return the conditions that a kind's limits are about unless they pin something else.

    >>> judged_under("truth.flip"), judged_under("stability.repetition")
    ({'question': 'discriminative'}, {})
    """
    found: Mapping[str, str] = getattr(kinds().get(kind), "JUDGED_UNDER", {})
    return found


def add_metrics(more: Mapping[str, ModuleType]) -> None:
    """Make the protocols of a plug-in known, in place of those that were added before.

    Args:
        more: By kind, ``family.name``: modules with the parts of :mod:`fxeval.metrics.protocol`.

    Raises:
        FxevalError: If a kind is taken or is no name, or the module is no protocol.
    """
    for kind, protocol in more.items():
        if kind in CATALOGUE:
            raise FxevalError(f"metric '{kind}': expected a new kind, got that of a shipped one.")
        if not isinstance(kind, str) or not re.fullmatch(r"[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*", kind):
            raise FxevalError(f"metric {kind!r:.60}: expected a kind such as 'acme.stability'.")
        missing = [part for part in _PARTS if not hasattr(protocol, part)]
        if missing:
            raise FxevalError(
                f"metric '{kind}': expected a module with {', '.join(_PARTS)}, got "
                f"{getattr(protocol, '__name__', type(protocol).__name__)} without "
                f"{', '.join(missing)}."
            )
        decision = next((one.name for one in protocol.METRICS if one.is_decision), None)
        if decision is not None and "controls" not in protocol.Parameters.model_fields:
            raise FxevalError(
                f"metric '{kind}': expected a parameter 'controls' beside {decision}, which is a "
                "decision and judged against random orders, got none."
            )
        _check_self_check(kind, protocol)
    _added.clear()
    _added.update(more)


def _check_self_check(kind: str, protocol: ModuleType) -> None:
    """Refuse a protocol that says of its self-check what cannot be."""
    asks = getattr(protocol, "SELF_CHECK", None)
    if asks not in (None, "likeness", "margin"):
        raise FxevalError(
            f"metric '{kind}': SELF_CHECK: expected 'likeness' or 'margin', got {asks!r:.60}."
        )
    fields = protocol.Parameters.model_fields
    strange = [name for name in getattr(protocol, "SELF_CHECK_WITH", {}) if name not in fields]
    if strange:
        raise FxevalError(
            f"metric '{kind}': SELF_CHECK_WITH: expected parameters of the check, got "
            f"{strange[0]!r:.60}."
        )
    if asks == "margin" and (protocol.ROWS != "twins" or "controls" not in fields):
        raise FxevalError(
            f"metric '{kind}': SELF_CHECK: expected rows of the kind 'twins' and a parameter "
            "'controls' with 'margin': the known maps are controls of twins."
        )
