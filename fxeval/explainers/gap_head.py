"""Global average pooling and a linear layer, trained on a frozen network."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fxeval.contracts import FaceModel, Images
from fxeval.errors import ModelContractError, UnsupportedError
from fxeval.explainers.cam_exact import ROWS
from fxeval.explainers.closed_set import (
    ClassMaps,
    ClosedSetClassifier,
    check_asked,
    classes_of,
    targets_of,
)
from fxeval.functional.class_heads import trained_head
from fxeval.hooks.layers import black_box, borrowed, layers_of, on_device_of, resolve
from fxeval.hooks.readings import Reading
from fxeval.hooks.tails import cut_at


@dataclass(frozen=True, eq=False)
class PooledClassifier(ClosedSetClassifier):
    """A classifier on the mean of a layer's output over all places.

    Its maps are those of Zhou et al., CVPR 2016, sec. 2.

    Attributes:
        layer: Name of the layer.
        reading: How the layer's output is read as a map.
    """

    layer: str
    reading: Reading

    def features(self, images: Images) -> Tensor:
        """Return (N, D) means over the places of the layer's output."""
        return _pooled(self.model, self.layer, self.reading, images)

    def no_cam(self) -> str | None:
        """Return None: global average pooling and a linear layer always divide among places."""
        return None

    def parts(self, images: Images, classes: Tensor) -> ClassMaps:
        """Divide the logits of some classes, at the pooled layer; see the base class."""
        check_asked(images, classes, len(self.classes))
        classes = classes.cpu()
        coarse = []
        for part, asked in zip(torch.split(images, ROWS), torch.split(classes, ROWS), strict=True):
            output = _output(self.model, self.layer, self.reading, part)
            maps = torch.einsum("nmk,nkij->nmij", self.weight[asked], output)
            coarse.append(maps / (output.shape[2] * output.shape[3]))
        return ClassMaps(torch.cat(coarse), self.bias[classes])


def gap_head(
    model: FaceModel, layer: str, images: Images, identity: Sequence[str],
    *, penalty: float = 1e-3, classes: Sequence[str] = (),
) -> PooledClassifier:  # fmt: skip
    """Train global average pooling and a linear layer on a layer of a frozen network.

    Softmax regression on the pooled features, each scaled to mean 0 and deviation 1 over the
    images. It minimises the mean cross-entropy plus penalty / 2 times the sum of all squared
    weights; the solution is unique, and nothing is drawn at random.

    Args:
        model: Must have a module, which is restored afterwards.
        layer: A name or rule (:func:`fxeval.hooks.layers.resolve`).
        images: (N, 3, H, W) in [0, 1], at least one of each identity.
        identity: The identity of each image.
        penalty: Above 0; larger = smaller weights.
        classes: Names of the classes, in their order; () = the distinct identities, sorted.

    Raises:
        DataContractError: If there are fewer than 2 classes, a class has no image, an image belongs
            to no class, or images cannot be used.
        UnsupportedError: If the model is a black box.
        ExplainerContractError: If the layer cannot be used.
        ModelContractError: If the penalty is not above 0, or the layer's output is not finite.
        EvidenceError: If the solver does not converge: the penalty is too small.

    Source:
        Zhou et al., CVPR 2016, sec. 2, here with the network frozen.
    """
    if not 0 < penalty < math.inf:
        raise ModelContractError(f"gap head: expected a finite penalty above 0, got {penalty}.")
    names = classes_of(identity, classes)
    target = targets_of(images, identity, names)
    if model.module is None:
        raise UnsupportedError(f"gap head: {black_box(model)}")
    (where,) = resolve(layer, layers_of(model.module, images[:1]), "gap head")
    found = _pooled(model, where.name, where.reading, images)
    head = trained_head(found, target, len(names), penalty)
    return PooledClassifier(model, names, head.weight, head.bias, where.name, where.reading)


def _pooled(model: FaceModel, layer: str, reading: Reading, images: Images) -> Tensor:
    """Return (N, D) float64 means over a layer's places."""
    return torch.cat(
        [
            _output(model, layer, reading, part).mean(dim=(2, 3))
            for part in torch.split(images, ROWS)
        ]
    )


def _output(model: FaceModel, layer: str, reading: Reading, images: Images) -> Tensor:
    """Return a layer's output of some images, (n, D, h, w) float64 on the CPU."""
    module = model.module
    assert module is not None  # gap_head refuses black boxes
    with borrowed(module), torch.inference_mode(False), torch.no_grad():
        cut = cut_at(module, layer, on_device_of(module, images), reading=reading)
    output = cut.activations.detach().cpu().double()
    if not bool(torch.isfinite(output).all()):
        raise ModelContractError(
            f"model '{model.name}': the output of layer '{layer}' holds NaN or infinite values. "
            "Check the weights and the input range."
        )
    return output
