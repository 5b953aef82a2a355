"""Values in both directions, compiled from the shapes of the model.

``reader(shape)`` gives a function that turns what came over the wire into a Python value and notes every
constraint that it breaks; ``writer(shape)`` gives one that turns a Python value into what goes over the
wire. Text (of the path, the query and the headers) becomes the shape's type by ``from_text``.

Timestamps come in as ``datetime`` in UTC, and go out from milliseconds since the epoch, as the tables have
them, to epoch seconds; blobs are ``bytes``
inside, base64 outside; structures are dicts with the model's member names on both sides.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import regex
from botocore.model import Shape

from airflow_provider_lookoutvision.server.protocol.errors import SerializationException

Reader = Callable[[Any, str, list[str]], Any]
Writer = Callable[[Any], Any]

_SHOWN_CHARACTERS = 64
_INTEGER_BITS = {"integer": 32, "long": 64}


def reader(shape: Shape) -> Reader:
    """Compile the check and conversion of one shape.

    The function takes the value as JSON gave it, the path at which it stands, and the list to which broken
    constraints are added. A value of another type raises SerializationException.
    """
    return _READERS.get(shape.type_name, _read_string)(shape)


def writer(shape: Shape) -> Writer:
    """Compile the conversion of a shape into what ``json.dumps`` takes; None members are left out."""
    match shape.type_name:
        case "structure":
            members = [(name, writer(member)) for name, member in shape.members.items()]

            def write_structure(value: Any) -> Any:
                written = {}
                for name, write in members:
                    if (member := value.get(name)) is not None:
                        written[name] = member if write is _as_it_is else write(member)
                return written

            return write_structure
        case "list":
            write_element = writer(shape.member)
            return lambda value: [write_element(element) for element in value]
        case "timestamp":
            return lambda milliseconds: milliseconds / 1000
        case "blob":
            return lambda value: base64.b64encode(value).decode()
        case _:
            return _as_it_is


def _as_it_is(value: Any) -> Any:
    return value


def from_text(shape: Shape, text: str, path: str) -> Any:
    """Turn the text of a path segment, a query parameter or a header into what JSON would have given."""
    match shape.type_name:
        case "integer" | "long":
            if not regex.fullmatch(r"[+-]?[0-9]{1,18}", text):
                raise SerializationException(f"{path} must be an integer, not {_shown(text)}")
            return int(text)
        case "boolean":
            if text not in {"true", "false"}:
                raise SerializationException(f"{path} must be true or false, not {_shown(text)}")
            return text == "true"
        case _:
            return text


def _shown(value: Any) -> str:
    text = str(value)
    return repr(text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "...")


def _of_type(value: Any, kind: type | tuple[type, ...], path: str, name: str) -> None:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise SerializationException(f"{path or 'The body'} must be {name}, not {_shown(value)}")


def _broken(value: Any, path: str, rule: str) -> str:
    return f"Value {_shown(value)} at '{path}' failed to satisfy constraint: Member must {rule}"


def _length_check(shape: Shape) -> Callable[[Any, str, list[str]], bool]:
    least, most = shape.metadata.get("min"), shape.metadata.get("max")

    def check(value: Any, path: str, problems: list[str]) -> bool:
        if least is not None and len(value) < least:
            problems.append(_broken(value, path, f"have length greater than or equal to {least}"))
        elif most is not None and len(value) > most:
            problems.append(_broken(value, path, f"have length less than or equal to {most}"))
        else:
            return True
        return False

    return check


def _read_structure(shape: Shape) -> Reader:
    required = set(shape.required_members)
    members = [(name, reader(member), name in required) for name, member in shape.members.items()]

    def read(value: Any, path: str, problems: list[str]) -> dict[str, Any]:
        _of_type(value, dict, path, "an object")
        result = {}
        for name, read_member, is_required in members:
            member_path = f"{path}.{name}" if path else name
            if (member := value.get(name)) is not None:
                result[name] = read_member(member, member_path, problems)
            elif is_required:
                problems.append(missing(member_path))
        return result

    return read


def missing(path: str) -> str:
    """The text that says a required member isn't there."""
    return f"Value null at '{path}' failed to satisfy constraint: Member must not be null"


def _read_list(shape: Shape) -> Reader:
    read_element, check_length = reader(shape.member), _length_check(shape)

    def read(value: Any, path: str, problems: list[str]) -> list[Any]:
        _of_type(value, list, path, "a list")
        if not check_length(value, path, problems):
            return []  # of too many, each would be a problem of its own
        return [read_element(element, f"{path}[{i}]", problems) for i, element in enumerate(value)]

    return read


def _read_string(shape: Shape) -> Reader:
    check_length = _length_check(shape)
    text = shape.metadata.get("pattern")
    pattern = regex.compile(text) if text else None
    values = shape.metadata.get("enum")

    def read(value: Any, path: str, problems: list[str]) -> str:
        _of_type(value, str, path, "a string")
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise SerializationException(f"{path} holds half of a surrogate pair") from None
        if "\0" in value:
            problems.append(_broken(value, path, "hold no NUL character"))
        # Never a pattern on text of any length: some take quadratic time.
        if check_length(value, path, problems) and pattern and not pattern.fullmatch(value):
            problems.append(_broken(value, path, f"satisfy regular expression pattern: {text}"))
        if values and value not in values:
            problems.append(_broken(value, path, f"satisfy enum value set: [{', '.join(values)}]"))
        return str(value)

    return read


def _read_number(shape: Shape) -> Reader:
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    bits = _INTEGER_BITS.get(shape.type_name)

    def read(value: Any, path: str, problems: list[str]) -> Any:
        if bits is None:
            _of_type(value, (int, float), path, "a number")
        else:
            _of_type(value, int, path, "an integer")
            if not -(1 << bits - 1) <= value < 1 << bits - 1:
                raise SerializationException(f"{path} must be an integer of {bits} bits, not {_shown(value)}")
        if least is not None and value < least:
            problems.append(_broken(value, path, f"have value greater than or equal to {least}"))
        if most is not None and value > most:
            problems.append(_broken(value, path, f"have value less than or equal to {most}"))
        return value

    return read


def _read_boolean(_shape: Shape) -> Reader:
    def read(value: Any, path: str, _problems: list[str]) -> bool:
        _of_type(value, bool, path, "true or false")
        return bool(value)

    return read


def _read_blob(shape: Shape) -> Reader:
    check_length = _length_check(shape)

    def read(value: Any, path: str, problems: list[str]) -> bytes:
        if not isinstance(value, bytes):
            _of_type(value, str, path, "a base64 string")
            try:
                value = base64.b64decode(value, validate=True)
            except (binascii.Error, ValueError):
                raise SerializationException(f"{path} must be base64") from None
        check_length(value, path, problems)
        return bytes(value)

    return read


def _read_timestamp(_shape: Shape) -> Reader:
    def read(value: Any, path: str, _problems: list[str]) -> datetime:
        _of_type(value, (str, int, float), path, "a timestamp")
        try:
            if not isinstance(value, str):
                return datetime.fromtimestamp(value, UTC)
            if regex.fullmatch(r"[0-9]+(\.[0-9]+)?", value):
                return datetime.fromtimestamp(float(value), UTC)
            moment = datetime.fromisoformat(value)
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
        except (ValueError, OverflowError, OSError):
            raise SerializationException(
                f"{path} must be a timestamp such as 2020-06-23T00:00:00Z, not {_shown(value)}"
            ) from None

    return read


_READERS: dict[str, Callable[[Shape], Reader]] = {
    "structure": _read_structure,
    "list": _read_list,
    "integer": _read_number,
    "long": _read_number,
    "float": _read_number,
    "double": _read_number,
    "boolean": _read_boolean,
    "blob": _read_blob,
    "timestamp": _read_timestamp,
}
