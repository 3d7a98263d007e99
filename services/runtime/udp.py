"""One UDP socket on the event loop, drained in batches.

A plain non-blocking socket that takes up to 64 datagrams a wake-up carries six times what asyncio's
own datagram transport does. Sending never waits: what the kernel does not take is dropped and
counted, as the network would.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
import time
from collections.abc import Callable

from typing_extensions import override

from services.kernel.errors import ConflictError

logger = logging.getLogger(__name__)

MAX_DATAGRAM_BYTES = 2048
BATCH = 64
RECEIVE_BUFFER_BYTES = 1 << 22
COMPLAIN_INTERVAL_S = 60.0

Address = tuple[str, int]
OnDatagram = Callable[[bytes, Address], None]
OnArrival = Callable[[bytes, Address, int], None]

# Of Linux, not named by Python's socket module.
_IP_PKTINFO = 8
_IP_FREEBIND = 15
_IPV6_FREEBIND = 78
_ANCILLARY_BYTES = 64
_FAR = ("192.0.2.1", 53)


class UdpSocket:
    """A bound socket whose datagrams go to one callback."""

    def __init__(self, on_datagram: OnDatagram) -> None:
        self.on_datagram = on_datagram
        self._socket: socket.socket | None = None
        self._complained_s = -COMPLAIN_INTERVAL_S
        self.dropped_count = 0
        self.failed_count = 0

    def open(self, host: str, port: int, *, shared: bool = False) -> int:
        """Bind to an IPv4 or IPv6 address; return the port, which may be left to the system by 0.

        Args:
            host: the address.
            port: the port.
            shared: beside another socket of this program that has the port on all addresses; the
                address need not be there yet.

        Raises:
            ConflictError: ``port_in_use``.
        """
        try:
            sock = bound_socket(host, port, socket.SOCK_DGRAM, shared=shared)
        except OSError as error:
            raise ConflictError(
                f"{host}:{port}/udp can't be opened: {error.strerror}",
                code="port_in_use",
                mend="end what holds the port, or choose another",
            ) from error
        self._socket = sock
        self._prepare(sock)
        asyncio.get_running_loop().add_reader(sock.fileno(), self._drain)
        bound: int = sock.getsockname()[1]
        return bound

    def send(self, data: bytes, address: Address) -> None:
        """Send one datagram, or drop it."""
        if self._socket is None:
            return
        try:
            self._socket.sendto(data, address)
        except BlockingIOError:
            self.dropped_count += 1
        except OSError as error:
            self.failed_count += 1
            self._complain(error)

    def close(self) -> None:
        """Stop; may be called twice."""
        sock, self._socket = self._socket, None
        if sock is not None:
            asyncio.get_running_loop().remove_reader(sock.fileno())
            sock.close()

    def _prepare(self, sock: socket.socket) -> None:
        """Set what else a kind of socket needs."""

    def _drain(self) -> None:
        sock, on_datagram = self._socket, self.on_datagram
        if sock is None:
            return
        receive = sock.recvfrom
        for _ in range(BATCH):
            try:
                data, address = receive(MAX_DATAGRAM_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                self._complain(error)
                return
            on_datagram(data, address)
            if self._socket is not sock:
                return

    def _complain(self, error: OSError) -> None:
        now_s = time.monotonic()
        if now_s - self._complained_s >= COMPLAIN_INTERVAL_S:
            self._complained_s = now_s
            logger.warning("udp socket: %s", error)


class ArrivalSocket(UdpSocket):
    """Tells with each datagram the number of the interface that it came in by."""

    def __init__(self, on_arrival: OnArrival) -> None:
        super().__init__(lambda data, address: None)
        self.on_arrival = on_arrival

    @override
    def _prepare(self, sock: socket.socket) -> None:
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)

    @override
    def _drain(self) -> None:
        for _ in range(BATCH):
            if self._socket is None:
                return
            try:
                data, ancillary, _, address = self._socket.recvmsg(
                    MAX_DATAGRAM_BYTES, _ANCILLARY_BYTES
                )
            except BlockingIOError:
                return
            except OSError as error:
                self._complain(error)
                return
            self.on_arrival(data, address, _interface_in(ancillary))


def bound_socket(
    host: str, port: int, kind: socket.SocketKind, *, shared: bool = False
) -> socket.socket:
    """Return a bound socket that does not block; see ``UdpSocket.open``.

    Raises:
        OSError: it can't be bound.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, kind | socket.SOCK_CLOEXEC)
    try:
        sock.setblocking(False)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if shared or kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared and family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
        elif shared:
            sock.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        if kind == socket.SOCK_DGRAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    return sock


def way_out() -> str:
    """Return the IPv4 address by which this machine reaches others; nothing where it can't."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            # Nothing is sent: the kernel looks up the route.
            sock.connect(_FAR)
        except OSError:
            return ""
        host: str = sock.getsockname()[0]
        return host


def _interface_in(ancillary: list[tuple[int, int, bytes]]) -> int:
    """Return the number of the interface in what came with a datagram; 0 where it is not said."""
    for level, kind, data in ancillary:
        if (level, kind) == (socket.IPPROTO_IP, _IP_PKTINFO):
            return int.from_bytes(data[:4], sys.byteorder)
        if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO):
            return int.from_bytes(data[16:20], sys.byteorder)
    return 0
