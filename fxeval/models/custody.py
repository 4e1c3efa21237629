"""A model is borrowed and handed back as it was."""

import hashlib
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn


class Custody:
    """Remembers a module, says what an explainer did to it, and undoes that.

    Weights, buffers, training modes, ``requires_grad``, gradients, hooks and the modules themselves
    are looked at. Putting back is exact for all but replaced submodules, which are put back too.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._state = deepcopy(module.state_dict())
        self._digest = _digest(module)
        self._modules = dict(module.named_modules())
        self._flags = _flags(module)

    def changes(self) -> list[str]:
        """Return what differs now, in words; empty if nothing does."""
        found = []
        if dict(self._module.named_modules()) != self._modules:
            found.append("its submodules were replaced")
        if _digest(self._module) != self._digest:
            found.append("its weights or buffers were changed")
        now = _flags(self._module)
        for words, before, after in zip(_FLAG_WORDS, self._flags, now, strict=True):
            if before != after:
                found.append(words)
        return found

    def restore(self) -> None:
        """Put the module back as it was."""
        for name, module in self._modules.items():
            if name:
                parent = self._modules[name.rpartition(".")[0]]
                parent._modules[name.rpartition(".")[2]] = module
        with torch.no_grad():
            current = self._module.state_dict(keep_vars=True)
            for name, value in self._state.items():
                current[name].data.copy_(value)
        training, requires_grad, _, hooks = self._flags
        for name, module in self._modules.items():
            module.training = training[name]
            for kind, kept in hooks[name].items():
                registered: dict[int, Any] = getattr(module, kind)
                for key in [key for key in registered if key not in kept]:
                    del registered[key]
        for name, parameter in self._module.named_parameters():
            parameter.requires_grad_(requires_grad[name])
            parameter.grad = None


_FLAG_WORDS = (
    "modules were switched between training and evaluation",
    "requires_grad was changed",
    "gradients were left on its parameters",
    "hooks were left on its modules",
)
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def _flags(
    module: nn.Module,
) -> tuple[dict[str, bool], dict[str, bool], dict[str, bool], dict[str, dict[str, set[int]]]]:
    return (
        {name: part.training for name, part in module.named_modules()},
        {name: parameter.requires_grad for name, parameter in module.named_parameters()},
        {name: parameter.grad is not None for name, parameter in module.named_parameters()},
        {
            name: {kind: set(getattr(part, kind)) for kind in _HOOKS}
            for name, part in module.named_modules()
        },
    )


def _digest(module: nn.Module) -> bytes:
    hasher = hashlib.blake2b(digest_size=16)
    for name, value in module.state_dict().items():
        hasher.update(name.encode())
        if isinstance(value, Tensor):
            data = value.detach().cpu().contiguous().reshape(-1)
            hasher.update(data.view(torch.uint8).numpy().tobytes())
    return hasher.digest()
