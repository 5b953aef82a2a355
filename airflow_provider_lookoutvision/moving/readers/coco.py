"""COCO: an image with an annotation is an anomaly, one without is normal; outlines become its mask."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from airflow_provider_lookoutvision.moving.errors import MovingError
from airflow_provider_lookoutvision.moving.painting import Region
from airflow_provider_lookoutvision.moving.readers.annotations import Annotated, ImageFinder, entries
from airflow_provider_lookoutvision.moving.reading import Options, Reading, dataset_named
from airflow_provider_lookoutvision.moving.sources import Source


def is_coco(document: Any) -> bool:
    """Whether a JSON document has images, annotations and categories."""
    return isinstance(document, dict) and {"images", "annotations", "categories"} <= document.keys()


def read_coco(source: Source, documents: Mapping[str, Any], options: Options) -> Reading:
    """The images of one or more files, each for the dataset that its path names.

    A category that ``options`` maps to normal is no defect.
    """
    made = []
    remarks = []
    for name, document in documents.items():
        dataset = options.dataset or dataset_named(name) or "train"
        boxes: list[int] = []
        made += entries(_images(source, name, document, options, boxes), dataset, options)
        if boxes and options.masks:
            remarks.append(f"{len(boxes)} annotations of {name} have no outline: their boxes are painted")
    return Reading(made, remarks)


def _images(
    source: Source, name: str, document: Any, options: Options, boxes: list[int]
) -> Iterator[Annotated]:
    where = f"{source.uri}{name}"
    finder = ImageFinder(source, name[: name.rfind("/") + 1])
    try:
        names = {each["id"]: str(each["name"]) for each in document["categories"]}
        regions: dict[Any, list[Region]] = {each["id"]: [] for each in document["images"]}
        for each in document["annotations"]:
            category = names[each["category_id"]]
            if options.every_label.get(category.lower()) != "normal":
                regions[each["image_id"]].append(Region(category, _shape(each, boxes)))
        for image in document["images"]:
            reference = image["file_name"]
            if str(image.get("coco_url", "")).startswith("s3://"):
                reference = image["coco_url"]
            yield Annotated(
                finder.find(reference),
                "anomaly" if regions[image["id"]] else "normal",
                regions[image["id"]],
                (image.get("width"), image.get("height")),
                f"{where}, image {image['id']} ({image['file_name']})",
            )
    except (KeyError, TypeError, ValueError) as error:
        raise MovingError(f"{where} is not in the format of COCO: {type(error).__name__} {error}") from error


def _shape(annotation: Mapping[str, Any], boxes: list[int]) -> Any:
    shape = annotation.get("segmentation")
    if shape:
        return shape
    x, y, width, height = map(float, annotation["bbox"])
    boxes.append(1)
    return [[x, y, x + width, y, x + width, y + height, x, y + height]]
