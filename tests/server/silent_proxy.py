"""A way to PostgreSQL on which everything can fall silent: connections stay, and nothing comes any more."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Any, Self

import sqlalchemy as sa


class SilentProxy:
    """Forwards TCP connections to a server on a Unix socket, inside a ``with`` block, while it isn't silent.

    :param url: of a database there, as ``PostgresServer.new_database`` gives it.
    """

    def __init__(self, url: str) -> None:
        address = sa.make_url(url)
        self._server_path = f"{address.query['host']}/.s.PGSQL.5432"
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._speaks = threading.Event()
        self._speaks.set()
        host, port = self._listener.getsockname()
        self.url = address.set(host=host, port=port, query={}).render_as_string()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._speaks.set()
        self._listener.close()
        for end in self._open:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def fall_silent(self) -> None:
        """Forward nothing from now on; what comes is taken all the same."""
        self._speaks.clear()

    def speak(self) -> None:
        """Forward again, what has come meanwhile too."""
        self._speaks.set()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._server_path)
            self._open += [client, server]
            for ends in ((client, server), (server, client)):
                threading.Thread(target=self._forward, args=ends, daemon=True).start()

    def _forward(self, source: Any, sink: Any) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self._speaks.wait()
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
