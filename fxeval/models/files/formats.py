"""Files of weights that strangers made: bytes -> state dict or module, without running their code.

Everything works on bytes that are in memory and hashed already. Pickles are read by PyTorch's
restricted unpickler only, of a version without known holes, and never by the other one. Archives
are unpacked by one reader, measured before that, and packed anew for PyTorch, so that no second
reader can find something else in them.
"""

import io
import re
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Mapping

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from fxeval.errors import ModelContractError
from fxeval.models.files.script_storages import check_storages
from fxeval.strict.text import brief

MAX_HEADER_BYTES = 4 << 20
"""Longest safetensors header read; 1,000 tensors need about 100 kB."""

MAX_ENTRIES = 20_000
"""Most files in an archive, and most tensors in a file."""

MAX_PICKLE_BYTES = 16 << 20
"""Longest pickle in an archive; that of 1,000 tensors has about 100 kB."""

MAX_GROWTH = 4
"""Times its size that an archive may unpack to; weights hardly compress."""

_OLDEST_TORCH = (2, 10)  # CVE-2025-32434, CVE-2026-24747
_PICKLE_HELP = (
    "Give a plain state dict: torch.save(network.state_dict(), ...) or, better, "
    "safetensors.torch.save_file(network.state_dict(), ...)."
)
# What a TorchScript program could touch beside its tensors: files, other machines, C++ objects.
_FORBIDDEN = re.compile(r"\b(save|from_file|classes|rpc_sync|rpc_async|rpc_remote)\b")
_NAMESPACE = re.compile(r"\bops\s*\.\s*(?!(?:aten|prim|quantized)\b)(\w+)")
_HIDDEN_NAME = re.compile(r"getattr\s*\([^)]*\\")


def parse_safetensors(data: bytes, where: str) -> dict[str, Tensor]:
    """Return the state dict in a safetensors file.

    Args:
        data: The whole file.
        where: Its path, for messages.

    Returns:
        Tensors by name; floating ones in float32.

    Raises:
        ModelContractError: If it is damaged, none, or holds NaN.
    """
    header = int.from_bytes(data[:8], "little")
    if len(data) < 8 or header > min(MAX_HEADER_BYTES, len(data) - 8):
        raise ModelContractError(
            f"{where}: a whole safetensors file expected, got {len(data)} bytes that announce a "
            f"header of {header}. Fetch it again."
        )
    try:
        raw = safetensors.torch.load(data)
    except (safetensors.SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise ModelContractError(
            f"{where}: a safetensors file expected ({_shown(error)}). Fetch it again."
        ) from error
    return as_float32(raw, where)


def parse_checkpoint(data: bytes, where: str, key: str | None = None) -> dict[str, Tensor]:
    """Return the state dict in a file that ``torch.save`` wrote.

    Args:
        data: The whole file.
        where: Its path, for messages.
        key: Entry of the checkpoint that holds the state dict, dots leading into entries of an
            entry; None = the checkpoint is one.

    Returns:
        Tensors by name; floating ones in float32.

    Raises:
        ModelContractError: If it holds anything else than tensors, is damaged, or torch is so old
            that a pickle could run code.
    """
    content = load_pickle(data, where)
    if key is not None:
        found = _entry(content, key)
        if found is None:
            names = list(content)[:5] if isinstance(content, Mapping) else []
            there = ", ".join(f"'{brief(str(name))}'" for name in names) or "none"
            raise ModelContractError(
                f"{where}: no entry '{brief(key)}' in it; it holds {there}. {_PICKLE_HELP}"
            )
        content = found
    return tensors_of(content, where, key)


def _entry(content: object, key: str) -> object:
    """Return an entry, or one of an entry: ``model.state_dict``; None if it is not there."""
    rest = key
    while isinstance(content, Mapping):
        if rest in content:
            return content[rest]
        first, _, rest = rest.partition(".")
        content = content.get(first)
    return None


def load_pickle(data: bytes, where: str) -> object:
    """Return what ``torch.save`` wrote, read by the restricted unpickler.

    Raises:
        ModelContractError: If the file is damaged or holds what that unpickler refuses.
    """
    version = tuple(int(part) for part in re.findall(r"\d+", torch.__version__)[:2])
    if version < _OLDEST_TORCH:
        raise ModelContractError(
            f"{where}: reading a pickled file needs torch 2.10 or later (CVE-2026-24747), got "
            f"{torch.__version__}. Update torch, or give a .safetensors file."
        )
    if data.startswith(b"PK"):
        data, names = repacked(data, where)
        if any(name.endswith("/constants.pkl") for name in names):
            raise ModelContractError(
                f"{where}: weights expected, got a TorchScript program. Say 'format: torchscript' "
                "in the card and remove 'architecture'."
            )
    try:
        with warnings.catch_warnings():
            # Of the pickle's version: the vendor's choice, and no news to who runs the suite.
            warnings.simplefilter("ignore")
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged pickle leads to
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        reason = f"it asks for {brief(found[1])}" if found else _shown(error)
        if "DefaultCPUAllocator" in str(error) or isinstance(error, MemoryError):
            reason = "it asks for more memory than there is"
        raise ModelContractError(
            f"{where}: a file of plain tensors expected; PyTorch's restricted unpickler refuses "
            f"it: {reason}. {_PICKLE_HELP}"
        ) from error


def tensors_of(content: object, where: str, key: str | None = None) -> dict[str, Tensor]:
    """Return a state dict if it is one: text to plain tensors, each no larger than its storage.

    Args:
        content: What may be one.
        where: The file's path, for messages.
        key: Entry of the file that it is from, likewise.

    Raises:
        ModelContractError: Naming the first values that are something else.
    """
    if not isinstance(content, Mapping) or not content:
        raise ModelContractError(
            f"{where}: a state dict expected, got {type(content).__name__}. {_PICKLE_HELP}"
        )
    if len(content) > MAX_ENTRIES:
        raise ModelContractError(f"{where}: at most {MAX_ENTRIES} tensors expected.")
    wrong = [
        f"'{brief(str(name))}' is {fault}"
        for name, value in content.items()
        if (fault := _fault(name, value))
    ]
    if wrong:
        inner = [str(name) for name, value in content.items() if isinstance(value, Mapping)]
        entry = brief(f"{key}.{inner[0]}" if key else inner[0]) if inner else ""
        help = f"Is it in the entry '{entry}'? Say so with 'key'." if entry else ""
        more = f"; and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ModelContractError(
            f"{where}: a state dict of plain tensors expected: {'; '.join(wrong[:3])}{more}. "
            f"{help or _PICKLE_HELP}"
        )
    return as_float32({str(name): value.detach() for name, value in content.items()}, where)


def as_float32(state: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """Return the state dict with floating tensors in float32, all of them finite.

    Raises:
        ModelContractError: Naming the first tensor that holds NaN or infinity.
    """
    whole = {k: v.to(torch.float32) if v.is_floating_point() else v for k, v in state.items()}
    refuse_nonfinite(whole, where)
    return whole


def selected(
    state: Mapping[str, Tensor], prefix: str, ignore: Iterable[str], where: str
) -> dict[str, Tensor]:
    """Return the tensors whose names start with the prefix, without it, less those to be ignored.

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
            f"{where}: no tensor is left with the prefix '{brief(prefix)}'. It holds {names}, ..."
        )
    return found


def refuse_nonfinite(state: Mapping[str, Tensor], where: str) -> None:
    """Raise ModelContractError if a weight is NaN or infinite; PyTorch would load it happily."""
    for name, value in state.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            bad = int((~torch.isfinite(value)).sum())
            raise ModelContractError(
                f"{where}: {bad} of {value.numel()} values of '{brief(name)}' are NaN or infinite. "
                "Export the weights again."
            )


def parse_torchscript(data: bytes, where: str) -> nn.Module:
    """Return the network in a TorchScript file, on the CPU and in evaluation mode.

    TorchScript is a program that PyTorch interprets. It cannot call Python; programs that name
    what reaches files or other machines are refused. How long it runs cannot be known.

    Raises:
        ModelContractError: If it is none, is damaged, holds NaN, or is refused.
    """
    data, names = repacked(data, where)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if not any("/code/" in name for name in names):
            raise ModelContractError(f"{where}: a TorchScript file expected: it has no 'code'.")
        for name in names:
            if "/code/" in name and not name.endswith(".debug_pkl"):
                _check_code(archive.read(name).decode("utf-8", "replace"), where)
        check_storages(archive, names, where)
    try:
        with warnings.catch_warnings():
            # The vendor's choice, and no news to who runs the suite.
            warnings.filterwarnings("ignore", "`torch.jit.load` is", DeprecationWarning)
            module: nn.Module = torch.jit.load(io.BytesIO(data), map_location="cpu")  # type: ignore[no-untyped-call]
    except Exception as error:  # whatever a damaged program leads to
        raise ModelContractError(
            f"{where}: TorchScript cannot be loaded: {_shown(error)}. Export it again."
        ) from error
    refuse_nonfinite(module.state_dict(), where)
    return module.eval()


def repacked(data: bytes, where: str) -> tuple[bytes, list[str]]:
    """Return a ZIP archive anew, uncompressed, and the names in it.

    Raises:
        ModelContractError: If it is damaged, unpacks to much more than its size, or names a file
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
            f"{where}: a whole ZIP archive expected ({_shown(error)}). Fetch it again."
        ) from error
    return packed.getvalue(), [info.filename for info in infos]


def _check_archive(infos: list[zipfile.ZipInfo], size: int, where: str) -> None:
    names = [info.filename for info in infos]
    total = sum(info.file_size for info in infos)
    pickles = [info.file_size for info in infos if info.filename.endswith(".pkl")]
    fault = ""
    if len(names) > MAX_ENTRIES or len(set(names)) != len(names):
        fault = f"at most {MAX_ENTRIES} files expected, each name once; it lists {len(names)}"
    elif total > MAX_GROWTH * size + (1 << 20):
        fault = f"it would unpack from {size} to {total} bytes, which no weights do"
    elif max(pickles, default=0) > MAX_PICKLE_BYTES:
        fault = f"a pickle of {max(pickles)} bytes; at most {MAX_PICKLE_BYTES} expected"
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
    """Say what is wrong with an entry of a state dict; nothing if it is a plain tensor."""
    if not isinstance(name, str):
        return f"a key of type {type(name).__name__}"
    if type(value) not in (Tensor, nn.Parameter):
        return f"of type {type(value).__name__}"
    if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":  # type: ignore[attr-defined]
        return "sparse, quantised or without values"
    # A few bytes can claim to be 10^12 numbers that are all the same one.
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():  # type: ignore[attr-defined]
        return "larger than what is stored of it"
    return ""


def _shown(error: BaseException) -> str:
    return brief("".join(c if c.isprintable() else " " for c in str(error))) or type(error).__name__
