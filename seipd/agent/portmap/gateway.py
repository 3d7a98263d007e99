"""The router that this machine's packets to a host go through."""

from __future__ import annotations

from dataclasses import dataclass

from seipd.agent.uplink import way_to


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """A router, and this machine as it sees it."""

    host: str
    own: str


async def gateway_to(host: str, *, mark: int = 0) -> Gateway | None:
    """Return the router on the way to a host; None where there is none.

    Args:
        host: an IPv4 address: the three protocols are for those.
        mark: of the packets, where routes of their own are for those.

    Raises:
        SeipdError: netlink does not answer.
    """
    found = await way_to(host, mark=mark)
    if found is None or found.router is None:
        return None
    return Gateway(host=found.router, own=found.own)
