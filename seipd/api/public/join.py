"""Joining: an endpoint gets its address, a server its certificate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from seipd.api.public import report
from seipd.api.routes import Access, Route
from seipd.api.shown import record_shown
from services.authority.rootkeys.service import Candidate
from services.kernel.addr import backbone_range6, is_inner, parse_address, tunnel6, tunnel_range6
from services.kernel.errors import InputError, UnauthenticatedError, WireError
from services.kernel.ids import (
    b64u_decode,
    b64u_encode,
    parse_key,
    parse_label,
    parse_wireguard_key,
    server_id_of,
)
from services.kernel.places import parse_place
from services.kernel.records import record_from_value
from services.mesh.facts.payloads import is_loopback, meant_by
from services.mesh.gossip.addresses import decode_fact

if TYPE_CHECKING:
    from seipd.api.routes import Call, Reply

KEEPALIVE_S = 25
MAX_FACT_CHARS = 1024


class JoinRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The ``auth.redeem`` or ``tree.attach`` record of the endpoint's own key."""

    record: dict[str, Any]


class ServerJoinRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A new server's keys, the record that redeems its invitation, and where it can be reached."""

    key: str
    wireguard_key: str
    tls_key_hash: str
    region: str
    record: dict[str, Any]
    address_fact: str | None = None


async def _join(call: Call) -> Reply:
    services = call.services
    body: JoinRequest = call.body
    node = await services.enroll.redeem_endpoint(record_from_value(body.record))
    record = await record_shown(services, node["node_id"])
    return {**endpoint_configuration(call, node), "record": record}


def endpoint_configuration(call: Call, node: dict[str, Any]) -> dict[str, Any]:
    """Return all that an endpoint needs to bring its tunnel up."""
    services = call.services
    charter = services.ledger.charter
    mesh_id, ranges = services.ledger.mesh_id, charter.genesis.ranges
    own = charter.servers()[services.ledger.server_id]
    ports = services.mesh.status()["ports"]
    return {
        "node_id": node["node_id"],
        "hostname": node["name"],
        "customer": node["parent"],
        "domain": charter.genesis.domain,
        "tunnel_address": node["address"],
        "tunnel_address6": str(tunnel6(mesh_id, parse_address(node["address"]))),
        "server": {
            "server_id": own.server_id,
            "key": b64u_encode(own.key),
            "wireguard_key": b64u_encode(own.wireguard_key),
            "endpoint": services.mesh.wireguard_endpoint(),
            "endpoint6": services.mesh.wireguard_endpoint6(),
            "addresses": list(services.mesh.addresses()),
        },
        "allowed_ips": [
            str(ranges.tunnel),
            str(ranges.backbone),
            str(tunnel_range6(mesh_id)),
            str(backbone_range6(mesh_id)),
        ],
        "gateway": str(ranges.gateway),
        "private_port": ports["private_http"],
        "stun_ports": [ports[name] for name in ("stun", "hole_punch") if ports.get(name)],
        "keepalive_seconds": KEEPALIVE_S,
        "authority_pem": services.tls.authority_pem.decode("ascii"),
    }


async def _attach(call: Call) -> Reply:
    body: JoinRequest = call.body
    node = await call.services.enroll.attach(record_from_value(body.record))
    return endpoint_configuration(call, node)


async def _join_server(call: Call) -> Reply:
    services = call.services
    body: ServerJoinRequest = call.body
    record = record_from_value(body.record)
    invite, signature = record.body.get("invite"), record.body.get("signature")
    if not isinstance(invite, str) or not isinstance(signature, str):
        raise InputError("the record redeems no invitation")
    key = parse_key(body.key)
    # Before anything is used up: who gives a bad address may mend it and try again.
    fact = _address_fact(call, body.address_fact, key)
    certificate = await services.enroll.admit_server(
        Candidate(
            key=key,
            wireguard_key=parse_wireguard_key(body.wireguard_key),
            tls_key_hash=parse_key(body.tls_key_hash),
            region=parse_label(body.region),
        ),
        invite_id=invite,
        signature=signature,
        redeem=record,
    )
    if fact is not None:
        services.mesh.learn_address(fact)
    return {
        "certificate": certificate.value(),
        "charter": [one.value() for one in services.ledger.charter.records],
        "peers": [b64u_encode(fact) for fact in services.mesh.address_facts()],
    }


def _address_fact(call: Call, text: str | None, key: bytes) -> bytes | None:
    """Return the fact that tells where a new server is, if others can use what it says.

    Raises:
        InputError: ``bad_endpoint``.
    """
    if text is None:
        return None
    if len(text) > MAX_FACT_CHARS:
        raise InputError("the address fact is too long", code="bad_endpoint")
    ledger, data = call.services.ledger, b64u_decode(text)
    try:
        fact = decode_fact(data, bytes.fromhex(ledger.mesh_id))
    except (WireError, UnauthenticatedError) as error:
        raise InputError(f"the address fact is not good: {error}", code="bad_endpoint") from error
    own_host, own_port = parse_place(call.services.mesh.addresses()[0])
    if fact.server_id != server_id_of(key):
        raise InputError("the address fact is about another server", code="bad_endpoint")
    if (fact.host, fact.http_port) == (own_host, own_port):
        raise InputError("that is this server's own address", code="bad_endpoint")
    if is_loopback(fact.host) and not is_loopback(own_host):
        raise InputError(
            f"{fact.host} is reached from its own machine alone",
            code="bad_endpoint",
            mend="say --public-address ADDRESS",
        )
    if is_inner(ledger.mesh_id, ledger.charter.genesis.ranges, meant_by(fact.host)):
        raise InputError(
            f"{fact.host} lies inside of the mesh",
            code="bad_endpoint",
            mend="say --public-address ADDRESS, or none",
        )
    return data


ROUTES = (
    Route(
        method="POST",
        path="/api/join",
        handler=_join,
        summary="An endpoint joins: its signed record in, its WireGuard configuration out",
        access=Access.ANYONE,
        body=JoinRequest,
        status=201,
    ),
    Route(
        method="POST",
        path="/api/attach",
        handler=_attach,
        summary="An endpoint moves here: its signed record in, its WireGuard configuration out",
        access=Access.ANYONE,
        body=JoinRequest,
    ),
    Route(
        method="POST",
        path="/api/servers/join",
        handler=_join_server,
        summary="A server joins: its keys in, its certificate, the roster and seed peers out",
        access=Access.ANYONE,
        body=ServerJoinRequest,
        status=201,
    ),
    *report.ROUTES,
)
