"""XML by botocore's shapes, in both directions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any
from xml.etree import ElementTree

from botocore.model import ListShape, Shape, StructureShape

from airflow_provider_lookoutvision.server.s3.errors import S3Error

_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'
_REFERABLE = {*b'&<>"\t\n\r', 0x7F}
_ESCAPED = re.compile('[&<>"\x00-\x1f\x7f\ud800-\udfff\ufffe\uffff]')


def document(root: str, shape: Shape, value: Any) -> bytes:
    """A document of a value in the shape."""
    return f'{HEAD}<{root} xmlns="{_NAMESPACE}">{_content(shape, value)}</{root}>'.encode()


def value(root: str, content: str) -> bytes:
    """A document that is one text."""
    return f'{HEAD}<{root} xmlns="{_NAMESPACE}">{_escaped(content)}</{root}>'.encode()


def error(code: str, message: str, details: Mapping[str, Any]) -> bytes:
    """The document of an error."""
    parts = {"Code": code, "Message": message, **details}
    inner = "".join(f"<{name}>{_escaped(str(text))}</{name}>" for name, text in parts.items())
    return f"{HEAD}<Error>{inner}</Error>".encode()


def text(value: Any, *, http: bool = False) -> str:
    """A scalar as it is written in a document, or in a header."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        if http:
            return format_datetime(value.astimezone(UTC), usegmt=True)
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    return str(value)


def read(body: bytes, shape: Shape) -> Any:
    """The value of a document in the shape.

    :raises S3Error: MalformedXML.
    """
    malformed = S3Error(
        "MalformedXML",
        "The XML you provided was not well-formed or did not validate against our published schema",
    )
    if b"<!" in body:  # no entities
        raise malformed
    try:
        return _value(ElementTree.fromstring(body), shape)  # noqa: S314 (no entities)
    except (ElementTree.ParseError, ValueError, LookupError):
        raise malformed from None


def _content(shape: Shape, value: Any) -> str:
    if isinstance(shape, StructureShape):
        parts = []
        for name, member in shape.members.items():
            if (inner := value.get(name)) is None:
                continue
            wire = member.serialization.get("name", name)
            if isinstance(member, ListShape):
                parts.append(_list(wire, name, member, inner))
            else:
                parts.append(f"<{wire}>{_content(member, inner)}</{wire}>")
        return "".join(parts)
    return _escaped(text(value))


def _list(wire: str, name: str, shape: ListShape, values: Any) -> str:
    if shape.serialization.get("flattened"):
        wire = shape.serialization.get("name", name)
        return "".join(f"<{wire}>{_content(shape.member, each)}</{wire}>" for each in values)
    inner = shape.member.serialization.get("name", "member")
    items = "".join(f"<{inner}>{_content(shape.member, each)}</{inner}>" for each in values)
    return f"<{wire}>{items}</{wire}>"


def _value(element: ElementTree.Element, shape: Shape) -> Any:
    if isinstance(shape, StructureShape):
        found: dict[str, Any] = {}
        for name, member in shape.members.items():
            wire = member.serialization.get("name", name)
            children = [child for child in element if child.tag.rpartition("}")[2] == wire]
            if not children:
                continue
            if isinstance(member, ListShape):
                if not member.serialization.get("flattened"):
                    children = list(children[0])
                found[name] = [_value(child, member.member) for child in children]
            else:
                found[name] = _value(children[0], member)
        if missing := set(shape.required_members) - set(found):
            raise LookupError(missing)
        return found
    content = element.text or ""
    match shape.type_name:
        case "integer" | "long":
            return int(content)
        case "boolean":
            return {"true": True, "false": False}[content.strip().lower()]
        case "timestamp":
            return datetime.fromisoformat(content)
    return content


def _escaped(content: str) -> str:
    return _ESCAPED.sub(_reference, content)


def _reference(found: re.Match[str]) -> str:
    # XML 1.0 has no way to write most control characters: lists have them encoded, as URLs are.
    number = ord(found[0])
    return f"&#x{number:x};" if number in _REFERABLE else "\ufffd"
