"""Manifests as users have them: which entry each line becomes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from manifest_lines import (
    CLASSIFICATION,
    SEGMENTATION,
    changed,
    compact,
    encoded,
    line,
    masked,
    without,
)

from airflow_provider_lookoutvision.server.datasets.manifest import (
    Folder,
    read,
)

FOLDER = Folder.of("factory", "cameras/7/train.manifest")


@pytest.mark.parametrize("label", ["normal", "anomaly"])
def test_a_line_as_documented(label: str) -> None:
    entry = read(encoded(line("a/b c.png", label)))
    assert (entry.source_ref, entry.bucket, entry.label) == ("s3://images/a/b c.png", "images", label)
    assert entry.line == compact(line("a/b c.png", label))


@pytest.mark.parametrize("value", [0, 1, "0", "1", 7, -1, 0.5, None, "anomaly", [], {}, True])
@pytest.mark.parametrize("label", ["normal", "anomaly"])
def test_the_value_of_a_label_means_nothing(label: str, value: Any) -> None:
    # Published tools write 1 for normal, or "0" as a text; only the class name counts.
    entry = read(encoded(changed(line(label=label), "anomaly-label", value)))
    assert entry.label == label
    assert json.loads(entry.line)["anomaly-label"] == (1 if label == "anomaly" else 0)
    assert type(json.loads(entry.line)["anomaly-label"]) is int


@pytest.mark.parametrize("key", ["anomaly-label", "auto-label", "Überprüfung", "标签", "a b.c", "x-ref", ""])
def test_a_label_may_have_any_name(key: str) -> None:
    document = line(label=None)
    document[key] = "1"
    document[f"{key}-metadata"] = {"class-name": "anomaly", "type": CLASSIFICATION}
    entry = read(encoded(document))
    assert entry.label == "anomaly"
    assert json.loads(entry.line)[key] == 1
    assert key in entry.line  # not escaped


@pytest.mark.parametrize("written", ["Anomaly", "ANOMALY", "anomaly ", " aNomaly\t"])
def test_class_names_in_any_case(written: str) -> None:
    entry = read(encoded(changed(line(), "anomaly-label-metadata.class-name", written)))
    assert entry.label == "anomaly"
    assert json.loads(entry.line)["anomaly-label-metadata"]["class-name"] == "anomaly"


@pytest.mark.parametrize("name", ["scratch", "good", "abnormal", "normal anomaly", "0", "", "nörmal"])
def test_another_class_name_is_no_label(name: str) -> None:
    document = changed(line(), "anomaly-label-metadata.class-name", name)
    entry = read(encoded(document))
    assert entry.label is None
    assert entry.line == compact(document)


@pytest.mark.parametrize(
    "document",
    [
        line(label=None),
        line(label=None) | {"anomaly-label": 1},
        without(line(), "anomaly-label-metadata.type"),
        without(line(), "anomaly-label-metadata.class-name"),
        changed(line(), "anomaly-label-metadata.class-name", 1),
        changed(line(), "anomaly-label-metadata.class-name", None),
        changed(line(), "anomaly-label-metadata", "normal"),
        changed(line(), "anomaly-label-metadata.type", "groundtruth/object-detection"),
        line(label=None) | {"source-ref-metadata": {"creation-date": "2022-08-22"}},
    ],
)
def test_a_line_without_a_label(document: dict[str, Any]) -> None:
    entry = read(encoded(document))
    assert entry.label is None
    assert entry.line == compact(document)


@pytest.mark.parametrize(
    "document",
    [
        without(line(), "anomaly-label-metadata.confidence"),
        without(line(), "anomaly-label-metadata.human-annotated"),
        without(line(), "anomaly-label-metadata.creation-date"),
        without(line(), "anomaly-label-metadata.job-name"),
        changed(line(), "anomaly-label-metadata.human-annotated", "no"),
        changed(line(), "anomaly-label-metadata.confidence", "0.98"),
        changed(
            line(),
            "anomaly-label-metadata.creation-date",
            "Mon Aug 22 2022 13:52:52 GMT-0700 (Pacific Daylight Time)",
        ),
        changed(line(), "anomaly-label-metadata.creation-date", 1661201571851),
        changed(line(), "anomaly-label-metadata.creation-date", None),
        line() | {"lot": 7, "camera": {"x": [1, 2.5, None, True]}, "größe": "µm"},
        line("图像/零件 1.png"),
        line("a//b?c=d&e#f%20g.png"),
    ],
)
def test_what_need_not_be_understood_stays_as_it_came(document: dict[str, Any]) -> None:
    entry = read(encoded(document))
    assert entry.label == "normal"
    assert entry.line == compact(document)


def test_a_label_that_has_only_metadata() -> None:
    entry = read(encoded(without(line(label="anomaly"), "anomaly-label")))
    assert json.loads(entry.line) == line(label="anomaly")


def test_labels_that_agree() -> None:
    document = line(label="anomaly") | {
        "second": 0,
        "second-metadata": {"class-name": "Anomaly", "type": CLASSIFICATION},
        "third-metadata": {"class-name": "dented", "type": CLASSIFICATION},
    }
    entry = read(encoded(document))
    assert entry.label == "anomaly"
    assert json.loads(entry.line)["second"] == 1


@pytest.mark.parametrize("kind", [CLASSIFICATION, SEGMENTATION])
def test_the_image_itself_is_neither_label_nor_mask(kind: str) -> None:
    document = line(label=None) | {"source-ref-metadata": {"class-name": "normal", "type": kind}}
    entry = read(encoded(document))
    assert (entry.label, entry.line) == (None, compact(document))


BACKGROUND = {"class-name": "BACKGROUND", "hex-color": "#ffffff"}


CRACKED = {"class-name": "cracked", "hex-color": "#23A436"}


@pytest.mark.parametrize(
    "colors",
    [
        {"0": BACKGROUND, "1": CRACKED},
        {"0": {**BACKGROUND, "confidence": 0}, "1": {**CRACKED, "confidence": 1.0}},
        {"0": CRACKED},  # no background at all: so are AWS's own examples
        {"1": CRACKED},
        {"0": CRACKED, "1": BACKGROUND},
        {"0": BACKGROUND},
        {"0": BACKGROUND}
        | {str(n): {"class-name": f"c{n}", "hex-color": f"#0000{n:02x}"} for n in range(1, 21)},
        {"first": CRACKED},
    ],
)
def test_maps_of_colours(colors: dict[str, Any]) -> None:
    document = masked(colors=colors)
    entry = read(encoded(document))
    assert (entry.label, entry.line) == ("anomaly", compact(document))


def test_a_normal_image_with_the_dummy_mask_that_all_share() -> None:
    document = line(label="normal") | {
        "mask-ref": "s3://images/dummy-16x16.png",
        "mask-ref-metadata": {"internal-color-map": {"0": BACKGROUND}, "type": SEGMENTATION},
    }
    entry = read(encoded(document))
    assert (entry.label, entry.line) == ("normal", compact(document))


def test_a_mask_with_a_date_as_javascript_writes_it_and_little_else() -> None:
    document = masked()
    document["anomaly-mask-ref-metadata"] = {
        "internal-color-map": {"0": CRACKED},
        "creation-date": "Mon Aug 22 2022 13:52:52 GMT-0700 (Pacific Daylight Time)",
        "type": SEGMENTATION,
    }
    assert read(encoded(document)).line == compact(document)


def test_a_mask_in_another_bucket() -> None:
    document = changed(masked(), "anomaly-mask-ref", "s3://masks/1.png")
    entry = read(encoded(document))
    assert (entry.bucket, entry.line) == ("images", compact(document))


def test_a_mask_without_a_label() -> None:
    document = masked()
    del document["anomaly-label"], document["anomaly-label-metadata"]
    assert read(encoded(document)).label is None


@pytest.mark.parametrize(
    ("reference", "becomes"),
    [
        ("1.png", "s3://factory/cameras/7/1.png"),
        ("./1.png", "s3://factory/cameras/7/1.png"),
        ("new/1.png", "s3://factory/cameras/7/new/1.png"),
        ("s3://factory/1.png", "s3://factory/1.png"),
        ("s3://else/where.png", "s3://else/where.png"),
    ],
)
def test_references_relative_to_the_manifest(reference: str, becomes: str) -> None:
    document = line() | {"source-ref": reference}
    assert read(encoded(document), FOLDER).source_ref == becomes
    assert json.loads(read(encoded(document), FOLDER).line)["source-ref"] == becomes


def test_a_mask_relative_to_the_manifest() -> None:
    document = masked() | {"source-ref": "1.jpg", "anomaly-mask-ref": "masks/1.png"}
    entry = json.loads(read(encoded(document), FOLDER).line)
    assert entry["anomaly-mask-ref"] == "s3://factory/cameras/7/masks/1.png"


def test_a_manifest_at_the_top_of_its_bucket() -> None:
    assert read(encoded({"source-ref": "1.png"}), Folder.of("factory", "train.manifest")).source_ref == (
        "s3://factory/1.png"
    )
