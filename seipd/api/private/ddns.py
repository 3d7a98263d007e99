"""Dynamic DNS: where this server's address is written down."""

from __future__ import annotations

from typing import TYPE_CHECKING

from seipd.api.routes import Access, Route

if TYPE_CHECKING:
    from seipd.api.routes import Call, Reply


async def _status(call: Call) -> Reply:
    return call.services.ddns.status()


async def _update(call: Call) -> Reply:
    return await call.services.ddns.update()


ROUTES = (
    Route(
        method="GET",
        path="/api/ddns/status",
        handler=_status,
        summary="Which address stands at which name elsewhere",
        access=Access.OPERATOR,
    ),
    Route(
        method="POST",
        path="/api/ddns/update",
        handler=_update,
        summary="Tell the address now",
        access=Access.OPERATOR,
    ),
)
