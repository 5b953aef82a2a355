"""The feature maps of every training image, in memory while they are few and in a file when they are many.

Maps are kept as 16-bit floats, which halves them and costs three digits that no head needs. Patches are
addressed by their place on the fine grid, row by row; the coarser maps are interpolated there, bilinearly, by
`gather` for chosen patches and by `upsample` for all.
"""

import copy
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from airflow_provider_lookoutvision.engine import images, scales
from airflow_provider_lookoutvision.engine.backbone import CHANNELS, SUMMARIES, Backbone, Features
from airflow_provider_lookoutvision.engine.errors import UnusableImage

_IN_MEMORY = 192 * 1024 * 1024
Source = bytes | Path | Callable[[], bytes]
Array = NDArray[np.float32]


def read(source: Source) -> bytes:
    """The bytes of an image, wherever they come from.

    :raises UnusableImage: a file that cannot be read
    """
    if isinstance(source, bytes):
        return source
    if callable(source):
        return source()
    try:
        return source.read_bytes()
    except OSError as error:
        raise UnusableImage(f"the file cannot be read: {error.strerror}") from error


def row_bytes(size: tuple[int, int]) -> int:
    """What the maps of one view take at this working width and height."""
    return 2 * sum(_lengths(size))


def _lengths(size: tuple[int, int]) -> list[int]:
    cells = size[0] // 8 * (size[1] // 8)
    return [(cells >> 2 * level) * channels for level, channels in enumerate(CHANNELS)]


class FeatureStore:
    """Feature maps by image and view, for one working size."""

    def __init__(
        self,
        backbone: Backbone,
        sources: Sequence[Source],
        size: tuple[int, int],
        views: int,
        tick: Callable[[float], None],
        folder: Path,
    ) -> None:
        """Extract the maps of every image.

        :param size: width and height of the working size
        :param views: 1 for the images as they are, 8 for their rotations and mirrors too
        :param tick: called with the fraction done, before each image; may raise to stop
        :param folder: for the file, if one is needed
        :raises UnusableImage: naming the image by its index
        """
        self.size, self.views, self.count = size, views, len(sources)
        self._stride = views
        width, height = size
        self.shape = height // 8, width // 8
        self._lengths = _lengths(size)
        rows = self.count * views
        self._summaries = np.empty((rows, sum(SUMMARIES)), np.float32)
        self._rows: list[NDArray[np.float16]] = []
        self._file = None
        if rows * row_bytes(size) > _IN_MEMORY:
            # Read, not mapped: what is mapped counts as this process's memory.
            self._file = tempfile.NamedTemporaryFile(dir=folder)  # noqa: SIM115  closed by close()
        try:
            for index, source in enumerate(sources):
                tick(index / self.count)
                self._extract(backbone, index, source)
            if self._file is not None:
                self._file.flush()
        except BaseException:
            self.close()
            raise

    def _extract(self, backbone: Backbone, index: int, source: Source) -> None:
        try:
            picture = images.decode(read(source), *self.size)
        except UnusableImage as error:
            raise error.at(index) from error
        for turn in range(self.views):
            maps = backbone.features(scales.view(picture.pixels, turn))
            self._summaries[index * self.views + turn] = maps.summary
            levels = [maps.fine.ravel(), maps.middle.ravel(), maps.coarse.ravel()]
            row = np.concatenate(levels, dtype=np.float16, casting="same_kind")
            if self._file is None:
                self._rows.append(row)
            else:
                self._file.write(row.data)

    def get(self, index: int, turn: int = 0) -> Features:
        """The maps of one view of one image, as 32-bit floats."""
        place = index * self._stride + turn
        row = self._row(place).astype(np.float32)
        fine, middle, coarse = np.split(row, np.cumsum(self._lengths)[:-1])
        rows, columns = self.shape if turn % 2 == 0 else self.shape[::-1]
        return Features(
            fine.reshape(rows, columns, -1),
            middle.reshape(rows // 2, columns // 2, -1),
            coarse.reshape(rows // 4, columns // 4, -1),
            self._summaries[place],
        )

    def _row(self, place: int) -> NDArray[np.float16]:
        if self._file is None:
            return self._rows[place]
        length = 2 * sum(self._lengths)
        return np.frombuffer(os.pread(self._file.fileno(), length, place * length), np.float16)

    def summaries(self, members: NDArray[np.intp], views: int) -> Array:
        """The summaries of these images, `len(members) x views x 464`."""
        return self._summaries.reshape(self.count, self._stride, -1)[members, :views]

    def plain(self) -> "FeatureStore":
        """The same store without the rotations and mirrors; it shares this one's memory."""
        other = copy.copy(self)
        other.views = 1
        return other

    def close(self) -> None:
        """Give the memory and the file back."""
        self._rows = []
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _neighbours(size: int, factor: int, places: NDArray[np.intp]) -> tuple[Any, Any, Array]:
    # Half-pixel centres, clamped at the border: what ONNX's Resize does in its linear mode.
    position = ((places + 0.5) / factor - 0.5).astype(np.float32)
    low = np.floor(position).astype(np.intp)
    weight = (position - low).astype(np.float32)
    return np.clip(low, 0, size - 1), np.clip(low + 1, 0, size - 1), weight


def upsample(array: Array, factor: int) -> Array:
    """`rows x columns x channels` to `factor` times the rows and columns, bilinearly."""
    if factor == 1:
        return array
    for axis in (0, 1):
        low, high, weight = _neighbours(array.shape[axis], factor, np.arange(array.shape[axis] * factor))
        weight = weight.reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        array = np.take(array, low, axis) * (1 - weight) + np.take(array, high, axis) * weight
    return array


def gather(features: Features, places: NDArray[np.intp], levels: int = 3) -> Array:
    """The vectors of chosen patches, `len(places) x channels`, of the first `levels` levels side by side.

    :param places: row * columns + column, on the fine grid
    """
    rows, columns = np.divmod(places, features.fine.shape[1])
    parts: list[Array] = [features.fine[rows, columns].astype(np.float32)]
    for factor, array in ((2, features.middle), (4, features.coarse))[: levels - 1]:
        top, bottom, down = _neighbours(array.shape[0], factor, rows)
        left, right, across = _neighbours(array.shape[1], factor, columns)
        down, across = down[:, None], across[:, None]
        parts.append(
            (array[top, left] * (1 - across) + array[top, right] * across) * (1 - down)
            + (array[bottom, left] * (1 - across) + array[bottom, right] * across) * down
        )
    return np.concatenate(parts, axis=1)
