"""What the JSON file beside a user's own pretrained network says of it; `custom_backbone` has an example."""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from airflow_provider_lookoutvision.engine.errors import UnusableBackbone

STRIDES = (8, 16, 32)
_MAX_TEXT = 100


@dataclass(frozen=True)
class Description:
    """What the JSON file says; the taps are those of strides 8, 16 and 32."""

    name: str
    licence: str
    mean: NDArray[np.float32]
    std: NDArray[np.float32]
    taps: tuple[str, ...]
    texture: str | None


def describe(content: bytes) -> Description:
    """Read the content of the JSON file.

    :raises UnusableBackbone: it says less or something else than it must
    """
    try:
        given = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UnusableBackbone(f"its JSON file is no JSON: {error}") from error
    required, optional = {"name", "mean", "std", "taps"}, {"licence", "texture"}
    if not isinstance(given, dict) or not required <= set(given) <= required | optional:
        wrong = set(given) ^ required if isinstance(given, dict) else set()
        raise UnusableBackbone(
            "its JSON file must be an object with name, mean, std and taps, and perhaps licence and texture"
            + (f"; missing or unknown: {', '.join(sorted(wrong - optional))}" if wrong else "")
        )
    for key in ("name", "licence", "texture"):
        text = given.get(key, "-")
        if not isinstance(text, str) or not 0 < len(text) <= _MAX_TEXT or not text.isprintable():
            raise UnusableBackbone(f"{key} is {text!r}; it must be a text of 1 to {_MAX_TEXT} characters")
    mean, std = (_three_numbers(key, given[key]) for key in ("mean", "std"))
    if not (std > 0).all():
        raise UnusableBackbone(f"std is {given['std']}; each number must be more than 0")
    taps = _taps(given["taps"])
    return Description(given["name"], given.get("licence", ""), mean, std, taps, given.get("texture"))


def _three_numbers(key: str, value: Any) -> NDArray[np.float32]:
    numbers = value if isinstance(value, list) else []
    if len(numbers) != 3 or any(type(number) not in (int, float) for number in numbers):
        raise UnusableBackbone(
            f"{key} is {value!r}; it must be three numbers, for red, green and blue of 0 to 1"
        )
    result = np.array(numbers, np.float32)
    if not np.isfinite(result).all():
        raise UnusableBackbone(f"{key} is {value!r}; its numbers must be finite")
    return result


def _taps(value: Any) -> tuple[str, ...]:
    names: dict[int, str] = {}
    for tap in value if isinstance(value, list) else []:
        fits = isinstance(tap, dict) and set(tap) == {"output", "stride"} and isinstance(tap["output"], str)
        if not fits or type(tap["stride"]) is not int or tap["stride"] in names:
            names = {}
            break
        names[tap["stride"]] = tap["output"]
    if sorted(names) != list(STRIDES):
        raise UnusableBackbone(
            'taps must be three of {"output": NAME, "stride": NUMBER}, of the strides 8, 16 and 32'
        )
    return tuple(names[stride] for stride in STRIDES)
