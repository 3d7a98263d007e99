"""The kernel's part of a relay as text for nftables. Pure.

Each datagram of a bound session is looked up by where it comes from and where to; that gives the
direction, as a mark, and its other addresses hang on the mark. They are put in statelessly, so
connection tracking knows nothing of it, and taking a direction out of the map cuts it at once. Both
sides of a session have the same data port, so the port that a datagram came to is the one that it
leaves from.
What is no WireGuard packet in form passes by, to our sockets; what is one and belongs to no
session is dropped.

The look-up also counts, and lets through no more than the rate of that direction.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from services.edge.relay.model import Link, Side, Unlink

MARK: Final = 0x80000000
BURST_KBYTES: Final = 16
MAX_ELEMENTS: Final = 65_536
FAMILIES: Final = {4: "ip", 6: "ip6"}

_MAPS: Final = ("to_addr", "to_port", "from_addr")

# Where a datagram comes from, and where to.
_FLOW: Final = "{family} saddr . {family} daddr . udp sport . udp dport"
_PASS_ON: Final = f"""\
meta mark set {_FLOW} map @party notrack udp sport set udp dport \
{{family}} daddr set meta mark map @to_addr udp dport set meta mark map @to_port \
counter name taken accept"""

_TABLE: Final = """\
table {family} {name} {{
 set here {{
  type {address}
 }}
 set opened {{
  type ifname
 }}
 set by_program {{
  type {address} . {address} . inet_service . inet_service
  size {size}
 }}
 map party {{
  type {address} . {address} . inet_service . inet_service : mark
  size {size}
  flags dynamic
  limit rate 1 kbytes/second counter
 }}
 map to_addr {{
  type mark : {address}
  size {size}
 }}
 map to_port {{
  type mark : inet_service
  size {size}
 }}
 map from_addr {{
  type mark : {address}
  size {size}
 }}
 counter taken {{
 }}
 counter sent {{
 }}
 chain pre {{
  type filter hook prerouting priority -310; policy accept;
  udp dport {first}-{last} @th,64,32 0x04000000 udp length >= 40 {pass_on}
  udp dport {first}-{last} {family} daddr @here jump others
 }}
 chain others {{
  @th,64,32 0x04000000 udp length >= 40 goto left
  @th,64,32 0x01000000 udp length 156 goto handshake
  @th,64,32 0x02000000 udp length 100 goto handshake
  @th,64,32 0x03000000 udp length 72 goto handshake
  @th,64,32 {{ 0x01000000, 0x02000000, 0x03000000, 0x04000000 }} drop
 }}
 chain handshake {{
  {pass_on}
  goto left
 }}
 chain left {{
  {flow} @by_program accept
  drop
 }}
 chain post {{
  type filter hook postrouting priority 90; policy accept;
  {family} saddr set meta mark map @from_addr meta mark set 0 counter name sent
 }}
}}
"""


def setup(name: str, first_port: int, last_port: int) -> str:
    """Return the commands that make our tables anew, whatever was there under their names."""
    made = []
    for version, family in FAMILIES.items():
        made += [f"add table {family} {name}", f"delete table {family} {name}"]
        made.append(
            _TABLE.format(
                family=family,
                name=name,
                address=f"ipv{version}_addr",
                size=MAX_ELEMENTS,
                first=first_port,
                last=last_port,
                flow=_FLOW.format(family=family),
                pass_on=_PASS_ON.format(family=family),
            )
        )
    return "\n".join(made)


def teardown(name: str) -> str:
    """Return the commands that remove our tables, if they are there."""
    return "\n".join(
        f"add table {family} {name}\ndelete table {family} {name}" for family in FAMILIES.values()
    )


def here(name: str, host: str) -> str:
    """Return the command that takes up an address of the relay."""
    return f"add element {family_of(host)} {name} here {{ {_text(host)} }}"


def opened(name: str, family: str, interface: str) -> str:
    """Return the commands for an interface that forwards because of us, and for us alone.

    Connections of the inside that go out there get their answers; nobody else gets through. Where
    nothing was opened there is no such chain, nor the connection tracking that it needs.
    """
    chain = f"{family} {name} forward"
    return f"""\
add chain {chain} {{ type filter hook forward priority -10 ; policy accept ; }}
flush chain {chain}
add rule {chain} meta mark & 0x80000000 == 0x80000000 accept
add rule {chain} iifname @opened ct state != {{ established, related }} drop
add element {family} {name} opened {{ "{interface}" }}"""


def list_opened(name: str, family: str) -> str:
    """Return the command that shows those interfaces."""
    return f"list set {family} {name} opened"


def table_name(interface: str) -> str:
    """Return the name of the tables of the daemon with this WireGuard interface."""
    return f"seipd_relay_{interface}"


def link(name: str, one: Link, *, rate_kbits: int) -> str:
    """Return the commands that let the data of a session pass, both ways.

    Its two sides have the same data port.
    """
    family = family_of(one.a.place.host)
    return "\n".join(
        (
            *_add(f"{family} {name}", 2 * one.number, one.a, one.b, rate_kbits),
            *_add(f"{family} {name}", 2 * one.number + 1, one.b, one.a, rate_kbits),
        )
    )


def unlink(name: str, one: Unlink) -> str:
    """Return the commands that cut a session."""
    table = f"{family_of(one.a.place.host)} {name}"
    lines = []
    for direction, side in ((2 * one.number, one.a), (2 * one.number + 1, one.b)):
        lines.append(f"delete element {table} party {{ {_key(side)} }}")
        lines += [f"delete element {table} {each} {{ {_mark(direction)} }}" for each in _MAPS]
    return "\n".join(lines)


def rate(name: str, one: Link, *, rate_kbits: int, passed: tuple[int, int]) -> str:
    """Return the commands that change the rate of a session; its counters go on from there."""
    table = f"{family_of(one.a.place.host)} {name}"
    lines = []
    for direction, side, bytes_ in (
        (2 * one.number, one.a, passed[0]),
        (2 * one.number + 1, one.b, passed[1]),
    ):
        lines.append(f"delete element {table} party {{ {_key(side)} }}")
        lines.append(_party(table, direction, side, rate_kbits, bytes_))
    return "\n".join(lines)


def counted(name: str, family: str) -> str:
    """Return the command that shows how many packets came in and went out, and counts anew.

    To list them instead, nftables would read every element of the table first.
    """
    return f"reset counter {family} {name} taken\nreset counter {family} {name} sent"


def by_program(name: str, side: Side, *, wanted: bool) -> str:
    """Return the command for a direction that our sockets carry."""
    verb = "add" if wanted else "delete"
    return f"{verb} element {family_of(side.place.host)} {name} by_program {{ {_key(side)} }}"


def family_of(host: str) -> str:
    """Return nftables' word for the family of an address."""
    return FAMILIES[ip_address(host).version]


def direction_of(mark: int) -> int:
    """Return the direction that a mark stands for."""
    return mark & ~MARK


def _add(table: str, direction: int, sender: Side, receiver: Side, rate_kbits: int) -> list[str]:
    mark = _mark(direction)
    values = (
        _text(receiver.address[0]),
        str(int(receiver.address[1])),
        _text(receiver.place.host),
    )
    maps = [
        f"add element {table} {each} {{ {mark} : {value} }}"
        for each, value in zip(_MAPS, values, strict=True)
    ]
    return [*maps, _party(table, direction, sender, rate_kbits, 0)]


def _party(table: str, direction: int, sender: Side, rate_kbits: int, passed_bytes: int) -> str:
    kbytes = max(rate_kbits // 8, 1)
    return (
        f"add element {table} party {{ {_key(sender)} "
        f"limit rate {kbytes} kbytes/second burst {BURST_KBYTES} kbytes "
        f"counter packets 0 bytes {passed_bytes} : {_mark(direction)} }}"
    )


def _key(side: Side) -> str:
    hosts = f"{_text(side.address[0])} . {_text(side.place.host)}"
    return f"{hosts} . {int(side.address[1])} . {side.place.port}"


def _mark(direction: int) -> str:
    return f"{MARK | direction:#x}"


def _text(host: str) -> str:
    """Return an address spelled by ourselves: nothing else gets into a command."""
    address: IPv4Address | IPv6Address = ip_address(host)
    return str(address)
