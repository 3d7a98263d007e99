r"""This server's zone signing key at rest, sealed under a key that follows from its identity.

    dns/zone_key.enc = nonce, 24 || XChaCha20-Poly1305 of the Ed25519 seed
    key = HKDF-SHA-256(identity seed, salt mesh id, info "seipd/dns-zone-key/v1"), 32 bytes

A lost or damaged one is made anew: it is announced, and signs once it is published.
"""

from __future__ import annotations

import logging
import secrets
from typing import TYPE_CHECKING, Final

from services.base.crypto import aead
from services.base.crypto.kdf import hkdf_sha256
from services.base.crypto.signatures import SEED_BYTES, SigningKey, generate_signing_key
from services.base.storage import files
from services.kernel.errors import NotFoundError, WireError

if TYPE_CHECKING:
    from pathlib import Path

    from services.kernel.ids import MeshId

logger = logging.getLogger(__name__)

_PURPOSE: Final = b"seipd/dns-zone-key/v1"
_FILE_BYTES: Final = aead.XCHACHA20_NONCE_BYTES + SEED_BYTES + aead.TAG_BYTES


def load_zone_key(path: Path, *, seed: bytes, mesh_id: MeshId) -> SigningKey:
    """Return the key; it is made where there is none.

    Raises:
        KeyPermissionsError: others can read or replace the file.
        StorageError: the disk refused.
    """
    sealing_key = hkdf_sha256(seed, salt=bytes.fromhex(mesh_id), info=_PURPOSE, length=32)
    try:
        return SigningKey(_opened(files.read_private(path, _FILE_BYTES), sealing_key))
    except NotFoundError:
        logger.info("a new zone signing key is made")
    except WireError as error:
        logger.warning("%s does not open, a new key is made: %s", path, error)
    key = generate_signing_key()
    nonce = secrets.token_bytes(aead.XCHACHA20_NONCE_BYTES)
    files.make_private_dir(path.parent)
    files.write_atomic(path, nonce + aead.xchacha20_encrypt(sealing_key, nonce, key.seed, _PURPOSE))
    return key


def _opened(data: bytes, sealing_key: bytes) -> bytes:
    if len(data) != _FILE_BYTES:
        raise WireError("a file of another length")
    nonce, sealed = data[: aead.XCHACHA20_NONCE_BYTES], data[aead.XCHACHA20_NONCE_BYTES :]
    return aead.xchacha20_decrypt(sealing_key, nonce, sealed, _PURPOSE)
