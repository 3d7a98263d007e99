"""The folder of a signer: one lock, the key rows, the sealed keys.

lock         held while a signer, or a command that changes keys, is at work
keys.json    the rows: public halves, purposes, states; canonical JSON
keys/        one sealed file a key
run/         the socket
"""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

from seipd.signerd.core import (
    KeyRow,
    KeyState,
    KeyTable,
    handle_of,
    parse_purposes,
    row_from_value,
)
from services.base.storage.files import make_private_dir, read_private, storage_error, write_atomic
from services.kernel import canonical
from services.kernel.errors import (
    ConflictError,
    CorruptError,
    InputError,
    NotFoundError,
    WireError,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from seipd.signerd.providers.base import KeyProvider

KEYS_FILE = "keys.json"
FOLDER_MODE = 0o710
"""The daemon's group passes through to the socket, and lists nothing."""
MAX_TABLE_BYTES = 1 << 20


class SignerState:
    """The keys of a signer; one process at a time has them."""

    def __init__(self, folder: Path, provider: KeyProvider) -> None:
        self._folder = folder
        self._lock: int | None = None
        self.provider = provider

    def open(self) -> None:
        """Make the folder and take the lock.

        Raises:
            ConflictError: ``locked``: another signer has it.
            KeyPermissionsError: the folder is another user's.
            StorageError: the disk refused.
        """
        make_private_dir(self._folder, mode=FOLDER_MODE)
        path = self._folder / "lock"
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            lock = os.open(path, flags, 0o600)
        except OSError as error:
            raise storage_error(error, f"open {path}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(lock)
            raise ConflictError(
                f"another signer uses {self._folder}", code="locked", mend="end it first"
            ) from error
        self._lock = lock

    def table(self) -> KeyTable:
        """Return the key rows.

        Raises:
            CorruptError: the file is damaged.
            KeyPermissionsError: others can replace it.
        """
        try:
            data = read_private(self._folder / KEYS_FILE, MAX_TABLE_BYTES)
        except NotFoundError:
            return KeyTable(())
        try:
            value = canonical.decode_canonical(data)
            if not isinstance(value, list):
                raise InputError("not a list")
            return KeyTable(tuple(row_from_value(one) for one in value))
        except (InputError, WireError) as error:
            raise CorruptError(
                f"{self._folder / KEYS_FILE}: {error}",
                path=KEYS_FILE,
                mend="restore it and the folder keys from one backup",
            ) from error

    def check(self) -> KeyTable:
        """Open every key that may still sign and compare it with its row; return the rows.

        Raises:
            CorruptError: ``key_mismatch``: a row and its private key are not one pair.
            KeyUnwrapError: the unlock secret is not the one they were sealed with.
        """
        table = self.table()
        for row in table.rows:
            if row.state is KeyState.RETIRED:
                continue
            if self.provider.public_key(row.handle) != row.public_key:
                raise CorruptError(
                    f"the key {row.key_id} of {row.scope} is not the one in {KEYS_FILE}",
                    path=KEYS_FILE,
                    code="key_mismatch",
                    mend="restore it and the folder keys from one backup",
                )
        return table

    def keygen(self, scope: str, key_id: str, purposes: Sequence[str]) -> KeyRow:
        """Make a key in this process, unless it is there; return its row.

        Raises:
            InputError: ``wrong_scope``, ``bad_key_id`` or ``bad_purpose``.
            ConflictError: ``key_exists``: it is there, with other purposes.
            KeyUnwrapError: the unlock secret is not that of the keys that are there.
        """
        handle, wanted = handle_of(scope, key_id), parse_purposes(tuple(purposes))
        table = self.check()
        try:
            row = table.find(scope, key_id)
        except NotFoundError:
            row = KeyRow(
                scope=scope,
                key_id=key_id,
                state=KeyState.ACTIVE,
                public_key=self.provider.generate(handle),
                purposes=wanted,
                handle=handle,
            )
            self._save(table.with_key(row))
        if row.purposes != wanted:
            raise ConflictError(
                f"the key {key_id} of {scope} is there, for {', '.join(row.purposes)}",
                code="key_exists",
                mend="choose another --key-id",
            )
        return row

    def move(self, scope: str, key_id: str, state: KeyState) -> KeyRow:
        """Bring a key into another state; return its row.

        Raises:
            NotFoundError: ``key_unknown``.
            ConflictError: ``bad_transition``.
        """
        table = self.table().with_state(scope, key_id, state)
        self._save(table)
        return table.find(scope, key_id)

    def close(self) -> None:
        """Forget the keys and give the lock back; may be called twice."""
        self.provider.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _save(self, table: KeyTable) -> None:
        rows = [row.value() for row in table.rows]
        write_atomic(self._folder / KEYS_FILE, canonical.encode(rows))
