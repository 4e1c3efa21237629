"""Face models as classifiers of a closed set of identities, with exact class activation maps.

A class's logit is affine in the image's feature, which is its embedding or the mean of a layer over
all places. It therefore decomposes into one number per place and a constant
(:mod:`fxeval.explainers.cam_exact`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fxeval.contracts import FaceModel, Images
from fxeval.errors import (
    DataContractError,
    ModelContractError,
    UnsupportedError,
)
from fxeval.explainers.cam_exact import ROWS
from fxeval.explainers.objectives import centroid_embeddings
from fxeval.functional.class_heads import gallery_head
from fxeval.hooks.layers import black_box, borrowed, on_device_of
from fxeval.hooks.tails import (
    Tail,
    cut_at,
    divided,
    tail_of,
    upsampled,
)
from fxeval.strict.text import brief

_LARGEST_SCALE = 1e4
_SLACK = 1e-3  # by which interpolation may leave the range of pixels


@dataclass(frozen=True, eq=False)
class ClassMaps:
    """Logits, divided among places.

    Attributes:
        coarse: (N, m, h, w) float64, what each place of the layer adds to a class's logit, signed.
        constant: (N, m) float64, the part that belongs to no place. All parts add up to the logit.
    """

    coarse: Tensor
    constant: Tensor


@dataclass(frozen=True, eq=False)
class ClosedSetClassifier:
    """Predicts which of C identities an image shows: softmax of ``weight . x + bias``.

    Subclasses define x. All results are on the CPU in float64.

    Attributes:
        model: The face model below.
        classes: Names of the identities, C of them, at least 2, all different.
        weight: (C, D) float64, one row for each class.
        bias: (C,) float64.
    """

    model: FaceModel
    classes: tuple[str, ...]
    weight: Tensor
    bias: Tensor

    def __post_init__(self) -> None:
        _check_classes(self.classes)
        shapes = tuple(self.weight.shape), tuple(self.bias.shape)
        if self.weight.ndim != 2 or shapes != ((len(self.classes), shapes[0][1]), shapes[0][:1]):
            raise ModelContractError(
                f"classifier of '{self.model.name}': expected a weight ({len(self.classes)}, D) "
                f"and a bias ({len(self.classes)},), got {shapes[0]} and {shapes[1]}."
            )
        for name in ("weight", "bias"):
            with torch.inference_mode(False):  # a copy is an ordinary tensor, for autograd
                value = getattr(self, name).detach().to("cpu", torch.float64, copy=True)
            if not bool(torch.isfinite(value).all()):
                raise ModelContractError(
                    f"classifier of '{self.model.name}': its {name} holds NaN or infinite values."
                )
            object.__setattr__(self, name, value)

    def features(self, images: Images) -> Tensor:
        """Return x of (N, 3, H, W) images: (N, D) float64."""
        raise NotImplementedError

    def parts(self, images: Images, classes: Tensor) -> ClassMaps:
        """Divide the logits of some classes among places, exactly.

        Args:
            images: (N, 3, H, W) in [0, 1].
            classes: (N, m) int64, the classes asked for of each image.

        Raises:
            UnsupportedError: For the reason that ``no_cam`` gives.
        """
        raise NotImplementedError

    def no_cam(self) -> str | None:
        """Return why logits do not divide among places; None if they do."""
        raise NotImplementedError

    def logits(self, images: Images) -> Tensor:
        """Return (N, C) logits of (N, 3, H, W) images in [0, 1].

        Raises:
            DataContractError: If the images are not finite floats in [0, 1].
            ModelContractError: If an embedding is not finite.
        """
        _check_images(images)
        features = self.features(images)
        self._check_width(features.shape[1])
        return features @ self.weight.T + self.bias

    def probabilities(self, images: Images) -> Tensor:
        """Return (N, C) probabilities, each row of sum 1."""
        return self.logits(images).softmax(dim=1)

    def predicted(self, images: Images) -> tuple[Tensor, Tensor]:
        """Return the (N,) int64 most probable classes, and the (N,) confidences in them, 0 to 1."""
        confidence, found = self.probabilities(images).max(dim=1)
        return found, confidence

    def accuracy(self, images: Images, identity: Sequence[str]) -> float:
        """Return the share, 0 to 1, of (N, 3, H, W) images that get their identity as the class.

        Raises:
            DataContractError: If there is no image, or an identity is not one of the classes.
        """
        target = targets_of(images, identity, self.classes)
        return float((self.predicted(images)[0] == target).double().mean())

    def cam(self, images: Images, classes: Tensor) -> Tensor:
        """Return class activation maps at the size of the images.

        Args:
            images: (N, 3, H, W) in [0, 1].
            classes: (N, m) int64, the classes asked for of each image.

        Returns:
            (N, m, H, W) float32, signed, larger = adds more to the logit.

        Raises:
            UnsupportedError: For the reason that ``no_cam`` gives.
        """
        return upsampled(self.parts(images, classes).coarse, images).float()

    def _check_width(self, width: int) -> None:
        if width != self.weight.shape[1]:
            raise ModelContractError(
                f"classifier of '{self.model.name}': expected a weight ({len(self.classes)}, "
                f"{width}), as the model gives {width} numbers, got {tuple(self.weight.shape)}."
            )


@dataclass(frozen=True, eq=False)
class EmbeddingClassifier(ClosedSetClassifier):
    """A classifier on the embedding: a gallery, or a head that was trained elsewhere.

    Its maps pull the class's weights back through the network's affine tail, for example batch
    norm, flatten, linear, batch norm.

    Attributes:
        is_unit: x is the embedding divided by its length; otherwise it is the raw embedding.
        layer: Where the maps are; see :class:`fxeval.explainers.cam_exact.CAM`.
    """

    is_unit: bool = True
    layer: str | None = None

    def features(self, images: Images) -> Tensor:
        """Return the (N, D) embeddings, of length 1 if ``is_unit``."""
        found = centroid_embeddings(self.model, images).cpu().double()
        return F.normalize(found, dim=1, eps=1e-12) if self.is_unit else found

    def no_cam(self) -> str | None:
        """Return why logits do not divide: a black box, or no layer with an affine tail; or None.

        Raises:
            ExplainerContractError: If the named layer is missing, or gives no map.
        """
        if self.model.module is None:
            return black_box(self.model)
        with borrowed(self.model.module), torch.inference_mode(False), torch.enable_grad():
            found = self._tail(self.model.crop.size)
        return found if isinstance(found, str) else None

    def parts(self, images: Images, classes: Tensor) -> ClassMaps:
        """Divide the logits of some classes, at a layer with an affine tail; see the base class."""
        check_asked(images, classes, len(self.classes))
        module = self.model.module
        if module is None:
            raise UnsupportedError(f"class activation maps: {black_box(self.model)}")
        coarse, constant = [], []
        with borrowed(module), torch.inference_mode(False), torch.enable_grad():
            tail = self._tail((images.shape[2], images.shape[3]))
            if isinstance(tail, str):
                raise UnsupportedError(f"class activation maps: {tail}")
            self._check_width(len(tail.offset))
            for part, asked in zip(
                torch.split(images, ROWS), torch.split(classes.cpu(), ROWS), strict=True
            ):
                cut = cut_at(module, tail.layer, on_device_of(module, part), reading=tail.reading)
                found = [
                    divided(cut, tail, self.weight[one].to(tail.offset), is_unit=self.is_unit)
                    for one in asked.unbind(dim=1)
                ]
                coarse.append(torch.stack([places.cpu() for places, _ in found], dim=1))
                constant.append(torch.stack([rest.cpu() for _, rest in found], dim=1))
        return ClassMaps(torch.cat(coarse), torch.cat(constant) + self.bias[classes.cpu()])

    def _tail(self, size: tuple[int, int]) -> Tail | str:
        """Return the tail of the borrowed model, or why there is none."""
        found = tail_of(self.model, self.layer, size, "cam")
        if isinstance(found, Tail) and found.output and not self.is_unit:
            return (
                f"model '{self.model.name}' divides its embedding by its length, so the logits of "
                "a head on the raw embedding do not divide among places. Set is_unit."
            )
        return found


def gallery_softmax(
    model: FaceModel, images: Images, identity: Sequence[str],
    *, scale: float = 64.0, layer: str | None = None, classes: Sequence[str] = (),
) -> EmbeddingClassifier:  # fmt: skip
    """Make a verification model a classifier of the identities of a gallery.

    The logits are those of :func:`fxeval.functional.class_heads.gallery_head`: scaled cosines to
    the identities' centroids or, for ``neg_l2``, what gives the probabilities of the distances.

    Args:
        model: Its module may be None; there are no maps then.
        images: (N, 3, H, W) in [0, 1], at least one of each identity.
        identity: The identity of each image.
        scale: 0 < scale <= 10,000.
        layer: Where the maps are; None = see :class:`fxeval.explainers.cam_exact.CAM`.
        classes: Names of the classes, in their order; () = the distinct identities, sorted.

    Raises:
        DataContractError: If there are fewer than 2 classes, a class has no image, an image belongs
            to no class, or images cannot be used.
        ModelContractError: If the scale is out of range, or an embedding is not finite.
    """
    if not 0 < scale <= _LARGEST_SCALE:
        raise ModelContractError(
            f"gallery softmax: expected 0 < scale <= {_LARGEST_SCALE:g}, got {scale}."
        )
    names = classes_of(identity, classes)
    target = targets_of(images, identity, names)
    embeddings = centroid_embeddings(model, images).cpu()
    head = gallery_head(model.similarity, embeddings, target, scale)
    return EmbeddingClassifier(model, names, head.weight, head.bias, head.is_unit, layer)


def _fault(text: str) -> DataContractError:
    """Return an error whose text holds numbers only, so all of it may be in a record."""
    return DataContractError(text, public=text)


def _check_classes(classes: Sequence[str]) -> None:
    if len(classes) < 2 or len(set(classes)) < len(classes):
        raise _fault(
            f"closed set: expected at least 2 different identities, got {len(set(classes))} of "
            f"{len(classes)}."
        )


def _check_images(images: Images) -> None:
    is_batch = images.ndim == 4 and images.shape[1] == 3 and len(images) > 0
    if not is_batch or not images.is_floating_point():
        raise _fault(
            f"images: expected floats (N, 3, H, W), N >= 1, got {tuple(images.shape)} of type "
            f"{images.dtype}."
        )
    if not bool(((images >= -_SLACK) & (images <= 1 + _SLACK)).all()):
        raise _fault(
            f"images: expected finite values in [0, 1], got {float(images.min()):g} to "
            f"{float(images.max()):g}. Divide pixels by 255."
        )


def check_asked(images: Images, classes: Tensor, n_classes: int) -> None:
    """Check the images and the classes that maps are asked for.

    Args:
        images: Should be (N, 3, H, W) in [0, 1].
        classes: Should be (N, m) int64.
        n_classes: Number of classes.

    Raises:
        DataContractError: If images or classes are anything else.
    """
    _check_images(images)
    if classes.dtype != torch.int64 or classes.ndim != 2 or len(classes) != len(images):
        raise _fault(
            f"class activation maps: expected classes ({len(images)}, m) of type int64, got "
            f"{tuple(classes.shape)} of type {classes.dtype}."
        )
    if classes.shape[1] < 1 or bool(((classes < 0) | (classes >= n_classes)).any()):
        raise _fault(
            f"class activation maps: expected one class or more, from 0 to {n_classes - 1}, for "
            f"each image, got {tuple(classes.shape)}: {brief(str(classes.flatten().tolist()))}."
        )


def classes_of(identity: Sequence[str], classes: Sequence[str]) -> tuple[str, ...]:
    """Return the classes; if there are none, the distinct identities, sorted.

    Raises:
        DataContractError: If a class has no image.
    """
    names = tuple(classes) or tuple(sorted(set(identity)))
    empty = sorted(set(names) - set(identity))
    if empty:
        text = (
            f"closed set: expected images of every class, got none of {len(empty)} of {len(names)}"
        )
        raise DataContractError(
            f"{text}, such as '{brief(empty[0])}'. Enrol them, or leave the classes out.",
            public=text,
        )
    return names


def targets_of(images: Images, identity: Sequence[str], classes: Sequence[str]) -> Tensor:
    """Return (N,) int64, the class of each image.

    Raises:
        DataContractError: If images or classes cannot be used, or an image belongs to no class.
    """
    _check_images(images)
    _check_classes(classes)
    if len(identity) != len(images):
        raise _fault(
            f"closed set: expected one identity for each image, got {len(identity)} for "
            f"{len(images)}."
        )
    place = {name: index for index, name in enumerate(classes)}
    unknown = sorted(set(identity) - set(classes))
    if unknown:
        text = f"closed set: {len(unknown)} identities are not among the {len(classes)} classes"
        raise DataContractError(
            f"{text}, such as '{brief(unknown[0])}'. Enrol them, or leave their images out.",
            public=text,
        )
    return torch.tensor([place[name] for name in identity])
