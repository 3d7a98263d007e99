"""Another server asks for a secret; it is given sealed to that server, if it is in tier 1."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from seipd.api.routes import Access, Route
from services.authority.serversecrets.messages import meant_in
from services.kernel.errors import ForbiddenError
from services.kernel.ids import ServerId, b64u_encode

if TYPE_CHECKING:
    from seipd.api.routes import Call, Reply


class SecretRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which secret, as ``secret.set`` names it."""

    name: str
    version: int
    commitment: str


async def _request(call: Call) -> Reply:
    if call.caller is None or call.caller.server_id is None:
        raise ForbiddenError("a server of the mesh asks for secrets")
    body: SecretRequest = call.body
    sealed = await call.services.secrets.hand_out(
        ServerId(call.caller.server_id), meant_in(msgspec.structs.asdict(body))
    )
    return {"sealed": b64u_encode(sealed)}


ROUTES = (
    Route(
        method="POST",
        path="/api/servers/secrets",
        handler=_request,
        summary="A secret, sealed to the server of tier 1 that asks",
        access=Access.SERVER,
        body=SecretRequest,
    ),
)
