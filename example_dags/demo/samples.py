"""A labelled image of the demo's, wherever it comes from."""

from __future__ import annotations

from dataclasses import dataclass, field


class NoImages(RuntimeError):
    """The images aren't what the demo needs; the message says what that is."""


@dataclass(frozen=True)
class Sample:
    """An image, and what is known about it.

    :param name: the end of its key.
    :param image: JPEG or PNG bytes.
    :param defect: what is wrong with it, in a word; None for nothing.
    :param mask: where that is, as a PNG, if known.
    :param colors: the classes in the mask, each name with its colour, ``#RRGGBB``.
    """

    name: str
    image: bytes
    defect: str | None
    mask: bytes | None = None
    colors: dict[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """``normal`` or ``anomaly``."""
        return "anomaly" if self.defect else "normal"

    @property
    def kind(self) -> tuple[str, ...]:
        """What is to be split alike: the label, and the classes in the mask."""
        return (self.label, *sorted(self.colors))
