"""The connections of a process: how many there may be, and for how long one may keep the service waiting.

Nobody knows yet who is at the other end, so nothing is free. When there are as many connections as there may
be, all in all or from one address, the one that has been waiting longest for its client is closed, of the
address that has most of them: who holds many loses them first, and a newcomer gets in. Only when the service
works on all of them is the newcomer refused, with 503.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections import Counter
from collections.abc import Iterable
from typing import Protocol

# For the head of a request, from its first byte on; for a first one, from the connection on.
HEAD_SECONDS = 20.0
# For the client to read an answer, or something of it.
READ_SECONDS = 60.0
# What all connections together may keep of requests that are not worked on yet.
HELD_BYTES = 64 << 20
_SWEEP_SECONDS = 1.0
_LOG_SECONDS = 10.0
_IPV6_SITE = 64

log = logging.getLogger("lookoutvision")


class Connection(Protocol):
    """One connection, as it looks from here."""

    address: str

    @property
    def waits(self) -> tuple[int, float] | None:
        """Since when it waits for its client, after how easily it is given up; None while it is worked on."""

    @property
    def overdue(self) -> str | None:
        """What has been waited for long enough, or None."""

    @property
    def held_bytes(self) -> int:
        """How many bytes it keeps of requests that are not worked on yet."""

    def abort(self) -> None:
        """Close it now."""


class Connections:
    """The connections of this process, in its event loop.

    :param most: at a time.
    :param most_per_address: of one IPv4 address, or one IPv6 network of 64 bits.
    """

    def __init__(self, most: int, most_per_address: int) -> None:
        self._most, self._most_per_address = most, most_per_address
        self._open: dict[Connection, str] = {}
        self._by_client: Counter[str] = Counter()
        self._unlogged: Counter[str] = Counter()
        self._logged_at: dict[str, float] = {}
        self._sweeper: asyncio.TimerHandle | None = None

    def admit(self, connection: Connection) -> bool:
        """Count a new connection, if need be in place of another; whether there is room."""
        client = client_of(connection.address)
        if self._by_client[client] >= self._most_per_address:
            room = self._give_up(self._of(client), "too many connections from one address")
        elif len(self._open) >= self._most:
            room = self._give_up(self._of_the_greediest(), "too many connections")
        else:
            room = True
        if room:
            self._open[connection] = client
            self._by_client[client] += 1
            if self._sweeper is None:
                self._sweep_later()
        else:
            self._log("connections refused: the service works on as many as there may be", client)
        return room

    def remove(self, connection: Connection) -> None:
        """Count a connection no more."""
        if (client := self._open.pop(connection, None)) is not None:
            self._by_client[client] -= 1
            if not self._by_client[client]:
                del self._by_client[client]

    def check_memory(self) -> None:
        """Close the connection that keeps most, while all together keep too much."""
        held = sum(connection.held_bytes for connection in self._open)
        while held > HELD_BYTES:
            largest = max(self._open, key=lambda connection: connection.held_bytes)
            held -= largest.held_bytes
            self._close(largest, "too many bytes of requests that are not worked on yet")

    def _of(self, client: str) -> Iterable[Connection]:
        return [connection for connection, its_client in self._open.items() if its_client == client]

    def _of_the_greediest(self) -> Iterable[Connection]:
        """The connections that wait, of the address that has most of those."""
        waiting = Counter(client for connection, client in self._open.items() if connection.waits)
        return self._of(waiting.most_common(1)[0][0]) if waiting else []

    def _give_up(self, candidates: Iterable[Connection], reason: str) -> bool:
        waiting = [(connection.waits, connection) for connection in candidates if connection.waits]
        if not waiting:
            return False
        _, connection = min(waiting, key=lambda entry: entry[0] or (0, 0.0))
        self._close(connection, reason)
        return True

    def _sweep_later(self) -> None:
        self._sweeper = asyncio.get_running_loop().call_later(_SWEEP_SECONDS, self._sweep)

    def _sweep(self) -> None:
        self._sweeper = None
        for connection in list(self._open):
            if reason := connection.overdue:
                self._close(connection, reason)
        if self._open:
            self._sweep_later()

    def _close(self, connection: Connection, reason: str) -> None:
        client = self._open[connection]
        self.remove(connection)
        connection.abort()
        if reason != IDLE:
            self._log(f"connections closed: {reason}", client)

    def _log(self, message: str, client: str) -> None:
        """One line for many of a kind: a stranger must not fill the log."""
        self._unlogged[message] += 1
        now = asyncio.get_running_loop().time()
        if now - self._logged_at.get(message, -_LOG_SECONDS) >= _LOG_SECONDS:
            self._logged_at[message] = now
            extra = {
                "address": client,
                "connections": self._unlogged.pop(message),
                "open_connections": len(self._open),
            }
            log.warning(message, extra=extra)


# No fault, and so not logged.
IDLE = "idle"


def client_of(address: str) -> str:
    """Who counts as one: an IPv4 address, or the network that an IPv6 address is in."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((found, _IPV6_SITE), strict=False))
    return address
