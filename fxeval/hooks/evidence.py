"""Evidence on how the layers of a network are read: their outputs' shapes, and a probe.

Shapes alone do not tell a map from an attention matrix of the same form. The probe changes one
quarter of an image at a time: at a map's places, the change of their own quarter moves most.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxeval.contracts import Images
from fxeval.hooks.readings import Reading, fits, of, token_readings

# Share of places that their own quarter moves most. Chance gives 0.25 and attention matrices up to
# 0.4; maps give 0.8 to 1 early in a network and 0.5 at the least.
_CONFIRMED = 0.8
_REFUTED = 0.45
_QUARTERS = 4
_LEAST_TOKENS = 9


@dataclass(frozen=True)
class Output:
    """What one module gave in a forward pass.

    Attributes:
        name: Of the module.
        shape: Of its output, with the number of images; () if that is not one tensor.
        runs: How often it ran.
        ones: Dimensions along which the output, never negative, sums to 1 everywhere.
        last: Its class works on the last dimension, as ``nn.Linear`` and ``nn.LayerNorm`` do.
    """

    name: str
    shape: tuple[int, ...] = ()
    runs: int = 0
    ones: frozenset[int] = frozenset()
    last: bool = False


@dataclass(frozen=True)
class Found:
    """How an output is read.

    Attributes:
        reading: None if it is no map of the image.
        fault: Why it is none, or "".
        options: Possible readings of its tokens, for one that is declared.
        is_felt: The embedding depends on its places, and not only on tokens in front.
        is_final: No other reading can be declared.
    """

    reading: Reading | None
    fault: str = ""
    options: tuple[Reading, ...] = ()
    is_felt: bool = True
    is_final: bool = False


@contextmanager
def watched(module: nn.Module) -> Iterator[dict[str, Output]]:
    """Note what each module inside gives while open; in order of finishing, idle ones first."""
    seen = {name: Output(name) for name, _ in module.named_modules() if name}
    handles = []

    def watch(name: str, part: nn.Module) -> None:
        def note(_module: nn.Module, _inputs: object, output: object) -> None:
            before = seen.pop(name)  # moves to the end, so that the order is that of finishing
            now = Output(name, runs=before.runs + 1, last=_works_on_last(part))
            if isinstance(output, Tensor):
                now = replace(now, shape=tuple(output.shape), ones=_ones(output))
            seen[name] = now

        handles.append(part.register_forward_hook(note))

    try:
        for name, part in module.named_modules():
            if name:
                watch(name, part)
        yield seen
    finally:
        for handle in handles:
            handle.remove()


class Probe:
    """Looks at a network with images of noise, never the caller's: a reading must not vary."""

    def __init__(self, module: nn.Module, like: Images) -> None:
        """Take a module that is lent and in eval mode, and images of its size and device."""
        size = (int(like.shape[2]), int(like.shape[3]))
        self._module = module
        generator = torch.Generator().manual_seed(0)
        coarse = F.interpolate(torch.rand(2, 3, 8, 8, generator=generator), size)
        plain, other = 0.75 * coarse + 0.25 * torch.rand(2, 3, *size, generator=generator)
        images = plain.repeat(1 + _QUARTERS, 1, 1, 1)
        middle = size[0] // 2, size[1] // 2
        for quarter in range(_QUARTERS):
            rows = slice(middle[0], None) if quarter // 2 else slice(middle[0])
            columns = slice(middle[1], None) if quarter % 2 else slice(middle[1])
            images[1 + quarter, :, rows, columns] = other[:, rows, columns]
        self._images = images.to(like)

    def outputs(self, names: Collection[str]) -> dict[str, Tensor]:
        """Return (5, ...) outputs: of one image, and with each of its quarters changed."""
        taken: dict[str, list[Tensor]] = {name: [] for name in names}
        take = _hooked(self._module, names, lambda name, out: taken[name].append(out.clone()))
        with take, torch.no_grad():
            for image in self._images:  # one by one: what works for one image works here
                self._module(image[None].clone())  # the module may write to it
        return {
            name: torch.cat(some)
            for name, some in taken.items()
            if len({one.shape for one in some}) == 1
        }

    def felt(self, readings: Mapping[str, Reading]) -> set[str]:
        """Return the layers on whose places the embedding depends differentiably."""
        found: set[str] = set()

        def watch(name: str, output: Tensor) -> None:
            def note(gradient: Tensor) -> None:
                if bool(readings[name].places(gradient).any()):
                    found.add(name)

            if output.requires_grad:
                output.register_hook(note)  # type: ignore[no-untyped-call]

        with torch.inference_mode(False), torch.enable_grad():
            image = self._images[:1].clone().requires_grad_()
            with _hooked(self._module, readings, watch):
                embedding = self._module(image.clone())  # the module may write to it
            if isinstance(embedding, Tensor) and embedding.requires_grad:
                # Not the sum, which a last layer norm keeps constant.
                generator = torch.Generator().manual_seed(1)
                weights = torch.randn(embedding.shape, generator=generator).to(embedding)
                torch.autograd.grad((embedding * weights).sum(), image, allow_unused=True)
        return found


def followed(outputs: Tensor, reading: Reading) -> float:
    """Return the share of a map's places that a change of their own quarter moves most, 0 to 1.

    Args:
        outputs: (5, ...), see :meth:`Probe.outputs`.
        reading: How they are read.
    """
    places = reading.places(outputs).double()
    moved = (places[1:] - places[:1]).abs().mean(dim=1)  # (4, h, w)
    row, column = (2 * torch.arange(side) + 1 for side in moved.shape[1:])
    height, width = moved.shape[1:]
    own = 2 * (row > height)[:, None].long() + (column > width)[None].long()
    is_one_quarters = (row != height)[:, None] & (column != width)[None]
    is_one_quarters = is_one_quarters.to(moved.device) & (moved.amax(dim=0) > 0)
    if not bool(is_one_quarters.any()):
        return 0.0
    is_own = moved.argmax(dim=0) == own.to(moved.device)
    return float(is_own[is_one_quarters].double().mean())


def readings_of(
    seen: Sequence[Output], n: int, size: tuple[int, int], probe: Probe | None
) -> dict[str, Found]:
    """Return how each output is read, by the name of its module.

    An output is read channels first if its proportions allow that and nothing speaks against it.
    Where an attention matrix or channels last are possible, too, the probe decides; it must confirm
    channels last and tokens at one layer at least of the same size.

    Args:
        seen: What the modules gave, in order (:func:`watched`).
        n: Number of images.
        size: (H, W) of them.
        probe: None on the meta device, where nothing can be computed: shapes decide alone.
    """
    return _Readings(seen, n, size, probe).found


class _Readings:
    """Collects the possible readings of all outputs, and settles those in doubt."""

    def __init__(
        self, seen: Sequence[Output], n: int, size: tuple[int, int], probe: Probe | None
    ) -> None:
        self._n, self._size = n, size
        self.found: dict[str, Found] = {}
        self._doubts: dict[str, tuple[Output, tuple[Reading, ...]]] = {}
        maps = [one for one in seen if len(one.shape) == 4 and one.shape[0] == n]
        self._grids = {
            (one.shape[2], one.shape[3])
            for one in maps
            if fits(one.shape[2], one.shape[3], size) and not one.last
        }
        self._counts = {one.shape[1] for one in seen if len(one.shape) == 3 and one.shape[0] == n}
        # Where no layer works on a last dimension, none holds the channels, whatever shapes allow.
        self._has_last = any(one.last for one in maps)
        for one in seen:
            self._sort(one)
        if self._doubts:
            self._settle(probe)

    def _sort(self, one: Output) -> None:
        """Find the reading of one output, or note the doubt."""
        if len(one.shape) not in (3, 4):
            self.found[one.name] = Found(None)
        elif one.shape[0] != self._n:
            why = f"gives {tuple(one.shape)} for {self._n} images, so its first dimension is"
            self.found[one.name] = Found(None, f"{why} not the images", is_final=True)
        elif len(one.shape) == 3:
            known = token_readings(one.shape[1], self._size, self._grids)
            self.found[one.name] = Found(None, self._undeclared(one), known)
            # One head's attention matrix is (N, T, T).
            if known and one.shape[1] >= 4 and one.shape[1] != one.shape[2]:
                self._doubts[one.name] = one, known
        else:
            self._sort_map(one)

    def _sort_map(self, one: Output) -> None:
        _, a, b, c = one.shape
        first = Reading("channels_first", b, c)
        options = [first] if fits(b, c, self._size) else []
        if fits(a, b, self._size) and min(a, b) > 1 and (self._has_last or not options):
            options.append(Reading("channels_last", a, b))
        fair = [option for option in options if not one.ones & _dimensions(option)]
        if options and not fair:
            rows = "whose values sum to 1 along its places, as those of an attention matrix do"
            self.found[one.name] = Found(None, f"gives {of(one.shape)}, {rows}", is_final=True)
        elif not fair:
            self.found[one.name] = Found(None, _no_proportions(one.shape, self._size))
        elif fair == [first] and not self._may_be_attention(one):
            self.found[one.name] = Found(first)
        else:
            self._doubts[one.name] = one, tuple(fair)

    def _may_be_attention(self, one: Output) -> bool:
        sides = set(one.shape[2:]) & self._counts
        return bool(sides) and max(one.shape[2:]) >= _LEAST_TOKENS

    def _undeclared(self, one: Output) -> str:
        return (
            f"gives {of(one.shape)}, which is no (N, C, h, w) tensor. If these are tokens, declare "
            "'reading: tokens'"
        )

    def _settle(self, probe: Probe | None) -> None:
        if probe is None:
            for name, (one, options) in self._doubts.items():
                self.found[name] = replace(Found(options[0]), options=_tokens(options))
                if one.last and options[-1].order == "channels_last":
                    self.found[name] = Found(options[-1])
            return
        outputs = probe.outputs(self._doubts)
        shares = {
            name: {option: followed(outputs[name], option) for option in options}
            for name, (_, options) in self._doubts.items()
            if name in outputs
        }
        best: dict[tuple[object, ...], float] = {}
        for name, some in shares.items():
            for option, share in some.items():
                key = _key(option, self._doubts[name][0].shape)
                best[key] = max(share, best.get(key, 0.0))
        for name, (one, options) in self._doubts.items():
            some = shares.get(name, {})
            confirmed = [
                option for option in options
                if option.order != "channels_first"
                and best.get(_key(option, one.shape), 0.0) >= _CONFIRMED
            ]  # fmt: skip
            confirmed.sort(key=lambda option: best[_key(option, one.shape)], reverse=True)
            self._decide(one, options, some, confirmed)
        self._feel(probe)

    def _decide(
        self, one: Output, options: tuple[Reading, ...], shares: Mapping[Reading, float],
        confirmed: Sequence[Reading],
    ) -> None:  # fmt: skip
        first = next((some for some in options if some.order == "channels_first"), None)
        if first is None:
            if confirmed:
                self.found[one.name] = Found(confirmed[0], options=_tokens(confirmed[:1]))
            elif len(one.shape) == 4:
                said = f"gives {of(one.shape)}, which cannot be read (N, C, h, w)"
                advice = f"If its channels are last, declare 'reading: {options[0].order}'"
                self.found[one.name] = Found(None, f"{said}. {advice}")
            return
        share = shares.get(first, 0.0)
        if confirmed and (one.last or shares.get(confirmed[0], 0.0) > share):
            self.found[one.name] = Found(confirmed[0])
        elif share < _REFUTED and self._may_be_attention(one):
            self.found[one.name] = Found(
                None,
                f"gives {of(one.shape)}, whose places do not follow the image: only "
                f"{share:.0%} of them change most when their own quarter of the image does. An "
                "attention matrix is of this kind",
                is_final=True,
            )
        else:
            self.found[one.name] = Found(first)

    def _feel(self, probe: Probe) -> None:
        """Note for each layer of tokens whether the embedding depends on its places."""
        readings = {
            name: found.reading
            for name, found in self.found.items()
            if found.reading is not None and found.reading.order == "tokens"
        }
        if readings:
            felt = probe.felt(readings)
            for name in readings.keys() - felt:
                self.found[name] = replace(self.found[name], is_felt=False)


def _no_proportions(shape: tuple[int, ...], size: tuple[int, int]) -> str:
    return (
        f"gives {of(shape)}, which has not the proportions of an image of {size[0]} x {size[1]}, "
        "neither as (N, C, h, w) nor as (N, h, w, C)"
    )


def _key(reading: Reading, shape: tuple[int, ...]) -> tuple[object, ...]:
    """Return what layers share that are read alike; the number of channels may differ."""
    return reading, shape[1] if len(shape) == 3 else None


def _tokens(options: Sequence[Reading]) -> tuple[Reading, ...]:
    return tuple(option for option in options if option.order == "tokens")


def _dimensions(reading: Reading) -> set[int]:
    return {2, 3} if reading.order == "channels_first" else {1, 2}


def _works_on_last(part: nn.Module) -> bool:
    # A subclass with a forward of its own, such as a norm of (N, C, h, w), may do anything.
    if type(part).forward is nn.LayerNorm.forward:
        return len(getattr(part, "normalized_shape", ())) == 1
    return type(part).forward is nn.Linear.forward


def _ones(output: Tensor) -> frozenset[int]:
    """Return the dimensions along which an output that is never negative sums to 1."""
    if output.ndim != 4 or output.device.type == "meta" or not output.dtype.is_floating_point:
        return frozenset()
    one = output.detach()[:1]
    if not one.numel() or not bool((one >= 0).all()):
        return frozenset()
    # Most activations that are never negative show at their first sum that they are no shares.
    likely = [
        side
        for side, first in ((1, one[0, :, 0, 0]), (2, one[0, 0, :, 0]), (3, one[0, 0, 0]))
        if one.shape[side] > 1 and abs(float(first.double().sum()) - 1.0) <= 2e-3
    ]
    return frozenset(
        side for side in likely if bool(((one.double().sum(dim=side) - 1).abs() <= 1e-3).all())
    )


@contextmanager
def _hooked(
    module: nn.Module, names: Collection[str], look: Callable[[str, Tensor], object]
) -> Iterator[None]:
    """Show each output of some modules to a function while open."""
    handles = []

    def watch(name: str) -> None:
        def note(_module: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, Tensor):
                look(name, output)

        handles.append(module.get_submodule(name).register_forward_hook(note))

    try:
        for name in names:
            watch(name)
        yield
    finally:
        for handle in handles:
            handle.remove()
