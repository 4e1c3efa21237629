"""A face model given as a function, such as a vendor's library or a service."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from fxeval.contracts import Crop, Embeddings, Images, SimilarityKind
from fxeval.errors import ModelContractError
from fxeval.hooks.returned import check_embeddings
from fxeval.redaction import of_user_code
from fxeval.strict.text import brief


@dataclass(frozen=True, eq=False)
class EmbeddingFunction:
    """A black box: images in, embeddings out, nothing else is known.

    Attributes:
        name: Id shown in reports.
        crop: The crop that the function expects.
        function: (N, 3, H, W) float32 RGB in [0, 1] on the CPU -> (N, D) tensor or NumPy array.
            It gets a copy of the images and may overwrite it.
        similarity: ``cosine`` or ``neg_l2``.
        version: Text that changes whenever the embeddings do, such as the versions of the library
            and of its weights; the model's digest is computed from the name and this text.
        operating_threshold: Native similarity from which the model says match, or None.
        batch_size: Most images passed at once; None = no limit.
    """

    name: str
    crop: Crop
    function: Callable[[Images], Any]
    similarity: SimilarityKind
    version: str
    operating_threshold: float | None = None
    batch_size: int | None = None

    def __post_init__(self) -> None:
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

        Raises:
            ModelContractError: If the function raises or does not return embeddings.
        """
        n = self.batch_size or max(len(images), 1)
        starts = range(0, max(len(images), 1), n)
        return torch.cat([self._embed_one(images[start : start + n]) for start in starts])

    def _embed_one(self, images: Images) -> Embeddings:
        own = images.detach().to("cpu", torch.float32, copy=True)
        try:
            with torch.no_grad():
                found = self.function(own)
        except (Exception, SystemExit) as error:  # user code may raise anything
            shape = tuple(images.shape)
            raise ModelContractError(
                f"model '{self.name}': its function raised {type(error).__name__} for {shape} "
                f"images: {brief(str(error))}",
                public=f"model '{self.name}': its function raised {of_user_code(error)} for "
                f"{shape} images",
            ) from error
        if isinstance(found, np.ndarray) and found.dtype.kind == "f":
            found = torch.from_numpy(np.array(found, np.float32))
        return check_embeddings(self.name, found, len(images)).cpu()
