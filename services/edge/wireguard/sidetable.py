"""The table beside the main one: its routes and the rules by which it is asked, kept as planned.

    priority P      main, without its default routes    (only where there is a mark to pass by)
    priority P + 1  the table, for all but that mark; or only for what came in by the interface

Number and priorities follow from the interface's name, and what is ours carries the protocol
number of our routes: so what a killed run left is found, and nothing else is touched.

A default route may stand in main in pieces (0.0.0.0/1 and 128.0.0.0/1, 2000::/3): whatever is
shorter than a subnet may be is left out like the one in one piece.
"""

from __future__ import annotations

import errno
import ipaddress
import socket as sockets
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pyroute2.netlink.exceptions import NetlinkError

from services.authority.tree.prefixes import SHORTEST
from services.edge.wireguard.links import netlink

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from pyroute2 import AsyncIPRoute

    from services.edge.wireguard.model import SideTable

PROTOCOL: Final = 94
"""Of routes and rules alike; see ``network.ROUTE_PROTOCOL``."""

_IPV6: Final = Path("/proc/sys/net/ipv6")
_IPV4_ONLY: Final = ((sockets.AF_INET, "0.0.0.0"),)  # noqa: S104
# A kernel without IPv6 would tell of IPv4 where it is asked for that.
_FAMILIES: Final = (*_IPV4_ONLY, (sockets.AF_INET6, "::")) if _IPV6.is_dir() else _IPV4_ONLY
_LONGEST_DEFAULT: Final = {
    sockets.AF_INET: SHORTEST[4] - 1,
    sockets.AF_INET6: SHORTEST[6] - 1,
}
_FIRST_TABLE: Final = 24_000
_FIRST_PRIORITY: Final = 10_000
_TABLES: Final = 1_000
_MAIN: Final = 254
_TO_TABLE: Final = 1
_INVERT: Final = 2
_UNICAST: Final = 1
_UNREACHABLE: Final = 7
_THROW: Final = 9
_NAMES: Final = {_UNICAST: "unicast", _UNREACHABLE: "unreachable", _THROW: "throw"}
_SCOPE_LINK: Final = 253
_LAST_METRIC: Final = 0xFF000000
_ANY: Final = 0xFFFFFFFF


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rule:
    family: int
    priority: int
    table: int
    mark: int | None = None
    incoming: str | None = None
    longest_skipped: int | None = None
    """Of what the table has, prefixes up to this length do not count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Way:
    destination: str
    kind: int
    source: str | None = None


def table_of(interface: str) -> int:
    """Return the number of an interface's table."""
    return _FIRST_TABLE + zlib.crc32(interface.encode()) % _TABLES


async def ensure(interface: str, index: int | None, side: SideTable) -> int:
    """Make table and rules as planned; return how much had to be changed.

    Args:
        interface: the interface's name.
        index: its number; None while there is none, and nothing is to go by it.
        side: the plan.

    Raises:
        SeipdError: what the kernel refused.
    """
    ways = {
        _Way(destination=one.destination, kind=_UNICAST, source=one.source) for one in side.routes
    }
    ways |= {_Way(destination=text, kind=_THROW) for text in side.excepted}
    ways |= {_Way(destination=text, kind=_UNREACHABLE) for text in side.closed}
    rules = _rules(interface, side) if ways else set()
    return await _ensure(interface, index, ways, rules)


async def clear(interface: str) -> bool:
    """Take table and rules away; return whether there was something.

    Raises:
        SeipdError: what the kernel refused.
    """
    return await _ensure(interface, None, set(), set()) > 0


async def _ensure(interface: str, index: int | None, ways: set[_Way], rules: set[_Rule]) -> int:
    table = table_of(interface)
    async with netlink() as socket:
        old_rules = await _read_rules(socket, table)
        old_ways = await _read_ways(socket, table, index)
        # First what says where to, then who asks: in between nothing goes astray.
        for rule in old_rules - rules:
            await _tolerate(socket.rule("del", **_rule_message(rule)), errno.ENOENT)
        for way in old_ways - ways:
            await _tolerate(socket.route("del", **_way_message(way, table, index)), errno.ESRCH)
        for way in ways - old_ways:
            await socket.route("replace", **_way_message(way, table, index))
        for rule in rules - old_rules:
            await _tolerate(socket.rule("add", **_rule_message(rule)), errno.EEXIST)
    return len(old_rules ^ rules) + len(old_ways ^ ways)


def _priority_of(table: int) -> int:
    return _FIRST_PRIORITY + 2 * (table - _FIRST_TABLE)


def _rules(interface: str, side: SideTable) -> set[_Rule]:
    table = table_of(interface)
    first = _priority_of(table)
    rules = set()
    for family, _ in _FAMILIES:
        if side.past_mark is None:
            asked = _Rule(family=family, priority=first + 1, table=table, incoming=interface)
            rules.add(asked)
            continue
        longest = _LONGEST_DEFAULT[family]
        rules.add(_Rule(family=family, priority=first, table=_MAIN, longest_skipped=longest))
        rules.add(_Rule(family=family, priority=first + 1, table=table, mark=side.past_mark))
    return rules


async def _read_rules(socket: AsyncIPRoute, table: int) -> set[_Rule]:
    first = _priority_of(table)
    found = set()
    for family, _ in _FAMILIES:
        async for message in await socket.rule("dump", family=family):
            priority = message.get("priority") or 0
            if message.get("protocol") != PROTOCOL or priority not in (first, first + 1):
                continue
            found.add(
                _Rule(
                    family=family,
                    priority=priority,
                    table=message.get("table") or message["table"],
                    mark=message.get("fwmark") or None,
                    incoming=message.get("iifname"),
                    longest_skipped=_said(message.get("suppress_prefixlen")),
                )
            )
    return found


def _said(length: int | None) -> int | None:
    # The kernel tells -1, unsigned, where nothing was said.
    return None if length == _ANY else length


def _rule_message(rule: _Rule) -> dict[str, Any]:
    message: dict[str, Any] = {
        "family": rule.family,
        "priority": rule.priority,
        "table": rule.table,
        "protocol": PROTOCOL,
        "action": _TO_TABLE,
    }
    if rule.mark is not None:
        message |= {"fwmark": rule.mark, "fwmask": _ANY, "flags": _INVERT}
    if rule.incoming is not None:
        message["iifname"] = rule.incoming
    if rule.longest_skipped is not None:
        message["suppress_prefixlen"] = rule.longest_skipped
    return message


async def _read_ways(socket: AsyncIPRoute, table: int, index: int | None) -> set[_Way]:
    found = set()
    for family, zero in _FAMILIES:
        async for message in await socket.route("dump", family=family, table=table):
            is_ours = message["proto"] == PROTOCOL and message.get("table") == table
            kind = message["type"]
            # A route by another interface is one of ours that had this name before.
            if not is_ours or kind not in _NAMES:
                continue
            if kind == _UNICAST and index is not None and message.get("oif") != index:
                continue
            network = ipaddress.ip_network(f"{message.get('dst') or zero}/{message['dst_len']}")
            source = message.get("prefsrc") if kind == _UNICAST else None
            found.add(_Way(destination=str(network), kind=kind, source=source))
    return found


def _way_message(way: _Way, table: int, index: int | None) -> dict[str, Any]:
    message: dict[str, Any] = {
        "dst": way.destination,
        "family": sockets.AF_INET6 if ":" in way.destination else sockets.AF_INET,
        "table": table,
        "proto": PROTOCOL,
        "type": _NAMES[way.kind],
    }
    if way.kind == _UNREACHABLE:
        message["priority"] = _LAST_METRIC
    if way.kind == _UNICAST:
        if index is not None:
            message["oif"] = index
        if ":" not in way.destination:
            message["scope"] = _SCOPE_LINK
        if way.source is not None:
            message["prefsrc"] = way.source
    return message


async def _tolerate(call: Awaitable[object], code: int) -> None:
    try:
        await call
    except NetlinkError as error:
        if error.code != code:
            raise
