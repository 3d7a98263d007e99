"""Proofs, so that an endpoint need not believe this server's word alone."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from seipd.api.routes import Access, Route
from seipd.api.shown import record_shown
from services.base.ledger.rootwalk import shown_chain
from services.kernel.errors import NotFoundError, UnavailableError
from services.kernel.ids import parse_server_id, parse_uuid
from services.mesh.facts.envelope import parse_envelope
from services.mesh.proofs.making import naming_records, of_witnesses, proofs_value
from services.mesh.proofs.shapes import MAX_OBJECTS

if TYPE_CHECKING:
    from seipd.api.routes import Call, Reply
    from services.base.ledger.state import State

MAX_SERVERS = 8
MAX_NODES = MAX_OBJECTS - MAX_SERVERS

_Text = Annotated[str, msgspec.Meta(max_length=200)]


class ProofsRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of which servers and endpoints to prove what the state holds: those one may talk to."""

    servers: Annotated[list[_Text], msgspec.Meta(max_length=MAX_SERVERS)]
    nodes: Annotated[list[_Text], msgspec.Meta(max_length=MAX_NODES)]


async def _proofs(call: Call) -> Reply:
    """Prove objects of the newest state that the witnesses agree on, as it was then."""
    body: ProofsRequest = call.body
    ledger, agreed = call.services.ledger, call.services.mesh.agreed_state()
    if agreed is None:
        raise UnavailableError(
            "the witnesses agree on no state yet", code="no_agreed_state", mend="wait a minute"
        )
    word, envelopes = agreed
    state = await ledger.state_of(word)
    facts = [parse_envelope(data) for data in envelopes]
    wanted: list[tuple[str, str]] = [("roster", parse_server_id(text)) for text in body.servers]
    wanted += [("tree", parse_uuid(text)) for text in body.nodes]
    seen = [(view, key) for view, key in wanted if _may_see(call, state, view, key)]

    def make() -> dict[str, Any]:
        return proofs_value(
            state,
            seen,
            chain=shown_chain(ledger.charter),
            roster=naming_records(ledger.charter, word.roster_number),
            envelopes=of_witnesses(ledger.charter, word.roster_number, facts),
        )

    return await asyncio.to_thread(make)


def _may_see(call: Call, state: State, view: str, key: str) -> bool:
    """Say whether to prove an object to the caller.

    Nothing is proved to be absent: the leaf that would show it may be another customer's.
    """
    value = state.get(view, key)
    if value is None or view == "roster" or call.operator:
        return value is not None
    own_id = call.caller.node_id if call.caller is not None else None
    own = call.services.ledger.state.get("tree", own_id) if own_id else None
    if own_id is None or own is None:
        return False
    is_brother = key == own_id or value["parent"] == own["parent"]
    return is_brother or call.services.acl.may_meet(own_id, key)


async def _record(call: Call) -> Reply:
    node_id = call.match("node")
    if not call.operator and (call.caller is None or call.caller.node_id != node_id):
        raise NotFoundError(f"there is no node {node_id}")
    return await record_shown(call.services, node_id)


ROUTES = (
    Route(
        method="POST",
        path="/api/mesh/proofs",
        handler=_proofs,
        summary="Map proofs of servers and endpoints under a root that the witnesses signed",
        access=Access.MEMBER,
        body=ProofsRequest,
    ),
    Route(
        method="GET",
        path="/api/mesh/record/{node}",
        handler=_record,
        summary="The proof that the record by which the caller joined is in a log",
        access=Access.MEMBER,
    ),
)
