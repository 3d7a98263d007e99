"""Which relays there are: servers of the mesh by what they tell, others by their records. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from services.authority.relays.view import relay_in
from services.authority.tree.carriers import carrier_of
from services.authority.tree.permissions import ancestors
from services.edge.relaying.finding import Relay
from services.kernel.errors import WireError
from services.kernel.ids import parse_key, parse_wireguard_key, relay_id_of
from services.mesh.facts.payloads import RelayPayload, decode_payload

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from services.base.ledger.roster import Charter
    from services.kernel.views import StateReader
    from services.mesh.facts.envelope import Fact
    from services.mesh.gossip.addresses import AddressFact


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """One of the two that a relay is for."""

    node_id: str
    customer: str
    key: bytes
    wireguard_key: bytes
    region: str | None


def end_of(state: StateReader, charter: Charter, node_id: str) -> End | None:
    """Return an endpoint that is in the mesh now; None for whoever left it, or was thrown out."""
    node: dict[str, Any] | None = state.get("tree", node_id)
    if node is None or node["kind"] != "endpoint" or "address" not in node:
        return None
    carrier = carrier_of(charter, node)
    certificate = charter.server(carrier) if carrier is not None else None
    return End(
        node_id=node_id,
        customer=node["parent"],
        key=parse_key(node["key"]),
        wireguard_key=parse_wireguard_key(node["wireguard_key"]),
        region=certificate.region if certificate is not None else None,
    )


def is_own_relay(state: StateReader, relay: Relay, end: End) -> bool:
    """Say whether a relay is run by an endpoint's customer, or one above or below it.

    The root runs relays for all: what its customers say of those counts.
    """
    if relay.owner is None or relay.owner == state.get("mesh", "root_node"):
        return False
    return relay.owner in ancestors(state, end.customer) or end.customer in ancestors(
        state, relay.owner
    )


def relays_of_servers(
    charter: Charter,
    *,
    told: Mapping[str, Fact],
    addresses: Mapping[str, AddressFact],
    untrusted: Collection[str],
    dead: Collection[str],
) -> Iterator[Relay]:
    """Return the relays of the servers that tell of one and can be reached from outside.

    Args:
        charter: the roster.
        told: the facts of kind 8, by server.
        addresses: where the servers are.
        untrusted: the servers that nobody is sent to.
        dead: those that do not answer.
    """
    hidden = charter.backbones()
    for server_id, certificate in charter.servers().items():
        fact, address = told.get(server_id), addresses.get(server_id)
        if fact is None or address is None or server_id in untrusted:
            continue
        said = relay_told(fact)
        if said is None or not said.port or address.host in hidden:
            continue
        is_six = ip_address(address.host).version == 6
        yield Relay(
            relay_id=relay_id_of(certificate.key),
            key=certificate.key,
            box=said.box,
            host="" if is_six else address.host,
            host6=said.host6 or (address.host if is_six else ""),
            port=said.port,
            region=certificate.region,
            server_id=server_id,
            load_permille=said.load_permille,
            sessions_count=said.sessions_count,
            is_up=server_id not in dead,
        )


def community_relays(state: StateReader, relay_ids: Iterable[str]) -> Iterator[Relay]:
    """Return those of these relays that are registered, and whose owner is there."""
    for relay_id in relay_ids:
        held = relay_in(state, relay_id)
        if held is not None:
            yield Relay(
                relay_id=relay_id,
                key=parse_key(held["key"]),
                box=parse_wireguard_key(held["box"]),
                host=held["host"],
                host6=held["host6"],
                port=held["port"],
                region=held["region"],
                owner=held["owner"],
            )


def relay_told(fact: Fact) -> RelayPayload | None:
    """Return what a fact of kind 8 says; None for what nobody can read."""
    try:
        return decode_payload(fact.payload, RelayPayload)
    except WireError:
        return None
