"""The signer process: hardened, one lock on its state, one socket, two calls."""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import grp
import logging
import os
import resource
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from seipd.signerd.core import KeyRow, KeyState, KeyTable, row_from_value
from seipd.signerd.providers.software import SoftwareProvider
from seipd.signerd.server import SigningServicer, serve
from services.base.keywrap.unlock import read_unlock
from services.base.storage.files import make_private_dir, read_private, write_atomic
from services.kernel import canonical
from services.kernel.errors import ConfigError, ConflictError, CorruptError
from services.kernel.signing import parse_key_id, parse_scope

if TYPE_CHECKING:
    from collections.abc import Sequence

    from seipd.signerd.providers.base import KeyProvider

logger = logging.getLogger(__name__)

CREDENTIAL = "seipd-signer-unlock"
MAX_TABLE_BYTES = 1 << 20
_PR_SET_DUMPABLE = 4


def harden() -> None:
    """Let nobody read this process: no core, no ptrace, no readable file."""
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def require_own_user(*, allow_same_user: bool) -> None:
    """Refuse to run as root, who is also the daemon's user in a trial.

    Raises:
        ConfigError: ``insecure_user``.
    """
    if os.geteuid() == 0 and not allow_same_user:
        raise ConfigError(
            "the signer does not run as root",
            code="insecure_user",
            mend="run it as the user seipd-signer, or say --allow-insecure-same-user for a trial",
        )


class SignerState:
    """The folder of a signer: its lock, its key rows, its sealed keys."""

    def __init__(self, folder: Path, unlock_file: Path | None) -> None:
        # The daemon's group may pass through to the socket, and list nothing.
        make_private_dir(folder, mode=0o710)
        self._folder = folder
        self._lock = (folder / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConflictError(
                f"another signer uses {folder}", code="locked", mend="end it first"
            ) from error
        credentials = os.environ.get("CREDENTIALS_DIRECTORY")
        unlock = read_unlock(unlock_file, Path(credentials) if credentials else None, CREDENTIAL)
        self.provider: KeyProvider = SoftwareProvider(folder / "keys", unlock=unlock)

    def table(self) -> KeyTable:
        """Return the key rows.

        Raises:
            CorruptError: the file is damaged.
        """
        path = self._folder / "keys.json"
        if not path.exists():
            return KeyTable(())
        value = canonical.decode_canonical(read_private(path, max_bytes=MAX_TABLE_BYTES))
        if not isinstance(value, list):
            raise CorruptError("keys.json is not a list", path="keys.json")
        return KeyTable(tuple(row_from_value(one) for one in value))

    def keygen(self, scope: str, key_id: str, purposes: Sequence[str]) -> KeyRow:
        """Make a key in this process, unless it is there; return its row."""
        table = self.table()
        for row in table.rows:
            if (row.scope, row.key_id) == (scope, key_id):
                return row
        handle = f"{parse_scope(scope)}/{parse_key_id(key_id)}"
        row = KeyRow(
            scope=scope,
            key_id=key_id,
            state=KeyState.ACTIVE,
            public_key=self.provider.generate(handle),
            purposes=tuple(purposes),
            handle=handle,
        )
        rows = [one.value() for one in (*table.rows, row)]
        write_atomic(self._folder / "keys.json", canonical.encode(rows))
        return row

    def close(self) -> None:
        """Forget the keys and give the lock back."""
        self.provider.close()
        self._lock.close()


async def run_signer(state: SignerState, socket: Path, group: str | None) -> int:
    """Serve until SIGTERM."""
    make_private_dir(socket.parent, mode=0o710)
    if group is not None:
        gid = _group_id(group)
        for folder in (socket.parent.parent, socket.parent):
            os.chown(folder, -1, gid)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    servicer = SigningServicer(table=state.table(), provider=state.provider)
    socket.unlink(missing_ok=True)
    async with serve(servicer, socket):
        socket.chmod(0o660 if group is not None else 0o600)
        if group is not None:
            os.chown(socket, -1, _group_id(group))
        logger.info("the signer is ready")
        await stop.wait()
    socket.unlink(missing_ok=True)
    return 0


def _group_id(name: str) -> int:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError as error:
        raise ConfigError(f"there is no group {name}", mend=f"groupadd --system {name}") from error
