"""Governance: the parameters of the mesh, proposals to change one, and this server's vote."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from seipd.api.routes import Access, Route
from services.authority.governance.service import Wish

if TYPE_CHECKING:
    from seipd.api.routes import Call, Reply


class ProposeRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A parameter and what it should be; ``old_value`` as it is now unless given."""

    parameter: str
    new_value: Any
    expires_seconds: int
    old_value: Any = None
    reason: str = ""


class VoteRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A proposal, by its id or the beginning of that, and this server's vote."""

    proposal: str
    approve: bool


async def _parameters(call: Call) -> Reply:
    return {"parameters": call.services.governance.parameters()}


async def _proposals(call: Call) -> Reply:
    return {"proposals": await call.services.governance.proposals()}


async def _propose(call: Call) -> Reply:
    body: ProposeRequest = call.body
    return await call.services.governance.propose(
        Wish(
            parameter=body.parameter,
            new_value=body.new_value,
            old_value=body.old_value,
            expires_s=body.expires_seconds,
            reason=body.reason,
        )
    )


async def _vote(call: Call) -> Reply:
    body: VoteRequest = call.body
    return await call.services.governance.vote(body.proposal, approve=body.approve)


ROUTES = (
    Route(
        method="GET",
        path="/api/governance/params",
        handler=_parameters,
        summary="The parameters that only a vote changes",
        access=Access.MEMBER,
    ),
    Route(
        method="GET",
        path="/api/governance/proposals",
        handler=_proposals,
        summary="Every proposal with its votes; what has no effect, and why",
        access=Access.MEMBER,
    ),
    Route(
        method="POST",
        path="/api/governance/propose",
        handler=_propose,
        summary="Propose to change a parameter, in the name of this server",
        access=Access.OPERATOR,
        body=ProposeRequest,
        status=201,
    ),
    Route(
        method="POST",
        path="/api/governance/vote",
        handler=_vote,
        summary="Cast this server's vote on a proposal",
        access=Access.OPERATOR,
        body=VoteRequest,
    ),
)
