"""The data path in this program: where there is no nftables, or the two sides differ in family.

One buffer, one look-up and one send for each datagram, and nothing made but what the socket itself
makes; the numbers of a direction stand in columns. What the kernel's path does is done here, too:
the form of a WireGuard packet, the two bound sides and nobody else, and no more than the rate.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from array import array
from typing import TYPE_CHECKING, Any, Final

from services.edge.relay.messages import MAGIC
from services.edge.relay.tables import BURST_KBYTES
from services.runtime.udp import bound_socket

if TYPE_CHECKING:
    from collections.abc import Callable

    from services.edge.relay.model import Address, Link, Place, Side

logger = logging.getLogger(__name__)

MAX_PACKET_BYTES: Final = 9216
BATCH: Final = 64

# The kernel counts packets with their headers; so do we, those of IPv4 and UDP.
_HEADER_BYTES: Final = 28
_DATA: Final = b"\x04\0\0\0"
_DATA_BYTES: Final = 32
_HANDSHAKES: Final = {b"\x01\0\0\0": 148, b"\x02\0\0\0": 92, b"\x03\0\0\0": 64}
_IP_MTU_DISCOVER: Final = 10
_IP_PMTUDISC_DONT: Final = 0


class UserPath:
    """Passes on what sessions send, from the sockets of all data ports."""

    def __init__(
        self,
        *,
        on_control: Callable[[bytes, Address, Place], None],
        monotonic_s: Callable[[], float],
    ) -> None:
        self._on_control = on_control
        self._monotonic_s = monotonic_s
        self._sockets: dict[Place, socket.socket] = {}
        self._senders: dict[Place, Callable[[Any, Any], int]] = {}
        self._buffer = bytearray(MAX_PACKET_BYTES + 1)
        self._view = memoryview(self._buffer)
        self._views: dict[int, memoryview] = {}
        # By direction: through which socket and to where, how fast, and how much.
        self._sends: list[Callable[[Any, Any], int] | None] = []
        self._targets: list[Address | None] = []
        self._rates = array("d")
        self._levels = array("d")
        self._filled_s = array("d")
        self._passed_bytes = array("Q")
        self.passed_count = 0
        self.dropped_count = 0
        self.limited_count = 0
        self.failed_count = 0

    def open(self, place: Place) -> None:
        """Listen at a place; once is enough.

        Raises:
            OSError: it can't be had.
        """
        if place in self._sockets:
            return
        sock = bound_socket(place.host, place.port, socket.SOCK_DGRAM)
        if sock.family == socket.AF_INET:
            # What is too large for a link on the way is cut up, as the kernel's path lets it be.
            sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_DONT)
        self._sockets[place], self._senders[place] = sock, sock.sendto
        asyncio.get_running_loop().add_reader(sock.fileno(), self._drain, sock, place)

    def close(self) -> None:
        """Close every socket; may be called twice."""
        loop = asyncio.get_running_loop()
        for sock in self._sockets.values():
            loop.remove_reader(sock.fileno())
            sock.close()
        self._sockets.clear()
        self._senders.clear()

    def say(self, place: Place, data: bytes, address: Address) -> None:
        """Send a datagram of our own from a data port, or drop it."""
        sock = self._sockets.get(place)
        if sock is None:
            return
        try:
            sock.sendto(data, address)
        except OSError:
            self.failed_count += 1

    def link(self, one: Link) -> None:
        """Let data pass between two sides."""
        self._grow(2 * one.number + 2)
        self._point(2 * one.number, one.b, one.rate_kbits)
        self._point(2 * one.number + 1, one.a, one.rate_kbits)

    def unlink(self, number: int) -> None:
        """Let nothing pass any more."""
        for direction in (2 * number, 2 * number + 1):
            if direction < len(self._sends):
                self._sends[direction] = self._targets[direction] = None

    def set_rate(self, number: int, rate_kbits: int) -> None:
        """Change how fast both sides may send."""
        for direction in (2 * number, 2 * number + 1):
            if direction < len(self._rates):
                self._rates[direction] = rate_kbits * 125

    def is_linked(self, number: int) -> bool:
        """Say whether data passes here."""
        return 2 * number < len(self._sends) and self._sends[2 * number] is not None

    def take_passed(self, direction: int) -> int:
        """Return how many bytes a direction has passed since this was asked last."""
        if direction >= len(self._passed_bytes):
            return 0
        passed, self._passed_bytes[direction] = self._passed_bytes[direction], 0
        return passed

    def _grow(self, size: int) -> None:
        missing = size - len(self._sends)
        if missing > 0:
            self._sends.extend([None] * missing)
            self._targets.extend([None] * missing)
            for column in (self._rates, self._levels, self._filled_s, self._passed_bytes):
                column.extend([0] * missing)

    def _point(self, direction: int, to: Side, rate_kbits: int) -> None:
        self._sends[direction] = self._senders[to.place]
        self._targets[direction] = to.address
        self._rates[direction] = rate_kbits * 125
        self._levels[direction] = _capacity(rate_kbits * 125)
        self._filled_s[direction] = self._monotonic_s()

    def _drain(self, sock: socket.socket, place: Place) -> None:
        receive, buffer, bound = sock.recvfrom_into, self._buffer, place.bound
        now_s = self._monotonic_s()
        for _ in range(BATCH):
            try:
                size, address = receive(buffer)
            except BlockingIOError:
                return
            except OSError as error:
                logger.debug("data port %d: %s", place.port, error)
                return
            if buffer[0] > 4:
                self._take_control(size, address, place)
            elif (direction := bound.get(address)) is None or not _is_packet(buffer, size):
                self.dropped_count += 1
            else:
                self._pass_on(direction, size, now_s)

    def _pass_on(self, direction: int, size: int, now_s: float) -> None:
        if direction >= len(self._sends) or (send := self._sends[direction]) is None:
            self.dropped_count += 1
            return
        rate = self._rates[direction]
        level = self._levels[direction] + (now_s - self._filled_s[direction]) * rate
        cost = size + _HEADER_BYTES
        level = min(level, _capacity(rate)) - cost
        self._filled_s[direction] = now_s
        if level < 0:
            self._levels[direction] = level + cost
            self.limited_count += 1
            return
        self._levels[direction] = level
        view = self._views.get(size)
        if view is None:
            view = self._views[size] = self._view[:size]
        try:
            send(view, self._targets[direction])
        except OSError:
            self.failed_count += 1
            return
        self.passed_count += 1
        self._passed_bytes[direction] += cost

    def _take_control(self, size: int, address: Address, place: Place) -> None:
        if self._buffer.startswith(MAGIC) and size <= MAX_PACKET_BYTES:
            self._on_control(bytes(self._view[:size]), address, place)
        else:
            self.dropped_count += 1


def _is_packet(buffer: bytearray, size: int) -> bool:
    if buffer.startswith(_DATA):
        return _DATA_BYTES <= size <= MAX_PACKET_BYTES
    return _HANDSHAKES.get(bytes(buffer[:4])) == size


def _capacity(rate: float) -> float:
    """What nftables' limit with our burst lets through at once."""
    return rate + BURST_KBYTES * 1024
