"""Keeps the zone as the state and the soft facts have it: what changes, changes one name. Pure.

Names of servers and regions follow what gossip knows, and are looked over at once when that
changes and every few seconds; an operator's records follow the ledger, and so do the ready answers
about endpoints.
"""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any, Protocol

from services.authority.dnsnames import view as dns_view
from services.authority.names.view import slots_held
from services.authority.trust import view as trust_view
from services.edge.dns.building import RecordSet
from services.edge.dns.innernames import EndpointNames, ReverseNames, reverse_apexes
from services.edge.dns.records import texts
from services.edge.dns.serverbook import Seen, ServerBook
from services.edge.dns.servernames import Content, shared_content
from services.edge.dns.wire import Type
from services.edge.dns.zone import Source, Table, Zone
from services.kernel.addr import tunnel6
from services.kernel.dnsdata import parse_data
from services.kernel.dnsnames import name_of
from services.mesh.facts.hosts6 import hosts6_in
from services.mesh.facts.kinds import ADDRESS6, LOAD, PORTS
from services.mesh.membership.states import State

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from services.authority.ports import Ledger
    from services.base.ledger.watching import Change
    from services.kernel.addr import Ranges
    from services.kernel.ids import MeshId
    from services.mesh.facts.envelope import Fact
    from services.mesh.gossip.addresses import AddressFact
    from services.mesh.gossip.peerstate import PeerState

CHALLENGE_TTL_S = 1


class Gossip(Protocol):
    """What is heard of the servers."""

    def addresses(self) -> Mapping[str, AddressFact]:
        """Return where servers say that they are."""

    def facts(self, kind: int) -> Mapping[str, Fact]:
        """Return the facts of one kind that hold now, by server."""

    def peers(self) -> list[PeerState]:
        """Return what is known of every other server."""


class ReadyAnswers(Protocol):
    """What has to be told of changes."""

    def changed(self, name: bytes) -> None:
        """Forget what lies ready for a name."""

    def all_changed(self) -> None:
        """Forget everything that lies ready."""


class Publisher:
    """The contents of the zones."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        gossip: Gossip,
        mesh_id: MeshId,
        ranges: Ranges,
        domain: str,
        challenges: Callable[[], Mapping[str, Sequence[str]]] = dict,
        moved: Callable[[], None] = lambda: None,
    ) -> None:
        self._ledger = ledger
        self._gossip = gossip
        self._mesh_id = mesh_id
        self._ranges = ranges
        self._domain = domain
        self._challenges = challenges
        self._moved = moved
        self._ready: ReadyAnswers | None = None
        self._table = Table(self._changed)
        self._servers = ServerBook(mesh_id=mesh_id, domain=domain)
        self._held: Mapping[int, str] = {}
        self._untrusted: set[str] = set()
        self._endpoints = EndpointNames(state=lambda: ledger.state, mesh_id=mesh_id, domain=domain)

    def zones(self) -> list[Zone]:
        """Return the zones: the mesh's domain, and the reverse of its ranges."""
        mesh_id, ranges = self._mesh_id, self._ranges
        reverse = ReverseNames(
            state=lambda: self._ledger.state,
            endpoints=self._endpoints,
            mesh_id=mesh_id,
            ranges=ranges,
        )
        own = Zone(apex=name_of(self._domain), public=self._table, inner=self._endpoints)
        return [
            own,
            *(
                Zone(apex=apex, public=self._table, inner=reverse, is_open=False)
                for apex in reverse_apexes(mesh_id, ranges)
            ),
        ]

    def begin(self, ready: ReadyAnswers) -> None:
        """Fill the zone, and follow the ledger from now on."""
        first, self._ready = self._ready is None, ready
        for _, name, sets in self._ledger.state.scan(dns_view.VIEW):
            self._put_operators(name, sets)
        self._untrusted = {name for _, name, _ in self._ledger.state.scan(trust_view.VIEW)}
        self.look_over()
        if first:
            self._ledger.subscribe([dns_view.VIEW], self._on_records)
            self._ledger.subscribe(["tree"], self._on_tree)
            self._ledger.subscribe(["roster", "ns"], lambda _: self.look_over())
            self._ledger.subscribe([trust_view.VIEW], self._on_trust)

    def look_over(self) -> None:
        """Go by what is known of the servers now."""
        self._moved()
        changed = self._servers.look(self._seen())
        for name, records in changed.items():
            self._table.put(Source.SERVERS, name, records)
        held = slots_held(self._ledger.state, self._roster())
        if changed or held != self._held:
            self._held = held
            shared = shared_content(self._servers.facts.values(), held, self._domain)
            self._replace(Source.MESH, shared)
        challenged: Content = {
            name_of(name): [texts(CHALLENGE_TTL_S, values)]
            for name, values in self._challenges().items()
        }
        self._replace(Source.CHALLENGES, challenged)

    def _replace(self, source: Source, content: Content) -> None:
        gone = [name for name in self._table.names(source) if name not in content]
        for name in gone:
            self._table.put(source, name, ())
        for name, records in content.items():
            self._table.put(source, name, records)

    def _seen(self) -> dict[str, Seen]:
        """Return what is known of those servers that are trusted."""
        gossip = self._gossip
        addresses, ports, loads = gossip.addresses(), gossip.facts(PORTS), gossip.facts(LOAD)
        hosts6 = hosts6_in(gossip.facts(ADDRESS6), mesh_id=self._mesh_id, ranges=self._ranges)
        states = {one.server_id: one.state for one in gossip.peers()}
        return {
            server_id: Seen(
                certificate=certificate,
                address=addresses.get(server_id),
                host6=hosts6.get(server_id),
                is_healthy=states.get(server_id, State.ALIVE) is State.ALIVE,
                ports=ports.get(server_id),
                load=loads.get(server_id),
            )
            for server_id, certificate in self._ledger.charter.servers().items()
            if server_id not in self._untrusted
        }

    def _roster(self) -> Any:  # noqa: ANN401 (RosterReader)
        charter = self._ledger.charter
        return charter.at(charter.number)

    def _put_operators(self, name: str, sets: Mapping[str, Any]) -> None:
        records = [
            RecordSet(
                rtype=Type[rtype],
                ttl_s=one["ttl"],
                rdatas=tuple(parse_data(rtype, value) for value in one["values"]),
            )
            for rtype, one in sets.items()
        ]
        self._table.put(Source.OPERATOR, name_of(name), records)

    def _on_records(self, changes: list[Change]) -> None:
        self._moved()
        for change in changes:
            self._put_operators(change.key, change.new or {})

    def _on_trust(self, changes: list[Change]) -> None:
        for change in changes:
            if change.new is None:
                self._untrusted.discard(change.key)
            else:
                self._untrusted.add(change.key)
        self.look_over()

    def _on_tree(self, changes: list[Change]) -> None:
        """Forget what lies ready for the endpoints that changed; for all where a customer did."""
        self._moved()
        if self._ready is None:
            return
        nodes = [node for change in changes for node in (change.old, change.new) if node]
        if any(node["kind"] != "endpoint" for node in nodes):
            self._ready.all_changed()
            return
        for change in changes:
            for node in (change.old, change.new):
                if node:
                    self._forget(self._ready, change.key, node)

    def _forget(self, ready: ReadyAnswers, node_id: str, node: Mapping[str, Any]) -> None:
        for name in self._endpoints.names_of(node_id, node):
            ready.changed(name)
        if (text := node.get("address")) is not None:
            address = IPv4Address(text)
            ready.changed(name_of(address.reverse_pointer))
            ready.changed(name_of(tunnel6(self._mesh_id, address).reverse_pointer))

    def _changed(self, name: bytes) -> None:
        if self._ready is not None:
            self._ready.changed(name)
