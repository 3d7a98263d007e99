"""The table of a server that guards subnets, as text for nftables. Pure.

Into a subnet begins only what comes from an endpoint of the same customer, out of one nothing: the
hosts there are nobody that a rule could name. And nothing goes from the tunnel to another network
of this server, nor from there into the tunnel.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any, Final

from services.authority.tree.routes import routes_of
from services.edge.policy.compiling import FAMILY, MARKER
from services.edge.policy.elements import Elements
from services.kernel.addr import tunnel6

if TYPE_CHECKING:
    from services.kernel.ids import MeshId

Node = dict[str, Any]

SETS: Final = {
    "owner4": "type ipv4_addr : mark\n",
    "owner6": "type ipv6_addr : mark\n",
    "subnet4": "type ipv4_addr\nflags interval\n",
    "subnet6": "type ipv6_addr\nflags interval\n",
    "reach4": "type mark . ipv4_addr\nflags interval\n",
    "reach6": "type mark . ipv6_addr\nflags interval\n",
}
REFUSE: Final = "counter reject with icmpx admin-prohibited"


def table_name(interface: str) -> str:
    """Return the name of the table for an interface."""
    return f"seipd_subnets_{interface}"


def whole_table(book: SubnetBook, *, interface: str) -> str:
    """Return one transaction that puts the table in the place of one of before."""
    name, tunnel = f"{FAMILY} {table_name(interface)}", f'"{interface}"'
    chains = {
        MARKER: (),
        "pass": ("meta mark set 0", "accept"),
        **{
            f"into{number}": (
                "meta mark set 0",
                f"meta mark set {ip} saddr map @owner{number}",
                f"meta mark . {ip} daddr @reach{number} goto pass",
                "meta mark set 0",
                REFUSE,
            )
            for ip, number in (("ip", 4), ("ip6", 6))
        },
        "guard": (
            "ct state related accept",
            "ct direction reply ct state established accept",
            "ip daddr @subnet4 goto into4",
            "ip6 daddr @subnet6 goto into6",
            f"ip saddr @subnet4 {REFUSE}",
            f"ip6 saddr @subnet6 {REFUSE}",
        ),
        "forward_hook": (
            "type filter hook forward priority filter; policy accept;",
            f"iifname {tunnel} oifname {tunnel} goto guard",
            f"iifname {tunnel} {REFUSE}",
            f"oifname {tunnel} {REFUSE}",
        ),
    }
    text = "".join(_chain(*one) for one in chains.items())
    return (
        f"add table {name}\ndelete table {name}\ntable {name} {{\n"
        f"{book.elements.declared()}{text}}}\n"
    )


def _chain(name: str, rules: tuple[str, ...]) -> str:
    return f"chain {name} {{\n" + "".join(f"{rule}\n" for rule in rules) + "}\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Member:
    """An endpoint as far as it matters here."""

    customer: str
    address: str
    routes: tuple[str, ...]
    is_exit: bool

    @property
    def is_router(self) -> bool:
        return bool(self.routes) or self.is_exit


class SubnetBook:
    """Who carries which subnets, and who may go there; a change costs its elements."""

    def __init__(self, mesh_id: MeshId) -> None:
        self._mesh_id = mesh_id
        self._members: dict[str, dict[str, _Member]] = {}
        self._routers: dict[str, set[str]] = {}
        self._customer_of: dict[str, str] = {}
        self._numbers: dict[str, int] = {}
        self.elements = Elements(SETS)

    @property
    def subnet_count(self) -> int:
        """How many subnets are carried."""
        held = self.elements.held()
        return len(held["subnet4"]) + len(held["subnet6"])

    @property
    def endpoints(self) -> set[str]:
        """All endpoints that have an address."""
        return set(self._customer_of)

    def put(self, node_id: str, node: Node | None) -> set[str]:
        """Take a node as it is now; return the endpoints for whom other routes count from now on.

        Of a new endpoint only the routers of its customer hear, of a router all.
        """
        before = self._take_out(node_id)
        after = _member(node)
        if after is not None:
            self._put_in(node_id, after)
        if before == after:
            return set()
        told: set[str] = set()
        for one in (before, after):
            if one is not None:
                told |= self._concerned(one, is_router_news=_news(before) != _news(after))
        return told

    def _concerned(self, one: _Member, *, is_router_news: bool) -> set[str]:
        if is_router_news:
            return set(self._members.get(one.customer, ()))
        return set(self._routers.get(one.customer, ()))

    def _put_in(self, node_id: str, member: _Member) -> None:
        customer = member.customer
        members = self._members.setdefault(customer, {})
        self._customer_of[node_id] = customer
        members[node_id] = member
        if member.is_router:
            self._routers.setdefault(customer, set()).add(node_id)
        if not member.routes and customer not in self._numbers:
            return
        is_first = customer not in self._numbers
        number = self._numbers.setdefault(customer, len(self._numbers) + 1)
        for one in members.values() if is_first else (member,):
            self._own(one, number)
        for prefix in member.routes:
            self._set("subnet", prefix, prefix)
            self._set("reach", prefix, f"{number} . {prefix}")

    def _take_out(self, node_id: str) -> _Member | None:
        customer = self._customer_of.pop(node_id, None)
        if customer is None:
            return None
        member = self._members[customer].pop(node_id)
        self._routers.get(customer, set()).discard(node_id)
        number = self._numbers.get(customer, 0)
        self._drop("owner", member.address, member.address)
        self._drop("owner", _six(self._mesh_id, member), _six(self._mesh_id, member))
        for prefix in member.routes:
            self._drop("subnet", prefix, prefix)
            self._drop("reach", prefix, f"{number} . {prefix}")
        return member

    def _own(self, member: _Member, number: int) -> None:
        for address in (member.address, _six(self._mesh_id, member)):
            self._set("owner", address, address, str(number))

    def _set(self, name: str, family: str, key: str, value: str = "") -> None:
        self.elements.put(f"{name}{6 if ':' in family else 4}", key, value)

    def _drop(self, name: str, family: str, key: str) -> None:
        self.elements.drop(f"{name}{6 if ':' in family else 4}", key)


def _member(node: Node | None) -> _Member | None:
    if node is None or node["kind"] != "endpoint" or "address" not in node:
        return None
    return _Member(
        customer=node["parent"],
        address=node["address"],
        routes=routes_of(node),
        is_exit=bool(node.get("exit")),
    )


def _six(mesh_id: MeshId, member: _Member) -> str:
    return str(tunnel6(mesh_id, IPv4Address(member.address)))


def _news(member: _Member | None) -> tuple[object, ...]:
    """Return what of a router others go by."""
    if member is None or not member.is_router:
        return ()
    return (member.customer, member.address, member.routes, member.is_exit)
