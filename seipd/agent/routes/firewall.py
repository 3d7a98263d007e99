"""The firewall of an endpoint towards what is behind it, and behind others: who may go where. Pure.

What comes out of the tunnel goes on only from endpoints of the same customer, and only into the
approved subnets, or, of an exit, to what is nobody's private network and not one that this machine
is in. That holds for each packet: what is withdrawn ends what was begun. It takes this machine's
address there, so that the answers come back. Nothing begins in the other direction, neither here
nor at an endpoint that uses a subnet: what comes out of one is an answer, or refused. Where nothing
is carried nothing goes on, though the machine may hand on packets for other reasons. The machine
itself is reached at its address in the mesh, not at those in its own networks.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import collapse_addresses, ip_network
from typing import TYPE_CHECKING, Final

from seipd.agent.marks import FWMARK
from services.edge.wireguard.sidetable import table_of
from services.kernel.addr import parse_address, tunnel6

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from seipd.agent.routes.forwarding import Opened
    from services.kernel.ids import MeshId

PRIVATE4: Final = (
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "224.0.0.0/3",
)
_OWN: Final = (
    "ip daddr != @inner4 ip daddr != @subnets4 drop",
    "ip6 daddr != @inner6 ip6 daddr != @subnets6 drop",
)
PRIVATE6: Final = ("::/16", "fc00::/7", "fe80::/10", "ff00::/8")


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried:
    """What an endpoint carries, and whose subnets it uses."""

    subnets: tuple[str, ...] = ()
    is_exit: bool = False
    members: tuple[str, ...] = ()
    """The tunnel addresses of those for whom it carries."""
    uses: bool = False
    """Whether it goes by others' routes."""
    port: int = 0
    """WireGuard's own, where everything goes through an exit: what comes to it has another way."""

    @property
    def is_router(self) -> bool:
        """Whether it carries anything."""
        return bool(self.subnets) or self.is_exit

    @property
    def needs_guard(self) -> bool:
        """Whether it is bad not to have a firewall."""
        return self.is_router or self.uses


def table_name(interface: str) -> str:
    """Return the name of the table, which tells whose it is."""
    return f"seip_routes_{table_of(interface)}"


def removal(interface: str) -> str:
    """Return the commands that take the table away, be it there or not."""
    name = table_name(interface)
    return f"add table inet {name}\ndelete table inet {name}\n"


def ruleset(
    interface: str,
    *,
    mesh_id: MeshId,
    inner: Sequence[str],
    carried: Carried,
    ways: Iterable[str] = (),
    near: Iterable[str] = (),
    opened: Opened | None = None,
) -> str:
    """Return the commands that put the table in place of the one before, in one transaction.

    Args:
        interface: the tunnel's.
        mesh_id: the mesh.
        inner: the mesh's own prefixes.
        carried: what is carried.
        ways: the interfaces that lead to what is carried.
        near: the networks that this machine is in.
        opened: what hands packets on only so that these are carried.
    """
    tunnel = f'"{interface}"'
    own = [parse_address(text) for text in carried.members]
    sets = [
        _set("members4", "ipv4_addr", map(str, own)),
        _set("members6", "ipv6_addr", (str(tunnel6(mesh_id, one)) for one in own)),
        _set(
            "subnets4", "ipv4_addr", (one for one in carried.subnets if ":" not in one), ranges=True
        ),
        _set("subnets6", "ipv6_addr", (one for one in carried.subnets if ":" in one), ranges=True),
        _set("inner4", "ipv4_addr", (one for one in inner if ":" not in one), ranges=True),
        _set("inner6", "ipv6_addr", (one for one in inner if ":" in one), ranges=True),
        _set("private4", "ipv4_addr", _joined(4, (*PRIVATE4, *near)), ranges=True),
        _set("private6", "ipv6_addr", _joined(6, (*PRIVATE6, *near)), ranges=True),
    ]
    chains = [
        _chain(
            "answers",
            "type filter hook input priority filter; policy accept;",
            f"iifname != {tunnel} return",
            "ct state established,related return",
            "ip saddr != @inner4 drop",
            "ip6 saddr != @inner6 drop",
            # A kernel takes what comes by one interface for its addresses at any other.
            "ct status dnat return",
            *(() if carried.is_exit else _OWN),
        ),
        *([_marking(tunnel, carried.port)] if carried.port else ()),
        *_handing_on(tunnel, ways, _aside(tunnel, ways, opened), is_exit=carried.is_exit),
        *([_masquerading(tunnel)] if carried.is_router else ()),
    ]
    body = "\n".join([*sets, *chains])
    return f"{removal(interface)}table inet {table_name(interface)} {{\n{body}\n}}\n"


def _marking(tunnel: str, port: int) -> str:
    # A strict rp_filter asks by which way an answer would go, and that is by the mark.
    return _chain(
        "marks",
        "type filter hook prerouting priority mangle; policy accept;",
        f"iifname != {tunnel} udp dport {port} meta mark set {FWMARK:#x}",
    )


def _aside(tunnel: str, ways: Iterable[str], opened: Opened | None) -> list[str]:
    """Return rules by which what was turned on for the tunnel hands on nothing else."""
    if opened is None:
        return []
    rules = [f'meta nfproto ipv4 iifname "{one}" oifname != {tunnel} drop' for one in opened.ipv4]
    listed = ", ".join(f'"{one}"' for one in sorted(ways))
    if opened.ipv6 and listed:
        rules.append(f"meta nfproto ipv6 iifname {{ {listed} }} oifname {{ {listed} }} drop")
    return rules


def _handing_on(
    tunnel: str, ways: Iterable[str], aside: Iterable[str], *, is_exit: bool
) -> list[str]:
    begun = [f'iifname "{one}" drop' for one in sorted(ways)]
    outside = ("ip daddr != @private4 accept", "ip6 daddr != @private6 accept")
    return [
        _chain(
            "inwards",
            "ct state related accept",
            "ct direction reply ct state established accept",
            "ct status dnat accept",  # this machine itself says where that goes: its containers
            f"oifname {tunnel} drop",
            "ip saddr != @members4 drop",
            "ip6 saddr != @members6 drop",
            "ip daddr @subnets4 accept",
            "ip6 daddr @subnets6 accept",
            *(outside if is_exit else ()),
            "drop",
        ),
        _chain(
            "outwards",
            "tcp flags syn tcp option maxseg size set rt mtu",
            "ct state established,related accept",
            *begun,
        ),
        _chain(
            "forward",
            "type filter hook forward priority filter; policy accept;",
            f"iifname {tunnel} jump inwards",
            f"oifname {tunnel} jump outwards",
            *aside,
        ),
    ]


def _masquerading(tunnel: str) -> str:
    return _chain(
        "source",
        "type nat hook postrouting priority srcnat; policy accept;",
        f"ip saddr @members4 oifname != {tunnel} masquerade",
        f"ip6 saddr @members6 oifname != {tunnel} masquerade",
    )


def _joined(version: int, prefixes: Iterable[str]) -> list[str]:
    """Return the prefixes of one version of IP; of those that lie in another only that."""
    networks = [one for one in map(ip_network, prefixes) if one.version == version]
    return [str(one) for one in collapse_addresses(networks)]  # type: ignore[type-var]


def _set(name: str, kind: str, elements: Iterable[str], *, ranges: bool = False) -> str:
    listed = ", ".join(elements)
    flags = " flags interval;" if ranges else ""
    held = f" elements = {{ {listed} }};" if listed else ""
    return f"  set {name} {{ type {kind};{flags}{held} }}"


def _chain(name: str, *lines: str) -> str:
    return "\n".join([f"  chain {name} {{", *(f"    {line}" for line in lines), "  }"])
