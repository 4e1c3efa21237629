"""Admits a model by evidence: a fault of the model is found before an explainer is blamed for it.

Trained networks differ much, and the bounds here are wide: no network that recognises faces is near
one of them (``docs/models.md``). Accuracy plays no part.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor, nn

from fxeval.contracts import Embeddings, FaceModel, Faces, Images
from fxeval.errors import ModelContractError
from fxeval.functional.similarity import similarity
from fxeval.hooks.custody import Custody
from fxeval.hooks.processes import is_a_stop
from fxeval.hooks.returned import check_embeddings
from fxeval.models.trial import check_batch, embedded, is_training
from fxeval.redaction import message_of, of_user_code

FACES = 8  # crops that a model is admitted with
_LENGTHS = 1e-6, 1e12  # squares of such lengths, and gradients of their cosines, fit into float32
_SAME = 2e-3  # spread below which embeddings are nearly the same
_NARROW = 0.2  # spread that no trained network has, though many an untrained one
_WIDER = 15.0  # factor of the spread, times 255, that tells networks of another input range
_ROUNDING = 1e-5  # of an embedding's length, between two calls of a network
_BATCH = 1e-4  # of an embedding's length, between two batches of one size
_NOISE = 0.1  # of the spread of similarities, between two calls of a service
_TRAINING = "It is in training mode: call network.eval()."


@dataclass(frozen=True)
class Admission:
    """The evidence that a model is fit to be explained.

    Attributes:
        n_faces: Images that it was shown.
        forwards: Images that passed it, some of them several times.
        seconds: Duration.
        spread: Mean distance between embeddings of different people, as a share of their length
            (of unit embeddings, under the cosine); NaN = all images are of one person.
        lengths: Shortest and longest embedding.
        noise: Largest difference of a similarity between two calls; 0 = none.
        noise_allowed: Difference from which the model is unfit; infinite without a spread.
        no_gradient: Why it cannot be differentiated, as a record may say; "" = it can, or it is a
            black box.
        no_gradient_told: The same with the whole message of user code.
    """

    n_faces: int
    forwards: int
    seconds: float
    spread: float
    lengths: tuple[float, float]
    noise: float
    noise_allowed: float
    no_gradient: str
    no_gradient_told: str


def admit(model: FaceModel, faces: Faces, device: torch.device, at_once: int = FACES) -> Admission:
    """Look at a few faces through a model and refuse it with the first fault that is found.

    Args:
        model: A model that has embedded once (``check_loaded``), on its device.
        faces: Images of the pair list, in the model's crop.
        device: The model's.
        at_once: Most images in one forward pass; two are needed at least.

    Raises:
        ModelContractError: Naming the model's fault, the figure seen, and what to do.
    """
    started = time.perf_counter()
    images, identity = _chosen(faces, max(2, min(at_once, FACES)))
    images = images.to(device).to(torch.float32).div_(255.0)
    with _kept_by_forward(model):
        embeddings = embedded(model, images)
        lengths = _lengths(model, images, embeddings)
        spread = _spread(model, images, embeddings, identity)
        noise, allowed = _noise(model, images, embeddings, identity)
        check_batch(model, images, embeddings, within=_BATCH)
    module = model.module
    public, told = ("", "") if module is None else _no_gradient(model, module, images)
    return Admission(
        n_faces=len(images),
        forwards=3 * len(images) + (0 if module is None else 2),
        seconds=time.perf_counter() - started,
        spread=spread,
        lengths=lengths,
        noise=noise,
        noise_allowed=allowed,
        no_gradient=public,
        no_gradient_told=told,
    )


def _chosen(faces: Faces, n: int) -> tuple[Tensor, Tensor]:
    """Return n different images with who is in them, of as many people as there are.

    Mirror images fill up, so that a batch has at least two different ones.
    """
    distinct = list({digest: row for row, digest in reversed(list(enumerate(faces.image_digests)))}
                    .values())[::-1]  # fmt: skip
    # An unknown person counts as one of their own.
    people = {row: int(faces.identity[row]) for row in distinct}
    people = {row: one if one >= 0 else -1 - row for row, one in people.items()}
    first = list({one: row for row, one in reversed(people.items())}.values())[::-1]
    rows = [*first, *(row for row in distinct if row not in first)][:n]
    images, identity = faces.images[rows], torch.tensor([people[row] for row in rows])
    if len(rows) < 2:
        return torch.cat([images, images.flip(-1)]), torch.cat([identity, identity])
    return images, identity


def _lengths(model: FaceModel, images: Images, embeddings: Embeddings) -> tuple[float, float]:
    """Return the lengths of the shortest and the longest embedding.

    Raises:
        ModelContractError: If float32 cannot hold what is computed with them.
    """
    lengths = embeddings.double().norm(dim=1)
    shortest, longest = float(lengths.min()), float(lengths.max())
    if shortest == 0.0:
        raise ModelContractError(
            f"model '{model.name}': its embeddings of {int((lengths == 0).sum())} of {len(images)} "
            "faces are 0, and have no direction. The weights or the input range are wrong: fxeval "
            "gives pixels from 0 to 1."
        )
    low, high = _LENGTHS
    if shortest < low or longest > high:
        raise ModelContractError(
            f"model '{model.name}': expected embeddings with lengths from {low:g} to {high:g}, got "
            f"{shortest:.3g} to {longest:.3g}, whose squares and gradients float32 cannot hold. "
            "Multiply them by a constant at the end of forward; no cosine changes."
        )
    return shortest, longest


def _spread(model: FaceModel, images: Images, embeddings: Embeddings, identity: Tensor) -> float:
    """Return the mean distance between embeddings of different people.

    Raises:
        ModelContractError: If different people are nearly the same to the model.
    """
    spread = _distance(model, embeddings, identity)
    if not spread < _NARROW:  # NaN included: all images are of one person
        return spread
    wider = 0.0
    with suppress(ModelContractError):  # a question asked for the advice
        wider = _distance(model, embedded(model, images * 255.0), identity)
    is_of_another_range = wider >= max(_SAME, _WIDER * spread)
    if spread >= _SAME and not is_of_another_range:
        return spread
    advice = "The weights are missing or wrong, or the output is not the embedding."
    if is_of_another_range:
        advice = (
            f"With its input times 255 they differ by {wider:.2g}: it seems to expect pixels from "
            "0 to 255, and fxeval gives 0 to 1. Multiply in the module, network(images * 255), or "
            "give mean and std in a card."
        )
    raise ModelContractError(
        f"model '{model.name}': its embeddings of {len(images)} faces of different people are "
        f"nearly the same: they differ by {spread:.2g} of their length, where those of trained "
        f"networks differ by 0.4 and more. {advice}"
    )


def _distance(model: FaceModel, embeddings: Embeddings, identity: Tensor) -> float:
    """Return the mean distance between different people as a share of the length, or NaN."""
    vectors = embeddings.double()
    lengths = vectors.norm(dim=1, keepdim=True)
    one, two = _pairs(identity, of_different_people=True)
    unit = vectors / (lengths if model.similarity == "cosine" else lengths.mean())
    return float((unit[one] - unit[two]).norm(dim=1).mean())


def _noise(
    model: FaceModel, images: Images, embeddings: Embeddings, identity: Tensor
) -> tuple[float, float]:
    """Return how far similarities differ between two calls, and how far they may.

    Raises:
        ModelContractError: If a network does not repeat, or a black box hardly does.
    """
    again = embedded(model, images, afresh=True)
    one, two = _pairs(identity, of_different_people=False)
    first, second = (
        similarity(model.similarity, found[one], found[two]) for found in (embeddings, again)
    )
    noise = float((first - second).abs().max())
    different, others = _pairs(identity, of_different_people=True)
    apart = similarity(model.similarity, embeddings[different], embeddings[others])
    same = 1.0 if model.similarity == "cosine" else 0.0
    allowed = _NOISE * float((same - apart).mean()) if len(apart) else float("inf")
    if model.module is None:
        if noise > allowed:
            raise ModelContractError(
                f"model '{model.name}': the same {len(images)} faces, embedded twice, have "
                f"similarities that differ by up to {noise:.2g}; at most {allowed:.2g} is allowed, "
                f"{_NOISE:.0%} of what tells people apart. Make its answers repeat, or let the "
                "function return the mean of several."
            )
        return noise, allowed
    difference = float((again.double() - embeddings.double()).abs().max())
    difference /= float(embeddings.double().norm(dim=1).max())
    if difference > _ROUNDING:
        advice = _TRAINING if is_training(model.module) else (
            "Its forward draws random numbers, or remembers: switch that off (dropout: "
            "training=self.training)."
        )  # fmt: skip
        raise ModelContractError(
            f"model '{model.name}': its embeddings of the same {len(images)} faces differ between "
            f"two calls by {difference:.1g} of their length. {advice}"
        )
    return noise, allowed


def _pairs(identity: Tensor, *, of_different_people: bool) -> tuple[Tensor, Tensor]:
    """Return the rows of all pairs of images, or of those of different people."""
    one, two = torch.triu_indices(len(identity), len(identity), 1)
    if of_different_people:
        kept = identity[one] != identity[two]
        one, two = one[kept], two[kept]
    return one, two


@contextmanager
def _kept_by_forward(model: FaceModel) -> Iterator[None]:
    """Refuse a network that changes itself in the forward passes of the body.

    Raises:
        ModelContractError: Naming what changed; the network is put back as it was.
    """
    module = model.module
    if module is None:
        yield
        return
    custody = Custody(module)
    before = {name: one.detach().clone() for name, one in _tensors(module)}
    fault: ModelContractError | None = None
    try:
        yield
    except ModelContractError as error:
        fault = error
    now = dict(_tensors(module))
    names = [f"'{name}'" for name, one in before.items() if not _equal(one, now.get(name))]
    changes = custody.changes()
    custody.restore()
    if changes:  # explains what it gave rise to, such as other embeddings
        what = f"its {', '.join(names[:3])}" if names else "; ".join(changes)
        advice = _TRAINING if is_training(module) else (
            "Let forward change nothing unless self.training is True."
        )  # fmt: skip
        raise ModelContractError(
            f"model '{model.name}': a forward pass changes the network: {what}. What is measured "
            f"would depend on what was measured before. {advice}"
        ) from fault
    if fault is not None:
        raise fault


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    return chain(module.named_parameters(), module.named_buffers())


def _equal(before: Tensor, now: Tensor | None) -> bool:
    if now is None or (before.shape, before.dtype) != (now.shape, now.dtype):
        return False
    if not before.is_floating_point():
        return torch.equal(before, now)
    return torch.allclose(before, now, rtol=0.0, atol=0.0, equal_nan=True)


def _no_gradient(model: FaceModel, module: nn.Module, images: Images) -> tuple[str, str]:
    """Return why the similarity has no gradient with respect to an image; "" if it has one.

    Twice: as a record may say it, and with the whole message of user code.
    """
    custody = Custody(module)
    told = ""
    try:
        with torch.inference_mode(False), torch.enable_grad():
            leaf = images[:1].clone().requires_grad_(True)
            live = module(torch.cat([leaf, images[1:2]]))
            fixed = check_embeddings(model.name, live, 2)[1:]
            public = _fault_of_gradient(model, leaf, live[:1], fixed)
    except BaseException as error:  # user code may raise anything
        if is_a_stop(error):
            raise
        message = message_of(error)
        public = f"autograd fails: {of_user_code(error)}"
        told = f"autograd fails: {type(error).__name__}: {message}"
        if "Inference tensors" in message:
            public = told = (
                "autograd fails: its weights, or a tensor that it keeps, were made under "
                "torch.inference_mode(). Make them under torch.no_grad() instead"
            )
    finally:
        custody.restore()
    return public, told or public


def _fault_of_gradient(model: FaceModel, leaf: Tensor, live: Embeddings, fixed: Embeddings) -> str:
    if not live.requires_grad:
        return (
            "its embeddings have no gradient: torch.no_grad(), detach(), NumPy or whole numbers "
            "in its forward cut it off"
        )
    value = similarity(model.similarity, live, fixed).sum()
    (gradient,) = torch.autograd.grad(value, leaf, allow_unused=True)
    if gradient is None:
        return (
            "its embeddings have no gradient with respect to the image: torch.no_grad(), detach() "
            "or NumPy in its forward cuts it off"
        )
    if not bool(torch.isfinite(gradient).all()):
        return "the gradient with respect to the image is NaN or infinite"
    if not bool(gradient.any()):
        return "the gradient with respect to the image is 0 at every pixel: its forward rounds"
    return ""
