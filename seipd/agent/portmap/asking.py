"""Questions to a router by UDP, repeated a few times; what others answer is not heard."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING, Final, TypeVar

from seipd.agent.marks import FWMARK
from seipd.agent.portmap.mapped import PortMapError
from services.kernel.errors import WireError

if TYPE_CHECKING:
    from collections.abc import Callable

    from seipd.agent.portmap.gateway import Gateway

T = TypeVar("T")

WAITS_S: Final = (0.25, 0.5, 1.0)
"""RFC 6886, 3.1, but not for over a minute: this is a router in the house, or none."""
MAX_BYTES: Final = 2048
SEARCH_S: Final = 2.0


async def ask(
    gateway: Gateway, port: int, request: bytes, answer_in: Callable[[bytes], T | None]
) -> T:
    """Ask the gateway and return its answer.

    Args:
        gateway: whom; others are not heard, since the socket is connected.
        port: its port.
        request: the datagram.
        answer_in: makes the answer out of a datagram; None, or WireError, where it is no answer.

    Raises:
        PortMapError: none came.
    """
    loop = asyncio.get_running_loop()
    with _socket() as sock:
        try:
            sock.bind((gateway.own, 0))
            sock.connect((gateway.host, port))
            for wait_s in WAITS_S:
                await loop.sock_sendall(sock, request)
                try:
                    async with asyncio.timeout(wait_s):
                        return await _answer(sock, answer_in)
                except TimeoutError:
                    continue
        except OSError as error:
            raise PortMapError(f"nobody answers at {gateway.host}:{port}") from error
    raise PortMapError(f"{gateway.host}:{port} is silent")


async def search(
    gateway: Gateway, group: tuple[str, int], request: bytes, answer_in: Callable[[bytes], T]
) -> T:
    """Ask all in the network and return the gateway's answer.

    Raises:
        PortMapError: it gave none.
    """
    loop = asyncio.get_running_loop()
    with _socket() as sock:
        try:
            sock.setsockopt(
                socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(gateway.own)
            )
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 2)
            sock.bind((gateway.own, 0))
            await loop.sock_sendto(sock, request, group)
            async with asyncio.timeout(SEARCH_S):
                while True:
                    data, source = await loop.sock_recvfrom(sock, MAX_BYTES)
                    if source[0] != gateway.host:
                        continue
                    try:
                        return answer_in(data)
                    except WireError:
                        continue
        except TimeoutError:
            raise PortMapError("no router answers to UPnP") from None
        except OSError as error:
            raise PortMapError(f"this network has no UPnP: {error.strerror}") from error


def _socket() -> socket.socket:
    """Return a socket whose packets never go through the tunnel, be that the way to everything."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    sock.setblocking(False)
    # Without the right to mark there is no tunnel either.
    with contextlib.suppress(PermissionError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, FWMARK)
    return sock


async def _answer(sock: socket.socket, answer_in: Callable[[bytes], T | None]) -> T:
    loop = asyncio.get_running_loop()
    while True:
        data = await loop.sock_recv(sock, MAX_BYTES)
        try:
            found = answer_in(data)
        except WireError:
            continue
        if found is not None:
            return found
