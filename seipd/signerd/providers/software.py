"""Keys in files, sealed at rest by the signer's unlock secret."""

from __future__ import annotations

import hashlib
import secrets
from typing import TYPE_CHECKING

from services.base.crypto.signatures import SigningKey, generate_signing_key
from services.base.keywrap.wrap import MAX_SEALED_BYTES, SEAL_RANDOM_BYTES, open_sealed, seal
from services.base.storage.files import make_private_dir, read_private, write_atomic
from services.kernel.errors import NotFoundError

if TYPE_CHECKING:
    from pathlib import Path

_PURPOSE = "seipd/signer-key/v1"


class SoftwareProvider:
    """One sealed file a key; satisfies KeyProvider."""

    def __init__(self, folder: Path, *, unlock: bytes) -> None:
        make_private_dir(folder)
        self._folder = folder
        self._unlock = unlock
        self._open: dict[str, SigningKey] = {}

    def generate(self, handle: str) -> bytes:
        """Make the key of a handle, unless it is there; return its public half."""
        if not self._path(handle).exists():
            key = generate_signing_key()
            sealed = seal(
                key.seed,
                unlock=self._unlock,
                purpose=_PURPOSE,
                random=secrets.token_bytes(SEAL_RANDOM_BYTES),
            )
            write_atomic(self._path(handle), sealed)
        return self._key(handle).public_key

    def sign(self, handle: str, data: bytes) -> bytes:
        """Return the 64 bytes of an Ed25519 signature.

        Raises:
            NotFoundError: ``key_unknown``.
            KeyUnwrapError: the unlock secret is not the one it was sealed with.
        """
        return self._key(handle).sign(data)

    def close(self) -> None:
        """Forget the opened keys."""
        self._open.clear()

    def _key(self, handle: str) -> SigningKey:
        if handle not in self._open:
            path = self._path(handle)
            if not path.exists():
                raise NotFoundError("the key's file is not there", code="key_unknown")
            sealed = read_private(path, max_bytes=MAX_SEALED_BYTES)
            seed = open_sealed(sealed, unlock=self._unlock, purpose=_PURPOSE)
            self._open[handle] = SigningKey(seed)
        return self._open[handle]

    def _path(self, handle: str) -> Path:
        name = hashlib.sha256(handle.encode()).hexdigest()[:32]
        return self._folder / f"{name}.key"
