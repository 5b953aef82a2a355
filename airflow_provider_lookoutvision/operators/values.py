"""Values as templates and people give them: made text, numbers and dicts, or refused by the parameter's name.

Native rendering, and YAML, make a number of the text ``2026``; other rendering makes text of a dict.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from airflow.providers.common.compat.sdk import AirflowFailException

NATIVE = "set render_template_as_native_obj on the DAG, or give JSON"

METRICS = ("F1Score", "Precision", "Recall")


def text(name: str, value: Any) -> str | None:
    """A text. A number is what native rendering, or YAML, makes of digits."""
    match value:
        case None | str():
            return value
        case float() if value.is_integer():
            return str(int(value))
        case bool() | int() | float():
            return str(value)
    raise AirflowFailException(f"{name} is {value!r}, of type {type(value).__name__}; it must be a text")


def choice(name: str, value: Any, *, of: tuple[str, ...], optional: bool = False) -> str | None:
    """One of these words, in upper or lower case; if it is optional, or None."""
    if optional and value is None:
        return None
    word = str(text(name, value)).lower()
    if word not in of:
        raise AirflowFailException(f"{name} is {value!r}; it must be one of {', '.join(of)}")
    return word


def model_version(name: str, value: Any) -> str | None:
    """A version as text; ``LATEST`` is ``latest``."""
    version = text(name, value)
    return version.lower() if version and version.lower() == "latest" else version


def metric(name: str, value: Any) -> str:
    """A metric of an evaluation by its name in the API, which is given in whatever case."""
    for known in METRICS:
        if str(value).lower() == known.lower():
            return known
    raise AirflowFailException(f"{name} is {value!r}; it must be one of {', '.join(METRICS)}")


def boolean(name: str, value: Any) -> bool:
    """True or false: a text ``False`` would be true."""
    word = str(value).strip().lower()
    if word not in ("true", "false"):
        raise AirflowFailException(f"{name} is {value!r}; it must be true or false")
    return word == "true"


def verify(name: str, value: Any) -> bool | str | None:
    """True or false, or the path of a CA bundle."""
    word = str(value).strip().lower()
    return boolean(name, value) if word in ("true", "false") else text(name, value)


def number(name: str, value: Any, *, least: float, below: float = math.inf, most: float = math.inf) -> Any:
    """A number in a range, or None."""
    if value is None:
        return None
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = math.nan
    if not (least <= found <= most and found < below):
        end = f" to {most:g}" if most < math.inf else f" to less than {below:g}" if below < math.inf else ""
        raise AirflowFailException(f"{name} is {value!r}; it must be a number from {least:g}{end}")
    return found


def whole_number(name: str, value: Any) -> int | None:
    """A whole number, or None."""
    try:
        if value is None or int(value) == float(value):
            return None if value is None else int(value)
    except (TypeError, ValueError, OverflowError):
        pass
    raise AirflowFailException(f"{name} is {value!r}; it must be a whole number")


def mapping(name: str, value: Any) -> dict[str, Any] | None:
    """A dict, or the JSON of one, or None."""
    found = _from_json(value)
    if found is None:
        return None
    if not isinstance(found, Mapping):
        raise AirflowFailException(f"{name} is {value!r}; it must be a dict: {NATIVE}")
    return dict(found)


def tags(name: str, value: Any) -> list[dict[str, Any]] | None:
    """The API's list of tags: of a dict or of such a list, or of the JSON of either; or None."""
    found = _from_json(value)
    if found is None:
        return None
    if isinstance(found, Mapping):
        found = [{"Key": key, "Value": each} for key, each in found.items()]
    if not isinstance(found, list | tuple) or not all(map(_is_tag, found)):
        raise AirflowFailException(
            f"{name} is {value!r}; it must be a dict, or a list of Key and Value: {NATIVE}"
        )
    return [{part: text(f"{name}, {tag['Key']}", each) for part, each in tag.items()} for tag in found]


def _is_tag(tag: Any) -> bool:
    return isinstance(tag, Mapping) and tag.keys() == {"Key", "Value"} and None not in tag.values()


def _from_json(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value
