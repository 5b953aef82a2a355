"""The protocol of S3, rest-xml, driven by botocore's model of S3 as the API is by ours.

A request is routed by its method, by whether its path names a bucket and a key, and by the query parameters
and headers that an operation has in its address or requires. Its members are read by their shapes. What an
operation here doesn't take is refused, by the name of its header or parameter, unless it changes nothing.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from functools import cached_property
from typing import Any
from urllib.parse import parse_qsl, unquote

from botocore import xform_name
from botocore.loaders import Loader
from botocore.model import OperationModel, ServiceModel, Shape, StructureShape

from airflow_provider_lookoutvision.server.s3 import xml
from airflow_provider_lookoutvision.server.s3.errors import S3Error, not_implemented

# What may be sent, and with which values, though nothing here takes it: it asks for what is so anyway.
_WITHOUT_EFFECT: Mapping[str, Collection[Any] | None] = {
    "ACL": {"private", "bucket-owner-full-control", "bucket-owner-read"},
    "AnnotationDirective": None,
    "BucketKeyEnabled": {False},
    "ChecksumAlgorithm": None,
    "ContentLength": None,
    "CreateBucketConfiguration": None,
    "FetchOwner": None,
    "ObjectLockEnabledForBucket": {False},
    "ObjectOwnership": None,
    "OptionalObjectAttributes": None,
    "RequestPayer": None,
    # What S3 does with every object anyway, and programs ask for; no answer claims that it was done.
    "ServerSideEncryption": {"AES256"},
    "StorageClass": {"STANDARD"},
    "Tagging": {""},
    "TaggingDirective": None,
    "VersionId": {"null"},
}
# Checked for every operation.
_COMMON = frozenset({"ExpectedBucketOwner", "ExpectedSourceBucketOwner"})
# These are the model's word for a document's root where they differ from the operation's output.
_ROOTS = {
    "ListBuckets": "ListAllMyBucketsResult",
    "ListObjects": "ListBucketResult",
    "ListObjectsV2": "ListBucketResult",
    "CreateMultipartUpload": "InitiateMultipartUploadResult",
    "DeleteObjects": "DeleteResult",
    "GetBucketVersioning": "VersioningConfiguration",
    "GetObjectTagging": "Tagging",
}


@dataclass(frozen=True)
class Request:
    """A request without its body: header names in lower case, the query decoded."""

    method: str
    bucket: str
    key: str
    query: Mapping[str, str]
    headers: Mapping[str, str]


class Operation:
    """One operation of the model; ``function`` does it, or is None where nothing does."""

    def __init__(self, model: OperationModel, function: Callable[..., Any] | None) -> None:
        self.name: str = model.name
        self.function = function
        self.method: str = model.http["method"]
        self.status: int = int(model.http.get("responseCode", 200))
        path, _, query = model.http["requestUri"].partition("?")
        self.level = path.count("{")
        self.is_routed = path in {"/", "/{Bucket}", "/{Bucket}/{Key+}"}
        self._literals = [pair.partition("=") for pair in query.split("&") if query]
        shape = model.input_shape
        self._members: Mapping[str, Shape] = shape.members if shape else {}
        self._required: Collection[str] = shape.required_members if shape else ()
        self._payload: str | None = shape.serialization.get("payload") if shape else None
        self._output: StructureShape | None = model.output_shape

    @property
    def is_streamed(self) -> bool:
        """Whether the body is an object's bytes."""
        return self._payload is not None and self._members[self._payload].type_name == "blob"

    @cached_property
    def taken(self) -> frozenset[str]:
        """The keywords that the function takes."""
        return frozenset(inspect.signature(self.function).parameters if self.function else ())

    def fit(self, request: Request) -> int:
        """How much of the request is this operation's own; -1 when it is for another."""
        for name, _, value in self._literals:
            if name not in request.query or (value and request.query[name] != value):
                return -1
        required = 0
        for name in self._required:
            place = self._members[name].serialization
            where = {"querystring": request.query, "header": request.headers}.get(place.get("location", ""))
            if where is not None:
                wire = place["name"] if where is request.query else place["name"].lower()
                if wire not in where:
                    return -1
                required += 1
        return 2 * (len(self._literals) + required) + (self.function is not None)

    def read(self, request: Request, body: bytes) -> dict[str, Any]:
        """The members of a request by snake_case keyword; checksums by algorithm, under ``checksums``.

        :raises S3Error: MalformedXML, InvalidArgument, NotImplemented.
        """
        members: dict[str, Any] = {}
        checksums: dict[str, str] = {}
        for name, shape in self._members.items():
            value = self._find(name, shape, request, body)
            if value is None:
                continue
            if name.startswith("Checksum") and name.removeprefix("Checksum").isupper():
                checksums[name.removeprefix("Checksum")] = value
            elif (keyword := xform_name(name)) in self.taken or name in _COMMON:
                members[keyword] = value
            elif name not in _WITHOUT_EFFECT or not _allowed(_WITHOUT_EFFECT[name], value):
                self._refuse(name, shape, value)
        if checksums and "checksums" in self.taken:
            members["checksums"] = checksums
        return members

    def write(self, result: Mapping[str, Any]) -> tuple[dict[str, str], bytes]:
        """The headers and the body that answer with ``result``, by the members of the output's shape."""
        headers: dict[str, str] = {}
        if self._output is None:
            return headers, b""
        document = {}
        for name, value in result.items():
            shape = self._output.members[name]
            place = shape.serialization
            if value is None:
                continue
            if place.get("location") == "header":
                headers[place["name"]] = xml.text(value, http=True)
            elif place.get("location") == "headers":
                headers |= {place["name"] + key: text for key, text in value.items()}
            else:
                document[name] = value
        payload = self._output.serialization.get("payload")
        if payload and self._output.members[payload].type_name == "structure":
            return headers, xml.document(payload, self._output.members[payload], document[payload])
        if all(each.serialization.get("location") for each in self._output.members.values()) or payload:
            return headers, b""
        if self.name == "GetBucketLocation":  # its only member is the document itself
            return headers, xml.value("LocationConstraint", document.get("LocationConstraint", ""))
        return headers, xml.document(_ROOTS.get(self.name, f"{self.name}Result"), self._output, document)

    def _find(self, name: str, shape: Shape, request: Request, body: bytes) -> Any:
        place = shape.serialization
        match place.get("location"):
            case "uri":
                return request.bucket if name == "Bucket" else request.key
            case "querystring":
                text = request.query.get(place["name"])
            case "header":
                text = request.headers.get(place["name"].lower())
            case "headers":
                prefix = place["name"]
                found = {h[len(prefix) :]: v for h, v in request.headers.items() if h.startswith(prefix)}
                return found or None
            case _:
                if name != self._payload or shape.type_name == "blob" or not body:
                    return None
                return xml.read(body, shape)
        return None if text is None else _read_text(text, shape, place["name"])

    def _refuse(self, name: str, shape: Shape, value: Any) -> None:
        if name == "VersionId":
            raise S3Error(
                "NoSuchVersion",
                "The buckets of this service are folders, which keep no versions: leave versionId out",
                VersionId=str(value),
            )
        wire = shape.serialization.get("name", name)
        shown = "" if isinstance(value, Mapping) or "key" in wire.lower() else f" ({value})"
        not_implemented(
            f"{self.name} has no {wire}{shown} here: leave it out, or use an S3 that has it", wire
        )


class Protocol:
    """All of S3, of which the functions do a part."""

    def __init__(self, functions: Mapping[str, Callable[..., Any]]) -> None:
        model = ServiceModel(Loader().load_service_model("s3", "service-2"), "s3")
        operations = [
            Operation(model.operation_model(name), functions.get(xform_name(name)))
            for name in model.operation_names
        ]
        self._by_place: dict[tuple[str, int], list[Operation]] = {}
        for operation in operations:
            if operation.is_routed:
                self._by_place.setdefault((operation.method, operation.level), []).append(operation)

    def route(self, request: Request) -> Operation:
        """The operation of a request, which may be one that isn't served.

        :raises S3Error: MethodNotAllowed where there is none.
        """
        level = bool(request.bucket) + bool(request.key)
        fits = ((each.fit(request), each) for each in self._by_place.get((request.method, level), ()))
        best, operation = max(fits, key=lambda fit: fit[0], default=(-1, None))
        if best < 0 or operation is None:
            raise S3Error(
                "MethodNotAllowed",
                "The specified method is not allowed against this resource.",
                Method=request.method,
            )
        return operation


def parse(method: str, raw_path: str, raw_query: str, headers: Iterable[tuple[str, str]]) -> Request:
    """A request from what came over the wire.

    :raises S3Error: InvalidURI.
    """
    bucket, _, key = raw_path.removeprefix("/").partition("/")
    try:
        pairs = parse_qsl(raw_query, keep_blank_values=True, errors="strict")
        return Request(
            method,
            unquote(bucket, errors="strict"),
            unquote(key, errors="strict"),
            dict(pairs),
            dict(headers),
        )
    except UnicodeDecodeError:
        raise S3Error("InvalidURI", "Couldn't parse the specified URI: it is not UTF-8.") from None


def _allowed(values: Collection[Any] | None, value: Any) -> bool:
    return values is None or value in values


def _read_text(text: str, shape: Shape, name: str) -> Any:
    try:
        match shape.type_name:
            case "integer" | "long":
                return int(text)
            case "boolean":
                return {"true": True, "false": False}[text.lower()]
            case "timestamp":
                return _moment(text)
            case "list":
                return [part.strip() for part in text.split(",")]
    except (ValueError, LookupError, OverflowError):
        raise S3Error(
            "InvalidArgument", f"The value of {name} is not valid", ArgumentName=name, ArgumentValue=text
        ) from None
    return text


def _moment(text: str) -> datetime:
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def http_date(moment: datetime) -> str:
    """A moment as HTTP writes it."""
    return format_datetime(moment.astimezone(UTC), usegmt=True)
