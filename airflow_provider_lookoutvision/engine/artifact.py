"""A trained model as two files: `model.json` says what it is, `model.npz` holds its numbers.

Nothing in them can run: the numbers are read without pickle, and a file that names, lacks or shapes anything
in a way this version does not know is refused. The network is not in them but named; its weights are shared
by all models.
"""

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from airflow_provider_lookoutvision.engine import backbone, images, patches, supervised
from airflow_provider_lookoutvision.engine.backbone import STRIDE, SUMMARIES
from airflow_provider_lookoutvision.engine.calibration import Stack
from airflow_provider_lookoutvision.engine.errors import UnusableArtifact
from airflow_provider_lookoutvision.engine.heads import Heads
from airflow_provider_lookoutvision.engine.masks import AnomalyClass
from airflow_provider_lookoutvision.engine.patches import MemoryBank
from airflow_provider_lookoutvision.engine.supervised import ImageHead, PatchHead

FORMAT = 3
JSON, NUMBERS = "model.json", "model.npz"
_MAX_BYTES = 256 * 1024 * 1024
_MAX_SIDE = 8192
_KEYS = {
    "format",
    "backbone",
    "image_size",
    "size",
    "classes",
    "offset",
    "supervised",
    "calibrated",
    "intercept",
    "images",
}

# Names of the arrays and their dimensions: a number must agree, a word must agree wherever it is used.
_BANK = {"bank": ("b", patches.DIMENSIONS), "mean": ("h",), "scale": ("h",), "coefficients": ("c",)}
_IMAGE_HEADS = tuple(f"image.{place}" for place in range(len(SUMMARIES)))
_SUPERVISED: dict[str, tuple[str | int, ...]] = {
    "patch.weights": ("k", supervised.DIMENSIONS),
    "patch.bias": ("k",),
    **{f"{head}.mean": (length,) for head, length in zip(_IMAGE_HEADS, SUMMARIES, strict=True)},
    **{f"{head}.scale": (length,) for head, length in zip(_IMAGE_HEADS, SUMMARIES, strict=True)},
    **{f"{head}.vectors": (head, length) for head, length in zip(_IMAGE_HEADS, SUMMARIES, strict=True)},
    **{f"{head}.coefficients": (head,) for head in _IMAGE_HEADS},
}


@dataclass(frozen=True)
class Model:
    """Everything that detection needs.

    `image_size` is the width and height of the images it was trained on, upright, and `size` that of what the
    network sees of them; `classes` is empty when there were no masks; `offset` is added to
    the logits of the classes before a pixel is given to one or to the background.
    """

    heads: Heads
    stack: Stack
    image_size: tuple[int, int]
    size: tuple[int, int]
    classes: tuple[AnomalyClass, ...]
    offset: float


def save(folder: Path, model: Model) -> None:
    """Write the model into a folder; `model.json` comes last, so a folder that has it has everything."""
    fit, stack = model.heads, model.stack
    arrays: dict[str, NDArray[Any]] = {
        "bank": fit.bank.patches,
        "mean": stack.mean,
        "scale": stack.scale,
        "coefficients": stack.coefficients,
    }
    described: dict[str, Any] = {
        "format": FORMAT,
        "backbone": backbone.NAME,
        "image_size": list(model.image_size),
        "size": list(model.size),
        "classes": [{"name": anomaly.name, "color": anomaly.color} for anomaly in model.classes],
        "offset": model.offset,
        "supervised": fit.patch is not None,
        "calibrated": stack.calibrated,
        "intercept": stack.intercept,
        "images": [{"intercept": head.intercept, "gamma": head.gamma} for head in fit.images],
    }
    if fit.patch is not None:
        arrays |= {"patch.weights": fit.patch.weights, "patch.bias": fit.patch.bias}
        for name, head in zip(_IMAGE_HEADS, fit.images, strict=True):
            arrays |= {
                f"{name}.mean": head.mean,
                f"{name}.scale": head.scale,
                f"{name}.vectors": head.vectors,
                f"{name}.coefficients": head.coefficients,
            }
    with (folder / NUMBERS).open("wb") as file:
        np.savez(
            file, allow_pickle=False, **{name: array.astype(np.float32) for name, array in arrays.items()}
        )
    partial = folder / f"{JSON}.partial"
    partial.write_text(json.dumps(described, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    partial.replace(folder / JSON)


def load(folder: Path) -> Model:
    """Read a model back.

    :raises UnusableArtifact: the folder holds no model, or one that this version does not know in every part
    """
    try:
        described = json.loads((folder / JSON).read_text(encoding="utf-8"))
        if not isinstance(described, dict) or set(described) != _KEYS or described["format"] != FORMAT:
            raise UnusableArtifact("the model was written by another version; train it anew")
        return _model(described, _numbers(folder / NUMBERS, described))
    except UnusableArtifact:
        raise
    except FileNotFoundError as error:
        raise UnusableArtifact(
            f"the folder {folder.name} holds no model: {Path(error.filename).name} is missing"
        ) from error
    except (OSError, ValueError, KeyError, TypeError, RecursionError, zipfile.BadZipFile) as error:
        raise UnusableArtifact(f"the model in {folder.name} is damaged: {error}") from error


def _numbers(path: Path, described: dict[str, Any]) -> dict[str, NDArray[np.float32]]:
    wanted: dict[str, tuple[str | int, ...]] = dict(_BANK)
    if described["supervised"] is True:
        wanted |= _SUPERVISED
    with zipfile.ZipFile(path) as archive:
        # Before anything is inflated: what it says it holds, and how much.
        names = {entry.filename.removesuffix(".npy") for entry in archive.infolist()}
        if names != set(wanted) or sum(entry.file_size for entry in archive.infolist()) > _MAX_BYTES:
            raise UnusableArtifact("the model's numbers are not the ones that this version knows")
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in wanted}
    words: dict[str, int] = {}
    for name, shape in wanted.items():
        array = arrays[name]
        fits = array.dtype == np.float32 and array.ndim == len(shape) and array.size > 0
        for dimension, length in zip(shape, array.shape, strict=False):
            fits &= length == (
                words.setdefault(dimension, length) if isinstance(dimension, str) else dimension
            )
        if not fits or not np.isfinite(array).all():
            raise UnusableArtifact(
                f"the model's numbers {name!r} are not of the kind that this version knows"
            )
    return arrays


def _size(described: Any) -> tuple[int, int]:
    width, height = described
    if type(width) is not int or type(height) is not int:
        raise UnusableArtifact(f"the model's {described} is not a width and a height")
    return width, height


def _model(described: dict[str, Any], arrays: dict[str, NDArray[np.float32]]) -> Model:
    if described["backbone"] != backbone.NAME:
        raise UnusableArtifact(f"the model needs the network {described['backbone']!r}; train it anew")
    image_size, size = _size(described["image_size"]), _size(described["size"])
    if not all(images.MIN_SIDE <= length <= images.MAX_SIDE for length in image_size):
        raise UnusableArtifact(f"no image has the model's {image_size[0]} x {image_size[1]} pixels")
    if any(length % STRIDE or not 0 < length <= _MAX_SIDE for length in size):
        raise UnusableArtifact(f"the model's working size {size[0]} x {size[1]} is not possible")
    classes = tuple(AnomalyClass(str(entry["name"]), str(entry["color"])) for entry in described["classes"])
    patch = None
    heads: tuple[ImageHead, ...] = ()
    if described["supervised"]:
        patch = PatchHead(arrays["patch.weights"], arrays["patch.bias"])
        if len(patch.bias) != (len(classes) or 1):
            raise UnusableArtifact("the model has not one patch head for each class")
        heads = tuple(
            ImageHead(
                arrays[f"{name}.mean"],
                arrays[f"{name}.scale"],
                arrays[f"{name}.vectors"],
                arrays[f"{name}.coefficients"],
                float(kernel["intercept"]),
                float(kernel["gamma"]),
            )
            for name, kernel in zip(_IMAGE_HEADS, described["images"], strict=True)
        )
    stack = Stack(
        arrays["mean"].astype(np.float64),
        arrays["scale"].astype(np.float64),
        arrays["coefficients"].astype(np.float64),
        float(described["intercept"]),
        bool(described["calibrated"]),
    )
    scores = 3 + len(heads) if patch is not None and stack.calibrated else 1
    if not len(stack.mean) == len(stack.coefficients) == scores:
        raise UnusableArtifact("the model's calibration does not fit its heads")
    return Model(
        Heads(MemoryBank(arrays["bank"]), patch, heads),
        stack,
        image_size,
        size,
        classes,
        float(described["offset"]),
    )
