"""Entries on their way into a log: their hashes are computed, nothing is appended. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.base.ledger import merkle
from services.base.ledger.prefix import Prefix
from services.base.ledger.tiles import MAX_ENTRY_BYTES
from services.kernel.errors import InputError, TooLargeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.base.ledger.merkle import Frontier

MAX_APPEND_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Staged:
    """What a log becomes with these entries."""

    base: int
    entries: tuple[bytes, ...]
    frontier: Frontier
    rows: list[list[bytes]]
    root: bytes

    def prefix(self, checkpoint: bytes, proof: Sequence[bytes]) -> Prefix:
        """Return the claim that the log is then a beginning of what a checkpoint signs."""
        return Prefix(
            size=self.frontier.size, root=self.root, hashes=tuple(proof), checkpoint=checkpoint
        )


def stage(entries: Sequence[bytes], frontier: Frontier) -> Staged:
    """Hash entries that are to follow; ``frontier`` is the log's own copy and grows.

    Raises:
        InputError: no entry, or ``too_large``.
    """
    wanted = tuple(entries)
    if not wanted:
        raise InputError("nothing to append")
    sizes = [len(entry) for entry in wanted]
    if max(sizes) > MAX_ENTRY_BYTES or sum(sizes) > MAX_APPEND_BYTES:
        raise TooLargeError(
            f"an entry has at most {MAX_ENTRY_BYTES} bytes, one append {MAX_APPEND_BYTES}"
        )
    base = frontier.size
    rows = frontier.extend(merkle.leaf_hashes(wanted))
    return Staged(base, wanted, frontier, rows, frontier.root())
