"""Checks that what user code returns (embeddings, explainers, maps) meets the contract."""

from collections.abc import Sequence
from dataclasses import replace
from typing import cast, get_args

import numpy as np
import torch
from torch import Tensor

from fxeval.contracts import (
    BROKEN_STATES,
    Crop,
    Embeddings,
    Explainer,
    FaceModel,
    LabelMaps,
    MapLayer,
    PairSource,
    RowState,
    SaliencyMaps,
    SimilarityKind,
)
from fxeval.errors import DataContractError, ExplainerContractError, ModelContractError
from fxeval.functional.ranking import flat
from fxeval.functional.similarity import threshold_fault
from fxeval.hooks.outputs import kind_of
from fxeval.strict.text import describe, either, printable
from fxeval.traits import check_explainer_traits

LONGEST_NAME, LONGEST_SOURCE = 64, 500
"""Most characters of the name of a part, and of what says how parts were found."""


def check_embeddings(name: str, embeddings: object, n: int) -> Embeddings:
    """Return embeddings from user code if they meet the contract: (n, D), floating, finite.

    Raises:
        ModelContractError: If they do not.
    """
    if not isinstance(embeddings, Tensor):
        raise ModelContractError(
            f"model '{name}': embed must return a torch.Tensor (N, D), got {kind_of(embeddings)}."
        )
    if embeddings.ndim != 2 or embeddings.shape[0] != n:
        raise ModelContractError(
            f"model '{name}': embed must return ({n}, D) for {n} images, got "
            f"{tuple(embeddings.shape)}.{_reshaped(embeddings, n)}"
        )
    if not embeddings.dtype.is_floating_point:
        raise ModelContractError(
            f"model '{name}': embeddings must be float, got {embeddings.dtype}."
        )
    found = embeddings.detach().to(torch.float32)
    if not bool(torch.isfinite(found).all()):
        raise ModelContractError(
            f"model '{name}': embeddings hold NaN or infinite values. Check the weights, the "
            "input range, and half precision, which ends at 65504 in float16."
        )
    return found


def _reshaped(embeddings: Tensor, n: int) -> str:
    """Return what to do about embeddings of a shape that is often seen; "" about any other."""
    shape = tuple(embeddings.shape)
    if len(shape) > 2 and shape[0] == n and all(side == 1 for side in shape[2:]):
        return " Flatten it at the end of forward: embeddings.flatten(1)."
    if n == 1 and len(shape) == 1:
        return " Keep the dimension of the batch, which squeeze() removes: flatten(1)."
    if len(shape) == 1:
        return " One number for an image is no embedding: return the vector that it is computed of."
    return ""


def check_similarity(name: str, similarity: object) -> None:
    """Refuse a similarity that is none of fxeval's.

    Raises:
        ModelContractError: Naming those that are, and how to turn a distance into one.
    """
    kinds = get_args(SimilarityKind)
    if isinstance(similarity, str) and similarity in kinds:
        return
    got = describe(similarity) if isinstance(similarity, str) else type(similarity).__name__
    raise ModelContractError(
        f"model '{name}': expected {either(kinds)} as similarity, got {got}."
        f"{_of_another_name(similarity)}"
    )


def _of_another_name(similarity: object) -> str:
    """Return how to say with fxeval's similarities what another name means; "" if unknown."""
    word = similarity.lower() if isinstance(similarity, str) else ""
    if "dist" in word and "cos" in word:
        return " A cosine distance d is the cosine 1 - d: give 'cosine', and 1 - d as threshold."
    if "cos" in word:
        return " Give 'cosine'."
    if "l2" in word or "euclid" in word:
        return (
            " A Euclidean distance d is the similarity -d: give 'neg_l2', and -d as threshold (-d "
            "of a squared distance d * d)."
        )
    if any(part in word for part in ("dot", "inner", "ip")):
        return " The inner product of embeddings of length 1 is their cosine: give 'cosine'."
    return ""


def check_explainer(name: str, explainer: object) -> Explainer:
    """Return an explainer from user code if it meets the contract.

    Raises:
        ExplainerContractError: If it has no ``explain``, or a trait that would be ignored.
    """
    if isinstance(explainer, type):
        raise ExplainerContractError(
            f"explainer '{name}': expected an object, got the class {explainer.__name__}. Return "
            f"{explainer.__name__}()."
        )
    if not callable(getattr(explainer, "explain", None)):
        raise ExplainerContractError(
            f"explainer '{name}': expected an object with explain(model, probes, references, *, "
            f"contrast, generator), got {type(explainer).__name__}. Wrap a function with "
            "fxeval.from_function."
        )
    check_explainer_traits(name, explainer)
    return cast(Explainer, explainer)


_OF_A_MODEL = ("name", "crop", "similarity", "operating_threshold", "digest", "module", "embed")
_OF_A_SOURCE = ("name", "banner", "listing", "images")


def _lacking(subject: object, parts: Sequence[str]) -> str:
    """Describe a subject that is a class or lacks parts; "" if it is an object with all of them."""
    missing = [one for one in parts if not hasattr(subject, one)]
    if not missing and not isinstance(subject, type):
        return ""
    got = f"the class {subject.__name__}" if isinstance(subject, type) else type(subject).__name__
    return got + (f" without {', '.join(missing)}" if missing else "")


def check_model(name: str, model: object) -> FaceModel:
    """Return what a fixture made if it is a face model by its form.

    Raises:
        ModelContractError: If an attribute is missing, crop or similarity is of another kind, or
            the operating threshold cannot be one of that similarity.
    """
    if got := _lacking(model, _OF_A_MODEL):
        raise ModelContractError(
            f"model '{name}': expected a face model, got {got}. Wrap a network with "
            "fxeval.TorchFaceModel, or a function with fxeval.EmbeddingFunction."
        )
    found = cast(FaceModel, model)
    if not isinstance(found.crop, Crop):
        raise ModelContractError(
            f"model '{name}': expected a fxeval.Crop as crop, got {type(found.crop).__name__}."
        )
    check_similarity(name, found.similarity)
    if fault := threshold_fault(found.similarity, found.operating_threshold):
        raise ModelContractError(
            f"model '{name}': operating_threshold, the native similarity from which it says match: "
            f"{fault}."
        )
    return found


def check_source(name: str, source: object) -> PairSource:
    """Return what a fixture made if it is a pair list by its form.

    Raises:
        DataContractError: If an attribute is missing.
    """
    if got := _lacking(source, _OF_A_SOURCE):
        said = (
            f"pairs '{name}': expected an object with name, banner, listing() and images(), got "
            f"{got}."
        )
        raise DataContractError(said, public=said)
    return cast(PairSource, source)


def check_landmarks(name: str, landmarks: object, n: int) -> Tensor:
    """Return landmarks from a pair source if they meet the contract: (n, 5, 2), finite, float64.

    Raises:
        DataContractError: If they do not.
    """
    found = _numbers(landmarks)
    is_real = found is not None and found.dtype != torch.bool and not found.is_complex()
    if found is None or not is_real or tuple(found.shape) != (n, 5, 2):
        raise _of_source(name, f"expected landmarks ({n}, 5, 2), got {_kind_of(landmarks)}")
    found = found.detach().to("cpu", torch.float64)
    if not bool(torch.isfinite(found).all()):
        raise _of_source(name, "expected finite landmarks, got NaN or infinity")
    return found


def check_label_maps(name: str, maps: object, n: int, size: tuple[int, int]) -> LabelMaps:
    """Return label maps from a pair source if they meet the contract.

    Args:
        name: The source's name, for the message.
        maps: The value that it returned.
        n: Number of images.
        size: (height, width) of the crop.

    Returns:
        LabelMaps on the CPU, labels in int64.

    Raises:
        DataContractError: If names repeat or are no text, or labels are of another shape or kind or
            outside the names.
    """
    if not isinstance(maps, LabelMaps):
        said = f"expected fxeval.contracts.LabelMaps as label maps, got {_kind_of(maps)}"
        raise _of_source(name, said)
    names = tuple(maps.names) if isinstance(maps.names, tuple | list) else ()
    if not names or not all(map(_is_name, names)):
        said = f"a tuple of printable text, at most {LONGEST_NAME} characters each"
        raise _of_source(name, f"expected the names of the parts as {said}")
    if len(set(names)) < len(names):
        raise _of_source(name, f"expected {len(names)} different names of parts, got one twice")
    labels, shape = _numbers(maps.labels), (n, *size)
    if labels is None or tuple(labels.shape) != shape:
        raise _of_source(name, f"expected label maps {shape}, got {_kind_of(maps.labels)}")
    if labels.dtype == torch.bool or labels.is_floating_point() or labels.is_complex():
        raise _of_source(name, f"expected labels that are whole numbers, got {labels.dtype}")
    labels = labels.detach().to("cpu", torch.int64)
    if labels.numel() and not -1 <= int(labels.min()) <= int(labels.max()) < len(names):
        raise _of_source(
            name,
            f"expected labels from -1 to {len(names) - 1}, one for each name, got "
            f"{int(labels.min())} to {int(labels.max())}",
        )
    source = printable(" ".join(str(maps.source).split()))[:LONGEST_SOURCE]
    return LabelMaps(names, labels, source)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and value.isprintable() and 0 < len(value) <= LONGEST_NAME


def _numbers(value: object) -> Tensor | None:
    """Return a tensor, or an array of numbers as one; None for anything else."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiu" and value.dtype.itemsize <= 8:
        native = value.astype(value.dtype.newbyteorder("="))
        return torch.from_numpy(native.astype(np.int64) if value.dtype.kind == "u" else native)
    return value if isinstance(value, Tensor) else None


def _of_source(name: str, said: str) -> DataContractError:
    text = f"pairs '{name}': {said}."
    return DataContractError(text, public=text)


def check_maps(name: str, maps: object, n: int, size: tuple[int, int]) -> SaliencyMaps:
    """Check the form of maps from user code, and mark every NaN and constant map.

    Args:
        name: The explainer's name, for the message.
        maps: The value that it returned: SaliencyMaps or a tensor.
        n: Number of pairs.
        size: (height, width) of the probes.

    Returns:
        SaliencyMaps on the CPU in float32; states ``nan_map`` and ``degenerate_map`` are set.

    Raises:
        ExplainerContractError: If type, shape or dtype are wrong.
    """
    maps = _of_right_form(name, maps, (n, *size))
    positive, negative = _in_single(maps.positive, maps.negative)
    states, reasons = _declared(name, maps.states), list(maps.reasons)
    for row, map_ in enumerate(positive):
        if states[row] in BROKEN_STATES:
            continue
        broken = ~torch.isfinite(map_)
        if negative is not None:
            broken |= ~torch.isfinite(negative[row])
        if bool(broken.any()):
            states[row] = RowState.NAN_MAP
            reasons[row] = f"{int(broken.sum())} pixels are NaN or infinite"
        elif is_constant(map_):
            states[row] = RowState.DEGENERATE_MAP
            value = f"{float(maps.positive[row].flatten()[0]):g}"
            reasons[row] = reasons[row] or f"every pixel is {value}, within 1e-12 of it"
    diagnostics = {
        str(key): torch.as_tensor(values).detach().to("cpu", torch.float32, copy=True)
        for key, values in maps.diagnostics.items()
    }
    layers = tuple(one for one in maps.layers if isinstance(one, MapLayer))
    return SaliencyMaps(positive, negative, tuple(states), tuple(reasons), diagnostics, layers)


def _of_right_form(name: str, maps: object, expected: tuple[int, ...]) -> SaliencyMaps:
    """Return maps (N, H, W) of real numbers.

    A channel axis of length 1 is dropped, and arrays of numpy are taken as tensors.
    """
    if not isinstance(maps, SaliencyMaps):
        return SaliencyMaps(_of_one_form(name, maps, expected))
    negative = None if maps.negative is None else _of_one_form(name, maps.negative, expected)
    return replace(maps, positive=_of_one_form(name, maps.positive, expected), negative=negative)


def _of_one_form(name: str, part: object, expected: tuple[int, ...]) -> Tensor:
    if isinstance(part, np.ndarray) and part.dtype.kind in "fiu":
        native = part.astype(part.dtype.newbyteorder("="))
        part = torch.from_numpy(native.astype(np.int64) if part.dtype.kind == "u" else native)
    if not isinstance(part, Tensor):
        raise ExplainerContractError(
            f"explainer '{name}': expected saliency maps as SaliencyMaps, a torch.Tensor or a "
            f"numpy array of numbers {expected}, got {_kind_of(part)}.{_how_to_stack(part)}"
        )
    if part.dtype == torch.bool or part.is_complex():
        raise ExplainerContractError(
            f"explainer '{name}': expected saliency maps of real numbers, got {part.dtype}. Use "
            f"{'.float()' if part.dtype == torch.bool else '.abs() or .real'}."
        )
    shape = tuple(part.shape)
    if shape == (expected[0], 1, *expected[1:]):
        return part[:, 0]
    if shape != expected:
        raise ExplainerContractError(
            f"explainer '{name}': expected saliency maps {expected}, one per probe and at its "
            f"size, got {shape}. {_how_to_shape(shape, expected)}"
        )
    return part


def _kind_of(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype} {value.shape}"
    if isinstance(value, Tensor):
        return f"a tensor of {value.dtype} {tuple(value.shape)}"
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of {len(value)}"
    return type(value).__name__


def _how_to_stack(value: object) -> str:
    if isinstance(value, list | tuple) and value and isinstance(value[0], Tensor):
        return " Return torch.stack(maps)."
    if isinstance(value, list | tuple):
        return " Return numpy.stack(maps), or torch.stack(maps) of tensors."
    return " Return the maps."


def _how_to_shape(shape: tuple[int, ...], expected: tuple[int, ...]) -> str:
    """Say how maps of a wrong shape become maps of the right one."""
    n, height, width = expected
    if shape[:1] == (n,) and shape[-2:] == (height, width) and len(shape) == 4:
        return "Reduce the channels: maps.sum(1), or maps.abs().amax(1)."
    if len(shape) == 4 and shape[:3] == expected:
        return "Channels come last: reduce them with maps.sum(-1)."
    if shape == (height, width) and n == 1:
        return "Add the axis of the pairs: maps[None]."
    if shape == (n, width, height):
        return "Height comes before width: maps.transpose(1, 2)."
    if shape == (n, height * width):
        return f"Return maps.reshape({n}, {height}, {width})."
    if shape[1:] == (height, width):
        return "Return one map for each probe of the call, in their order."
    return "Upsample inside the explainer."


def _in_single(positive: Tensor, negative: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Return copies in float32 on the CPU; maps that it could not hold are scaled by powers of 2.

    Maps are judged by their order, which such a factor leaves as it is to the last bit.
    """
    parts = [positive] if negative is None else [positive, negative]
    wide = [part.detach().to("cpu", torch.float64, copy=True) for part in parts]
    peaks = torch.stack([part.abs().flatten(1).amax(1) for part in wide]).amax(0)
    exponents = np.frexp(peaks.numpy())[1]
    beyond = np.isfinite(peaks.numpy()) & (np.abs(exponents) > 100)
    for row in np.flatnonzero(beyond):
        for part in wide:
            part[row] = torch.from_numpy(np.ldexp(part[row].numpy(), -exponents[row]))
    found = [part.to(torch.float32) for part in wide]
    return found[0], (None if negative is None else found[1])


def _declared(name: str, states: Sequence[RowState]) -> list[RowState]:
    """Return the states that an explainer gave its maps; it cannot exclude a row."""
    allowed = {RowState.OK, RowState.DEGENERATE_MAP, *BROKEN_STATES}
    wrong = [one for one in states if not isinstance(one, str) or one not in allowed]
    if wrong:
        raise ExplainerContractError(
            f"explainer '{name}': a map's state must be one of "
            f"{', '.join(sorted(allowed))}, got '{wrong[0]}'."
        )
    return [RowState(state) for state in states]


def is_constant(map_: Tensor) -> bool:
    """Say whether a finite map has no order (:func:`fxeval.functional.ranking.flat`)."""
    low, high = (np.asarray(float(end)) for end in (map_.min(), map_.max()))
    return bool(flat(low, high))
