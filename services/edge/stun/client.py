"""Asks STUN servers by which address this machine is seen, over one socket of its own.

What is believed of their answers is decided in ``asking``; here are the socket, the names and the
patience: RFC 8489 section 6.2.1 has questions repeated, with a longer wait each time.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import secrets
import socket
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from services.edge.stun.asking import Inquiry
from services.runtime.blocking import in_thread
from services.runtime.udp import UdpSocket

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from services.edge.stun.asking import Seen
    from services.edge.stun.messages import Address

FIRST_WAIT_S: Final = 0.3
DEADLINE_S: Final = 3.0
NAMES_WAIT_S: Final = 1.5
OTHERS_WAIT_S: Final = 0.5
"""How long the rest is waited for once one has answered."""
_ANY: Final = {4: "0.0.0.0", 6: "::"}  # noqa: S104 (whichever way the route goes)


async def find_address(
    servers: Iterable[Address],
    *,
    family: int = 4,
    deadline_s: float = DEADLINE_S,
    token: Callable[[int], bytes] = secrets.token_bytes,
) -> Seen | None:
    """Return how these servers see a socket of this machine; None if none says anything of use.

    Args:
        servers: names or addresses, and ports.
        family: 4 or 6: the version of IP.
        deadline_s: how long it may take at most.
        token: returns so many random bytes.
    """
    inquiry = await inquire(servers, family=family, deadline_s=deadline_s, token=token)
    return inquiry.seen()


async def inquire(
    servers: Iterable[Address],
    *,
    family: int = 4,
    deadline_s: float = DEADLINE_S,
    token: Callable[[int], bytes] = secrets.token_bytes,
) -> Inquiry:
    """Ask, and return all that was said; see ``find_address``."""
    inquiry = Inquiry((), token=token)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(deadline_s):
            inquiry = Inquiry(await _resolved(servers, family), token=token)
            await _ask(inquiry, family)
    return inquiry


async def _ask(inquiry: Inquiry, family: int) -> None:
    heard, done = asyncio.Event(), asyncio.Event()

    def on_datagram(data: bytes, source: Address) -> None:
        inquiry.heard(data, source)
        if inquiry.seen() is not None:
            heard.set()
        if inquiry.is_done:
            done.set()

    sock = UdpSocket(on_datagram)
    sock.open(_ANY[family], 0)
    try:
        wait_s = FIRST_WAIT_S
        while not inquiry.is_done and not heard.is_set():
            for data, server in inquiry.questions():
                sock.send(data, server)
            await _wait(heard, wait_s)
            wait_s *= 2
        if not inquiry.is_done:
            await _wait(done, OTHERS_WAIT_S)
    finally:
        sock.close()


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


async def _resolved(servers: Iterable[Address], family: int) -> list[Address]:
    """Return the addresses of this version of IP, in their order; unknown names are left out."""
    async with asyncio.TaskGroup() as group:
        asked = [
            group.create_task(_look_up(server, family), name="stun-name") for server in servers
        ]
    return [place for one in asked for place in one.result()]


async def _look_up(server: Address, family: int) -> list[Address]:
    host, port = server
    try:
        return [server] if ip_address(host).version == family else []
    except ValueError:
        pass
    kind = socket.AF_INET6 if family == 6 else socket.AF_INET
    resolve = functools.partial(socket.getaddrinfo, host, port, family=kind, type=socket.SOCK_DGRAM)
    try:
        async with asyncio.timeout(NAMES_WAIT_S):
            listed = await in_thread(resolve, name="stun-name")
    except (TimeoutError, OSError, UnicodeError):
        return []
    return [(str(place[4][0]), port) for place in listed[:1]]
