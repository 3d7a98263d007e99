"""The folder of a signer: one lock, the key rows, the sealed keys.

lock         held while a signer, or a command that changes keys, is at work
keys.json    the rows: public halves, purposes, states; canonical JSON
keys/        one sealed file a key
audit/       a log of tiles each month: what was asked, and how it ended
audit.key    the key that signs the audit, and nothing else
run/         the socket
"""

from __future__ import annotations

import fcntl
import os
import threading
from typing import TYPE_CHECKING

from seipd.signerd.core import KeyTable, handle_of, table_from_value
from seipd.signerd.rows import KeyRow, KeyState, Rotation, parse_purposes
from services.base.storage.files import (
    make_private_dir,
    read_private,
    storage_error,
    sweep_temporaries,
    write_atomic,
)
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
AUDIT_FOLDER = "audit"
FOLDER_MODE = 0o710
"""The daemon's group passes through to the socket, and lists nothing."""
MAX_TABLE_BYTES = 4 << 20


class SignerState:
    """The keys of a signer; one process at a time has them."""

    def __init__(self, folder: Path, provider: KeyProvider) -> None:
        self._folder = folder
        self._lock: int | None = None
        self._changing = threading.RLock()
        self._swapping = threading.Lock()
        self._current: KeyTable | None = None
        self._written: KeyTable | None = None
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
        # Of keys, too: what a signer left that ended while it wrote.
        sweep_temporaries(self._folder)

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
            return table_from_value(canonical.decode_canonical(data))
        except (InputError, WireError) as error:
            raise CorruptError(
                f"{self._folder / KEYS_FILE}: {error}",
                path=KEYS_FILE,
                mend="restore it and the folder keys from one backup",
            ) from error

    def table_at(self, now_ms: int) -> KeyTable:
        """Return the rows as they stand at a time, from memory; ``advance`` writes them down.

        Raises:
            CorruptError: at the first call: the file is damaged.
        """
        with self._swapping:
            if self._current is None:
                self._current = self._written = self.table()
            self._current = self._current.advanced(now_ms)
            return self._current

    def is_behind(self, now_ms: int) -> bool:
        """Say whether time has changed what is not written down; see ``table_at``."""
        return self.table_at(now_ms) is not self._written

    def check(self, *, now_ms: int = 0) -> KeyTable:
        """Open every key that may still sign and compare it with its row; return the rows.

        One whose window has closed by now need not be there any more: nobody wrote that down
        where the signer was off since, or has run on.

        Raises:
            CorruptError: ``key_mismatch``: a row and its private key are not one pair.
            KeyUnwrapError: the unlock secret is not the one they were sealed with.
        """
        table = self.table()
        for row in table.advanced(now_ms).rows:
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

    def keygen(
        self, scope: str, key_id: str, purposes: Sequence[str], *, now_ms: int = 0
    ) -> KeyRow:
        """Make a key in this process, unless it is there; return its row.

        Raises:
            InputError: ``wrong_scope``, ``bad_key_id`` or ``bad_purpose``.
            ConflictError: ``key_exists``: it is there, with other purposes.
            KeyUnwrapError: the unlock secret is not that of the keys that are there.
        """
        handle, wanted = handle_of(scope, key_id), parse_purposes(tuple(purposes))
        with self._changing:
            self.check()
            table = self.table_at(now_ms)
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
                    valid_from_ms=now_ms,
                )
                self._save(table.with_key(row))
        if row.purposes != wanted:
            raise ConflictError(
                f"the key {key_id} of {scope} is there, for {', '.join(row.purposes)}",
                code="key_exists",
                mend="choose another --key-id",
            )
        return row

    def rotate(self, wanted: Rotation, *, now_ms: int) -> tuple[Rotation, KeyRow]:
        """Make the successor of a key and bind the two to a window; return it and the new key.

        Asked again for the same two keys it returns the rotation that there is: who asked and was
        cut off asks again.

        Raises:
            ConflictError: ``rotation_in_progress`` or ``key_exists``.
            ForbiddenError: ``key_retired``.
            InputError: ``bad_window``: it is over already.
            NotFoundError: ``key_unknown``.
            SeipdError: the provider can't make a key.
        """
        with self._changing:
            table = self.table_at(now_ms)
            found = table.rotation_of(wanted.scope, wanted.old_key_id, wanted.new_key_id)
            if found is None:
                table.check_rotation(wanted, now_ms=now_ms)
                made = self.provider.generate(handle_of(wanted.scope, wanted.new_key_id))
                table = table.with_rotation(wanted, made, now_ms=now_ms)
                self._save(table)
                found = wanted
            return found, table.find(found.scope, found.new_key_id)

    def retire(self, scope: str, key_id: str, *, now_ms: int) -> KeyRow:
        """Let a key sign no more, whatever its window; return its row.

        Raises:
            InputError: ``wrong_scope`` or ``bad_key_id``.
            NotFoundError: ``key_unknown``.
        """
        with self._changing:
            table = self.table_at(now_ms).retired(scope, key_id, now_ms=now_ms)
            self._save(table)
            self._destroy_retired(table)
        return table.find(scope, key_id)

    def advance(self, now_ms: int) -> KeyTable:
        """Write down what the time has changed, destroy what is retired; return the table.

        Raises:
            CorruptError: the file is damaged.
            StorageError: the disk refused.
        """
        with self._changing:
            # Of memory, not of the disk: what was over once is so, though the clock went back.
            table = self.table_at(now_ms)
            if table is not self._written:
                self._save(table)
            self._destroy_retired(table)
            return table

    def _destroy_retired(self, table: KeyTable) -> None:
        # Only once the rows say so: whoever was cut off between the two does it at the next start.
        for row in table.rows:
            if row.state is KeyState.RETIRED:
                self.provider.destroy(row.handle)

    def close(self) -> None:
        """Forget the keys and give the lock back; may be called twice."""
        self.provider.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _save(self, table: KeyTable) -> None:
        write_atomic(self._folder / KEYS_FILE, canonical.encode(table.value()))
        with self._swapping:
            self._current = self._written = table
