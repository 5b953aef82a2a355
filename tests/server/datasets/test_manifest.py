"""Manifests as users have them: what becomes of each line, and what is said of one that can't be used."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from manifest_lines import CLASSIFICATION, SEGMENTATION, compact, line, manifest, masked

from airflow_provider_lookoutvision.server.datasets.manifest import (
    LONGEST_LINE,
    Entry,
    Folder,
    InvalidLine,
    lines,
    read,
)

FOLDER = Folder.of("factory", "cameras/7/train.manifest")


def encoded(document: Any) -> bytes:
    return json.dumps(document).encode()


def changed(document: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy with one member set; ``path`` separates names by dots."""
    *names, last = path.split(".")
    copy: dict[str, Any] = json.loads(json.dumps(document))
    inner = copy
    for name in names:
        inner = inner[name]
    inner[last] = value
    return copy


def without(document: dict[str, Any], path: str) -> dict[str, Any]:
    *names, last = path.split(".")
    copy: dict[str, Any] = json.loads(json.dumps(document))
    inner = copy
    for name in names:
        inner = inner[name]
    del inner[last]
    return copy


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


def test_a_label_that_only_its_metadata_tells_of() -> None:
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


LONG = "k" * 8000


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"not JSON", "it is not JSON: Expecting value at column 1"),
        (b'{"source-ref":', "it is not JSON: Expecting value at column 15"),
        (b'{"source-ref":"s3://images/1.png"}}', "it is not JSON: Extra data at column 35"),
        (b"{'source-ref': 's3://images/1.png'}", "it is not JSON: Expecting property name"),
        (b'{"source-ref":"s3://images/1.png","n":NaN}', "it is not JSON: NaN is no value"),
        (b'{"source-ref":"s3://images/1.png","n":-Infinity}', "it is not JSON: -Infinity is no value"),
        (b'{"source-ref":"s3://images/1.png","n":1e999}', "it holds a number too large"),
        (b'{"source-ref":"s3://images/1.png","n":' + b"9" * 5000 + b"}", "it holds a number too large"),
        (b'{"source-ref":"s3://images/\xff.png"}', "it is not UTF-8 (byte 28)"),
        ('{"source-ref":"s3://images/1.png"}'.encode("utf-16"), "it is not UTF-8 (byte 1)"),
        ('{"source-ref":"s3://images/ü.png"}'.encode("latin-1"), "it is not UTF-8 (byte 28)"),
        (b'{"source-ref":"s3://images/1.png","a":"\x00"}', "it is not JSON: Invalid control character"),
        (b'{"source-ref":"s3://images/1.png","a":"\\ud800"}', "it holds half of a surrogate pair"),
        (b'{"source-ref":"s3://images/\\udfff.png"}', "it holds half of a surrogate pair"),
        (b'["source-ref"]', "it is not a JSON object"),
        (b'"s3://images/1.png"', "it is not a JSON object"),
        (b"null", "it is not a JSON object"),
        (b"{}", "it has no source-ref"),
        (b'{"Source-Ref":"s3://images/1.png"}', "it has no source-ref"),
        (b'{"source":"<html>"}', "it has no source-ref"),
        (b"{" + b" " * LONGEST_LINE + b"}", "it has more than 8192 characters"),
        (b" " * 40_000 + b"{}", "it has more than 8192 characters"),
        ('{"a":"' + "é" * 20_000 + '"}', "it has more than 8192 characters"),
        ('{"ab":"' + "é" * 20_000 + '"}', "it has more than 8192 characters"),
        ('{"abc":"' + "😀" * 20_000 + '"}', "it has more than 8192 characters"),
        ('{"abcd":"' + "😀" * 20_000 + '"}', "it has more than 8192 characters"),
        ({"source-ref": None}, "its source-ref is no text, or an empty one"),
        ({"source-ref": ["s3://images/1.png"]}, "its source-ref is no text, or an empty one"),
        ({"source-ref": ""}, "its source-ref is no text, or an empty one"),
        ({"source-ref": "/data/1.png"}, "its source-ref is '/data/1.png', not s3://bucket/key"),
        ({"source-ref": "1.png"}, "its source-ref is '1.png', not s3://bucket/key"),
        ({"source-ref": "https://images/1.png"}, "its source-ref is 'https://images/1.png', not s3://"),
        ({"source-ref": "C:\\1.png"}, "not s3://bucket/key"),
        ({"source-ref": "s3://images"}, "its source-ref is 's3://images', not s3://bucket/key"),
        ({"source-ref": "s3://images/"}, "its source-ref is 's3://images/', not s3://bucket/key"),
        ({"source-ref": "s3:///1.png"}, "its source-ref is 's3:///1.png', not s3://bucket/key"),
        ({"source-ref": "s3://ab/1.png"}, "its source-ref is 's3://ab/1.png', not s3://bucket/key"),
        ({"source-ref": "s3://im ages/1.png"}, "not s3://bucket/key"),
        ({"source-ref": "s3://images/" + "k" * 1025}, "the key in its source-ref has more than 1024 bytes"),
        ({"source-ref": "s3://images/" + "😀" * 257}, "the key in its source-ref has more than 1024 bytes"),
        ({"source-ref": "s3://images/../1.png"}, "'s3://images/../1.png' has a part that is no name"),
        ({"source-ref": "s3://images/a/./1.png"}, "has a part that is no name"),
        ({"source-ref": "s3://images/a/.."}, "has a part that is no name"),
        ({"source-ref": "s3://images/1\0.png"}, r"'s3://images/1\x00.png' has a part that is no name"),
        ({"source-ref": "\ud800" * 3}, r"its source-ref is '\ud800\ud800\ud800', not s3://"),
        ({"source-ref": "x:" + LONG}, "its source-ref is 'x:" + "k" * 98 + "...', not s3://"),
        (
            without(line(), "anomaly-label-metadata.class-name"),
            "its anomaly-label-metadata has no class-name",
        ),
        (
            changed(line(), "anomaly-label-metadata.class-name", 1),
            "its anomaly-label-metadata has no class-name",
        ),
        (
            line() | {"x\0y-metadata": {"type": CLASSIFICATION}},
            r"its 'x\x00y'-metadata has no class-name",
        ),
        (line() | {"\ud800-metadata": {"type": CLASSIFICATION}}, r"its '\ud800'-metadata has no class-name"),
        (
            line(label=None) | {f"{LONG}-metadata": {"type": CLASSIFICATION}},
            "kkk...'-metadata has no class-name",
        ),
        (
            line() | {"b-metadata": {"class-name": "anomaly", "type": CLASSIFICATION}},
            "its labels contradict each other: anomaly-label is normal, b is anomaly",
        ),
        (without(masked(), "anomaly-mask-ref"), "it has anomaly-mask-ref-metadata, but no anomaly-mask-ref"),
        (
            without(masked(), "anomaly-mask-ref-metadata"),
            "it has anomaly-mask-ref, but no anomaly-mask-ref-metadata of type groundtruth/semantic-segm",
        ),
        (without(masked(), "anomaly-mask-ref-metadata.type"), "but no anomaly-mask-ref-metadata of type"),
        (changed(masked(), "anomaly-mask-ref", 7), "its anomaly-mask-ref is no text"),
        (
            changed(masked(), "anomaly-mask-ref", "m.png"),
            "its anomaly-mask-ref is 'm.png', not s3://bucket/key",
        ),
        (
            changed(masked(), "anomaly-mask-ref", "s3://images/a/../m"),
            "its anomaly-mask-ref 's3://images/a/../m'",
        ),
        (
            changed(masked(), "anomaly-mask-ref", "s3://masks/1.png"),
            "its mask is in the bucket masks, its image in images",
        ),
        (
            line() | {"mask": "s3://images/1.png", "mask-metadata": {"type": SEGMENTATION}},
            "its mask mask must have a name that ends in -ref",
        ),
        (without(masked(), "anomaly-mask-ref-metadata.internal-color-map"), "has no internal-color-map"),
        (masked(colors={}), "its anomaly-mask-ref-metadata has no internal-color-map"),
        (masked(colors=[CRACKED]), "its anomaly-mask-ref-metadata has no internal-color-map"),
        (masked(colors={"0": "#23A436"}), "its anomaly-mask-ref-metadata has no class-name for colour '0'"),
        (masked(colors={"0": {"hex-color": "#23A436"}}), "has no class-name for colour '0'"),
        (
            masked(colors={"0": {"class-name": "cracked"}}),
            "has 'None' for 'cracked', not a colour as #23A436",
        ),
        (
            masked(colors={"0": {**CRACKED, "hex-color": "23A436"}}),
            "has '23A436' for 'cracked', not a colour",
        ),
        (
            masked(colors={"0": {**CRACKED, "hex-color": "#23A43"}}),
            "has '#23A43' for 'cracked', not a colour",
        ),
        (
            masked(colors={"0": {**CRACKED, "hex-color": "#23A43G"}}),
            "has '#23A43G' for 'cracked', not a colour",
        ),
        (
            masked(colors={str(n): {**CRACKED, "class-name": f"c{n}"} for n in range(21)}),
            "more than 20 classes",
        ),
        (masked(colors={"0": CRACKED, "1": CRACKED}), "has the class 'cracked' twice"),
    ],
)
def test_a_line_that_can_not_be_used(content: Any, reason: str) -> None:
    if isinstance(content, str):
        content = content.encode()
    elif not isinstance(content, bytes):
        content = encoded(content)
    [(_, first)] = lines(io.BytesIO(content))
    with pytest.raises(InvalidLine) as caught:
        read(first)
    assert reason in str(caught.value)
    assert len(str(caught.value)) < 500
    assert "\0" not in str(caught.value).encode().decode()


@pytest.mark.parametrize("reference", ["../1.png", "new/../1.png", "/1.png", ".", "..", "a:b/1.png"])
def test_a_relative_reference_that_leads_elsewhere(reference: str) -> None:
    with pytest.raises(InvalidLine):
        read(encoded({"source-ref": reference}), FOLDER)


def test_the_longest_line() -> None:
    document = line()
    document["comment"] = ""
    document["comment"] = "µ" * (LONGEST_LINE - len(compact(document)))
    entry = read(compact(document).encode())
    assert len(entry.line) == LONGEST_LINE
    document["comment"] += "µ"
    with pytest.raises(InvalidLine, match="more than 8192 characters"):
        read(compact(document).encode())


def test_a_line_that_grows_too_long_by_its_references() -> None:
    folder = Folder.of("factory", "folder/" * 100 + "x.manifest")
    document = {"source-ref": "1.png", "comment": ""}
    document["comment"] = "c" * (LONGEST_LINE - 10 - len(compact(document)))
    with pytest.raises(InvalidLine, match=r"it has \d+ characters; an entry has at most 8192"):
        read(encoded(document), folder)


def test_the_lines_of_a_file() -> None:
    content = b'\xef\xbb\xbf{"a":1}\r\n\r\n  \t \n{"b":2}\n\n\n{"c":3}'
    assert [(number, text.strip()) for number, text in lines(io.BytesIO(content))] == [
        (1, b'{"a":1}'),
        (4, b'{"b":2}'),
        (7, b'{"c":3}'),
    ]
    assert list(lines(io.BytesIO(b""))) == []
    assert list(lines(io.BytesIO(b"\xef\xbb\xbf"))) == []
    assert list(lines(io.BytesIO(b"\n\r\n \n"))) == []


def test_a_line_too_long_leaves_its_neighbours_alone() -> None:
    content = manifest(line("1.png"), "x" * 1_000_000, line("3.png"))
    numbered = list(lines(io.BytesIO(content)))
    assert [number for number, _ in numbered] == [1, 2, 3]
    assert read(numbered[2][1]).source_ref == "s3://images/3.png"
    assert len(numbered[1][1]) < 40_000


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
keys = st.sampled_from(
    [
        "source-ref",
        "l",
        "l-metadata",
        "m-ref",
        "m-ref-metadata",
        "type",
        "class-name",
        "internal-color-map",
        "0",
        "hex-color",
        "-metadata",
        "source-ref-metadata",
        "m-mask-ref",
    ]
) | st.text(max_size=4)
values = st.sampled_from(
    [CLASSIFICATION, SEGMENTATION, "normal", "Anomaly", "s3://bkt/1.png", "m.png", "#23A436", "\ud800", "\0"]
)  # fmt: skip
documents = st.recursive(
    values | json_values, lambda inner: st.dictionaries(keys, inner, max_size=5), max_leaves=30
)

# No deadline: other programs may have the machine. No database: it would be a folder in the source tree.
invented = settings(deadline=None, database=None)


def _check(content: bytes) -> None:
    """Whatever a line is, it becomes an entry that stays itself, or is refused in words that can be kept."""
    entry = _read_or_refuse(content)
    if isinstance(entry, InvalidLine):
        assert len(str(entry).encode()) < 2000
        assert "\0" not in str(entry)
        return
    assert read(entry.line.encode(), FOLDER) == entry
    assert len(entry.line) <= LONGEST_LINE
    assert "\n" not in entry.line
    assert "\0" not in entry.line
    assert json.loads(entry.line)["source-ref"] == entry.source_ref
    assert entry.source_ref.startswith(f"s3://{entry.bucket}/")
    assert len(entry.source_ref.encode()) <= 1100


def _read_or_refuse(content: bytes) -> Entry | InvalidLine:
    try:
        return read(content, FOLDER)
    except InvalidLine as refusal:
        return refusal


@pytest.mark.parametrize(("begin", "end"), [("[", "]"), ('{"a":', "}")])
@pytest.mark.parametrize("depth", [10, 900, *range(970, 1010, 3), 1300])
def test_any_depth(begin: str, end: str, depth: int) -> None:
    # Which depths can be read differs between versions of Python.
    _check(f'{{"source-ref":"s3://bkt/1.png","n":{begin * depth}1{end * depth}}}'.encode())


@invented
@given(documents)
def test_any_document(document: Any) -> None:
    _check(json.dumps(document).encode())


@invented
@given(st.dictionaries(keys, documents, max_size=5))
def test_any_document_that_names_an_image(document: dict[str, Any]) -> None:
    _check(json.dumps({"source-ref": "s3://bkt/1.png", **document}).encode())


@invented
@given(st.binary())
def test_any_bytes(content: bytes) -> None:
    _check(content)
    for number, text in lines(io.BytesIO(content)):
        assert number >= 1
        _check(text)
