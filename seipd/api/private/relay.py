"""Relays: which there are, the nearest, who registers them, tickets for them, reports on them."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from seipd.api.routes import Access, Route
from services.authority.relays import view
from services.authority.relays.introductions import introduction_from_text
from services.edge.relaying.knowing import end_of
from services.kernel.errors import InputError, NotFoundError
from services.kernel.ids import b64u_encode, parse_decimal, parse_label, parse_uuid

if TYPE_CHECKING:
    from seipd.api.routes import Call, Reply
    from services.edge.relaying.finding import Found, Relay
    from services.edge.relaying.offering import RelayOffer

MAX_LISTED = 1000
MAX_NEAREST = 32
MAX_EXCLUDED = 4

_Id = Annotated[str, msgspec.Meta(max_length=36)]


class RegisterRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a relay printed, and whose it is: a customer below the root, or the mesh's own."""

    introduction: str
    customer: str | None = None


class RetireRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A relay."""

    relay: _Id


class TicketRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The endpoint that the caller wants to meet, and relays that did not work."""

    peer: _Id
    excluded: Annotated[list[_Id], msgspec.Meta(max_length=MAX_EXCLUDED)] = []


class ReportRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A signed report on a session, see the protocol of relays."""

    report: dict[str, Any]


async def _list(call: Call) -> Reply:
    """List all relays, of one region where that is asked for."""
    region = call.query("region")
    relays = call.services.relays
    found = [one for one in relays.all() if region in ("", one.region)]
    return {"relays": [_row(call, one) for one in found[:MAX_LISTED]], "total": len(found)}


async def _nearest(call: Call) -> Reply:
    """Find the nearest to the caller or to a region, or between that and another endpoint."""
    ends = [_start(call)]
    if to := call.query("to"):
        ends.append(_reachable(call, to))
    limit = parse_decimal(call.query("limit", "3"))
    if not 1 <= limit <= MAX_NEAREST:
        raise InputError(f"limit is 1 to {MAX_NEAREST}")
    found = call.services.relays.nearest(ends, limit=limit)
    return {"relays": [_found(call, one) for one in found], "regions": ends}


async def _register(call: Call) -> Reply:
    body: RegisterRequest = call.body
    services = call.services
    found = introduction_from_text(body.introduction)
    owner = services.ledger.state.get("mesh", "root_node")
    if body.customer is not None:
        owner = services.enroll.customer_id(body.customer)
    said = {
        "relay": found.relay_id,
        "owner": owner,
        "introduction": msgspec.structs.asdict(found),
    }
    record = services.author.record(view.REGISTER_KIND, said)
    (receipt,) = await services.ledger.submit([record])
    return {
        "relay_id": found.relay_id,
        "owner": owner,
        "host": found.host,
        "host6": found.host6,
        "port": found.port,
        "region": found.region,
        "record": receipt.record_id,
    }


async def _retire(call: Call) -> Reply:
    body: RetireRequest = call.body
    relay_id = parse_uuid(body.relay)
    record = call.services.author.record(view.RETIRE_KIND, {"relay": relay_id})
    (receipt,) = await call.services.ledger.submit([record])
    return {"relay_id": relay_id, "record": receipt.record_id}


async def _ticket(call: Call) -> Reply:
    body: TicketRequest = call.body
    own = _own_node(call)
    _reachable(call, body.peer)
    excluded = [uuid.UUID(parse_uuid(one)).bytes for one in body.excluded]
    offers = call.services.relay_offering.offers(own, body.peer, excluded)
    return {"offers": [_offer(call, one) for one in offers]}


async def _report(call: Call) -> Reply:
    body: ReportRequest = call.body
    taken = call.services.relays.reports.take(_own_node(call), body.report)
    call.services.relays.hurry()
    return {"relay_id": taken.relay_id, "counts": taken.counts, "why": taken.why}


def _own_node(call: Call) -> str:
    """Return the caller's own endpoint.

    Raises:
        NotFoundError: it is none.
    """
    node_id = call.caller.node_id if call.caller is not None else None
    if node_id is None:
        raise NotFoundError("only an endpoint of the mesh asks that for itself")
    return node_id


def _start(call: Call) -> str | None:
    """Return the region that a search begins at: one that is named, or the caller's own."""
    if region := call.query("region"):
        return parse_label(region)
    ledger, node_id = call.services.ledger, call.query("from")
    if call.operator and not node_id:
        own = ledger.charter.server(ledger.server_id)
        return own.region if own is not None else None
    node_id = parse_uuid(node_id) if call.operator else _own_node(call)
    return _region(call, node_id)


def _reachable(call: Call, node_id: str) -> str | None:
    """Return the region of another endpoint that the caller may talk to.

    Raises:
        NotFoundError: there is none, or none that is the caller's business.
    """
    other = parse_uuid(node_id)
    if not call.operator:
        acl, own = call.services.acl, _own_node(call)
        may = acl.may_reach(own, other).allowed or acl.may_reach(other, own).allowed
        if not may or own == other:
            raise NotFoundError(f"there is no endpoint {other} that you may talk to")
    return _region(call, other)


def _region(call: Call, node_id: str) -> str | None:
    ledger = call.services.ledger
    end = end_of(ledger.state, ledger.charter, node_id)
    if end is None:
        raise NotFoundError(f"there is no endpoint {node_id}")
    return end.region


def _row(call: Call, relay: Relay) -> dict[str, Any]:
    relays = call.services.relays
    latency_ms = relays.latency_ms(relay.relay_id)
    row = {
        "relay_id": relay.relay_id,
        "server_id": relay.server_id,
        "region": relay.region,
        "host": relay.host or None,
        "host6": relay.host6 or None,
        "port": relay.port,
        "box": b64u_encode(relay.box),
        "state": relay.why_not or "usable",
        "reputation_percent": round(100 * relay.reputation),
        "voices": relays.voices_count(relay.relay_id),
        "load_percent": round(relay.load_permille / 10),
        "sessions": relay.sessions_count,
        "latency_ms": None if latency_ms is None else round(latency_ms),
    }
    # Who the customers of the mesh are is no business of the others.
    return {**row, "owner": _owner(call, relay)} if call.operator else row


def _owner(call: Call, relay: Relay) -> str | None:
    node = call.services.ledger.state.get("tree", relay.owner) if relay.owner else None
    return None if node is None else str(node["name"])


def _found(call: Call, found: Found) -> dict[str, Any]:
    far = found.distance_km
    return {
        **_row(call, found.relay),
        "distance_km": None if far is None else round(far),
        "cost_ms": round(found.cost_ms),
    }


def _offer(call: Call, offer: RelayOffer) -> dict[str, Any]:
    relay_id = str(uuid.UUID(bytes=offer.relay_id))
    relay = call.services.relays.get(relay_id)
    return {
        "relay_id": relay_id,
        "host": relay.host or None if relay is not None else None,
        "host6": relay.host6 or None if relay is not None else None,
        "port": offer.control_port,
        "box": b64u_encode(offer.box_key),
        "ticket": b64u_encode(offer.ticket),
    }


ROUTES = (
    Route(
        method="GET",
        path="/api/relay/list",
        handler=_list,
        summary="The relays, with their load and reputation",
        access=Access.MEMBER,
    ),
    Route(
        method="GET",
        path="/api/relay/nearest",
        handler=_nearest,
        summary="The best relays near the caller, or between it and another endpoint",
        access=Access.MEMBER,
    ),
    Route(
        method="POST",
        path="/api/relay/register",
        handler=_register,
        summary="Put a community relay into the directory, or tell where it is now",
        access=Access.OPERATOR,
        body=RegisterRequest,
    ),
    Route(
        method="POST",
        path="/api/relay/retire",
        handler=_retire,
        summary="Take a community relay out of the directory",
        access=Access.OPERATOR,
        body=RetireRequest,
    ),
    Route(
        method="POST",
        path="/api/relay/ticket",
        handler=_ticket,
        summary="Relays for the caller and another endpoint, with tickets",
        access=Access.MEMBER,
        body=TicketRequest,
    ),
    Route(
        method="POST",
        path="/api/relay/report",
        handler=_report,
        summary="How good a relay was in a session of the caller",
        access=Access.MEMBER,
        body=ReportRequest,
    ),
)
