from pathlib import Path

import pytest
from drawn_images import CLASSES, LabelledImages, TrainedModel, draw_all

from airflow_provider_lookoutvision.engine import Hyperparameters, load, train


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def training_set() -> LabelledImages:
    """Twelve normal plates, six scratched, six stained."""
    return draw_all([None] * 12 + ["scratch"] * 6 + ["stain"] * 6)


@pytest.fixture(scope="session")
def held_out() -> LabelledImages:
    return draw_all([None, "scratch", None, "stain"] * 4, first_seed=1000)


@pytest.fixture(scope="session")
def segmenter(
    training_set: LabelledImages, cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> TrainedModel:
    """Trained with masks of two classes; its hyperparameters are searched for."""
    folder = tmp_path_factory.mktemp("models") / "segmenter"
    progress: list[tuple[float, str]] = []
    report = train(
        training_set.images,
        training_set.labels,
        training_set.masks,
        CLASSES,
        folder,
        cache=cache,
        progress=lambda fraction, stage: progress.append((fraction, stage)),
    )
    return TrainedModel(load(folder, cache=cache), report, folder, progress)


@pytest.fixture(scope="session")
def classifier(
    training_set: LabelledImages, cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> TrainedModel:
    """Trained without masks, with given hyperparameters."""
    folder = tmp_path_factory.mktemp("models") / "classifier"
    report = train(
        training_set.images,
        training_set.labels,
        training_set.no_masks,
        [],
        folder,
        cache=cache,
        hyperparameters=Hyperparameters(224, augment=False),
    )
    return TrainedModel(load(folder, cache=cache), report, folder, [])
