"""A feed goes on in a new epoch: a server asks for the root's word, or for the roster."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from seipd.api.routes import Access, Route
from services.base.ledger.changes import EpochEnd
from services.kernel.errors import ForbiddenError, InputError
from services.kernel.ids import ServerId, parse_key

if TYPE_CHECKING:
    from seipd.api.routes import Call, Reply

MAX_CHANGES = 64
MAX_DIGITS = 9


class EpochRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the feed of the server that asks ends: its epoch, its size, and the root over it."""

    epoch: int
    size: int
    root: str


async def _end_epoch(call: Call) -> Reply:
    body: EpochRequest = call.body
    if call.caller is None or call.caller.server_id is None:
        raise ForbiddenError("a server asks for its own feed")
    if not 1 <= body.epoch < 1 << 32 or not 0 <= body.size < 1 << 48:
        raise InputError("epoch or size is out of range")
    end = EpochEnd(
        server_id=ServerId(call.caller.server_id), size=body.size, root=parse_key(body.root)
    )
    await call.services.root_keys.end_epoch(end, body.epoch)
    return await _roster(call)


async def _roster(call: Call) -> Reply:
    return {"charter": [one.value() for one in call.services.ledger.charter.records]}


async def _changes(call: Call) -> Reply:
    """Return some changes after a number: who was revoked learns so, whom nobody talks to."""
    text = call.match("number")
    if not text.isascii() or not text.isdigit() or len(text) > MAX_DIGITS:
        raise InputError("a roster has a number")
    # The first record is the genesis, and the change with number n comes n-th after it.
    after = int(text) + 1
    records = call.services.ledger.charter.records[after : after + MAX_CHANGES]
    return {"charter": [one.value() for one in records]}


ROUTES = (
    Route(
        method="GET",
        path="/api/servers/changes/{number}",
        handler=_changes,
        summary="The next changes of the roster after a number, as the root signed them",
        access=Access.ANYONE,
    ),
    Route(
        method="POST",
        path="/api/servers/epoch",
        handler=_end_epoch,
        summary="A restored server asks the root to let its feed go on; the roster comes back",
        access=Access.SERVER,
        body=EpochRequest,
    ),
    Route(
        method="GET",
        path="/api/servers/charter",
        handler=_roster,
        summary="The genesis and every change of the roster, as the root signed them",
        access=Access.SERVER,
    ),
)
