"""An explainer whose code runs in a process of its own."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cached_property
from typing import Any

import numpy as np

from fxeval.contracts import ExplainerTraits, FaceModel, Gallery, Images, SaliencyMaps
from fxeval.errors import ExplainerContractError, FxevalError, UnsupportedError
from fxeval.isolation.copies import importable, way_of
from fxeval.isolation.host import Bounds, Host

_PLACE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclass(frozen=True, eq=False)
class IsolatedExplainer:
    """An explainer in a process of its own, bounded in time and memory, with a copy of the network.

    The process imports the factory and answers for one group of pairs after another. If it takes
    too long or ends, the pairs at fault get the state ``explainer_raised`` with the reason, and it
    is started again, a bounded number of times. Its maps are those that the explainer makes in the
    process of the run, to the last bit.

    Attributes:
        factory: ``module:callable`` that returns the explainer, such as its class.
        settings: Keyword arguments of the factory, plain values.
        model: ``module:callable`` that returns the model, for models that cannot be copied by their
            card or class; None = by these.
        timeout: Seconds for a group of pairs, > 0.
        memory_gib: Memory beside that of torch itself, in GiB, > 0; Linux only.

    Example:
        explainers:
          - {use: isolated, as: mine, params: {factory: "my_package:Mine", timeout: 60}}
    """

    factory: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    model: str | None = None
    timeout: float = 600.0
    memory_gib: float = 8.0

    def __post_init__(self) -> None:
        places = {"factory": self.factory or "x:x", "model": self.model or "x:x"}
        for name, place in places.items():
            if not isinstance(place, str) or not _PLACE.fullmatch(place):
                raise ExplainerContractError(f"{name}: expected 'module:callable', got {place!r}.")
        for name in ("timeout", "memory_gib"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 < value < float("inf"):
                raise ExplainerContractError(f"{name}: expected more than 0, got {value!r}.")
        if not isinstance(self.settings, Mapping) or not _is_plain(dict(self.settings)):
            raise ExplainerContractError(
                f"settings: expected plain values by name, got {self.settings!r:.60}."
            )

    @property
    def traits(self) -> ExplainerTraits:
        """The traits of the explainer; reading them starts the process.

        Raises:
            ExplainerContractError: If it cannot be started, or the factory fails.
        """
        return self._host.traits

    def unsupported(self, model: FaceModel) -> str | None:
        """Return why the model cannot be copied, or why the explainer cannot explain it, or None.

        Raises:
            ExplainerContractError: If the explainer's own ``unsupported`` fails.
        """
        return self._host.unsupported(model)

    def explain(
        self, model: FaceModel, probes: Images, references: Images,
        *, contrast: Images | None = None, generator: np.random.Generator,
        gallery: Gallery | None = None,
    ) -> SaliencyMaps:  # fmt: skip
        """Ask the process; see ``Explainer.explain``.

        Raises:
            UserCodeError: If the process fails, or the explainer fails in it.
            ExplainerContractError: If the explainer refuses these inputs.
            ModelContractError: If the copy of the model fails.
        """
        inputs = {"probes": probes, "references": references}
        if contrast is not None:
            inputs["contrast"] = contrast
        if gallery is not None:
            inputs |= {
                "gallery": gallery.embeddings,
                "identity": gallery.identity,
                "probe_identity": gallery.probe_identity,
            }
            if gallery.reference_identity is not None:
                inputs["reference_identity"] = gallery.reference_identity
        return self._host.explain(model, inputs, generator)

    def close(self) -> None:
        """End the process; it is started again when it is needed."""
        self._host.close()

    @cached_property
    def _host(self) -> Host:
        if not self.factory:
            raise ExplainerContractError(
                "explainer 'isolated': expected a factory, got none. Write: {use: isolated, "
                'params: {factory: "module:callable"}}'
            )
        bounds = Bounds(self.timeout, int(self.memory_gib * 2**30))
        return Host(self.factory, dict(self.settings), self.model, bounds)


def isolated(
    name: str, explainer: object, *, timeout: float = 600.0, memory_gib: float = 8.0
) -> IsolatedExplainer:
    """Return an explainer that a fixture made, as one that runs in a process of its own.

    Args:
        name: Name of the explainer, for the message.
        explainer: An object of a class that can be imported, made of plain values alone.
        timeout: Seconds for a group of pairs.
        memory_gib: Memory beside that of torch itself, in GiB.

    Raises:
        UnsupportedError: If a process cannot make it again; the message says why and what to do.
    """
    if isinstance(explainer, IsolatedExplainer):
        return explainer
    kind, said = type(explainer), f"explainer '{name}' cannot run in a process of its own: "
    what = 'Name a factory: {use: isolated, params: {factory: "module:callable"}}.'
    place = importable(kind)
    if place is None:
        raise UnsupportedError(
            f"{said}{kind.__qualname__} cannot be imported by name from '{kind.__module__}'. {what}"
        )
    if not is_dataclass(explainer):
        if vars(explainer) if hasattr(explainer, "__dict__") else True:
            raise UnsupportedError(
                f"{said}what {kind.__qualname__} was made with is not known: it is no dataclass. "
                f"{what}"
            )
        return IsolatedExplainer(place, timeout=timeout, memory_gib=memory_gib)
    settings = {
        one.name: getattr(explainer, one.name)
        for one in fields(explainer)
        if one.init and getattr(explainer, one.name) is not one.default
    }
    for key, value in settings.items():
        if not _is_plain(value):
            raise UnsupportedError(
                f"{said}its '{key}' is a {type(value).__name__}, no plain value. {what}"
            )
    return IsolatedExplainer(place, settings, timeout=timeout, memory_gib=memory_gib)


def why_not_isolated(name: str, explainer: object, model: FaceModel) -> str | None:
    """Return why an explainer of a fixture, or a model, cannot go into a process; None if they can.

    Args:
        name: Name of the explainer.
        explainer: The explainer.
        model: The loaded model.
    """
    try:
        asked = isolated(name, explainer)
        way_of(model, asked.model)
    except FxevalError as error:
        return str(error)
    return None


def _is_plain(value: object) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)
