"""Request IDs: each answer has one, whoever gives it, and all that is logged on its way has it too."""

from __future__ import annotations

import uuid

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from airflow_provider_lookoutvision.server.logs import request_id

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

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start" and not any(
                name.lower() in _HEADERS for name, _ in message["headers"]
            ):
                message = {**message, "headers": [*message["headers"], (HEADER, identity.encode())]}
            await send(message)

        await self._application(scope, receive, send_with_id)
