"""Requests made from the service model: valid ones, and one for each way to break it.

Nothing here names an operation or a member: a member that is added to the model is tested from then on.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, wraps
from pathlib import Path
from typing import Any
from urllib.parse import quote

import regex
from botocore.model import OperationModel, ServiceModel, Shape

from airflow_provider_lookoutvision.model import API_VERSION, MODEL_PATH, SERVICE_NAME

MODEL = ServiceModel(json.loads(Path(MODEL_PATH, SERVICE_NAME, API_VERSION, "service-2.json").read_text()))
OPERATIONS: dict[str, OperationModel] = {name: MODEL.operation_model(name) for name in MODEL.operation_names}

# What may match some pattern; each is tried at several lengths.
_TEXTS = ("a", "1", "train", "normal", "direct", "latest", "1.0.0", "#a1b2c3", "{}", "jetson_xavier")
_ODD_TEXTS = ("a\n", "!", " ", "é", "a b", "/", "a/b", "x", "0", "{", "a!", "1.0", "1.0.0.0", "#12345g!")
_ODD_TEXTS_EACH = 4

Params = dict[str, Any]
MemberPath = tuple[str | int, ...]


@dataclass(frozen=True)
class Request:
    """An HTTP request, not signed yet."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Case:
    """Members that an operation shall take, or refuse because of the one at ``member``."""

    operation: str
    params: Params
    member: str = ""
    kind: str = ""
    rule: str = ""

    def __str__(self) -> str:
        return f"{self.operation}-{self.member}-{self.kind}"

    def request(self) -> Request:
        return to_wire(OPERATIONS[self.operation], self.params)


def to_wire(operation: OperationModel, params: Mapping[str, Any]) -> Request:
    """Put members where the model wants them. A value of another type goes out as it is."""
    path, query, headers = operation.http["requestUri"], [], {}
    document: dict[str, Any] = {}
    body = b""
    shape = operation.input_shape
    for name, value in params.items():
        member = shape.members[name]
        wire_name = member.serialization.get("name", name)
        match member.serialization.get("location"):
            case "uri":
                path = path.replace(f"{{{wire_name}}}", quote(str(value), safe="", errors="surrogatepass"))
            case "querystring":
                values = value if isinstance(value, list) else [value]
                query += [
                    f"{wire_name}={quote(_text(value), safe='', errors='surrogatepass')}" for value in values
                ]
            case "header":
                headers[wire_name] = _text(value)
            case _ if name == shape.serialization.get("payload"):
                body = value
            case _:
                document[name] = value
    if document:
        body = json.dumps(document, default=lambda value: base64.b64encode(value).decode()).encode()
        headers.setdefault("Content-Type", "application/json")
    return Request(operation.http["method"], path, "&".join(query), headers, body)


def minimal(operation: OperationModel) -> Params:
    """The required members, each with a valid value."""
    return _structure(operation.input_shape, everything=False) if operation.input_shape else {}


def complete(operation: OperationModel) -> Params:
    """All members, each with a valid value."""
    return _structure(operation.input_shape, everything=True) if operation.input_shape else {}


def _grouped(cases: Callable[[], Iterator[Case]]) -> Callable[[], Mapping[str, list[Case]]]:
    """Make the cases once, and give them by operation."""

    @cache
    @wraps(cases)
    def grouped() -> Mapping[str, list[Case]]:
        by_operation: dict[str, list[Case]] = {}
        for case in cases():
            by_operation.setdefault(case.operation, []).append(case)
        return by_operation

    return grouped


@_grouped
def valid_cases() -> Iterator[Case]:
    """Requests at the edges of what the model allows."""
    for name, operation in OPERATIONS.items():
        yield Case(name, minimal(operation), kind="minimal")
        yield Case(name, complete(operation), kind="complete")
        for path, shape in _members(operation):
            for kind, value in _edge_values(shape):
                if _can_be_sent(operation, path, value):
                    yield Case(name, _with(operation, path, value), _shown(path), kind)


@_grouped
def broken_constraints() -> Iterator[Case]:
    """Requests that break one constraint each."""
    for name, operation in OPERATIONS.items():
        for path, shape in _members(operation):
            for kind, value, rule in _broken_values(shape):
                if _can_be_sent(operation, path, value):
                    yield Case(name, _with(operation, path, value), _shown(path), kind, rule)
        for path in _required(operation):
            yield Case(name, _without(operation, path), _shown(path), "missing", "Member must not be null")


@_grouped
def wrong_types() -> Iterator[Case]:
    """Requests in which one member has another type than the model's."""
    for name, operation in OPERATIONS.items():
        for path, shape in _members(operation):
            if operation.input_shape.serialization.get("payload") == path[0]:
                continue
            values = _WRONG_JSON if _location(operation, path) is None else _WRONG_TEXT
            for value in values.get(shape.type_name, ()):
                yield Case(name, _with(operation, path, value), _shown(path), repr(value))


_WRONG_JSON: Mapping[str, tuple[Any, ...]] = {
    "string": (5, True, ["a"], {"a": "a"}, "\ud800"),
    "integer": ("1", 1.5, True, [1], 1 << 31, 10**400),
    "structure": ("a", 5, ["a"], False),
    "list": ("a", 5, {"a": 1}, True),
    "blob": (5, True, "no base64!", "YQ", ["YQ=="]),
}
_WRONG_TEXT: Mapping[str, tuple[Any, ...]] = {
    "integer": ("", "one", "1.5", "0x1", "\u0661", "1" * 30),
    "boolean": ("", "yes", "1", "True"),
    "timestamp": ("", "yesterday", "2020-13-01T00:00:00Z", "nan", "9" * 40),
}


def _text(value: Any) -> str:
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)


def _structure(shape: Shape, *, everything: bool) -> Params:
    return {
        name: _valid(member, everything=everything)
        for name, member in shape.members.items()
        if everything or name in shape.required_members
    }


def _valid(shape: Shape, *, everything: bool = True) -> Any:
    match shape.type_name:
        case "structure":
            return _structure(shape, everything=everything)
        case "list":
            return [_valid(shape.member, everything=everything)]
        case "integer":
            return shape.metadata.get("min", 1)
        case "boolean":
            return True
        case "timestamp":
            return "2020-06-23T01:02:03.456789Z"
        case "blob":
            return b'{"source-ref":"s3://bucket/key"}'
        case _:
            values = shape.metadata.get("enum") or _texts(shape)
            assert values, f"no text here satisfies {shape.name}: add one to _TEXTS"
            return values[0]


@cache
def _texts(shape: Shape) -> Sequence[str]:
    """Texts that satisfy the shape, the shortest first, the longest last."""
    least, most = shape.metadata.get("min", 0), shape.metadata.get("max", 64)
    repeated = [text * (length // len(text)) for text in _TEXTS for length in {least, most, 1, len(text)}]
    fitting = {text for text in repeated if least <= len(text) <= most and _matches(shape, text)}
    return sorted(fitting, key=lambda text: (len(text), text))


def _matches(shape: Shape, text: str) -> bool:
    pattern = shape.metadata.get("pattern")
    return not pattern or bool(regex.fullmatch(pattern, text))


def _edge_values(shape: Shape) -> Iterator[tuple[str, Any]]:
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    match shape.type_name:
        case "string" if not shape.metadata.get("enum"):
            texts = _texts(shape)
            if least is not None:
                yield f"shortest-{len(texts[0])}", texts[0]
            if most is not None:
                yield f"longest-{len(texts[-1])}", texts[-1]
        case "string":
            yield from ((value, value) for value in shape.metadata["enum"])
        case "integer":
            yield from ((str(value), value) for value in (least, most) if value is not None)
        case "list":
            yield "empty", []
            yield f"longest-{most}", [_valid(shape.member)] * most
        case "blob" if most is not None:
            yield f"longest-{most}", b"x" * most


def _broken_values(shape: Shape) -> Iterator[tuple[str, Any, str]]:
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    match shape.type_name:
        case "string":
            longest = (_texts(shape) or ["a"])[-1]
            if least:
                yield "too-short", longest[: least - 1], f"length greater than or equal to {least}"
            if most is not None:
                yield "too-long", longest[:1] * (most + 1), f"length less than or equal to {most}"
            odd = [text for text in _ODD_TEXTS if (least or 0) <= len(text) <= (most or 64)]
            for text in [text for text in odd if not _matches(shape, text)][:_ODD_TEXTS_EACH]:
                yield f"pattern-{text!r}", text, "satisfy regular expression pattern"
            if values := shape.metadata.get("enum"):
                yield "enum", values[0].swapcase(), "satisfy enum value set"
            yield "NUL", (longest[0] + "\0" + longest[2:]), "hold no NUL character"
        case "integer":
            if least is not None:
                yield "too-small", least - 1, f"value greater than or equal to {least}"
            if most is not None:
                yield "too-large", most + 1, f"value less than or equal to {most}"
        case "list":
            yield "too-long", [_valid(shape.member)] * (most + 1), f"length less than or equal to {most}"
        case "blob" if most is not None:
            yield "too-short", b"", f"length greater than or equal to {least}"
            yield "too-long", b"x" * (most + 1), f"length less than or equal to {most}"


def _members(operation: OperationModel) -> Iterator[tuple[MemberPath, Shape]]:
    """Every member of the input, at any depth, with its path."""

    def below(shape: Shape, path: MemberPath) -> Iterator[tuple[MemberPath, Shape]]:
        if path:
            yield path, shape
        if shape.type_name == "structure":
            for name, member in shape.members.items():
                yield from below(member, (*path, name))
        elif shape.type_name == "list":
            yield from below(shape.member, (*path, 0))

    if operation.input_shape:
        yield from below(operation.input_shape, ())


def _required(operation: OperationModel) -> Iterator[MemberPath]:
    shapes: dict[MemberPath, Shape] = {(): operation.input_shape, **dict(_members(operation))}
    payload = operation.input_shape.serialization.get("payload") if operation.input_shape else None
    for path, shape in shapes.items():
        for name in getattr(shape, "required_members", ()):
            # Neither a label nor a body can be left out.
            if _location(operation, (*path, name)) != "uri" and name != payload:
                yield (*path, name)


def _location(operation: OperationModel, path: MemberPath) -> str | None:
    return operation.input_shape.members[path[0]].serialization.get("location")  # type: ignore[no-any-return]


def _can_be_sent(operation: OperationModel, path: MemberPath, value: Any) -> bool:
    match _location(operation, path):
        case "uri":  # without it, the path would be another operation's, or nobody's
            return value != ""
        case "querystring":  # a list of nothing is no list
            return value != []
        case "header":
            return (
                isinstance(value, str) and value.isascii() and value.isprintable() and value == value.strip()
            )
        case _:
            return True


def _with(operation: OperationModel, path: MemberPath, value: Any) -> Params:
    params = complete(operation)
    holder: Any = params
    for step in path[:-1]:
        holder = holder[step]
    holder[path[-1]] = value
    return params


def _without(operation: OperationModel, path: MemberPath) -> Params:
    params = complete(operation)
    holder: Any = params
    for step in path[:-1]:
        holder = holder[step]
    del holder[path[-1]]
    return params


def _shown(path: MemberPath) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).lstrip(".")
