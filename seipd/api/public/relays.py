"""A community relay tells that it lives; it learns who of those that it carries for has left."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from seipd.api.routes import Access, Route
from services.edge.relaying.lifesigns import check_lifesign, parse_lifesign
from services.kernel.errors import NotFoundError

if TYPE_CHECKING:
    from seipd.api.routes import Call, Reply


class LifeRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A signed sign of life, see the protocol of relays."""

    sign: dict[str, Any]


async def _life(call: Call) -> Reply:
    body: LifeRequest = call.body
    services = call.services
    sign = parse_lifesign(body.sign)
    relay = services.relays.get(sign.relay)
    if relay is None or relay.server_id is not None:
        raise NotFoundError(
            "this relay is not registered",
            code="not_registered",
            mend="an operator types the line that seipd relay run prints",
        )
    check_lifesign(
        sign, services.ledger.mesh_id, relay_key=relay.key, now_ms=services.clock.now_ms()
    )
    services.relays.lifesigns.put(sign, services.clock.monotonic_s())
    services.relays.hurry()
    state = services.ledger.state
    gone = [key for key in sign.keys if state.get("wg", key) is None]
    return {"gone": gone, "state": relay.why_not or "usable"}


ROUTES = (
    Route(
        method="POST",
        path="/api/relay/life",
        handler=_life,
        summary="A registered relay lives; which of the keys it carries for have left",
        access=Access.ANYONE,
        body=LifeRequest,
    ),
)
