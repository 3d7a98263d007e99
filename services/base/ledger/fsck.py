"""Judge a log's folder by itself: signature, every tile, every bundle, down to the last byte.

It takes no lock and writes nothing, so it may look at a log in use (its published part) or at a
copy. A partial tile of an earlier checkpoint that still lies there must be the beginning of what
it became.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from services.base.crypto.signatures import BadSignatureError
from services.base.ledger.checkpoint import Checkpoint, verify_checkpoint
from services.base.ledger.journal import JOURNAL, scan_journal
from services.base.ledger.merkle import EMPTY_ROOT, HASH_BYTES
from services.base.ledger.note import MAX_NOTE_BYTES, NoteError
from services.base.ledger.prefix import Prefix, read_prefix
from services.base.ledger.store import (
    CHECKPOINT,
    TileReader,
    corrupt,
    load_tiles,
    read_bytes,
)
from services.base.ledger.tiles import (
    MAX_BUNDLE_BYTES,
    TileError,
    TileRef,
    encode_bundle,
    parse_tile_path,
    tiles_between,
)
from services.kernel.errors import CorruptError, NotFoundError

if TYPE_CHECKING:
    from pathlib import Path

    from services.base.ledger.note import NoteVerifier

MAX_JOURNAL_FILE_BYTES = 128 << 20
_ATTEMPTS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class FsckReport:
    """What was found good."""

    size: int
    root: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What a log's folder says of itself; a prefix is there only while it reaches further."""

    checkpoint: bytes | None
    signed: Checkpoint
    prefix: Prefix | None

    @property
    def tiles(self) -> Checkpoint:
        """Size and root of what the tiles hold."""
        if self.prefix is None:
            return self.signed
        return replace(self.signed, size=self.prefix.size, root=self.prefix.root)


def read_checkpoint(folder: Path, verifier: NoteVerifier, origin: str) -> tuple[bytes, Checkpoint]:
    """Return the published checkpoint of a log, its signature checked.

    Raises:
        NotFoundError: none is published.
        CorruptError: it is malformed, of another log, or not signed by the key.
        StorageError: the disk refused.
    """
    data = read_bytes(folder, CHECKPOINT, max_bytes=MAX_NOTE_BYTES)
    if data is None:
        raise NotFoundError(
            "the folder holds no checkpoint", mend="name the folder that holds the file checkpoint"
        )
    try:
        return data, verify_checkpoint(data, verifier, origin)
    except (NoteError, BadSignatureError) as error:
        raise corrupt(CHECKPOINT, str(error)) from error


def read_head(folder: Path, verifier: NoteVerifier, origin: str) -> Head:
    """Return how far the tiles on the disk reach.

    Raises:
        NotFoundError: nothing is published.
        CorruptError: what says so is malformed, of another log, or not signed by the key.
        StorageError: the disk refused.
    """
    prefix = read_prefix(folder, verifier, origin)
    data: bytes | None = None
    signed: Checkpoint | None = None
    try:
        data, signed = read_checkpoint(folder, verifier, origin)
    except NotFoundError:
        if prefix is None:
            raise
    stale = signed is not None and prefix is not None and prefix.size <= signed.size
    return Head(
        checkpoint=data,
        signed=signed or Checkpoint(origin=origin, size=0, root=EMPTY_ROOT),
        prefix=None if stale else prefix,
    )


def verify_log(folder: Path, verifier: NoteVerifier, origin: str) -> FsckReport:
    """Verify the published part of a log.

    Raises:
        NotFoundError: nothing is published.
        CorruptError: a file is not what it must be; ``path`` names it.
        StorageError: the disk refused.
    """
    for _ in range(_ATTEMPTS - 1):
        head = read_head(folder, verifier, origin)
        try:
            return _verify(folder, head.tiles)
        except CorruptError:
            # A log in use may have been published meanwhile, and the old partial tiles be gone.
            if read_head(folder, verifier, origin) == head:
                raise
    return _verify(folder, read_head(folder, verifier, origin).tiles)


def _verify(folder: Path, checkpoint: Checkpoint) -> FsckReport:
    reader = load_tiles(folder, checkpoint)
    # Tiles from the top down, so that each is judged by one that was judged before.
    for ref in reversed(list(tiles_between(0, checkpoint.size))):
        if ref.level is None:
            data = encode_bundle(reader.bundle(ref.index, ref.width))
        else:
            data = reader.row(ref.level, ref.index)
        _check_earlier_partials(folder, ref, data, reader)
    journal = read_bytes(folder, JOURNAL, max_bytes=MAX_JOURNAL_FILE_BYTES)
    if journal is not None:
        scan_journal(journal)
    return FsckReport(size=checkpoint.size, root=checkpoint.root)


def _check_earlier_partials(folder: Path, ref: TileRef, data: bytes, reader: TileReader) -> None:
    below = f"{ref.full.path()}.p"
    try:
        names = sorted(one.name for one in (folder / below).iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return  # there never was one, or all were dropped meanwhile
    for name in names:
        path = f"{below}/{name}"
        try:
            width = parse_tile_path(path).width
        except TileError as error:
            raise corrupt(path, "the file is no part of a log") from error
        found = read_bytes(folder, path, max_bytes=MAX_BUNDLE_BYTES)
        if found is None or width > ref.width:
            continue  # dropped meanwhile, or written for a checkpoint still to come
        if ref.level is None:
            wanted = encode_bundle(reader.bundle(ref.index, ref.width)[:width])
        else:
            wanted = data[: width * HASH_BYTES]
        if found != wanted:
            raise corrupt(path, "the partial tile is not the beginning of the tile it became")
