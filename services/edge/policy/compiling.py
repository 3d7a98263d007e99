"""The table of a server, as text for nftables. Pure.

Every packet between two endpoints is judged, an answer by what it answers to: a rule that goes
takes running connections with it, both ways. An end's number is kept in the packet's mark (target)
and priority (source) while it is judged: two registers that a map can fill and a key can hold.
The server itself is not judged, but reached at its addresses in the mesh alone.

TCP is taken up in the middle where its path has just moved to this server. Such a packet may be an
answer, so it passes where the other direction is open: ``refuse`` clears the mark, and lets what is
no first packet of a connection be judged both ways, as is what answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from services.kernel.addr import RESERVED_OFFSETS, SLICE_SIZE, tunnel_range6, ula_prefix

if TYPE_CHECKING:
    from ipaddress import IPv4Network

    from services.edge.policy.book import PolicyBook
    from services.kernel.addr import Ranges
    from services.kernel.ids import MeshId

FAMILY: Final = "inet"
MARKER: Final = "made_by_seipd"
"""An empty chain of this name is in every table of ours, so that no other's is ever replaced."""
_MIDDLE: Final = "tcp flags & (syn | ack) != syn"
_ANSWER: Final = "ct direction reply ct state established"
_CLAMP: Final = "tcp flags syn tcp option maxseg size set rt mtu"
"""An end may think that more fits than this server's tunnel takes, as a stock client does."""
_ENDS: Final = (("daddr", "saddr", "dport"), ("saddr", "daddr", "sport"))


def table_name(interface: str) -> str:
    """Return the name of the table for an interface."""
    return f"seipd_policy_{interface}"


def whole_table(book: PolicyBook, *, interface: str, ranges: Ranges, mesh_id: MeshId) -> str:
    """Return one transaction that puts the table in the place of one of before."""
    name = f"{FAMILY} {table_name(interface)}"
    return (
        f"add table {name}\ndelete table {name}\ntable {name} {{\n"
        f"chain {MARKER} {{\n}}\n"
        f"chain pass {{\nmeta mark set 0\nmeta priority set 0:0\naccept\n}}\n"
        f"chain reject_it {{\ncounter reject with icmpx admin-prohibited\n}}\n"
        f"chain refuse {{\n{_MIDDLE} meta mark set 0 return\n"
        f"{_ANSWER} meta mark set 0 return\ngoto reject_it\n}}\n"
        f"{book.elements.declared()}"
        f"{_judging(book.levels)}"
        f"chain between {{\n{_between(ranges, mesh_id)}}}\n"
        "chain forward_hook {\ntype filter hook forward priority filter; policy accept;\n"
        f'iifname "{interface}" oifname "{interface}" {_CLAMP}\n'
        f'iifname "{interface}" oifname "{interface}" jump between\n}}\n'
        f"chain own {{\n{_own(ranges, mesh_id)}}}\n"
        "chain input_hook {\ntype filter hook input priority filter; policy accept;\n"
        f'iifname "{interface}" jump own\n}}\n'
        "}\n"
    )


def deeper(book: PolicyBook, *, interface: str) -> str:
    """Return the commands that let the table follow a tree that has become deeper."""
    name = f"{FAMILY} {table_name(interface)}"
    lines = []
    for direction in range(len(_ENDS)):
        for chain, rules in _chains(direction, book.levels).items():
            lines.append(f"flush chain {name} {chain}")
            lines += [f"add rule {name} {chain} {rule}" for rule in rules]
    return "\n".join(lines) + "\n"


def outside_of_endpoints(end: str, tunnel: IPv4Network, mesh_id: MeshId) -> list[str]:
    """Return rules that leave alone what is no endpoint's address.

    Servers keep the first addresses of each slice; subnets and the backbone are not judged here.
    """
    offset = f"{(SLICE_SIZE - 1) >> 8}.{(SLICE_SIZE - 1) & 255}"
    return [
        f"ip {end} != {tunnel} return",
        f"ip6 {end} != {tunnel_range6(mesh_id)} return",
        f"ip {end} & 0.0.{offset} < 0.0.0.{RESERVED_OFFSETS} return",
        f"ip6 {end} & ::{SLICE_SIZE - 1:x} < ::{RESERVED_OFFSETS:x} return",
    ]


def _own(ranges: Ranges, mesh_id: MeshId) -> str:
    """Return rules by which endpoints reach this server at its addresses in the mesh alone.

    A kernel takes what comes by one interface for its addresses at any other.
    """
    rules = [
        "ct state established,related return",
        "ct status dnat return",
        f"ip daddr != {ranges.tunnel} ip daddr != {ranges.backbone} counter drop",
        f"ip6 daddr != {ula_prefix(mesh_id)} counter drop",
    ]
    return "".join(f"{rule}\n" for rule in rules)


def _between(ranges: Ranges, mesh_id: MeshId) -> str:
    rules = ["ct state related accept"]
    for end in ("daddr", "saddr"):
        rules += outside_of_endpoints(end, ranges.tunnel, mesh_id)
    # Who is unknown may have joined elsewhere just now: nothing is said, and tried again it passes.
    rules += ["meta mark set 0", *_to("customer", "daddr"), "meta mark 0 drop"]
    rules += ["meta priority set 0:0", *_from("customer", "saddr"), "meta priority 0:0 drop"]
    rules += [f"{_ANSWER} jump judge1"]
    rules += ["jump judge0", f"{_MIDDLE} jump judge1", "goto reject_it"]
    return "".join(f"{rule}\n" for rule in rules)


def _judging(levels: int) -> str:
    """Return the chains that judge, those first that others jump to."""
    text = ""
    for direction in range(len(_ENDS)):
        for chain, rules in _chains(direction, levels).items():
            text += f"chain {chain} {{\n" + "".join(f"{rule}\n" for rule in rules) + "}\n"
    return text


def _chains(direction: int, levels: int) -> dict[str, list[str]]:
    there, here, port = _ENDS[direction]
    ends = "meta priority . meta mark . meta l4proto"
    look = [
        f"meta l4proto {{ tcp, udp }} {ends} . th {port} vmap @ported",
        f"meta l4proto != {{ tcp, udp }} {ends} vmap @portless",
    ]
    sources = ["meta priority set 0:0", *_from("customer", here), *_from("named", here)]
    sources += _climbing(f"jump look{direction}", "priority", "from", levels)
    judge = ["meta mark set 0", *_to("customer", there), *_to("named", there)]
    judge += _climbing(f"meta mark @targets jump sources{direction}", "mark", "to", levels)
    # Refused where the mark is none; where no rule spoke, it is open within a customer.
    judge += ["meta mark 0 return", *_to("customer", there), *_from("customer", here)]
    judge += ["meta priority . meta mark @within goto pass"]
    return {f"look{direction}": look, f"sources{direction}": sources, f"judge{direction}": judge}


def _climbing(rule: str, register: str, way: str, levels: int) -> list[str]:
    climb = f"meta {register} set meta {register} map @above_{way}"
    return [rule, *([climb, rule] * (levels - 1))]


def _to(what: str, end: str) -> list[str]:
    return [f"meta mark set {ip} {end} map @{what}_to{n}" for ip, n in (("ip", 4), ("ip6", 6))]


def _from(what: str, end: str) -> list[str]:
    return [
        f"meta priority set {ip} {end} map @{what}_from{n}" for ip, n in (("ip", 4), ("ip6", 6))
    ]
