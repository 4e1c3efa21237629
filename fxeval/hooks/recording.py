"""Records a forward pass operation by operation, so that parts of it can be run again.

It records the operations that PyTorch dispatches, not the modules: functional additions, views and
changes in place are seen like any layer.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from fxeval.contracts import Images

IMAGE = 0  # the number of the value that is the images


@dataclass(frozen=True)
class Value:
    """Stands for a recorded tensor among the arguments of a step."""

    number: int


@dataclass(frozen=True, eq=False)
class Step:
    """One operation on something that depends on the images.

    Attributes:
        operation: The ATen operation.
        arguments: Its arguments. A :class:`Value` stands for a tensor that depends on the images;
            other tensors are kept themselves, so weights are read when the step runs.
        keywords: Its keyword arguments, in the same form.
        inputs: Numbers of the values it reads, in order, repeated if read twice.
        outputs: Numbers of the values it makes.
        layer: Name and class of the innermost module at work, or "".
    """

    operation: OpOverload
    arguments: tuple[object, ...]
    keywords: dict[str, object]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    layer: str

    @property
    def name(self) -> str:
        """Name of the operation; ``relu`` for ``relu_``, which writes in place."""
        name: str = self.operation._schema.name.rpartition("::")[2]
        return name.removesuffix("_") if _written(self.operation) else name

    def argument(self, position: int, keyword: str, default: object) -> object:
        """Return an argument that was given by position or by name."""
        if position < len(self.arguments):
            return self.arguments[position]
        return self.keywords.get(keyword, default)

    def run(self, values: Mapping[int, Tensor]) -> list[Tensor]:
        """Run the step again on other values, which stay unchanged; returns its outputs."""
        written = _written(self.operation)

        def read(part: object, key: int | str) -> object:
            found = _mapped(part, lambda leaf: looked_up(leaf, values))
            return found.clone() if key in written and isinstance(found, Tensor) else found

        arguments = [read(part, place) for place, part in enumerate(self.arguments)]
        keywords = {key: read(part, key) for key, part in self.keywords.items()}
        return _tensors(self.operation(*arguments, **keywords))


@dataclass(eq=False)
class Recording:
    """The steps of a forward pass of n images, with all values that they made.

    Attributes:
        steps: In order.
        values: By number; 0 is the (n, 3, H, W) images.
        output: Number of the (n, D) embeddings; None if they were not computed from the images by
            operations that PyTorch dispatches.
        fault: Why the recording cannot be used, or None.
    """

    steps: list[Step] = field(default_factory=list)
    values: dict[int, Tensor] = field(default_factory=dict)
    output: int | None = None
    fault: str | None = None

    @property
    def images(self) -> Images:
        """The embedded images, (n, 3, H, W)."""
        return self.values[IMAGE]

    def rerun(self, images: Images) -> dict[int, Tensor]:
        """Run all steps on other images of the same shape, in the caller's gradient mode.

        Returns:
            The values by number.
        """
        values = {IMAGE: images}
        for step in self.steps:
            values.update(zip(step.outputs, step.run(values), strict=True))
        return values


def record(module: nn.Module, images: Images) -> Recording:
    """Run a module in the mode it is in, and return the recording.

    Args:
        module: ``Images -> Embeddings``.
        images: (n, 3, H, W), on the module's device. The module may write to them.
    """
    if any(isinstance(part, torch.jit.ScriptModule) for part in module.modules()):
        return Recording(fault="the module is compiled by TorchScript, which hides its operations")
    with torch.inference_mode(False), torch.no_grad():
        recorder = _Recorder(images)
        with at_work(module, recorder.layers), recorder:
            embeddings = module(images)
    recorder.found.output = recorder.number_of(embeddings)
    return recorder.found


def looked_up(leaf: object, values: Mapping[int, Tensor]) -> object:
    """Return the tensor that a :class:`Value` stands for, and anything else as it is."""
    return values[leaf.number] if isinstance(leaf, Value) else leaf


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records every operation on tensors that depend on the images."""

    def __init__(self, images: Images) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found = Recording(values={IMAGE: images})
        self.layers: list[tuple[str, nn.Module]] = []
        self._numbers = {id(images): IMAGE}
        self._alive = [images]  # ids and addresses of freed tensors would be used again
        self._since: dict[int, int] = {}  # address of a storage -> first value after its last write

    def number_of(self, tensor: object) -> int | None:
        return self._numbers.get(id(tensor))

    def __torch_dispatch__(
        self, func: OpOverload, types: object, args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:  # fmt: skip
        keywords = kwargs or {}
        read = _tensors((args, tuple(keywords.values())))
        self._refuse_stale(func, read)
        inputs = tuple(self._numbers[id(one)] for one in read if id(one) in self._numbers)
        if not inputs:
            return func(*args, **keywords)
        arguments = tuple(_mapped(part, self._as_value) for part in args)
        named = {key: _mapped(part, self._as_value) for key, part in keywords.items()}
        written = _written(func)
        given = (*enumerate(args), *keywords.items())
        changed = _tensors([part for key, part in given if key in written])
        for one in changed:
            self._save(one)
        result = func(*args, **keywords)
        first = len(self._alive)
        for number, one in enumerate(_tensors(result), first):
            self._numbers[id(one)] = number
            self.found.values[number] = one
            self._alive.append(one)
        for one in changed:
            self._since[_address(one)] = first
        outputs = tuple(range(first, len(self._alive)))
        layer = "".join(f"'{name}' ({type(part).__name__})" for name, part in self.layers[-1:])
        self.found.steps.append(Step(func, arguments, named, inputs, outputs, layer))
        return result

    def _as_value(self, leaf: object) -> object:
        number = self.number_of(leaf)
        return leaf if number is None else Value(number)

    def _save(self, tensor: Tensor) -> None:
        """Copy the recorded values that a write in place is about to change."""
        for number, value in self.found.values.items():
            if _address(value) == _address(tensor):
                self.found.values[number] = value.clone()

    def _refuse_stale(self, func: OpOverload, read: Sequence[Tensor]) -> None:
        """Note a fault if a tensor is read whose memory was changed since it got its number."""
        for one in read:
            since = self._since.get(_address(one), -1)
            if since > self._numbers.get(id(one), -1) and self.found.fault is None:
                self.found.fault = (
                    f"operation '{func._schema.name.rpartition('::')[2]}' reads a tensor that was "
                    "changed in place through another view of it"
                )


@contextmanager
def at_work(module: nn.Module, layers: list[tuple[str, nn.Module]]) -> Iterator[None]:
    """Keep the modules at work, with their names, on a stack while open; the innermost is last."""
    handles: list[torch.utils.hooks.RemovableHandle] = []

    def watch(name: str, part: nn.Module) -> None:
        def begin(_module: nn.Module, _inputs: object) -> None:
            layers.append((name, part))

        def end(_module: nn.Module, _inputs: object, _output: object) -> None:
            layers.pop()

        handles.extend((part.register_forward_pre_hook(begin), part.register_forward_hook(end)))

    try:
        for name, part in module.named_modules():
            if name:
                watch(name, part)
        yield
    finally:
        for handle in handles:
            handle.remove()


def _written(operation: OpOverload) -> set[int | str]:
    """Return the arguments that an operation writes to, by position and by name."""
    written: set[int | str] = set()
    for place, argument in enumerate(operation._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            written.update((place, argument.name))
    return written


def _mapped(part: object, change: Callable[[object], object]) -> object:
    if isinstance(part, list | tuple):
        return [_mapped(one, change) for one in part]
    return change(part)


def _tensors(part: object) -> list[Tensor]:
    if isinstance(part, list | tuple):
        return [tensor for one in part for tensor in _tensors(one)]
    return [part] if isinstance(part, Tensor) else []


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr() or id(tensor)  # empty storages have address 0
