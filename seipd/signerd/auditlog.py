"""The signer's own audit: a log of tiles each month, signed by a key of its own (C2SP tlog-tiles).

It depends on nobody: where the daemon is away, or lies, it says all the same what was signed. An
entry is durable before the call that it tells of is answered; calls that come at once share one
write. Where it can't be written, nothing is signed.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from seipd.signerd.auditing import month_entry, month_of, time_of
from services.base.crypto.signatures import SEED_BYTES, SigningKey
from services.base.ledger.checkpoint import Checkpoint, sign_checkpoint
from services.base.ledger.log import TileLog
from services.base.ledger.note import NoteVerifier
from services.base.storage.files import make_private_dir, read_private, write_atomic
from services.kernel.errors import CorruptError, NotFoundError, SeipdError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

logger = logging.getLogger(__name__)

KEY_FILE = "audit.key"
MAX_BATCH = 256
MAX_WAITING = 4096
PUBLISH_AFTER = 4096
PUBLISH_IDLE_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditPage:
    """Entries of one month, and the checkpoint that signs all ``size`` of them."""

    month: str
    vkey: str
    checkpoint: bytes
    size: int
    entries: tuple[bytes, ...]


class AuditLog:
    """The months of one signer; its methods block, and one thread uses it."""

    def __init__(self, folder: Path, key: SigningKey) -> None:
        self._folder = folder
        self._key = key
        self._name = f"seipd-signer-{hashlib.sha256(key.public_key).hexdigest()[:16]}"
        self._month = ""
        self._log: TileLog | None = None

    @property
    def size(self) -> int:
        """The number of entries of the month that is open."""
        return self._log.size if self._log is not None else 0

    def open(self) -> int:
        """Open the newest month; return the time of its last entry, 0 where there is none.

        Raises:
            CorruptError: a file is damaged.
            StorageError: the disk refused.
        """
        make_private_dir(self._folder)
        months = self.months()
        if not months:
            return 0
        log = self._opened(months[-1], create=False)
        return time_of(log.read(log.size - 1, log.size)[0]) if log.size else 0

    def months(self) -> list[str]:
        """Return the months of which there is a log, oldest first."""
        return sorted(path.name for path in self._folder.iterdir() if path.is_dir())

    def append(self, entries: Sequence[bytes], *, at_ms: int) -> None:
        """Make entries durable; the first of a month is preceded by the end of the last.

        Raises:
            SeipdError: the disk refused; nothing may be answered.
        """
        month, before = max(month_of(at_ms), self._month), self._month
        if month != before and before:
            log = self._opened(before, create=False)
            log.publish()
            head = month_entry(at_ms=at_ms, before=before, size=log.size, root=log.root)
            entries = [head, *entries]
        log = self._opened(month, create=True)
        size, root = log.root_after(entries)
        signed = Checkpoint(origin=log.origin, size=size, root=root)
        try:
            log.append(entries, sign_checkpoint(signed, signer=self._key))
        except SeipdError:
            self.close()  # what is on the disk is known when it is opened anew
            raise
        if log.size - log.published_size >= PUBLISH_AFTER:
            self.publish()

    def publish(self) -> None:
        """Write the tiles for what was appended.

        Raises:
            SeipdError: the disk refused.
        """
        if self._log is None or self._log.published_size == self._log.size:
            return
        try:
            self._log.publish()
        except SeipdError:
            self.close()
            raise

    def read(self, month: str, first: int, count: int) -> AuditPage:
        """Return entries of a month, or of the newest; may be called by another thread.

        Raises:
            InputError: the log has not that many entries.
            NotFoundError: ``no_audit``: of that month there is none.
            SeipdError: a file is damaged, or the disk refused.
        """
        log, newest = self._log, self._month
        month = month or newest
        if log is not None and month == newest:
            return self._page(log, month, first, count)
        if month not in self.months():
            raise NotFoundError(f"there is no audit of {month[:20]!r}", code="no_audit")
        verifier = self.verifier(month)
        log = TileLog.open(self._folder / month, origin=verifier.name, verifier=verifier)
        try:
            return self._page(log, month, first, count)
        finally:
            log.close()

    def _page(self, log: TileLog, month: str, first: int, count: int) -> AuditPage:
        checkpoint, size = log.checkpoint or b"", log.size
        return AuditPage(
            month=month,
            vkey=self.verifier(month).vkey,
            checkpoint=checkpoint,
            size=size,
            entries=tuple(log.read(first, min(first + count, size))),
        )

    def verifier(self, month: str) -> NoteVerifier:
        """Return the public half of the key that signs a month's log, by that log's name."""
        return NoteVerifier(name=f"{self._name}/audit/{month}", public_key=self._key.public_key)

    def close(self) -> None:
        """Let go of the log; may be called twice."""
        log, self._log = self._log, None
        if log is not None:
            log.close()

    def _opened(self, month: str, *, create: bool) -> TileLog:
        if self._log is not None and self._month == month:
            return self._log
        self.close()
        verifier = self.verifier(month)
        self._log = TileLog.open(
            self._folder / month, origin=verifier.name, verifier=verifier, create=create
        )
        self._month = month
        return self._log


_Waiting = tuple[Sequence[bytes], int, "asyncio.Future[None]"]


class AuditWriter:
    """Lets calls wait until their entries are durable; satisfies Audit of the desk."""

    def __init__(self, log: AuditLog) -> None:
        self._log = log
        self._thread: asyncio.Future[None] | None = None
        self._waiting: asyncio.Queue[_Waiting] = asyncio.Queue(MAX_WAITING)

    async def write(self, entries: Sequence[bytes], *, at_ms: int) -> None:
        """Return once all of these entries are durable.

        Raises:
            UnavailableError: ``audit_unavailable``: it is not.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            self._waiting.put_nowait((entries, at_ms, done))
        except asyncio.QueueFull:
            raise UnavailableError("too many calls wait", code="audit_unavailable") from None
        await done

    async def run(self) -> None:
        """Write what comes, until cancelled; then what still waits is written too."""
        try:
            while True:
                try:
                    async with asyncio.timeout(PUBLISH_IDLE_S):
                        first = await self._waiting.get()
                except TimeoutError:
                    with contextlib.suppress(SeipdError):
                        await self._in_thread(self._log.publish)
                    continue
                await self._write([first])
        finally:
            if self._thread is not None:
                await asyncio.wait([self._thread])
            while not self._waiting.empty():
                await self._write([self._waiting.get_nowait()])
            with contextlib.suppress(SeipdError):
                await self._in_thread(self._log.publish)
            self._log.close()

    async def _write(self, batch: list[_Waiting]) -> None:
        while len(batch) < MAX_BATCH and not self._waiting.empty():
            batch.append(self._waiting.get_nowait())
        entries = [entry for several, _, _ in batch for entry in several]
        at_ms = max(at for _, at, _ in batch)

        def append() -> None:
            self._log.append(entries, at_ms=at_ms)

        work = self._in_thread(append)
        work.add_done_callback(lambda done: _tell(batch, done.exception()))
        # Whoever cancels this does not end the thread: the callers hear what came of it.
        await asyncio.wait([work])

    def _in_thread(self, call: Callable[[], None]) -> asyncio.Future[None]:
        self._thread = asyncio.get_running_loop().run_in_executor(None, call)
        return self._thread


def _tell(batch: list[_Waiting], error: BaseException | None) -> None:
    failure: SeipdError | None = None
    if error is not None:
        # Whatever it was: who waits must hear that nothing was written.
        logger.error("the audit can't be written: %s", error)
        mend = error.mend if isinstance(error, SeipdError) else ""
        failure = UnavailableError(
            "the audit can't be written", code="audit_unavailable", mend=mend
        )
    for _, _, done in batch:
        if done.done():
            continue
        if failure is None:
            done.set_result(None)
        else:
            done.set_exception(failure)


def audit_key(folder: Path) -> SigningKey:
    """Return the key that signs the audit, made at the first start.

    It opens nothing and signs for nobody else: it lies as it is, readable by the signer alone.

    Raises:
        CorruptError: the file is damaged.
        KeyPermissionsError: others can read it.
        StorageError: the disk refused.
    """
    path = folder / KEY_FILE
    try:
        seed = read_private(path, SEED_BYTES + 1)
    except NotFoundError:
        write_atomic(path, secrets.token_bytes(SEED_BYTES))
        seed = read_private(path, SEED_BYTES + 1)
    if len(seed) != SEED_BYTES:
        raise CorruptError(
            f"{path} is not a key", path=KEY_FILE, mend="remove it: a new log begins with a new key"
        )
    return SigningKey(seed)
