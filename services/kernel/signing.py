"""The signing service as its callers see it: two questions, and the names that they use."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Protocol

from services.kernel.errors import InputError
from services.kernel.ids import parse_uuid

PLATFORM_SCOPE = "platform"
DNSKEY_PURPOSE = "seipd/dnskey/v1"
"""For the one message whose beginning others have laid down: see ``purpose_head``."""
MAX_SIGNED_BYTES = 20 * 1024
MAX_SIGNATURES_PER_CALL = 32
"""Half of what a caller may wait for."""

_KEY_ID = re.compile(r"[A-Za-z0-9._~-]{1,128}\Z")
_NIL = "00000000-0000-0000-0000-000000000000"


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicKeyInfo:
    """The public half of a key, and how it stands."""

    public_key: bytes
    key_id: str
    state: str
    valid_from_ms: int = 0
    valid_until_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRotation:
    """Two keys of one scope, bound to a window in which both are advertised and both sign.

    Before ``opens_at_ms`` only the old one signs, from ``closes_at_ms`` on only the new one.
    """

    scope: str
    old_key_id: str
    new_key_id: str
    opens_at_ms: int
    closes_at_ms: int
    new_public_key: bytes


class Signer(Protocol):
    """Where private root and domain keys are, and nobody else has them."""

    async def sign(self, canonical_bytes: bytes, *, scope: str, key_id: str) -> bytes:
        """Return the 64 bytes of an Ed25519 signature over exactly these bytes.

        Raises:
            ForbiddenError: the key may not sign this (``purpose_refused``, ``key_retired``,
                ``wrong_scope``).
            InputError: ``message_too_long``: the key's provider takes less.
            NotFoundError: ``key_unknown``.
            UnavailableError: ``signer_unavailable``, ``provider_unavailable``.
        """

    async def public_key(self, *, scope: str, key_id: str) -> PublicKeyInfo:
        """Return the public half of a key.

        Raises:
            NotFoundError: ``key_unknown``.
            UnavailableError: ``signer_unavailable``.
        """


class RotatingSigner(Signer, Protocol):
    """A signer on this machine: one that can be asked for a successor of a key."""

    async def rotate(
        self,
        *,
        scope: str,
        old_key_id: str,
        new_key_id: str,
        opens_at_ms: int,
        closes_at_ms: int,
    ) -> KeyRotation:
        """Have the successor of a key made, for the same purposes; return the rotation.

        Asked again for the same two keys, it returns the rotation that there is, with its window.

        Raises:
            ConflictError: ``rotation_in_progress``: one of the two is in another rotation;
                ``key_exists``: the new name is taken.
            ForbiddenError: ``key_retired``.
            InputError: ``wrong_scope``, ``bad_key_id``, ``bad_window``.
            NotFoundError: ``key_unknown``: there is no old key.
            UnavailableError: ``signer_unavailable``, ``provider_unavailable``.
        """


def purpose_head(purpose: str) -> bytes:
    """Return how bytes begin that are signed for a purpose: with its name and a zero byte.

    An RRSIG over DNSKEY begins with that type, and Ed25519's number (RFC 4034 section 3.1): no name
    of a purpose does, and no RRSIG over anything else.
    """
    return b"\0\x30\x0f" if purpose == DNSKEY_PURPOSE else f"{purpose}\0".encode()


def parse_scope(text: str) -> str:
    """Check a scope: ``platform`` or ``domain:<uuid>``.

    Raises:
        InputError: ``wrong_scope``.
    """
    prefix, colon, domain = text.partition(":")
    if text == PLATFORM_SCOPE:
        return text
    if prefix == "domain" and colon and domain != _NIL:
        try:
            parse_uuid(domain)
        except InputError as error:
            raise InputError(f"a domain's scope: {error}", code="wrong_scope") from error
        return text
    raise InputError("a scope is platform or domain:<uuid>", code="wrong_scope")


def parse_key_id(text: str) -> str:
    """Check a key id.

    Raises:
        InputError: ``bad_key_id``.
    """
    if not _KEY_ID.match(text):
        raise InputError("a key id is 1 to 128 of A-Z a-z 0-9 . _ ~ -", code="bad_key_id")
    return text
