"""The table of an endpoint: what comes in by the tunnel from others is held to this. Pure.

Sources that are treated alike are a class with a number; in the maps stands what is open to it.
Servers, and what is behind subnets, are not judged here. Ports that this machine leads elsewhere
(containers, another port) are judged as the port that was asked for, before they go there.

The class is kept in a packet's priority while it is judged: others' firewalls have use for marks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from services.edge.policy.book import classid, rectangles
from services.edge.policy.compiling import FAMILY, MARKER, outside_of_endpoints
from services.edge.policy.elements import Elements
from services.kernel.addr import tunnel6

if TYPE_CHECKING:
    from ipaddress import IPv4Network

    from services.authority.policy.traffic import Span
    from services.edge.policy.inbound import Inbound
    from services.kernel.ids import MeshId

OPEN: Final = "goto pass"
STRANGERS: Final = 0
_MAPS: Final = {
    "class4": "type ipv4_addr : classid\n",
    "class6": "type ipv6_addr : classid\n",
    "ported": "type classid . inet_proto . inet_service : verdict\nflags interval\n",
    "portless": "type classid . inet_proto : verdict\nflags interval\n",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the table stands."""

    interface: str
    tunnel_range: IPv4Network
    mesh_id: MeshId

    @property
    def table(self) -> str:
        """The table's name."""
        return endpoint_table_name(self.interface)


def endpoint_table_name(interface: str) -> str:
    """Return the name of the table for an interface."""
    return f"seip_policy_{interface}"


class InboundBook:
    """What is open to whom, as elements; a change costs those that it is."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._numbers: dict[tuple[Span, ...], int] = {}
        self.elements = Elements(_MAPS)

    def put(self, inbound: Inbound) -> None:
        """Have exactly this."""
        wanted: dict[str, dict[str, str]] = {name: {} for name in _MAPS}
        self._open(wanted, STRANGERS, inbound.strangers)
        for spans, addresses in inbound.classes:
            number = self._numbers.setdefault(spans, len(self._numbers) + 1)
            self._open(wanted, number, spans)
            for address in addresses:
                six = tunnel6(self._place.mesh_id, address)
                wanted["class4"][str(address)] = wanted["class6"][str(six)] = classid(number)
        for name, held in self.elements.held().items():
            for key in held.keys() - wanted[name].keys():
                self.elements.drop(name, key)
            for key, value in wanted[name].items():
                if held.get(key) != value:
                    self.elements.put(name, key, value)

    def whole(self) -> str:
        """Return one transaction that puts the table in the place of one of before."""
        place, name = self._place, f"{FAMILY} {self._place.table}"
        outside = outside_of_endpoints("saddr", place.tunnel_range, place.mesh_id)
        tunnel = f'iifname "{place.interface}"'
        chains = {
            MARKER: (),
            "pass": ("meta priority set 0:0", "accept"),
            # A stranger may be a brother that joined just now: tried again it passes.
            "refuse": (
                f"meta priority {classid(STRANGERS)} counter drop",
                "counter reject with icmpx admin-prohibited",
            ),
            "asked": (*_open_at("ct original proto-dst"), "goto refuse"),
            "inbound": (
                "ct state related accept",
                "ct direction reply ct state established accept",
                *outside,
                f"meta priority set {classid(STRANGERS)}",
                "meta priority set ip saddr map @class4",
                "meta priority set ip6 saddr map @class6",
                "ct status dnat goto asked",
                *_open_at("th dport"),
                "goto refuse",
            ),
            "input_hook": (
                "type filter hook input priority filter; policy accept;",
                f"{tunnel} jump inbound",
            ),
            "forward_hook": (
                "type filter hook forward priority filter; policy accept;",
                f"{tunnel} ct status dnat jump inbound",
            ),
        }
        text = "".join(
            f"chain {one} {{\n" + "".join(f"{rule}\n" for rule in rules) + "}\n"
            for one, rules in chains.items()
        )
        return (
            f"add table {name}\ndelete table {name}\ntable {name} {{\n"
            f"{self.elements.declared()}{text}}}\n"
        )

    def take_changes(self) -> str:
        """Return the commands that lead from what was taken before to here."""
        return self.elements.take_changes(f"{FAMILY} {self._place.table}")[0]

    def _open(
        self, wanted: dict[str, dict[str, str]], number: int, spans: tuple[Span, ...]
    ) -> None:
        for span in spans:
            for name, rest in rectangles(span):
                wanted[name][f"{classid(number)} . {rest}"] = OPEN


def _open_at(port: str) -> tuple[str, str]:
    key = "meta priority . meta l4proto"
    return (
        f"meta l4proto {{ tcp, udp }} {key} . {port} vmap @ported",
        f"meta l4proto != {{ tcp, udp }} {key} vmap @portless",
    )
