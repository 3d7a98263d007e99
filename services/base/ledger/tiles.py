"""Tiles and entry bundles (C2SP tlog-tiles): their paths, their bytes, which ones a log has.

tile/<level>/<index>[.p/<width>]     256 hashes of one level each, or as many as there are
tile/entries/<index>[.p/<width>]     256 entries, each a big-endian uint16 length and the data
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.base.ledger.merkle import HASH_BYTES
from services.kernel.errors import TooLargeError, WireError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

TILE_WIDTH = 256
TILE_LEVELS = 64
TILE_BYTES = TILE_WIDTH * HASH_BYTES
MAX_ENTRY_BYTES = 65535
MAX_BUNDLE_BYTES = TILE_WIDTH * (2 + MAX_ENTRY_BYTES)

_GROUPS_MAX = 6  # of three digits: what fits in 63 bits
_PATH = re.compile(
    r"tile/(?P<level>entries|0|[1-9][0-9]?)"
    r"/(?P<index>(?:x[0-9]{3}/){0,5}[0-9]{3})"
    r"(?:\.p/(?P<width>[1-9][0-9]{0,2}))?\Z",
    re.ASCII,
)


class TileError(WireError):
    """A path or a tile that does not follow the format."""

    default_code = "bad_tile"


@dataclass(frozen=True, slots=True, kw_only=True)
class TileRef:
    """Which tile: ``level`` is None for an entry bundle, ``width`` below 256 for a partial one."""

    level: int | None
    index: int
    width: int = TILE_WIDTH

    def path(self) -> str:
        """Return the path below the log's prefix."""
        level = "entries" if self.level is None else str(self.level)
        partial = "" if self.width == TILE_WIDTH else f".p/{self.width}"
        return f"tile/{level}/{index_path(self.index)}{partial}"

    @property
    def full(self) -> TileRef:
        """The same tile once all of it is there."""
        return TileRef(level=self.level, index=self.index)


def index_path(index: int) -> str:
    """Return an index in groups of three digits, all but the last with an x before them."""
    groups = [f"{index % 1000:03}"]
    while index := index // 1000:
        groups.append(f"x{index % 1000:03}")
    return "/".join(reversed(groups))


def parse_tile_path(path: str) -> TileRef:
    """Parse the path of a tile or a bundle.

    Raises:
        TileError: any spelling but the one that we write.
    """
    match = _PATH.match(path)
    if match is None:
        raise TileError("not the path of a tile")
    level = None if match["level"] == "entries" else int(match["level"])
    index = int(match["index"].replace("x", "").replace("/", ""))
    ref = TileRef(level=level, index=index, width=int(match["width"] or TILE_WIDTH))
    # Groups of zeros before the number, and a width of 256 or more, show here.
    if ref.width > TILE_WIDTH or (level or 0) >= TILE_LEVELS or ref.path() != path:
        raise TileError("not the path of a tile")
    return ref


def partial_width(level: int, size: int) -> int:
    """Return how many hashes the partial tile of a level has; 0 where there is none."""
    return (size >> 8 * level) % TILE_WIDTH


def tile_levels(size: int) -> range:
    """Return the levels of which a log of this size has tiles."""
    return range((size.bit_length() + 7) // 8)


def tiles_between(old: int, new: int) -> Iterator[TileRef]:
    """Yield the tiles, bundles first, that a log of size ``new`` has beyond those of ``old``."""
    for level in (None, *tile_levels(new)):
        shift = 8 * (level or 0)
        first, last = old >> shift + 8, new >> shift + 8
        for index in range(first, last):
            yield TileRef(level=level, index=index)
        width = partial_width(level or 0, new)
        if width and (old >> shift) != (new >> shift):
            yield TileRef(level=level, index=last, width=width)


def encode_bundle(entries: Sequence[bytes]) -> bytes:
    """Return the bytes of a bundle.

    Raises:
        TooLargeError: an entry of more than 65,535 bytes.
    """
    if max(map(len, entries), default=0) > MAX_ENTRY_BYTES:
        raise TooLargeError(f"an entry has at most {MAX_ENTRY_BYTES} bytes")
    return b"".join([len(entry).to_bytes(2, "big") + entry for entry in entries])


def decode_bundle(data: bytes, count: int) -> list[bytes]:
    """Return the entries of a bundle that has exactly ``count`` of them.

    Raises:
        TileError: cut short, or with something left over.
    """
    entries = []
    at = 0
    for _ in range(count):
        start = at + 2
        at = start + int.from_bytes(data[at:start], "big")
        if start > len(data) or at > len(data):
            raise TileError("the bundle ends within an entry")
        entries.append(data[start:at])
    if at != len(data):
        raise TileError("the bundle has bytes left over")
    return entries
