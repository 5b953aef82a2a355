"""Files of a source, and what the service has of them after the import."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from drawn_parts import drawn
from lookout import Lookout
from PIL import Image


def write(root: Path, files: dict[str, bytes]) -> Path:
    """Files in a folder."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def image(number: int, scratched: bool = False) -> bytes:
    return drawn(number, scratched=scratched)[0]


def png(pixels: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.asarray(pixels, dtype=np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def labels(entries: list[dict[str, Any]]) -> dict[str, str | None]:
    """The label of each image, by its name."""
    return {
        each["source-ref"].rpartition("/")[2]: each.get("anomaly-label-metadata", {}).get("class-name")
        for each in entries
    }


def masks(entries: list[dict[str, Any]]) -> dict[str, dict[str, str]]:
    """The classes and colours of each mask, by the name of its image."""
    return {
        each["source-ref"].rpartition("/")[2]: {
            color["class-name"]: color["hex-color"]
            for color in each["anomaly-mask-ref-metadata"]["internal-color-map"].values()
        }
        for each in entries
        if "anomaly-mask-ref" in each
    }


def pixels(lookout: Lookout, entry: dict[str, Any]) -> Any:
    """The mask of an entry, as an array."""
    return np.asarray(Image.open(io.BytesIO(lookout.read(entry["anomaly-mask-ref"]))).convert("RGB"))


def rgb(color: str) -> list[int]:
    return list(bytes.fromhex(color[1:]))
