"""Images of the user's own, from a folder.

Either ``normal/`` and ``anomaly/`` with JPEG or PNG files, and, if you have masks, ``masks/`` with a PNG of
the same name for each anomalous image; or a Ground Truth ``*.manifest`` and the files it refers to,
whatever bucket it says that they are in.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from airflow_provider_lookoutvision.manifests import is_image
from example_dags.demo.masks import places
from example_dags.demo.samples import NoImages, Sample

COLOR = "#D6272C"
_LEAST_MASKS = 20
_WANTED = (
    "give a folder with normal/ and anomaly/, each with JPEG or PNG files, and, if you have masks, masks/; "
    "or a folder with a *.manifest"
)


def read(folder: Path) -> tuple[str, list[Sample]]:
    """What the images of a folder are, for people, and the images.

    :raises NoImages: when it has none, or its manifest refers to what isn't there.
    """
    if not folder.is_dir():
        raise NoImages(f"{folder} is not a folder: {_WANTED}")
    if manifests := sorted(folder.glob("*.manifest")):
        return str(manifests[0]), _of_manifest(manifests[0])
    samples = [sample for label in ("normal", "anomaly") for sample in _labelled(folder, label)]
    masks = sum(sample.mask is not None for sample in samples)
    if masks >= _LEAST_MASKS or not masks:
        return str(folder), samples
    # Too few to learn from; the images without them are worth more than an error.
    source = f"{folder}, without its {masks} masks: to learn from masks takes {_LEAST_MASKS}"
    return source, [Sample(sample.name, sample.image, sample.defect) for sample in samples]


def _labelled(folder: Path, label: str) -> list[Sample]:
    files = [file for file in sorted((folder / label).glob("*")) if is_image(file.name)]
    if not files:
        raise NoImages(f"{folder} has no images in {label}/: {_WANTED}")
    samples = []
    for file in files:
        mask = folder / "masks" / f"{file.stem}.png"
        name, image = f"{label}/{file.name}", file.read_bytes()
        if label == "normal":
            samples.append(Sample(name, image, None))
        elif mask.exists():
            samples.append(Sample(name, image, "defect", _repainted(mask), {"defect": COLOR}))
        else:
            samples.append(Sample(name, image, "anomaly"))
    return samples


def _repainted(mask: Path) -> bytes:
    """The mask in the demo's colours. Tools disagree on which colour is the background: most of it is."""
    original = Image.open(mask).convert("RGB")
    counts: Any = original.getcolors(original.width * original.height)
    background = max(counts)[1]
    repainted = Image.new("RGB", original.size, "#FFFFFF")
    repainted.paste(COLOR, mask=ImageOps.invert(places(original, background)))
    content = io.BytesIO()
    repainted.save(content, "PNG")
    return content.getvalue()


def _of_manifest(manifest: Path) -> list[Sample]:
    samples = []
    for number, text in enumerate(manifest.read_text().splitlines(), start=1):
        if not text.strip():
            continue
        try:
            samples.append(_of_line(manifest.parent, json.loads(text), f"{number:05}"))
        except (LookupError, ValueError, OSError) as error:
            raise NoImages(f"{manifest}, line {number}: {error}") from error
    return samples


def _of_line(folder: Path, line: dict[str, Any], number: str) -> Sample:
    file = _found(folder, line["source-ref"])
    name, image = f"{number}/{file.name}", file.read_bytes()
    metadata = {key: value for key, value in line.items() if isinstance(value, dict)}
    label = next((m["class-name"] for m in metadata.values() if "class-name" in m), None)
    if label is None:
        raise ValueError(f"{line['source-ref']} has no label: label it, or leave its line out")
    if label.lower() == "normal":
        return Sample(name, image, None)
    for key, value in metadata.items():
        if colors := value.get("internal-color-map"):
            named = {each["class-name"]: each["hex-color"] for each in colors.values()}
            classes = {name: color for name, color in named.items() if name.lower() != "background"}
            mask = _found(folder, line[key.removesuffix("-metadata")]).read_bytes()
            return Sample(name, image, ", ".join(classes), mask, classes)
    return Sample(name, image, "anomaly")


def _found(folder: Path, reference: str) -> Path:
    """The file that a reference means, by as much of its end as there is."""
    names = reference.removeprefix("s3://").split("/")
    for first in range(len(names)):
        file = folder.joinpath(*names[first:])
        if file.is_file():
            return file
    raise FileNotFoundError(f"{reference} is not in {folder}")
