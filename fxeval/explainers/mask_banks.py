"""Mask banks, and the embeddings of images hidden behind them.

Embeddings of one image under one bank do not depend on the pair, triplet or cell that asks: a model
that remembers them (:class:`fxeval.contracts.MaskedEmbedder`) forwards them once.
"""

from hashlib import sha256

import torch
from torch import Tensor

from fxeval.admission import check_embeddings
from fxeval.contracts import Embeddings, FaceModel, Fill, MaskBank, MaskedEmbedder
from fxeval.perturbation import fill_images

CHUNK = 64  # masked images in memory at once, if the model has no batches of its own


def bank_of(masks: Tensor) -> MaskBank:
    """Return masks with the digest that names them; (N, H, W) float32 in [0, 1], 1 = kept."""
    masks = masks.detach().cpu().contiguous()
    head = f"{tuple(masks.shape)} {masks.dtype}".encode()
    return MaskBank(masks, sha256(head + masks.numpy().tobytes()).hexdigest())


def masked_embeddings(
    model: FaceModel, image: Tensor, bank: MaskBank, fill: Fill = "black"
) -> Embeddings:
    """Embed one image under every mask of a bank.

    Args:
        model: Asked for embeddings only.
        image: (3, H, W) in [0, 1].
        bank: N masks of the image's size.
        fill: What shows where a mask is 0: ``image * mask + filler * (1 - mask)``.

    Returns:
        (N, D) float32 on the image's device.

    Raises:
        ModelContractError: If the embeddings are not finite (n, D) tensors.
    """
    if isinstance(model, MaskedEmbedder):
        return model.embed_masked(image, bank, fill).to(image.device)
    parts = []
    for start in range(0, len(bank.masks), CHUNK):
        images = masked(image, bank, fill, slice(start, start + CHUNK))
        parts.append(check_embeddings(model.name, model.embed(images), len(images)))
    return torch.cat(parts)


def masked(image: Tensor, bank: MaskBank, fill: Fill, rows: slice) -> Tensor:
    """Return (n, 3, H, W), the image behind some masks of a bank."""
    masks = bank.masks[rows, None].to(image.device)
    if fill == "black":
        return image * masks
    return torch.lerp(fill_images(image[None], fill), image[None], masks)
