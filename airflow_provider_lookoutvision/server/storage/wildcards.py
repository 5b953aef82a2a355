"""Patterns of names with IAM's wildcards: ``*`` is any text, ``?`` is one character."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

EVERYTHING = ("*",)


def matches(patterns: Sequence[str], name: str) -> bool:
    """Whether one of the patterns matches the whole name."""
    return any(_regex(pattern).fullmatch(name) for pattern in patterns)


def like(pattern: str) -> str:
    r"""The same pattern for SQL's LIKE, with ``\\`` as its escape character."""
    return "".join({"*": "%", "?": "_", "%": r"\%", "_": r"\_", "\\": r"\\"}.get(c, c) for c in pattern)


@lru_cache(maxsize=4096)
def _regex(pattern: str) -> re.Pattern[str]:
    return re.compile("".join({"*": ".*", "?": "."}.get(c, re.escape(c)) for c in pattern), re.DOTALL)
