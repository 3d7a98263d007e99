r"""Secrets at rest: a file each, sealed under a key that follows from this server's identity.

    secrets/<commitment, hex>.enc = nonce, 24 || XChaCha20-Poly1305 of salt || value
    key = HKDF-SHA-256(identity seed, salt mesh id, info "seipd/secrets-at-rest/v1"), 32 bytes
    associated data: "seipd/secrets-at-rest/v1\0" || commitment

The identity lies sealed under the unlock secret, which is not in the data root: so do these.
"""

from __future__ import annotations

import logging
import secrets
from typing import TYPE_CHECKING, Final

from services.authority.serversecrets.messages import (
    MAX_VALUE_BYTES,
    SALT_BYTES,
    unpack_secret,
)
from services.base.crypto import aead
from services.base.crypto.kdf import hkdf_sha256
from services.base.storage import files
from services.kernel.errors import NotFoundError, WireError

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from services.authority.serversecrets.messages import Meant, Secret
    from services.kernel.ids import MeshId

logger = logging.getLogger(__name__)

_PURPOSE: Final = b"seipd/secrets-at-rest/v1"
_MAX_FILE_BYTES: Final = aead.XCHACHA20_NONCE_BYTES + aead.TAG_BYTES + SALT_BYTES + MAX_VALUE_BYTES


class SecretStore:
    """The secrets that this server holds. The methods block."""

    def __init__(self, *, folder: Path, seed: bytes, mesh_id: MeshId) -> None:
        self._folder = folder
        self._mesh_id = mesh_id
        self._key = hkdf_sha256(seed, salt=bytes.fromhex(mesh_id), info=_PURPOSE, length=32)

    def put(self, secret: Secret) -> None:
        """Keep a secret; durable on return.

        Raises:
            StorageError: the disk refused.
        """
        files.make_private_dir(self._folder)
        nonce = secrets.token_bytes(aead.XCHACHA20_NONCE_BYTES)
        packed = secret.salt + secret.value
        sealed = aead.xchacha20_encrypt(self._key, nonce, packed, _aad(secret.meant))
        files.write_atomic(self._path(secret.meant), nonce + sealed)

    def get(self, meant: Meant) -> Secret | None:
        """Return a secret; None where it is not here, or its file is damaged.

        Raises:
            KeyPermissionsError: others can read or replace the file.
            StorageError: the disk refused.
        """
        try:
            data = files.read_private(self._path(meant), _MAX_FILE_BYTES)
        except NotFoundError:
            return None
        nonce, sealed = (
            data[: aead.XCHACHA20_NONCE_BYTES],
            data[aead.XCHACHA20_NONCE_BYTES :],
        )
        try:
            if len(nonce) != aead.XCHACHA20_NONCE_BYTES:
                raise WireError("a file cut short")
            packed = aead.xchacha20_decrypt(self._key, nonce, sealed, _aad(meant))
            return unpack_secret(self._mesh_id, meant, packed)
        except WireError as error:
            logger.warning("the file of secret %s does not open: %s", meant.name, error)
            return None

    def keep_only(self, meant: Collection[Meant]) -> None:
        """Remove every other secret.

        Raises:
            StorageError: the disk refused.
        """
        wanted = {self._path(one).name for one in meant}
        gone = [one for one in self._folder.glob("*.enc") if one.name not in wanted]
        try:
            for path in gone:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise files.storage_error(error, "remove a secret") from error
        if gone:
            files.fsync_dir(self._folder)

    def _path(self, meant: Meant) -> Path:
        return self._folder / f"{meant.commitment.hex()}.enc"


def _aad(meant: Meant) -> bytes:
    return _PURPOSE + b"\0" + meant.commitment
