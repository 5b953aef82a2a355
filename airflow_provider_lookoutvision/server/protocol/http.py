"""HTTP/1.1 as uvicorn speaks it, with a limit on what is neither complete nor a body, and a quick farewell.

The parser keeps a request line, headers and trailers of any length until they end, and nobody knows yet who
sends them: without a limit, a stranger could fill the memory.
"""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_LIMIT = 64 << 10


class BoundedHttpProtocol(HttpToolsProtocol):
    """Refuses a connection that sends ``HEAD_LIMIT`` bytes without completing anything."""

    _incomplete_bytes = 0

    def data_received(self, data: bytes) -> None:  # noqa: D102
        self._incomplete_bytes += len(data)
        super().data_received(data)
        if self._incomplete_bytes > HEAD_LIMIT and not self.transport.is_closing():
            self.send_400_response("The head of the request is too large.")

    def on_headers_complete(self) -> None:  # noqa: D102
        self._incomplete_bytes = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:  # noqa: D102
        self._incomplete_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:  # noqa: D102
        self._incomplete_bytes = 0
        super().on_message_complete()

    def shutdown(self) -> None:  # noqa: D102
        super().shutdown()
        idle = self.cycle is None or self.cycle.response_complete
        if idle and self.scheme == "https" and not self.transport.get_write_buffer_size():
            # TLS waits half a minute for the other side's farewell, which an idle client doesn't send.
            self.transport.abort()
