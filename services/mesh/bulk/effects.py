"""What a download wants done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from services.base.ledger.tiles import TileRef


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Get one file of a feed from a source."""

    number: int
    source: str
    ref: TileRef
    max_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Entries that follow what is held, and the proof that ``checkpoint`` signs them."""

    start: int
    entries: tuple[bytes, ...]
    checkpoint: bytes
    proof: tuple[bytes, ...]

    @property
    def stop(self) -> int:
        """The size with these entries."""
        return self.start + len(self.entries)
