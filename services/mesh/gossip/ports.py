"""What gossip needs of the rest of the program."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable, Mapping, Sequence

    from services.mesh.bulk.ports import Outcome, Place

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Moment:
    """One reading of both clocks: seconds that never go back, and milliseconds of UTC."""

    s: float
    ms: int


class FeedHead(Protocol):
    """How much of a feed is held."""

    @property
    def epoch(self) -> int:
        """The feed's epoch."""

    @property
    def size(self) -> int:
        """How many entries are durable here."""

    @property
    def root(self) -> bytes:
        """The Merkle root over them, 32 bytes."""


class FeedReader(Protocol):
    """The feeds and the roster as they are now; nothing here waits."""

    def feeds(self) -> Mapping[str, FeedHead]:
        """Return how much of each feed is held, by server id; looking at one costs little."""

    def read(self, server_id: str, epoch: int, start: int, stop: int) -> list[bytes]:
        """Return the entries of a range; fewer or none where they are not held."""

    def checkpoint(self, server_id: str, epoch: int) -> bytes | None:
        """Return the newest signed checkpoint that is held of a feed."""

    def root_at(self, server_id: str, epoch: int, size: int) -> bytes | None:
        """Return the root that a feed had at a size; None where that is not held."""

    def authors(self) -> Collection[str]:
        """Return everybody who has a feed: the servers of the roster and those removed from it."""

    def is_author(self, server_id: str) -> bool:
        """Say whether somebody is or was a server."""

    def server_key(self, server_id: str) -> bytes | None:
        """Return the identity key of a server of the roster; None once it was removed."""

    def servers(self) -> Mapping[str, bytes]:
        """Return every server of the roster and its identity key."""

    def witnesses(self) -> Collection[str]:
        """Return the servers whose signatures settle what is in a feed."""

    @property
    def standing(self) -> Hashable:
        """What stays the same while the servers and what counts of their feeds do."""


class FeedPort(FeedReader, Protocol):
    """The feeds as gossip changes them."""

    async def ingest(
        self, server_id: str, epoch: int, start: int, entries: list[bytes], checkpoint: bytes
    ) -> int:
        """Store entries under the checkpoint that signs them; return the size held now.

        Raises:
            SeipdError: there is a gap before ``start``, or the checkpoint does not sign them.
        """

    def own_feed_current(self) -> None:
        """Begin to append to our own feed: nobody holds more of it, as far as can be known."""

    async def contradict(self, server_id: str, epoch: int, checkpoint: bytes) -> bool:
        """Compare a checkpoint with what is held of a feed; say whether its author lied.

        Raises:
            SeipdError: the checkpoint is malformed, not well signed, or of more than is held.
        """

    async def cosignature(self, server_id: str, epoch: int, size: int, line: bytes) -> None:
        """Take a witness's cosignature of our feed.

        Raises:
            SeipdError: malformed.
        """

    def subscribe_appends(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` when our own feed has grown."""


class TileFetcher(Protocol):
    """Gets long ranges over HTTPS."""

    async def catch_up(self, places: Sequence[Place], server_id: str, epoch: int) -> Outcome:
        """Bring the copy of a feed up to date from several servers, the preferred first.

        Raises:
            SeipdError: an entry can't be stored, or the feed is another than the one held.
        """


class Rng(Protocol):
    """Chance, handed in: the system's in the daemon, a seeded one in tests."""

    def random(self) -> float:
        """Return a number from 0 up to 1."""

    def getrandbits(self, k: int, /) -> int:
        """Return a number of ``k`` bits."""

    def sample(self, population: Sequence[T], k: int) -> list[T]:
        """Return ``k`` different members."""
