"""Keys in files, sealed at rest by the signer's unlock secret."""

from __future__ import annotations

import hashlib
import secrets
from typing import TYPE_CHECKING, ClassVar

from seipd.signerd.providers.base import require_length
from services.base.crypto.kdf import DEFAULT_COST, Argon2Cost
from services.base.crypto.signatures import SigningKey, generate_signing_key
from services.base.keywrap.wrap import MAX_SEALED_BYTES, SEAL_RANDOM_BYTES, open_sealed, seal
from services.base.storage.files import (
    make_private_dir,
    read_private,
    storage_error,
    write_atomic,
)
from services.kernel.errors import NotFoundError
from services.kernel.signing import MAX_SIGNED_BYTES

if TYPE_CHECKING:
    from pathlib import Path

PURPOSE = "seipd/signer-key/v1"


class SoftwareProvider:
    """One sealed file a key; satisfies KeyProvider."""

    in_memory: ClassVar[bool] = True
    max_bytes: ClassVar[int] = MAX_SIGNED_BYTES

    def __init__(self, folder: Path, *, unlock: bytes, cost: Argon2Cost = DEFAULT_COST) -> None:
        self._folder = folder
        self._unlock = unlock
        self._cost = cost
        self._open: dict[str, SigningKey] = {}

    def generate(self, handle: str) -> bytes:
        """Make the key of a handle, unless it is there; return its public half.

        Raises:
            KeyUnwrapError: there is one, and the unlock secret is not the one it was sealed with.
            StorageError: the disk refused.
        """
        make_private_dir(self._folder)
        if not self._path(handle).exists():
            sealed = seal(
                generate_signing_key().seed,
                unlock=self._unlock,
                purpose=_purpose_of(handle),
                random=secrets.token_bytes(SEAL_RANDOM_BYTES),
                cost=self._cost,
            )
            # Whole or not at all: half a file would stand in the way of this key for good.
            write_atomic(self._path(handle), sealed)
        # Read back from the disk: a key that can't be opened again is found out now.
        return self._key(handle).public_key

    def public_key(self, handle: str) -> bytes:
        """Open a key and return its public half.

        Raises:
            NotFoundError: ``key_unknown``.
            KeyUnwrapError: the unlock secret is not the one it was sealed with.
        """
        return self._key(handle).public_key

    def sign(self, handle: str, data: bytes) -> bytes:
        """Return the 64 bytes of an Ed25519 signature.

        Raises:
            InputError: ``message_too_long``.
            NotFoundError: ``key_unknown``.
            KeyUnwrapError: the unlock secret is not the one it was sealed with.
        """
        require_length(data, self.max_bytes)
        return self._key(handle).sign(data)

    def destroy(self, handle: str) -> None:
        """Forget a key and remove its file.

        Raises:
            StorageError: the disk refused.
        """
        self._open.pop(handle, None)
        path = self._path(handle)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise storage_error(error, f"remove {path}") from error

    def close(self) -> None:
        """Forget the opened keys."""
        self._open.clear()

    def _key(self, handle: str) -> SigningKey:
        if handle not in self._open:
            try:
                sealed = read_private(self._path(handle), MAX_SEALED_BYTES)
            except NotFoundError as error:
                raise NotFoundError(
                    "the key's file is not there",
                    code="key_unknown",
                    mend="restore the folder keys, or give the --provider that has the key",
                ) from error
            seed = open_sealed(sealed, unlock=self._unlock, purpose=_purpose_of(handle))
            self._open[handle] = SigningKey(seed)
        return self._open[handle]

    def _path(self, handle: str) -> Path:
        # A handle holds a slash and a colon, and is long: its hash makes a plain name.
        name = hashlib.sha256(handle.encode()).hexdigest()[:32]
        return self._folder / f"{name}.key"


def _purpose_of(handle: str) -> str:
    # Bound to the handle: a sealed key copied over another key's file does not open.
    return f"{PURPOSE} {handle}"
