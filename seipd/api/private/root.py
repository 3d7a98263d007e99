"""The root key chain, and its next link."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import msgspec

from seipd.api.routes import Access, Route

if TYPE_CHECKING:
    from seipd.api.routes import Call, Reply

MAX_OVERLAP_S = 30 * 86_400


class RotateRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A rotation: how long what the key before has signed stays good, as set unless it is said."""

    overlap_seconds: Annotated[int, msgspec.Meta(ge=10, le=MAX_OVERLAP_S)] | None = None


async def _chain(call: Call) -> Reply:
    """Show the chain, and where it forks both links: whoever has both need believe nobody."""
    fork = call.services.ledger.charter.fork
    shown = fork and {
        "generation": fork.generation,
        "records": [one.value() for one in fork.records],
    }
    return {"chain": call.services.root_keys.describe(), "fork": shown}


async def _rotate(call: Call) -> Reply:
    body: RotateRequest = call.body
    overlap_s = body.overlap_seconds
    await call.services.rotation.rotate(overlap_ms=None if overlap_s is None else overlap_s * 1000)
    return {"chain": call.services.root_keys.describe()}


ROUTES = (
    Route(
        method="GET",
        path="/api/root/chain",
        handler=_chain,
        summary="The root key chain",
        access=Access.OPERATOR,
    ),
    Route(
        method="POST",
        path="/api/root/rotate",
        handler=_rotate,
        summary="Bring the next root key into force",
        access=Access.OPERATOR,
        body=RotateRequest,
    ),
)
