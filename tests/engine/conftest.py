from pathlib import Path

import pytest
from drawing import CLASSES, Part, Trained, part

from airflow_provider_lookoutvision.engine import Recipe, load, train


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def parts() -> tuple[list[Part], list[str]]:
    """Twelve parts with nothing wrong, six scratched, six stained."""
    defects = [None] * 12 + ["scratch"] * 6 + ["stain"] * 6
    return [part(seed, defect) for seed, defect in enumerate(defects)], [
        "anomaly" if defect else "normal" for defect in defects
    ]


@pytest.fixture(scope="session")
def held_out() -> tuple[list[Part], list[str]]:
    defects = [None, "scratch", None, "stain"] * 4
    return [part(1000 + seed, defect) for seed, defect in enumerate(defects)], [
        "anomaly" if defect else "normal" for defect in defects
    ]


@pytest.fixture(scope="session")
def segmenter(
    parts: tuple[list[Part], list[str]], cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Trained:
    """Trained with masks of two classes, and left to choose its recipe."""
    drawn, labels = parts
    masks = [item.mask if label == "anomaly" else None for item, label in zip(drawn, labels, strict=True)]
    folder = tmp_path_factory.mktemp("models") / "segmenter"
    progress: list[tuple[float, str]] = []
    report = train(
        [item.image for item in drawn],
        labels,
        masks,
        CLASSES,
        folder,
        cache=cache,
        progress=lambda fraction, what: progress.append((fraction, what)),
    )
    return Trained(load(folder, cache=cache), report, folder, progress)


@pytest.fixture(scope="session")
def classifier(
    parts: tuple[list[Part], list[str]], cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Trained:
    """Trained without masks, with a given recipe."""
    drawn, labels = parts
    folder = tmp_path_factory.mktemp("models") / "classifier"
    images = [item.image for item in drawn]
    report = train(images, labels, [None] * len(images), [], folder, cache=cache, recipe=Recipe(224, "plain"))
    return Trained(load(folder, cache=cache), report, folder, [])
