"""Saves and loads a model as files: `model.json` for its description, `model.npz` for its arrays.

Loading runs no code from the files: arrays are read without pickle, and a file with an unknown, missing or
misshapen part is refused. The pretrained network is not part of a model, which has its name alone; a network
that was trained on the dataset is, as `network.onnx`, and so is a user's own one, as `backbone.onnx`.
"""

import json
import zipfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from airflow_provider_lookoutvision.engine import (
    backbone,
    custom_backbone,
    images,
    linear_description,
    memory_bank,
    refinement,
    tuned_network,
)
from airflow_provider_lookoutvision.engine.backbone import STRIDE, Channels, FloatArray
from airflow_provider_lookoutvision.engine.calibration import StackedClassifier
from airflow_provider_lookoutvision.engine.class_presence import ClassPresence
from airflow_provider_lookoutvision.engine.custom_backbone import CustomBackbone
from airflow_provider_lookoutvision.engine.errors import UnusableArtifact
from airflow_provider_lookoutvision.engine.heads import Heads
from airflow_provider_lookoutvision.engine.image_heads import ImageHead
from airflow_provider_lookoutvision.engine.masks import AnomalyClass
from airflow_provider_lookoutvision.engine.memory_bank import BankFeatures, MemoryBank
from airflow_provider_lookoutvision.engine.patch_head import PatchHead
from airflow_provider_lookoutvision.engine.refinement import Refinement
from airflow_provider_lookoutvision.engine.tuned_network import TunedNetwork

FORMAT, EXTENDED_FORMAT = 3, 4
MODEL_FILE, ARRAYS_FILE, NETWORK_FILE = "model.json", "model.npz", "network.onnx"
BACKBONE_FILE = "backbone.onnx"
_MAX_NETWORK_BYTES = 64 * 1024 * 1024
_MAX_BYTES = 256 * 1024 * 1024
_MAX_WORKING_LENGTH = 8192
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
_EXTENDED_KEYS = {"tuned", "features", "presence", "custom_backbone", "refinement"}

_BANKS = ("bank", "bank.1", "bank.2")
# The shapes of the arrays by name. A name stands for any length, the same wherever it occurs.
_CLASSIFIER_SHAPES = {
    "mean": ("heads",),
    "scale": ("heads",),
    "coefficients": ("coefficients",),
}
_IMAGE_HEADS = ("image.0", "image.1")


def _supervised_shapes(channels: Channels) -> dict[str, tuple[str | int, ...]]:
    shapes: dict[str, tuple[str | int, ...]] = {
        "patch.weights": ("classes", sum(channels.maps)),
        "patch.bias": ("classes",),
    }
    for head, length in zip(_IMAGE_HEADS, channels.summary, strict=True):
        shapes |= {
            f"{head}.mean": (length,),
            f"{head}.scale": (length,),
            f"{head}.vectors": (head, length),
            f"{head}.coefficients": (head,),
        }
    return shapes


@dataclass(frozen=True)
class Model:
    """Everything that detection needs.

    :param image_size: width and height of the training images, upright, in pixels
    :param working_size: width and height that images are resized to for the network
    :param classes: empty without masks
    :param offset: is added to the logits of the classes, of what paints the masks, before they are compared
        with the background's 0
    :param tuned: a network that was trained on the dataset, or None
    :param presence: decides which classes are painted; all are when None
    :param backbone: a user's network; EfficientNet-lite0 when None
    :param refinement: paints small defects from the image's own pixels; None where that is no better
    """

    heads: Heads
    classifier: StackedClassifier
    image_size: tuple[int, int]
    working_size: tuple[int, int]
    classes: tuple[AnomalyClass, ...]
    offset: float
    tuned: TunedNetwork | None = None
    presence: ClassPresence | None = None
    backbone: CustomBackbone | None = None
    refinement: Refinement | None = None

    @property
    def channels(self) -> Channels:
        """Of the pretrained network."""
        return backbone.channels_of(self.backbone)

    @property
    def tuned_paints(self) -> bool:
        """Whether masks and anomaly maps are the trained network's, or else the patch head's."""
        return self.tuned is not None and self.tuned.paints


def save(folder: Path, model: Model) -> None:
    """Write the model into a folder; `model.json` is written last, so that a folder with it is complete."""
    heads, classifier = model.heads, model.classifier
    arrays: dict[str, NDArray[Any]] = {
        **{name: bank.patches for name, bank in zip(_BANKS, heads.banks, strict=False)},
        "mean": classifier.mean,
        "scale": classifier.scale,
        "coefficients": classifier.coefficients,
    }
    description: dict[str, Any] = {
        "format": FORMAT,
        "backbone": backbone.NAME,
        "image_size": list(model.image_size),
        "size": list(model.working_size),
        "classes": [
            {"name": anomaly_class.name, "color": anomaly_class.color} for anomaly_class in model.classes
        ],
        "offset": model.offset,
        "supervised": heads.patch is not None,
        "calibrated": classifier.calibrated,
        "intercept": classifier.intercept,
        "images": [{"intercept": head.intercept, "gamma": head.gamma} for head in heads.images],
    }
    if heads.patch is not None:
        arrays |= {"patch.weights": heads.patch.weights, "patch.bias": heads.patch.bias}
        for name, head in zip(_IMAGE_HEADS, heads.images, strict=True):
            arrays |= {
                f"{name}.mean": head.mean,
                f"{name}.scale": head.scale,
                f"{name}.vectors": head.vectors,
                f"{name}.coefficients": head.coefficients,
            }
    for name, bank in zip(_BANKS, heads.banks, strict=False):
        if bank.scale is not None:
            arrays[f"{name}.scale"] = bank.scale
    features = [bank.features for bank in heads.banks]
    if features != [memory_bank.DEFAULT_FEATURES]:
        description["format"] = EXTENDED_FORMAT
        description["features"] = [asdict(each) for each in features]
    if model.tuned is not None:
        stack = model.tuned.classifier
        description["format"] = EXTENDED_FORMAT
        description["tuned"] = {
            "paints": model.tuned.paints,
            "offset": model.offset,
            "classifier": None if stack is None else linear_description.describe(stack),
        }
        (folder / NETWORK_FILE).write_bytes(model.tuned.graph.SerializeToString(deterministic=True))
    if model.backbone is not None:
        description["format"] = EXTENDED_FORMAT
        description["backbone"] = model.backbone.title
        description["custom_backbone"] = custom_backbone.save(model.backbone, folder / BACKBONE_FILE)
    if model.presence is not None:
        description["format"] = EXTENDED_FORMAT
        description["presence"] = linear_description.describe(model.presence)
    if model.refinement is not None:
        window_head = model.refinement.head
        description["format"] = EXTENDED_FORMAT
        description["refinement"] = refinement.describe(model.refinement)
        arrays |= {"refinement.weights": window_head.weights, "refinement.bias": window_head.bias}
    with (folder / ARRAYS_FILE).open("wb") as file:
        np.savez(
            file, allow_pickle=False, **{name: array.astype(np.float32) for name, array in arrays.items()}
        )
    partial = folder / f"{MODEL_FILE}.partial"
    partial.write_text(json.dumps(description, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    partial.replace(folder / MODEL_FILE)


def load(folder: Path) -> Model:
    """Read a model from a folder.

    :raises UnusableArtifact: the folder has no model, or one that is damaged or of another version
    """
    try:
        description = json.loads((folder / MODEL_FILE).read_text(encoding="utf-8"))
        optional: dict[Any, set[str]] = {FORMAT: set(), EXTENDED_FORMAT: _EXTENDED_KEYS}
        known = isinstance(description, dict) and optional.get(description.get("format"))
        if known is None or known is False or not _KEYS <= set(description) <= _KEYS | known:
            raise UnusableArtifact("the model was written by another version; train it anew")
        custom = None
        if "custom_backbone" in description:
            custom = custom_backbone.load(folder / BACKBONE_FILE, description["custom_backbone"])
        model = _build_model(description, folder / ARRAYS_FILE, custom)
        if "tuned" in description:
            model = _with_tuned(model, folder / NETWORK_FILE, description["tuned"])
        return model
    except UnusableArtifact:
        raise
    except FileNotFoundError as error:
        raise UnusableArtifact(
            f"the folder {folder.name} has no model: {Path(error.filename).name} is missing"
        ) from error
    except (
        *(OSError, ValueError, KeyError, TypeError, RecursionError, zipfile.BadZipFile),
        *(DecodeError, onnx.checker.ValidationError),
    ) as error:
        raise UnusableArtifact(f"the model in {folder.name} is damaged: {error}") from error


def _with_tuned(model: Model, path: Path, description: dict[str, Any]) -> Model:
    if path.stat().st_size > _MAX_NETWORK_BYTES:
        raise UnusableArtifact(f"the model's {NETWORK_FILE} is larger than any that is written")
    graph = onnx.load_from_string(path.read_bytes())
    tuned_network.check(graph, len(model.classes) or 1)
    stack, paints = description["classifier"], bool(description["paints"])
    classifier = None
    if stack is not None:
        parts = linear_description.read(stack, 2, "the calibration of the model's trained network")
        classifier = StackedClassifier(**parts, calibrated=True)
    offset = float(description["offset"]) if paints else model.offset
    return replace(model, tuned=TunedNetwork(graph, classifier, paints), offset=offset)


def _load_arrays(path: Path, description: dict[str, Any], channels: Channels) -> dict[str, FloatArray]:
    shapes: dict[str, tuple[str | int, ...]] = dict(_CLASSIFIER_SHAPES)
    for name, features in zip(_BANKS, _bank_features(description, channels), strict=False):
        shapes[name] = (f"{name} patches", features.dimensions(channels))
        if features.standardised:
            shapes[f"{name}.scale"] = (features.dimensions(channels),)
    if description["supervised"] is True:
        shapes |= _supervised_shapes(channels)
        if "refinement" in description:
            shapes |= {f"refinement.{part}": shapes[f"patch.{part}"] for part in ("weights", "bias")}
    with zipfile.ZipFile(path) as archive:
        # Names and sizes are checked before anything is decompressed.
        names = {entry.filename.removesuffix(".npy") for entry in archive.infolist()}
        if names != set(shapes) or sum(entry.file_size for entry in archive.infolist()) > _MAX_BYTES:
            raise UnusableArtifact("the model's arrays are not those of this version; train it anew")
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in shapes}
    lengths: dict[str, int] = {}
    for name, shape in shapes.items():
        array = arrays[name]
        valid = array.dtype == np.float32 and array.ndim == len(shape) and array.size > 0
        for dimension, length in zip(shape, array.shape, strict=False):
            valid &= length == (
                lengths.setdefault(dimension, length) if isinstance(dimension, str) else dimension
            )
        if not valid or not np.isfinite(array).all():
            raise UnusableArtifact(f"the model's array {name!r} has another shape or type, or is not finite")
    return arrays


def _bank_features(description: dict[str, Any], channels: Channels) -> list[BankFeatures]:
    given = description.get("features", [asdict(memory_bank.DEFAULT_FEATURES)])
    # There was one bank, before there were several.
    banks = [BankFeatures(**each) for each in (given if isinstance(given, list) else [given])]
    size = _width_and_height(description["size"])
    if not 1 <= len(banks) <= len(_BANKS) or not all(each.is_possible(channels, size) for each in banks):
        raise UnusableArtifact("the model's memory banks have features that no bank has")
    return banks


def _width_and_height(value: Any) -> tuple[int, int]:
    width, height = value
    if type(width) is not int or type(height) is not int:
        raise UnusableArtifact(f"the model has {value} for a width and a height")
    return width, height


def _build_model(description: dict[str, Any], path: Path, custom: CustomBackbone | None) -> Model:
    if description["backbone"] != (backbone.NAME if custom is None else custom.title):
        raise UnusableArtifact(f"the model needs the network {description['backbone']!r}; train it anew")
    image_size = _width_and_height(description["image_size"])
    working_size = _width_and_height(description["size"])
    if not all(images.MIN_SIDE <= length <= images.MAX_SIDE for length in image_size):
        raise UnusableArtifact(f"the model's image size {image_size[0]} x {image_size[1]} is not possible")
    if any(length % STRIDE or not 0 < length <= _MAX_WORKING_LENGTH for length in working_size):
        raise UnusableArtifact(
            f"the model's working size {working_size[0]} x {working_size[1]} is not possible"
        )
    channels = backbone.channels_of(custom)
    arrays = _load_arrays(path, description, channels)
    banks = tuple(
        MemoryBank(arrays[name], features, arrays.get(f"{name}.scale"))
        for name, features in zip(_BANKS, _bank_features(description, channels), strict=False)
    )
    classes = tuple(AnomalyClass(str(entry["name"]), str(entry["color"])) for entry in description["classes"])
    patch = None
    image_heads: tuple[ImageHead, ...] = ()
    if description["supervised"]:
        patch = PatchHead(arrays["patch.weights"], arrays["patch.bias"])
        if len(patch.bias) != (len(classes) or 1):
            raise UnusableArtifact("the model's patch head does not have one row for each class")
        image_heads = tuple(
            ImageHead(
                arrays[f"{name}.mean"],
                arrays[f"{name}.scale"],
                arrays[f"{name}.vectors"],
                arrays[f"{name}.coefficients"],
                float(kernel["intercept"]),
                float(kernel["gamma"]),
            )
            for name, kernel in zip(_IMAGE_HEADS, description["images"], strict=True)
        )
    classifier = StackedClassifier(
        arrays["mean"].astype(np.float64),
        arrays["scale"].astype(np.float64),
        arrays["coefficients"].astype(np.float64),
        float(description["intercept"]),
        bool(description["calibrated"]),
    )
    supervised = patch is not None and classifier.calibrated
    score_count = len(banks) + (2 + len(image_heads) if supervised else 0)
    if not len(classifier.mean) == len(classifier.coefficients) == score_count:
        raise UnusableArtifact("the model's calibration does not fit its heads")
    refined = None
    if "refinement" in description:
        refined = refinement.build(
            description["refinement"],
            PatchHead(arrays["refinement.weights"], arrays["refinement.bias"]),
            image_size,
            working_size,
            len(classes),
        )
    return Model(
        Heads(banks, patch, image_heads),
        classifier,
        image_size,
        working_size,
        classes,
        float(description["offset"]),
        presence=linear_description.read_presence(description),
        backbone=custom,
        refinement=refined,
    )
