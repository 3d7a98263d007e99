"""Ballots on new servers, and this server's vote on one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from seipd.api.routes import Access, Route
from services.authority.governance import parameters
from services.kernel.ids import parse_server_id

if TYPE_CHECKING:
    from seipd.api.routes import Call, Reply


class VoteRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A newcomer, and this server's vote on it."""

    server: str
    approve: bool


async def _status(call: Call) -> Reply:
    state = call.services.ledger.state
    return {
        "policy": parameters.value(state, parameters.ENROLLMENT),
        "quorum_percent": parameters.value(state, parameters.ENROLLMENT_QUORUM),
        "ballots": await call.services.ballots.ballots(),
    }


async def _ballot(call: Call) -> Reply:
    return call.services.ballots.ballot(parse_server_id(call.match("id")))


async def _vote(call: Call) -> Reply:
    body: VoteRequest = call.body
    return await call.services.ballots.vote(parse_server_id(body.server), approve=body.approve)


ROUTES = (
    Route(
        method="GET",
        path="/api/enrollment/status",
        handler=_status,
        summary="Whether tier 1 votes on new servers, and the ballot on each",
        access=Access.SERVER,
    ),
    Route(
        method="GET",
        path="/api/enrollment/{id}",
        handler=_ballot,
        summary="The newest ballot on a newcomer, by its server id",
        access=Access.SERVER,
    ),
    Route(
        method="POST",
        path="/api/enrollment/vote",
        handler=_vote,
        summary="Cast this server's vote on a newcomer",
        access=Access.OPERATOR,
        body=VoteRequest,
    ),
)
