"""Which addresses a request may go to that somebody else's name leads to. Pure.

The answer is about the address that is connected to, after names were resolved: what a name meant a
moment ago counts for nothing. ``ipaddress`` alone is no such filter: it holds IPv4 addresses
that are wrapped in IPv6 ones, and multicast, to be global. So of IPv6 only what is handed out as
unicast counts (2000::/3, without what is special within), and of IPv4 all but what is special
(IANA's special-purpose registries).
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

_UNICAST6: Final = IPv6Network("2000::/3")
_SPECIAL6: Final = tuple(
    map(IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20"))
)
_SPECIAL4: Final = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.31.196.0/24",
            "192.52.193.0/24",
            "192.88.99.0/24",
            "192.168.0.0/16",
            "192.175.48.0/24",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/3",
        ),
    )
)


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Say whether an address is that of a host on the public Internet."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _SPECIAL4)
    return address in _UNICAST6 and not any(address in network for network in _SPECIAL6)


def address_in(host: str) -> IPv4Address | IPv6Address | None:
    """Return the address that a socket is to be connected to; None where it is none."""
    try:
        return ip_address(host.partition("%")[0])
    except ValueError:
        return None
