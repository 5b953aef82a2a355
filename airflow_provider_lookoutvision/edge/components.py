"""The components on a device: folders with a ``manifest.json`` and the model beside it."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FORMAT = 1
MANIFEST, MODEL = "manifest.json", "model.onnx"
# Greengrass unpacks to <component>/<version>/<archive>/ below its folder of artifacts.
_DEPTH = 4
_VERSION = re.compile(r"([0-9]{1,6})\.([0-9]{1,6})\.([0-9]{1,6})")

log = logging.getLogger("lookoutvision.edge")


class UnusableComponent(Exception):
    """A folder holds no component that this version can run; the message says why."""


@dataclass(frozen=True)
class AnomalyClass:
    """A kind of defect, and its colour in the mask as ``#RRGGBB``."""

    name: str
    color: str


@dataclass(frozen=True)
class Component:
    """A packaged model.

    :param image_size: width and height of the images that it was trained on.
    :param input_size: width and height of what the network sees of them.
    :param classes: the background first; empty for a model without masks.
    :param sha256: of the model's file.
    """

    name: str
    version: tuple[int, int, int]
    folder: Path
    model_arn: str
    image_size: tuple[int, int]
    input_size: tuple[int, int]
    classes: tuple[AnomalyClass, ...]
    threshold: float
    accelerator: str | None
    sha256: str

    @property
    def model_file(self) -> Path:
        """The ONNX graph."""
        return self.folder / MODEL


def find(root: Path) -> Mapping[str, Component]:
    """The components in a folder, or a few levels below it, by name; of each its highest version."""
    found: dict[str, Component] = {}
    for depth in range(_DEPTH + 1):
        for manifest in sorted(root.glob("/".join(["*"] * depth + [MANIFEST]))):
            try:
                component = read(manifest.parent)
            except UnusableComponent as error:
                log.warning("%s", error)
                continue
            known = found.get(component.name)
            if known is None or known.version < component.version:
                found[component.name] = component
    return found


def read(folder: Path) -> Component:
    """The component in a folder.

    :raises UnusableComponent: when there is none, or its manifest is of another kind.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT:
            raise UnusableComponent(
                f"{folder} holds a component of format {manifest['format']!r}, and this agent knows "
                f"{FORMAT}: start the agent that came with it"
            )
        return _component(folder, manifest)
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise UnusableComponent(f"{folder} holds no component that can be used: {error!r}") from None


def _component(folder: Path, manifest: Mapping[str, Any]) -> Component:
    described, target = manifest["component"], manifest["target"]
    version = _VERSION.fullmatch(described["version"])
    if version is None:
        raise ValueError(f"the version {described['version']!r} is not of the form n.n.n")
    return Component(
        str(described["name"]),
        (int(version[1]), int(version[2]), int(version[3])),
        folder,
        str(manifest["model"]["arn"]),
        _size(manifest["image"]),
        _size(manifest["input"]),
        tuple(AnomalyClass(str(each["name"]), _color(each["color"])) for each in manifest["classes"]),
        float(manifest["threshold"]),
        target["accelerator"],
        str(manifest["files"][MODEL]["sha256"]),
    )


def _size(described: Mapping[str, int]) -> tuple[int, int]:
    return int(described["width"]), int(described["height"])


def _color(text: str) -> str:
    bytes.fromhex(text.removeprefix("#"))
    return text
