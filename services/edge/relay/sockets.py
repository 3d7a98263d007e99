"""The control port: tells to which of our addresses a datagram came, and answers from there."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from services.edge.relay.messages import MAX_ALLOCATE_BYTES
from services.kernel.errors import ConflictError
from services.runtime.udp import bound_socket

if TYPE_CHECKING:
    from collections.abc import Callable

    from services.edge.relay.model import Address

logger = logging.getLogger(__name__)

BATCH: Final = 64

_IP_PKTINFO: Final = 8
_INFO4: Final = struct.Struct("=i4s4s")
_INFO6: Final = struct.Struct("=16sI")
_ANCILLARY_BYTES: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A datagram: from where, to which of our addresses, and by which interface."""

    data: bytes
    address: Address
    host: str
    interface: str


class ControlSocket:
    """A bound socket whose datagrams go to one callback."""

    def __init__(self, on_arrival: Callable[[Arrival, ControlSocket], None]) -> None:
        self._on_arrival = on_arrival
        self._socket: socket.socket | None = None
        self.failed_count = 0

    def open(self, host: str, port: int) -> int:
        """Bind; return the port, which may be left to the system by 0.

        Raises:
            ConflictError: ``port_in_use``.
        """
        try:
            sock = bound_socket(host, port, socket.SOCK_DGRAM)
        except OSError as error:
            raise ConflictError(
                f"{host}:{port}/udp can't be opened: {error.strerror}",
                code="port_in_use",
                mend="end what holds the port, or choose another with --relay-port",
            ) from error
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        self._socket = sock
        asyncio.get_running_loop().add_reader(sock.fileno(), self._drain, sock)
        bound: int = sock.getsockname()[1]
        return bound

    def answer(self, data: bytes, arrival: Arrival) -> None:
        """Answer from the address that was asked, or drop it."""
        sock = self._socket
        if sock is None:
            return
        try:
            sock.sendmsg([data], [_from(arrival.host)], 0, arrival.address)
        except OSError:
            self.failed_count += 1

    def close(self) -> None:
        """Stop; may be called twice."""
        sock, self._socket = self._socket, None
        if sock is not None:
            asyncio.get_running_loop().remove_reader(sock.fileno())
            sock.close()

    def _drain(self, sock: socket.socket) -> None:
        for _ in range(BATCH):
            try:
                data, ancillary, _, address = sock.recvmsg(MAX_ALLOCATE_BYTES + 1, _ANCILLARY_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                logger.debug("relay control port: %s", error)
                return
            host, index = _arrived(ancillary)
            if host:
                arrival = Arrival(
                    data=data, address=address, host=host, interface=_interface(index)
                )
                self._on_arrival(arrival, self)


def _arrived(ancillary: list[tuple[int, int, bytes]]) -> tuple[str, int]:
    """Return the address that a datagram came to and the number of the interface."""
    for level, kind, data in ancillary:
        if (level, kind) == (socket.IPPROTO_IP, _IP_PKTINFO):
            index, _, host = _INFO4.unpack_from(data)
            return socket.inet_ntop(socket.AF_INET, host), index
        if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO):
            host, index = _INFO6.unpack_from(data)
            return socket.inet_ntop(socket.AF_INET6, host), index
    return "", 0


def _from(host: str) -> tuple[int, int, bytes]:
    if ":" in host:
        packed = socket.inet_pton(socket.AF_INET6, host)
        return socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, _INFO6.pack(packed, 0)
    packed = socket.inet_pton(socket.AF_INET, host)
    return socket.IPPROTO_IP, _IP_PKTINFO, _INFO4.pack(0, packed, bytes(4))


def _interface(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:
        return ""
