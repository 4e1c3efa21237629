"""Traits: what explainers and models say about themselves in one optional attribute, ``traits``.

A subject without it has the defaults. A trait that is set elsewhere or misspelt would be ignored
silently, so it is an error: an explainer with ``need = {"contrast"}`` would never get a contrast.
"""

import inspect
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import Field, dataclass, fields, is_dataclass
from difflib import SequenceMatcher
from typing import Any, Generic, Literal, NamedTuple, Protocol, TypeVar, cast, get_args

from fxeval.errors import (
    ContractError,
    ExplainerContractError,
    FxevalError,
    ModelContractError,
)
from fxeval.redaction import message_of, of_user_code
from fxeval.strict.text import hint

# The first three are parts of the model that an explainer uses, the last two further arguments.
Need = Literal["gradients", "layers", "black_box", "contrast", "gallery"]
ClaimKind = Literal["list", "population"]
ClaimProtocol = Literal["plain", "flip_fusion"]
TrainingData = Literal["synthetic", "real", "mixed"]
Family = Literal["convolutional", "inception", "mobile", "transformer", "hybrid"]
T = TypeVar("T")
_M = TypeVar("_M", contravariant=True)

# Least similarity (of difflib) at which an attribute counts as a misspelt trait.
_NEAR = 0.8
_NEAR_OF_SEVERAL_WORDS = 0.76  # lets one of three words differ: map_is_given


class ClaimedFigure(Protocol):
    """A figure that a vendor claims; see ``fxeval.models.cards.Claim``."""

    @property
    def pairs(self) -> str:
        """Name of the pair list."""

    @property
    def metric(self) -> str:
        """Name of a figure of verification, which is a share from 0 to 1."""

    @property
    def value(self) -> float:
        """The claimed value."""

    @property
    def within(self) -> float:
        """How far a measurement may be from it."""

    @property
    def of(self) -> ClaimKind:
        """``list``: the value of that very list; ``population``: of what it is a sample of."""

    @property
    def list_digest(self) -> str | None:
        """Digest of the list, or None."""

    @property
    def protocol(self) -> ClaimProtocol:
        """How it was measured."""


class GoldenCheck(NamedTuple):
    """The result of a comparison with a vendor's own embeddings.

    Attributes:
        state: ``agrees``; ``not_checked``: the file is missing; ``none``: the card names no file.
        n_images: Number of images that were compared.
        largest: Largest difference of an entry, as the card counts it; None = not checked.
        at_most: Largest difference that the card allows; None = not checked.
    """

    state: Literal["agrees", "not_checked", "none"]
    n_images: int = 0
    largest: float | None = None
    at_most: float | None = None


@dataclass(frozen=True)
class CardFacts:
    """Facts for reports: a model's origin, and the claims about the model.

    Attributes:
        digest: SHA-256 of the card's text as hex, or None.
        claims: Figures that the vendor claims.
        preprocessing: Colour order, mean and standard deviation as plain data, or None.
        licence: Licence of the weights; empty = not stated.
        source: Where the weights come from; empty = not stated.
        trained_on: Data that the weights were trained on; empty = not stated.
        threshold_set_by: How the operating threshold was set; empty = not stated.
    """

    digest: str | None = None
    claims: tuple[ClaimedFigure, ...] = ()
    preprocessing: Mapping[str, object] | None = None
    licence: str = ""
    source: str = ""
    trained_on: str = ""
    threshold_set_by: str = ""


@dataclass(frozen=True)
class ExplainerTraits:
    """Facts that the harness needs about an explainer before it asks for maps.

    Attributes:
        needs: For ``contrast`` the harness passes nonmates, for ``gallery`` a ``Gallery`` as the
            keyword argument ``gallery``. Any set will do; it is kept as a frozenset.
        takes_centroids: References may be (N, R, 3, H, W), R for each probe, which is then
            compared with the centroid of their embeddings.
        maps_are_given: The maps were made beforehand and do not change with the model's weights.
        source: Where the method comes from, or None.
        digest: SHA-256 of the file that the maps come from, or None.
        takes_contrast: ``contrast`` may be nonmates: then the map says what speaks for the
            reference rather than for them. Whoever needs a contrast takes one.
    """

    needs: AbstractSet[Need] = frozenset()
    takes_centroids: bool = False
    maps_are_given: bool = False
    source: str | None = None
    digest: str | None = None
    takes_contrast: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.needs, str) or not isinstance(self.needs, Iterable):
            raise ExplainerContractError(
                f"ExplainerTraits: needs: expected a set of {', '.join(sorted(get_args(Need)))}, "
                f"got {self.needs!r}."
            )
        object.__setattr__(self, "needs", checked_needs("ExplainerTraits", self.needs))
        _check_types(self, ExplainerContractError)
        if "contrast" in self.needs:
            object.__setattr__(self, "takes_contrast", True)


@dataclass(frozen=True)
class ModelTags:
    """Words by which models are grouped, so that groups can be compared.

    Attributes:
        training_data: Kind of faces that the weights were trained on; None = not stated.
        family: Kind of network: ``convolutional`` (plain or residual), ``inception``, ``mobile``
            (depth-wise convolutions), ``transformer`` (attention, perhaps behind a few
            convolutions that make its tokens), ``hybrid`` (convolutions and attention in its
            blocks); None = not stated.
    """

    training_data: TrainingData | None = None
    family: Family | None = None

    def __post_init__(self) -> None:
        for name, known in (("training_data", TrainingData), ("family", Family)):
            value: object = getattr(self, name)
            words = get_args(known)
            if value is not None and not (isinstance(value, str) and value in words):
                raise ModelContractError(
                    f"ModelTags: {name}: expected one of {', '.join(words)} or None, got {value!r}."
                )


@dataclass(frozen=True)
class ModelTraits:
    """Facts about a model that not every model has.

    Attributes:
        has_layers: Hooks on the module's parts see what they compute; False for TorchScript.
        card: The facts of the vendor's card, or None.
        golden: Result of the comparison with the vendor's own embeddings, or None.
        runtime: The library that computes the embeddings, with version; empty = not stated.
        code: SHA-256, as hex, of the Python file that builds the network, or None.
        tags: Words by which models are grouped.
    """

    has_layers: bool = True
    card: CardFacts | None = None
    golden: GoldenCheck | None = None
    runtime: str = ""
    code: str | None = None
    tags: ModelTags = ModelTags()

    def __post_init__(self) -> None:
        _check_types(self, ModelContractError)


class _Role(NamedTuple, Generic[T]):
    """The traits of explainers, or of models, with the words and the error of messages."""

    word: str
    kind: type[T]
    error: type[ContractError]


_EXPLAINER = _Role("explainer", ExplainerTraits, ExplainerContractError)
_MODEL = _Role("model", ModelTraits, ModelContractError)


def traits_of(explainer: object) -> ExplainerTraits:
    """Return the traits of an explainer, the defaults if it has none.

    Raises:
        ExplainerContractError: If its ``traits`` are something else, or cannot be read.
    """
    return _read(explainer, _EXPLAINER)


def model_traits(model: object) -> ModelTraits:
    """Return the traits of a model, the defaults if it has none.

    Raises:
        ModelContractError: If its ``traits`` are something else, or cannot be read.
    """
    return _read(model, _MODEL)


def check_explainer_traits(name: str, explainer: object) -> None:
    """Refuse an explainer, or a class of explainers, with a trait that would be ignored.

    Args:
        name: Name of the explainer, for the message.
        explainer: The explainer or its class.

    Raises:
        ExplainerContractError: If a public attribute has the name of a trait or nearly so, or if
            its ``traits`` are wrong.
    """
    _check(name, explainer, _EXPLAINER)


def check_model_traits(name: str, model: object) -> None:
    """Refuse a model, or a class of models, with a trait that would be ignored.

    Args:
        name: Name of the model, for the message.
        model: The model or its class.

    Raises:
        ModelContractError: If a public attribute has the name of a trait or nearly so, or if its
            ``traits`` are wrong.
    """
    _check(name, model, _MODEL)


def checked_needs(where: str, needs: Iterable[object]) -> frozenset[Need]:
    """Return needs as a set.

    Args:
        where: Who names them, for the message.
        needs: The needs.

    Raises:
        ExplainerContractError: If one is unknown.
    """
    found, known = frozenset(needs), get_args(Need)
    for need in sorted(map(str, found - set(known))):
        raise ExplainerContractError(f"{where}: unknown need {need!r}. {hint(need, known)}")
    return cast("frozenset[Need]", found)


class _SaysWhatItCannot(Protocol[_M]):
    def unsupported(self, model: _M) -> str | None:
        """Return why this kind of model cannot be explained, or None."""


def own_refusal(explainer: object, model: object) -> str | None:
    """Return what an explainer's optional ``unsupported(model)`` returns; None without the method.

    Raises:
        ExplainerContractError: If that is neither a text nor None.
    """
    if not hasattr(explainer, "unsupported"):
        return None
    reason: object = cast("_SaysWhatItCannot[object]", explainer).unsupported(model)
    if reason is None or (isinstance(reason, str) and reason):
        return reason
    raise ExplainerContractError(
        f"explainer '{type(explainer).__name__}': unsupported(model): expected the reason as text, "
        f"or None, got {reason!r}."
    )


def _read(subject: object, role: _Role[T], name: str = "") -> T:
    about = f"{role.word} '{name or type(subject).__name__}'"
    try:
        found: object = subject.traits  # type: ignore[attr-defined]
    except (FxevalError, KeyboardInterrupt):
        raise
    except BaseException as error:  # user code may raise anything
        # A property that exists and raises AttributeError is a fault, not a missing attribute.
        is_there = inspect.getattr_static(subject, "traits", _ABSENT) is not _ABSENT
        if isinstance(error, AttributeError) and not is_there:
            return role.kind()
        text = f"{about}: its traits raised {type(error).__name__}"
        public = f"{about}: its traits raised {of_user_code(error)}"
        raise role.error(f"{text}: {message_of(error)}", public=public) from error
    if isinstance(found, role.kind):
        return found
    got = type(found).__name__
    if isinstance(found, type):
        got = f"the class {found.__name__}"
    elif inspect.isroutine(found):
        got = "a method. Make it a property"
    raise role.error(f"{about}: traits: expected {role.kind.__name__}(...), got {got}.")


_ABSENT = object()


def _check(name: str, subject: object, role: _Role[Any]) -> None:
    is_class = isinstance(subject, type)
    has_none = inspect.getattr_static(subject, "traits", _ABSENT) is _ABSENT
    traits = {trait.name: trait for trait in fields(role.kind)}
    own = set()
    if is_dataclass(subject):
        own = {field.name for field in fields(subject)}
    for attribute, value in _public(subject):
        trait = _near(attribute, [*traits, "traits"])
        if trait is None or attribute == "traits":
            continue
        if attribute in own:
            # A parameter may have any name, but none is called takes_centroids by accident: if
            # the subject has no traits, this one was meant as a trait and would be ignored.
            is_stray = has_none and attribute == trait and traits[trait].default not in ("", None)
        else:
            is_stray = attribute == trait or not _is_callable(value)
        if is_stray:
            raise role.error(
                f"{role.word} '{name}': '{attribute}' is not read as a trait: set traits = "
                f"{role.kind.__name__}({_example(traits.get(trait))}). If it is not meant as a "
                "trait, start its name with an underscore."
            )
    if not is_class:
        _read(subject, role, name)


def _public(subject: object) -> Iterator[tuple[str, object]]:
    """Yield the public attributes of a subject and its classes, without calling properties."""
    kind = subject if isinstance(subject, type) else type(subject)
    holders: list[object] = [one for one in kind.__mro__ if one is not object]
    if not isinstance(subject, type) and hasattr(subject, "__dict__"):
        holders.insert(0, subject)
    for holder in holders:
        for attribute, value in list(vars(holder).items()):
            if not attribute.startswith("_"):
                yield attribute, value


def _is_callable(value: object) -> bool:
    return callable(value) or isinstance(value, classmethod)


def _near(attribute: str, names: Iterable[str]) -> str | None:
    """Return the name that an attribute is likely to mean; slips at the first letter are rare."""
    word = attribute.lower()
    least = _NEAR_OF_SEVERAL_WORDS if "_" in word else _NEAR
    alike = {
        name: SequenceMatcher(None, word, name).ratio() for name in names if name[0] == word[0]
    }
    best = max(alike, key=lambda name: alike[name], default=None)
    return best if best is not None and alike[best] >= least else None


def _example(trait: "Field[Any] | None") -> str:
    if trait is None:
        return "..."
    if isinstance(trait.default, bool):
        return f"{trait.name}={not trait.default}"
    return f"{trait.name}={{...}}" if trait.name == "needs" else f"{trait.name}=..."


def _check_types(traits: ExplainerTraits | ModelTraits, error: type[ContractError]) -> None:
    """Refuse a trait of another type, such as a text where True or False belongs."""
    expected: dict[str, tuple[tuple[type, ...], str]] = {
        "card": ((CardFacts, type(None)), "CardFacts(...) or None"),
        "golden": ((GoldenCheck, type(None)), "GoldenCheck(...) or None"),
        "runtime": ((str,), "text"),
        "tags": ((ModelTags,), "ModelTags(...)"),
    }
    for trait in fields(traits):
        if trait.name == "needs":
            continue
        usual = ((bool,), "True or False"), ((str, type(None)), "text or None")
        kinds, words = expected.get(trait.name, usual[not isinstance(trait.default, bool)])
        value = traits.__getattribute__(trait.name)
        if not isinstance(value, kinds):
            raise error(f"{type(traits).__name__}: {trait.name}: expected {words}, got {value!r}.")
