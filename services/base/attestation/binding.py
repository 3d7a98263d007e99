"""What a challenge asks to have in the quote: a hash over nonce, server key and platform.

TEEs have room for 64 bytes of report data and get SHA-512; a TPM may take no more than 32 bytes of
extra data and gets SHA-256. The platform stands in the hash so that no quote serves for another.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING

from services.base.attestation.errors import Refusal, refused
from services.base.attestation.verified import Platform

if TYPE_CHECKING:
    from services.base.attestation.verified import VerifiedQuote

NONCE_BYTES = 32

_PURPOSE = b"seipd/attestation/v1\0"


def binding(platform: Platform, *, nonce: bytes, server_key: bytes) -> bytes:
    """Return what must stand in the quote."""
    parts = (_PURPOSE, platform.value.encode(), b"\0", nonce, server_key)
    hashed = hashlib.sha256 if platform is Platform.TPM2 else hashlib.sha512
    return hashed(b"".join(parts)).digest()


def check_binding(quote: VerifiedQuote, *, nonce: bytes, server_key: bytes) -> None:
    """Check that a quote was made for this nonce and this key.

    Raises:
        QuoteRefusedError: ``quote_not_bound``.
    """
    wanted = binding(quote.platform, nonce=nonce, server_key=server_key)
    if not hmac.compare_digest(wanted, quote.bound):
        raise refused(Refusal.NOT_BOUND, "the quote was not made for this nonce and server key")
