"""What can be trained on, and how a single dataset is split."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from airflow_provider_lookoutvision.server.datasets.manifest import Mask
from airflow_provider_lookoutvision.server.jobs.errors import InvalidInput
from airflow_provider_lookoutvision.server.models.training_set import (
    Example,
    TrainingSet,
    split,
    training_set,
)

RED, GREEN = "#FF0000", "#00FF00"


def normal(count: int, first: int = 0) -> list[Example]:
    return [Example(f"s3://b/n{number}", "normal") for number in range(first, first + count)]


def anomalous(count: int, *classes: tuple[str, str], first: int = 0) -> list[Example]:
    """Anomalous examples, with masks if there are classes: each its name and colour."""
    name = "-".join(dict(classes)) or "a"
    return [
        Example(
            f"s3://b/{name}{number}", "anomaly", Mask(f"s3://b/m{number}", dict(classes)) if classes else None
        )
        for number in range(first, first + count)
    ]


def checked(
    train: list[Example], test: list[Example] | None = None, most: tuple[int, int] = (8000, 800)
) -> TrainingSet:
    return training_set(train, test, max_with_masks=most)


def problems(train: list[Example], test: list[Example] | None = None, **more: tuple[int, int]) -> list[str]:
    with pytest.raises(InvalidInput) as caught:
        checked(train, test, **more)
    return str(caught.value).split("; ")


SINGLE, TRAIN, TEST = "a training dataset without a test dataset", "the training dataset", "the test dataset"


@pytest.mark.parametrize(
    ("train", "test", "expected"),
    [
        (
            normal(19) + anomalous(10),
            None,
            [f"{SINGLE} needs at least 20 images labelled normal, and has 19"],
        ),
        (normal(20) + anomalous(9), None, [f"{SINGLE} needs at least 10 images labelled anomaly, and has 9"]),
        (
            [],
            None,
            [
                f"{SINGLE} needs at least 20 images labelled normal, and has 0",
                f"{SINGLE} needs at least 10 images labelled anomaly, and has 0",
            ],
        ),
        (
            normal(9),
            normal(9) + anomalous(9),
            [
                f"{TRAIN} needs at least 10 images labelled normal, and has 9",
                f"{TEST} needs at least 10 images labelled normal, and has 9",
                f"{TEST} needs at least 10 images labelled anomaly, and has 9",
            ],
        ),
        (
            normal(20) + anomalous(19, ("s", RED)) + anomalous(20, ("t", GREEN)),
            None,
            [f"{SINGLE} needs at least 20 images with 's' masks, and has 19"],
        ),
        (
            normal(10) + anomalous(9, ("s", RED)),
            normal(10) + anomalous(10),
            [
                f"{TRAIN} needs at least 10 images with 's' masks, and has 9",
                f"{TEST} needs at least 10 images with 's' masks, and has 0",
            ],
        ),
    ],
)  # fmt: skip
def test_too_few(train: list[Example], test: list[Example] | None, expected: list[str]) -> None:
    assert problems(train, test) == expected


def test_the_least_is_enough() -> None:
    assert checked(normal(20) + anomalous(10)).is_split
    chosen = checked(normal(10), normal(10) + anomalous(10))
    assert (len(chosen.train), len(chosen.test), chosen.is_split, chosen.classes) == (10, 20, False, {})
    assert checked(normal(20) + anomalous(20, ("s", RED))).classes == {"s": RED}
    both = normal(10) + anomalous(10, ("s", RED))
    assert not checked(both, both).is_split


def test_the_training_dataset_decides_whether_there_are_classes() -> None:
    # Masks in the test dataset alone say nothing.
    assert checked(normal(10) + anomalous(1), normal(10) + anomalous(10, ("s", RED))).classes == {}


def test_masks_of_normal_images_are_ignored() -> None:
    line = (
        '{"source-ref":"s3://b/1","m-ref":"s3://b/m","m-ref-metadata":{"type":"groundtruth/semantic-segmentation",'
        '"internal-color-map":{"0":{"class-name":"BACKGROUND","hex-color":"#ffffff"},'
        '"1":{"class-name":"s","hex-color":"#ff00aa"}}}}'
    )
    assert Example.of("s3://b/1", "normal", line).mask is None
    assert Example.of("s3://b/1", "anomaly", line).mask == Mask("s3://b/m", {"s": "#FF00AA"}, ("#FFFFFF",))


def test_colours_that_contradict_each_other() -> None:
    some = normal(20) + anomalous(20, ("s", RED))
    [problem] = problems(some + anomalous(1, ("s", GREEN), first=99))
    assert "paint 's' as #FF0000 and, for s3://b/s99, as #00FF00" in problem
    [problem] = problems(some + anomalous(20, ("t", RED)))
    assert problem.startswith("the masks have the colour #FF0000 for 's', 't'")


def test_too_many_with_masks() -> None:
    train, test = normal(15) + anomalous(15, ("s", RED)), normal(10) + anomalous(11, ("s", RED))
    assert problems(train, test, most=(29, 20)) == [
        "the training dataset has 30 labelled images, and one with masks has at most 29",
        "the test dataset has 21 labelled images, and one with masks has at most 20",
    ]
    assert checked(train, test, (30, 21))
    plain = normal(50) + anomalous(50)
    assert checked(plain, plain, (1, 1))


@pytest.mark.parametrize(
    ("good", "bad", "held_good", "held_bad"),
    [
        (20, 10, 10, 5),
        (20, 20, 10, 10),
        (30, 25, 10, 10),
        (51, 50, 11, 10),
        (1000, 99, 200, 20),
        (40, 11, 10, 5),
    ],
)
def test_a_fifth_is_held_out_but_ten_if_there_are_as_many(
    good: int, bad: int, held_good: int, held_bad: int
) -> None:
    examples = normal(good) + anomalous(bad)
    train, test = split(examples)
    assert Counter(example.label for example in test) == {"normal": held_good, "anomaly": held_bad}
    assert sorted(example.source_ref for example in [*train, *test]) == sorted(e.source_ref for e in examples)


def test_each_kind_of_defect_is_held_out_in_proportion() -> None:
    kinds = {("s", RED): 60, ("t", GREEN): 40}
    examples = normal(100) + [e for kind, count in kinds.items() for e in anomalous(count, kind)]
    examples += anomalous(20, *kinds)
    _, test = split(examples)
    held = Counter("-".join(example.mask.colors) for example in test if example.mask)
    assert held == {"s": 12, "t": 8, "s-t": 4}


def test_the_order_does_not_matter_and_chance_does_not_play() -> None:
    examples = normal(50) + anomalous(30) + anomalous(20, ("s", RED))
    train, test = split(examples)
    for seed in range(5):
        random.Random(seed).shuffle(examples)
        assert split(examples) == (train, test)
    # Not simply the first or the last of them: names often tell of the day or the camera.
    names = [
        int(example.source_ref.removeprefix("s3://b/n")) for example in test if example.label == "normal"
    ]
    assert names != sorted(names)
    assert max(names) - min(names) > 25
