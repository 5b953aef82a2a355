"""Label Studio's exports, JSON and JSON-MIN: a choice is the label, what is marked becomes the mask.

Without a choice, an image in which something is marked is an anomaly, an annotated one without is normal, and
one that nobody has annotated has no label.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_lookoutvision.moving.errors import MovingError
from airflow_provider_lookoutvision.moving.painting import Region, check_size
from airflow_provider_lookoutvision.moving.readers.annotations import Annotated, ImageFinder, entries
from airflow_provider_lookoutvision.moving.reading import (
    IMAGE_NAMES,
    Options,
    Reading,
    dataset_named,
    unknown_labels,
)
from airflow_provider_lookoutvision.moving.sources import Source

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_KINDS = ("brushlabels", "polygonlabels", "rectanglelabels", "ellipselabels")
_CORNERS = 64  # of the outline of an ellipse


def is_label_studio(document: Any) -> bool:
    """Whether a JSON document is a list of tasks."""
    first = document[0] if isinstance(document, list) and document else None
    return isinstance(first, dict) and (
        isinstance(first.get("data"), dict) or ("annotation_id" in first and "source-ref" not in first)
    )


def read_label_studio(source: Source, name: str, document: Any, options: Options) -> Reading:
    """The images of an export."""
    where = f"{source.uri}{name}"
    finder = ImageFinder(source, name[: name.rfind("/") + 1])
    unknown: Counter[str] = Counter()
    other: Counter[str] = Counter()
    try:
        images = list(_images(finder, document, where, options, unknown, other))
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise MovingError(
            f"{where} is not an export of Label Studio: {type(error).__name__} {error}"
        ) from error
    if unknown:
        raise unknown_labels(unknown, where)
    remarks = [f"{count} annotations of type {kind} are left out" for kind, count in other.items()]
    return Reading(entries(images, options.dataset or dataset_named(name) or "train", options), remarks)


def _images(
    finder: ImageFinder,
    document: Any,
    where: str,
    options: Options,
    unknown: Counter[str],
    other: Counter[str],
) -> Iterator[Annotated]:
    for task in document:
        place = f"{where}, task {task.get('id')}"
        reference = _image(task.get("data", task), place)
        results = _results(task)
        regions, choices, size = [], [], (None, None)
        for each in results or ():
            kind = each["type"]
            if kind == "choices":
                choices += each["value"]["choices"]
            elif kind in _KINDS:
                size = (each["original_width"], each["original_height"])
                regions += [
                    Region(name, _shape(kind, each, *check_size(*size, place)))
                    for name in each["value"][kind]
                    if options.every_label.get(name.lower()) != "normal"
                ]
            else:
                other[kind] += 1
        label = "anomaly" if regions else None if results is None else "normal"
        if choices:
            label = options.every_label.get(choices[0].lower())
            unknown[choices[0]] += label is None
        yield Annotated(finder.find(reference), label, regions, size, place)
    for name in [name for name, count in unknown.items() if not count]:
        del unknown[name]


def _image(data: Mapping[str, Any], where: str) -> str:
    images = [
        value
        for value in data.values()
        if isinstance(value, str) and value.partition("?")[0].lower().endswith(IMAGE_NAMES)
    ] or [value for value in data.values() if isinstance(value, str) and "?d=" in value]
    if not images:
        raise MovingError(f"{where} has no JPEG or PNG image")
    return images[0]


def _results(task: Mapping[str, Any]) -> list[Any] | None:
    """What the last annotation says that wasn't cancelled, the ground truth before others."""
    if "data" not in task:  # JSON-MIN
        found = [{"type": "choices", "value": {"choices": [task["choice"]]}} for _ in range("choice" in task)]
        for value in task.values():
            for each in value if isinstance(value, list) else ():
                kinds = [kind for kind in _KINDS if isinstance(each, dict) and kind in each]
                found += [{"type": kind, "value": each, **each} for kind in kinds]
        return found
    annotations = [each for each in task.get("annotations", ()) if not each.get("was_cancelled")]
    if not annotations:
        return None
    best = max(
        annotations, key=lambda each: (bool(each.get("ground_truth")), str(each.get("updated_at", "")))
    )
    results: list[Any] = best["result"]
    return results


def _shape(kind: str, result: Mapping[str, Any], width: int, height: int) -> Any:
    value = result["value"]
    if kind == "brushlabels":
        return alpha(value["rle"], width, height)
    if kind == "polygonlabels":
        points = [(x * width / 100, y * height / 100) for x, y in value["points"]]
    elif kind == "rectanglelabels":
        corners = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))
        points = [
            _turned(
                value, value["width"] * x * width / 100, value["height"] * y * height / 100, width, height
            )
            for x, y in corners
        ]
    else:
        angles = [2 * math.pi * number / _CORNERS for number in range(_CORNERS)]
        points = [
            _turned(
                value,
                value["radiusX"] * math.cos(angle) * width / 100,
                value["radiusY"] * math.sin(angle) * height / 100,
                width,
                height,
            )
            for angle in angles
        ]
    return [[coordinate for point in points for coordinate in point]]


def _turned(value: Mapping[str, Any], x: float, y: float, width: int, height: int) -> tuple[float, float]:
    """A point beside the region's own place, turned about that, in pixels."""
    angle = math.radians(value.get("rotation") or 0)
    return (
        value["x"] * width / 100 + x * math.cos(angle) - y * math.sin(angle),
        value["y"] * height / 100 + x * math.sin(angle) + y * math.cos(angle),
    )


def alpha(packed: list[int], width: int, height: int) -> NDArray[np.bool_]:
    """The pixels of a brush: where the fourth channel of the packed RGBA image isn't 0.

    The packing, of the library @thi.ng/rle-pack, is a stream of bits: the number of values in 32; the bits of
    a value, less 1, in 5; four lengths of counts, less 1, in 4 each. Then runs: 1 and one value, or 0 and
    several, after the index of the length of their count, in 2, and the count, less 1.

    :raises ValueError: when it isn't as long as the image, or ends too early.
    """
    import numpy as np

    data = bytes(packed)
    read = 0

    def take(count: int) -> int:
        nonlocal read
        first, read = read, read + count
        last = -(-read // 8)
        if last > len(data):
            raise ValueError("a brush stroke ends too early")
        bits = int.from_bytes(data[first // 8 : last]) >> (last * 8 - read)
        return bits & ((1 << count) - 1)

    total = take(32)
    if total != width * height * 4:
        raise ValueError(f"a brush stroke has {total} values, and its image {width} x {height} pixels")
    word = take(5) + 1
    lengths = [take(4) + 1 for _ in range(4)]
    values = np.zeros(total, dtype=np.uint8)
    at = 0
    while at < total:
        repeated = take(1)
        end = at + 1 + take(lengths[take(2)])
        if end > total:
            raise ValueError("a brush stroke is longer than its image")
        values[at:end] = take(word) & 255 if repeated else [take(word) & 255 for _ in range(end - at)]
        at = end
    pixels: NDArray[np.bool_] = values.reshape(height, width, 4)[:, :, 3] > 0
    return pixels
