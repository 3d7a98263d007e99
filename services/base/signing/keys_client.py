"""Asks a signer on this machine to make and rotate keys, and what it has and did."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.base.signing import keys_wire as wire
from services.base.signing.asking import R, ask, unix_address
from services.kernel.errors import (
    ConflictError,
    ForbiddenError,
    InputError,
    NotFoundError,
    SeipdError,
    UnavailableError,
)
from services.kernel.ids import parse_key
from services.kernel.signing import KeyRotation

if TYPE_CHECKING:
    from services.base.signing.recovery_wire import Message

TIMEOUT_S = 60.0
"""Making a key takes a token, or the sealing of a file, its time."""

_REFUSALS: dict[str, type[SeipdError]] = {
    "key_unknown": NotFoundError,
    "key_retired": ForbiddenError,
    "key_exists": ConflictError,
    "rotation_in_progress": ConflictError,
    "bad_window": InputError,
    "bad_rotation": InputError,
    "bad_key_id": InputError,
    "bad_purpose": InputError,
    "wrong_scope": InputError,
    "provider_unavailable": UnavailableError,
    "audit_unavailable": UnavailableError,
    "no_audit": NotFoundError,
}


class GrpcKeys:
    """Reaches a signer at the path of its socket."""

    def __init__(self, socket: str) -> None:
        self._address = unix_address(socket)

    async def make(self, *, scope: str, key_id: str, purposes: list[str]) -> wire.KeyWire:
        """Have a key made, unless it is there.

        Raises:
            ConflictError: ``key_exists``: it is there, with other purposes.
            InputError: ``wrong_scope``, ``bad_key_id`` or ``bad_purpose``.
            UnavailableError: ``signer_unavailable``, ``provider_unavailable``.
        """
        request = wire.MakeRequest(scope=scope, key_id=key_id, purposes=purposes)
        return await self._ask("Make", request, wire.KeyWire)

    async def rotate(
        self, *, scope: str, old_key_id: str, new_key_id: str, opens_at_ms: int, closes_at_ms: int
    ) -> KeyRotation:
        """Have the successor of a key made; see RotatingSigner.

        Raises:
            ConflictError: ``rotation_in_progress`` or ``key_exists``.
            ForbiddenError: ``key_retired``.
            InputError: ``wrong_scope``, ``bad_key_id``, ``bad_window``.
            NotFoundError: ``key_unknown``.
            UnavailableError: ``signer_unavailable``, ``provider_unavailable``.
        """
        request = wire.RotateRequest(
            scope=scope,
            old_key_id=old_key_id,
            new_key_id=new_key_id,
            opens_at_ms=opens_at_ms,
            closes_at_ms=closes_at_ms,
        )
        reply = await self._ask("Rotate", request, wire.RotateReply)
        return KeyRotation(
            scope=scope,
            old_key_id=old_key_id,
            new_key_id=new_key_id,
            opens_at_ms=reply.opens_at_ms,
            closes_at_ms=reply.closes_at_ms,
            new_public_key=parse_key(reply.new_public_key),
        )

    async def keys(self, scope: str = "") -> list[wire.KeyWire]:
        """Return the keys of a scope, or of all.

        Raises:
            UnavailableError: ``signer_unavailable``.
        """
        return (await self._ask("List", wire.ListRequest(scope=scope), wire.ListReply)).keys

    async def audit(self, *, month: str = "", first: int = 0, count: int = 100) -> wire.AuditReply:
        """Return entries of the signer's audit.

        Raises:
            NotFoundError: ``no_audit``: of that month there is none.
            UnavailableError: ``signer_unavailable``.
        """
        request = wire.AuditRequest(month=month, first=first, count=count)
        return await self._ask("Audit", request, wire.AuditReply)

    async def _ask(self, call: str, request: Message, kind: type[R]) -> R:
        return await ask(
            self._address,
            f"{wire.SERVICE}/{call}",
            request,
            kind,
            refusals=_REFUSALS,
            timeout_s=TIMEOUT_S,
        )
