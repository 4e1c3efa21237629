"""Explainers with other settings: the configurations that a protocol tries."""

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, cast

from fxeval.contracts import Explainer, SaliencyMaps
from fxeval.engine.forward_pool import PooledModel
from fxeval.engine.maps import why_unsupported
from fxeval.errors import ExplainerContractError, FxevalError, UnsupportedError
from fxeval.hooks.processes import is_a_stop
from fxeval.hooks.returned import check_explainer
from fxeval.isolation.explainer import IsolatedExplainer
from fxeval.metrics.protocol import OtherExplainer
from fxeval.redaction import message_of, of_user_code
from fxeval.statistics.limit import in_words
from fxeval.strict.text import describe, either


class Variants:
    """The variants of the explainers of one cell: each is made once, and refused once.

    Attributes:
        alike: Whether two of them give all rows the same maps, where it was asked.
    """

    def __init__(self) -> None:
        self.alike: dict[tuple[object, ...], bool] = {}
        self._made: dict[tuple[object, ...], OtherExplainer | FxevalError] = {}
        self._refused: dict[tuple[object, ...], FxevalError | None] = {}

    def of(self, explainer: OtherExplainer, settings: Mapping[str, str]) -> OtherExplainer:
        """Return an explainer with some settings replaced; see :func:`variant_of`."""
        key = explainer.name, *settings.items()
        if key not in self._made:
            try:
                made = variant_of(explainer.name, explainer.explainer, settings)
                self._made[key] = OtherExplainer(explainer.name, made, tuple(settings.items()))
            except FxevalError as error:
                self._made[key] = error
        found = self._made[key]
        if isinstance(found, FxevalError):
            raise found
        return found

    def explained(
        self, by: OtherExplainer, model: PooledModel, make: Callable[[], SaliencyMaps]
    ) -> SaliencyMaps:
        """Return the maps of a variant, or refuse it as it was refused before.

        Args:
            by: The variant.
            model: That is explained.
            make: Makes the maps, or finds those that were made.

        Raises:
            UnsupportedError: If the variant cannot explain this kind of model.
            ExplainerContractError: If it refuses the model, such as a layer that it lacks.
        """
        key = by.name, by.settings, model.key
        if key not in self._refused:
            self._refused[key] = _refusal(by, model)
        refusal = self._refused[key]
        if refusal is not None:
            raise refusal
        try:
            return make()
        except (ExplainerContractError, UnsupportedError) as error:
            self._refused[key] = error
            raise
        finally:
            if isinstance(by.explainer, IsolatedExplainer):
                by.explainer.close()  # each process holds a copy of the network


def _refusal(by: OtherExplainer, model: PooledModel) -> FxevalError | None:
    try:
        reason = why_unsupported(by.explainer, model)
    except FxevalError as error:
        return error
    if reason is None:
        return None
    said = f"{by.name}{in_words(dict(by.settings))} cannot explain {model.name}"
    return UnsupportedError(f"{said}: {reason}")


def variant_of(name: str, explainer: Explainer, settings: Mapping[str, Any]) -> Explainer:
    """Return an explainer with some settings replaced.

    Args:
        name: Of the explainer, for messages.
        explainer: A dataclass with these settings as fields, or one in a process of its own, whose
            factory gets them. It stays as it is.
        settings: By name.

    Raises:
        UnsupportedError: If the explainer has no such field.
        ExplainerContractError: If it refuses a value.
    """
    is_isolated = isinstance(explainer, IsolatedExplainer)
    own: set[str] = set()
    if is_dataclass(explainer):
        own = {one.name for one in fields(explainer) if one.init}
    missing = [setting for setting in settings if setting not in own]
    if missing and not is_isolated:
        known = f"the fields {either(sorted(own))}" if own else "no dataclass"
        raise UnsupportedError(
            f"explainer '{name}' has no field '{missing[0]}' to vary: expected a dataclass with "
            f"{' and '.join(settings)}, got {type(explainer).__name__} with {known}. Use one that "
            "has them, such as gradcam."
        )
    said = ", ".join(f"{key} {describe(value)}" for key, value in settings.items())
    try:
        made = (
            replace(explainer, settings={**explainer.settings, **settings})
            if isinstance(explainer, IsolatedExplainer)
            else replace(cast(Any, explainer), **settings)
        )
        return check_explainer(name, made)
    except FxevalError:
        raise
    except BaseException as error:  # user code may raise anything
        if is_a_stop(error):
            raise
        start = f"explainer '{name}' refuses {said}: {type(error).__name__}"
        raise ExplainerContractError(
            f"{start}: {message_of(error)}",
            public=f"explainer '{name}' refuses {said}: {of_user_code(error)}",
        ) from error
