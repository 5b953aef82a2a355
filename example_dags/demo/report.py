"""What the demo prints: lines, facts and tables, for a reader at a terminal or of a log."""

from __future__ import annotations

from collections.abc import Sequence


class NotAsPromised(RuntimeError):
    """The run ended well, but it doesn't show what the demo is to show."""


def say(text: str = "") -> None:
    """Print a line now, also into a pipe."""
    print(text, flush=True)


def heading(text: str) -> None:
    """Print the title of a part."""
    say(f"\n{text}\n")


def facts(rows: Sequence[tuple[str, str]]) -> None:
    """Print names and what they are, one a line."""
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        say(f"  {name:<{width}}  {value}")


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table; numbers stand on the right of their column."""
    cells = [[str(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
    right = [all(isinstance(value, int) for value in column) for column in zip(*rows, strict=True)]
    for line in [list(header), ["-" * width for width in widths], *cells]:
        padded = (
            f"{cell:>{width}}" if on_right else f"{cell:<{width}}"
            for cell, width, on_right in zip(line, widths, right, strict=True)
        )
        say("  " + "  ".join(padded).rstrip())
