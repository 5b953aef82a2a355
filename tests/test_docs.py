"""The documents say what is so: their tables against the code, and their snippets run as they stand."""

from __future__ import annotations

import ast
import inspect
import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_lookoutvision.operators import lookoutvision as operators
from airflow_provider_lookoutvision.provider_info import get_provider_info
from airflow_provider_lookoutvision.sensors import lookoutvision as sensors
from airflow_provider_lookoutvision.server import cli
from airflow_provider_lookoutvision.server.protocol import errors, sigv4
from airflow_provider_lookoutvision.server.settings import ENVIRONMENT_PREFIX, Settings

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    ROOT / "SECURITY.md",
    *(ROOT / "docs").glob("*.md"),
]
OPERATORS = [vars(operators)[name] for name in operators.__all__]
SENSORS = [
    each
    for name, each in vars(sensors).items()
    if name.endswith("Sensor") and each.__module__ == sensors.__name__ and not inspect.isabstract(each)
]


def snippets(text: str, language: str) -> list[str]:
    """The code blocks of a document, by their language."""
    blocks = re.findall(r"^```([^\n]*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [code for name, code in blocks if re.fullmatch(language, name)]


def examples() -> dict[str, tuple[Path, str]]:
    """What stands between markers in the example DAGs: the file and the code, by the marker's name."""
    return {
        marker: (file, code)
        for file in (ROOT / "example_dags").glob("*.py")
        for marker, code in re.findall(
            r"^ *# \[START (\w+)\]\n(.*?)^ *# \[END \1\]$", file.read_text(), re.DOTALL | re.MULTILINE
        )
    }


def inclusions() -> list[tuple[Path, str]]:
    """What the documents include of files: the file, and the marker, which is empty for a whole file."""
    found = []
    for document in DOCUMENTS:
        for target, options in re.findall(
            r"^```\{literalinclude\} (\S+)\n(.*?)^```$", document.read_text(), re.DOTALL | re.MULTILINE
        ):
            markers = re.findall(
                r'^:(?:start-after|end-before): "\[(?:START|END) (\w+)\]"$', options, re.MULTILINE
            )
            start, end = markers or ("", "")
            assert start == end, options
            found.append(((document.parent / target).resolve(), start))
    return found


def settings_table() -> str:
    """The settings, as docs/operating.md shows them."""
    lines = ["| Flag | Variable | Default | What |", "| --- | --- | --- | --- |"]
    for setting in fields(Settings):
        flag = "--" + setting.name.replace("_", "-")
        variable = ENVIRONMENT_PREFIX + setting.name.upper()
        match setting.name, setting.default:
            case "data_dir", _:
                default = "`$XDG_DATA_HOME/lookoutvision`, or `~/.local/share/lookoutvision`"
            case _, None | "" | ():
                default = ""
            case _, bool(value):
                default = f"`{str(value).lower()}`"
            case _, value:
                default = f"`{value}`"
        what = setting.metadata["help"].replace("|", r"\|")
        lines.append(f"| `{flag}` | `{variable}` | {default} | {what} |")
    return "\n".join(lines)


def test_the_settings_are_in_the_manual() -> None:
    text = (ROOT / "docs" / "operating.md").read_text()
    shown = re.search(r"<!-- settings -->\n(.*?)\n<!-- /settings -->", text, re.DOTALL)
    assert shown
    assert shown[1] == settings_table(), f"put this between the two comments:\n{settings_table()}"


def test_every_error_code_is_in_the_manual() -> None:
    text = (ROOT / "docs" / "behaviour.md").read_text()
    shown = dict(re.findall(r"^\| `(\w+)` \| (\d+) \|", text, re.MULTILINE))
    leaves = [error for error in _leaves(errors.ServiceError) if error.__module__ == errors.__name__]
    found = {error.__name__: str(error.status) for error in leaves}
    del found["SignatureException"]
    assert shown == found
    codes = {
        value
        for value in vars(sigv4).values()
        if isinstance(value, str)
        and re.fullmatch(r"[A-Z]\w+(Exception|Expired|InTheFuture|Malformed)", value)
    }
    assert set(re.findall(r"^\| `(\w+)` \| [a-z]", text, re.MULTILINE)) == codes


def _leaves(kind: type) -> Iterator[type[errors.ServiceError]]:
    if not kind.__subclasses__():
        yield kind
    for child in kind.__subclasses__():
        yield from _leaves(child)


def test_what_the_examples_mark_is_included() -> None:
    marked = examples()
    starts = [
        marker
        for file in (ROOT / "example_dags").glob("*.py")
        for marker in re.findall(r"\[START (\w+)\]", file.read_text())
    ]
    assert sorted(starts) == sorted(marked), "each marker once, and with an end"
    assert {marker: file for file, marker in inclusions() if marker} == {
        marker: file for marker, (file, _) in marked.items()
    }


def test_each_example_is_in_the_manual() -> None:
    whole = {file for file, marker in inclusions() if not marker}
    assert whole == set((ROOT / "example_dags").glob("*.py"))
    text = (ROOT / "docs" / "examples.md").read_text()
    assert {file.stem for file in whole} == set(re.findall(r"^\| \[(\w+)\]", text, re.MULTILINE))


@pytest.mark.parametrize("kind", [*OPERATORS, *SENSORS], ids=lambda kind: kind.__name__)
def test_each_operator_and_sensor_has_a_how_to(kind: type) -> None:
    name, what = re.fullmatch(r"LookoutVision(\w+)(Operator|Sensor)", kind.__name__).groups()  # type: ignore[union-attr]
    snake = re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
    _, code = examples()[f"howto_{what.lower()}_lookoutvision_{snake}"]

    assert code.count(kind.__name__) == 1
    (section,) = re.findall(rf"\[{kind.__name__}\]\((\w+\.md)#", (ROOT / "docs" / "operators.md").read_text())
    assert f"`{kind.__name__}`" in (ROOT / "docs" / section).read_text()


def test_how_long_operators_wait_is_in_the_manual() -> None:
    text = (ROOT / "docs" / "operators.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (\d+) s \| ([\d,]+) times \| (\d+) (h|min) \|$", text, re.MULTILINE)
    shown = {name: (int(delay), int(most.replace(",", ""))) for name, delay, most, *_ in rows}

    assert shown == {
        kind.__name__: (default(kind, "waiter_delay"), default(kind, "waiter_max_attempts"))
        for kind in OPERATORS
        if default(kind, "waiter_delay")
    }
    for _, delay, most, length, unit in rows:
        seconds = int(delay) * int(most.replace(",", ""))
        assert seconds == int(length) * {"h": 3600, "min": 60}[unit]


def default(kind: type, parameter: str) -> Any:
    """The default of an operator's parameter, which a base may take for it."""
    signatures = (
        inspect.signature(vars(base)["__init__"]).parameters
        for base in kind.__mro__
        if "__init__" in vars(base)
    )
    return next((parameters[parameter].default for parameters in signatures if parameter in parameters), None)


def test_the_reference_has_the_modules_that_airflow_is_told_of() -> None:
    info = get_provider_info()
    told = [
        module
        for kind in ("hooks", "operators", "sensors", "triggers")
        for entry in info[kind]
        for module in entry["python-modules"]
    ]
    reference = (ROOT / "docs" / "api.md").read_text()
    assert told
    assert all(f"automodule:: {module}\n" in reference for module in told)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_snippets_are_python_for_both_airflows(document: Path) -> None:
    imports = []
    for code in snippets(document.read_text(), "python"):
        tree = ast.parse(code)
        imports += [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    lines = "\n".join(map(ast.unparse, imports))

    exec(lines, {})
    assert "airflow.sdk" not in lines, "Airflow 2.11 has no airflow.sdk"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", document.read_text()):
        if "://" not in target:
            assert (document.parent / target).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_the_files_that_are_named_exist(document: Path) -> None:
    named = re.findall(
        r"`((?:docs|bench|tests|example_dags|airflow_provider_lookoutvision)/[\w./-]+)`", document.read_text()
    )
    for name in named:
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_are_commands_of_ours(document: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for line in _code(document.read_text()):
        if not re.match(r"(make|lookoutvision)\b", line):
            continue
        command, *words = shlex.split(line, comments=True)
        if command == "make":
            assert {word for word in words if word.islower() and "=" not in word} <= targets, line
        elif words:
            cli._parser().parse_args(words)


def _code(text: str) -> list[str]:
    """The lines of the code blocks, and what is in code between words."""
    blocks = snippets(text, r"\w*")
    return [*(line for block in blocks for line in block.splitlines()), *re.findall(r"`([^`\n]+)`", text)]


def test_constraints_pin_everything_that_an_install_names() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups = project["dependency-groups"]
    named = [
        *project["project"]["dependencies"],
        *(line for extra in project["project"]["optional-dependencies"].values() for line in extra),
        *groups["test"],
        *(line for line in groups["dev"] if isinstance(line, str)),
    ]
    pinned = set(re.findall(r"^([\w.-]+)==", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    assert {re.split(r"[^\w.-]", line)[0] for line in named} <= pinned, "run `make constraints`"
    assert not re.search(r"://|^-|@", (ROOT / "constraints.txt").read_text(), re.MULTILINE)


def test_the_changelog_knows_this_version() -> None:
    version = ast.literal_eval(
        re.search(r"__version__ = (.*)", (ROOT / "airflow_provider_lookoutvision/__init__.py").read_text())[1]  # type: ignore[index]
    )
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()
