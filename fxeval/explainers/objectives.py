"""Objectives that gradient explainers differentiate: the similarity to a reference, and variants.

Every objective is ascended: larger means more like the reference. It is defined once, as a function
of the embedding; explainers continue from there by the chain rule.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor

from fxeval.contracts import Embeddings, FaceModel, Gallery, Images, Need, SimilarityKind
from fxeval.errors import ExplainerContractError
from fxeval.hooks.returned import check_embeddings

FLAT = 1e-5  # relative size under which an objective's gradient is rounding, not direction
_LARGEST_S = 1e4
_EDGE = 1e-7  # cosines are kept this far from 1 and -1, where arccos has no finite slope
ROUNDING = 1e-6  # of a cosine, or of the length of embeddings for Euclidean distances
CHUNK = 64  # images in one call of embed
FLAT_REASON = "the objective is flat: both embeddings agree"


@dataclass(frozen=True, eq=False)
class Targets:
    """Embeddings that n probes are compared with.

    Attributes:
        reference: (n, D) raw embeddings of the references; of several references, their centroid.
        contrast: (n, D) of the nonmates, or None.
        others: (I, D) unit centroids of a gallery's identities, float64, or None.
        is_own: (n, I) bool, True for the centroid of the probe's or the reference's identity; or
            None.
    """

    reference: Embeddings
    contrast: Embeddings | None = None
    others: Tensor | None = None
    is_own: Tensor | None = None

    def rows(self, rows: slice) -> "Targets":
        """Return the targets of some probes."""
        return Targets(
            self.reference[rows],
            None if self.contrast is None else self.contrast[rows],
            self.others,
            None if self.is_own is None else self.is_own[rows],
        )


@dataclass(frozen=True, eq=False)
class Pull:
    """An objective and its gradient at the embeddings of n probes.

    Attributes:
        value: (n,) float64.
        gradient: (n, D) float64, with respect to the raw embedding.
        is_flat: (n,) bool, True where the gradient is zero or mere rounding, which has no
            direction to explain.
    """

    value: Tensor
    gradient: Tensor
    is_flat: Tensor

    def along(self, direction: Tensor) -> Tensor:
        """Return (n,) how many times as long as a parallel direction the gradient is; 0 if flat."""
        length = direction.square().sum(dim=1)
        return (self.gradient * direction).sum(dim=1) / torch.where(length > 0, length, 1.0)


@dataclass(frozen=True)
class Objective:
    """An objective by name, with its parameters.

    Written ``cos``, ``arc_pair(m=0.3)``, ``arc_softmax(s=64, m=0.5)`` or ``-one_minus_cos``; a
    leading minus descends it (explains the loss).

    * ``native``: ``cos`` for cosine models, ``neg_l2`` for Euclidean ones.
    * ``cos``: c, the cosine of probe and reference. ``one_minus_cos``: -(1 - c), the same gradient.
    * ``arc_pair``: cos(theta + m) with theta = arccos(c).
    * ``arc_softmax``: log softmax of the reference among the gallery's other identities, with
      logits s cos(theta + m) for it and s cos(theta_j) for them. ``straight_through``: the
      target logit's slope is s, as in insightface's in-place margin. 50 identities or more are
      advisable.
    * ``triplet``: c of the reference minus c of the contrast.
    * ``neg_l2``: minus the squared Euclidean distance of the raw embeddings.

    With a contrast, its value of the same objective is subtracted; ``arc_softmax`` takes no
    contrast.

    Attributes:
        name: One of the above.
        m: Margin in radians, 0 <= m < pi; ``arc_pair`` and ``arc_softmax``.
        s: Scale, 0 < s <= 10,000; ``arc_softmax``.
        straight_through: See above; ``arc_softmax``.
        sign: 1 or -1.

    Source:
        Deng et al., CVPR 2019 (ArcFace), eq. 3.
    """

    name: str = "native"
    m: float = 0.3
    s: float = 64.0
    straight_through: bool = False
    sign: int = 1

    def __post_init__(self) -> None:
        if self.name not in _NUMBERS:
            raise ExplainerContractError(
                f"objective must be one of {', '.join(_NUMBERS)}, got {self.name!r}."
            )
        if not (0 <= self.m < torch.pi and 0 < self.s <= _LARGEST_S and self.sign in (-1, 1)):
            raise ExplainerContractError(
                f"objective needs 0 <= m < pi, 0 < s <= {_LARGEST_S:g} and sign 1 or -1, got "
                f"m={self.m}, s={self.s}, sign={self.sign}."
            )

    @classmethod
    def parse(cls, text: str, explainer: str) -> "Objective":
        """Read an objective as a suite writes it.

        >>> Objective.parse("-arc_pair(m=0.2)", "gradcam")
        Objective(name='arc_pair', m=0.2, s=64.0, straight_through=False, sign=-1)

        Raises:
            ExplainerContractError: Naming the explainer, the expected form and the text.
        """

        def refused(what: str) -> ExplainerContractError:
            return ExplainerContractError(f"{explainer}: objective {what}, got {text!r}.")

        form = re.fullmatch(r"\s*(-?)\s*(\w+)\s*(?:\(([^()]*)\))?\s*", str(text))
        if form is None or form[2] not in _NUMBERS:
            raise refused(f"must be one of {', '.join(_NUMBERS)}")
        name, allowed = form[2], _NUMBERS[form[2]]
        given: dict[str, float | bool] = {}
        for part in filter(None, (piece.strip() for piece in (form[3] or "").split(","))):
            key, equals, value = (one.strip() for one in part.partition("="))
            if not equals or key not in allowed or key in given:
                takes = f"takes {', '.join(f'{one}=...' for one in allowed)}" if allowed else ""
                raise refused(f"'{name}' {takes or 'takes no numbers'}")
            given[key] = _number(key, value, refused)
        try:
            return cls(name, sign=-1 if form[1] else 1, **given)  # type: ignore[arg-type]
        except ExplainerContractError:
            limits = f"needs 0 <= m < pi and 0 < s <= {_LARGEST_S:g}"
            raise refused(limits) from None

    @property
    def needs(self) -> frozenset[Need]:
        """The inputs that the objective needs besides the reference."""
        needs: dict[str, frozenset[Need]] = {
            "triplet": frozenset({"contrast"}),
            "arc_softmax": frozenset({"gallery"}),
        }
        return needs.get(self.name, frozenset())

    @property
    def takes_contrast(self) -> bool:
        """Whether it may be given a contrast, whose value is subtracted."""
        return self.name != "arc_softmax"

    def pull(self, kind: SimilarityKind, embeddings: Embeddings, targets: Targets) -> Pull:
        """Return value and gradient at the embeddings, in float64.

        Args:
            kind: The model's native similarity.
            embeddings: (n, D) of the probes; no graph is needed.
            targets: Of the same n probes.

        Raises:
            ExplainerContractError: If the contrast or the gallery it needs is missing.
        """
        self._require(targets)
        # float64: near cos = 1 the gradient is a small difference of nearly equal vectors.
        with torch.inference_mode(False), torch.enable_grad():
            leaf = embeddings.detach().double().clone().requires_grad_()
            name = (
                {"cosine": "cos", "neg_l2": "neg_l2"}[kind] if self.name == "native" else self.name
            )
            if name == "neg_l2":
                value, gradient, is_flat = _distances(leaf, targets)
            else:
                value, gradient, is_flat = self._cosines(name, leaf, targets)
        return Pull(self.sign * value, self.sign * gradient, is_flat)

    @property
    def parallel(self) -> "Objective | None":
        """The simplest objective whose gradient is parallel wherever it is; None = itself.

        A network in float32 rounds a scaled gradient otherwise. Passed through it in one length,
        objectives that differ by a factor give maps that differ by that factor.
        """
        return Objective("cos", sign=self.sign) if self.name == "arc_pair" else None

    def _cosines(self, name: str, leaf: Tensor, targets: Targets) -> tuple[Tensor, Tensor, Tensor]:
        unit = F.normalize(leaf, dim=1, eps=1e-12)
        cosines = [_cosine(unit, targets.reference)[:, None]]
        if targets.contrast is not None:
            cosines.append(_cosine(unit, targets.contrast)[:, None])
        if name == "arc_softmax":
            assert targets.others is not None
            cosines.append(unit @ targets.others.to(leaf.device, torch.float64).T)
        to_all = torch.cat(cosines, dim=1)  # (n, 1 + others)
        # In two steps: a gradient is flat if it is small relative to the slope at the cosines.
        inner = to_all.detach().requires_grad_()
        value = self._of_cosines(name, inner, targets)
        (slopes,) = torch.autograd.grad(value.sum(), inner)
        (gradient,) = torch.autograd.grad(to_all, leaf, slopes)
        steepest = slopes.abs().amax(dim=1)
        length = leaf.detach().norm(dim=1)
        is_flat = gradient.norm(dim=1) * length <= FLAT * steepest
        return value.detach(), gradient, is_flat | (length <= 1e-12)

    def _of_cosines(self, name: str, cosines: Tensor, targets: Targets) -> Tensor:
        if name == "arc_softmax":
            assert targets.is_own is not None
            target = _with_margin(cosines[:, 0], self.m)
            if self.straight_through:
                target = cosines[:, 0] + (target - cosines[:, 0]).detach()
            others = cosines[:, 1:].masked_fill(targets.is_own.to(cosines.device), -torch.inf)
            # Not log_softmax: near probability 1 its slope is a difference of equal numbers.
            return -F.softplus(torch.logsumexp(self.s * others, dim=1) - self.s * target)
        shape: Callable[[Tensor], Tensor] = _SHAPES.get(name, lambda c: _with_margin(c, self.m))
        value = shape(cosines[:, 0])
        return value if cosines.shape[1] == 1 else value - shape(cosines[:, 1])

    def _require(self, targets: Targets) -> None:
        if self.name == "arc_softmax" and targets.contrast is not None:
            raise ExplainerContractError(
                "objective 'arc_softmax': takes no contrast: the gallery's other identities are "
                "its contrast. Leave it out."
            )
        if self.name == "triplet" and targets.contrast is None:
            raise ExplainerContractError(
                "objective 'triplet': needs a contrast (N, 3, H, W), images of nonmates. Pass one, "
                "or use 'cos'."
            )
        if self.name == "arc_softmax":
            if targets.others is None or targets.is_own is None:
                raise ExplainerContractError(
                    "objective 'arc_softmax': needs a gallery: other identities to tell the "
                    "reference from. Pass one, or use 'arc_pair'."
                )
            if not bool((~targets.is_own).any(dim=1).all()):
                raise ExplainerContractError(
                    "objective 'arc_softmax': the gallery holds only the probe's own identity. "
                    "Enrol others."
                )


# The parameters that each objective takes.
_NUMBERS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "native": (), "cos": (), "one_minus_cos": (), "arc_pair": ("m",),
        "arc_softmax": ("s", "m", "straight_through"), "triplet": (), "neg_l2": (),
    }
)  # fmt: skip
_SHAPES: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType(
    {"cos": lambda c: c, "triplet": lambda c: c, "one_minus_cos": lambda c: c - 1}
)
assert {name for names in _NUMBERS.values() for name in names} < {f.name for f in fields(Objective)}


def targets_of(
    model: FaceModel, references: Images, contrast: Images | None = None,
    gallery: Gallery | None = None,
) -> Targets:  # fmt: skip
    """Embed what n probes are compared with.

    Args:
        model: Asked for embeddings only.
        references: (n, 3, H, W), or (n, R, 3, H, W) for the centroid of R references: the mean of
            the unit embeddings, for Euclidean models of the raw ones.
        contrast: (n, 3, H, W) nonmates, or None.
        gallery: Other identities, for objectives that need them.

    Raises:
        ModelContractError: If the embeddings are not finite (n, D) tensors.
    """
    others = is_own = None
    if gallery is not None:
        names, others = gallery.centroids()
        is_own = gallery.is_of_the_pair(names)
    return Targets(
        centroid_embeddings(model, references),
        None if contrast is None else centroid_embeddings(model, contrast),
        others,
        is_own,
    )


def centroid_embeddings(model: FaceModel, images: Images) -> Embeddings:
    """Embed (n, 3, H, W) images, or the centroids of (n, R, 3, H, W), ``CHUNK`` images at a time.

    Returns:
        (n, D), ordinary tensors: autograd may use them, whatever mode ``embed`` ran in.
    """
    flat = images.flatten(0, 1) if images.ndim == 5 else images
    with torch.inference_mode(False), torch.no_grad():
        found = torch.cat(
            [
                check_embeddings(model.name, model.embed(part), len(part)).clone()
                for part in torch.split(flat, CHUNK)
            ]
        )
        if images.ndim != 5:
            return found
        if model.similarity == "cosine":
            found = F.normalize(found, dim=1, eps=1e-12)
        return found.view(*images.shape[:2], -1).mean(dim=1)


def twins(probes: Images, references: Images) -> Tensor:
    """Return (n,) bool: probes that equal all their references pixel by pixel, so that c = 1."""
    several = references if references.ndim == 5 else references[:, None]
    found: Tensor = (probes[:, None] == several.to(probes.device)).flatten(1).all(dim=1)
    return found


def rounding_of(kind: SimilarityKind, targets: Targets) -> Tensor:
    """Return (n,) float64, the size up to which differences of similarities are mere rounding."""
    if kind == "cosine":
        return torch.full((len(targets.reference),), ROUNDING, dtype=torch.float64)
    lengths = targets.reference.double().norm(dim=1)
    if targets.contrast is not None:
        lengths = torch.maximum(lengths, targets.contrast.double().norm(dim=1))
    sizes: Tensor = ROUNDING * lengths.cpu()
    return sizes


def _distances(leaf: Tensor, targets: Targets) -> tuple[Tensor, Tensor, Tensor]:
    def value_of(other: Embeddings) -> Tensor:
        return -(leaf - other.to(leaf.device, torch.float64)).square().sum(dim=1)

    value = value_of(targets.reference)
    if targets.contrast is not None:
        value = value - value_of(targets.contrast)
    (gradient,) = torch.autograd.grad(value.sum(), leaf)
    length = leaf.detach().norm(dim=1).clamp_min(1e-12)
    return value.detach(), gradient, gradient.norm(dim=1) <= FLAT * length


def _cosine(unit: Tensor, other: Embeddings) -> Tensor:
    other = F.normalize(other.to(unit.device, torch.float64), dim=1, eps=1e-12)
    return (unit * other).sum(dim=1)


def _with_margin(cosines: Tensor, m: float) -> Tensor:
    # Clip the value but keep the slope: clamp() itself would pass no gradient.
    clipped = cosines.detach().clamp(-1 + _EDGE, 1 - _EDGE)
    theta = torch.arccos(cosines + (clipped - cosines.detach()))
    return torch.cos(theta + m)


def _number(key: str, value: str, refused: Callable[[str], ExplainerContractError]) -> float | bool:
    if key == "straight_through":
        if value not in ("true", "false"):
            raise refused("straight_through must be true or false")
        return value == "true"
    try:
        return float(value)
    except ValueError:
        raise refused(f"'{key}' must be a number") from None
