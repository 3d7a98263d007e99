"""Challenge and answer with an Ed25519 key of the mesh."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from seipd.api.routes import Access, Route
from services.edge.auth.sessions import SESSION_LIFETIME_S
from services.kernel.errors import InputError
from services.kernel.ids import b64u_decode, b64u_encode, parse_key, parse_signature

if TYPE_CHECKING:
    from seipd.api.routes import Call, Reply


class ChallengeRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Nothing: a challenge is for whoever asks."""


class AuthRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The key, the nonce that it was given, and its signature over both sides' names."""

    key: str
    nonce: str
    signature: str


async def _challenge(call: Call) -> Reply:
    ledger = call.services.ledger
    return {
        "nonce": b64u_encode(call.services.auth.challenge()),
        "server_id": ledger.server_id,
        "mesh_id": ledger.mesh_id,
        "now_ms": call.services.clock.now_ms(),
    }


async def _answer(call: Call) -> Reply:
    body: AuthRequest = call.body
    if len(body.nonce) > 128:
        raise InputError("the nonce is too long")
    token = call.services.auth.answer(
        key=parse_key(body.key),
        nonce=b64u_decode(body.nonce),
        signature=parse_signature(body.signature),
    )
    return {"token": token, "expires_in_seconds": SESSION_LIFETIME_S}


ROUTES = (
    Route(
        method="POST",
        path="/api/auth/challenge",
        handler=_challenge,
        summary="A nonce to sign",
        access=Access.ANYONE,
        body=ChallengeRequest,
    ),
    Route(
        method="POST",
        path="/api/auth",
        handler=_answer,
        summary="The signed nonce in, a session token out",
        access=Access.ANYONE,
        body=AuthRequest,
    ),
)
