"""The images that a model is trained and evaluated on: rules, and the split of a single dataset.

A project with a training and a test dataset is trained on the first and evaluated on the second. With a
training dataset alone, a part of each label is held out by a seed; the final model is then trained on all of
it. It is a segmentation model when anomalous training images have masks.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from airflow_provider_lookoutvision.server.datasets import manifest
from airflow_provider_lookoutvision.server.jobs.errors import InvalidInput

SEED = 0
_TEST_SIZE = 0.2
_TEST_IMAGES = 10
# The minimum of images of each label, and of each class of defects: the limits of Amazon Lookout for Vision.
_MIN_IMAGES = {
    "single": {"normal": 20, "anomaly": 10},
    "train": {"normal": 10, "anomaly": 0},
    "test": {"normal": 10, "anomaly": 10},
}
_MIN_IMAGES_OF_CLASS = {"single": 20, "train": 10, "test": 10}


@dataclass(frozen=True)
class Example:
    """A labelled image: where it is, ``normal`` or ``anomaly``, and its mask."""

    source_ref: str
    label: str
    mask: manifest.Mask | None = None

    @classmethod
    def of(cls, source_ref: str, label: str, line: str) -> Example:
        """From a dataset's entry; masks of normal images are ignored."""
        return cls(source_ref, label, manifest.mask_of(line) if label == "anomaly" else None)


@dataclass(frozen=True)
class TrainingSet:
    """Checked examples.

    :param classes: of defects, each name with its colour in the masks; empty for a classification model.
    :param is_split: whether ``test`` was held out from a single dataset.
    :param in_both: the references of images that are in the training and in the test dataset.
    """

    train: Sequence[Example]
    test: Sequence[Example]
    classes: dict[str, str]
    is_split: bool
    in_both: Sequence[str] = ()


def training_set(
    train: Sequence[Example],
    test: Sequence[Example] | None,
    *,
    max_with_masks: tuple[int, int],
) -> TrainingSet:
    """Check the labelled images of a project's datasets, and split a single dataset.

    :param test: None when the project has no test dataset.
    :param max_with_masks: how many images the training and the test dataset of a segmentation model may have.
    :raises InvalidInput: with every rule that is broken.
    """
    classes = _classes(train)
    datasets = {"single": train} if test is None else {"train": train, "test": test}
    problems = [problem for kind, examples in datasets.items() for problem in _too_few(kind, examples)]
    if classes:
        for kind, examples in datasets.items():
            problems += _too_few_of_classes(kind, examples, classes)
        max_train, max_test = max_with_masks
        for name, examples, limit in (("training", train, max_train), ("test", test or (), max_test)):
            if len(examples) > limit:
                problems.append(
                    f"the {name} dataset has {len(examples)} labelled images, and one with masks has at "
                    f"most {limit}"
                )
    if problems:
        raise InvalidInput("; ".join(problems))
    if test is not None:
        tested = {example.source_ref for example in test}
        in_both = [example.source_ref for example in train if example.source_ref in tested]
        return TrainingSet(train, test, classes, is_split=False, in_both=in_both)
    return TrainingSet(*split(train), classes, is_split=True)


def split(examples: Sequence[Example]) -> tuple[list[Example], list[Example]]:
    """Hold out a fifth of each label's images, but at least ten if that isn't more than half.

    The split doesn't depend on the order of the images. Each combination of classes is held out in
    proportion.
    """
    train: list[Example] = []
    test: list[Example] = []
    for label in ("normal", "anomaly"):
        members = sorted((e for e in examples if e.label == label), key=lambda example: example.source_ref)
        random.Random(SEED).shuffle(members)  # noqa: S311 (a split, no secret)
        members.sort(key=lambda example: sorted(example.mask.colors) if example.mask else [])
        count = max(math.ceil(_TEST_SIZE * len(members)), min(_TEST_IMAGES, len(members) // 2))
        held_out = {(2 * place + 1) * len(members) // (2 * count) for place in range(count)}
        for place, member in enumerate(members):
            (test if place in held_out else train).append(member)
    for part in (train, test):
        part.sort(key=lambda example: example.source_ref)
    return train, test


def _classes(examples: Iterable[Example]) -> dict[str, str]:
    classes: dict[str, str] = {}
    for example in examples:
        for name, color in (example.mask.colors if example.mask else {}).items():
            if classes.setdefault(name, color) != color:
                raise InvalidInput(
                    f"the masks paint {name!r} as {classes[name]} and, for {example.source_ref}, as {color}: "
                    "a class has one colour in all of them"
                )
    for color, count in Counter(classes.values()).items():
        if count > 1:
            names = ", ".join(repr(name) for name, painted in classes.items() if painted == color)
            raise InvalidInput(f"the masks have the colour {color} for {names}: each class needs its own")
    return classes


def _too_few(kind: str, examples: Sequence[Example]) -> Iterable[str]:
    counts = Counter(example.label for example in examples)
    for label, minimum in _MIN_IMAGES[kind].items():
        if (count := counts[label]) < minimum:
            yield f"{_dataset_name(kind)} needs at least {minimum} images labelled {label}, and has {count}"


def _too_few_of_classes(kind: str, examples: Sequence[Example], classes: Iterable[str]) -> Iterable[str]:
    counts = Counter(name for example in examples if example.mask for name in example.mask.colors)
    dataset, minimum = _dataset_name(kind), _MIN_IMAGES_OF_CLASS[kind]
    for name in classes:
        if (count := counts[name]) < minimum:
            yield f"{dataset} needs at least {minimum} images with {name!r} masks, and has {count}"


def _dataset_name(kind: str) -> str:
    if kind == "single":
        return "a training dataset without a test dataset"
    return "the training dataset" if kind == "train" else "the test dataset"
