"""The signer at work: one socket that only its group reaches, until SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import grp
import logging
import os
import signal
from typing import TYPE_CHECKING, NoReturn

from seipd.signerd.auditing import Asked
from seipd.signerd.auditlog import AuditLog, AuditWriter, audit_key
from seipd.signerd.clock import GuardedClock
from seipd.signerd.desk import Caller, Desk
from seipd.signerd.keycalls import KeyDesk, key_handlers
from seipd.signerd.lifecycle import make_room, tell_systemd
from seipd.signerd.recovery import RecoveryDesk, recovery_handlers
from seipd.signerd.server import AuditedHandler, SigningServicer, serve
from seipd.signerd.state import AUDIT_FOLDER, FOLDER_MODE
from services.base.storage.files import make_private_dir
from services.kernel.errors import ConfigError, SeipdError
from services.runtime.clock import SystemClock
from services.runtime.tasks import TaskOwner

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from seipd.signerd.listening import Listening
    from seipd.signerd.server import Context
    from seipd.signerd.state import SignerState

logger = logging.getLogger(__name__)

MAX_SOCKET_PATH_BYTES = 107
KEEP_ROWS_S = 5.0


async def run_signer(
    state: SignerState,
    *,
    folder: Path,
    socket: Path,
    group: str | None,
    listening: Listening | None = None,
) -> None:
    """Serve until SIGTERM.

    Raises:
        ConfigError: the socket can't be made, or not be given to that group.
        CorruptError: a key is not the one of its row.
        KeyUnwrapError: the unlock secret is not the one the keys were sealed with.
    """
    if len(os.fsencode(socket)) > MAX_SOCKET_PATH_BYTES:
        raise ConfigError(
            f"the socket's path is longer than {MAX_SOCKET_PATH_BYTES} bytes",
            code="bad_socket",
            mend="choose a shorter --state or --socket",
        )
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    make_private_dir(socket.parent, mode=FOLDER_MODE)
    async with working_desk(state, folder=folder) as (desk, keys):
        await _check_keys(state, desk)
        make_room(socket)
        servicer = SigningServicer(desk, local_caller)
        others = [
            key_handlers(keys, desk, local_caller),
            AuditedHandler(recovery_handlers(RecoveryDesk(folder)), desk, local_caller),
        ]
        async with serve(servicer, socket, others=others):
            socket.chmod(0o600)
            if group is not None:
                _give_to_group(group, folder=folder, socket=socket)
            async with _peers(desk, listening):
                tell_systemd("READY=1")
                logger.info("the signer is ready", extra={"keys_count": len(state.table().rows)})
                await stop.wait()
                tell_systemd("STOPPING=1")
    socket.unlink(missing_ok=True)


async def _check_keys(state: SignerState, desk: Desk) -> None:
    """Open all keys; a start that fails by them is written down: a wrong PIN, another token."""
    now_ms = SystemClock().now_ms()
    try:
        await asyncio.to_thread(lambda: state.check(now_ms=now_ms))
    except SeipdError as error:
        refusal = error
    else:
        return

    async def fail() -> NoReturn:
        raise refusal

    await desk.audited(Asked(call="start", caller="signer", scope="", key_id=""), fail)


@contextlib.asynccontextmanager
async def _peers(desk: Desk, listening: Listening | None) -> AsyncIterator[None]:
    if listening is None:
        yield
        return
    from seipd.signerd.listening import serve_peers

    async with serve_peers(desk, listening, SystemClock()) as port:
        logger.info("the signer listens for other machines", extra={"port": port})
        yield


@contextlib.asynccontextmanager
async def working_desk(state: SignerState, *, folder: Path) -> AsyncIterator[tuple[Desk, KeyDesk]]:
    """Open the audit, bring the keys up to the time, and give a desk that answers.

    Raises:
        CorruptError: the audit or the table is damaged.
        StorageError: the disk refused.
    """
    log = AuditLog(folder / AUDIT_FOLDER, audit_key(folder))
    seen_ms = await asyncio.to_thread(log.open)
    clock = GuardedClock(SystemClock(), floor_ms=seen_ms)
    # What was over when the last entry was written is so still, wherever the clock is now.
    await asyncio.to_thread(state.advance, max(seen_ms, clock.now_ms()))
    writer = AuditWriter(log)
    tasks = TaskOwner("signer")
    tasks.spawn(writer.run(), name="audit")
    tasks.spawn(_keep_rows(state, clock), name="rows")
    try:
        desk = Desk(keys=state, provider=state.provider, audit=writer, clock=clock)
        yield desk, KeyDesk(state=state, log=log, clock=clock)
    finally:
        await tasks.close()


async def _keep_rows(state: SignerState, clock: GuardedClock) -> None:
    """Write down which windows have opened and closed, soon after; a key that ended goes."""
    while True:
        await asyncio.sleep(KEEP_ROWS_S)
        try:
            if state.is_behind(clock.now_ms()):
                await asyncio.to_thread(state.advance, clock.now_ms())
        except SeipdError as error:
            logger.error("what time has changed can't be written down: %s", error)  # noqa: TRY400 (the error says all)


def local_caller(context: Context) -> Caller:
    """Return who asks over the unix socket: whom its mode lets in, and nobody else."""
    del context
    return Caller(name="unix")


def _give_to_group(group: str, *, folder: Path, socket: Path) -> None:
    """Let a group pass through the folders to the socket, and use it."""
    try:
        gid = grp.getgrnam(group).gr_gid
    except KeyError as error:
        raise ConfigError(
            f"there is no group {group}", code="no_group", mend=f"groupadd --system {group}"
        ) from error
    folders = [socket.parent, *([folder] if folder in socket.parent.parents else [])]
    try:
        for path in (*folders, socket):
            # Where the unit's own group is the daemon's, all is well and chown(2) forbidden.
            if path.stat().st_gid != gid:
                os.chown(path, -1, gid)
    except PermissionError as error:
        raise ConfigError(
            f"the signer's user is not in the group {group}",
            code="not_in_group",
            mend=f"add SupplementaryGroups={group} to its unit, or the user to the group",
        ) from error
    socket.chmod(0o660)
