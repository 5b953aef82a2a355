"""One request of somebody who is signed in: what it brings, the calls it makes, and its answer.

A visit calls the same operations as a signed request, with the rights of the key that signed in.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlencode

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from airflow_provider_lookoutvision.server.calls.access import Caller
from airflow_provider_lookoutvision.server.calls.call import Call, Inference
from airflow_provider_lookoutvision.server.console import rendering
from airflow_provider_lookoutvision.server.console.objects import Objects
from airflow_provider_lookoutvision.server.console.sessions import Session
from airflow_provider_lookoutvision.server.dispatch import Dispatcher
from airflow_provider_lookoutvision.server.protocol.errors import (
    AccessDeniedException,
    ResourceNotFoundException,
    SerializationException,
)
from airflow_provider_lookoutvision.server.settings import Settings

PATH = "/console"
_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)+")

Found = TypeVar("Found")


def base_of(request: Request) -> str:
    """The path of the console as the browser sees it, also behind a proxy that puts a prefix before it."""
    prefix = request.headers.get("x-forwarded-prefix", "")
    return (prefix if _PREFIX.fullmatch(prefix) else "") + PATH


def wants_json(request: Request) -> bool:
    """Whether a script made the request, and not the browser itself."""
    return request.headers.get("accept", "").startswith("application/json")


@dataclass
class Visit:
    """A request, and who makes it. ``made`` are the operations that it has called."""

    request: Request
    session: Session
    caller: Caller
    settings: Settings
    dispatcher: Dispatcher
    body: bytes = b""
    made: list[str] = field(default_factory=list)

    # -- what it brings ------------------------------------------------------------------------------------

    @property
    def path(self) -> Mapping[str, str]:
        """The variable parts of the path."""
        return self.request.path_params

    @property
    def query(self) -> Mapping[str, str]:
        """The parameters of the query string."""
        return self.request.query_params

    @cached_property
    def form(self) -> Mapping[str, str]:
        """The fields of a form; blanks at the ends are taken away."""
        try:
            pairs = parse_qsl(self.body.decode(), keep_blank_values=True, max_num_fields=1000)
        except ValueError as error:
            raise SerializationException(f"The form can't be read: {error}") from None
        return {name: value.strip() for name, value in pairs}

    @cached_property
    def document(self) -> dict[str, Any]:
        """The JSON object that a script sends."""
        try:
            document = json.loads(self.body)
        except ValueError as error:
            raise SerializationException(f"The body is not JSON: {error}") from None
        if not isinstance(document, dict):
            raise SerializationException("The body must be a JSON object")
        return document

    @property
    def token(self) -> str:
        """The client token that the page was given with its form, so that sending it twice does it once."""
        given = self.form.get("token") or ""
        return given or str(uuid.uuid4())

    def number(self, name: str, default: int, least: int, most: int) -> int:
        """A number of the query string; the default when it is none."""
        text = self.query.get(name, "")
        return min(max(int(text), least), most) if re.fullmatch(r"[0-9]{1,9}", text) else default

    # -- the calls it makes --------------------------------------------------------------------------------

    def call(self, operation: str, check: Callable[[Call], None] | None = None, **members: Any) -> Any:
        """Call an operation of the API; its answer, as JSON has it. In a thread.

        :param members: by their names in the API; None leaves one out.
        :param check: see ``Dispatcher.perform``.
        :raises ServiceError: what the operation raises.
        """
        compiled = self.dispatcher.protocol.operations[operation]
        self.made.append(operation)
        self.dispatcher.admit(self.caller, compiled)
        answer = self.dispatcher.perform(self.caller, compiled, compiled.read_members(members), check)
        if isinstance(answer, Inference):
            raise TypeError(f"{operation} is waited for: use call_hosted")
        return json.loads(answer)

    async def call_hosted(self, operation: str, **members: Any) -> Any:
        """The same of an operation that a hosted model answers, with its anomaly map. In the event loop."""
        compiled = self.dispatcher.protocol.operations[operation]
        self.made.append(operation)

        def work() -> bytes | Inference:
            self.dispatcher.admit(self.caller, compiled)
            answer = self.dispatcher.perform(self.caller, compiled, compiled.read_members(members))
            return replace(answer, anomaly_map=True) if isinstance(answer, Inference) else answer

        return json.loads(await self.dispatcher.perform_in_thread(compiled, work))

    def all_of(self, operation: str, of: str, **members: Any) -> list[Any]:
        """All pages of a list."""
        found: list[Any] = []
        following = None
        while True:
            answer = self.call(operation, MaxResults=100, NextToken=following, **members)
            found += answer[of]
            following = answer.get("NextToken")
            if not following:
                return found

    def look(self, operation: str, project_name: str | None, find: Callable[[Call], Found]) -> Found:
        """Read what the right to an operation shows."""
        return self.dispatcher.look(self.caller, operation, project_name, find)

    def optional(self, operation: str, **members: Any) -> Any | None:
        """The answer of an operation, or None when there is no such resource or no right to it."""
        try:
            return self.call(operation, **members)
        except (AccessDeniedException, ResourceNotFoundException):
            return None

    def may(self, operation: str, project_name: str | None = None) -> bool:
        """Whether the key may do that."""
        try:
            self.caller.authorize(operation, project_name)
        except AccessDeniedException:
            return False
        return True

    @cached_property
    def objects(self) -> Objects:
        """The buckets, with the rights of the key."""
        return Objects(self.settings, self.caller)

    # -- its answer ----------------------------------------------------------------------------------------

    @property
    def base(self) -> str:
        """The path of the console as the browser sees it."""
        return base_of(self.request)

    def url(self, path: str, **query: Any) -> str:
        """The address of a page; parameters that are empty are left out."""
        pairs = {name: value for name, value in query.items() if value not in (None, "")}
        return f"{self.base}{path}" + (f"?{urlencode(pairs)}" if pairs else "")

    def render(self, template: str, status: int = 200, **values: Any) -> Response:
        """A page."""
        return rendering.page(template, status, visit=self, base=self.base, **values)

    def done(self, path: str, **query: Any) -> Response:
        """The answer to a form: on to that page."""
        location = self.url(path, **query)
        if wants_json(self.request):
            return JSONResponse({"location": location})
        return RedirectResponse(location, 303)

    @staticmethod
    def new_token() -> str:
        """A client token for a form."""
        return str(uuid.uuid4())
