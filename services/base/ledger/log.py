"""One append-only log in a folder (C2SP tlog-tiles), written by one process.

    journal        what was appended since the last publishing: durable when ``append`` returns
    tile/…         hash tiles and entry bundles, written by ``publish``
    checkpoint     the newest published checkpoint

``append`` writes one frame to the journal and syncs once. ``publish`` writes bundles, tiles and
last the checkpoint, and only then empties the journal; a crash anywhere in between leaves a folder
from which ``open`` finds the same log again. A write that failed ends the log's life: what is
on disk is unknown until it is opened anew.

All methods block; one thread may write while others read.
"""

from __future__ import annotations

import contextlib
import os
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.base.crypto.signatures import BadSignatureError
from services.base.ledger import merkle
from services.base.ledger.checkpoint import verify_checkpoint
from services.base.ledger.disk import Disk, sync_folder
from services.base.ledger.fsck import MAX_JOURNAL_FILE_BYTES, read_checkpoint
from services.base.ledger.journal import JOURNAL, Frame, encode_frame, scan_journal
from services.base.ledger.merkle import Frontier
from services.base.ledger.note import NoteError
from services.base.ledger.publish import drop_partials, open_journal, write_published
from services.base.ledger.store import CHECKPOINT, TileReader, corrupt, load_tiles, read_bytes
from services.base.ledger.tiles import (
    MAX_ENTRY_BYTES,
    TILE_WIDTH,
    TileRef,
    encode_bundle,
    tiles_between,
)
from services.kernel.errors import (
    ConflictError,
    CorruptError,
    InputError,
    NotFoundError,
    SeipdError,
    StorageError,
    TooLargeError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from services.base.ledger.note import NoteVerifier

MAX_JOURNAL_BYTES = 32 << 20
MAX_APPEND_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class _Staged:
    """Entries whose hashes are computed but which are not appended."""

    base: int
    entries: tuple[bytes, ...]
    frontier: Frontier
    rows: list[list[bytes]]
    root: bytes


class TileLog:
    """See the module. ``checkpoint`` is the newest durable one, maybe not published yet."""

    def __init__(
        self,
        *,
        folder: Path,
        origin: str,
        verifier: NoteVerifier,
        journal_fd: int,
        reader: TileReader,
        checkpoint: bytes | None,
        disk: Disk,
    ) -> None:
        self.origin = origin
        self.checkpoint = checkpoint
        self._folder = folder
        self._verifier = verifier
        self._disk = disk
        self._journal_fd = journal_fd
        self._journal_bytes = 0
        self._journal_first = reader.size
        self._reader = reader
        self._frontier = Frontier.read(reader.size, reader.node)
        self.root = self._frontier.root()
        self._published = reader.size
        self._tail: list[bytes] = []
        self._staged: _Staged | None = None
        self._durable_folders: set[Path] = set()
        self._prepared = False
        self._failure: SeipdError | None = None
        self._writing = threading.Lock()
        self._memory = threading.RLock()

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        origin: str,
        verifier: NoteVerifier,
        create: bool = False,
        disk: Disk | None = None,
    ) -> TileLog:
        """Open a log, with what a crash left in its journal.

        Raises:
            NotFoundError: the folder holds no log, and none is to be created.
            ConflictError: ``locked``: another process has it open.
            CorruptError: a file is damaged; ``path`` names it, relative to the folder.
            StorageError: the disk refused.
        """
        disk = disk or Disk()
        fd = open_journal(disk, folder, create=create)
        try:
            return cls._load(folder, origin, verifier, fd, disk)
        except BaseException:
            os.close(fd)
            raise

    @classmethod
    def _load(
        cls, folder: Path, origin: str, verifier: NoteVerifier, fd: int, disk: Disk
    ) -> TileLog:
        journal = read_bytes(folder, JOURNAL, max_bytes=MAX_JOURNAL_FILE_BYTES) or b""
        frames = scan_journal(journal)
        try:
            checkpoint, published = read_checkpoint(folder, verifier, origin)
        except NotFoundError:
            if (folder / "tile").exists() and not (frames and frames[0].first == 0):
                raise corrupt(CHECKPOINT, "the checkpoint is missing beside tiles") from None
            checkpoint, reader = None, TileReader(folder, size=0, edge=())
        else:
            reader = load_tiles(folder, published)
        log = cls(
            folder=folder,
            origin=origin,
            verifier=verifier,
            journal_fd=fd,
            reader=reader,
            checkpoint=checkpoint,
            disk=disk,
        )
        log._recover(frames, journal_bytes=len(journal))
        return log

    @property
    def size(self) -> int:
        """The number of entries, all of them durable."""
        return self._reader.size

    @property
    def published_size(self) -> int:
        """The number of entries that the published checkpoint covers."""
        return self._published

    def root_after(self, entries: Sequence[bytes]) -> tuple[int, bytes]:
        """Return size and root as they will be once these entries are appended.

        Raises:
            InputError: no entry, or ``too_large``.
        """
        staged = self._stage(entries)
        return staged.frontier.size, staged.root

    def append(self, entries: Sequence[bytes], checkpoint: bytes) -> None:
        """Make entries durable, with the signed checkpoint that covers them.

        Raises:
            InputError: no entry, or ``too_large``.
            NoteError: the checkpoint is malformed or of another log.
            BadSignatureError: it is not signed by the log's key.
            ConflictError: ``checkpoint_mismatch``: it has another size or root.
            StorageError: the disk refused; the log takes no more and must be opened anew.
            CorruptError: damage was found earlier; the log takes no more.
        """
        with self._writing:
            self._refuse_after_failure()
            staged = self._stage(entries)
            signed = verify_checkpoint(checkpoint, self._verifier, self.origin)
            if (signed.size, signed.root) != (staged.frontier.size, staged.root):
                raise ConflictError(
                    "the checkpoint is not that of the log with these entries",
                    code="checkpoint_mismatch",
                )
            if not self._prepared:
                self._prepare()
            if self._journal_bytes > MAX_JOURNAL_BYTES:
                self._publish()
            frame = encode_frame(self.size, staged.entries, checkpoint)
            with self._fatal("append to the journal"):
                self._disk.write(self._journal_fd, frame, self._journal_bytes)
                self._disk.sync_data(self._journal_fd)
            self._journal_bytes += len(frame)
            self._take(staged, checkpoint)

    def publish(self) -> None:
        """Write tiles, bundles and the checkpoint for all that was appended; empty the journal.

        Raises:
            StorageError: the disk refused; the log takes no more and must be opened anew.
            CorruptError: a file that goes on to be used is damaged; the log takes no more.
        """
        with self._writing:
            self._refuse_after_failure()
            if self._journal_bytes:
                self._publish()

    def read(self, start: int, stop: int) -> list[bytes]:
        """Return the entries from ``start`` up to ``stop``.

        Raises:
            InputError: there are not that many.
            CorruptError: a file is damaged; the log takes no more appends.
            StorageError: the disk refused.
        """
        with self._memory, self._watch():
            if not 0 <= start <= stop <= self.size:
                raise InputError(f"the log has {self.size} entries, asked for {start} to {stop}")
            found: list[bytes] = []
            on_disk = min(stop, self._published)
            while start < on_disk:
                index, skip = divmod(start, TILE_WIDTH)
                width = min(TILE_WIDTH, self._published - index * TILE_WIDTH)
                part = self._reader.bundle(index, width)[skip : skip + on_disk - start]
                found += part
                start += len(part)
            found += self._tail[start - self._published : stop - self._published]
            return found

    def leaf_hash(self, index: int) -> bytes:
        """Return the hash of one entry; raises as ``read``."""
        with self._memory, self._watch():
            if not 0 <= index < self.size:
                raise InputError(f"the log has {self.size} entries, asked for number {index}")
            return self._reader.node(0, index)

    def root_at(self, size: int) -> bytes:
        """Return the root that the log had at a size; raises as ``read``."""
        with self._memory, self._watch():
            self._check_size(size)
            if size == self.size:
                return self.root
            return merkle.range_hash(0, size, self._reader.node)

    def inclusion_proof(self, index: int, size: int) -> list[bytes]:
        """Return the proof that an entry is in the tree of ``size`` entries; raises as ``read``."""
        with self._memory, self._watch():
            self._check_size(size)
            return merkle.inclusion_proof(index, size, self._reader.node)

    def consistency_proof(self, old: int, new: int) -> list[bytes]:
        """Return the proof that one tree is a beginning of another; raises as ``read``."""
        with self._memory, self._watch():
            self._check_size(new)
            return merkle.consistency_proof(old, new, self._reader.node)

    def close(self) -> None:
        """Let go of the folder; idempotent. What was not published stays in the journal."""
        fd, self._journal_fd = self._journal_fd, -1
        if fd >= 0:
            os.close(fd)
        self._failure = self._failure or StorageError("the log is closed")

    def _stage(self, entries: Sequence[bytes]) -> _Staged:
        wanted = tuple(entries)
        staged = self._staged
        if staged is not None and staged.base == self.size and staged.entries == wanted:
            return staged
        if not wanted:
            raise InputError("nothing to append")
        sizes = [len(entry) for entry in wanted]
        if max(sizes) > MAX_ENTRY_BYTES or sum(sizes) > MAX_APPEND_BYTES:
            raise TooLargeError(
                f"an entry has at most {MAX_ENTRY_BYTES} bytes, one append {MAX_APPEND_BYTES}"
            )
        with self._memory:
            frontier = self._frontier.copy()
        base = frontier.size
        rows = frontier.extend(merkle.leaf_hashes(wanted))
        staged = _Staged(base, wanted, frontier, rows, frontier.root())
        self._staged = staged
        return staged

    def _take(self, staged: _Staged, checkpoint: bytes) -> None:
        with self._memory:
            self._tail += staged.entries
            self._reader.grow(staged.rows)
            self._frontier = staged.frontier
            self.root = staged.root
            self.checkpoint = checkpoint
            self._staged = None

    def _recover(self, frames: Sequence[Frame], *, journal_bytes: int) -> None:
        """Take what the journal has beyond what is published."""
        self._journal_bytes = journal_bytes
        if frames:
            self._journal_first = min(frames[0].first, self._published)
        fresh = [frame for frame in frames if frame.stop > self._published]
        for frame in fresh:
            if frame.first != self.size:
                raise corrupt(JOURNAL, f"it has entry {frame.first} where {self.size} is due")
            self._take(self._stage(frame.entries), frame.checkpoint)
        if fresh:
            try:
                signed = verify_checkpoint(fresh[-1].checkpoint, self._verifier, self.origin)
            except (NoteError, BadSignatureError) as error:
                raise corrupt(JOURNAL, str(error)) from error
            if (signed.size, signed.root) != (self.size, self.root):
                raise corrupt(JOURNAL, "its checkpoint is not that of its entries")

    def _publish(self) -> None:
        first, old, new = self._journal_first, self._published, self.size
        with self._fatal("publish the log"), self._watch():
            if new > old and self.checkpoint is not None:
                tiles = ((ref.path(), self._tile_bytes(ref)) for ref in tiles_between(old, new))
                write_published(
                    self._disk, self._folder, self._durable_folders, tiles, self.checkpoint
                )
            drop_partials(self._disk, self._folder, first, new)
            self._disk.truncate(self._journal_fd)
            self._disk.sync_data(self._journal_fd)
        with self._memory:
            self._published = self._journal_first = new
            self._journal_bytes = 0
            self._tail.clear()
            self._reader.settle()

    def _prepare(self) -> None:
        """Before the first append: make sure that what was found at the opening stays.

        The disk may not hold what the page cache shows (a sync that failed before the restart), so
        nothing is appended behind frames found in the journal: they are published first. And the
        name of the journal itself may never have been synced.
        """
        if self._journal_bytes:
            self._publish()
        with self._fatal("sync the log's folder"):
            sync_folder(self._disk, self._folder)
        self._prepared = True

    def _tile_bytes(self, ref: TileRef) -> bytes:
        if ref.level is not None:
            return self._reader.row(ref.level, ref.index)
        start = ref.index * TILE_WIDTH
        return encode_bundle(self.read(start, start + ref.width))

    def _check_size(self, size: int) -> None:
        if not 0 <= size <= self.size:
            raise InputError(f"the log has {self.size} entries, asked for a tree of {size}")

    def _refuse_after_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    @contextlib.contextmanager
    def _fatal(self, what: str) -> Iterator[None]:
        """End the log's life if the disk refuses: a sync that failed must not be tried again."""
        try:
            yield
        except BaseException as error:
            self._failure = self._failure or StorageError(
                f"can't {what}: {error}",
                mend="free space or mend the disk, then start again",
            )
            if isinstance(error, OSError):
                raise self._failure from error
            raise

    @contextlib.contextmanager
    def _watch(self) -> Iterator[None]:
        """Take no more appends once damage was found."""
        try:
            yield
        except CorruptError as error:
            self._failure = error
            raise
