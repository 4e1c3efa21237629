"""Excitation sent back through a recorded forward pass, with one rule per operation."""

from collections import ChainMap
from collections.abc import Callable, Collection, Mapping, Sequence

import torch
from torch import Tensor

from fxeval.hooks.recording import IMAGE, Recording, Step, Value, looked_up

EPS = 1e-12  # added to denominators

# Excitation of an output goes to the inputs it was copied from; a maximum is a copy of the winner.
_ROUTES = frozenset(
    {
        "view", "_unsafe_view", "reshape", "_reshape_alias", "t", "transpose", "permute", "squeeze",
        "unsqueeze", "expand", "clone", "contiguous", "_to_copy", "copy", "lift_fresh", "alias",
        "detach", "cat", "stack", "slice", "select", "split", "split_with_sizes", "unbind", "index",
        "constant_pad_nd", "reflection_pad2d", "replication_pad2d", "flip", "roll", "pixel_shuffle",
        "pixel_unshuffle", "max_pool2d_with_indices", "adaptive_max_pool2d", "maximum",
    }
)  # fmt: skip
# An output is a weighted sum of its inputs, and only positive weights count.
_PRODUCTS = frozenset({"convolution", "linear", "addmm", "mm", "bmm"})
_MEANS = frozenset(
    {
        "mean", "sum", "avg_pool2d", "_adaptive_avg_pool2d", "upsample_nearest2d",
        "upsample_bilinear2d",
    }
)  # fmt: skip
_ACTIVATIONS = frozenset({"relu", "leaky_relu", "_prelu_kernel"})
_CLAMPS = frozenset({"clamp", "clamp_min", "hardtanh", "threshold"})
_BATCH_NORMS = frozenset(
    {
        "native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training",
        "cudnn_batch_norm", "miopen_batch_norm",
    }
)  # fmt: skip
# A length counts as a constant of the vector it divides, as in the head on the unit embedding.
_LENGTHS = frozenset({"linalg_vector_norm"})

_Pull = Callable[[Sequence[Tensor | None]], dict[int, Tensor]]


class Flow:
    """Sends excitation back through a forward pass of n images.

    The marginal winning probability of an input is ``a * W+^T (P / (W+ a + eps))``, where a is the
    input clamped at 0, W+ the positive weights without biases and P the probability of the outputs.
    A sum divides it in proportion to the clamped operands; a maximum gives all of it to the winner.
    Activations pass it on where their input is positive, products and batch norms where their
    factor or scale is positive; shifts and lengths pass it on unchanged.

    Args:
        recording: A recording for which :func:`fault` returns None.

    Source:
        Zhang et al., ECCV 2016, eq. 8 and algorithm 1; negative scales of batch norms as in
        Williford et al., ECCV 2020.
    """

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._values = recording.values
        self._carriers, self._path = _way(recording)
        self._pulls: dict[Step, _Pull] = {}

    def back(
        self, seeds: Mapping[int, Tensor], keep: Collection[int] = ()
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """Send excitation from some values to the images.

        Args:
            seeds: By the number of the value to start from, the excitation to send, in the value's
                shape, >= 0.
            keep: Numbers of the values whose excitation is returned as well.

        Returns:
            (n, 3, H, W) at the images, >= 0, and by number that of the values in ``keep``, zero
            where none arrived.
        """
        held = dict(seeds)
        kept = {number: torch.zeros_like(self._values[number]) for number in keep}
        for step in reversed(self._path):
            arriving = [held.pop(number, None) for number in step.outputs]
            for number, part in zip(step.outputs, arriving, strict=True):
                if number in kept and part is not None:
                    kept[number] = part
            if all(part is None for part in arriving):
                continue
            if step not in self._pulls:
                self._pulls[step] = _pull(step, self._carriers[step], self._values)
            for number, part in self._pulls[step](arriving).items():
                held[number] = held[number] + part if number in held else part
        return held.get(IMAGE, torch.zeros_like(self._values[IMAGE])), kept

    def weighted_inputs(self) -> list[int]:
        """Return the numbers of the inputs of convolutions and fully connected layers."""
        weighted = [step for step in self._path if step.name in _PRODUCTS]
        return list(dict.fromkeys(self._carriers[step][0] for step in weighted))

    def starts(self) -> list[int]:
        """Return where subtrees can start: the inputs of weighted layers and batch norms.

        The images, and values before the first weighted layer, are not among them.
        """
        deep: set[int] = set()
        found: dict[int, None] = {}
        for step in self._path:
            is_weighted = step.name in _PRODUCTS
            reached = [number for number in self._carriers[step] if number in deep]
            if reached and (is_weighted or step.name in _BATCH_NORMS):
                found[reached[0]] = None
            if reached or is_weighted:
                deep.update(step.outputs)
        n = len(self._recording.images)
        return [number for number in found if len(self._values[number]) == n]

    def gradients(self, pulls: Sequence[Tensor], at: Sequence[int]) -> list[list[Tensor]]:
        """Differentiate the embeddings at recorded values, once for each of some (n, D) pulls.

        Returns:
            For every pull the gradient at every value; zero where the embedding does not depend on
            it differentiably.
        """
        assert self._recording.output is not None
        with torch.enable_grad():
            values = self._recording.rerun(self._recording.images.detach().requires_grad_())
        leaves = [values[number] for number in at]
        embeddings = values[self._recording.output]
        if not embeddings.requires_grad:
            return [[torch.zeros_like(leaf) for leaf in leaves] for _ in pulls]
        return [_slopes([embeddings], leaves, [pull.to(embeddings.dtype)]) for pull in pulls]


def fault(recording: Recording) -> str | None:
    """Return why no excitation can be sent back, naming operation and layer; None if it can."""
    if recording.fault is not None:
        return recording.fault
    if recording.output is None:
        return "the embedding is not computed from the image by operations of PyTorch alone"
    carriers, path = _way(recording)
    for step in path:
        if _rule(step, carriers[step]) is None:
            layer = f" in layer {step.layer}" if step.layer else ""
            return f"excitation backprop has no rule for operation '{step.name}'{layer}"
    return None


def _way(recording: Recording) -> tuple[dict[Step, tuple[int, ...]], list[Step]]:
    """Return, by step, the inputs that carry excitation, and the steps from image to embedding."""
    excited = {IMAGE}
    carriers: dict[Step, tuple[int, ...]] = {}
    for step in recording.steps:
        carriers[step] = tuple(number for number in step.inputs if number in excited)
        if carriers[step] and step.name not in _LENGTHS:
            excited.update(step.outputs)
    wanted, path = {recording.output}, []
    for step in reversed(recording.steps):
        if carriers[step] and not wanted.isdisjoint(step.outputs):
            path.append(step)
            wanted.update(carriers[step])
    return carriers, path[::-1]


def _rule(step: Step, carriers: tuple[int, ...]) -> str | None:
    """Return which rule holds for a step, ``route``, ``share`` or ``gate``; None if none does."""
    if step.name in _ROUTES:
        return "route"
    if step.name == "add":
        alpha = step.argument(2, "alpha", 1)
        if not (isinstance(alpha, int | float) and alpha > 0):
            return None
        return "share" if len(carriers) == 2 else "gate"
    if len(carriers) != 1:
        return None
    carrier = Value(carriers[0])
    if step.name == "mul":
        return "gate"
    if step.name in ("addmm", "mm", "bmm"):
        return "share" if carrier in step.arguments[-2:] and not step.keywords else None
    return _rule_of_one(step) if step.arguments[0] == carrier else None


def _rule_of_one(step: Step) -> str | None:
    """Return the rule of a step whose first argument alone carries excitation."""
    if step.name in _MEANS or step.name in _PRODUCTS:
        return "share"
    if step.name in _BATCH_NORMS:
        # With the statistics of the batch, what one row gets would depend on the others.
        return None if step.argument(5, "training", False) is True else "gate"
    if step.name in _CLAMPS:
        floor = step.argument(1, "min", -1)
        return "gate" if isinstance(floor, int | float) and floor == 0 else None
    return "gate" if step.name in _ACTIVATIONS or step.name in ("sub", "div") else None


def _pull(step: Step, carriers: tuple[int, ...], values: dict[int, Tensor]) -> _Pull:
    """Return a function from the excitation of a step's outputs to that of its carriers."""
    rule = _rule(step, carriers)
    if rule == "route":
        return _routed(step, carriers, values)
    if rule == "share":
        return _shared(step, carriers, values)
    return _gated(step, carriers[0], values)


def _routed(step: Step, carriers: tuple[int, ...], values: dict[int, Tensor]) -> _Pull:
    # The gradient of a copy is 1 at its source, so autograd finds the route of any such operation.
    leaves = {number: values[number].detach().requires_grad_() for number in carriers}
    with torch.enable_grad():
        outputs = step.run(ChainMap(leaves, values))

    def pull(arriving: Sequence[Tensor | None]) -> dict[int, Tensor]:
        made: list[Tensor] = []
        parts: list[Tensor] = []
        for output, part in zip(outputs, arriving, strict=True):
            if part is not None and output.requires_grad:
                made.append(output)
                parts.append(part)
        slopes = _slopes(made, list(leaves.values()), parts) if made else []
        return dict(zip(leaves, slopes, strict=False))

    return pull


def _shared(step: Step, carriers: tuple[int, ...], values: dict[int, Tensor]) -> _Pull:
    leaves = {n: values[n].detach().clamp_min(0).requires_grad_() for n in carriers}
    with torch.enable_grad():
        output = _positive(step, ChainMap(leaves, values))
    whole = output.detach() + EPS

    def pull(arriving: Sequence[Tensor | None]) -> dict[int, Tensor]:
        part = arriving[0]
        assert part is not None
        # Autograd applies W+^T, whatever kind of layer it belongs to.
        slopes = _slopes([output], list(leaves.values()), [part / whole])
        return {
            number: leaf.detach() * slope
            for (number, leaf), slope in zip(leaves.items(), slopes, strict=True)
        }

    return pull


def _gated(step: Step, number: int, values: dict[int, Tensor]) -> _Pull:
    factor = _factor(step, number, values)
    shape = values[number].shape

    def pull(arriving: Sequence[Tensor | None]) -> dict[int, Tensor]:
        part = arriving[0]
        assert part is not None
        return {number: (part * factor).sum_to_size(shape)}

    return pull


def _factor(step: Step, number: int, values: dict[int, Tensor]) -> Tensor | float:
    """Return 1 where a step lets excitation pass and 0 elsewhere."""
    if step.name in _ACTIVATIONS or step.name in _CLAMPS:
        return values[number] > 0
    if step.name in _BATCH_NORMS:
        weight = step.arguments[1]
        if not isinstance(weight, Tensor):
            return 1.0
        return (weight > 0).view(-1, *[1] * (values[number].ndim - 2))
    if step.name in ("mul", "div"):
        (other,) = (part for part in step.arguments[:2] if part != Value(number))
        other = looked_up(other, values)
        if isinstance(other, Tensor):
            return other > 0
        return float(isinstance(other, int | float) and other > 0)
    return 1.0


def _positive(step: Step, values: Mapping[int, Tensor]) -> Tensor:
    """Run a step with its positive weights and without its bias."""
    if step.name not in _PRODUCTS:
        return step.run(values)[0]
    arguments = [
        part.clamp_min(0) if isinstance(part, Tensor) else looked_up(part, values)
        for part in step.arguments
    ]
    output: Tensor
    if step.name == "addmm":
        output = torch.ops.aten.mm.default(*arguments[1:])
    elif step.name == "linear":
        output = torch.ops.aten.linear.default(*arguments[:2])
    else:
        if step.name == "convolution":
            arguments[2] = None  # the bias
        output = step.operation(*arguments)
    return output


def _slopes(
    outputs: Sequence[Tensor], leaves: Sequence[Tensor], parts: Sequence[Tensor]
) -> list[Tensor]:  # fmt: skip
    return list(
        torch.autograd.grad(outputs, leaves, parts, retain_graph=True, materialize_grads=True)
    )
