"""Invitations, made on the server's own socket."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import msgspec

from seipd.api.routes import Access, Route
from services.authority.enroll.service import DEFAULT_CUSTOMER, Wanted

if TYPE_CHECKING:
    from seipd.api.routes import Call, Reply


class InviteRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who is invited, to what, for how long and how often."""

    role: str
    customer: str = DEFAULT_CUSTOMER
    region: str | None = None
    name: str | None = None
    expires_seconds: int = 3600
    uses: int = 1


class CancelRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An invitation by its id."""

    invite: str


async def _invite(call: Call) -> Reply:
    body: InviteRequest = call.body
    wanted = Wanted(
        role=body.role,
        customer=body.customer,
        region=body.region,
        name=body.name,
        expires_s=body.expires_seconds,
        uses=body.uses,
    )
    issued = await call.services.enroll.invite(wanted, addresses=call.services.mesh.addresses())
    return {"id": issued.invite_id, **dataclasses.asdict(issued)}


async def _cancel(call: Call) -> Reply:
    body: CancelRequest = call.body
    record = call.services.author.record("auth.cancel", {"invite": body.invite})
    await call.services.ledger.submit([record])
    return {"invite": body.invite}


ROUTES = (
    Route(
        method="POST",
        path="/api/invite",
        handler=_invite,
        summary="Make an invitation",
        access=Access.OPERATOR,
        body=InviteRequest,
        status=201,
    ),
    Route(
        method="POST",
        path="/api/invite/cancel",
        handler=_cancel,
        summary="Cancel an invitation",
        access=Access.OPERATOR,
        body=CancelRequest,
    ),
)
