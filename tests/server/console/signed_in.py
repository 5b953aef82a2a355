"""A session of the console without a browser: forms as a page sends them, and requests as its scripts do."""

from __future__ import annotations

import re
from typing import Any

import httpx
from services import REGION

from airflow_provider_lookoutvision.testing.service import Key, Service


class Session:
    """Somebody who is signed in."""

    def __init__(self, service: Service, key: Key) -> None:
        self.http = httpx.Client(base_url=f"{service.endpoint_url}/console", timeout=60)
        fields = {
            "access_key_id": key.access_key_id,
            "secret_access_key": key.secret_access_key,
            "region": REGION,
        }
        assert self.http.post("/sign-in", data=fields).status_code == 303
        found = re.search(r'name="csrf" content="(\w+)"', self.http.get("/").text)
        assert found
        self._csrf = {"X-CSRF-Token": found[1]}

    def page(self, path: str, status: int = 200) -> str:
        answer = self.http.get(path)
        assert answer.status_code == status, answer.text
        return answer.text

    def send(self, path: str, status: int = 303, **fields: str) -> httpx.Response:
        """A form."""
        answer = self.http.post(path, data=fields, headers=self._csrf)
        assert answer.status_code == status, answer.text
        return answer

    def ask(self, path: str, document: Any, status: int = 200, method: str = "POST") -> dict[str, Any]:
        """What a script sends, JSON or bytes; the JSON of the answer."""
        body = {"content": document} if isinstance(document, bytes) else {"json": document}
        headers = {**self._csrf, "Accept": "application/json"}
        answer = self.http.request(method, path, headers=headers, **body)
        assert answer.status_code == status, answer.text
        return dict(answer.json())
