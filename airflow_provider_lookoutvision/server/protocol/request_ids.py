"""Request IDs: each answer has one, whoever gives it, and all that is logged on its way has it too."""

from __future__ import annotations

import logging
import uuid

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from airflow_provider_lookoutvision.server.logs import request_id

log = logging.getLogger("lookoutvision")

HEADER = b"x-amzn-requestid"
_HEADERS = frozenset({HEADER, b"x-amz-request-id"})  # the API's, and S3's


def new_request_id() -> str:
    """An ID that no other request has."""
    return str(uuid.uuid4())


class RequestIds:
    """An ASGI application around another: gives each request an ID, and each answer the header.

    ``logs.request_id`` is the ID while the request is worked on, in its threads too.
    """

    def __init__(self, application: ASGIApp) -> None:
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        identity = new_request_id()
        request_id.set(identity)  # of this request's own task: there is nothing to put back

        begun = False

        async def send_with_id(message: Message) -> None:
            nonlocal begun
            begun = True
            if message["type"] == "http.response.start" and not any(
                name.lower() in _HEADERS for name, _ in message["headers"]
            ):
                message = {**message, "headers": [*message["headers"], (HEADER, identity.encode())]}
            await send(message)

        try:
            await self._application(scope, receive, send_with_id)
        except Exception:
            log.exception("internal error")
            if begun:
                raise  # the connection must break: half an answer is out
            await Response(f"See the log under {identity}\n", 500)(scope, receive, send_with_id)
