"""Calls about projects, by a client or by raw requests, alone or at once, and their errors."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest
from botocore.exceptions import ClientError
from signed_http import Answer, Wire

PROJECTS = "/2020-11-20/projects"
Result = TypeVar("Result")


def refused(call: Any, **members: Any) -> dict[str, Any]:
    """The error that a call ends in, as the SDK parsed it."""
    with pytest.raises(ClientError) as caught:
        call(**members)
    return dict(caught.value.response)


def names(client: Any, **members: Any) -> list[str]:
    return [project["ProjectName"] for project in client.list_projects(**members)["Projects"]]


@dataclass(frozen=True)
class Caller:
    """Creates and deletes projects with raw requests, so that answers can be compared byte by byte."""

    wire: Wire

    def create(self, name: str, token: str | None = None) -> Answer:
        headers = {} if token is None else {"X-Amzn-Client-Token": token}
        return self.wire.send("POST", PROJECTS, body=body_of(name), headers=headers)

    def delete(self, name: str, token: str | None = None) -> Answer:
        headers = {} if token is None else {"X-Amzn-Client-Token": token}
        return self.wire.send("DELETE", f"{PROJECTS}/{name}", headers=headers)

    def names(self) -> list[str]:
        return [project["ProjectName"] for project in self.wire.send("GET", PROJECTS).json["Projects"]]


def body_of(name: str) -> bytes:
    """What CreateProject is sent."""
    return json.dumps({"ProjectName": name}).encode()


def at_once(calls: Sequence[Callable[[], Result]]) -> list[Result]:
    """Make all calls at one instant; their results, in their order."""
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], Result]) -> Result:
        barrier.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))
