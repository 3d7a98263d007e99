"""Another server asks this one's hardware to vouch for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from seipd.api.routes import Access, Route
from services.kernel.errors import ForbiddenError

if TYPE_CHECKING:
    from seipd.api.routes import Call, Reply


async def _challenge(call: Call) -> Reply:
    if call.caller is None:
        raise ForbiddenError("a server of the mesh asks for quotes")
    answer = await call.services.attestation.answer(call.body, asker=call.caller.key)
    return web.Response(body=answer, content_type="application/json")


ROUTES = (
    Route(
        method="POST",
        path="/api/attestation/challenge",
        handler=_challenge,
        summary="A nonce and this server's key in, a quote of its hardware with both in it out",
        access=Access.SERVER,
        is_text=True,
    ),
)
