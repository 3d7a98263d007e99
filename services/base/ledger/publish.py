"""How a log's folder comes to be and how what is published gets there, in an order that survives.

Bundles and tiles first, durable; then the checkpoint that speaks of them. What is left over of
older checkpoints goes last.
"""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

from services.base.ledger.disk import TreeWriter, sync_folder
from services.base.ledger.journal import JOURNAL
from services.base.ledger.store import CHECKPOINT
from services.base.ledger.tiles import TileRef, partial_width, tile_levels
from services.kernel.errors import ConflictError, NotFoundError, StorageError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from services.base.ledger.disk import Disk


def open_journal(disk: Disk, folder: Path, *, create: bool) -> int:
    """Open a log's journal and lock it; make the folder if it is to be created.

    Raises:
        NotFoundError: the folder holds no log, and none is to be created.
        ConflictError: ``locked``: another process has it open.
        StorageError: the disk refused.
    """
    exists = any((folder / name).exists() for name in (JOURNAL, CHECKPOINT))
    if not exists and not create:
        raise NotFoundError(f"{folder.name} holds no log")
    try:
        if not exists:
            _make_folders(disk, folder)
        fd = disk.open(folder / JOURNAL, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            os.close(fd)
            raise
    except BlockingIOError as error:
        raise ConflictError(
            "another process has the log open", code="locked", mend="stop the other daemon"
        ) from error
    except OSError as error:
        raise StorageError(
            f"can't open the log: {error.strerror}", mend="check the disk and the folder's owner"
        ) from error
    return fd


def write_published(
    disk: Disk,
    folder: Path,
    durable_folders: set[Path],
    tiles: Iterable[tuple[str, bytes]],
    head: tuple[str, bytes],
) -> None:
    """Write tiles, then the file that says how far they reach; all is durable on return.

    Raises:
        OSError: the disk refused; the folder is as good as before, or as after.
    """
    with TreeWriter(disk, folder, durable_folders) as writer:
        for path, data in tiles:
            writer.put(path, data)
        writer.flush()
        writer.put(*head)
        writer.flush()


def drop_partials(disk: Disk, folder: Path, old: int, *sizes: int) -> None:
    """Remove partial tiles where a log of size ``old`` has them, but those of it and of ``sizes``.

    The last of ``sizes`` is the log's: where it has the full tile, that serves for all.

    Raises:
        OSError: the disk refused.
    """
    for level in (None, *tile_levels(old)):
        shift = 8 * (level or 0)
        index = old >> shift + 8
        width = partial_width(level or 0, old)
        if not width:
            continue
        keep: set[str] = set()
        if index == sizes[-1] >> shift + 8:
            same = (size for size in (old, *sizes) if size >> shift + 8 == index)
            keep = {str(partial_width(level or 0, size)) for size in same}
        # Otherwise the full tile serves whoever holds an older checkpoint.
        below = folder / f"{TileRef(level=level, index=index).path()}.p"
        for path in sorted(below.glob("*")):
            if path.name not in keep:
                disk.remove(path)
        if not keep and below.exists():
            disk.remove_folder(below)


def _make_folders(disk: Disk, folder: Path) -> None:
    if not folder.parent.exists():
        _make_folders(disk, folder.parent)
    disk.make_folder(folder)
    # The parent's own name too: an earlier attempt may have died between the two.
    sync_folder(disk, folder.parent)
    sync_folder(disk, folder.parent.parent)
