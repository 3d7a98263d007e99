"""From nodes and rules to the elements of the table; a change costs the elements that it is. Pure.

Customers and the endpoints that rules name have numbers. A packet's two addresses lead to the
numbers of its two ends, ``above`` from a number to that of the node above it, and a rule lies where
the numbers of its source and target, and the traffic, point to. So a rule is one element (three for
``any``) however many endpoints it is about, and so is an endpoint in each of its four maps.
"""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any, Final

from services.authority.policy.deciding import painted, rules_in
from services.authority.policy.traffic import PORTS, TCP, UDP, Span
from services.authority.tree.permissions import MAX_DEPTH
from services.edge.policy.elements import Elements
from services.kernel.addr import tunnel6

if TYPE_CHECKING:
    from collections.abc import Iterator

    from services.authority.policy.deciding import Rule
    from services.kernel.ids import MeshId

Node = dict[str, Any]

LET: Final = "goto pass"
REFUSE: Final = "goto refuse"
BEYOND: Final = 0xFFFF_FFFE
"""What is above the root: no rule speaks of it."""
MAPS: Final = {
    "customer_to4": "type ipv4_addr : mark\n",
    "customer_to6": "type ipv6_addr : mark\n",
    "customer_from4": "type ipv4_addr : classid\n",
    "customer_from6": "type ipv6_addr : classid\n",
    "named_to4": "type ipv4_addr : mark\n",
    "named_to6": "type ipv6_addr : mark\n",
    "named_from4": "type ipv4_addr : classid\n",
    "named_from6": "type ipv6_addr : classid\n",
    "above_to": "type mark : mark\n",
    "above_from": "type classid : classid\n",
    "targets": "type mark\n",
    "within": "type classid . mark\n",
    "ported": "type classid . mark . inet_proto . inet_service : verdict\nflags interval\n",
    "portless": "type classid . mark . inet_proto : verdict\nflags interval\n",
}


class PolicyBook:
    """The nodes and rules that are known, and the elements that follow."""

    def __init__(self, mesh_id: MeshId) -> None:
        self._mesh_id = mesh_id
        self._nodes: dict[str, Node] = {}
        self._pairs: dict[str, Node] = {}
        self._pairs_at: dict[str, set[str]] = {}
        self._below: dict[str, set[str]] = {}
        self._drawn: dict[str, tuple[tuple[str, str], ...]] = {}
        self._numbers: dict[str, int] = {}
        self._last = 0
        self._endpoint_count = 0
        self._levels: int | None = 1
        self.elements = Elements(MAPS)

    @property
    def levels(self) -> int:
        """How many nodes there are from an endpoint to the root at most, both counted."""
        if self._levels is None:
            depths = [
                sum(1 for _ in self._upwards(node_id))
                for node_id, node in self._nodes.items()
                if node["kind"] != "endpoint"
            ]
            self._levels = 1 + max(depths, default=0)
        return self._levels

    @property
    def rule_count(self) -> int:
        """How many rules count."""
        return sum(len(self._pairs[key]["rules"]) for key in self._drawn)

    @property
    def endpoint_count(self) -> int:
        """How many endpoints have an address."""
        return self._endpoint_count

    def put_node(self, node_id: str, node: Node | None) -> None:
        """Take what a node is now; None where it is gone."""
        old = self._nodes.pop(node_id, None)
        if old is not None and old["parent"] is not None:
            self._below[old["parent"]].discard(node_id)
        self._endpoint_count -= old is not None and "address" in old
        self._endpoint_count += node is not None and "address" in node
        if node is not None:
            if node["parent"] is not None:
                self._below.setdefault(node["parent"], set()).add(node_id)
            kept = ("kind", "parent", "record", "address")
            self._nodes[node_id] = {name: node[name] for name in kept if name in node}
        was, now = old and old["record"], node and node["record"]
        if was != now:
            self._redraw(node_id)
        if (node or old or {}).get("kind") == "endpoint":
            self._place(node_id, old)
        else:
            self._place_customer(node_id)

    def put_pair(self, key: str, held: Node | None) -> None:
        """Take the rules between two nodes as they are now."""
        for node_id in key.split("/"):
            if held is None:
                self._pairs_at.get(node_id, set()).discard(key)
            else:
                self._pairs_at.setdefault(node_id, set()).add(key)
        self._pairs.pop(key, None)
        if held is not None:
            self._pairs[key] = held
        self._draw(key)

    def path_of(self, node_id: str) -> list[str]:
        """Return a node and what is above it, the root last."""
        return list(self._upwards(node_id))

    def below(self, node_id: str, depth: int = MAX_DEPTH) -> Iterator[str]:
        """Yield what is below a node, at most so many levels of it."""
        for one in self._below.get(node_id, ()):
            yield one
            if depth > 1:
                yield from self.below(one, depth - 1)

    def is_endpoint(self, node_id: str) -> bool:
        """Say whether a node is an endpoint."""
        return self._nodes.get(node_id, {}).get("kind") == "endpoint"

    def is_root(self, node_id: str) -> bool:
        """Say whether a node is the root: everybody."""
        return self._nodes.get(node_id, {}).get("kind") == "root"

    def address_of(self, node_id: str) -> IPv4Address | None:
        """Return an endpoint's tunnel address."""
        node = self._nodes.get(node_id, {})
        return IPv4Address(node["address"]) if "address" in node else None

    def sources_at(self, target: str) -> dict[str, list[Rule]]:
        """Return the rules that have this target, by their source."""
        return {
            key.partition("/")[2]: rules_in(self._pairs[key])
            for key in self._pairs_at.get(target, ())
            if key in self._drawn and key.startswith(f"{target}/")
        }

    def targets_of(self, source: str) -> set[str]:
        """Return the targets of the rules that have this source."""
        return {
            key.partition("/")[0]
            for key in self._pairs_at.get(source, ())
            if key in self._drawn and key.endswith(f"/{source}")
        }

    def _redraw(self, node_id: str) -> None:
        for key in sorted(self._pairs_at.get(node_id, ())):
            self._draw(key)

    def _draw(self, key: str) -> None:
        """Lay the rules of a pair over each other, and have exactly these elements."""
        target, source = key.split("/")
        held = self._pairs.get(key)
        counts = held is not None and held["made"] == [
            self._nodes.get(end, {}).get("record") for end in (target, source)
        ]
        for name, place in self._drawn.pop(key, ()):
            self.elements.drop(name, place)
        if counts:
            begins = f"{classid(self._number(source))} . {self._number(target)}"
            drawn = []
            for span, allows in _joined([(span, rule.allows) for span, rule in painted_of(held)]):
                for name, rest in rectangles(span):
                    drawn.append((name, f"{begins} . {rest}"))
                    self.elements.put(*drawn[-1], LET if allows else REFUSE)
            self._drawn[key] = tuple(drawn)
        for end in (target, source):
            self._name(end)

    def _name(self, node_id: str) -> None:
        """Have an endpoint's own numbers where rules name it, and only there."""
        keys = [key for key in self._pairs_at.get(node_id, ()) if key in self._drawn]
        is_target = any(key.startswith(f"{node_id}/") for key in keys)
        is_source = any(key.endswith(f"/{node_id}") for key in keys)
        number, node = self._numbers.get(node_id), self._nodes.get(node_id)
        if number is None:
            return
        self._have("targets", str(number), "", is_wanted=is_target)
        if node is None or node["kind"] != "endpoint":
            return
        above = self._number(node["parent"])
        self._have("above_to", str(number), str(above), is_wanted=is_target)
        self._have("above_from", classid(number), classid(above), is_wanted=is_source)
        for version, address in self._addresses(node):
            self._have(f"named_to{version}", address, str(number), is_wanted=is_target)
            self._have(f"named_from{version}", address, classid(number), is_wanted=is_source)

    def _place(self, node_id: str, old: Node | None) -> None:
        """Have an endpoint's addresses lead to its customer, and to itself where it is named."""
        node = self._nodes.get(node_id)
        if old is not None:
            for version, address in self._addresses(old):
                for name in ("customer_to", "customer_from", "named_to", "named_from"):
                    self.elements.drop(f"{name}{version}", address)
        if node is None:
            number = self._numbers.pop(node_id, None)
            if number is not None:
                self.elements.drop("above_to", str(number))
                self.elements.drop("above_from", classid(number))
                self.elements.drop("targets", str(number))
            return
        customer = self._number(node["parent"])
        for version, address in self._addresses(node):
            self.elements.put(f"customer_to{version}", address, str(customer))
            self.elements.put(f"customer_from{version}", address, classid(customer))
        self._name(node_id)

    def _place_customer(self, node_id: str) -> None:
        node = self._nodes.get(node_id)
        number = self._number(node_id)
        parent = node["parent"] if node is not None else None
        above = BEYOND if parent is None else self._number(parent)
        is_there = node is not None
        self._have("above_to", str(number), str(above), is_wanted=is_there)
        self._have("above_from", classid(number), classid(above), is_wanted=is_there)
        self._have("within", f"{classid(number)} . {number}", "", is_wanted=is_there)
        self._levels = None
        if node is None:
            del self._numbers[node_id]

    def _upwards(self, node_id: str | None) -> Iterator[str]:
        for _ in range(MAX_DEPTH):
            if node_id is None or node_id not in self._nodes:
                return
            yield node_id
            node_id = self._nodes[node_id]["parent"]

    def _number(self, node_id: str) -> int:
        if node_id not in self._numbers:
            self._last += 1
            self._numbers[node_id] = self._last
        return self._numbers[node_id]

    def _addresses(self, node: Node) -> list[tuple[str, str]]:
        if "address" not in node:
            return []
        address = IPv4Address(node["address"])
        return [("4", str(address)), ("6", str(tunnel6(self._mesh_id, address)))]

    def _have(self, name: str, key: str, value: str, *, is_wanted: bool) -> None:
        if is_wanted and self.elements.get(name, key) != value:
            self.elements.put(name, key, value)
        elif not is_wanted:
            self.elements.drop(name, key)


def painted_of(held: Node | None) -> list[tuple[Span, Any]]:
    """Return the rules of a pair laid over each other."""
    return painted(rules_in(held))


def classid(number: int) -> str:
    """Return a number as nftables writes it for a packet's priority."""
    return f"{number >> 16:x}:{number & 0xFFFF:x}"


def _joined(drawn: list[tuple[Span, bool]]) -> list[tuple[Span, bool]]:
    joined: list[tuple[Span, bool]] = []
    for (first, last), allows in drawn:
        if joined and joined[-1][1] is allows and joined[-1][0][1] + 1 == first:
            joined[-1] = ((joined[-1][0][0], last), allows)
        else:
            joined.append(((first, last), allows))
    return joined


def rectangles(span: Span) -> Iterator[tuple[str, str]]:
    """Yield the map and the end of the key of each part that a stretch has there."""
    (first, low), (last, high) = (divmod(point, PORTS + 1) for point in span)
    for number in (TCP, UDP):
        if first <= number <= last:
            start, end = low if number == first else 0, high if number == last else PORTS
            # Always as a range: nftables 1.0.6 does not find a single value again to delete it.
            yield "ported", f"{number}-{number} . {start}-{end}"
    # Protocols without ports are in it as a whole or not at all.
    begin, finish = first + (low > 0), last - (high < PORTS)
    if begin < finish or (begin == finish and begin not in (TCP, UDP)):
        yield "portless", f"{begin}-{finish}"
