"""What a long catching up needs of the rest of the program."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from services.base.ledger.note import NoteVerifier
    from services.base.ledger.tiles import TileRef
    from services.mesh.bulk.effects import Chunk


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a server of the roster answers HTTPS."""

    server_id: str
    host: str
    port: int


class TileSource(Protocol):
    """One server's published copy of a feed."""

    async def checkpoint(self) -> bytes:
        """Return its newest published checkpoint.

        Raises:
            SeipdError: it can't be reached, or refuses.
        """

    async def tile(self, ref: TileRef, *, max_bytes: int) -> bytes:
        """Return a tile or an entry bundle as it is served.

        Raises:
            NotFoundError: it has no such tile.
            TooLargeError: the answer is over ``max_bytes``.
            RateLimitedError: it wants to be left alone for a while.
            ForbiddenError: it refuses for good; UnauthenticatedError likewise.
            SeipdError: no answer, or one that is none.
        """


class FeedSink(Protocol):
    """The copy that is to grow."""

    @property
    def verifier(self) -> NoteVerifier:
        """Name and key of the feed."""

    def held(self) -> tuple[int, bytes]:
        """Return how many entries are held and the root over them."""

    async def store(self, chunk: Chunk) -> None:
        """Store the entries of a chunk; durable on return.

        Raises:
            SeipdError: the disk refused, or something else grew the copy meanwhile.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How far a catching up came."""

    size: int
    """How many entries are held now."""
    target_size: int
    """How many the newest checkpoint that was offered speaks of; 0 where none was."""
    blamed: Mapping[str, str] = field(default_factory=dict)
    """Who sent something false, and what."""
    failed: Mapping[str, str] = field(default_factory=dict)
    """Who did not answer or refused, and how."""

    @property
    def complete(self) -> bool:
        """Whether all that was offered is held."""
        return 0 < self.target_size <= self.size
