"""The templates, and how values are shown in them: everything is escaped, and moments are in UTC."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader
from starlette.responses import HTMLResponse, Response

from airflow_provider_lookoutvision import __version__

FOLDER = Path(__file__).parent
_NONE = "\N{EN DASH}"

# How a state is shown: settled well, under way, or failed.
_KINDS = {
    "TRAINING": "busy",
    "TRAINING_FAILED": "bad",
    "TRAINED": "good",
    "STARTING_HOSTING": "busy",
    "STOPPING_HOSTING": "busy",
    "HOSTED": "live",
    "HOSTING_FAILED": "bad",
    "CREATE_IN_PROGRESS": "busy",
    "UPDATE_IN_PROGRESS": "busy",
    "CREATE_COMPLETE": "good",
    "UPDATE_COMPLETE": "good",
    "CREATE_FAILED": "bad",
    "UPDATE_FAILED_ROLLBACK_COMPLETE": "bad",
    "CREATED": "busy",
    "RUNNING": "busy",
    "SUCCEEDED": "good",
    "FAILED": "bad",
}


@cache
def environment() -> Environment:
    """The templates of the console."""
    found = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {"moment": _moment, "count": _count, "percent": _percent, "words": _words, "q": _quoted}
    found.globals |= {"kind_of": _kind_of, "any_busy": _any_busy, "version": __version__}
    return found


def page(template: str, status_code: int, /, **values: Any) -> Response:
    """A page, of a template and what it shows."""
    return HTMLResponse(environment().get_template(template).render(**values), status_code)


def _kind_of(status: str) -> str:
    return _KINDS.get(status, "good")


def _any_busy(*lists: Iterable[Mapping[str, Any]]) -> bool:
    """Whether one of these resources, as Describe or List has them, is under way."""
    return any(_kind_of(each["Status"]) == "busy" for each in chain.from_iterable(lists))


def _moment(seconds: float | None) -> str:
    if seconds is None:
        return _NONE
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")


def _count(number: float) -> str:
    return f"{number:,.0f}".replace(",", " ")


def _percent(share: float | None, digits: int = 1) -> str:
    return _NONE if share is None else f"{share * 100:.{digits}f} %"


def _words(status: str) -> str:
    if status in {"CREATE_COMPLETE", "UPDATE_COMPLETE"}:
        return "Ready"
    return status.replace("_", " ").capitalize()


def _quoted(text: Any) -> str:
    """As a part of a URL."""
    return quote(str(text), safe="")
