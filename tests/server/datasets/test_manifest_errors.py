"""Lines of manifests that can't be used, each with its reason; and any bytes at all."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from manifest_lines import (
    CLASSIFICATION,
    SEGMENTATION,
    changed,
    compact,
    encoded,
    line,
    manifest,
    masked,
    without,
)

from airflow_provider_lookoutvision.server.datasets.manifest import (
    MAX_LINE_LENGTH,
    Entry,
    Folder,
    InvalidLine,
    lines,
    read,
)

FOLDER = Folder.of("factory", "cameras/7/train.manifest")
CRACKED = {"class-name": "cracked", "hex-color": "#23A436"}
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
        (b"{" + b" " * MAX_LINE_LENGTH + b"}", "it has more than 8192 characters"),
        (b" " * 40_000 + b"{}", "it has more than 8192 characters"),
        ('{"a":"' + "é" * 20_000 + '"}', "it has more than 8192 characters"),
        ('{"ab":"' + "é" * 20_000 + '"}', "it has more than 8192 characters"),
        ('{"abc":"' + "😀" * 20_000 + '"}', "it has more than 8192 characters"),
        ('{"abcd":"' + "😀" * 20_000 + '"}', "it has more than 8192 characters"),
        ({"source-ref": None}, "its source-ref is not a string, or is empty"),
        ({"source-ref": ["s3://images/1.png"]}, "its source-ref is not a string, or is empty"),
        ({"source-ref": ""}, "its source-ref is not a string, or is empty"),
        ({"source-ref": "/data/1.png"}, "its source-ref is '/data/1.png', not s3://bucket/key"),
        ({"source-ref": "1.png"}, "its source-ref is '1.png', not s3://bucket/key"),
        ({"source-ref": "https://images/1.png"}, "its source-ref is 'https://images/1.png', not s3://"),
        ({"source-ref": "C:\\1.png"}, "not s3://bucket/key"),
        ({"source-ref": "s3://images"}, "its source-ref is 's3://images', not s3://bucket/key"),
        ({"source-ref": "s3://images/"}, "its source-ref is 's3://images/', not s3://bucket/key"),
        (
            {"source-ref": "s3://images/train/"},
            "its source-ref 's3://images/train/' is a folder, not an image",
        ),
        (
            changed(masked(), "anomaly-mask-ref", "s3://images/masks/"),
            "its mask anomaly-mask-ref 's3://images/masks/' is a folder",
        ),
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
            masked() | {"x\0y-ref-metadata": {"type": SEGMENTATION}},
            r"it has 'x\x00y-ref'-metadata, but no 'x\x00y-ref'",
        ),
        (
            masked() | {"\ud800-ref-metadata": {"type": SEGMENTATION}},
            r"it has '\ud800-ref'-metadata, but no",
        ),
        (
            line() | {f"{LONG[:7500]}-metadata": {"type": SEGMENTATION}},
            "kkk...' must have a name that ends in",
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
        (changed(masked(), "anomaly-mask-ref", 7), "its anomaly-mask-ref is not a string"),
        (
            changed(masked(), "anomaly-mask-ref", "m.png"),
            "its anomaly-mask-ref is 'm.png', not s3://bucket/key",
        ),
        (
            changed(masked(), "anomaly-mask-ref", "s3://images/a/../m"),
            "its anomaly-mask-ref 's3://images/a/../m'",
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
            "its anomaly-mask-ref-metadata has no hex-color for 'cracked', as #23A436",
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
        (
            masked(colors={"0": {"class-name": "Background", "hex-color": "#23a436"}, "1": CRACKED}),
            "its anomaly-mask-ref-metadata has #23A436 for the background and for a class",
        ),
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
    document["comment"] = "µ" * (MAX_LINE_LENGTH - len(compact(document)))
    entry = read(compact(document).encode())
    assert len(entry.line) == MAX_LINE_LENGTH
    document["comment"] += "µ"
    with pytest.raises(InvalidLine, match="more than 8192 characters"):
        read(compact(document).encode())


def test_a_line_that_grows_too_long_by_its_references() -> None:
    folder = Folder.of("factory", "folder/" * 100 + "x.manifest")
    document = {"source-ref": "1.png", "comment": ""}
    document["comment"] = "c" * (MAX_LINE_LENGTH - 10 - len(compact(document)))
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
    assert len(entry.line) <= MAX_LINE_LENGTH
    assert "\n" not in entry.line
    assert "\0" not in entry.line
    assert json.loads(entry.line)["source-ref"] == entry.source_ref
    assert entry.source_ref.startswith(f"s3://{entry.bucket}/")
    assert len(entry.source_ref.encode()) <= 1100


def _read_or_refuse(content: bytes) -> Entry | InvalidLine:
    try:
        return read(content, FOLDER)
    except InvalidLine as error:
        return error


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
