"""Adapters that turn functions, captum and pytorch-grad-cam into explainers, in one line each.

A suite uses them like any other explainer, through a fixture that returns ``from_function(f)``,
``from_captum(Saliency)`` or ``from_grad_cam(lambda net: GradCAM(net, [net.layer4]))``. fxeval
imports neither library; hooks and gradients that they leave on a network are removed.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import Any, Literal, TypeAlias, cast, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fxeval.contracts import (
    ExplainerTraits,
    FaceModel,
    Gallery,
    Images,
    Maps,
    Need,
    SaliencyMaps,
)
from fxeval.errors import ExplainerContractError
from fxeval.explainers.image_gradients import lent
from fxeval.explainers.library_layers import attributed, known_layers, reshape_for
from fxeval.explainers.objectives import Objective, targets_of, twins
from fxeval.explainers.pair_module import (
    Comparison,
    PairObjective,
    as_maps,
    in_parts,
    lent_to_library,
    refused,
    row_target,
)
from fxeval.hooks.layer_info import LayerInfo
from fxeval.hooks.layers import black_box
from fxeval.hooks.readings import check_reading
from fxeval.traits import checked_needs

Reduce = Literal["abs_mean", "positive_sum"]
Make: TypeAlias = Callable[[Any], Any]
Needs: TypeAlias = Iterable[Need]

_NOTHING: Mapping[str, object] = MappingProxyType({})
_OPTIONAL = ("generator", "contrast", "gallery")


def from_function(
    f: Callable[..., Any], *, name: str | None = None, needs: Needs = ()
) -> "FunctionExplainer":
    """Make an explainer from a function ``f(model, probes, references) -> maps``.

    Args:
        f: Returns (N, H, W) maps, a tensor or a numpy array, or SaliencyMaps. It may also take
            ``generator``, ``contrast`` and ``gallery``, by name; see ``Explainer.explain``.
        name: For messages; the function's own name by default.
        needs: ``gradients`` excludes black boxes. ``contrast`` and ``gallery`` are added if the
            function has no default for them.

    Raises:
        ExplainerContractError: If the function cannot be called like that, or a need is unknown.
    """
    return FunctionExplainer(f, name or _name_of(f), _checked("from_function", needs))


def from_captum(
    make: Make, *, objective: str = "native", reduce: Reduce = "abs_mean",
    arguments: Mapping[str, object] = _NOTHING, needs: Needs = ("gradients",),
    reading: str | None = None,
) -> "CaptumExplainer":  # fmt: skip
    """Make an explainer from a captum attribution.

    ``from_captum(Saliency)``, ``from_captum(IntegratedGradients, arguments={"n_steps": 20})``,
    ``from_captum(lambda f: LayerGradCam(f, f.module.layer4), reduce="positive_sum")``.

    Methods that write to the weights need a copy: ``lambda f: LRP(copy.deepcopy(f))``.

    Args:
        make: Takes a forward function, a :class:`PairObjective`, and returns a captum attribution.
        objective: What is attributed, see ``Objective``.
        reduce: How channels are combined: ``abs_mean``, their mean absolute value;
            ``positive_sum``, their sum, with its negative part kept separately.
        arguments: Keyword arguments of ``attribute``; tensors are moved to the model's device.
        needs: ``{"black_box"}`` for methods that only evaluate the function, such as
            ``Occlusion``: they go through ``embed``, so the model may be a black box.
        reading: How the attributions of a layer are read (:mod:`fxeval.hooks.readings`); None = as
            (N, C, h, w). Not for ``LayerGradCam``, which averages over the places itself.

    Raises:
        ExplainerContractError: If an argument is wrong.
    """
    _check_callable("from_captum", make, "captum.attr.Saliency (the class, not an instance)")
    checked = _checked("from_captum", needs)
    name = _name_of(make, "captum")
    return CaptumExplainer(make, objective, reduce, arguments, checked, name, reading)


def from_grad_cam(
    make: Make, *, objective: str = "native", name: str | None = None, reading: str | None = None
) -> "GradCamExplainer":
    """Make an explainer from a method of pytorch-grad-cam.

    The library cuts off negative values and scales every map to [0, 1]: only the order of the
    pixels is meaningful, and a constant map becomes zero.

    Args:
        make: Takes the network and returns a method: ``lambda net: GradCAM(net, [net.layer4])``.
            The method is called with ``input_tensor`` and ``targets``, one for each pair.
        objective: What the targets compute, see ``Objective``.
        name: For messages.
        reading: How the target layers are read (:mod:`fxeval.hooks.readings`), in place of a
            ``reshape_transform``; None = as (N, C, h, w).

    Raises:
        ExplainerContractError: If an argument is wrong.
    """
    _check_callable("from_grad_cam", make, "lambda net: GradCAM(net, [net.layer4])")
    return GradCamExplainer(make, objective, name or _name_of(make, "grad-cam"), reading)


def _check_callable(adapter: str, make: object, example: str) -> None:
    if not callable(make):
        raise ExplainerContractError(
            f"{adapter}: expected a callable that builds the method, e.g. {example}; got "
            f"{type(make).__name__}."
        )


@dataclass(frozen=True, eq=False)
class FunctionExplainer:
    """A plain function; made by :func:`from_function`."""

    f: Callable[..., Any]
    name: str
    declared: frozenset[Need] = frozenset()

    def __post_init__(self) -> None:
        _taken(self.f, self.name)

    @property
    def traits(self) -> ExplainerTraits:
        """The declared needs, and the arguments that the function requires."""
        taken = _taken(self.f, self.name)
        required = {name for name, is_required in taken.items() if is_required}
        others = cast("set[Need]", {"contrast", "gallery"} & required)
        return ExplainerTraits(self.declared | others, takes_contrast="contrast" in taken)

    def unsupported(self, model: FaceModel) -> str | None:
        """Return why this kind of model cannot be explained, or None."""
        return black_box(model) if self.declared & {"gradients", "layers"} else None

    def explain(
        self, model: FaceModel, probes: Images, references: Images,
        *, contrast: Images | None = None, generator: np.random.Generator,
        gallery: Gallery | None = None,
    ) -> SaliencyMaps:  # fmt: skip
        """Ask the function; see ``Explainer.explain``.

        Raises:
            ExplainerContractError: If it does not return maps of this size, or takes no contrast
                but is given one.
        """
        _require(self, model)
        takes = _taken(self.f, self.name)
        if contrast is not None and "contrast" not in takes:
            raise refused(self.name, "takes no contrast. Add 'contrast' to its parameters.")
        given = {"generator": generator, "contrast": contrast, "gallery": gallery}
        with torch.inference_mode(False), torch.enable_grad():
            found = self.f(model, probes, references, **{key: given[key] for key in takes})
        if isinstance(found, SaliencyMaps):
            return found
        return SaliencyMaps(as_maps(self.name, found, probes))


@dataclass(frozen=True, eq=False)
class CaptumExplainer:
    """A captum attribution; made by :func:`from_captum`.

    A row whose gradient was computed and is flat gets the state ``no_gradient``. Rules that replace
    gradients layer by layer (DeepLift, LRP) apply up to the embedding; from there to the objective
    the plain gradient is used.
    """

    make: Make
    objective: str = "native"
    reduce: Reduce = "abs_mean"
    arguments: Mapping[str, object] = field(default_factory=dict)
    declared: frozenset[Need] = frozenset({"gradients"})
    name: str = "captum"
    reading: str | None = None

    def __post_init__(self) -> None:
        Objective.parse(self.objective, self.name)
        check_reading(self.reading, self.make, self.name)
        if self.reduce not in get_args(Reduce):
            expected = " or ".join(get_args(Reduce))
            raise refused(self.name, f"reduce must be {expected}, got {self.reduce!r}.")

    @property
    def traits(self) -> ExplainerTraits:
        """The declared needs, and those of the objective."""
        objective = Objective.parse(self.objective, self.name)
        return ExplainerTraits(
            self.declared | objective.needs,
            takes_centroids=True,
            takes_contrast=objective.takes_contrast,
        )

    def unsupported(self, model: FaceModel) -> str | None:
        """Return why this kind of model cannot be explained, or None."""
        return None if "black_box" in self.declared else black_box(model)

    def explain(
        self, model: FaceModel, probes: Images, references: Images,
        *, contrast: Images | None = None, generator: np.random.Generator,
        gallery: Gallery | None = None,
    ) -> SaliencyMaps:  # fmt: skip
        """Explain each probe, ``ROWS`` at a time; see ``Explainer.explain``.

        Raises:
            ExplainerContractError: If the model is a black box, or if the attributions are not one
                (N, C, h, w) tensor.
        """
        _require(self, model)
        with lent_to_library(model.module), torch.inference_mode(False), torch.enable_grad():
            comparison = _comparison(self, model, probes, references, (contrast, gallery))
            method = self.make(PairObjective(comparison, embeds="black_box" in self.declared))
            parts = [getattr(method, "layer", None)]
            layers = known_layers(self.name, model.module, parts, probes, self.reading)
            images = lent(model, probes)
            arguments = {
                key: value.to(images.device) if isinstance(value, Tensor) else value
                for key, value in self.arguments.items()
            }

            def ask(rows: Tensor) -> Tensor:
                # captum repeats and splits this tensor like the images: each copy keeps its pair.
                numbers = rows.to(images.device)
                found = method.attribute(
                    images[rows].requires_grad_(), additional_forward_args=(numbers,), **arguments
                )
                return self._reduced(self._read(found, layers, images[rows]), images[rows])

            signed = in_parts(ask, images, generator)
        read = tuple(layer.as_entry() for layer in layers)
        if self.reduce == "abs_mean":
            return replace(comparison.maps(signed), layers=read)
        return replace(comparison.maps(signed.clamp_min(0), (-signed).clamp_min(0)), layers=read)

    def _read(self, found: object, layers: Sequence[LayerInfo], images: Images) -> object:
        """Return attributions as (n, C, h, w) if they are one tensor."""
        if isinstance(found, tuple) and len(found) == 1:
            found = found[0]
        return (
            found
            if not isinstance(found, Tensor)
            else attributed(self.name, found, layers, images, self.reading)
        )

    def _reduced(self, found: object, images: Images) -> Maps:
        """Return (n, H, W) maps of (n, C, h, w) attributions."""
        if not isinstance(found, Tensor) or found.ndim != 4 or len(found) != len(images):
            what = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise refused(
                self.name,
                f"expected one tensor of attributions ({len(images)}, C, h, w), got {what}. Name a "
                "convolutional layer, and let 'attribute' return nothing but attributions.",
            )
        found = found.detach()
        channels = found.abs().mean(1) if self.reduce == "abs_mean" else found.sum(1)
        size = (images.shape[2], images.shape[3])
        maps = F.interpolate(channels[:, None], size, mode="bilinear", align_corners=False)
        return as_maps(self.name, maps, images)


@dataclass(frozen=True, eq=False)
class GradCamExplainer:
    """A method of pytorch-grad-cam; made by :func:`from_grad_cam`.

    The library's hooks, parameter gradients, replaced layers and switch to evaluation mode are
    undone, also after an error.
    """

    make: Make
    objective: str = "native"
    name: str = "grad-cam"
    reading: str | None = None

    def __post_init__(self) -> None:
        Objective.parse(self.objective, self.name)
        check_reading(self.reading, self.make, self.name)

    @property
    def traits(self) -> ExplainerTraits:
        """The network's layers and gradients, and what the objective needs."""
        objective = Objective.parse(self.objective, self.name)
        needs = frozenset[Need]({"gradients", "layers"}) | objective.needs
        return ExplainerTraits(needs, takes_centroids=True, takes_contrast=objective.takes_contrast)

    def unsupported(self, model: FaceModel) -> str | None:
        """Return why this kind of model cannot be explained, or None."""
        if model.module is not None and next(model.module.parameters(), None) is None:
            return f"needs a network with parameters, but model '{model.name}' has none."
        return black_box(model)

    def explain(
        self, model: FaceModel, probes: Images, references: Images,
        *, contrast: Images | None = None, generator: np.random.Generator,
        gallery: Gallery | None = None,
    ) -> SaliencyMaps:  # fmt: skip
        """Explain each probe, ``ROWS`` at a time; see ``Explainer.explain``.

        Raises:
            ExplainerContractError: If the model is a black box, or if the method does not return
                maps of the probes' size.
        """
        _require(self, model)
        with lent_to_library(model.module), torch.inference_mode(False), torch.enable_grad():
            comparison = _comparison(self, model, probes, references, (contrast, gallery))
            method = self.make(model.module)
            layers = reshape_for(self.name, method, model.module, probes, self.reading)
            images = lent(model, probes)

            def ask(rows: Tensor) -> Tensor:
                targets = [partial(row_target, comparison, row) for row in torch.split(rows, 1)]
                # Leaves that need gradients: frozen parameters alone would leave the library none.
                part = images[rows].requires_grad_()
                found = method(input_tensor=part, targets=targets)
                return as_maps(self.name, found, part)

            try:
                maps = in_parts(ask, images, generator)
            finally:
                hooked = getattr(method, "activations_and_grads", None)
                if hooked is not None:
                    hooked.release()  # frees the activations, too
        return replace(comparison.maps(maps), layers=layers)


def _comparison(
    explainer: CaptumExplainer | GradCamExplainer, model: FaceModel, probes: Images,
    references: Images, others: tuple[Images | None, Gallery | None],
) -> Comparison:  # fmt: skip
    """Embed what the probes are compared with; ``others`` is (contrast, gallery)."""
    objective = Objective.parse(explainer.objective, explainer.name)
    is_twin = torch.zeros(len(probes), dtype=torch.bool)
    if others[0] is None and objective.name != "arc_softmax":
        is_twin = twins(probes, references)
    targets = targets_of(model, references, *others)
    return Comparison(explainer.name, objective, model, targets, is_twin)


def _require(
    explainer: FunctionExplainer | CaptumExplainer | GradCamExplainer, model: FaceModel
) -> None:
    why = explainer.unsupported(model)
    if why is not None:
        raise refused(explainer.name, why)


def _taken(f: Callable[..., Any], name: str) -> dict[str, bool]:
    """Return which optional keywords a function takes, and whether each is required."""
    if not callable(f):
        raise refused(name, f"expected a function, got {type(f).__name__}.")
    try:
        signature = inspect.signature(f)
    except ValueError:  # some functions written in C
        return {}
    named = {
        one.name: one
        for one in signature.parameters.values()
        if one.name in _OPTIONAL and one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)
    }
    try:  # would a call with three positional arguments and these keywords be accepted?
        signature.bind(None, None, None, **dict.fromkeys(named))
    except TypeError as error:
        raise refused(
            name,
            "expected a function of (model, probes, references) and, by name, "
            f"{', '.join(_OPTIONAL)}; got {signature} ({error}).",
        ) from error
    return {key: one.default is one.empty for key, one in named.items()}


def _checked(caller: str, needs: Needs) -> frozenset[Need]:
    return checked_needs(caller, (needs,) if isinstance(needs, str) else needs)


def _name_of(make: object, otherwise: str = "function") -> str:
    name = getattr(make, "__name__", otherwise)
    return otherwise if name == "<lambda>" else str(name)
