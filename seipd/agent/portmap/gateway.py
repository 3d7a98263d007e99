"""The router that this machine's packets to a host go through, as the kernel has it."""

from __future__ import annotations

import socket as sockets
from dataclasses import dataclass

from services.edge.wireguard.links import netlink


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """A router, and this machine as it sees it."""

    host: str
    own: str


async def gateway_to(host: str) -> Gateway | None:
    """Return the router on the way to an IPv4 host; None where there is none.

    Raises:
        SeipdError: no way at all, or netlink does not answer.
    """
    async with netlink() as socket:
        for found in await socket.route("get", dst=host, family=sockets.AF_INET):
            router, own = found.get("gateway"), found.get("prefsrc")
            if router and own:
                return Gateway(host=router, own=own)
    return None
