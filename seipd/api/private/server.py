"""Certificates of servers: the roster with those who left it, and revocation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from seipd.api.routes import Access, Route
from services.kernel.ids import b64u_encode, parse_server_id

if TYPE_CHECKING:
    from seipd.api.routes import Call, Reply


class RevokeRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A server, who takes its slices over, and how many entries of its feed count."""

    server: str
    heir: str | None = None
    size: int | None = None


async def _roster(call: Call) -> Reply:
    charter = call.services.ledger.charter
    addresses = {one["server_id"]: one["address"] for one in call.services.mesh.servers()}
    ballots = {one["server_id"]: one for one in await call.services.ballots.ballots()}
    listed: list[dict[str, Any]] = []
    for server_id, one in charter.certificates().items():
        removal = charter.removal(server_id)
        listed.append(
            {
                "server_id": server_id,
                "region": one.region,
                "state": "valid" if removal is None else "revoked",
                "address": addresses.get(server_id),
                "backbone_address": one.backbone,
                "slices": [text for text in one.slices if charter.slice_holder(text) == server_id],
                "key": b64u_encode(one.key),
                "wireguard_key": b64u_encode(one.wireguard_key),
                "counts": None if removal is None else removal.size,
                "ballot": ballots.pop(server_id, None),
            }
        )
    listed += [_newcomer(one) for one in ballots.values()]
    return {"servers": listed}


def _newcomer(ballot: dict[str, Any]) -> dict[str, Any]:
    """Return the row of one that is no server (yet)."""
    return {
        **{name: ballot[name] for name in ("server_id", "region", "key", "wireguard_key")},
        "state": "newcomer",
        "address": None,
        "backbone_address": None,
        "slices": [],
        "counts": None,
        "ballot": ballot,
    }


async def _revoke(call: Call) -> Reply:
    body: RevokeRequest = call.body
    found = await call.services.root_keys.revoke(
        parse_server_id(body.server),
        heir=None if body.heir is None else parse_server_id(body.heir),
        size=body.size,
    )
    charter = call.services.ledger.charter
    return {
        "server_id": found.removal.server_id,
        "size": found.removal.size,
        "root": b64u_encode(found.removal.root),
        "heir": None if found.heir is None else found.heir.server_id,
        "slices": list(found.slices),
        "roster_number": charter.number,
        "record": charter.records[-1].id,
        "witnesses": list(charter.witnesses_at(charter.number)),
    }


ROUTES = (
    Route(
        method="GET",
        path="/api/servers/roster",
        handler=_roster,
        summary="The servers of the roster, and those that were revoked",
        access=Access.OPERATOR,
    ),
    Route(
        method="POST",
        path="/api/servers/revoke",
        handler=_revoke,
        summary="Revoke a server",
        access=Access.OPERATOR,
        body=RevokeRequest,
    ),
)
