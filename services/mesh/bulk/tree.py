"""The tree that a signed checkpoint speaks of, as far as its tiles have come. Pure.

Nothing is taken that does not follow from the signed root: the partial tiles of the right edge are
checked together against the root, a full tile against its hash in the tile above it, a bundle
against its hash in the tile of level 1 (or, the last one, against the edge of level 0). So tiles of
level 0 are never asked for, but the partial one: a full bundle's leaves say the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.base.ledger import merkle
from services.base.ledger.merkle import HASH_BYTES, leaf_hashes, root_of_row
from services.base.ledger.store import root_of_edge, split_hashes
from services.base.ledger.tiles import (
    TILE_BYTES,
    TILE_WIDTH,
    TileError,
    TileRef,
    partial_width,
    tile_levels,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.base.ledger.checkpoint import Checkpoint


class TargetTree:
    """What is known of the tree, and what must be asked for next."""

    def __init__(self, target: Checkpoint) -> None:
        self.target = target
        self._edge: list[bytes] = []
        self._rows: dict[tuple[int, int], bytes] = {}
        self._leaves: dict[int, bytes] = {}

    @property
    def bundles(self) -> int:
        """How many bundles the entries lie in, the partial one included."""
        return -(-self.target.size // TILE_WIDTH)

    @property
    def has_edge(self) -> bool:
        """Whether the right edge was taken."""
        return bool(self._edge)

    def edge_refs(self) -> list[TileRef]:
        """Return the partial tiles of the right edge, lowest level first."""
        size = self.target.size
        return [
            TileRef(level=level, index=size >> 8 * level + 8, width=partial_width(level, size))
            for level in tile_levels(size)
            if partial_width(level, size)
        ]

    def take_edge(self, rows: dict[TileRef, bytes]) -> None:
        """Take the rows of ``edge_refs``.

        Raises:
            TileError: they do not lead to the signed root.
        """
        edge = [b""] * len(tile_levels(self.target.size))
        for ref, row in rows.items():
            if ref.level is not None:
                edge[ref.level] = row
        if any(len(row) != ref.width * HASH_BYTES for ref, row in rows.items()):
            raise TileError("a tile of the right edge has another length")
        if root_of_edge(edge) != self.target.root:
            raise TileError("the tiles of the right edge do not lead to the signed root")
        self._edge = edge

    def missing_above(self, bundle: int) -> TileRef | None:
        """Return the highest tile that is missing before a bundle can be checked, or None."""
        if bundle == self.target.size // TILE_WIDTH:
            return None
        missing = None
        level, index = 1, bundle // TILE_WIDTH
        while not self._known(level, index):
            missing = TileRef(level=level, index=index)
            level, index = level + 1, index // TILE_WIDTH
        return missing

    def wants(self, level: int, index: int) -> bool:
        """Say whether a full tile is missing that could be checked now."""
        return not self._known(level, index) and self._known(level + 1, index // TILE_WIDTH)

    def take_tile(self, level: int, index: int, row: bytes) -> None:
        """Take a full tile of level 1 or above, once what lies above it is known.

        Raises:
            TileError: it is not what the tile above it says.
        """
        if len(row) != TILE_BYTES or root_of_row(split_hashes(row)) != self.node(
            8 * (level + 1), index
        ):
            raise TileError(f"tile {level}/{index} is not what the tile above it says")
        self._rows[level, index] = row

    def take_bundle(self, index: int, entries: Sequence[bytes]) -> None:
        """Take the leaves of a bundle; the entries themselves are the caller's.

        Raises:
            TileError: they are not what the tile above says.
        """
        leaves = leaf_hashes(entries)
        if index == self.target.size // TILE_WIDTH:
            good = b"".join(leaves) == self._edge[0]
        else:
            good = root_of_row(leaves) == self.node(8, index) and len(leaves) == TILE_WIDTH
        if not good:
            raise TileError(f"bundle {index} is not what the tile above it says")
        self._leaves[index] = b"".join(leaves)

    def forget_before(self, bundle: int) -> None:
        """Drop what lies left of a bundle and no proof from there on needs."""
        for index in [one for one in self._leaves if one < bundle]:
            del self._leaves[index]
        for level, index in [place for place in self._rows if place[1] < bundle >> 8 * place[0]]:
            del self._rows[level, index]

    def root_at(self, size: int) -> bytes:
        """Return the root at a size; the tiles around it are known."""
        return merkle.range_hash(0, size, self.node)

    def proof_from(self, size: int) -> list[bytes]:
        """Return the consistency proof from a size; the tiles around it are known."""
        return merkle.consistency_proof(size, self.target.size, self.node)

    def node(self, level: int, index: int) -> bytes:
        """Return the hash of a complete node in a tile that is known."""
        tile_level, within = divmod(level, 8)
        first = index << within
        row = self._row(tile_level, first // TILE_WIDTH)
        start = first % TILE_WIDTH * HASH_BYTES
        return root_of_row(split_hashes(row[start : start + (HASH_BYTES << within)]))

    def _row(self, level: int, index: int) -> bytes:
        if index == self.target.size >> 8 * level + 8:
            return self._edge[level]
        return self._leaves[index] if level == 0 else self._rows[level, index]

    def _known(self, level: int, index: int) -> bool:
        return index == self.target.size >> 8 * level + 8 or (level, index) in self._rows
