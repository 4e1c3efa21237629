"""One engine for all forward passes.

Metrics describe what they want embedded (``fxeval.functional.perturbations.Perturbations``); the
pool makes the images on the model's device, embeds each different one once, in batches that mix
pairs and steps, and remembers the answer for later cells. The composition of a batch depends on the
request alone, never on what earlier cells left in memory: results don't depend on order or workers.
"""

import hashlib
import zlib
from collections import OrderedDict
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from fxeval.contracts import (
    Embeddings,
    FaceModel,
    Faces,
    Fill,
    Images,
    MaskBank,
)
from fxeval.errors import FillContractError, ModelContractError
from fxeval.functional.fills import applied, fills, prepared, removed_pixels, replaced
from fxeval.functional.masking import masker
from fxeval.functional.perturbations import DONOR, Perturbations
from fxeval.hooks.processes import is_a_stop, one_process
from fxeval.hooks.returned import check_embeddings
from fxeval.hooks.watch import modes_kept
from fxeval.models.loading import ModelAround, device_of
from fxeval.redaction import message_of, of_user_code

FILLED_UP_TO = 16
"""Images that a batch has at least; with a batch size of at most this, all batches are alike."""


@contextmanager
def precise(device: torch.device) -> Iterator[None]:
    """Compute in full float32 on a GPU (no TF32, no autotuning), then put its switches back."""
    if device.type != "cuda":
        yield
        return
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark, cudnn.deterministic
    cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark, cudnn.deterministic = (
        False, False, False, True,
    )  # fmt: skip
    try:
        yield
    finally:
        cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark, cudnn.deterministic = before


def fastest_batch_size() -> int:
    """Return how many images of 112 x 112 pixels a forward pass takes fastest on this machine."""
    # Activations of more images leave a CPU's cache, and every image gets slower.
    return 128 if torch.cuda.is_available() else 16


class ForwardPool:
    """Embeds images and described perturbations for any number of models and cells.

    Args:
        batch_size: Most images in one forward pass at first.
        memory_bytes: Budget of remembered embeddings; the least recently used go first.
        on_forward: Called with the number of images after each batch (for progress).

    Attributes:
        forwards: Images embedded so far.
        backwards: Images in backward passes that another process made on a copy of a model.
        answered: Images that were asked for, masked or clean, and answered from memory.
        is_embedding: A model is embedding at this moment on the pool's behalf.
        notes: Sentences for the record: the batch size was halved, user code changed settings.
    """

    def __init__(
        self,
        *,
        batch_size: int = 64,
        memory_bytes: int = 512 << 20,
        on_forward: Callable[[int], None] | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self._batch_size = batch_size
        self.forwards = self.backwards = self.answered = 0
        self.is_embedding = False
        self.notes: list[str] = []
        self._memory_bytes = memory_bytes
        self._on_forward = on_forward
        self._memory: OrderedDict[bytes, Embeddings] = OrderedDict()
        self._checksums: dict[bytes, int] = {}
        self._memory_used = 0

    @property
    def batch_size(self) -> int:
        """Most images in one forward pass; halved when the device is out of memory."""
        return self._batch_size

    def embed_images(self, model: FaceModel, images: Images) -> Embeddings:
        """Embed (N, 3, H, W) images in [0, 1]; returns (N, D) float32 on the CPU."""
        return self._batches(model, len(images), lambda start, stop: images[start:stop])

    def clean(self, model: FaceModel, faces: Faces) -> Embeddings:
        """Embed every distinct image of a set, unperturbed, once; returns (M, D)."""
        before = self.forwards
        found = self._remembered(
            _key(model, faces.image_digests, "clean"),
            lambda: self._batches(
                model,
                len(faces.images),
                lambda start, stop: _float(faces.images[start:stop], model),
            ),
        )
        self.answered += len(faces.images) - (self.forwards - before)
        return found

    def embed(self, model: FaceModel, faces: Faces, wanted: Perturbations) -> Embeddings:
        """Embed described perturbations.

        Args:
            model: The model.
            faces: Owns the images.
            wanted: R descriptions.

        Returns:
            (R, D) float32 on the CPU. Nothing removed costs nothing (the clean embeddings are
            shared), everything removed costs one pass per image and fill, and equal descriptions
            cost one pass. With everything replaced by a donor, they are the donor's.
        """
        n = faces.images.shape[-1] * faces.images.shape[-2]
        empty = wanted.last <= wanted.first
        full = ~empty & (wanted.first <= 0) & (wanted.last >= n)
        partial = ~(empty | full)
        clean = self.clean(model, faces)
        result: Embeddings = clean.new_empty(len(wanted), clean.shape[1])
        result[empty] = clean[wanted.image[empty]]
        if bool(full.any()) and wanted.donor is not None:
            result[full] = clean[wanted.donor[full]]
        elif bool(full.any()):
            used, inverse = torch.unique(wanted.image[full], return_inverse=True)
            result[full] = self._filled(model, faces, used, wanted.fill)[inverse]
        if bool(partial.any()):
            # Curves of both directions and all maps share points: each is embedded once.
            donor = wanted.image if wanted.donor is None else wanted.donor
            columns = torch.stack(
                [wanted.image, wanted.ranking, wanted.first.long(), wanted.last.long(), donor], 1
            )[partial]
            distinct, inverse = torch.unique(columns, dim=0, return_inverse=True)
            result[partial] = self._partial(model, faces, distinct, wanted)[inverse]
        return result

    def masked(self, model: FaceModel, image: Tensor, bank: MaskBank, fill: Fill) -> Embeddings:
        """Embed one image under every mask of a bank, in batches of this image alone.

        While a pooled model is changed, nothing is remembered and nothing looked up.

        Args:
            model: The model.
            image: (3, H, W) in [0, 1].
            bank: N masks.
            fill: What shows where a mask is 0.

        Returns:
            (N, D) float32 on the CPU, not to be written to.

        Raises:
            ExplainerContractError: If the bank does not fit the image, or its digest not the masks.
        """
        image = image.detach().to(device_of(model), torch.float32)
        make = masker(image, bank, fill)

        def compute() -> Embeddings:
            return self._batches(model, len(bank.masks), make)

        if isinstance(model, PooledModel) and model.changes():
            return compute()
        content = hashlib.sha256(image.cpu().contiguous().numpy().tobytes()).hexdigest()
        before = self.forwards
        found = self._remembered(_key(model, (content,), "masked", bank.digest, fill), compute)
        self.answered += len(bank.masks) - (self.forwards - before)
        return found

    def _filled(self, model: FaceModel, faces: Faces, used: Tensor, fill: str) -> Embeddings:
        digests = tuple(faces.image_digests[i] for i in used.tolist())

        def make(start: int, stop: int) -> Images:
            images = _float(faces.images[used[start:stop]], model)
            everything = torch.ones_like(images[:, 0], dtype=torch.bool)
            function = fills()[fill]
            return applied(fill, function, images, prepared(fill, function, images), everything)

        return self._remembered(
            _key(model, digests, "filled", fill), lambda: self._batches(model, len(used), make)
        )

    def _partial(
        self, model: FaceModel, faces: Faces, distinct: Tensor, wanted: Perturbations
    ) -> Embeddings:
        used, image = torch.unique(distinct[:, 0], return_inverse=True)
        rankings, ranking = torch.unique(distinct[:, 1], return_inverse=True)
        donors, donor = torch.unique(distinct[:, 4], return_inverse=True)
        key = _key(
            model,
            tuple(faces.image_digests[i] for i in used.tolist()),
            "partial",
            wanted.fill,
            "|".join(faces.image_digests[i] for i in donors.tolist()),
            wanted.ranks[rankings].contiguous().numpy().tobytes(),
            torch.stack([image, ranking, *distinct[:, 2:4].T, donor], 1).numpy().tobytes(),
        )

        def compute() -> Embeddings:
            device = device_of(model)
            images = _float(faces.images[used], model)
            function = None if wanted.fill == DONOR else fills()[wanted.fill]
            if function is None:  # a donor's pixels
                once, of = _float(faces.images[donors], model), donor.to(device)
            else:
                once, of = prepared(wanted.fill, function, images), image.to(device)
            ranks = wanted.ranks[rankings].to(device)
            rows, orders, bounds = image.to(device), ranking.to(device), distinct[:, 2:4].to(device)

            def make(start: int, stop: int) -> Images:
                row, order = rows[start:stop], orders[start:stop]
                first, last = bounds[start:stop].unbind(1)
                size = (images.shape[2], images.shape[3])
                removed = removed_pixels(ranks[order], first, last, size)
                by = once[of[start:stop]]
                if function is None:
                    return replaced(images[row], by, removed)
                return applied(wanted.fill, function, images[row], by, removed)

            return self._batches(model, len(distinct), make)

        return self._remembered(key, compute)

    def _batches(
        self, model: FaceModel, count: int, make: Callable[[int, int], Images]
    ) -> Embeddings:
        if isinstance(model, PooledModel):
            model = model.model
        parts: list[Embeddings] = []
        start = 0
        while start < count:
            stop = min(start + self.batch_size, count)
            self.is_embedding = True
            try:
                with one_process(), precise(device_of(model)):
                    with modes_kept(self.note, "a fill"):
                        images = self._filled_up(make(start, stop))
                    with modes_kept(self.note, f"model '{model.name}'"):
                        embeddings = model.embed(images)[: stop - start]
            except FillContractError:  # no fault of the model
                raise
            except BaseException as error:  # user code may raise anything
                if is_a_stop(error):
                    raise
                self._halve(model, error)
                continue
            finally:
                self.is_embedding = False
            parts.append(check_embeddings(model.name, embeddings, stop - start).cpu())
            self.forwards += stop - start
            if self._on_forward is not None:
                self._on_forward(stop - start)
            start = stop
        return torch.cat(parts) if parts else torch.empty(0, 0)

    def _filled_up(self, images: Images) -> Images:
        """Repeat the last image until the batch has the size of all small batches.

        Kernels differ with the number of images, and with them the last digits: so an image has the
        same embedding whatever it is asked for with.
        """
        missing = min(self.batch_size, FILLED_UP_TO) - len(images)
        if missing <= 0:
            return images
        return torch.cat([images, images[-1:].expand(missing, *images.shape[1:])])

    def _halve(self, model: FaceModel, error: BaseException) -> None:
        message = message_of(error)
        if "out of memory" not in message.lower():
            if isinstance(error, ModelContractError):
                raise error
            said = f"model '{model.name}': embed raised"
            raise ModelContractError(
                f"{said} {type(error).__name__}: {message}", public=f"{said} {of_user_code(error)}"
            ) from error
        if self.batch_size == 1:
            raise ModelContractError(
                f"model '{model.name}': out of memory with a single image. Use a device with more."
            ) from error
        self._batch_size //= 2
        self.note(f"out of memory: batch size halved to {self.batch_size}")

    def note(self, sentence: str) -> None:
        """Keep a sentence for the record, once."""
        if sentence not in self.notes:
            self.notes.append(sentence)

    def remembered(self) -> frozenset[bytes]:
        """Return the keys of what is remembered now, for :meth:`forget_all_but`."""
        return frozenset(self._memory)

    def forget_all_but(self, keys: Container[bytes]) -> None:
        """Forget embeddings that were computed since then: something was wrong meanwhile."""
        for key in [key for key in self._memory if key not in keys]:
            self._memory_used -= self._memory.pop(key).nbytes
            del self._checksums[key]

    def _remembered(self, key: bytes, compute: Callable[[], Embeddings]) -> Embeddings:
        if key in self._memory:
            self._memory.move_to_end(key)
            if _checksum(self._memory[key]) == self._checksums[key]:
                return self._memory[key]
            self.note("user code wrote to remembered embeddings, which were computed again")
            self._memory_used -= self._memory.pop(key).nbytes
        value = self._memory[key] = compute()
        self._checksums[key] = _checksum(value)
        self._memory_used += value.nbytes
        while self._memory_used > self._memory_bytes and len(self._memory) > 1:
            old, dropped = self._memory.popitem(last=False)
            self._memory_used -= dropped.nbytes
            del self._checksums[old]
        return value


@dataclass(frozen=True, eq=False)
class PooledModel(ModelAround):
    """A face model whose ``embed`` goes through a pool; explainers get this one.

    Attributes:
        pool: Takes its forward passes.
        key: What its embeddings are remembered under. The digest of the weights alone does not say
            how images are prepared, so whoever knows more hands in more.
        changes: Says what user code has changed of the model.
    """

    pool: ForwardPool
    key: str
    changes: Callable[[], Sequence[str]] = tuple

    def embed(self, images: Images) -> Embeddings:
        """Embed through the pool, in its batches; returns (N, D) on the model's device."""
        return self.pool.embed_images(self.model, images).to(device_of(self.model))

    def embed_masked(self, image: Tensor, bank: MaskBank, fill: Fill) -> Embeddings:
        """Embed a (3, H, W) image in [0, 1] under each of N masks; (N, D) on the model's device.

        The same image, bank and fill cost N forward passes once, whoever asks for them again.
        """
        found = self.pool.masked(self, image, bank, fill)
        return found.to(device_of(self.model), copy=True)  # belongs to whoever asked


def _checksum(embeddings: Embeddings) -> int:
    return zlib.crc32(embeddings.contiguous().numpy().data)


def _float(images: Tensor, model: FaceModel) -> Images:
    return images.to(device_of(model)).to(torch.float32).div_(255.0)


def _key(model: FaceModel, digests: tuple[str, ...], *parts: str | bytes) -> bytes:
    identity = model.key if isinstance(model, PooledModel) else model.digest
    hasher = hashlib.blake2b(digest_size=24)
    for part in (identity, "|".join(digests), *parts):
        data = part if isinstance(part, bytes) else part.encode()
        hasher.update(len(data).to_bytes(8, "big") + data)
    return hasher.digest()
