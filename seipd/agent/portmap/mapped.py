"""What a router grants, and what of it is believed. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from services.kernel.errors import UnavailableError
from services.kernel.targets import why_refused

if TYPE_CHECKING:
    from collections.abc import Collection
    from ipaddress import IPv4Network, IPv6Network

LIFETIME_S: Final = 1200
MIN_LIFETIME_S: Final = 60
MAX_LIFETIME_S: Final = 86_400
RENEW_S: Final = 180.0
"""A router that was switched off and on has forgotten what it granted, and tells nobody."""


class PortMapError(UnavailableError):
    """The router opens no port; the message says why not."""

    default_code = "no_port_mapping"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapped:
    """A port of the router's outside that leads here."""

    by: str
    host: str
    port: int
    lifetime_s: int

    @property
    def renew_after_s(self) -> float:
        """When to ask for it again: by half of its time (RFC 6886, 3.3; RFC 6887, 11.2.1)."""
        return min(self.lifetime_s / 2, RENEW_S)


def checked(mapped: Mapped, mesh_ranges: Collection[IPv4Network | IPv6Network]) -> Mapped:
    """Return what was granted, if it can be of use to a peer.

    A router tells its own outside address, and may lie: peers would send there.

    Raises:
        PortMapError: nobody else could reach that, or it ends at once.
    """
    why = why_refused(mapped.host, mapped.port, mesh_ranges=mesh_ranges, on_link=())
    if why is not None:
        raise PortMapError(f"the router's outside is {mapped.host}:{mapped.port} ({why})")
    if mapped.lifetime_s < MIN_LIFETIME_S:
        raise PortMapError(f"the router opens a port for {mapped.lifetime_s} s only")
    lifetime_s = min(mapped.lifetime_s, MAX_LIFETIME_S)
    return Mapped(by=mapped.by, host=mapped.host, port=mapped.port, lifetime_s=lifetime_s)
