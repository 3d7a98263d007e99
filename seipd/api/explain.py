"""Explanations: who holds an address, a name or a key, since when and by which record."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from services.authority.tree.carriers import carrier_of
from services.authority.tree.prefixes import who_carries
from services.base.ledger.changes import record_hash
from services.kernel.errors import InputError, NotFoundError
from services.kernel.hlc import hlc_ms
from services.kernel.ids import ServerId, b64u_encode, node_id_of, parse_key, server_id_of
from services.kernel.records import decode_entry

if TYPE_CHECKING:
    from collections.abc import Callable

    from seipd.api.services import ApiServices
    from services.authority.policy.traffic import Traffic
    from services.kernel.certificates import ServerCertificate


async def explain_thing(services: ApiServices, text: str) -> dict[str, Any]:
    """Explain an address, a hostname, a node id, a server id, an invitation's id or a key.

    An address in a subnet is explained by the endpoint that carries it.

    Raises:
        NotFoundError: nothing here is called that.
    """
    server = _find_server(services, text)
    if server is not None:
        return server
    invitation = await _find_invitation(services, text)
    if invitation is not None:
        return invitation
    node_id, behind = await _find_node(services, text), {}
    if node_id is None and (carried := who_carries(services.ledger.state, text)) is not None:
        behind = {"subnet": carried[0]}
        node_id = carried[1]
    if node_id is None:
        raise NotFoundError(f"nothing in the mesh is called {text[:80]}")
    node = services.ledger.state.get("tree", node_id)
    since = await record_facts(services, node["record"])
    return {**behind, "what": node["kind"], "node_id": node_id, **node, **since}


async def explain_pair(
    services: ApiServices, one: str, other: str, traffic: Traffic | None = None
) -> dict[str, Any]:
    """Explain whether one endpoint reaches another, by which path and which rule.

    Raises:
        NotFoundError: one of them is not in the mesh.
    """
    ids = [await _find_node(services, text) for text in (one, other)]
    for text, node_id in zip((one, other), ids, strict=True):
        if node_id is None:
            raise NotFoundError(f"no endpoint is called {text[:80]}")
    source, target = (str(node_id) for node_id in ids)
    answer = services.acl.may_reach(source, target, traffic)
    homes = [_home_of(services, node_id) for node_id in (source, target)]
    path = [source, homes[0], *([homes[1]] if homes[1] != homes[0] else []), target]
    for text, home in zip((one, other), homes, strict=True):
        if _is_revoked(services, home):
            reason = f"no: {home}, the server of {text[:80]}, was revoked and has no heir"
            return {"allowed": False, "reason": reason, "path": path}
    return {
        "allowed": answer.allowed,
        "reason": answer.reason,
        "path": path,
        "open": answer.open,
        "rules": list(answer.rules),
    }


def _home_of(services: ApiServices, node_id: str) -> ServerId:
    """Return the server that carries a node, or the one that enrolled it."""
    node = services.ledger.state.get("tree", node_id)
    return carrier_of(services.ledger.charter, node) or ServerId(node["server"])


def _find_server(services: ApiServices, text: str) -> dict[str, Any] | None:
    """Return the facts of whoever is or was a server."""
    charter = services.ledger.charter
    for server_id, one in charter.certificates().items():
        names = {server_id, one.backbone, b64u_encode(one.key), b64u_encode(one.wireguard_key)}
        if text not in names or (text == one.backbone and _is_revoked(services, server_id)):
            continue
        return _server_facts(services, server_id, one)
    return None


def _server_facts(
    services: ApiServices, server_id: ServerId, one: ServerCertificate
) -> dict[str, Any]:
    key = b64u_encode(one.key)
    number = _newest_change(
        services, lambda body: any(certificate["key"] == key for certificate in body["servers"])
    )
    record = services.ledger.charter.records[number]
    return {
        "what": "server",
        "server_id": server_id,
        **one.value(),
        "roster_number": number,
        "record": record.id,
        "record_hash": record_hash(record),
        "settled": True,
        "revoked": _revoked(services, server_id),
    }


def _is_revoked(services: ApiServices, server_id: str) -> bool:
    return services.ledger.charter.removal(ServerId(server_id)) is not None


def _revoked(services: ApiServices, server_id: ServerId) -> dict[str, Any] | None:
    """Return how much of a revoked server's feed counts, by which change, and who inherited."""
    charter = services.ledger.charter
    removal, certificate = charter.removal(server_id), charter.last_certificate(server_id)
    if removal is None or certificate is None:
        return None
    number = _newest_change(services, lambda body: removal.value() in body["removed"])
    holders = {charter.slice_holder(text) for text in certificate.slices}
    return {
        **removal.value(),
        "roster_number": number,
        "record": charter.records[number].id,
        "heirs": sorted(one for one in holders if one not in (None, server_id)),
    }


def _newest_change(services: ApiServices, says: Callable[[dict[str, Any]], bool]) -> int:
    charter = services.ledger.charter
    return next(
        number for number in range(charter.number, 0, -1) if says(charter.records[number].body)
    )


async def _find_invitation(services: ApiServices, text: str) -> dict[str, Any] | None:
    """Return an invitation, and whether anybody can still redeem it."""
    invite = services.ledger.state.get("invite", text)
    if invite is None:
        return None
    why = ""
    if _is_revoked(services, invite["server"]):
        why = f"only {invite['server']} could redeem it, and that server was revoked"
    elif invite["expires_ms"] < services.clock.now_ms():
        why = "it has expired"
    elif invite["left"] < 1:
        why = "it is used up"
    since = await record_facts(services, invite["record"])
    return {"what": "invitation", **invite, "invite": text, **since, "good": not why, "why": why}


async def _find_node(services: ApiServices, text: str) -> str | None:
    state = services.ledger.state
    for view in ("ipam", "wg"):
        if (held := state.get(view, text)) is not None:
            return str(held)
    if state.get("tree", text) is not None:
        return text
    try:
        key = parse_key(text)
    except InputError:
        return await asyncio.to_thread(_find_name, services, text)
    node_id = node_id_of(key)
    if state.get("tree", node_id) is not None:
        return node_id
    known = services.ledger.charter.server(server_id_of(key))
    return str(known) if known else None


def _find_name(services: ApiServices, text: str) -> str | None:
    hostname, _, customer = text.partition(".")
    state = services.ledger.state
    for _, key, node_id in state.scan("name"):
        parent, _, name = key.partition("/")
        if name != hostname:
            continue
        if not customer or state.get("tree", parent)["name"] == customer.split(".")[0]:
            return str(node_id)
    return None


async def record_facts(services: ApiServices, record_id: str) -> dict[str, Any]:
    """Return which feed holds a record, where, since when, and whether it is settled."""
    ledger = services.ledger
    place = ledger.state.get("id", record_id)
    if place is None:
        return {"record": record_id}
    server_id = f"server-{place[0]}"
    log = ledger.log(server_id)
    (data,) = await asyncio.to_thread(log.read, place[1], place[1] + 1)
    entry = decode_entry(data)
    feed = ledger.fold.feeds.get(log.server_id)
    return {
        "record": record_id,
        "recorded_by": server_id,
        "index": place[1],
        "since_ms": hlc_ms(entry.hlc),
        "settled": bool(feed and place[1] < feed.attested),
    }
