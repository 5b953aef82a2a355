"""Labelled images, and which names are images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

LABELS = ("normal", "anomaly")
IMAGE_NAMES = (".jpg", ".jpeg", ".png")
OTHER_IMAGE_NAMES = (".bmp", ".gif", ".heic", ".tif", ".tiff", ".webp")
_SHOWN = 5


class InvalidLayout(ValueError):
    """No manifest can be built from these folders or this table; the message says what to change."""


@dataclass(frozen=True)
class LabelledImage:
    """An image labelled ``normal`` or ``anomaly``, and its mask, of one class of defects."""

    source_ref: str
    label: str
    created: datetime
    mask_ref: str | None = None
    mask_class: str | None = None


def is_image(name: str) -> bool:
    """Whether an object is an image by its name; ``._a.png`` is what macOS keeps of a file ``a.png``."""
    return name.lower().endswith(IMAGE_NAMES) and not name.rpartition("/")[2].startswith("._")


def check_mask_name(where: str, name: str) -> None:
    """Refuse a mask whose format would change its colours."""
    if not name.lower().endswith(".png"):
        raise InvalidLayout(
            f"{where} is a mask, and no PNG: save it as PNG, since JPEG changes the colours of its pixels"
        )


def some(names: Sequence[str]) -> str:
    """The first names, and how many more there are, for a message."""
    left = len(names) - _SHOWN
    return (", ".join(names[:_SHOWN]) or "nothing") + (f" and {left} more" if left > 0 else "")
