"""The protocol version: which is in force, who knows which, and activating the next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from seipd.api.routes import Access, Route
from services.kernel.versions import known_version, version_in_force

if TYPE_CHECKING:
    from seipd.api.routes import Call, Reply


class ActivateRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The version to activate; ``force`` leaves servers behind that lack it."""

    version: int
    force: bool = False


def _told(call: Call) -> dict[str, int | None]:
    """Return the newest version that each other server says it knows."""
    listed: list[dict[str, Any]] = call.services.mesh.servers()
    return {
        one["server_id"]: one["load"]["protocol"] if one["load"] else None
        for one in listed
        if one["server_id"] != call.services.ledger.server_id
    }


async def _show(call: Call) -> Reply:
    ledger = call.services.ledger
    known = {**_told(call), ledger.server_id: known_version()}
    return {
        "in_force": version_in_force(ledger.state),
        "known": known_version(),
        "servers": [{"server_id": name, "known": known[name]} for name in sorted(known)],
    }


async def _activate(call: Call) -> Reply:
    body: ActivateRequest = call.body
    record_id = await call.services.root_keys.activate(
        body.version, told=_told(call), force=body.force
    )
    return {"in_force": version_in_force(call.services.ledger.state), "record": record_id}


ROUTES = (
    Route(
        method="GET",
        path="/api/protocol",
        handler=_show,
        summary="The protocol version in force, and which each server knows",
        access=Access.OPERATOR,
    ),
    Route(
        method="POST",
        path="/api/protocol/activate",
        handler=_activate,
        summary="Activate the next protocol version",
        access=Access.OPERATOR,
        body=ActivateRequest,
    ),
)
