import dataclasses
import json
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from drawn_images import TrainedModel

from airflow_provider_lookoutvision.engine import UnusableArtifact, artifact, load
from airflow_provider_lookoutvision.engine.class_presence import ClassPresence


@pytest.fixture
def folder(segmenter: TrainedModel, tmp_path: Path) -> Path:
    return Path(shutil.copytree(segmenter.folder, tmp_path / "model"))


def change_description(folder: Path, **changes: object) -> None:
    path = folder / artifact.MODEL_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def change_arrays(folder: Path, change: Callable[[dict[str, np.ndarray]], object]) -> None:
    with np.load(folder / artifact.ARRAYS_FILE) as file:
        arrays = dict(file)
    change(arrays)
    np.savez(folder / artifact.ARRAYS_FILE, **arrays)


def test_a_model_is_the_same_after_a_round_trip(folder: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    again.mkdir()
    artifact.save(again, artifact.load(folder))
    assert (again / artifact.MODEL_FILE).read_text() == (folder / artifact.MODEL_FILE).read_text()
    with np.load(folder / artifact.ARRAYS_FILE) as first, np.load(again / artifact.ARRAYS_FILE) as second:
        assert set(first) == set(second)
        for name in first:
            np.testing.assert_array_equal(first[name], second[name])


def test_what_decides_which_classes_are_painted_is_saved(folder: Path, tmp_path: Path) -> None:
    presence = ClassPresence(np.arange(4.0), np.arange(1.0, 5), np.array([1, -0.5, 2, 1 / 3]), -0.25)
    again = tmp_path / "again"
    again.mkdir()
    artifact.save(again, dataclasses.replace(artifact.load(folder), presence=presence))
    found = artifact.load(again).presence
    assert found is not None
    for name in ("mean", "scale", "coefficients"):
        np.testing.assert_array_equal(getattr(found, name), getattr(presence, name))
    assert found.intercept == presence.intercept
    for damaged in ([1, 2, 3], [1, 2, 3, float("nan")], ["x"] * 4):
        description = json.loads((again / artifact.MODEL_FILE).read_text())
        change_description(again, presence={**description["presence"], "mean": damaged})
        with pytest.raises(UnusableArtifact):
            load(again)


def test_the_image_size_is_saved(segmenter: TrainedModel, folder: Path) -> None:
    assert segmenter.report.image_size == (128, 96)
    assert artifact.load(folder).image_size == (128, 96)
    assert segmenter.detector.image_size == (128, 96)


def test_it_is_two_files_of_a_few_megabytes(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == [artifact.MODEL_FILE, artifact.ARRAYS_FILE]
    assert sum(path.stat().st_size for path in folder.iterdir()) < 5_000_000


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 1},
        {"backbone": "another"},
        {"more": 1},
        {"size": [100, 100]},
        {"size": [0, 64]},
        {"size": 64},
        {"size": ["128", 96]},
        {"size": [128, 96, 3]},
        {"image_size": [63, 96]},
        {"image_size": [128, 4097]},
        {"image_size": [128.0, 96]},
        {"image_size": [True, 96]},
        {"image_size": None},
        {"classes": []},
        {"supervised": False},
        {"intercept": "x"},
        {"images": None},
        {"images": []},
    ],
    ids=str,
)
def test_an_unknown_description_is_refused(folder: Path, changes: dict[str, object]) -> None:
    change_description(folder, **changes)
    with pytest.raises(UnusableArtifact):
        load(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda arrays: arrays.pop("bank"),
        lambda arrays: arrays.update(more=np.zeros(3, np.float32)),
        lambda arrays: arrays.update(bank=arrays["bank"][:, :-1]),
        lambda arrays: arrays.update(bank=arrays["bank"].astype(np.float64)),
        lambda arrays: arrays.update(bank=arrays["bank"][:0]),
        lambda arrays: arrays.update(mean=arrays["mean"][:-1]),
        lambda arrays: arrays["patch.bias"].fill(np.nan),
        lambda arrays: arrays.update({"image.1.vectors": arrays["image.1.vectors"][:-1]}),
    ],
    ids=["missing", "extra", "narrow", "wide", "empty", "short", "nan", "disagreeing"],
)
def test_unknown_arrays_are_refused(folder: Path, change: Callable[[dict[str, np.ndarray]], object]) -> None:
    change_arrays(folder, change)
    with pytest.raises(UnusableArtifact):
        load(folder)


def test_pickles_are_not_read(folder: Path, tmp_path: Path) -> None:
    witness = tmp_path / "called"

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (witness,)

    change_arrays(folder, lambda arrays: arrays.update(bank=np.array([Evil()], object)))
    with pytest.raises(UnusableArtifact):
        load(folder)
    (folder / artifact.ARRAYS_FILE).write_bytes(pickle.dumps(Evil()))
    with pytest.raises(UnusableArtifact):
        load(folder)
    assert not witness.exists()


def test_arrays_that_decompress_to_gigabytes_are_refused(folder: Path) -> None:
    path = folder / artifact.ARRAYS_FILE
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content + bytes(300_000_000 if name == "bank.npy" else 0))
    with pytest.raises(UnusableArtifact, match="not those of this version"):
        load(folder)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnusableArtifact, match=r"model\.json is missing"):
        load(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", "null", "{" * 5000, '{"format": 1}'])
def test_a_malformed_description_is_refused(folder: Path, content: str) -> None:
    (folder / artifact.MODEL_FILE).write_text(content)
    with pytest.raises(UnusableArtifact):
        load(folder)
