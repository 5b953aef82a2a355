"""The map in CONTRIBUTING.md names every folder and module of the package, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = "airflow_provider_lookoutvision"


def on_the_map() -> set[str]:
    """The paths that the map names. A column begins after two spaces; a name ends with ``/`` or ``.py``."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    block = re.search(rf"^```\n({PACKAGE}/\n.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert block, "CONTRIBUTING.md has no map"
    found: set[str] = set()
    folders: list[tuple[int, str]] = []
    for line in block[1].splitlines():
        indent = len(line) - len(line.lstrip())
        while folders and folders[-1][0] >= indent:
            folders.pop()
        inside = "".join(name for _, name in folders)
        for column in re.split(r" {2,}", line.strip()):
            if not re.fullmatch(r"[\w-]+(/|\.py)", column):
                continue
            # A folder's own modules may stand in its line.
            found.add(inside + column)
            if column.endswith("/"):
                folders.append((indent, column))
                inside += column
    return {path for path in found if path.startswith(PACKAGE)}


def in_the_tree() -> set[str]:
    """The folders and modules of the package; of the migrations the folder."""
    found = {f"{PACKAGE}/"}
    for path in (ROOT / PACKAGE).rglob("*.py"):
        if "migrations" in path.parts:
            continue
        found |= {f"{folder.relative_to(ROOT)}/" for folder in path.parents if ROOT in folder.parents}
        if path.name != "__init__.py":
            found.add(str(path.relative_to(ROOT)))
    return found | {f"{PACKAGE}/server/storage/migrations/"}


def test_the_map_is_the_tree() -> None:
    shown, there = on_the_map(), in_the_tree()
    assert not there - shown, "missing on the map"
    assert not shown - there, "on the map, but not in the tree"


def test_test_modules_have_names_of_their_own() -> None:
    # pytest imports them by their file names alone.
    names = [path.name for path in (ROOT / "tests").rglob("*.py") if path.name != "conftest.py"]
    assert {name for name in names if names.count(name) > 1} == set()
