"""DNS over TCP (RFC 7766): queries with their length in front, answered in order.

Whoever holds a connection without asking loses it after ten seconds; what comes by the byte does
not count as asking. One address, of IPv6 one network (/64), has a few connections at most, and
where all are taken the one that has been silent for longest makes room.
"""

from __future__ import annotations

import asyncio
from ipaddress import IPv6Address
from typing import TYPE_CHECKING, Final

from typing_extensions import override

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

IDLE_S: Final = 10.0
SWEEP_S: Final = 1.0
MAX_CONNECTIONS: Final = 512
MAX_PER_ADDRESS: Final = 16
BACKLOG: Final = 256
# One query of 64 KiB and the beginning of the next.
MAX_BUFFERED_BYTES: Final = 2 + 65_535 + 65_536


class Streams:
    """The connections of one listener or several."""

    def __init__(
        self,
        *,
        answer: Callable[[bytes, str, str], bytes | asyncio.Future[bytes] | None],
        monotonic_s: Callable[[], float],
        max_connections: int = MAX_CONNECTIONS,
        max_per_address: int = MAX_PER_ADDRESS,
        idle_s: float = IDLE_S,
    ) -> None:
        self._answer = answer
        self._monotonic_s = monotonic_s
        self._max_connections = max_connections
        self._max_per_address = max_per_address
        self._idle_s = idle_s
        self._servers: list[asyncio.Server] = []
        self._open: dict[_Connection, None] = {}
        self._by_address: dict[str, int] = {}
        self.refused_count = 0
        self.timed_out_count = 0

    @property
    def count(self) -> int:
        """How many connections there are."""
        return len(self._open)

    async def listen(self, sock: socket.socket) -> None:
        """Take connections on a bound socket."""
        loop = asyncio.get_running_loop()
        self._servers.append(
            await loop.create_server(lambda: _Connection(self), sock=sock, backlog=BACKLOG)
        )

    async def close(self) -> None:
        """Take no more, and end those that are there; may be called twice."""
        servers, self._servers = self._servers, []
        for server in servers:
            server.close()
        for connection in list(self._open):
            connection.abort()

    def sweep(self) -> None:
        """End the connections over which nothing was asked for too long."""
        silent_since_s = self._monotonic_s() - self._idle_s
        for connection in list(self._open):
            # The one that asked last stands last.
            if connection.asked_s > silent_since_s:
                return
            self.timed_out_count += 1
            connection.abort()

    def admit(self, connection: _Connection) -> bool:
        """Say whether a new connection may stay."""
        count = self._by_address.get(connection.owner, 0)
        if count >= self._max_per_address:
            self.refused_count += 1
            return False
        if len(self._open) >= self._max_connections:
            self.refused_count += 1
            next(iter(self._open)).abort()
        self._by_address[connection.owner] = self._by_address.get(connection.owner, 0) + 1
        self._open[connection] = None
        connection.asked_s = self._monotonic_s()
        return True

    def forget(self, connection: _Connection) -> None:
        """Note that a connection ended."""
        if connection not in self._open:
            return
        del self._open[connection]
        left = self._by_address[connection.owner] - 1
        if left:
            self._by_address[connection.owner] = left
        else:
            del self._by_address[connection.owner]

    def answer(self, connection: _Connection, data: bytes) -> bytes | asyncio.Future[bytes] | None:
        """Answer a query that has come whole, now or soon; None: the connection is to end."""
        connection.asked_s = self._monotonic_s()
        if connection in self._open:
            del self._open[connection]
            self._open[connection] = None
        return self._answer(data, connection.address, connection.local)


class _Connection(asyncio.Protocol):
    """One client."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._awaited: asyncio.Future[bytes] | None = None
        self._is_full = False
        self.address = ""
        self.owner = ""
        self.local = ""
        self.asked_s = 0.0

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection, unless there are too many."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 (what create_server makes)
        self._transport = transport
        peer, local = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
        self.address = str(peer[0]) if peer else ""
        self.owner = owner_of(self.address)
        self.local = str(local[0]) if local else ""
        if not peer or not self._streams.admit(self):
            transport.abort()

    @override
    def data_received(self, data: bytes) -> None:
        """Answer what has come whole."""
        self._buffer += data
        self._answer_whole()
        if len(self._buffer) > MAX_BUFFERED_BYTES:
            self.abort()

    @override
    def eof_received(self) -> bool:
        """Close after what was answered is sent."""
        return False

    @override
    def pause_writing(self) -> None:
        """Read no more from one who does not read."""
        self._is_full = True
        if self._transport is not None:
            self._transport.pause_reading()

    @override
    def resume_writing(self) -> None:
        """Go on where the client reads again."""
        self._is_full = False
        self._go_on()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._transport = None
        self._streams.forget(self)

    def abort(self) -> None:
        """End the connection at once."""
        self._streams.forget(self)
        if self._transport is not None:
            self._transport.abort()

    def _answer_whole(self) -> None:
        buffer, at = self._buffer, 0
        while (transport := self._transport) is not None and transport.is_reading():
            if len(buffer) - at < 2:
                break
            after = at + 2 + (buffer[at] << 8 | buffer[at + 1])
            if after == at + 2:
                self.abort()
                return
            if len(buffer) < after:
                break
            answer = self._streams.answer(self, bytes(buffer[at + 2 : after]))
            at = after
            if answer is None:
                self.abort()
                return
            if isinstance(answer, bytes):
                self._write(answer)
            else:
                # In order: what was asked after it waits in the buffer.
                self._awaited = answer
                transport.pause_reading()
                answer.add_done_callback(self._answered_late)
        del buffer[:at]

    def _answered_late(self, answer: asyncio.Future[bytes]) -> None:
        self._awaited = None
        if answer.cancelled() or answer.exception() is not None:
            self.abort()
            return
        self._write(answer.result())
        self._go_on()

    def _write(self, answer: bytes) -> None:
        if self._transport is not None:
            self._transport.write(len(answer).to_bytes(2, "big") + answer)

    def _go_on(self) -> None:
        if self._transport is not None and self._awaited is None and not self._is_full:
            self._transport.resume_reading()
            self._answer_whole()


def owner_of(address: str) -> str:
    """Return what stands for one who connects: the address, of a public IPv6 one its /64."""
    if ":" not in address:
        return address
    six = IPv6Address(address)
    # Endpoints of the mesh are many in one network; they have private addresses.
    return address if six.is_private or six.is_link_local else six.packed[:8].hex()
