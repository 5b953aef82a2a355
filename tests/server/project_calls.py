"""Calls about projects, by an SDK client or by raw requests."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from signed_http import HttpResponse, SignedHttpClient

PROJECTS = "/2020-11-20/projects"


def names(client: Any, **members: Any) -> list[str]:
    return [project["ProjectName"] for project in client.list_projects(**members)["Projects"]]


@dataclass(frozen=True)
class ProjectClient:
    """Creates and deletes projects with raw requests, so that answers can be compared byte by byte."""

    signed_http: SignedHttpClient

    def create(self, name: str, token: str | None = None) -> HttpResponse:
        headers = {} if token is None else {"X-Amzn-Client-Token": token}
        return self.signed_http.send("POST", PROJECTS, body=body_of(name), headers=headers)

    def delete(self, name: str, token: str | None = None) -> HttpResponse:
        headers = {} if token is None else {"X-Amzn-Client-Token": token}
        return self.signed_http.send("DELETE", f"{PROJECTS}/{name}", headers=headers)

    def names(self) -> list[str]:
        return [project["ProjectName"] for project in self.signed_http.send("GET", PROJECTS).json["Projects"]]


def body_of(name: str) -> bytes:
    """What CreateProject is sent."""
    return json.dumps({"ProjectName": name}).encode()
