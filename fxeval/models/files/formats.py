"""Untrusted weight files: bytes -> state dict or module, without running code from the file.

All functions take bytes that are already in memory and hashed. Pickles are read only by PyTorch's
restricted unpickler, in a version without known vulnerabilities, and never by the ordinary one. The
size of an archive is checked before it is unpacked. It is then repacked for PyTorch, because a
second ZIP reader might interpret the original archive differently.
"""

import io
import re
import warnings
import zipfile
import zlib
from argparse import Namespace
from collections.abc import Iterable, Mapping

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from fxeval.errors import ModelContractError
from fxeval.models.files.script_storages import check_storages
from fxeval.strict.text import brief, either

MAX_HEADER_BYTES = 4 << 20
"""Longest safetensors header read; 1,000 tensors need about 100 kB."""

MAX_ENTRIES = 20_000
"""Most files in an archive, and most tensors in a file."""

MAX_PICKLE_BYTES = 16 << 20
"""Longest pickle in an archive; that of 1,000 tensors has about 100 kB."""

MAX_GROWTH = 4
"""Largest ratio of an archive's unpacked size to its size; weights hardly compress."""

_OLDEST_TORCH = (2, 10)  # CVE-2025-32434, CVE-2026-24747
_PICKLE_HELP = (
    "Give a plain state dict: torch.save(network.state_dict(), ...) or, better, "
    "safetensors.torch.save_file(network.state_dict(), ...)."
)
_OBJECT_HELP = (
    "The file holds more than tensors, such as a whole network or settings of the training, and to "
    "read those can run code. If you trust it, take the weights out where that code is installed: "
    "found = torch.load(FILE, map_location='cpu', weights_only=False), then "
    "safetensors.torch.save_file(state, 'weights.safetensors'), where state is found.state_dict() "
    "of a network, or an entry such as found['state_dict'] of a checkpoint."
)
_PROGRAM_HELP = "It would run a program: do not open it in any other way, and ask its vendor."
_PROGRAMS = frozenset({"os", "posix", "nt", "subprocess", "sys", "pty", "runpy", "socket"})
# Names by which a TorchScript program could reach more than its tensors: files, other machines, C++
# objects.
_FORBIDDEN = re.compile(r"\b(save|from_file|classes|rpc_sync|rpc_async|rpc_remote)\b")
_NAMESPACE = re.compile(r"\bops\s*\.\s*(?!(?:aten|prim|quantized)\b)(\w+)")
_HIDDEN_NAME = re.compile(r"getattr\s*\([^)]*\\")


def parse_safetensors(data: bytes, where: str) -> dict[str, Tensor]:
    """Return the state dict in a safetensors file, floating tensors in float32.

    Raises:
        ModelContractError: If it is damaged, not a safetensors file, or contains NaN.
    """
    return as_float32(read_safetensors(data, where), where)


def read_safetensors(data: bytes, where: str) -> dict[str, Tensor]:
    """Return the state dict in a safetensors file as it is stored.

    Args:
        data: The whole file.
        where: Its path, for messages.

    Raises:
        ModelContractError: If it is damaged or not a safetensors file.
    """
    header = int.from_bytes(data[:8], "little")
    if len(data) < 8 or header > min(MAX_HEADER_BYTES, len(data) - 8):
        raise ModelContractError(
            f"{where}: expected a complete safetensors file, got {len(data)} bytes with a header "
            f"of {header}. Download it again."
        )
    try:
        return safetensors.torch.load(data)
    except (safetensors.SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise ModelContractError(
            f"{where}: expected a safetensors file ({_shown(error)}). Download it again."
        ) from error


def parse_checkpoint(data: bytes, where: str, key: str | None = None) -> dict[str, Tensor]:
    """Return the state dict in a file that ``torch.save`` wrote, floating tensors in float32.

    Raises:
        ModelContractError: As :func:`read_checkpoint`, or if it contains NaN.
    """
    return as_float32(read_checkpoint(data, where, key), where)


def read_checkpoint(data: bytes, where: str, key: str | None = None) -> dict[str, Tensor]:
    """Return the state dict in a file that ``torch.save`` wrote as it is stored.

    Args:
        data: The whole file.
        where: Its path, for messages.
        key: Entry of the checkpoint that holds the state dict, with dots between the names of
            nested entries; None = the checkpoint is itself the state dict.

    Raises:
        ModelContractError: If it contains anything but tensors, is damaged, or torch is so old that
            a pickle could run code.
    """
    content = load_pickle(data, where)
    if key is not None:
        found = _entry(content, key)
        if found is None:
            names = list(content)[:5] if isinstance(content, Mapping) else []
            there = ", ".join(f"'{brief(str(name))}'" for name in names) or "none"
            raise ModelContractError(
                f"{where}: expected an entry '{brief(key)}', got {there}. {_PICKLE_HELP}"
            )
        content = found
    return tensors_of(content, where, key)


def _entry(content: object, key: str) -> object:
    """Return an entry, or a nested one such as ``model.state_dict``; None if there is none."""
    rest = key
    while isinstance(content, Mapping):
        if rest in content:
            return content[rest]
        first, _, rest = rest.partition(".")
        content = content.get(first)
    return None


def load_pickle(data: bytes, where: str) -> object:
    """Return the object that ``torch.save`` wrote, read by the restricted unpickler.

    Raises:
        ModelContractError: If the file is damaged or that unpickler refuses its content.
    """
    version = tuple(int(part) for part in re.findall(r"\d+", torch.__version__)[:2])
    if version < _OLDEST_TORCH:
        raise ModelContractError(
            f"{where}: expected torch 2.10 or later to read a pickled file (CVE-2026-24747), got "
            f"{torch.__version__}. Update torch, or give a .safetensors file."
        )
    if data.startswith(b"PK"):
        data, names = repacked(data, where)
        if any(name.endswith("/constants.pkl") for name in names):
            raise ModelContractError(
                f"{where}: expected weights, got a TorchScript program. Set 'format: torchscript' "
                "in the card and remove 'architecture'."
            )
    try:
        # PyTorch Lightning keeps the settings of a training in a Namespace, a bag of attributes.
        with torch.serialization.safe_globals([Namespace]), warnings.catch_warnings():
            # Warnings about the pickle's version concern the vendor, not the user who runs a suite.
            warnings.simplefilter("ignore")
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can raise anything
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        reason = f"it asks for {brief(found[1])}" if found else _shown(error)
        if "DefaultCPUAllocator" in str(error) or isinstance(error, MemoryError):
            reason = "it asks for more memory than there is"
        help = _OBJECT_HELP if found else _PICKLE_HELP
        if found and found[1].partition(".")[0] in _PROGRAMS:
            help = _PROGRAM_HELP
        raise ModelContractError(
            f"{where}: expected a file of plain tensors, got one that PyTorch's restricted "
            f"unpickler refuses: {reason}. {help}"
        ) from error


def tensors_of(content: object, where: str, key: str | None = None) -> dict[str, Tensor]:
    """Return a checked state dict: plain tensors by name, each no larger than its storage.

    Args:
        content: The object to check.
        where: The file's path, for messages.
        key: Entry of the file that contains the object, for messages.

    Raises:
        ModelContractError: If it is something else; the message names the first wrong values.
    """
    if not isinstance(content, Mapping) or not content:
        raise ModelContractError(
            f"{where}: expected a state dict, got {type(content).__name__}. {_PICKLE_HELP}"
        )
    if len(content) > MAX_ENTRIES:
        raise ModelContractError(
            f"{where}: expected at most {MAX_ENTRIES} tensors, got {len(content)}."
        )
    wrong = [
        f"'{brief(str(name))}' is {fault}"
        for name, value in content.items()
        if (fault := _fault(name, value))
    ]
    if wrong:
        inner = [str(name) for name, value in content.items() if _holds_tensors(value)]
        entries = [brief(f"{key}.{one}" if key else one) for one in inner[:5]]
        help = ""
        if entries:
            listed, ways = ([form.format(one) for one in entries] for form in ("'{}'", "key: {}"))
            help = (
                f"If it is the entry {either(listed)}, name it: 'state: {{{either(ways)}}}' in a "
                "card, --key of fxeval convert."
            )
        more = f"; and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ModelContractError(
            f"{where}: expected a state dict of plain tensors: {'; '.join(wrong[:3])}{more}. "
            f"{help or _PICKLE_HELP}"
        )
    return {str(name): value.detach() for name, value in content.items()}


def stored_as(state: Iterable[Tensor]) -> str:
    """Return the types of floating tensors if they are not all float32, else "".

    >>> stored_as([torch.zeros(1), torch.zeros(2).half()])
    'float16 and float32'
    """
    kinds = {str(one.dtype).removeprefix("torch.") for one in state if one.is_floating_point()}
    return "" if kinds <= {"float32"} else " and ".join(sorted(kinds))


def as_float32(state: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """Return the state dict with floating tensors in float32, all of them finite.

    Raises:
        ModelContractError: If a tensor contains NaN or infinity; the message names the first.
    """
    whole = {k: v.to(torch.float32) if v.is_floating_point() else v for k, v in state.items()}
    refuse_nonfinite(whole, where)
    return whole


def selected(
    state: Mapping[str, Tensor], prefix: str, ignore: Iterable[str], where: str
) -> dict[str, Tensor]:
    """Return the tensors with the prefix, under names without it, except those to be ignored.

    Raises:
        ModelContractError: If none is left.
    """
    ignored = tuple(ignore)
    found = {
        name.removeprefix(prefix): value
        for name, value in state.items()
        if name.startswith(prefix) and not name.removeprefix(prefix).startswith(ignored)
    }
    if not found:
        names = ", ".join(f"'{brief(name)}'" for name in list(state)[:3])
        raise ModelContractError(
            f"{where}: no tensor is left with the prefix '{brief(prefix)}'. The first names in the "
            f"file are {names}."
        )
    return found


def refuse_nonfinite(state: Mapping[str, Tensor], where: str) -> None:
    """Raise ModelContractError if a weight is NaN or infinite; PyTorch loads such weights."""
    for name, value in state.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            bad = int((~torch.isfinite(value)).sum())
            raise ModelContractError(
                f"{where}: {bad} of {value.numel()} values of '{brief(name)}' are NaN or infinite. "
                "Export the weights again."
            )


def parse_torchscript(data: bytes, where: str) -> nn.Module:
    """Return the network in a TorchScript file, on the CPU and in evaluation mode.

    TorchScript is a program that PyTorch interprets. It cannot call Python, and a program that
    names an operator with access to files or other machines is refused. Its run time is unbounded.

    Raises:
        ModelContractError: If it is not TorchScript, is damaged, contains NaN, or is refused.
    """
    data, names = repacked(data, where)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if not any("/code/" in name for name in names):
            raise ModelContractError(
                f"{where}: expected a TorchScript file, got an archive without 'code'."
            )
        for name in names:
            if "/code/" in name and not name.endswith(".debug_pkl"):
                _check_code(archive.read(name).decode("utf-8", "replace"), where)
        check_storages(archive, names, where)
    try:
        with warnings.catch_warnings():
            # The format is the vendor's choice; the user who runs a suite cannot change it.
            warnings.filterwarnings("ignore", "`torch.jit.load` is", DeprecationWarning)
            module: nn.Module = torch.jit.load(io.BytesIO(data), map_location="cpu")  # type: ignore[no-untyped-call]
    except Exception as error:  # a damaged program can raise anything
        raise ModelContractError(
            f"{where}: TorchScript cannot be loaded: {_shown(error)}. Export it again."
        ) from error
    refuse_nonfinite(module.state_dict(), where)
    return module.eval()


def repacked(data: bytes, where: str) -> tuple[bytes, list[str]]:
    """Return a ZIP archive repacked without compression, and the names in it.

    Raises:
        ModelContractError: If it is damaged, unpacks to much more than its size, or contains a name
            twice.
    """
    packed = io.BytesIO()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            infos = archive.infolist()
            _check_archive(infos, len(data), where)
            with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as anew:
                for info in infos:
                    anew.writestr(zipfile.ZipInfo(info.filename), archive.read(info))
    except (zipfile.BadZipFile, zlib.error, ValueError, OSError, EOFError, RuntimeError) as error:
        raise ModelContractError(
            f"{where}: expected a complete ZIP archive ({_shown(error)}). Download it again."
        ) from error
    return packed.getvalue(), [info.filename for info in infos]


def _check_archive(infos: list[zipfile.ZipInfo], size: int, where: str) -> None:
    names = [info.filename for info in infos]
    total = sum(info.file_size for info in infos)
    pickles = [info.file_size for info in infos if info.filename.endswith(".pkl")]
    fault = ""
    if len(names) > MAX_ENTRIES or len(set(names)) != len(names):
        fault = f"expected at most {MAX_ENTRIES} files, each name once, got {len(names)} names"
    elif total > MAX_GROWTH * size + (1 << 20):
        fault = f"it would unpack from {size} to {total} bytes, which weights never do"
    elif max(pickles, default=0) > MAX_PICKLE_BYTES:
        fault = f"expected a pickle of at most {MAX_PICKLE_BYTES} bytes, got {max(pickles)}"
    if fault:
        raise ModelContractError(f"{where}: {fault}. {_PICKLE_HELP}")


def _check_code(code: str, where: str) -> None:
    found = _FORBIDDEN.search(code) or _NAMESPACE.search(code) or _HIDDEN_NAME.search(code)
    if found:
        raise ModelContractError(
            f"{where}: the TorchScript program uses '{brief(found[0])}', which may reach beyond "
            "its tensors. Give the weights as .safetensors with 'architecture: module:factory'."
        )


def _fault(name: object, value: object) -> str:
    """Return the fault of an entry of a state dict; "" if it is a plain tensor."""
    if not isinstance(name, str):
        return f"a key of type {type(name).__name__}"
    if type(value) not in (Tensor, nn.Parameter):
        return f"of type {type(value).__name__}"
    if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":  # type: ignore[attr-defined]
        return "sparse, quantised or without values"
    # With a stride of 0 a few bytes can claim to be 10^12 equal numbers.
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():  # type: ignore[attr-defined]
        return "larger than its storage"
    return ""


def _holds_tensors(value: object) -> bool:
    """Say whether a value is a mapping in which, at any depth, a tensor is."""
    if not isinstance(value, Mapping):
        return False
    return any(isinstance(one, Tensor) or _holds_tensors(one) for one in value.values())


def _shown(error: BaseException) -> str:
    return brief("".join(c if c.isprintable() else " " for c in str(error))) or type(error).__name__
