"""What explainers and models say of themselves, in one optional attribute: ``traits``.

A subject without it has the defaults. A trait that is set elsewhere, or misspelt, would be read by
nobody, so it is an error: an explainer with ``need = {"contrast"}`` would never get a contrast.
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
from fxeval.strict.text import hint

# The first three say what of the model an explainer uses, the last two what else it must be given.
Need = Literal["gradients", "layers", "black_box", "contrast", "gallery"]
T = TypeVar("T")
_M = TypeVar("_M", contravariant=True)

_NEAR = 0.8
_NEAR_OF_SEVERAL_WORDS = 0.76  # of three words, one may be another: map_is_given


class ClaimedFigure(Protocol):
    """What a vendor says was measured; see ``fxeval.models.cards.Claim``."""

    @property
    def pairs(self) -> str:
        """Name of the pair list."""

    @property
    def metric(self) -> str:
        """Of verification, a share in 0 to 1."""

    @property
    def value(self) -> float:
        """Claimed."""

    @property
    def within(self) -> float:
        """How far a measurement may be from it."""


class GoldenCheck(NamedTuple):
    """How the comparison with a vendor's own embeddings went.

    Attributes:
        state: ``agrees``; ``not_checked``: the file is not there; ``none``: the card names none.
        n_images: How many were compared.
        largest: Largest difference of an entry, as the card counts it; None = not checked.
        at_most: What the card allows; None likewise.
    """

    state: Literal["agrees", "not_checked", "none"]
    n_images: int = 0
    largest: float | None = None
    at_most: float | None = None


@dataclass(frozen=True)
class CardFacts:
    """What a report says of where a model is from, and what is claimed of it.

    Attributes:
        digest: SHA-256 of the card's text as hex, or None.
        claims: What the vendor says was measured.
        preprocessing: Colour order, mean and standard deviation as plain data, or None.
        licence: Empty = not stated; likewise the next three.
        source: Where the weights are from.
        trained_on: What they were trained on.
        threshold_set_by: How the operating threshold was set.
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
    """What the harness must know of an explainer before it asks for maps.

    Attributes:
        needs: With ``contrast`` among them the harness hands in nonmates, with ``gallery`` a
            keyword ``gallery``, a ``Gallery``. Any set will do; it is kept as a frozenset.
        takes_centroids: References may be (N, R, 3, H, W), R of each probe; it is then compared
            with the centroid of their embeddings.
        maps_are_given: The maps were made beforehand and follow no other weights.
        source: Where the method is from, or None.
        digest: SHA-256 of what the maps come from, if that is a file, or None.
    """

    needs: AbstractSet[Need] = frozenset()
    takes_centroids: bool = False
    maps_are_given: bool = False
    source: str | None = None
    digest: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.needs, str) or not isinstance(self.needs, Iterable):
            raise ExplainerContractError(
                f"ExplainerTraits: needs: expected a set of {', '.join(sorted(get_args(Need)))}, "
                f"got {self.needs!r}."
            )
        object.__setattr__(self, "needs", checked_needs("ExplainerTraits", self.needs))
        _check_types(self, ExplainerContractError)


@dataclass(frozen=True)
class ModelTraits:
    """What may be said of a model beside what every model has.

    Attributes:
        has_layers: Hooks on the module's parts see what they compute; not so in TorchScript.
        card: What its vendor says, or None.
        golden: Whether it agrees with the vendor's own embeddings, or None.
        runtime: What computes the embeddings, with its version; empty = not stated.
        code: SHA-256 of the file that makes its network as hex, or None.
    """

    has_layers: bool = True
    card: CardFacts | None = None
    golden: GoldenCheck | None = None
    runtime: str = ""
    code: str | None = None

    def __post_init__(self) -> None:
        _check_types(self, ModelContractError)


class _Role(NamedTuple, Generic[T]):
    """What is said of explainers, or of models."""

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
    """Refuse an explainer, or a class of explainers, with a trait that nobody would read.

    Args:
        name: Of the explainer, for the message.
        explainer: The explainer or its class.

    Raises:
        ExplainerContractError: If a public attribute has the name of a trait or nearly so, or if
            its ``traits`` are wrong.
    """
    _check(name, explainer, _EXPLAINER)


def check_model_traits(name: str, model: object) -> None:
    """Refuse a model, or a class of models, with a trait that nobody would read.

    Args:
        name: Of the model, for the message.
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
        needs: Any number.

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
    """Return what an explainer's optional ``unsupported(model)`` says; None without the method.

    Raises:
        ExplainerContractError: If it answers with neither a text nor None.
    """
    if not hasattr(explainer, "unsupported"):
        return None
    reason: object = cast("_SaysWhatItCannot[object]", explainer).unsupported(model)
    if reason is None or (isinstance(reason, str) and reason):
        return reason
    raise ExplainerContractError(
        f"explainer '{type(explainer).__name__}': unsupported(model) must return the reason as "
        f"text, or None, got {reason!r}."
    )


def _read(subject: object, role: _Role[T], name: str = "") -> T:
    about = f"{role.word} '{name or type(subject).__name__}'"
    try:
        found: object = subject.traits  # type: ignore[attr-defined]
    except FxevalError:
        raise
    except Exception as error:  # user code may raise anything
        is_there = inspect.getattr_static(subject, "traits", _ABSENT) is not _ABSENT
        if isinstance(error, AttributeError) and not is_there:
            return role.kind()
        raise role.error(f"{about}: its traits raised {type(error).__name__}: {error}") from error
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
            # Parameters may be called as they like, but nothing is ever called takes_centroids by
            # accident; without traits it would be read by nobody.
            is_stray = has_none and attribute == trait and traits[trait].default not in ("", None)
        else:
            is_stray = attribute == trait or not _is_callable(value)
        if is_stray:
            raise role.error(
                f"{role.word} '{name}': '{attribute}' is no trait by itself: set traits = "
                f"{role.kind.__name__}({_example(traits.get(trait))}). If it is meant as something "
                "else, let its name begin with an underscore."
            )
    if not is_class:
        _read(subject, role, name)


def _public(subject: object) -> Iterator[tuple[str, object]]:
    """Yield name and value of what the subject and its classes set, without asking a property."""
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
    }
    for trait in fields(traits):
        if trait.name == "needs":
            continue
        usual = ((bool,), "True or False"), ((str, type(None)), "text or None")
        kinds, words = expected.get(trait.name, usual[not isinstance(trait.default, bool)])
        value = traits.__getattribute__(trait.name)
        if not isinstance(value, kinds):
            raise error(f"{type(traits).__name__}: {trait.name}: expected {words}, got {value!r}.")
