"""The recovery key: who holds shares of it, and what each said of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from seipd.api.routes import Access, Route

if TYPE_CHECKING:
    from seipd.api.routes import Call, Reply


async def _shares(call: Call) -> Reply:
    return call.services.recovery.describe()


async def _deal(call: Call) -> Reply:
    return await call.services.recovery.deal()


ROUTES = (
    Route(
        method="GET",
        path="/api/root/shares",
        handler=_shares,
        summary="Who holds shares of the recovery key, and what each said of its share",
        access=Access.OPERATOR,
    ),
    Route(
        method="POST",
        path="/api/root/shares",
        handler=_deal,
        summary="Deal a new recovery key now, where the root key is",
        access=Access.OPERATOR,
    ),
)
