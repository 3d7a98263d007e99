"""Asks a host in the tunnel by ICMP whether packets of some sizes come through, both ways."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import struct
from typing import TYPE_CHECKING, Final

from seipd.agent.mtu.searching import SMALL, Search

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Sequence

    Ask = Callable[[Sequence[int]], Awaitable[Collection[int]]]

ROUND_S: Final = 1.5
LATE_S: Final = 0.3
PAUSE_S: Final = 0.4
"""Between rounds: what is lost at once has one cause as a rule."""
_HEAD: Final = struct.Struct("!BBHHH")
_IP_BYTES: Final = 20
_ECHO: Final = 8
_REPLY: Final = 0
_TOKEN_BYTES: Final = 16
_IP_MTU_DISCOVER: Final = 10
_IP_PMTUDISC_PROBE: Final = 3
"""Don't fragment, and don't ask what routers said before."""
_MAX_BYTES: Final = 1 << 16


async def search(mtu: int, ask: Ask, *, pause_s: float = PAUSE_S) -> Search:
    """Return a search that is over.

    Args:
        mtu: of the interface.
        ask: which of some sizes come back.
        pause_s: between two rounds.
    """
    found = Search(mtu)
    while True:
        found.take(await ask(found.sizes))
        if found.outcome is not None:
            return found
        await asyncio.sleep(pause_s)


class Echoes:
    """Echoes of some sizes to one host; satisfies ``Ask``."""

    def __init__(self, host: str, interface: str) -> None:
        """Keep what is needed.

        Args:
            host: an IPv4 address in the tunnel.
            interface: the tunnel's.
        """
        self._host = host
        self._interface = interface

    async def __call__(self, sizes: Sequence[int]) -> set[int]:
        """Return which of these sizes came back.

        Where the small one is back the others have as long again, and a moment more.

        Raises:
            OSError: this program may not, or the interface is not there.
        """
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sock:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, self._interface.encode())
            sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_PROBE)
            number, token = secrets.randbits(16), secrets.token_bytes(_TOKEN_BYTES)
            for one in sizes:
                packet = echo(number, one - _IP_BYTES, token)
                # The interface takes no such size any more, say: as good as lost.
                with contextlib.suppress(OSError):
                    sock.sendto(packet, (self._host, 0))
            return await _heard(sock, set(sizes), token)


async def _heard(sock: socket.socket, sizes: set[int], token: bytes) -> set[int]:
    loop, found = asyncio.get_running_loop(), set[int]()
    began_s = loop.time()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(ROUND_S) as limit:
            while found != sizes:
                try:
                    packet = await loop.sock_recv(sock, _MAX_BYTES)
                except OSError:
                    # Somebody on the way says why one of them can't go on: the others may.
                    continue
                size = size_of_reply(packet, token)
                if size not in sizes:
                    continue
                found.add(size)
                if size == SMALL:
                    took_s = loop.time() - began_s
                    limit.reschedule(loop.time() + took_s + LATE_S)
    return found


def echo(number: int, length: int, token: bytes) -> bytes:
    """Return an ICMP echo request of so many bytes."""
    body = token.ljust(length - _HEAD.size, b"\0")
    checksum = _checksum(_HEAD.pack(_ECHO, 0, 0, number, 0) + body)
    return _HEAD.pack(_ECHO, 0, checksum, number, 0) + body


def size_of_reply(packet: bytes, token: bytes) -> int:
    """Return how large an IPv4 packet is that answers such a request; 0 for any other."""
    head_bytes = (packet[0] & 15) * 4 if packet else 0
    body = packet[head_bytes + _HEAD.size :]
    if len(packet) <= head_bytes or packet[head_bytes] != _REPLY or not body.startswith(token):
        return 0
    return len(packet)


def _checksum(data: bytes) -> int:
    words = struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2))
    total: int = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
