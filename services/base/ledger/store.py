"""The tiles and bundles of a log as they are read: nothing is believed before it is checked.

The partial tiles at the right edge are held in memory and were checked against the signed root;
every full tile is checked against its hash in the tile above it, every bundle against the hashes of
its entries. So whoever changes a file on disk is found out when it is read, and named.
"""

from __future__ import annotations

import os
import stat
from collections import OrderedDict
from typing import TYPE_CHECKING, Generic, TypeVar

from services.base.ledger.merkle import (
    EMPTY_ROOT,
    HASH_BYTES,
    leaf_hashes,
    root_of_row,
)
from services.base.ledger.tiles import (
    MAX_BUNDLE_BYTES,
    TILE_BYTES,
    TILE_WIDTH,
    TileError,
    TileRef,
    decode_bundle,
    partial_width,
    tile_levels,
)
from services.kernel.errors import CorruptError, StorageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from services.base.ledger.checkpoint import Checkpoint

CHECKPOINT = "checkpoint"
MAX_CACHED_TILES = 16
MAX_CACHED_BUNDLES = 2

_T = TypeVar("_T")


def corrupt(path: str, what: str) -> CorruptError:
    """Return the error that names a damaged file of a log, relative to the log's folder."""
    return CorruptError(
        f"{path}: {what}",
        path=path,
        code="ledger_corrupt",
        mend="put the log's folder back from a backup, or fetch the log again from another server",
    )


def read_bytes(folder: Path, path: str, *, max_bytes: int) -> bytes | None:
    """Return what a regular file below a folder holds, or None if there is none.

    Raises:
        CorruptError: it is something else than a file, or larger than it may be.
        StorageError: the disk refused.
    """
    try:
        fd = os.open(folder / path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StorageError(
            f"can't open {path}: {error.strerror}", mend="check the disk and the file's owner"
        ) from error
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise corrupt(path, "not a regular file")
        try:
            data = file.read(max_bytes + 1)
        except OSError as error:
            raise StorageError(
                f"can't read {path}: {error.strerror}", mend="check the disk"
            ) from error
    if len(data) > max_bytes:
        raise corrupt(path, f"more than {max_bytes} bytes")
    return data


def read_hashes(folder: Path, ref: TileRef) -> bytes:
    """Return the hashes of a tile; of a partial one that is gone, from the full one.

    Raises:
        CorruptError: missing, or of another length.
        StorageError: the disk refused.
    """
    data = read_bytes(folder, ref.path(), max_bytes=TILE_BYTES)
    if data is None and ref != ref.full:
        whole = read_bytes(folder, ref.full.path(), max_bytes=TILE_BYTES)
        if whole is not None and len(whole) == TILE_BYTES:
            data = whole[: ref.width * HASH_BYTES]
    if data is None:
        raise corrupt(ref.path(), "the tile is missing")
    if len(data) != ref.width * HASH_BYTES:
        raise corrupt(ref.path(), f"the tile has {len(data)} bytes, not {ref.width * HASH_BYTES}")
    return data


def read_entries(folder: Path, ref: TileRef) -> list[bytes]:
    """Return the entries of a bundle; of a partial one that is gone, from the full one.

    Raises:
        CorruptError: missing or malformed.
        StorageError: the disk refused.
    """
    for one in dict.fromkeys((ref, ref.full)):
        data = read_bytes(folder, one.path(), max_bytes=MAX_BUNDLE_BYTES)
        if data is not None:
            try:
                return decode_bundle(data, one.width)[: ref.width]
            except TileError as error:
                raise corrupt(one.path(), str(error)) from error
    raise corrupt(ref.path(), "the bundle is missing")


def split_hashes(row: bytes) -> list[bytes]:
    """Return the hashes that stand one after the other in a tile."""
    return [row[at : at + HASH_BYTES] for at in range(0, len(row), HASH_BYTES)]


def root_of_edge(edge: Sequence[bytes]) -> bytes:
    """Return the root that the partial tiles, lowest level first, lead to."""
    carry: bytes | None = None
    for row in edge:
        hashes = split_hashes(row)
        if carry is not None:
            hashes.append(carry)
        if hashes:
            carry = root_of_row(hashes)
    return EMPTY_ROOT if carry is None else carry


def load_tiles(folder: Path, checkpoint: Checkpoint) -> TileReader:
    """Return a reader of the log that a checkpoint, whose signature was checked, speaks of.

    Raises:
        CorruptError: a tile of the right edge is missing or is not what was signed.
        StorageError: the disk refused.
    """
    refs = [_edge_ref(level, checkpoint.size) for level in tile_levels(checkpoint.size)]
    edge = [read_hashes(folder, ref) if ref.width else b"" for ref in refs]
    if root_of_edge(edge) != checkpoint.root:
        raise _blame(folder, refs, edge)
    return TileReader(folder, size=checkpoint.size, edge=edge)


def _edge_ref(level: int, size: int) -> TileRef:
    return TileRef(level=level, index=size >> 8 * level + 8, width=partial_width(level, size))


def _blame(folder: Path, refs: Sequence[TileRef], edge: Sequence[bytes]) -> CorruptError:
    """Find the tile of the edge that does not follow from what lies below it."""
    for ref, row in zip(refs, edge, strict=True):
        first = ref.index * TILE_WIDTH
        if not ref.width:
            continue
        if ref.level:
            children = (TileRef(level=ref.level - 1, index=first + at) for at in range(ref.width))
            derived = [root_of_row(split_hashes(read_hashes(folder, one))) for one in children]
        else:
            derived = leaf_hashes(
                read_entries(folder, TileRef(level=None, index=ref.index, width=ref.width))
            )
        if b"".join(derived) != row:
            return corrupt(ref.path(), "the tile does not follow from what lies below it")
    return corrupt(CHECKPOINT, "the signed root is not that of the tiles")


class TileReader:
    """Hashes and entries of a log; grows with it when it is appended to."""

    def __init__(self, folder: Path, *, size: int, edge: Sequence[bytes]) -> None:
        self.size = size
        self._folder = folder
        self._edge = [bytearray(row) for row in edge]
        self._fresh: dict[tuple[int, int], bytes] = {}
        self._tiles: _Cache[bytes] = _Cache(MAX_CACHED_TILES)
        self._bundles: _Cache[list[bytes]] = _Cache(MAX_CACHED_BUNDLES)

    def row(self, level: int, index: int) -> bytes:
        """Return the hashes of one tile, as many as there are.

        Raises:
            CorruptError: the file is missing or is not what the tile above says.
            StorageError: the disk refused.
        """
        if index == self.size >> 8 * level + 8:
            return bytes(self._edge[level])
        place = (level, index)
        row = self._fresh.get(place) or self._tiles.get(place)
        if row is None:
            ref = TileRef(level=level, index=index)
            row = read_hashes(self._folder, ref)
            if root_of_row(split_hashes(row)) != self.node(8 * (level + 1), index):
                raise corrupt(ref.path(), "the tile is not what the tile above it says")
            self._tiles.put(place, row)
        return row

    def node(self, level: int, index: int) -> bytes:
        """Return the hash of a complete node.

        Raises:
            CorruptError: a tile on the way is damaged.
            StorageError: the disk refused.
        """
        tile_level, within = divmod(level, 8)
        first = index << within
        row = self.row(tile_level, first // TILE_WIDTH)
        start = first % TILE_WIDTH * HASH_BYTES
        part = row[start : start + (HASH_BYTES << within)]
        return part if within == 0 else root_of_row(split_hashes(part))

    def bundle(self, index: int, width: int) -> list[bytes]:
        """Return the first entries of a bundle that lies on disk.

        Raises:
            CorruptError: it is missing or not what the hashes say.
            StorageError: the disk refused.
        """
        entries = self._bundles.get((index, width))
        if entries is None:
            ref = TileRef(level=None, index=index, width=width)
            entries = read_entries(self._folder, ref)
            if b"".join(leaf_hashes(entries)) != self.row(0, index)[: width * HASH_BYTES]:
                raise corrupt(ref.path(), "an entry is not what its hash says")
            self._bundles.put((index, width), entries)
        return entries

    def grow(self, rows: Sequence[Sequence[bytes]]) -> None:
        """Take the nodes that became complete, level by level, from ``Frontier.extend``."""
        new_size = self.size + len(rows[0])
        for level, hashes in enumerate(rows[::8]):
            if level == len(self._edge):
                self._edge.append(bytearray())
            edge = self._edge[level]
            edge += b"".join(hashes)
            index = self.size >> 8 * level + 8
            while len(edge) >= TILE_BYTES:
                self._fresh[level, index] = bytes(edge[:TILE_BYTES])
                del edge[:TILE_BYTES]
                index += 1
        self.size = new_size

    def settle(self) -> None:
        """Forget the full tiles that were kept because they were not on disk."""
        self._fresh.clear()


class _Cache(Generic[_T]):
    """The last few things used, by a pair of numbers."""

    def __init__(self, max_items: int) -> None:
        self._items: OrderedDict[tuple[int, int], _T] = OrderedDict()
        self._max_items = max_items

    def get(self, key: tuple[int, int]) -> _T | None:
        if key not in self._items:
            return None
        self._items.move_to_end(key)
        return self._items[key]

    def put(self, key: tuple[int, int], value: _T) -> None:
        self._items[key] = value
        if len(self._items) > self._max_items:
            self._items.popitem(last=False)
