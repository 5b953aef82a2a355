"""Ground Truth JSON Lines: manifests of users, read line by line into entries.

A manifest has one JSON object a line. Its ``source-ref`` names an image. A key of any name that has a
companion ``<key>-metadata`` of type ``groundtruth/image-classification`` is a label: the companion's
``class-name`` counts, the value of the label itself is ignored; one without it, or with a name that is
neither normal nor anomaly, is no label. A key ending in ``-ref`` with a companion of type
``groundtruth/semantic-segmentation`` is a mask, with a map of colours. All else is kept as it came.

Reading is lenient, as real manifests need it: dates in any form, colour maps without a background, class
names in capitals, confidences or ``human-annotated`` left out, references relative to the manifest's own
place. Entries are strict: compact JSON, absolute references, lower-case class names, labels 1 for anomaly and
0 for normal.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from airflow_provider_lookoutvision.server.storage.buckets import is_key

MAX_LINE_LENGTH = 8192
MAX_KEY_BYTES = 1024  # as in S3
MAX_MASK_CLASSES = 20
BACKGROUND = "background"

CLASSIFICATION = "groundtruth/image-classification"
SEGMENTATION = "groundtruth/semantic-segmentation"

_S3_URI = re.compile(r"s3://([0-9A-Za-z.\-_]{3,63})/(.+)", re.DOTALL)
_MAX_LINE_BYTES = 4 * MAX_LINE_LENGTH + 2
_HEX_COLOR = re.compile(r"#[0-9A-Fa-f]{6}")
_MAX_SHOWN = 100


class InvalidLine(ValueError):
    """A line that can't be an entry; the message is the reason, for the user."""


class FolderReference(InvalidLine):
    """A line whose image is a folder: tools list the empty objects that the S3 console makes for folders."""

    def __init__(self, source_ref: str) -> None:
        super().__init__(f"its source-ref {shown(source_ref)} is a folder, not an image")
        self.source_ref = source_ref


@dataclass(frozen=True)
class Entry:
    """One image of a dataset.

    :param source_ref: where the image is, ``s3://bucket/key``.
    :param label: ``normal``, ``anomaly`` or None.
    :param line: the entry as the API returns it.
    """

    source_ref: str
    bucket: str
    label: str | None
    line: str


@dataclass(frozen=True)
class Folder:
    """The folder of a manifest, where relative references start."""

    bucket: str
    prefix: str

    @classmethod
    def of(cls, bucket: str, key: str) -> Folder:
        """The folder of the object ``key``."""
        return cls(bucket, key[: key.rfind("/") + 1])


class Lines(Protocol):
    """A stream that lines can be read from."""

    def readline(self, limit: int, /) -> bytes:
        """A line, or the first ``limit`` bytes of it; nothing at the end."""


def lines(stream: Lines) -> Iterator[tuple[int, bytes]]:
    """The lines of a manifest that aren't blank, with their numbers from 1.

    A line longer than an entry can be is cut off there, so that no file exhausts the memory.
    """
    number = 0
    while chunk := stream.readline(_MAX_LINE_BYTES):
        number += 1
        line = chunk
        while chunk and not chunk.endswith(b"\n"):
            chunk = stream.readline(_MAX_LINE_BYTES)
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if line.strip() or len(line) == _MAX_LINE_BYTES:
            yield number, line


def read(line: bytes, folder: Folder | None = None) -> Entry:
    """Read one line.

    :param folder: where relative references start; without it they are refused.
    :raises FolderReference: when its image is a folder.
    :raises InvalidLine: with the reason.
    """
    document = _parse(line)
    if "source-ref" not in document:
        raise InvalidLine("it has no source-ref")
    source_ref, bucket = _reference(document, "source-ref", folder)
    if source_ref.endswith("/"):
        raise FolderReference(source_ref)
    label = _normalise_label(document)
    _normalise_masks(document, folder)
    text = _dump(document)
    if len(text) > MAX_LINE_LENGTH:
        raise InvalidLine(f"it has {len(text)} characters; an entry has at most {MAX_LINE_LENGTH}")
    return Entry(source_ref, bucket, label, text)


@dataclass(frozen=True)
class Mask:
    """An entry's mask: where it is, the colour of each class, and those that are declared background."""

    source_ref: str
    colors: dict[str, str]
    background: tuple[str, ...] = ()


def mask_of(line: str) -> Mask | None:
    """The mask of an entry as the API returns it; the first of several."""
    document = json.loads(line)
    for key, metadata in companions(document, SEGMENTATION):
        entries = metadata["internal-color-map"].values()
        colors = {entry["class-name"]: entry["hex-color"].upper() for entry in entries}
        painted = {name: color for name, color in colors.items() if name.lower() != BACKGROUND}
        background = tuple(color for name, color in colors.items() if name.lower() == BACKGROUND)
        return Mask(document[key], painted, background)
    return None


def class_names(line: str) -> list[str | None]:
    """The class names of an entry's labels as they came; None for a label without one."""
    return [_class_name(metadata) for _, metadata in companions(json.loads(line), CLASSIFICATION)]


def _parse(line: bytes) -> dict[str, Any]:
    too_long = InvalidLine(f"it has more than {MAX_LINE_LENGTH} characters")
    if len(line) >= _MAX_LINE_BYTES:
        raise too_long  # cut off, maybe within a character
    try:
        text = line.decode().strip()
    except UnicodeDecodeError as error:
        raise InvalidLine(f"it is not UTF-8 (byte {error.start + 1})") from None
    if len(text) > MAX_LINE_LENGTH:
        raise too_long
    try:
        document = json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise InvalidLine(f"it is not JSON: {error.msg} at column {error.colno}") from None
    except InvalidLine:
        raise
    except ValueError:
        raise InvalidLine("it holds a number too large") from None
    except RecursionError:
        raise InvalidLine("it is nested too deeply") from None
    if not isinstance(document, dict):
        raise InvalidLine("it is not a JSON object")
    return document


def _refuse_constant(name: str) -> Any:
    raise InvalidLine(f"it is not JSON: {name} is no value")


def _dump(document: dict[str, Any]) -> str:
    try:
        text = json.dumps(document, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        text.encode()
    except UnicodeEncodeError:
        raise InvalidLine("it holds half of a surrogate pair") from None
    except ValueError:
        raise InvalidLine("it holds a number too large") from None
    except RecursionError:
        raise InvalidLine("it is nested too deeply") from None
    return text


def _reference(document: dict[str, Any], key: str, folder: Folder | None) -> tuple[str, str]:
    value = document[key]
    if not isinstance(value, str) or not value:
        raise InvalidLine(f"its {_name(key)} is not a string, or is empty")
    uri = value
    relative = ":" not in value.split("/", 1)[0] and not value.startswith("/")
    if folder and relative:
        uri = f"s3://{folder.bucket}/{folder.prefix}{value.removeprefix('./')}"
    match = _S3_URI.fullmatch(uri)
    if not match:
        raise InvalidLine(f"its {_name(key)} is {shown(value)}, not s3://bucket/key")
    if not is_key(match[2]):
        raise InvalidLine(f"its {_name(key)} {shown(value)} has a part that is no name")
    if len(match[2].encode(errors="surrogatepass")) > MAX_KEY_BYTES:
        raise InvalidLine(f"the key in its {_name(key)} has more than {MAX_KEY_BYTES} bytes")
    document[key] = uri
    return uri, match[1]


def companions(document: dict[str, Any], kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The keys that have a companion of this type, and the companions."""
    for key, metadata in list(document.items()):
        described = key.removesuffix("-metadata")
        if described in {key, "source-ref"} or not isinstance(metadata, dict):
            continue
        if metadata.get("type") == kind:
            yield described, metadata


def _normalise_label(document: dict[str, Any]) -> str | None:
    found: dict[str, str] = {}
    for key, metadata in companions(document, CLASSIFICATION):
        label = (_class_name(metadata) or "").strip().lower()
        if label in {"normal", "anomaly"}:
            metadata["class-name"] = label
            document[key] = int(label == "anomaly")
            found[key] = label
    if len(set(found.values())) > 1:
        raise InvalidLine(
            f"its labels contradict each other: {', '.join(f'{_name(k)} is {v}' for k, v in found.items())}"
        )
    return next(iter(found.values()), None)


def _class_name(metadata: dict[str, Any]) -> str | None:
    name = metadata.get("class-name")
    return name if isinstance(name, str) else None


def _normalise_masks(document: dict[str, Any], folder: Folder | None) -> None:
    masks = dict(companions(document, SEGMENTATION))
    for key, metadata in masks.items():
        if not key.endswith("-ref"):
            raise InvalidLine(f"its mask {_name(key)} must have a name that ends in -ref")
        if key not in document:
            raise InvalidLine(f"it has {_name(key)}-metadata, but no {_name(key)}")
        mask_ref, _ = _reference(document, key, folder)
        if mask_ref.endswith("/"):
            raise InvalidLine(f"its mask {_name(key)} {shown(mask_ref)} is a folder")
        _check_colors(f"{_name(key)}-metadata", metadata.get("internal-color-map"))
    for key in document:
        if key.endswith("-mask-ref") and key not in masks:
            raise InvalidLine(f"it has {_name(key)}, but no {_name(key)}-metadata of type {SEGMENTATION}")


def _check_colors(where: str, color_map: Any) -> None:
    if not isinstance(color_map, dict) or not color_map:
        raise InvalidLine(f"its {where} has no internal-color-map")
    names: list[str] = []
    colors: dict[bool, set[str]] = {True: set(), False: set()}
    for index, entry in color_map.items():
        name = entry.get("class-name") if isinstance(entry, dict) else None
        color = entry.get("hex-color") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not name:
            raise InvalidLine(f"its {where} has no class-name for colour {shown(index)}")
        if color is None:
            raise InvalidLine(f"its {where} has no hex-color for {shown(name)}, as #23A436")
        if not isinstance(color, str) or not _HEX_COLOR.fullmatch(color):
            raise InvalidLine(f"its {where} has {shown(color)} for {shown(name)}, not a colour as #23A436")
        if name in names:
            raise InvalidLine(f"its {where} has the class {shown(name)} twice")
        names.append(name)
        colors[name.lower() == BACKGROUND].add(color.upper())
    if ambiguous := colors[True] & colors[False]:
        raise InvalidLine(f"its {where} has {min(ambiguous)} for the background and for a class")
    if sum(name.lower() != BACKGROUND for name in names) > MAX_MASK_CLASSES:
        raise InvalidLine(f"its {where} has more than {MAX_MASK_CLASSES} classes")


def _name(key: str) -> str:
    # Any text may be a key, and not every text may be in a message.
    return key if key.isprintable() and len(key) <= _MAX_SHOWN else shown(key)


def shown(value: Any) -> str:
    """A value of a manifest for a message: quoted, on one line, and not too long."""
    text = str(value)
    return repr(text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "...")
