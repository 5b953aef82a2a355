"""Labelled images and their masks, checked as a whole before anything is learnt from them.

Every fault is found and named in one go, so that nobody mends one image a training.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from airflow_provider_lookoutvision.engine import images, masks
from airflow_provider_lookoutvision.engine.errors import UnusableDataset, UnusableImage
from airflow_provider_lookoutvision.engine.heads import Lessons
from airflow_provider_lookoutvision.engine.masks import AnomalyClass, Coverage
from airflow_provider_lookoutvision.engine.store import Source, read
from airflow_provider_lookoutvision.engine.supervised import FINER

Label = Literal["normal", "anomaly"]
MIN_NORMAL = 4
MAX_CLASSES = 100


@dataclass(frozen=True)
class Dataset:
    """Images of one size, with what is known about each."""

    images: Sequence[Source]
    masks: Sequence[Source | None]
    anomalous: NDArray[np.bool_]
    classes: Sequence[AnomalyClass]
    width: int
    height: int

    @property
    def segmentation(self) -> bool:
        """Whether there is a mask to learn from."""
        return bool(self.classes) and any(
            mask is not None and bool(bad) for mask, bad in zip(self.masks, self.anomalous, strict=True)
        )

    def sample(self, count: int, seed: int) -> "Dataset":
        """At most so many of the images, of both kinds as equally as there are enough of them."""
        if len(self.images) <= count:
            return self
        generator = np.random.default_rng([seed, 1])
        bad, good = np.flatnonzero(self.anomalous), np.flatnonzero(~self.anomalous)
        share = min(len(bad), max(count // 2, count - len(good)))
        chosen = [
            generator.choice(bad, share, replace=False),
            generator.choice(good, min(len(good), count - share), replace=False),
        ]
        return self._some(np.sort(np.concatenate(chosen)))

    def _some(self, members: NDArray[np.intp]) -> "Dataset":
        return Dataset(
            [self.images[index] for index in members],
            [self.masks[index] for index in members],
            self.anomalous[members],
            self.classes,
            self.width,
            self.height,
        )

    def lessons(self, size: tuple[int, int]) -> Lessons:
        """Labels, and masks as coverage at this working width and height."""
        coverage: dict[int, Coverage] = {}
        if self.segmentation:
            rows, columns = size[1] // 8 * FINER, size[0] // 8 * FINER
            for index in np.flatnonzero(self.anomalous).tolist():
                mask = self.masks[index]
                if mask is not None:
                    painted = masks.decode(read(mask), self.classes, self.width, self.height)
                    coverage[index] = masks.coverage(painted, rows, columns)
        return Lessons(self.anomalous, coverage, len(self.classes) if coverage else 1)


def checked(
    sources: Sequence[Source],
    labels: Sequence[Label],
    painted: Sequence[Source | None],
    classes: Sequence[AnomalyClass],
    tick: Callable[[float], None],
) -> Dataset:
    """The dataset, if every part of it can be used.

    :param tick: called with the fraction done before each image; may raise to stop
    :raises UnusableDataset: `faults` names each image at fault
    """
    if not len(sources) == len(labels) == len(painted):
        raise UnusableDataset("there must be one label and one mask, or None, for each image")
    if not set(labels) <= {"normal", "anomaly"}:
        raise UnusableDataset("labels must be 'normal' or 'anomaly'")
    if len(classes) > MAX_CLASSES or len({anomaly.rgb() for anomaly in classes}) < len(classes):
        raise UnusableDataset(f"there can be {MAX_CLASSES} classes at most, each with a colour of its own")
    anomalous = np.array([label == "anomaly" for label in labels], bool)
    if int((~anomalous).sum()) < MIN_NORMAL:
        raise UnusableDataset(f"there must be at least {MIN_NORMAL} images labelled normal; add some")
    faults: list[UnusableImage] = []
    sizes: dict[tuple[int, int], list[int]] = {}
    for index, source in enumerate(sources):
        tick(index / len(sources))
        try:
            # Decoded small, which for a JPEG costs little, to find the damaged ones all at once.
            picture = images.decode(read(source), images.MIN_SIDE, images.MIN_SIDE)
            mask = painted[index]
            if classes and mask is not None:
                masks.decode(read(mask), classes, picture.width, picture.height)
            sizes.setdefault((picture.width, picture.height), []).append(index)
        except UnusableImage as error:
            faults.append(error.at(index))
    if faults:
        raise UnusableDataset("images cannot be used", faults)
    common = max(sizes, key=lambda size: len(sizes[size]))
    odd = [
        UnusableImage(f"it has {width} x {height} pixels, most have {common[0]} x {common[1]}", index)
        for (width, height), members in sizes.items()
        for index in members
        if (width, height) != common
    ]
    if odd:
        raise UnusableDataset("all images must have the same size", odd)
    return Dataset(sources, painted, anomalous, classes, *common)
