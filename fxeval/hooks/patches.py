"""Code that computes for everybody: found if user code replaced it, and put back.

Functions and classes of torch, numpy, Python and fxeval can be replaced at run time, and hooks can
be set on all modules at once. Either changes what every network computes, or how it is measured.
"""

import builtins
import gc
import importlib
import sys
from builtins import all, len, map, vars, zip  # noqa: UP029  (user code may replace them)
from collections.abc import Iterator, Mapping
from itertools import chain
from operator import attrgetter, is_
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, ClassVar

import torch
import torch.library
from torch import nn

_MODULES: dict[str, str] = {  # by the package that holds them
    "": "torch numpy builtins math cmath random hashlib operator itertools functools copy copyreg "
    "json time os contextlib dataclasses collections statistics threading struct re inspect "
    "traceback linecache pathlib io tempfile bisect heapq",
    "os": "path",
    "json": "encoder decoder",
    "numpy": "linalg fft random",
    "numpy._core": "fromnumeric numeric _methods multiarray umath shape_base",
    "torch": "nn autograd linalg fft special random functional overrides cuda library _tensor _VF",
    "torch.nn": "functional init parameter",
    "torch._C": "_nn _linalg _fft _special",
    "torch.autograd": "function graph grad_mode",
    "torch.utils": "hooks _pytree",
}
_PREFIXES = ("torch.nn.modules.",)
_CLASSES: tuple[type, ...] = (torch.Tensor, nn.Parameter, nn.Buffer, torch.autograd.Function)
_CONTAINERS = (("copy", "_deepcopy_dispatch"),)
_CACHES = {"fxeval.explainers.mask_banks._banks", "fxeval.models.own_code._SIBLINGS"}
"""Grow, shrink and are filled again while honest code runs; content of a digest must keep it."""
_GLOBAL_HOOKS: Any = importlib.import_module("torch.nn.modules.module")
_ITS_COMPILER = {  # torch replaces these itself when its compiler is imported
    "torch.manual_seed",
    "torch.nn.modules.module.Module.__init__",
    "torch.nn.modules.module.Module.__setstate__",
}
_NOT_WATCHED = {
    "os._exit",  # fxeval replaces it itself while user code runs
    # pytest sets these for every test; what a cell does to them is put back with its surroundings.
    "threading.excepthook", "sys.excepthook", "sys.unraisablehook",
}  # fmt: skip
_TORCH = str(Path(torch.__file__).parent)
_ABSENT = object()


class Patches:
    """Records code that is shared, says what of it was replaced, and puts it back."""

    _last: "ClassVar[Patches | None]" = None

    @classmethod
    def now(cls) -> "Patches":
        """Return a record of the code as it is now: the last one if nothing differs from it."""
        last = cls._last
        if last is None or last._modules.keys() != set(_watched()) or not last._is_untouched():
            last = cls._last = cls()
        for one in last._containers:
            one.keep_up()
        return last

    def __init__(self) -> None:
        self._modules = {name: sys.modules[name] for name in _watched()}
        self._spaces = [Namespace(*one) for one in _spaces(self._modules)]
        self._containers = [_Container(*one) for one in _containers(self._modules)]
        self._operators, self._defined = set(torch.library._impls), set(torch.library._defs)
        held = [one for space in self._spaces for one in space.functions]
        self._functions = [function for function, *_ in held]
        self._insides = [[inside[part] for _, *inside in held] for part in range(len(_INSIDE))]

    def changes(self) -> list[str]:
        """Return what differs now, in words; empty if nothing does."""
        if self._is_untouched():
            return []
        found = [
            f"the module {name} was replaced"
            for name, module in self._modules.items()
            if sys.modules.get(name) is not module
        ]
        found += [word for space in self._spaces for word in space.changes()]
        found += [word for one in self._containers for word in one.changes()]
        found += [
            f"the operator {name.replace('/', '::', 1)} was replaced"
            for name in sorted(self._new_operators())
        ]
        return list(dict.fromkeys(found))

    def restore(self) -> list[str]:
        """Put everything back; return what cannot be, in words."""
        sys.modules.update(self._modules)
        for space in self._spaces:
            space.restore()
        for one in self._containers:
            one.restore()
        if new := self._new_operators():
            _withdraw(new)
        return self.changes()

    def _is_untouched(self) -> bool:
        """Say whether nothing differs: thousands of names are compared after every call."""
        return (
            all(map(is_, map(sys.modules.get, self._modules), self._modules.values()))
            and all(space.has_its_names() for space in self._spaces)
            and all(one.is_same() for one in self._containers)
            and all(
                all(map(is_, map(part, self._functions), kept))
                for part, kept in zip(_INSIDE, self._insides, strict=True)
            )
            and not self._new_operators()
        )

    def _new_operators(self) -> set[str]:
        now: set[str] = torch.library._impls
        if now == self._operators:
            return set()
        # Of a new operator this is no override; those of aten are defined before Python starts.
        return {
            name
            for name in now - self._operators
            if name.startswith("aten/") or "::".join(name.split("/")[:2]) in self._defined
        }


def _watched() -> list[str]:
    """Return the names of the modules that are loaded and watched."""
    own = [
        name
        for name, module in list(sys.modules.items())
        if isinstance(module, ModuleType)
        and (name == "fxeval" or name.startswith(("fxeval.", *_PREFIXES)))
        and not name.startswith("fxeval.tests")
    ]
    named = [f"{of}.{one}".lstrip(".") for of, them in _MODULES.items() for one in them.split()]
    return [name for name in named if name in sys.modules] + own


def _spaces(modules: Mapping[str, ModuleType]) -> Iterator[tuple[Any, str, bool]]:
    """Yield modules and classes under their names, and whether all their values count."""
    classes = dict.fromkeys(_CLASSES)
    for name, module in modules.items():
        is_own = name.split(".")[0] == "fxeval"
        yield module, name, is_own
        if is_own or name.startswith(_PREFIXES):
            for value in list(vars(module).values()):
                if isinstance(value, type) and value.__module__ == name:
                    classes[value] = None
    for kind in classes:
        yield kind, name_of(kind), False


def name_of(kind: type) -> str:
    """Return the full name of a class."""
    return f"{kind.__module__}.{kind.__name__}"


def _containers(modules: Mapping[str, ModuleType]) -> Iterator[tuple[Any, str]]:
    """Yield dicts, lists and sets that code looks things up in, and what to say of a change."""
    for name, value in vars(_GLOBAL_HOOKS).items():
        if name.startswith("_global_") and isinstance(value, dict):
            words = "hooks were set on all modules at once, or taken away"
            yield value, f"{words} ({name.removeprefix('_global_')})"
    for module, name in _CONTAINERS:
        yield getattr(modules[module], name), f"{module}.{name} was changed"
    for name, one in modules.items():
        if name.split(".")[0] == "fxeval":
            for attribute, value in vars(one).items():
                if isinstance(value, dict | list | set) and not attribute.startswith("__"):
                    yield value, f"{name}.{attribute} was changed"


class Namespace:
    """The names that a module or class gives to code.

    Args:
        owner: The module or class.
        name: Its name, for messages.
        everything: All values count, not only code, numbers and texts.

    Attributes:
        functions: Functions of Python with what is inside: code and defaults can be replaced, too.
    """

    def __init__(self, owner: Any, name: str, everything: bool = False) -> None:  # noqa: ANN401
        self._owner, self._name = owner, name
        self._bases = owner.__mro__[1:] if isinstance(owner, type) else (builtins,)
        held = vars(owner)

        def is_value(one: str, value: object) -> bool:
            # Python and its libraries keep notes under names such as __annotations__.
            return not one.startswith("__") and (everything or isinstance(value, _PLAIN))

        self._kept = {
            one: value
            for one, value in held.items()
            if f"{name}.{one}" not in _NOT_WATCHED and (_is_code(value) or is_value(one, value))
        }
        self._values, self._n = list(self._kept.values()), len(held)
        found = [_function(value) for value in self._kept.values()]
        self.functions = [(one, *_inside(one)) for one in found if one is not None]

    def has_its_names(self) -> bool:
        """Say whether each name means what it meant, and none was added."""
        held = vars(self._owner)
        return len(held) == self._n and all(map(is_, map(held.get, self._kept), self._values))

    def changes(self) -> Iterator[str]:
        """Yield what differs now, in words."""
        for name in self._replaced():
            yield f"{self._name}.{name} was replaced"
        for name in self._hiding():
            yield f"{self._name}.{name} was added"
        for function, *kept in self.functions:
            if not all(map(is_, _inside(function), kept)):
                yield f"the code of {self._name}.{function.__name__} was replaced"

    def restore(self) -> None:
        """Put every name back."""
        for name in self._hiding():
            delattr(self._owner, name)
        for name in self._replaced():
            setattr(self._owner, name, self._kept[name])
        for function, code, defaults, keywords in self.functions:
            if not all(map(is_, _inside(function), (code, defaults, keywords))):
                function.__code__, function.__defaults__ = code, defaults
                function.__kwdefaults__ = keywords

    def _replaced(self) -> list[str]:
        if self.has_its_names():
            return []
        held = vars(self._owner)
        now = {name: held.get(name, _ABSENT) for name in self._kept}
        return [
            name
            for name, kept in self._kept.items()
            if now[name] is not kept
            and not (
                isinstance(kept, _PLAIN) and (type(kept), kept) == (type(now[name]), now[name])
            )
            and not _is_the_compilers(f"{self._name}.{name}", now[name])
        ]

    def _hiding(self) -> list[str]:
        """Return new names that hide code: a method of a base, a function of Python."""
        held = vars(self._owner)
        if len(held) == self._n:
            return []
        return [
            name
            for name, value in list(held.items())
            if name not in self._kept
            and _is_code(value)
            and any(name in vars(base) for base in self._bases)
        ]


_PLAIN = (bool, int, float, str, tuple)


def _is_code(value: object) -> bool:
    return callable(value) or isinstance(value, property | staticmethod | classmethod)


def _is_the_compilers(name: str, now: object) -> bool:
    code = getattr(now, "__code__", None)
    return name in _ITS_COMPILER and str(getattr(code, "co_filename", "")).startswith(_TORCH)


def _function(value: object) -> FunctionType | None:
    """Return the Python function behind a value, if there is one."""
    if isinstance(value, staticmethod | classmethod):
        value = value.__func__
    elif isinstance(value, property):
        value = value.fget
    return value if isinstance(value, FunctionType) else None


def _inside(function: FunctionType) -> tuple[Any, Any, Any]:
    return function.__code__, function.__defaults__, function.__kwdefaults__


_INSIDE = tuple(map(attrgetter, ("__code__", "__defaults__", "__kwdefaults__")))


class _Container:
    """A dict, list or set with what it holds."""

    def __init__(self, container: Any, words: str) -> None:  # noqa: ANN401
        self._container, self._words = container, words
        self._kept = container.copy()
        self._is_cache = words.removesuffix(" was changed") in _CACHES

    def changes(self) -> Iterator[str]:
        """Yield what differs now, in words."""
        if not self.is_same():
            yield self._words

    def keep_up(self) -> None:
        """Take a cache as it is now."""
        if self._is_cache:
            self._kept = self._container.copy()

    def restore(self) -> None:
        """Fill it again; the object stays the same."""
        if self.is_same():
            return
        if self._is_cache:  # what was added may stand on what was replaced
            self._container.clear()
        elif isinstance(self._container, list):
            self._container[:] = self._kept
        else:
            self._container.clear()
            self._container.update(self._kept)

    def is_same(self) -> bool:
        """Say whether it holds the same objects."""
        now, kept = self._container, self._kept
        if self._is_cache:
            both = now.keys() & kept.keys()
            return all(_digest_of(now[key]) == _digest_of(kept[key]) for key in both)
        if len(now) != len(kept):
            return False
        if isinstance(now, set):
            return bool(now == kept)
        if isinstance(now, list):
            return all(map(is_, now, kept))
        return all(map(is_, chain(now, now.values()), chain(kept, kept.values())))


def _digest_of(value: object) -> object:
    return getattr(value, "digest", None)


def _withdraw(names: set[str]) -> None:
    """Take back implementations of operators, through the libraries that registered them."""
    for one in gc.get_objects():
        # Not isinstance: it asks objects for their class, and some of them answer with a warning.
        if issubclass(type(one), torch.library.Library) and one._op_impls & names:
            one._destroy()
