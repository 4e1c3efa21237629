"""Mask banks and the images under their masks.

Embeddings are cached by a bank's digest, so the digest is checked before it is used.
"""

from collections.abc import Callable
from hashlib import sha256
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from fxeval.contracts import Fill, Images, MaskBank
from fxeval.errors import ExplainerContractError
from fxeval.functional.fill_images import fill_images

_verified: WeakKeyDictionary[MaskBank, int] = WeakKeyDictionary()  # version of the checked masks


def bank_of(masks: Tensor) -> MaskBank:
    """Return a bank: masks, (N, H, W) float32 in [0, 1], 1 = kept, with their digest."""
    masks = masks.detach().cpu().contiguous()
    bank = MaskBank(masks, _digest(masks))
    version = _version(masks)
    if version is not None:
        _verified[bank] = version
    return bank


def masker(image: Tensor, bank: MaskBank, fill: Fill) -> Callable[[int, int], Images]:
    """Return a function of (start, stop) that makes the images under these masks of the bank.

    They are (stop - start, 3, H, W), on the image's device.

    Raises:
        ExplainerContractError: If the bank does not fit the image, or its digest is wrong.
    """
    _check_bank(bank, image)
    filler = None if fill == "black" else fill_images(image[None], fill)

    def hide(start: int, stop: int) -> Images:
        masks = bank.masks[start:stop, None].to(image.device)
        return image * masks if filler is None else torch.lerp(filler, image[None], masks)

    return hide


def _check_bank(bank: MaskBank, image: Tensor) -> None:
    masks = bank.masks
    if masks.ndim != 3 or masks.shape[1:] != image.shape[1:] or masks.dtype != torch.float32:
        raise ExplainerContractError(
            f"mask bank: expected masks (N, {image.shape[1]}, {image.shape[2]}) float32 for this "
            f"image, got {tuple(masks.shape)} {masks.dtype}."
        )
    # Embeddings are cached by digest: it must be theirs even if the masks were written to.
    version = _version(masks)
    if version is not None and _verified.get(bank) == version:
        return
    if _digest(masks) != bank.digest:
        raise ExplainerContractError(
            "mask bank: the digest is not that of the masks. Make banks with bank_of, and do not "
            "write to them."
        )
    if version is not None:
        _verified[bank] = version


def _version(masks: Tensor) -> int | None:
    """Return torch's counter of writes to the masks; inference tensors have none."""
    return None if masks.is_inference() else masks._version


def _digest(masks: Tensor) -> str:
    head = f"{tuple(masks.shape)} {masks.dtype}".encode()
    return sha256(head + masks.cpu().contiguous().numpy().tobytes()).hexdigest()
