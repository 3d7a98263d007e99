"""Asks the kernel for the way to a host, and how large a packet it takes."""

from __future__ import annotations

import socket as sockets
from ipaddress import ip_address
from typing import Any, Final

from services.edge.wireguard.links import netlink
from services.edge.wireguard.mtu import WaySize, tunnel_mtu
from services.kernel.errors import SeipdError

_ELSEWHERE: Final = ("192.0.2.1", "2001:db8::1")
"""Nobody is there (RFC 5737, 3849), so the ways there are the ways to the Internet."""


async def route_to(host: str, *, mark: int = 0) -> Any | None:  # noqa: ANN401 (netlink's)
    """Return the route to a host, as netlink tells it; None where there is none.

    Args:
        host: an IP address.
        mark: of the packets, where routes of their own are for those.

    Raises:
        SeipdError: netlink does not answer.
    """
    family = sockets.AF_INET6 if ip_address(host).version == 6 else sockets.AF_INET
    wanted = {"dst": host, "family": family} | ({"mark": mark} if mark else {})
    try:
        async with netlink() as socket:
            return next(iter(await socket.route("get", **wanted)), None)
    except SeipdError as error:
        if error.code == "netlink_refused":
            return None
        raise


async def size_of_way(host: str, *, mark: int = 0) -> WaySize | None:
    """Return what the way to a host carries; None where there is no way.

    Args:
        host: an IP address.
        mark: of the packets, where routes of their own are for those.

    Raises:
        SeipdError: netlink does not answer.
    """
    found = await route_to(host, mark=mark)
    if found is None:
        return None
    metrics = found.get("metrics")
    told = metrics.get("mtu") if metrics is not None else None
    try:
        async with netlink() as socket:
            for link in await socket.link("get", index=found.get("oif")):
                return WaySize(link_bytes=link.get("mtu"), route_bytes=told)
    except SeipdError as error:
        if error.code in ("netlink_refused", "interface_gone"):
            return None
        raise
    return None


async def uplink_mtu() -> int:
    """Return the MTU of a tunnel whose packets go anywhere, by this machine's default routes.

    Raises:
        SeipdError: netlink does not answer.
    """
    sizes = [await size_of_way(host) for host in _ELSEWHERE]
    return tunnel_mtu(min((one.bytes for one in sizes if one is not None), default=None))
