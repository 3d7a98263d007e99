"""Making records: the few lines between a wish and a signed record."""

from __future__ import annotations

import dataclasses
import secrets
from typing import TYPE_CHECKING, Any, Protocol

from services.kernel.records import PLATFORM, Record, draft_record

if TYPE_CHECKING:
    from services.kernel.clock import Clock
    from services.kernel.ids import MeshId
    from services.kernel.signing import Signer

RECORD_LIFETIME_MS = 3_600_000


class Key(Protocol):
    """An Ed25519 key that signs here."""

    @property
    def public_key(self) -> bytes:
        """The 32 bytes of the public half."""

    def sign(self, message: bytes) -> bytes:
        """Return the 64 bytes of a signature."""


class Author:
    """Signs records with one key of this process."""

    def __init__(self, *, key: Key, mesh_id: MeshId, clock: Clock) -> None:
        self._key = key
        self._mesh_id = mesh_id
        self._clock = clock

    @property
    def public_key(self) -> bytes:
        """Who is meant by ``actor``."""
        return self._key.public_key

    def record(self, kind: str, body: dict[str, Any], *, module: str = PLATFORM) -> Record:
        """Return a signed record with a fresh id, good for an hour."""
        draft = _draft(kind, body, self._key.public_key, self._clock, module)
        signature = self._key.sign(draft.signed_bytes(self._mesh_id))
        return dataclasses.replace(draft, actor_sig=signature)


async def sign_by_root(
    signer: Signer,
    *,
    kind: str,
    body: dict[str, Any],
    key_id: str,
    public_key: bytes,
    mesh_id: MeshId,
    clock: Clock,
) -> Record:
    """Return a record signed by a platform key of the signer process.

    Raises:
        UnavailableError: the signer does not answer.
        ForbiddenError: the signer refuses.
    """
    draft = _draft(kind, body, public_key, clock, PLATFORM)
    signature = await signer.sign(draft.signed_bytes(mesh_id), scope=PLATFORM, key_id=key_id)
    return dataclasses.replace(draft, actor_sig=signature)


def _draft(kind: str, body: dict[str, Any], actor: bytes, clock: Clock, module: str) -> Record:
    return draft_record(
        kind=kind,
        body=body,
        actor=actor,
        not_after=clock.now_ms() + RECORD_LIFETIME_MS,
        record_id=secrets.token_hex(16),
        module=module,
    )
