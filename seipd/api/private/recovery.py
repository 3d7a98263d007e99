"""A lost root brought back by the holders of the recovery key."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from seipd.api.routes import Access, Route
from services.kernel.ids import b64u_decode, parse_mesh_id, parse_server_id

if TYPE_CHECKING:
    from seipd.api.routes import Call, Reply


class BeginRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whether to ask though this server released its share to another one."""

    again: bool = False


class ApproveRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A server that asks for shares, and the fingerprint of the root key that it asks for."""

    server: str
    fingerprint: str
    again: bool = False


class EndorsedRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A claim, and the signature of an offline recovery file's key over it."""

    claim: str
    endorsement: str


async def _requests(call: Call) -> Reply:
    return {"requests": call.services.root_recovery.requests()}


async def _begin(call: Call) -> Reply:
    body: BeginRequest = call.body
    return await call.services.root_recovery.begin(again=body.again)


async def _approve(call: Call) -> Reply:
    body: ApproveRequest = call.body
    return await call.services.root_recovery.approve(
        parse_server_id(body.server),
        fingerprint=parse_mesh_id(body.fingerprint),
        again=body.again,
    )


async def _finish(call: Call) -> Reply:
    return await call.services.root_recovery.finish()


async def _claim(call: Call) -> Reply:
    return await call.services.root_recovery.claim_for_file()


async def _endorsed(call: Call) -> Reply:
    body: EndorsedRequest = call.body
    return await call.services.root_recovery.finish_with_endorsement(
        b64u_decode(body.claim), b64u_decode(body.endorsement)
    )


ROUTES = (
    Route(
        method="GET",
        path="/api/root/recovery",
        handler=_requests,
        summary="Which servers ask for shares, for which root key, and who released theirs",
        access=Access.OPERATOR,
    ),
    Route(
        method="POST",
        path="/api/root/recovery/begin",
        handler=_begin,
        summary="Ask the holders for their shares, for a new root key of the signer here",
        access=Access.OPERATOR,
        body=BeginRequest,
    ),
    Route(
        method="POST",
        path="/api/root/recovery/approve",
        handler=_approve,
        summary="Release the share of this server to one that asks",
        access=Access.OPERATOR,
        body=ApproveRequest,
    ),
    Route(
        method="POST",
        path="/api/root/recovery/finish",
        handler=_finish,
        summary="Follow the lost root by the new key, once enough shares are here",
        access=Access.OPERATOR,
    ),
    Route(
        method="POST",
        path="/api/root/recovery/claim",
        handler=_claim,
        summary="What the operator's recovery file has to endorse",
        access=Access.OPERATOR,
    ),
    Route(
        method="POST",
        path="/api/root/recovery/endorsed",
        handler=_endorsed,
        summary="Follow the lost root by the new key that a recovery file endorsed",
        access=Access.OPERATOR,
        body=EndorsedRequest,
    ),
)
