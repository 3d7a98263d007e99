"""How this machine reaches the network, and a watch that tells at once when that is another way.

The kernel says by netlink that something of links, addresses or routes changed, much of which is no
news: so it is looked what is different. A sleep is told by the clocks: one of them goes on in it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket as sockets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from seipd.agent.changes import Change
from services.edge.wireguard.links import netlink
from services.edge.wireguard.ways import route_to
from services.kernel.errors import SeipdError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

logger = logging.getLogger(__name__)

SETTLE_S: Final = 0.1
LOOK_S: Final = 1.0
SLEPT_S: Final = 2.0
STOPPED_S: Final = 20.0
"""So late is no busy machine: all of it stood still, as a virtual one may."""
_GROUPS: Final = 0x1 | 0x10 | 0x40 | 0x100 | 0x400
"""RTMGRP_LINK, IPV4_IFADDR, IPV4_ROUTE, IPV6_IFADDR, IPV6_ROUTE of linux/rtnetlink.h."""
_MESSAGES_BYTES: Final = 1 << 16
_GLOBAL_SCOPE: Final = 0
_NOT_USED: Final = 0x08 | 0x20 | 0x40
"""IFA_F_DADFAILED, DEPRECATED, TENTATIVE of linux/if_addr.h."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WayOut:
    """The way of packets to a host."""

    interface: int
    own: str
    router: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Uplink:
    """How this machine is connected."""

    way: WayOut | None
    addresses: frozenset[str]


async def way_to(host: str, *, mark: int = 0) -> WayOut | None:
    """Return the way to a host; None where there is none.

    Args:
        host: an IP address.
        mark: of the packets, where routes of their own are for those.

    Raises:
        SeipdError: netlink does not answer.
    """
    found = await route_to(host, mark=mark)
    own = found.get("prefsrc") if found is not None else None
    if found is None or not own:
        return None
    return WayOut(interface=found.get("oif"), own=own, router=found.get("gateway"))


async def addresses_but_of(interface: str) -> frozenset[str]:
    """Return the addresses of this machine by which others could reach it.

    Raises:
        SeipdError: netlink does not answer.
    """
    try:
        own = sockets.if_nametoindex(interface)
    except OSError:
        own = 0
    async with netlink() as socket:
        return frozenset(
            [
                message.get("address")
                async for message in await socket.addr("dump")
                if message["index"] != own
                and message["scope"] == _GLOBAL_SCOPE
                and not message["flags"] & _NOT_USED
            ]
        )


def sleep_clocks() -> tuple[float, float]:
    """Return a clock that stands still while the machine sleeps, and one that goes on."""
    return time.clock_gettime(time.CLOCK_MONOTONIC), time.clock_gettime(time.CLOCK_BOOTTIME)


class Sleep:
    """Tells whether the machine slept, or we were stopped, since the last look. Pure."""

    def __init__(self, running_s: float, passed_s: float) -> None:
        """Begin to look.

        Args:
            running_s: a clock that stands still in a sleep.
            passed_s: a clock that goes on.
        """
        self._running_s = running_s
        self._passed_s = passed_s

    def slept_s(self, running_s: float, passed_s: float) -> float:
        """Return for how long, since the last look; 0.0 for what is not worth a word.

        Args:
            running_s: as above.
            passed_s: as above.
        """
        ran_s, self._running_s = running_s - self._running_s, running_s
        went_s, self._passed_s = passed_s - self._passed_s, passed_s
        is_away = went_s - ran_s >= SLEPT_S or ran_s >= STOPPED_S
        return went_s if is_away else 0.0


class UplinkWatch:
    """Looks at the way to the server whenever the kernel says that something changed."""

    def __init__(
        self,
        *,
        interface: str,
        server: Callable[[], str],
        on_change: Callable[[Change], Awaitable[None]],
        mark: int = 0,
        clocks: Callable[[], tuple[float, float]] = sleep_clocks,
    ) -> None:
        """Keep what is needed.

        Args:
            interface: the tunnel's, which does not count.
            server: the address of the server that the endpoint is at.
            on_change: is told what is new.
            mark: of WireGuard's own packets.
            clocks: one that stands still while the machine sleeps, and one that goes on.
        """
        self._interface = interface
        self._server = server
        self._on_change = on_change
        self._mark = mark
        self._clocks = clocks
        self._at: Uplink | None = None
        self._moved = asyncio.Event()

    async def run(self) -> None:
        """Watch until cancelled."""
        loop = asyncio.get_running_loop()
        kind = sockets.SOCK_RAW | sockets.SOCK_NONBLOCK | sockets.SOCK_CLOEXEC
        with sockets.socket(sockets.AF_NETLINK, kind, sockets.NETLINK_ROUTE) as sock:
            sock.bind((0, _GROUPS))
            loop.add_reader(sock.fileno(), self._drain, sock)
            try:
                await self._watch()
            finally:
                loop.remove_reader(sock.fileno())

    async def _watch(self) -> None:
        self._at = await self._look()
        sleep = Sleep(*self._clocks())
        while True:
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._moved.wait()
            except TimeoutError:
                pass
            else:
                await asyncio.sleep(SETTLE_S)
                self._moved.clear()
                await self._compare()
            away_s = sleep.slept_s(*self._clocks())
            if away_s:
                logger.info("this machine slept for %d s", away_s)
                await self._on_change(Change.AWAKE)

    async def _compare(self) -> None:
        before, self._at = self._at, await self._look()
        change = changed(before, self._at)
        if change is not None:
            logger.info("%s", change.value)
            await self._on_change(change)

    async def _look(self) -> Uplink | None:
        try:
            return Uplink(
                way=await way_to(self._server(), mark=self._mark),
                addresses=await addresses_but_of(self._interface),
            )
        except SeipdError as error:
            logger.warning("this machine's network is not known: %s", error)
            return self._at

    def _drain(self, sock: sockets.socket) -> None:
        # Also when the kernel had more to say than there was room for (ENOBUFS).
        self._moved.set()
        try:
            while os.read(sock.fileno(), _MESSAGES_BYTES):
                pass
        except OSError:
            return


def changed(before: Uplink | None, now: Uplink | None) -> Change | None:
    """Return what is new; None where nothing is, or where there is no way out at all."""
    if now is None or now.way is None or now == before:
        return None
    if before is None or before.way != now.way:
        return Change.WAY
    # A bridge for containers, say: what was open stays so.
    return Change.MORE if before.addresses < now.addresses else Change.ADDRESSES
