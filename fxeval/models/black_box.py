"""A face model given as a function, such as a vendor's library or a service."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from time import sleep
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fxeval.contracts import Crop, Embeddings, Images, ModelTraits, SimilarityKind
from fxeval.errors import ModelContractError, UnansweredError
from fxeval.hooks.outputs import kind_of, outputs_of
from fxeval.hooks.returned import check_embeddings, check_similarity
from fxeval.models.service import LONGEST_WAIT, Calls, asked_to_wait, passes
from fxeval.redaction import of_user_code
from fxeval.strict.text import brief


@dataclass(frozen=True, eq=False)
class EmbeddingFunction:
    """A black box: images in, embeddings out, nothing else is known.

    Attributes:
        name: Id shown in reports.
        crop: The crop that the function expects.
        function: (N, 3, H, W) float32 RGB in [0, 1] on the CPU -> (N, D) floats, as a tensor,
            a NumPy array or a list. It gets a copy of the images and may overwrite it.
        similarity: ``cosine`` or ``neg_l2``.
        version: Text that changes whenever the embeddings do, such as the versions of the library
            and of its weights; the model's digest is computed from the name and this text.
        operating_threshold: Native similarity from which the model says match, or None.
        batch_size: Most images passed at once; None = no limit.
        retries: How often a call is repeated after an error that should pass: a lost connection, a
            timeout, an HTTP status of 408, 425, 429 or from 500. Other errors are told at once.
        backoff: Seconds before the first repeat, doubled for each further one; a ``Retry-After``
            counts if it is longer.
        traits: What else is known about the model.
        calls: The calls that were made, what was answered, and how well it repeats.
    """

    name: str
    crop: Crop
    function: Callable[[Images], Any]
    similarity: SimilarityKind
    version: str
    operating_threshold: float | None = None
    batch_size: int | None = None
    retries: int = 3
    backoff: float = 1.0
    traits: ModelTraits = field(default=ModelTraits(), kw_only=True)
    calls: Calls = field(default_factory=Calls, init=False, repr=False)

    def __post_init__(self) -> None:
        check_similarity(self.name, self.similarity)
        if not self.version.strip():
            raise ModelContractError(
                f"model '{self.name}': expected a version that changes whenever its embeddings do, "
                "got none."
            )
        if not callable(self.function):
            raise ModelContractError(
                f"model '{self.name}': expected a function, got {type(self.function).__name__}."
            )
        if self.batch_size is not None and self.batch_size < 1:
            raise ModelContractError(
                f"model '{self.name}': expected a batch size of at least 1, got {self.batch_size}."
            )
        if not (self.retries >= 0 and 0 <= self.backoff < float("inf")):
            raise ModelContractError(
                f"model '{self.name}': expected retries and backoff of at least 0, got "
                f"{self.retries} and {self.backoff}."
            )

    @property
    def digest(self) -> str:
        """SHA-256 of name and version, because the function itself cannot be hashed."""
        return hashlib.sha256(f"{self.name}\n{self.version}".encode()).hexdigest()

    @property
    def module(self) -> nn.Module | None:
        """None: there is nothing to differentiate."""
        return None

    def embed(self, images: Images) -> Embeddings:
        """Embed (N, 3, H, W) images in [0, 1]; returns (N, D) float32 on the CPU.

        Images that came together before are not asked for again: after a failure the cells that
        come later ask for the rest.

        Raises:
            UnansweredError: If the function keeps raising an error that should pass.
            ModelContractError: If it raises another one, or does not return embeddings.
        """
        return torch.cat([self._remembered(part) for part in self._parts(images)])

    def embed_afresh(self, images: Images) -> Embeddings:
        """Embed as ``embed`` does, and ask even for what is known."""
        return torch.cat([self._embed_one(part) for part in self._parts(images)])

    def _parts(self, images: Images) -> Iterator[Images]:
        n = self.batch_size or max(len(images), 1)
        for start in range(0, max(len(images), 1), n):
            yield images[start : start + n].detach().to("cpu", torch.float32).contiguous()

    def _remembered(self, images: Images) -> Embeddings:
        hasher = hashlib.blake2b(repr(tuple(images.shape)).encode(), digest_size=24)
        hasher.update(images.numpy().tobytes())
        known = self.calls.answered(hasher.digest())
        if known is not None:
            return known.clone()
        found = self._embed_one(images)
        self.calls.keep(hasher.digest(), images, found)
        again = self.calls.due()
        if again is not None:
            self.calls.compare(self.similarity, self._embed_one(again))
        return found.clone()

    def _embed_one(self, images: Images) -> Embeddings:
        return check_embeddings(self.name, _as_tensor(self.name, self._ask(images)), len(images))

    def _ask(self, images: Images) -> object:
        """Call the function; again after an error that passes."""
        for number in range(self.retries + 1):
            try:
                with torch.no_grad():
                    return self.function(images.clone())
            except (Exception, SystemExit) as error:  # user code may raise anything
                if not passes(error):
                    raise self._fault(error, images) from error
                if number == self.retries:
                    raise self._silence(error, images) from error
                self.calls.repeated[type(error).__name__] += 1
                sleep(min(LONGEST_WAIT, max(self.backoff * 2**number, asked_to_wait(error))))
        raise AssertionError("unreachable: the last call returns or raises")

    def _fault(self, error: BaseException, images: Images) -> ModelContractError:
        shape = tuple(images.shape)
        return ModelContractError(
            f"model '{self.name}': its function raised {type(error).__name__} for {shape} "
            f"images: {brief(str(error))}",
            public=f"model '{self.name}': its function raised {of_user_code(error)} for "
            f"{shape} images",
        )

    def _silence(self, error: BaseException, images: Images) -> UnansweredError:
        fault = self._fault(error, images)
        also = (
            f". It was called {self.retries + 1} times. What it has answered is kept, and cells "
            "that come later ask again; raise retries or backoff if it needs longer."
        )
        return UnansweredError(f"{fault.detail}{also}", public=f"{fault.public}{also}")


def _as_tensor(name: str, found: Any) -> object:  # noqa: ANN401  (whatever user code returned)
    """Return floats in a list or an array as a float32 tensor; anything else as it is.

    Raises:
        ModelContractError: If a list or an array holds no numbers, or misses some.
    """
    if isinstance(found, Tensor):
        return found
    is_list = isinstance(found, list | tuple)
    missing = [row for row, one in enumerate(found) if one is None] if is_list else []
    if missing:
        raise ModelContractError(
            f"model '{name}': its function returned None in place of the embeddings of "
            f"{len(missing)} images, as if it found no face there. Images with pixels removed must "
            "be embedded, too: switch off its detector."
        )
    if is_list and len(found) and all(isinstance(one, Tensor) and one.ndim == 1 for one in found):
        found = [one.detach().cpu().numpy() for one in found]
    elif outputs_of(found):
        raise ModelContractError(
            f"model '{name}': expected embeddings (N, D), got {kind_of(found)}. Return the "
            "embeddings alone."
        )
    elif not is_list and not hasattr(found, "__array__"):
        return found
    try:
        array = np.asarray(found)
    except Exception:  # user code, or rows of several lengths
        array = np.array(None)
    # JSON writes 1.0 as 1; an array of whole numbers is another thing, such as a quantised code.
    if array.dtype.kind not in ("fiu" if is_list else "f"):
        got = type(found).__name__
        kind = "rows of several lengths, or no numbers" if array.dtype.kind == "O" else array.dtype
        raise ModelContractError(
            f"model '{name}': embed must return a torch.Tensor (N, D), or floats in a list or a "
            f"NumPy array, got a {got} of {kind}."
        )
    with np.errstate(over="ignore"):  # told as an infinite value
        return torch.from_numpy(np.array(array, np.float32))
