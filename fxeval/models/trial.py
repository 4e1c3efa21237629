"""Tries a model that is not trusted yet, and says what to do where it fails."""

from contextlib import suppress
from itertools import chain

import torch
from torch import nn

from fxeval.contracts import Embeddings, FaceModel, Images
from fxeval.errors import FxevalError, ModelContractError, UnansweredError, for_a_record
from fxeval.hooks.processes import is_a_stop
from fxeval.hooks.returned import check_embeddings
from fxeval.models.black_box import EmbeddingFunction
from fxeval.redaction import message_of, of_user_code


def check_weights_are_there(model: FaceModel) -> None:
    """Refuse a module whose weights will be drawn at its first forward pass.

    Raises:
        ModelContractError: Naming the first of them.
    """
    module = model.module
    if module is None:
        return
    for name, value in chain(module.named_parameters(), module.named_buffers()):
        if torch.nn.parameter.is_lazy(value):
            raise ModelContractError(
                f"model '{model.name}': its '{name}' has no values yet: a lazy layer draws them at "
                "its first forward pass. Run the network once, then load its weights."
            )
        if value.is_meta:
            raise ModelContractError(
                f"model '{model.name}': its '{name}' is on the meta device, which holds no values. "
                "Load the weights."
            )


def embedded(model: FaceModel, images: Images, *, afresh: bool = False) -> Embeddings:
    """Embed images with a model that is not trusted yet; returns (N, D) on the CPU, D >= 2.

    Args:
        model: The model.
        images: (N, 3, H, W), as the model gets them.
        afresh: Ask again for what a service has answered before.

    Raises:
        ModelContractError: If the model raises, returns no embeddings, or writes into the images;
            with what to do, found by trying.
    """
    given = images.clone()
    embed = model.embed
    if afresh and isinstance(model, EmbeddingFunction):
        embed = model.embed_afresh
    try:
        found: object = embed(given)
    except UnansweredError:
        raise
    except BaseException as error:  # user code may raise anything
        if is_a_stop(error):
            raise
        detail, public = (
            message_of(error),
            for_a_record(error) if isinstance(error, FxevalError) else "",
        )
        if not isinstance(error, ModelContractError):
            said = (
                f"model '{model.name}': cannot embed {tuple(images.shape)} images of its crop "
                f"'{model.crop.name}'"
            )
            detail = f"{said}: {type(error).__name__}: {detail}"
            public = f"{said}: {of_user_code(error)}"
        advice = _advice(model, images)
        between = ". " if advice and not public.endswith(".") else " " if advice else ""
        raise ModelContractError(
            f"{detail}{between}{advice}", public=f"{public}{between}{advice}"
        ) from error
    if not torch.equal(given, images):
        raise ModelContractError(
            f"model '{model.name}': its forward writes into the images that it gets, which other "
            "code uses, too. Compute out of place there (x - mean instead of x.sub_(mean)), or "
            "begin with images = images.clone()."
        )
    embeddings = check_embeddings(model.name, found, len(images)).cpu()
    if embeddings.shape[1] < 2:
        raise ModelContractError(
            f"model '{model.name}': expected embeddings of at least 2 numbers, got 1 number for an "
            "image, whose cosine with another is always 1 or -1. Return the vector of the face, "
            "not its length or its score."
        )
    return embeddings


def check_batch(model: FaceModel, images: Images, embeddings: Embeddings, *, within: float) -> None:
    """Refuse a model whose embedding of an image depends on the other images of its batch.

    The second image is embedded again in a batch of copies of itself. The batch has the same size,
    so that the same kernels compute it, and rounding cannot make a difference.

    Args:
        model: The model.
        images: (N, 3, H, W), N >= 2.
        embeddings: Of these images in one batch.
        within: Allowed difference of a number, as a share of the embedding's length.

    Raises:
        ModelContractError: If they differ, with how to change that.
    """
    alike = embedded(model, images[1:2].expand_as(images).contiguous(), afresh=True)[1]
    length = float(embeddings[1].double().norm())
    difference = float((alike.double() - embeddings[1].double()).abs().max()) / length
    if difference <= within:
        return
    again = embedded(model, images, afresh=True)
    noise = float((again.double() - embeddings.double()).abs().max()) / length
    if noise > difference / 3:  # it does not repeat, which is another fault
        apart = float((embeddings[1].double() - embeddings[0].double()).abs().max()) / length
        if model.module is None and noise > 0.1 * apart:  # of a network, admission says more
            raise ModelContractError(
                f"model '{model.name}': its embeddings of the same images differ between two calls "
                f"by {noise:.1g} of their length, those of two different images by {apart:.1g}. "
                "They must depend on the image alone: switch off what it draws at random."
            )
        return
    raise ModelContractError(
        f"model '{model.name}': the embedding of an image depends on the other images in its "
        f"batch: it changes by {difference:.1g} of its length. {_against_batches(model.module)}"
    )


def is_training(module: nn.Module) -> bool:
    """Say whether a part of a network is in training mode."""
    return any(getattr(part, "training", False) for part in module.modules())


def _against_batches(module: nn.Module | None) -> str:
    """Return what to do about a model that mixes the images of a batch."""
    one_by_one = "Give it one image at a time: EmbeddingFunction(..., batch_size=1)."
    if module is None:
        return one_by_one
    if any("quantized.dynamic" in type(part).__module__ for part in module.modules()):
        return f"Dynamic quantisation takes the range of a whole batch. {one_by_one}"
    if is_training(module):
        return "Switch the network to evaluation mode: network.eval()."
    return (
        "Its forward mixes them (a normalisation over the batch, or a comparison with one of its "
        "images): treat each image by itself."
    )


def _advice(model: FaceModel, images: Images) -> str:
    """Try what networks often expect; return what to do if one of it works, else ""."""
    module = model.module
    if module is not None:
        other = {one.dtype for one in module.parameters() if one.is_floating_point()}
        other -= {torch.float32}
        if other:
            kinds = ", ".join(sorted(str(one).removeprefix("torch.") for one in other))
            return (
                f"Its weights are {kinds} and fxeval gives float32 images: convert the network "
                "with network.float(), or cast inside forward."
            )
    tries = {
        "images of 1 channel, and fxeval gives 3 (RGB). Wrap it: "
        "network(images.mean(1, keepdim=True)).": images.mean(1, keepdim=True),
        "images (N, H, W, 3), and fxeval gives (N, 3, H, W). Wrap it: "
        "network(images.permute(0, 2, 3, 1)).": images.permute(0, 2, 3, 1).contiguous(),
        "whole numbers from 0 to 255, and fxeval gives numbers from 0 to 1. Wrap it: "
        "network((images * 255).round().to(torch.uint8)).": (images * 255).round().byte(),
    }
    for expected, given in tries.items():
        with suppress(Exception), torch.no_grad():
            found = model.embed(given) if module is None else module(given)
            if check_embeddings(model.name, found, len(images)).shape[1] >= 2:
                return f"It expects {expected}"
    if len(images) > 1:
        with suppress(Exception):
            check_embeddings(model.name, model.embed(images[:1].clone()), 1)
            return f"It embeds one image, but not {len(images)} at once."
    return ""
