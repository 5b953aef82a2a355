"""A component for a device: the archive with the model and its runner, the recipe, and the digests of both.

The archive holds::

    manifest.json           what the model is: sizes, classes, threshold, metrics, licences
    model.onnx              the model, whole
    agent.py                python agent.py [--start all]
    lookoutvision_edge/     the runner; it needs what requirements.txt names, and nothing else
    requirements.txt
    lookoutvision-edge.service   for devices without Greengrass

The recipe is AWS IoT Greengrass's, of the format 2020-01-25.
"""

from __future__ import annotations

import ast
import hashlib
import json
import zipfile
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from airflow_provider_lookoutvision import __version__

FORMAT = 1
MODEL = "model.onnx"
MANIFEST = "manifest.json"
_PACKAGE = "airflow_provider_lookoutvision"
_PARTS = (f"{_PACKAGE}.edge", f"{_PACKAGE}.engine")
_RUNNER = "lookoutvision_edge"
_ENTRY = f"{_PACKAGE}.edge.command"
_SOCKET = "/tmp/aws.iot.lookoutvision.EdgeAgent.sock"  # noqa: S108 (where AWS's clients look for it)
_ARCHITECTURES = {"X86_64": "amd64", "ARM64": "aarch64"}
_MOMENT = (1980, 1, 1, 0, 0, 0)

_AGENT = f'''"""Runs the agent on the components in this folder: python agent.py --help"""

import sys
from pathlib import Path

from {_RUNNER}.command import main

if __name__ == "__main__":
    sys.exit(main(components=Path(__file__).resolve().parent))
'''

# Beside a Greengrass, its recipe does the same.
_UNIT = """# A device without Greengrass: unpack the component to /opt/lookoutvision/<component>, and
#   python3 -m venv /opt/lookoutvision/venv
#   /opt/lookoutvision/venv/bin/pip install -r /opt/lookoutvision/<component>/requirements.txt
# then: systemctl enable --now /opt/lookoutvision/<component>/lookoutvision-edge.service
[Unit]
Description=Detects anomalies in images for the programs on this device

[Service]
Environment=PYTHONPATH={folder}
ExecStart=/opt/lookoutvision/venv/bin/python -m {runner} --components /opt/lookoutvision --start all
Restart=on-failure
DynamicUser=yes
# The socket is in /tmp, where its clients look for it; who may use it has this group.
PrivateTmp=no
UMask=0007
NoNewPrivileges=yes
ProtectSystem=strict
ReadWritePaths=/tmp
PrivateNetwork=yes

[Install]
WantedBy=multi-user.target
"""


def requirements(accelerator: str | None) -> str:
    """What the runner needs; onnxruntime brings protobuf."""
    runtime = "onnxruntime" if accelerator is None else "onnxruntime-gpu"
    return f"{runtime}>=1.18\nnumpy>=1.26\npillow>=10.4\ngrpcio>=1.62\nprotobuf>=4.25\n"


def write_archive(path: Path, manifest: Mapping[str, Any], model: Path) -> None:
    """Write the archive; the same model and manifest make the same bytes.

    :param manifest: without ``files``, which is added.
    """
    content = model.read_bytes()
    described = {
        **manifest,
        "files": {MODEL: {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}},
    }
    files: dict[str, bytes] = {
        MANIFEST: (json.dumps(described, indent=2, ensure_ascii=False) + "\n").encode(),
        MODEL: content,
        "agent.py": _AGENT.encode(),
        "requirements.txt": requirements(manifest["target"]["accelerator"]).encode(),
        "lookoutvision-edge.service": _UNIT.format(
            folder=f"/opt/lookoutvision/{manifest['component']['name']}", runner=_RUNNER
        ).encode(),
        **{f"{_RUNNER}/{name}": source for name, source in runner()},
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name, _MOMENT), data, zipfile.ZIP_DEFLATED)


def runner() -> Iterator[tuple[str, bytes]]:
    """The runner's files: the agent's modules and those of the engine that they import, renamed."""
    waiting, seen = [_ENTRY], {_ENTRY}
    while waiting:
        module = waiting.pop()
        source = _source(module)
        for name in _imported(source):
            if name not in seen and name.startswith(_PARTS) and name not in _PARTS:
                seen.add(name)
                waiting.append(name)
        for part in _PARTS:
            source = source.replace(part, _RUNNER)
        yield f"{module.rpartition('.')[2]}.py", source.encode()
    yield "__init__.py", f'"""The agent of models on a device, version {__version__}."""\n'.encode()
    main = f"import sys\n\nfrom {_RUNNER}.command import main\n\nsys.exit(main())\n"
    yield "__main__.py", main.encode()


def _source(module: str) -> str:
    spec = find_spec(module.rpartition(".")[0])
    folder = next(iter(spec.submodule_search_locations or ())) if spec else ""
    return Path(folder, f"{module.rpartition('.')[2]}.py").read_text(encoding="utf-8")


def _imported(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module:
            if node.module in _PARTS:
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
            else:
                yield node.module


def recipe(
    manifest: Mapping[str, Any], *, archive_uri: str, publisher: str = "airflow-provider-lookoutvision"
) -> bytes:
    """The recipe of the component whose archive lies at a URI."""
    component, target = manifest["component"], manifest["target"]
    stem = archive_uri.rpartition("/")[2].removesuffix(".zip")
    folder = f"{{artifacts:decompressedPath}}/{stem}"
    python = "{work:path}/venv/bin/python"
    note = (
        ""
        if target["accelerator"] is None
        else " It uses onnxruntime-gpu and its CUDA and TensorRT providers, which has not been tried on such "
        "a device; without them it runs on the processor."
    )
    described = component["description"] or (
        f"The model {manifest['model']['version']} of the project {manifest['model']['project']}, and an "
        "agent that detects anomalies with it."
    )
    document = {
        "RecipeFormatVersion": "2020-01-25",
        "ComponentName": component["name"],
        "ComponentVersion": component["version"],
        "ComponentType": "aws.greengrass.generic",
        "ComponentDescription": described + note,
        "ComponentPublisher": publisher,
        "ComponentConfiguration": {
            "DefaultConfiguration": {"Socket": _SOCKET, "Start": "", "Python": "python3", "Threads": ""}
        },
        "Manifests": [
            {
                "Name": f"Linux {_ARCHITECTURES[target['arch']]}",
                "Platform": {"os": "linux", "architecture": _ARCHITECTURES[target["arch"]]},
                "Lifecycle": {
                    "Install": {
                        "Timeout": 1800,
                        "Script": (
                            f"{{configuration:/Python}} -m venv {{work:path}}/venv && {python} -m pip "
                            f"install --disable-pip-version-check -r {folder}/requirements.txt"
                        ),
                    },
                    "Run": {
                        "Script": (
                            f"cd {folder} && exec {python} -m {_RUNNER} "
                            "--components {artifacts:decompressedPath}/../.. --wait "
                            '--socket "{configuration:/Socket}" --start "{configuration:/Start}" '
                            '--threads "{configuration:/Threads}"'
                        )
                    },
                },
                "Artifacts": [
                    {
                        "Uri": archive_uri,
                        "Unarchive": "ZIP",
                        "Permission": {"Read": "ALL", "Execute": "ALL"},
                    }
                ],
            }
        ],
    }
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()


def digests(files: Mapping[str, bytes]) -> bytes:
    """The SHA-256 of each file, as ``sha256sum --check`` reads it."""
    return "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in files.items()).encode()
