import json
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from drawing import Trained

from airflow_provider_lookoutvision.engine import UnusableArtifact, artifact, load


@pytest.fixture
def folder(segmenter: Trained, tmp_path: Path) -> Path:
    return Path(shutil.copytree(segmenter.folder, tmp_path / "model"))


def described(folder: Path, **changes: object) -> None:
    path = folder / artifact.JSON
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def numbers(folder: Path, change: Callable[[dict[str, np.ndarray]], object]) -> None:
    with np.load(folder / artifact.NUMBERS) as file:
        arrays = dict(file)
    change(arrays)
    np.savez(folder / artifact.NUMBERS, **arrays)


def test_a_model_is_the_same_after_a_round_trip(folder: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    again.mkdir()
    artifact.save(again, artifact.load(folder))
    assert (again / artifact.JSON).read_text() == (folder / artifact.JSON).read_text()
    with np.load(folder / artifact.NUMBERS) as first, np.load(again / artifact.NUMBERS) as second:
        assert set(first) == set(second)
        for name in first:
            np.testing.assert_array_equal(first[name], second[name])


def test_the_size_of_the_images_is_kept(segmenter: Trained, folder: Path) -> None:
    assert segmenter.report.image_size == (128, 96)
    assert artifact.load(folder).image_size == (128, 96)
    assert segmenter.detector.image_size == (128, 96)


def test_it_is_two_files_of_a_few_megabytes(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == [artifact.JSON, artifact.NUMBERS]
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
def test_a_description_it_does_not_know_is_refused(folder: Path, changes: dict[str, object]) -> None:
    described(folder, **changes)
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
def test_numbers_it_does_not_know_are_refused(
    folder: Path, change: Callable[[dict[str, np.ndarray]], object]
) -> None:
    numbers(folder, change)
    with pytest.raises(UnusableArtifact):
        load(folder)


def test_pickles_are_not_read(folder: Path, tmp_path: Path) -> None:
    witness = tmp_path / "called"

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (witness,)

    numbers(folder, lambda arrays: arrays.update(bank=np.array([Evil()], object)))
    with pytest.raises(UnusableArtifact):
        load(folder)
    (folder / artifact.NUMBERS).write_bytes(pickle.dumps(Evil()))
    with pytest.raises(UnusableArtifact):
        load(folder)
    assert not witness.exists()


def test_numbers_that_unpack_to_gigabytes_are_refused(folder: Path) -> None:
    path = folder / artifact.NUMBERS
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content + bytes(300_000_000 if name == "bank.npy" else 0))
    with pytest.raises(UnusableArtifact, match="not the ones"):
        load(folder)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnusableArtifact, match=r"model\.json is missing"):
        load(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", "null", "{" * 5000, '{"format": 1}'])
def test_a_description_that_is_none_is_refused(folder: Path, content: str) -> None:
    (folder / artifact.JSON).write_text(content)
    with pytest.raises(UnusableArtifact):
        load(folder)
