"""Compares the sizes that a TorchScript archive gives for its tensors with the bytes it contains.

PyTorch's TorchScript reader trusts the number of values that a pickle gives for a storage. If the
archive member that holds them is shorter, it reads beyond it in memory, or crashes.
"""

import io
import pickle
import zipfile
from collections.abc import Sequence
from typing import Any, NamedTuple

from fxeval.errors import ModelContractError
from fxeval.strict.text import brief

_SIZES = {
    "BoolStorage": 1, "ByteStorage": 1, "CharStorage": 1, "ShortStorage": 2, "HalfStorage": 2,
    "BFloat16Storage": 2, "IntStorage": 4, "FloatStorage": 4, "LongStorage": 8, "DoubleStorage": 8,
    "QInt8Storage": 1, "QUInt8Storage": 1, "QInt32Storage": 4,
    "ComplexFloatStorage": 8, "ComplexDoubleStorage": 16,
}  # fmt: skip


def check_storages(archive: zipfile.ZipFile, names: Sequence[str], where: str) -> None:
    """Refuse an archive in which a tensor is larger than the member that holds its values.

    Args:
        archive: The archive; PyTorch must later get the same bytes.
        names: Names of its members.
        where: The file's path, for messages.

    Raises:
        ModelContractError: If there is such a tensor, or a pickle cannot be read.
    """
    for name in names:
        if not name.endswith(("/data.pkl", "/constants.pkl")):  # PyTorch reads no other pickle
            continue
        try:
            reader = _Reader(archive.read(name))
            reader.load()
            asked = [(f"{name.removesuffix('.pkl')}/{key}", size) for key, size in reader.storages]
        except Exception as error:  # a damaged pickle can raise anything
            raise ModelContractError(
                f"{where}: its member {brief(ascii(name))} cannot be read "
                f"({type(error).__name__}). Export it again."
            ) from error
        for record, size in asked:
            found = archive.getinfo(record).file_size if record in names else 0
            if found < size:
                raise ModelContractError(
                    f"{where}: expected {size} bytes in {brief(ascii(record))}, got {found}. "
                    "The file is damaged: export it again."
                )


class _Storage(NamedTuple):
    key: str
    size: int


class _Nothing:
    """Stands in for every class and function that a pickle names; no call on it does anything."""

    def __new__(cls, *_: Any) -> "_Nothing":  # noqa: ANN401
        return object.__new__(cls)

    def __init__(self, *_: Any) -> None:  # noqa: ANN401
        pass

    def __setstate__(self, _: object) -> None:
        pass

    def append(self, _: object) -> None:
        """Do nothing."""

    def __setitem__(self, _key: object, _value: object) -> None:
        pass


class _Reader(pickle._Unpickler):
    """Reads a pickle without importing or creating anything that it names."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))
        self.storages: list[_Storage] = []

    def find_class(self, module: str, name: str) -> type[_Nothing]:
        """Return a new class for every name."""
        return type(name, (_Nothing,), {})

    def persistent_load(self, pid: Any) -> _Nothing:  # noqa: ANN401
        """Record a storage: ('storage', class, key, device, number of values)."""
        _, kind, key, _, count = pid
        if type(key) is not str or type(count) is not int or count < 0:
            raise ValueError("expected the key and the number of values of a storage")
        self.storages.append(_Storage(key, count * _SIZES[kind.__name__]))
        return _Nothing()
