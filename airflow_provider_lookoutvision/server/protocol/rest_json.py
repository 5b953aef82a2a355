"""The rest-json protocol in both directions, driven by the service model and by nothing else.

A request is routed by its method and raw path (``route``), read into keyword arguments (``Operation.read``),
and its result written back (``Operation.write``, ``write_error``). What an operation is called, where its
members travel, what they must satisfy, and which status answers, all comes from ``service-2.json``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote

import msgspec
from botocore import xform_name
from botocore.model import OperationModel, ServiceModel, Shape

from airflow_provider_lookoutvision.model import MODEL_PATH, anomaly_maps
from airflow_provider_lookoutvision.server.protocol import shapes
from airflow_provider_lookoutvision.server.protocol.errors import (
    SerializationException,
    ServiceError,
    UnknownOperationException,
    ValidationException,
)

JSON_BODY_LIMIT = 1 << 20
IMAGE_BODY_LIMIT = 8 << 20
_SHOWN_PROBLEMS = 25


@dataclass(frozen=True)
class _Member:
    name: str
    keyword: str
    location: str | None
    wire_name: str
    shape: Shape
    read: shapes.Reader
    required: bool


class Operation:
    """One operation of the model, compiled for reading requests and writing answers."""

    def __init__(self, model: OperationModel) -> None:
        self.name: str = model.name
        self.function_name: str = xform_name(model.name)
        self.method: str = model.http["method"]
        self.uri: str = model.http["requestUri"]
        self.status: int = int(model.http.get("responseCode", 200))
        shape = model.input_shape
        required = set(shape.required_members) if shape else set()
        self.members = tuple(
            _Member(
                name,
                xform_name(name),
                member.serialization.get("location"),
                member.serialization.get("name", name),
                member,
                shapes.reader(member),
                name in required,
            )
            for name, member in (shape.members.items() if shape else ())
        )
        self._payload: str | None = shape.serialization.get("payload") if shape else None
        self._write_output = shapes.writer(model.output_shape) if model.output_shape else lambda _: {}
        token = model.idempotent_members
        self.token_keyword: str | None = xform_name(token[0]) if token else None

    @property
    def takes_image(self) -> bool:
        """Whether the body is an image, as it is."""
        return self._payload is not None

    @property
    def reads(self) -> bool:
        """Whether it changes nothing."""
        return self.method == "GET" or self.takes_image

    @cached_property
    def body_limit(self) -> int:
        """The most bytes that a body of this operation can need."""
        if self._payload:
            return IMAGE_BODY_LIMIT
        blobs = [
            int(member.shape.metadata.get("max", 0))
            for member in self.members
            if member.shape.type_name == "blob"
        ]
        return JSON_BODY_LIMIT + sum(4 * (most // 3 + 1) for most in blobs)

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """Matches the raw path of this operation, with one group for each label."""
        parts = re.split(r"\{(\w+)\}", self.uri)
        return re.compile(
            "".join(f"(?P<{part}>[^/]+)" if i % 2 else re.escape(part) for i, part in enumerate(parts)) + "/?"
        )

    def read(
        self, labels: Mapping[str, str], query: str, headers: Mapping[str, str], body: bytes
    ) -> dict[str, Any]:
        """The members that a request carries, by snake_case keyword.

        :raises SerializationException: when something isn't of its type.
        :raises ValidationException: naming every member that breaks a constraint, and the constraint.
        """
        parameters: dict[str, list[str]] = {}
        for name, value in _query_pairs(query):
            parameters.setdefault(name, []).append(value)
        document = self._read_document(body)
        return self.read_members(
            {
                member.name: self._find(member, labels, parameters, headers, body, document)
                for member in self.members
            }
        )

    def read_members(self, found: Mapping[str, Any]) -> dict[str, Any]:
        """The same of members that came otherwise than by a request of the API, as JSON has them, by name.

        :raises SerializationException: as ``read``.
        :raises ValidationException: as ``read``.
        """
        problems: list[str] = []
        values = {}
        for member in self.members:
            value = found.get(member.name)
            if value is not None:
                values[member.keyword] = member.read(value, member.name, problems)
            elif member.required:
                problems.append(shapes.missing(member.name))
        if problems:
            count = "1 validation error" if len(problems) == 1 else f"{len(problems)} validation errors"
            shown = "; ".join(problems[:_SHOWN_PROBLEMS])
            raise ValidationException(f"{count} detected: {shown}")
        return values

    def write(self, result: Mapping[str, Any]) -> bytes:
        """The body that answers with ``result``, a dict in the shape of the operation's output."""
        return msgspec.json.encode(self._write_output(result))

    def _read_document(self, body: bytes) -> dict[str, Any]:
        if self._payload or not body or not any(member.location is None for member in self.members):
            return {}
        try:
            document = json.loads(body.decode(), parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise SerializationException(f"The body is not a JSON document: {error}") from None
        if not isinstance(document, dict):
            raise SerializationException("The body must be a JSON object")
        return document

    def _find(
        self,
        member: _Member,
        labels: Mapping[str, str],
        parameters: Mapping[str, list[str]],
        headers: Mapping[str, str],
        body: bytes,
        document: Mapping[str, Any],
    ) -> Any:
        match member.location:
            case "uri":
                text = _unquote(labels[member.wire_name])
            case "querystring":
                if member.wire_name not in parameters:
                    return None
                if member.shape.type_name == "list":
                    return parameters[member.wire_name]
                text = parameters[member.wire_name][-1]
            case "header":
                if member.wire_name.lower() not in headers:
                    return None
                text = headers[member.wire_name.lower()]
            case _:
                return body if member.name == self._payload else document.get(member.name)
        return shapes.from_text(member.shape, text, member.name)


@dataclass(frozen=True)
class Route:
    """An operation, and the still encoded labels of the path that led to it."""

    operation: Operation
    labels: Mapping[str, str]


class Protocol:
    """The whole API: every operation of the model, by name and by route."""

    def __init__(self, model: ServiceModel) -> None:
        self.operations = {name: Operation(model.operation_model(name)) for name in model.operation_names}
        # The more literal text a path has, the more it says: of two that match, the longer pattern is meant.
        self._ordered = sorted(self.operations.values(), key=lambda operation: -len(operation.uri))
        self._errors: dict[str, Shape] = {shape.name: shape for shape in model.error_shapes}

    def route(self, method: str, raw_path: str) -> Route:
        """Find the operation of a method and a raw path; a trailing slash changes nothing.

        :raises UnknownOperationException: when there is none.
        """
        for operation in self._ordered:
            if operation.method == method and (match := operation.pattern.fullmatch(raw_path)):
                return Route(operation, match.groupdict())
        raise UnknownOperationException(f"No operation answers {method} {raw_path[:200]}")

    def write_error(self, error: ServiceError) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of an error, with its members where the model has them."""
        headers = {"x-amzn-errortype": error.code, **error.headers}
        body: dict[str, Any] = {"Message": error.message}
        shape = self._errors.get(error.code)
        for name, value in error.members.items():
            member = shape.members[name] if shape else None
            if member is not None and member.serialization.get("location") == "header":
                headers[member.serialization["name"]] = str(value)
            else:
                body[name] = value
        return error.status, headers, json.dumps(body).encode()


def load() -> Protocol:
    """The protocol of the model that this package carries."""
    path = Path(MODEL_PATH) / "lookoutvision" / "2020-11-20" / "service-2.json"
    document = json.loads(path.read_text())
    # Written where an operation's result has them, which is on request alone.
    document["shapes"]["DetectAnomalyResult"]["members"] |= anomaly_maps.MEMBERS
    return Protocol(ServiceModel(document, "lookoutvision"))


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _query_pairs(query: str) -> Iterator[tuple[str, str]]:
    try:
        yield from parse_qsl(query, keep_blank_values=True, errors="strict")
    except UnicodeDecodeError:
        raise SerializationException("The query string is not UTF-8") from None


def _unquote(text: str) -> str:
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise SerializationException("The path is not UTF-8") from None
