"""Records the state of a lent module, finds what was changed and restores it bit by bit."""

from collections.abc import Iterator
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from fxeval.hooks.patches import Namespace, name_of

_SLOTS = ("_parameters", "_buffers")
_HOOK_DICTS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}

_SUBMODULES = "its submodules were replaced"
_WEIGHTS = "its weights or buffers were changed"
_MODES = "modules were switched between training and evaluation"
_REQUIRES_GRAD = "requires_grad was changed"
_GRADIENTS = "gradients were left on its parameters or taken from them"
_HOOKS = "hooks were left on its modules or taken from them"


class Custody:
    """Records a module's state, reports what an explainer changed, and undoes it.

    It records every submodule's class and attributes (containers with their contents), and every
    tensor's object, memory, values, ``requires_grad``, gradient and hooks. Restoring is exact: the
    same objects with the same bits. Attributes that a forward pass may use as a cache (tensors that
    are replaced, None, new attributes) are restored but not reported. Of a ``torch.jit`` module it
    records tensors, training modes and hooks; the code can't be changed.
    """

    def __init__(self, module: nn.Module) -> None:
        self._parts = [_Part(name, part) for name, part in module.named_modules()]
        self._tensors = {id(one): _Loan(one) for part in self._parts for one in part.tensors()}
        # Patching a class changes the model without a trace on any instance.
        kinds = dict.fromkeys(kind for part in module.modules() for kind in type(part).__mro__)
        self._kinds = [Namespace(kind, name_of(kind)) for kind in kinds if kind is not object]

    def changes(self) -> list[str]:
        """Return what differs now, in words; empty if nothing does."""
        found = [word for part in self._parts for word in part.changes(self._tensors)]
        found += [word for loan in self._tensors.values() for word in loan.changes()]
        found += [word for kind in self._kinds for word in kind.changes()]
        return list(dict.fromkeys(found))

    def restore(self, *, is_same: bool = False) -> None:
        """Put the module back as it was.

        Args:
            is_same: :meth:`changes` just found nothing: values that lie where they lay are not
                compared a second time.
        """
        for kind in self._kinds:
            kind.restore()
        for part in self._parts:
            part.restore()
        for loan in self._tensors.values():
            loan.restore(is_same=is_same)


class _Part:
    """One module without its submodules: its class, its attributes, its containers' contents."""

    def __init__(self, name: str, part: nn.Module) -> None:
        self._name = name
        self._part = part
        self._kind = type(part)
        self._attributes = dict(_attributes(part))
        self._contents = {
            attribute: _contents(value)
            for attribute, value in self._attributes.items()
            if isinstance(value, dict | set | list)
        }

    def tensors(self) -> Iterator[Tensor]:
        """Yield parameters, buffers and unregistered tensors, those in containers too."""
        for attribute, value in self._attributes.items():
            for _, item in self._contents.get(attribute, [(None, value)]):
                if isinstance(item, Tensor):
                    yield item

    def changes(self, tensors: "dict[int, _Loan]") -> Iterator[str]:
        """Yield what differs now, in words; :class:`_Loan` compares the tensors themselves."""
        now = _attributes(self._part)
        if type(self._part) is not self._kind:
            yield f"the class of its module '{self._name}' was changed"
        for attribute, before in self._attributes.items():
            value = now.get(attribute)
            known, contents = self._contents.get(attribute, []), _contents(value)
            if value is before and not known and not contents:
                continue  # as most are: numbers, hooks of a module that has none
            if attribute in _SLOTS:
                words = "" if _equal(known, contents, tensors) else _WEIGHTS
            elif attribute == "_modules" or attribute.endswith("_hooks"):
                kind = _SUBMODULES if attribute == "_modules" else _HOOKS
                words = "" if _identical(known, contents) else kind
            elif _differs(before, value) or _any_differs(known, contents):
                words = _MODES if attribute == "training" else self._changed(attribute)
            else:
                words = ""
            if words:
                yield words
        for attribute, value in now.items():
            # A new attribute may be a cache, unless it hides a method of the class.
            is_new = attribute not in self._attributes
            if is_new and callable(value) and hasattr(self._kind, attribute):
                yield self._changed(attribute)

    def restore(self) -> None:
        """Put class and attributes back; the objects stay the same, so that handles stay valid."""
        for attribute, contents in self._contents.items():
            _refill(self._attributes[attribute], contents)
        if isinstance(self._part, torch.jit.ScriptModule):
            self._restore_script(self._part)
            return
        if type(self._part) is not self._kind:
            object.__setattr__(self._part, "__class__", self._kind)
        attributes = vars(self._part)
        attributes.clear()
        attributes.update(self._attributes)

    def _restore_script(self, part: nn.Module) -> None:
        if self._attributes["training"] is not None:
            part.training = self._attributes["training"]
        for slot in _SLOTS:
            for name, tensor in self._contents[slot]:
                if getattr(part, name) is not tensor:
                    setattr(part, name, tensor)

    def _changed(self, attribute: str) -> str:
        path = f"{self._name}.{attribute}" if self._name else attribute
        return f"its attribute {path} was changed"


class _Loan:
    """One tensor: the object, its memory and its values."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor: Any = tensor  # its hooks have no type
        self._data = tensor.data
        self._values = tensor.detach().clone()
        self._is_leaf = tensor.is_leaf
        self._requires_grad = tensor.requires_grad
        self._hooks = tensor._backward_hooks
        self._hook_items = _contents(self._hooks)
        grad = tensor.grad if tensor.is_leaf else None
        self._grad = None if grad is None else _Loan(grad)

    def equals(self, other: object) -> bool:
        """Say whether another tensor has the same bits, type, shape and device."""
        return isinstance(other, Tensor) and _same(self._values, other)

    def changes(self) -> Iterator[str]:
        """Yield what differs now, in words."""
        if not self.equals(self._tensor):
            yield _WEIGHTS
        if self._tensor.requires_grad != self._requires_grad:
            yield _REQUIRES_GRAD
        if not _identical(self._hook_items, _contents(self._tensor._backward_hooks)):
            yield _HOOKS
        grad = self._tensor.grad if self._tensor.is_leaf and self._is_leaf else None
        kept = None if self._grad is None else self._grad._tensor
        if grad is not kept or (self._grad is not None and not self._grad.equals(grad)):
            yield _GRADIENTS

    def restore(self, *, is_same: bool = False) -> None:
        """Put memory, values, ``requires_grad``, hooks and gradient back.

        Args:
            is_same: :meth:`changes` just found the same values in the memory of now.
        """
        is_same = is_same and _lies_where(self._tensor, self._data)
        # Tensors that were made in inference mode can be written to in that mode only.
        with torch.inference_mode(self._data.is_inference()), torch.no_grad():
            # A write in place may have made it part of a graph; views can't be detached in place.
            if self._is_leaf and not self._tensor.is_leaf and not self._tensor._is_view():
                self._tensor.detach_()
            if self._tensor.is_leaf:
                self._tensor.grad = None
            self._tensor.data = self._data
            if not is_same and not _same(self._values, self._data):
                _elements(self._data, self._data).copy_(_elements(self._values, self._data))
            if self._tensor.is_leaf:
                self._tensor.requires_grad_(self._requires_grad)
            if not _identical(self._hook_items, _contents(self._tensor._backward_hooks)):
                _refill(self._hooks, self._hook_items)
                self._tensor._backward_hooks = self._hooks
            if self._grad is not None:
                self._grad.restore(is_same=is_same)
                self._tensor.grad = self._grad._tensor


def _attributes(part: nn.Module) -> dict[str, Any]:
    if not isinstance(part, torch.jit.ScriptModule):
        return vars(part)
    return {
        "training": getattr(part, "training", None),  # a frozen module has no such attribute
        "_modules": dict(part.named_children()),
        "_parameters": dict(part.named_parameters(recurse=False)),
        "_buffers": dict(part.named_buffers(recurse=False)),
        **{kind: getattr(part, kind) for kind in _HOOK_DICTS},
    }


def _contents(value: object) -> list[tuple[Any, Any]]:
    """Return a container's items with their keys; a set's items are their own keys."""
    if not isinstance(value, dict | set | list) or not len(value):
        return []
    if isinstance(value, dict):
        return list(value.items())
    return [(item, item) for item in value] if isinstance(value, set) else list(enumerate(value))


def _refill(container: object, contents: list[tuple[Any, Any]]) -> None:
    if _identical(_contents(container), contents):
        return
    if isinstance(container, dict):
        container.clear()
        container.update(contents)
    elif isinstance(container, set):
        container.clear()
        container.update(item for _, item in contents)
    elif isinstance(container, list):
        container[:] = [item for _, item in contents]


def _identical(before: list[tuple[Any, Any]], now: list[tuple[Any, Any]]) -> bool:
    """Say whether two containers hold the same objects under the same keys in the same order."""
    if not before:  # as most are
        return not now
    return len(before) == len(now) and all(
        # Only plain keys are compared: of other objects, such as tensors, == may be anything.
        (key is other_key or (_is_plain(key) and _is_plain(other_key) and key == other_key))
        and item is other
        for (key, item), (other_key, other) in zip(before, now, strict=True)
    )


def _equal(
    before: list[tuple[Any, Any]], now: list[tuple[Any, Any]], tensors: dict[int, _Loan]
) -> bool:
    """Say whether tensors that replaced others have the same bits."""
    current = dict(now)
    return current.keys() == dict(before).keys() and all(
        current[key] is item or (item is not None and tensors[id(item)].equals(current[key]))
        for key, item in before
    )


def _differs(before: object, now: object) -> bool:
    """Say whether a value that steers a computation (number, text, function) has changed."""
    if now is before:
        return False
    if _is_plain(before):
        return not _is_plain(now) or now != before
    return callable(before)


def _any_differs(before: list[tuple[Any, Any]], now: list[tuple[Any, Any]]) -> bool:
    current = dict(now)
    return any(_differs(item, current.get(key)) for key, item in before)


def _is_plain(value: object) -> TypeGuard[bool | int | float | str | tuple[Any, ...]]:
    if isinstance(value, tuple):
        return all(_is_plain(item) for item in value)
    return isinstance(value, bool | int | float | str)


def _same(one: Tensor, other: Tensor) -> bool:
    """Compare bit by bit: NaN is equal to itself, and -0 is not 0."""
    return (
        (one.dtype, one.shape, one.device) == (other.dtype, other.shape, other.device)
    ) and torch.equal(_bits(one), _bits(other))


def _lies_where(one: Tensor, other: Tensor) -> bool:
    """Say whether two tensors of the same shape and type are the same elements in memory."""
    return (
        one.layout == other.layout == torch.strided
        and one.stride() == other.stride()
        and one.data_ptr() == other.data_ptr()
    )


def _bits(tensor: Tensor) -> Tensor:
    tensor = tensor.detach()
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    if tensor.is_quantized:
        tensor = tensor.int_repr()
    real = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    return real.view(_INTEGERS[real.itemsize])


def _elements(tensor: Tensor, expanded: Tensor) -> Tensor:
    """Return the part of a tensor that an expanded tensor of its shape stores.

    Writing to every element of an expanded tensor would write to the same memory many times.
    """
    if expanded.layout != torch.strided:
        return tensor
    for dim, (size, stride) in enumerate(zip(expanded.shape, expanded.stride(), strict=True)):
        tensor = tensor.narrow(dim, 0, 1) if stride == 0 and size > 1 else tensor
    return tensor
