"""The keys of a relay that follow from its identity. Pure."""

from __future__ import annotations

from typing import Final

from services.base.crypto.kdf import hkdf_sha256

_BOX_INFO: Final = b"seipd/relay-box/v1"


def box_private_key(seed: bytes) -> bytes:
    """Return the X25519 key with which a relay is spoken to, of its Ed25519 seed."""
    return hkdf_sha256(seed, salt=b"", info=_BOX_INFO, length=32)
