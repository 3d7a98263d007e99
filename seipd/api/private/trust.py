"""Whom the mesh trusts, who is proved to have lied, and the proof for whoever doubts it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from seipd.api.explain import record_facts
from seipd.api.routes import Access, Route
from services.authority.trust.view import TRUSTED, VIEW
from services.kernel.errors import InputError, NotFoundError
from services.kernel.ids import ServerId, parse_key, parse_server_id, server_id_of
from services.kernel.records import decode_entry
from services.kernel.service import HealthState

if TYPE_CHECKING:
    from seipd.api.routes import Call, Reply
    from seipd.api.services import ApiServices


def _standing(services: ApiServices, server_id: ServerId) -> dict[str, Any]:
    held = services.ledger.state.get(VIEW, server_id)
    standing = held or {"state": TRUSTED, "reason": None, "epoch": None, "size": None}
    tier = services.trust.tier(server_id).value
    return {"server_id": server_id, "record": None, "tier": tier, **standing}


async def _status(call: Call) -> Reply:
    """Return every server of the roster, and those proved to lie that are in it no more.

    With them what endpoints said that they were shown, which proves nothing.
    """
    ledger = call.services.ledger
    rows = ledger.state.scan(VIEW)
    found = await asyncio.to_thread(lambda: {name for _, name, _ in rows})
    names = sorted({*ledger.charter.servers(), *found})
    servers = [_standing(call.services, ServerId(name)) for name in names]
    return {
        "servers": servers,
        "rules": call.services.trust.rules(),
        "reports": call.services.reports.values(),
        "alarm": _alarm(call.services),
    }


def _alarm(services: ApiServices) -> str | None:
    """Return who tells which state, where servers contradict each other."""
    said = (one.health() for one in services.all_services if one.name == "alarm")
    bad = (HealthState.DEGRADED, HealthState.FAILED)
    return next((health.detail for health in said if health.state in bad), None)


async def _peer(call: Call) -> Reply:
    server_id = _named(call.match("key"))
    ledger = call.services.ledger
    standing = _standing(call.services, server_id) | call.services.trust.describe(server_id)
    if standing["record"] is None:
        if ledger.charter.server(server_id) is None:
            raise NotFoundError(f"there is no server {server_id}")
        return {**standing, "proof": None}
    facts = await record_facts(call.services, standing["record"])
    index, log = facts["index"], ledger.log(facts["recorded_by"])
    (data,) = await asyncio.to_thread(log.read, index, index + 1)
    return {**standing, **facts, "proof": decode_entry(data).record.body}


def _named(text: str) -> ServerId:
    """Return the server of an id or an identity key."""
    try:
        return (
            parse_server_id(text) if text.startswith("server-") else server_id_of(parse_key(text))
        )
    except InputError as error:
        raise InputError(
            f"{text[:80]} is neither a server id nor an identity key",
            mend="seipd trust status lists the servers",
        ) from error


ROUTES = (
    Route(
        method="GET",
        path="/api/trust/status",
        handler=_status,
        summary="Every server with its tier; what tier 1 takes; what endpoints reported",
        access=Access.OPERATOR,
    ),
    Route(
        method="GET",
        path="/api/trust/peer/{key}",
        handler=_peer,
        summary="One server (its id or identity key): tier, reasons, verdicts, and proof of a lie",
        access=Access.OPERATOR,
    ),
)
