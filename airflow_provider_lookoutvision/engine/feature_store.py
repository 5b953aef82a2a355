"""The feature maps of the training images, in memory or, when they are large, in a temporary file.

Maps are kept as 16-bit floats, which is precise enough and takes half the memory. A patch is a cell of the
fine grid, 8 x 8 pixels of the working size. The coarser maps are interpolated there, bilinearly: by `gather`
for some patches, by `upsample` for all.
"""

import copy
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from airflow_provider_lookoutvision.engine import augmentation, images
from airflow_provider_lookoutvision.engine.backbone import (
    Backbone,
    Features,
    FloatArray,
)
from airflow_provider_lookoutvision.engine.errors import UnusableImage
from airflow_provider_lookoutvision.engine.images import ImageSource, read_source

PATCH_PIXELS = 8
_MAX_BYTES_IN_MEMORY = 192 * 1024 * 1024


def grid_shape(size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of patches at this working width and height."""
    width, height = size
    return height // PATCH_PIXELS, width // PATCH_PIXELS


def bytes_per_view(size: tuple[int, int], channels: Sequence[int]) -> int:
    """The bytes that the maps of one view of one image take at this working width and height."""
    return 2 * sum(_map_lengths(size, channels))


def _map_lengths(size: tuple[int, int], channels: Sequence[int]) -> list[int]:
    rows, columns = grid_shape(size)
    return [(rows * columns >> 2 * level) * count for level, count in enumerate(channels)]


class FeatureStore:
    """Feature maps by image and view, at one working size. A context manager that frees memory and file."""

    def __init__(
        self,
        backbone: Backbone,
        sources: Sequence[ImageSource],
        size: tuple[int, int],
        views: int,
        on_progress: Callable[[float], None],
        folder: Path,
        *,
        half: bool = False,
    ) -> None:
        """Extract the features of every image.

        :param size: working width and height, multiples of 32
        :param views: 1 for the images as they are, 8 for all their rotations and mirrors
        :param on_progress: called with the fraction done, 0 to 1, before each image; may raise to stop
        :param folder: for the temporary file
        :param half: whether to extract those of the images at half their size too
        :raises UnusableImage: with the index of the image
        """
        self.size, self.views, self.image_count = size, views, len(sources)
        self.shape = grid_shape(size)
        self._stored_views = views
        self.channels = backbone.channels
        self._map_lengths = _map_lengths(size, backbone.channels.maps)
        self.has_half = half
        if backbone.has_detail:
            self._map_lengths.append(self.shape[0] * self.shape[1] * backbone.channels.detail)
        if half:
            self._map_lengths += _map_lengths((size[0] // 2, size[1] // 2), backbone.channels.maps)
        row_count = self.image_count * views
        self._summaries = np.empty((row_count, sum(self.channels.summary)), np.float32)
        self._rows: list[NDArray[np.float16]] = []
        self._file = None
        if row_count * 2 * sum(self._map_lengths) > _MAX_BYTES_IN_MEMORY:
            # Read, not mapped into memory: mapped pages count as memory of this process.
            self._file = tempfile.NamedTemporaryFile(dir=folder)  # noqa: SIM115  closed by close()
        try:
            for index, source in enumerate(sources):
                on_progress(index / self.image_count)
                self._extract(backbone, index, source)
            if self._file is not None:
                self._file.flush()
        except BaseException:
            self.close()
            raise

    def _extract(self, backbone: Backbone, index: int, source: ImageSource) -> None:
        try:
            image = images.decode(read_source(source), *self.size)
        except UnusableImage as error:
            raise error.with_index(index) from error
        for view in range(self.views):
            pixels = augmentation.transform(image.pixels, view)
            features = backbone.features(pixels)
            self._summaries[index * self.views + view] = features.summary
            maps = [features.fine, features.middle, features.coarse]
            if features.detail is not None:
                maps.append(features.detail)
            if self.has_half:
                half = backbone.features(images.halved(pixels))
                maps += [half.fine, half.middle, half.coarse]
            row = np.concatenate([each.ravel() for each in maps], dtype=np.float16, casting="same_kind")
            if self._file is None:
                self._rows.append(row)
            else:
                self._file.write(row.data)

    def get(self, index: int, view: int = 0) -> Features:
        """The features of one view of one image, as 32-bit floats."""
        row_number = index * self._stored_views + view
        row = self._read_row(row_number).astype(np.float32)
        maps = np.split(row, np.cumsum(self._map_lengths)[:-1])
        rows, columns = self.shape if view % 2 == 0 else self.shape[::-1]
        summary = self._summaries[row_number]
        half = None
        if self.has_half:
            half = _features(maps[-3:], rows // 2, columns // 2, summary)
            maps = maps[:-3]
        features = _features(maps[:3], rows, columns, summary)
        detail = maps[3].reshape(rows, columns, -1) if len(maps) > 3 else None
        return replace(features, detail=detail, half=half)

    def _read_row(self, row_number: int) -> NDArray[np.float16]:
        if self._file is None:
            return self._rows[row_number]
        length = 2 * sum(self._map_lengths)
        return np.frombuffer(os.pread(self._file.fileno(), length, row_number * length), np.float16)

    def summaries(self, indices: NDArray[np.intp], views: int) -> FloatArray:
        """The summaries of these images, `len(indices) x views x channels`."""
        return self._summaries.reshape(self.image_count, self._stored_views, -1)[indices, :views]

    def without_augmentation(self) -> "FeatureStore":
        """The same store with the first view of each image alone; it shares this one's memory."""
        other = copy.copy(self)
        other.views = 1
        return other

    def close(self) -> None:
        """Free the memory and delete the file."""
        self._rows = []
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _features(maps: Sequence[FloatArray], rows: int, columns: int, summary: FloatArray) -> Features:
    fine, middle, coarse = (
        each.reshape(rows >> level, columns >> level, -1) for level, each in enumerate(maps)
    )
    return Features(fine, middle, coarse, summary)


def _neighbours(size: int, factor: int, cells: NDArray[np.intp]) -> tuple[Any, Any, FloatArray]:
    # Half-pixel centres, clamped at the border, as ONNX's Resize does in its linear mode.
    position = ((cells + 0.5) / factor - 0.5).astype(np.float32)
    low = np.floor(position).astype(np.intp)
    weight = (position - low).astype(np.float32)
    return np.clip(low, 0, size - 1), np.clip(low + 1, 0, size - 1), weight


def upsample(array: FloatArray, factor: int) -> FloatArray:
    """Enlarge `rows x columns x channels` to `factor` times the rows and columns, bilinearly."""
    if factor == 1:
        return array
    for axis in (0, 1):
        low, high, weight = _neighbours(array.shape[axis], factor, np.arange(array.shape[axis] * factor))
        weight = weight.reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        array = np.take(array, low, axis) * (1 - weight) + np.take(array, high, axis) * weight
    return array


def at_scale(features: Features, *, half: bool) -> Features:
    """The features of an image, or those of it at half its size."""
    if not half:
        return features
    assert features.half is not None  # noqa: S101 (whoever wants it has extracted it)
    return features.half


def gather(
    features: Features, patches: NDArray[np.intp], levels: int = 3, *, detail: bool = False
) -> FloatArray:
    """The feature vectors of some patches, `len(patches) x channels`.

    :param patches: `row * columns + column`, on the fine grid
    :param levels: how many of the three maps to concatenate, from the finest on
    :param detail: whether the map at stride 4 comes before them; the features must have it
    """
    rows, columns = np.divmod(patches, features.fine.shape[1])
    parts: list[FloatArray] = [features.fine[rows, columns].astype(np.float32)]
    if detail:
        assert features.detail is not None  # noqa: S101 (whoever wants it has extracted it)
        parts.insert(0, features.detail[rows, columns].astype(np.float32))
    for factor, array in ((2, features.middle), (4, features.coarse))[: levels - 1]:
        top, bottom, down = _neighbours(array.shape[0], factor, rows)
        left, right, across = _neighbours(array.shape[1], factor, columns)
        down, across = down[:, None], across[:, None]
        parts.append(
            (array[top, left] * (1 - across) + array[top, right] * across) * (1 - down)
            + (array[bottom, left] * (1 - across) + array[bottom, right] * across) * down
        )
    return np.concatenate(parts, axis=1)


def sample_patches(
    store: FeatureStore,
    indices: NDArray[np.intp],
    per_view: int,
    rng: np.random.Generator,
    levels: int = 3,
    *,
    detail: bool = False,
    half: bool = False,
) -> FloatArray:
    """The feature vectors of random patches from every view of these images, `n x channels`.

    :param per_view: how many patches to draw from each view; at least one is, and all at most
    :param levels: see `gather`
    :param detail: see `gather`
    :param half: whether to take them of the images at half their size
    """
    patch_count = store.shape[0] * store.shape[1] // (4 if half else 1)
    drawn = max(1, min(patch_count, per_view))
    return np.concatenate(
        [
            gather(
                at_scale(store.get(int(index), view), half=half),
                rng.choice(patch_count, drawn, replace=False),
                levels,
                detail=detail,
            )
            for index in indices
            for view in range(store.views)
        ]
    )
