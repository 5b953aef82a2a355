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

from airflow_provider_lookoutvision.engine import backbone, patches, supervised
from airflow_provider_lookoutvision.engine.backbone import CHANNELS, STRIDE
from airflow_provider_lookoutvision.engine.calibration import Stack
from airflow_provider_lookoutvision.engine.errors import UnusableArtifact
from airflow_provider_lookoutvision.engine.heads import Heads
from airflow_provider_lookoutvision.engine.masks import AnomalyClass
from airflow_provider_lookoutvision.engine.patches import MemoryBank
from airflow_provider_lookoutvision.engine.supervised import ImageHead, PatchHead

FORMAT = 1
JSON, NUMBERS = "model.json", "model.npz"
_MAX_BYTES = 256 * 1024 * 1024
_MAX_SIDE = 8192
_KEYS = {"format", "backbone", "size", "classes", "offset", "supervised", "calibrated", "intercept", "image"}

# Names of the arrays and their dimensions: a number must agree, a letter must agree wherever it is used.
_BANK = {"bank": ("b", patches.DIMENSIONS), "mean": ("h",), "scale": ("h",), "coefficients": ("c",)}
_SUPERVISED = {
    "patch.weights": ("k", supervised.DIMENSIONS),
    "patch.bias": ("k",),
    "image.mean": (CHANNELS[2],),
    "image.scale": (CHANNELS[2],),
    "image.vectors": ("v", CHANNELS[2]),
    "image.coefficients": ("v",),
}


@dataclass(frozen=True)
class Model:
    """Everything that detection needs.

    `size` is the working width and height; `classes` is empty when there were no masks; `offset` is added to
    the logits of the classes before a pixel is given to one or to the background.
    """

    heads: Heads
    stack: Stack
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
        "size": list(model.size),
        "classes": [{"name": anomaly.name, "color": anomaly.color} for anomaly in model.classes],
        "offset": model.offset,
        "supervised": fit.patch is not None,
        "calibrated": stack.calibrated,
        "intercept": stack.intercept,
        "image": None,
    }
    if fit.patch is not None and fit.image is not None:
        arrays |= {
            "patch.weights": fit.patch.weights,
            "patch.bias": fit.patch.bias,
            "image.mean": fit.image.mean,
            "image.scale": fit.image.scale,
            "image.vectors": fit.image.vectors,
            "image.coefficients": fit.image.coefficients,
        }
        described["image"] = {"intercept": fit.image.intercept, "gamma": fit.image.gamma}
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
    letters: dict[str, int] = {}
    for name, shape in wanted.items():
        array = arrays[name]
        fits = array.dtype == np.float32 and array.ndim == len(shape) and array.size > 0
        for dimension, length in zip(shape, array.shape, strict=False):
            fits &= length == (
                letters.setdefault(dimension, length) if isinstance(dimension, str) else dimension
            )
        if not fits or not np.isfinite(array).all():
            raise UnusableArtifact(
                f"the model's numbers {name!r} are not of the kind that this version knows"
            )
    return arrays


def _model(described: dict[str, Any], arrays: dict[str, NDArray[np.float32]]) -> Model:
    if described["backbone"] != backbone.NAME:
        raise UnusableArtifact(f"the model needs the network {described['backbone']!r}; train it anew")
    width, height = (int(length) for length in described["size"])
    if any(length % STRIDE or not 0 < length <= _MAX_SIDE for length in (width, height)):
        raise UnusableArtifact(f"the model's working size {width} x {height} is not possible")
    classes = tuple(AnomalyClass(str(entry["name"]), str(entry["color"])) for entry in described["classes"])
    patch = image = None
    if described["supervised"]:
        patch = PatchHead(arrays["patch.weights"], arrays["patch.bias"])
        if len(patch.bias) != (len(classes) or 1):
            raise UnusableArtifact("the model has not one patch head for each class")
        kernel = described["image"]
        image = ImageHead(
            arrays["image.mean"],
            arrays["image.scale"],
            arrays["image.vectors"],
            arrays["image.coefficients"],
            float(kernel["intercept"]),
            float(kernel["gamma"]),
        )
    stack = Stack(
        arrays["mean"].astype(np.float64),
        arrays["scale"].astype(np.float64),
        arrays["coefficients"].astype(np.float64),
        float(described["intercept"]),
        bool(described["calibrated"]),
    )
    if len(stack.mean) not in ((4,) if described["supervised"] and stack.calibrated else (1,)) or len(
        stack.coefficients
    ) != len(stack.mean):
        raise UnusableArtifact("the model's calibration does not fit its heads")
    return Model(
        Heads(MemoryBank(arrays["bank"]), patch, image),
        stack,
        (width, height),
        classes,
        float(described["offset"]),
    )
