"""The training images at their working size, in a temporary file, whole or in crops."""

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from airflow_provider_lookoutvision.engine import images
from airflow_provider_lookoutvision.engine.images import ImageSource, Pixels, read_source
from airflow_provider_lookoutvision.engine.masks import Coverage
from airflow_provider_lookoutvision.engine.targets import Targets
from airflow_provider_lookoutvision.engine.tuned_network import MAP_STRIDE

if TYPE_CHECKING:
    from airflow_provider_lookoutvision.engine.finetuning import Example


class PixelStore:
    """Decoded images by index. A context manager that deletes the file.

    :param size: working width and height
    :param folder: for the temporary file
    """

    def __init__(self, sources: Sequence[ImageSource], size: tuple[int, int], folder: Path) -> None:
        self.size = size
        self._file = tempfile.NamedTemporaryFile(dir=folder)  # noqa: SIM115  closed by __exit__
        for source in sources:
            self._file.write(images.decode(read_source(source), *size).pixels.tobytes())
        self._file.flush()

    def get(self, index: int) -> Pixels:
        """An image, `height x width x 3`."""
        width, height = self.size
        length = width * height * 3
        content = os.pread(self._file.fileno(), length, index * length)
        return np.frombuffer(content, np.uint8).reshape(height, width, 3)

    def crops(
        self, targets: Targets, indices: NDArray[np.intp], crop: tuple[int, int], seed: int
    ) -> list[Callable[[], "Example"]]:
        """For each image a function that returns a crop: a random one, or around a random defect.

        An anomalous image without a mask is left out where a crop is not the whole image: nothing says where
        its defect is.

        :param crop: width and height, multiples of 4
        """
        rng = np.random.default_rng([seed, 3])
        whole = crop == self.size
        return [
            self._cropper(index, targets, crop, rng)
            for index in indices.tolist()
            if whole or not targets.anomalous[index] or targets.coverage.get(index)
        ]

    def _cropper(
        self, index: int, targets: Targets, crop: tuple[int, int], rng: np.random.Generator
    ) -> Callable[[], "Example"]:
        from airflow_provider_lookoutvision.engine.finetuning import Example

        anomalous, size = bool(targets.anomalous[index]), self.size
        covered = _covered(targets.coverage.get(index), targets.class_count, size) if anomalous else None

        def example() -> Example:
            if crop == size:
                return Example(self.get(index), anomalous, covered)
            defects = None if covered is None else np.argwhere(covered.max(axis=0) > 0)
            row, column = (
                int(rng.integers(0, (size[axis] - crop[axis]) // MAP_STRIDE + 1))
                if defects is None or not len(defects)
                else 0
                for axis in (1, 0)
            )
            if defects is not None and len(defects):
                place = defects[rng.integers(len(defects))]
                row, column = (
                    _around(int(place[axis]), crop[1 - axis], size[1 - axis], rng) for axis in (0, 1)
                )
            rows = slice(row, row + crop[1] // MAP_STRIDE)
            columns = slice(column, column + crop[0] // MAP_STRIDE)
            pixels = self.get(index)[
                row * MAP_STRIDE : row * MAP_STRIDE + crop[1],
                column * MAP_STRIDE : column * MAP_STRIDE + crop[0],
            ]
            return Example(pixels, anomalous, None if covered is None else covered[:, rows, columns])

        return example

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def _around(place: int, crop: int, size: int, rng: np.random.Generator) -> int:
    """The first of the cells of a crop that has this cell in it."""
    cells, all_cells = crop // MAP_STRIDE, size // MAP_STRIDE
    first = place - int(rng.integers(0, cells))
    return min(max(first, 0), all_cells - cells)


def _covered(coverage: Coverage | None, class_count: int, size: tuple[int, int]) -> NDArray[np.uint8] | None:
    if not coverage:  # a mask without a defect says nothing of where it is
        return None
    columns, rows = size[0] // MAP_STRIDE, size[1] // MAP_STRIDE
    covered = np.zeros((class_count, rows, columns), np.uint8)
    for class_index, cells in coverage.items():
        covered[class_index] = np.asarray(
            Image.fromarray(cells).resize((columns, rows), Image.Resampling.BOX)
        )
    return covered
