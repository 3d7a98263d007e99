"""The signing service as its callers see it: two questions, and the names that they use."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Protocol

from services.kernel.errors import InputError
from services.kernel.ids import parse_uuid

PLATFORM_SCOPE = "platform"
MAX_SIGNED_BYTES = 20 * 1024

_KEY_ID = re.compile(r"[A-Za-z0-9._~-]{1,128}\Z")
_NIL = "00000000-0000-0000-0000-000000000000"


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicKeyInfo:
    """The public half of a key, and how it stands."""

    public_key: bytes
    key_id: str
    state: str


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
