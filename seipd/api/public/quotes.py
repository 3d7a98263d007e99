"""Another server asks this one's hardware to vouch for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from seipd.api.routes import Access, Route
from services.kernel.errors import ForbiddenError

if TYPE_CHECKING:
    from seipd.api.routes import Call, Reply


async def _challenge(call: Call) -> Reply:
    answer = await call.services.attestation.answer(call.body, asker=_asker(call))
    return web.Response(body=answer, content_type="application/json")


async def _device(call: Call) -> Reply:
    told = await call.services.certified_here.device(asker=_asker(call))
    return web.Response(body=told, content_type="application/json")


async def _credential(call: Call) -> Reply:
    told = await call.services.certified_here.open(call.body, asker=_asker(call))
    return web.Response(body=told, content_type="application/json")


def _asker(call: Call) -> bytes:
    if call.caller is None:
        raise ForbiddenError("a server of the mesh asks for quotes")
    return call.caller.key


ROUTES = (
    Route(
        method="POST",
        path="/api/attestation/challenge",
        handler=_challenge,
        summary="A nonce and this server's key in, a quote of its hardware with both in it out",
        access=Access.SERVER,
        is_text=True,
    ),
    Route(
        method="POST",
        path="/api/attestation/device",
        handler=_device,
        summary="The certificate of this TPM's endorsement key, and its attestation key",
        access=Access.SERVER,
        is_text=True,
    ),
    Route(
        method="POST",
        path="/api/attestation/credential",
        handler=_credential,
        summary="A credential for this TPM in, the secret in it out",
        access=Access.SERVER,
        is_text=True,
    ),
)
