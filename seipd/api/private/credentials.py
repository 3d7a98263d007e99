"""Secrets for servers, over the operator's socket: names go out, values only in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from typing_extensions import override

from seipd.api.routes import Access, Route
from services.kernel.errors import InputError
from services.kernel.ids import b64u_decode

if TYPE_CHECKING:
    from seipd.api.routes import Call, Reply

MAX_AUDIT = 1000


class SetRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A name, and the value in base64url."""

    name: str
    value: str

    @override
    def __repr__(self) -> str:
        """Return a text without the value."""
        return f"SetRequest(name={self.name!r})"


class RemoveRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A name."""

    name: str


async def _list(call: Call) -> Reply:
    return {"secrets": call.services.secrets.shown()}


async def _set(call: Call) -> Reply:
    body: SetRequest = call.body
    return await call.services.secrets.set(body.name, b64u_decode(body.value))


async def _remove(call: Call) -> Reply:
    body: RemoveRequest = call.body
    return await call.services.secrets.remove(body.name)


async def _audit(call: Call) -> Reply:
    text = call.query("limit", "100")
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:6]) <= MAX_AUDIT:
        raise InputError(f"a limit is 1 to {MAX_AUDIT}")
    return {"entries": await call.services.secrets.audit(int(text))}


ROUTES = (
    Route(
        method="GET",
        path="/api/secrets",
        handler=_list,
        summary="The secrets for servers, without their values; which of them are here",
        access=Access.OPERATOR,
    ),
    Route(
        method="POST",
        path="/api/secrets",
        handler=_set,
        summary="Set a secret for the servers of tier 1, or another value of one",
        access=Access.OPERATOR,
        body=SetRequest,
    ),
    Route(
        method="POST",
        path="/api/secrets/remove",
        handler=_remove,
        summary="Remove a secret everywhere",
        access=Access.OPERATOR,
        body=RemoveRequest,
    ),
    Route(
        method="GET",
        path="/api/secrets/audit",
        handler=_audit,
        summary="Who asked this server for which secret, and what came of it",
        access=Access.OPERATOR,
    ),
)
