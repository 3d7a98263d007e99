"""One append-only log in a folder (C2SP tlog-tiles), written by one process.

    journal        what was appended since the last publishing: durable when ``append`` returns
    tile/…         hash tiles and entry bundles, written by ``publish``
    checkpoint     the newest published checkpoint
    prefix         instead of a newer one, while a copy is on the way to what a checkpoint signs

``append`` writes one frame to the journal and syncs once. ``publish`` writes bundles, tiles and
last the checkpoint, and only then empties the journal; a crash anywhere in between leaves a folder
from which ``open`` finds the same log again. A write that failed ends the log's life: what is
on disk is unknown until it is opened anew.

``extend_verified`` appends a part of what a checkpoint signs: ``size`` is then ahead of
``signed_size``, of which ``checkpoint`` speaks, until the last part has come.

All methods block; one thread may write while others read.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from services.base.crypto.signatures import BadSignatureError
from services.base.ledger import merkle
from services.base.ledger.checkpoint import verify_checkpoint
from services.base.ledger.disk import Disk, sync_folder
from services.base.ledger.fsck import MAX_JOURNAL_FILE_BYTES, Head, read_head
from services.base.ledger.fuse import Fuse
from services.base.ledger.journal import JOURNAL, Frame, encode_frame, scan_journal
from services.base.ledger.merkle import Frontier
from services.base.ledger.note import NoteError
from services.base.ledger.prefix import PREFIX, Prefix
from services.base.ledger.publish import drop_partials, open_journal, write_published
from services.base.ledger.staging import Staged, stage
from services.base.ledger.store import CHECKPOINT, TileReader, corrupt, load_tiles, read_bytes
from services.base.ledger.tiles import TILE_WIDTH, TileRef, encode_bundle, tiles_between
from services.kernel.errors import (
    ConflictError,
    InputError,
    NotFoundError,
    StorageError,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from services.base.ledger.note import NoteVerifier

MAX_JOURNAL_BYTES = 32 << 20


class TileLog:
    """See the module. ``checkpoint`` is the newest durable one, maybe not published yet.

    It signs ``signed_size`` entries with ``signed_root``; ``root`` is that of all entries.
    """

    def __init__(
        self,
        *,
        folder: Path,
        origin: str,
        verifier: NoteVerifier,
        journal_fd: int,
        reader: TileReader,
        head: Head | None,
        disk: Disk,
    ) -> None:
        self.origin = origin
        self.checkpoint = head.checkpoint if head else None
        self.signed_size = self._published_signed = head.signed.size if head else 0
        self.signed_root = head.signed.root if head else merkle.EMPTY_ROOT
        self._prefix = head.prefix if head else None
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
        self._staged: Staged | None = None
        self._durable_folders: set[Path] = set()
        self._prepared = False
        self._fuse = Fuse()
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
            head: Head | None = read_head(folder, verifier, origin)
        except NotFoundError:
            if (folder / "tile").exists() and not (frames and frames[0].first == 0):
                raise corrupt(CHECKPOINT, "the checkpoint is missing beside tiles") from None
            head = None
        reader = load_tiles(folder, head.tiles) if head else TileReader(folder, size=0, edge=())
        log = cls(
            folder=folder,
            origin=origin,
            verifier=verifier,
            journal_fd=fd,
            reader=reader,
            head=head,
            disk=disk,
        )
        log._recover(frames, journal_bytes=len(journal))
        return log

    @property
    def size(self) -> int:
        """The number of entries, all of them durable."""
        return self._reader.size

    @property
    def frontier(self) -> Frontier:
        """The right edge of the tree over all entries; a copy."""
        with self._memory:
            return self._frontier.copy()

    @property
    def published_size(self) -> int:
        """The number of entries that the tiles on the disk hold."""
        return self._published

    def root_after(self, entries: Sequence[bytes]) -> tuple[int, bytes]:
        """Return size and root as they will be once these entries are appended.

        Raises:
            InputError: no entry, or ``too_large``.
        """
        staged = self._stage(entries)
        return staged.frontier.size, staged.root

    def rename(self, verifier: NoteVerifier) -> None:
        """Go on under another name of the same key, which is also the new origin."""
        with self._writing:
            self._verifier, self.origin = verifier, verifier.name

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
            self._fuse.check()
            staged = self._stage(entries)
            signed = verify_checkpoint(checkpoint, self._verifier, self.origin)
            if (signed.size, signed.root) != (staged.frontier.size, staged.root):
                raise ConflictError(
                    "the checkpoint is not that of the log with these entries",
                    code="checkpoint_mismatch",
                )
            self._write(staged, checkpoint, None)

    def extend_verified(
        self, entries: Sequence[bytes], checkpoint: bytes, proof: Sequence[bytes]
    ) -> None:
        """Make entries durable that a checkpoint signs together with more to come.

        Args:
            entries: what follows.
            checkpoint: signed by the log's key; of at least the size with these entries.
            proof: the consistency proof from that size to the checkpoint.

        Raises:
            InputError: no entry, or ``too_large``.
            NoteError: the checkpoint is malformed or of another log.
            BadSignatureError: it is not signed by the log's key, or the log with these entries is
                not the beginning of what it signs.
            StorageError: the disk refused; the log takes no more and must be opened anew.
            CorruptError: damage was found earlier; the log takes no more.
        """
        with self._writing:
            self._fuse.check()
            staged = self._stage(entries)
            prefix = staged.prefix(checkpoint, proof)
            exact = prefix.verify(self._verifier, self.origin) == prefix.size
            if self._prefix is None and self._published != self.signed_size:
                # What was signed for this very size must not be forgotten over what is not.
                self._publish()
            self._write(staged, checkpoint, None if exact else prefix)

    def publish(self) -> None:
        """Write tiles, bundles and the checkpoint for all that was appended; empty the journal.

        Raises:
            StorageError: the disk refused; the log takes no more and must be opened anew.
            CorruptError: a file that goes on to be used is damaged; the log takes no more.
        """
        with self._writing:
            self._fuse.check()
            if self._journal_bytes:
                self._publish()

    def read(self, start: int, stop: int) -> list[bytes]:
        """Return the entries from ``start`` up to ``stop``.

        Raises:
            InputError: there are not that many.
            CorruptError: a file is damaged; the log takes no more appends.
            StorageError: the disk refused.
        """
        with self._memory, self._fuse.watch():
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
        with self._memory, self._fuse.watch():
            if not 0 <= index < self.size:
                raise InputError(f"the log has {self.size} entries, asked for number {index}")
            return self._reader.node(0, index)

    def root_at(self, size: int) -> bytes:
        """Return the root that the log had at a size; raises as ``read``."""
        with self._memory, self._fuse.watch():
            self._check_size(size)
            if size == self.size:
                return self.root
            return merkle.range_hash(0, size, self._reader.node)

    def inclusion_proof(self, index: int, size: int) -> list[bytes]:
        """Return the proof that an entry is in the tree of ``size`` entries; raises as ``read``."""
        with self._memory, self._fuse.watch():
            self._check_size(size)
            return merkle.inclusion_proof(index, size, self._reader.node)

    def consistency_proof(self, old: int, new: int) -> list[bytes]:
        """Return the proof that one tree is a beginning of another; raises as ``read``."""
        with self._memory, self._fuse.watch():
            self._check_size(new)
            return merkle.consistency_proof(old, new, self._reader.node)

    def close(self) -> None:
        """Let go of the folder; idempotent. What was not published stays in the journal."""
        fd, self._journal_fd = self._journal_fd, -1
        if fd >= 0:
            os.close(fd)
        self._fuse.blow(StorageError("the log is closed"))

    def _stage(self, entries: Sequence[bytes]) -> Staged:
        staged = self._staged
        if staged is None or staged.base != self.size or staged.entries != tuple(entries):
            staged = self._staged = stage(entries, self.frontier)
        return staged

    def _write(self, staged: Staged, checkpoint: bytes, prefix: Prefix | None) -> None:
        """Make staged entries durable in the journal; a prefix speaks for them if one is given."""
        if not self._prepared:
            self._prepare()
        if self._journal_bytes > MAX_JOURNAL_BYTES:
            self._publish()
        proof = None if prefix is None else prefix.hashes
        frame = encode_frame(self.size, staged.entries, checkpoint, proof)
        with self._fuse.fatal("append to the journal"):
            self._disk.write(self._journal_fd, frame, self._journal_bytes)
            self._disk.sync_data(self._journal_fd)
        self._journal_bytes += len(frame)
        self._take(staged, checkpoint, prefix)

    def _take(self, staged: Staged, checkpoint: bytes, prefix: Prefix | None) -> None:
        with self._memory:
            self._tail += staged.entries
            self._reader.grow(staged.rows)
            self._frontier = staged.frontier
            self.root = staged.root
            self._prefix = prefix
            if prefix is None:
                self.checkpoint = checkpoint
                self.signed_size, self.signed_root = staged.frontier.size, staged.root
            self._staged = None

    def _recover(self, frames: Sequence[Frame], *, journal_bytes: int) -> None:
        """Take what the journal has beyond what is published."""
        self._journal_bytes = journal_bytes
        if frames:
            self._journal_first = min(frames[0].first, self._published)
        fresh = [frame for frame in frames if frame.stop > self._published]
        for frame, after in zip(fresh, [*fresh[1:], None], strict=False):
            if frame.first != self.size:
                raise corrupt(JOURNAL, f"it has entry {frame.first} where {self.size} is due")
            staged = self._stage(frame.entries)
            said = staged.prefix(frame.checkpoint, frame.proof or ())
            exact = frame.proof is None
            # The last frame of each kind answers for those before it.
            if after is None or exact != (after.proof is None):
                self._check_frame(said, exact=exact)
            self._take(staged, frame.checkpoint, None if exact else said)

    def _check_frame(self, said: Prefix, *, exact: bool) -> None:
        try:
            signed_size = said.verify(self._verifier, self.origin)
        except (NoteError, BadSignatureError) as error:
            raise corrupt(JOURNAL, f"its checkpoint is not that of its entries: {error}") from error
        if exact != (signed_size == said.size):
            raise corrupt(JOURNAL, "its checkpoint is not that of its entries")

    def _publish(self) -> None:
        first, old, new = self._journal_first, self._published, self.size
        with self._fuse.fatal("publish the log"), self._fuse.watch():
            if new > old:
                tiles = ((ref.path(), self._tile_bytes(ref)) for ref in tiles_between(old, new))
                write_published(
                    self._disk, self._folder, self._durable_folders, tiles, self._head_file()
                )
            drop_partials(self._disk, self._folder, first, self._published_signed, new)
            if self._prefix is None and (self._folder / PREFIX).exists():
                self._disk.remove(self._folder / PREFIX)
            self._disk.truncate(self._journal_fd)
            self._disk.sync_data(self._journal_fd)
        with self._memory:
            self._published = self._journal_first = new
            self._published_signed = self.signed_size
            self._journal_bytes = 0
            self._tail.clear()
            self._reader.settle()

    def _head_file(self) -> tuple[str, bytes]:
        """Return name and bytes of the file that says how far the tiles reach."""
        if self._prefix is not None:
            return PREFIX, self._prefix.encode()
        return CHECKPOINT, self.checkpoint or b""

    def _prepare(self) -> None:
        """Before the first append: make sure that what was found at the opening stays.

        The disk may not hold what the page cache shows (a sync that failed before the restart), so
        nothing is appended behind frames found in the journal: they are published first. And the
        name of the journal itself may never have been synced.
        """
        if self._journal_bytes:
            self._publish()
        with self._fuse.fatal("sync the log's folder"):
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
