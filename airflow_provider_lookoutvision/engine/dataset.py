"""The training set: labelled images and their masks, checked before training.

All faulty images are reported at once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from airflow_provider_lookoutvision.engine import images, masks
from airflow_provider_lookoutvision.engine.errors import UnusableDataset, UnusableImage
from airflow_provider_lookoutvision.engine.feature_store import grid_shape
from airflow_provider_lookoutvision.engine.images import ImageSource, read_source
from airflow_provider_lookoutvision.engine.masks import AnomalyClass, Coverage
from airflow_provider_lookoutvision.engine.targets import CELLS_PER_PATCH, Targets

Label = Literal["normal", "anomaly"]
MIN_NORMAL = 4
MAX_CLASSES = 100


@dataclass(frozen=True)
class Dataset:
    """Images of one size with their labels and masks.

    :param anomalous: one boolean for each image
    :param width: of each image, upright, in pixels
    :param height: of each image, upright, in pixels
    """

    images: Sequence[ImageSource]
    masks: Sequence[ImageSource | None]
    anomalous: NDArray[np.bool_]
    classes: Sequence[AnomalyClass]
    width: int
    height: int

    @property
    def segmentation(self) -> bool:
        """Whether an anomalous image has a mask."""
        return bool(self.classes) and any(
            mask is not None and anomalous
            for mask, anomalous in zip(self.masks, self.anomalous.tolist(), strict=True)
        )

    def sample(self, count: int, seed: int) -> "Dataset":
        """A random subset of at most `count` images, half of them anomalous if there are enough of both."""
        if len(self.images) <= count:
            return self
        rng = np.random.default_rng([seed, 1])
        anomalous, normal = np.flatnonzero(self.anomalous), np.flatnonzero(~self.anomalous)
        anomalous_count = min(len(anomalous), max(count // 2, count - len(normal)))
        drawn = [
            rng.choice(anomalous, anomalous_count, replace=False),
            rng.choice(normal, min(len(normal), count - anomalous_count), replace=False),
        ]
        return self._subset(np.sort(np.concatenate(drawn)))

    def _subset(self, indices: NDArray[np.intp]) -> "Dataset":
        return Dataset(
            [self.images[index] for index in indices],
            [self.masks[index] for index in indices],
            self.anomalous[indices],
            self.classes,
            self.width,
            self.height,
        )

    def targets(self, size: tuple[int, int]) -> Targets:
        """The labels, and the masks at this working width and height."""
        coverage: dict[int, Coverage] = {}
        if self.segmentation:
            rows, columns = (CELLS_PER_PATCH * length for length in grid_shape(size))
            for index in np.flatnonzero(self.anomalous).tolist():
                mask = self.masks[index]
                if mask is not None:
                    class_mask = masks.decode(read_source(mask), self.classes, self.width, self.height)
                    coverage[index] = masks.coverage(class_mask, rows, columns)
        return Targets(self.anomalous, coverage, len(self.classes) if coverage else 1)


def check_dataset(
    sources: Sequence[ImageSource],
    labels: Sequence[Label],
    mask_sources: Sequence[ImageSource | None],
    classes: Sequence[AnomalyClass],
    on_progress: Callable[[float], None],
) -> Dataset:
    """Read and decode every image and mask, and return them as a dataset.

    :param sources: the images
    :param labels: one for each image
    :param mask_sources: a mask or None for each image; ignored without classes
    :param classes: 100 at most, with different colours
    :param on_progress: called with the fraction done, 0 to 1, before each image; may raise to stop
    :raises UnusableDataset: something cannot be used; `faults` has an error for each image at fault
    """
    if not len(sources) == len(labels) == len(mask_sources):
        raise UnusableDataset("there must be one label and one mask, or None, for each image")
    if not set(labels) <= {"normal", "anomaly"}:
        raise UnusableDataset("labels must be 'normal' or 'anomaly'")
    if len(classes) > MAX_CLASSES or len({anomaly_class.rgb() for anomaly_class in classes}) < len(classes):
        raise UnusableDataset(f"there can be {MAX_CLASSES} classes at most, each with a colour of its own")
    anomalous = np.array([label == "anomaly" for label in labels], bool)
    if int((~anomalous).sum()) < MIN_NORMAL:
        raise UnusableDataset(f"there must be at least {MIN_NORMAL} images labelled normal; add some")
    faults: list[UnusableImage] = []
    sizes: dict[tuple[int, int], list[int]] = {}
    turned: dict[int, bool] = {}
    for index, source in enumerate(sources):
        on_progress(index / len(sources))
        try:
            # Decoded at the smallest size, which is fast for a JPEG, to find damaged files.
            image = images.decode(read_source(source), images.MIN_SIDE, images.MIN_SIDE)
            mask = mask_sources[index]
            if classes and mask is not None:
                masks.decode(read_source(mask), classes, image.width, image.height, turned=image.turned)
            sizes.setdefault((image.width, image.height), []).append(index)
            turned[index] = image.turned
        except UnusableImage as error:
            faults.append(error.with_index(index))
    if faults:
        raise UnusableDataset("images cannot be used", faults)
    common_size = max(sizes, key=lambda size: len(sizes[size]))
    other_sizes = [
        UnusableImage(
            f"it has {images.describe_size(width, height, turned=turned[index])}, "
            f"most have {common_size[0]} x {common_size[1]}",
            index,
        )
        for (width, height), indices in sizes.items()
        for index in indices
        if (width, height) != common_size
    ]
    if other_sizes:
        raise UnusableDataset("all images must have the same size", other_sizes)
    return Dataset(sources, mask_sources, anomalous, classes, *common_size)
