"""Addresses, routes, MTU and forwarding of our interface, kept as the plan says.

Routes of ours carry a protocol number of their own, so that what an administrator put on the
interface stays, and nothing outside our interface is ever touched. Addresses bring no route along:
the plan names every route.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket as sockets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyroute2.netlink.exceptions import NetlinkError

from services.edge.wireguard import sidetable
from services.edge.wireguard.links import bring_up, netlink, require_link
from services.kernel.errors import ConflictError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping

    from pyroute2 import AsyncIPRoute

    from services.edge.wireguard.model import InterfacePlan

ROUTE_PROTOCOL = 94
"""Ours in /etc/iproute2/rt_protos terms: free there, and above the kernel's own numbers."""

_DEFAULT_V4 = "0.0.0.0"  # noqa: S104 (a destination, nothing is bound)
_MAIN_TABLE = 254
_UNICAST = 1
_SCOPE_LINK = 253
_NO_PREFIX_ROUTE_NO_DAD = 0x200 | 0x02
_ROUNDS = 4
_SYSCTL = Path("/proc/sys/net")


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkOutcome:
    """What `ensure` had to change, and what it could not."""

    changes_count: int
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Steps:
    """One round's work; addresses come before the routes that name them as source."""

    new_addresses: tuple[str, ...]
    new_routes: Mapping[str, str | None]
    other_routes: Mapping[str, str | None]
    old_routes: tuple[str, ...]
    old_addresses: tuple[str, ...]

    def __len__(self) -> int:
        return (
            len(self.new_addresses)
            + len(self.new_routes)
            + len(self.other_routes)
            + len(self.old_routes)
            + len(self.old_addresses)
        )


async def ensure(interface: str, plan: InterfacePlan) -> NetworkOutcome:
    """Make the interface as planned; costs nothing but a look where it is so already.

    Raises:
        ConflictError: ``route_in_use``: a destination has a route that is not ours.
        UnavailableError: the interface is gone, or does not become as planned.
    """
    link = await require_link(interface)
    if not has_ipv6(interface):
        plan = plan.without_ipv6()
    changes_count = 0
    if plan.mtu not in (None, link.mtu):
        async with netlink() as socket:
            await socket.link("set", index=link.index, mtu=plan.mtu)
        changes_count += 1
    if not link.is_up:
        await bring_up(link.index)
        changes_count += 1
    # More than one round: deleting an address can take others of its subnet and routes along.
    for _ in range(_ROUNDS):
        steps = await _compare(link.index, plan)
        if not len(steps):
            break
        changes_count += len(steps)
        await _apply(link.index, steps)
    else:
        raise UnavailableError(f"{interface} does not take its addresses and routes")
    if plan.side is not None:
        changes_count += await sidetable.ensure(interface, link.index, plan.side)
    problems: tuple[str, ...] = ()
    if plan.forwarding:
        problems = await asyncio.to_thread(_ensure_forwarding, interface)
    return NetworkOutcome(changes_count=changes_count, problems=problems)


def has_ipv6(interface: str) -> bool:
    """Say whether this machine has IPv6 turned on, for this interface at least."""
    try:
        return (_SYSCTL / "ipv6" / "conf" / interface / "disable_ipv6").read_text().strip() == "0"
    except OSError:
        return False


async def _compare(index: int, plan: InterfacePlan) -> _Steps:
    addresses = await _read_addresses(index)
    ours = await _read_routes(index)
    wanted = {route.destination: route.source for route in plan.routes}
    return _Steps(
        new_addresses=tuple(text for text in plan.addresses if text not in addresses),
        old_addresses=tuple(text for text in addresses if text not in plan.addresses),
        new_routes={to: source for to, source in wanted.items() if to not in ours},
        other_routes={
            to: source for to, source in wanted.items() if to in ours and ours[to] != source
        },
        old_routes=tuple(to for to in ours if to not in wanted),
    )


async def _read_addresses(index: int) -> set[str]:
    found = set()
    async with netlink() as socket:
        async for message in await socket.addr("dump", index=index):
            if message["index"] != index:
                continue
            address = ipaddress.ip_interface(
                f"{message.get('local') or message.get('address')}/{message['prefixlen']}"
            )
            if not address.is_link_local:
                found.add(str(address))
    return found


async def _read_routes(index: int) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    async with netlink() as socket:
        for family, zero in ((sockets.AF_INET, _DEFAULT_V4), (sockets.AF_INET6, "::")):
            async for message in await socket.route("dump", family=family, oif=index):
                if (
                    message.get("oif") == index
                    and message["proto"] == ROUTE_PROTOCOL
                    and message["type"] == _UNICAST
                    and (message.get("table") or message["table"]) == _MAIN_TABLE
                ):
                    network = f"{message.get('dst') or zero}/{message['dst_len']}"
                    found[str(ipaddress.ip_network(network))] = message.get("prefsrc")
    return found


async def _apply(index: int, steps: _Steps) -> None:
    async with netlink() as socket:
        for text in steps.new_addresses:
            address, _, length = text.partition("/")
            await _tolerate(
                socket.addr(
                    "add",
                    index=index,
                    address=address,
                    prefixlen=int(length),
                    flags=_NO_PREFIX_ROUTE_NO_DAD,
                ),
                errno.EEXIST,
            )
        for destination, source in steps.new_routes.items():
            await _add_route(socket, index, destination, source)
        for destination, source in steps.other_routes.items():
            await socket.route("replace", **_route(index, destination, source))
        for destination in steps.old_routes:
            await _tolerate(socket.route("del", **_route(index, destination, None)), errno.ESRCH)
        for text in steps.old_addresses:
            address, _, length = text.partition("/")
            await _tolerate(
                socket.addr("del", index=index, address=address, prefixlen=int(length)),
                errno.EADDRNOTAVAIL,
            )


async def _add_route(
    socket: AsyncIPRoute, index: int, destination: str, source: str | None
) -> None:
    try:
        await socket.route("add", **_route(index, destination, source))
    except NetlinkError as error:
        if error.code != errno.EEXIST:
            raise
        raise ConflictError(
            f"there is a route to {destination} already, and it is not ours",
            code="route_in_use",
            mend=f"see `ip route show {destination}` and remove it, or give the mesh other ranges",
        ) from error


def _route(index: int, destination: str, source: str | None) -> dict[str, Any]:
    route: dict[str, Any] = {"dst": destination, "oif": index, "proto": ROUTE_PROTOCOL}
    if ":" not in destination:
        route["scope"] = _SCOPE_LINK
    if source is not None:
        route["prefsrc"] = source
    return route


async def _tolerate(call: Awaitable[object], code: int) -> None:
    try:
        await call
    except NetlinkError as error:
        if error.code != code:
            raise


def _ensure_forwarding(interface: str) -> tuple[str, ...]:
    problems = []
    v4 = _SYSCTL / "ipv4" / "conf"
    if not _set_sysctl(v4 / interface / "forwarding", "1"):
        problems.append(f"net.ipv4.conf.{interface}.forwarding can't be set to 1")
    # As the kernel's own driver does: a packet from one peer to another leaves where it came in,
    # and that must not earn the sender an ICMP redirect.
    for name in (interface, "all"):
        _set_sysctl(v4 / name / "send_redirects", "0")
    if not _forward_v6(interface):
        problems.append("net.ipv6.conf.all.forwarding can't be set to 1")
    return tuple(problems)


def _forward_v6(interface: str) -> bool:
    v6 = _SYSCTL / "ipv6" / "conf"
    if not v6.is_dir():
        return True
    own = v6 / interface
    if (own / "force_forwarding").exists():
        return _set_sysctl(own / "forwarding", "1") and _set_sysctl(own / "force_forwarding", "1")
    if (v6 / "all" / "forwarding").read_text().strip() != "1":
        # A host that forwards stops listening to routers, unless told 2: it must not lose its own
        # address and default route because of us.
        for listening in v6.glob("*/accept_ra"):
            if listening.read_text().strip() == "1":
                _set_sysctl(listening, "2")
    return _set_sysctl(v6 / "all" / "forwarding", "1")


def _set_sysctl(path: Path, value: str) -> bool:
    try:
        if path.read_text().strip() != value:
            path.write_text(value)
    except OSError:
        return False
    return True
