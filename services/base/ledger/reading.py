"""What is held of the feeds and of the state, for whoever reads it; nothing is changed here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.base.ledger.standing import UNSETTLED_MS
from services.kernel.errors import NotFoundError
from services.kernel.ids import MeshId, ServerId

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from services.base.ledger.copies import FeedLog
    from services.base.ledger.fold import Fold
    from services.base.ledger.heads import FeedHead
    from services.base.ledger.holding import Holding
    from services.base.ledger.roster import Charter
    from services.base.ledger.standing import Item
    from services.base.ledger.state import State


class LedgerReader:
    """Answers from what the holding has."""

    _holding: Holding

    @property
    def state(self) -> State:
        """The replicated state, provisional entries included."""
        return self._holding.fold.state

    @property
    def charter(self) -> Charter:
        """The genesis and the roster."""
        return self._holding.fold.charter

    @property
    def fold(self) -> Fold:
        """The fold itself: for explanations and counters."""
        return self._holding.fold

    @property
    def mesh_id(self) -> MeshId:
        """The mesh of this ledger."""
        return self._holding.fold.mesh_id

    def without_effect(self, kinds: Collection[str]) -> list[Item]:
        """Return the entries of these kinds that are remembered and have no effect, in order."""
        every = self.fold.settled_until(UNSETTLED_MS)
        return [item for item in every if item.record.kind in kinds and item.refusal is not None]

    def feeds(self) -> Mapping[str, FeedHead]:
        """Return how much of each feed is held, as a view that follows the feeds."""
        return self._holding.shelf.heads

    def log(self, server_id: str) -> FeedLog:
        """Return the log of a feed.

        Raises:
            NotFoundError: no such feed is held.
        """
        log = self._holding.shelf.get(server_id)
        if log is None:
            raise NotFoundError(f"no feed of {server_id} is held here")
        return log

    def read(self, server_id: str, epoch: int, start: int, stop: int) -> list[bytes]:
        """Return entries of a feed as they are; empty where they are not held."""
        log = self._holding.shelf.get(server_id, epoch)
        return [] if log is None else log.read(start, min(stop, log.size))

    def checkpoint(self, server_id: str, epoch: int) -> bytes | None:
        """Return the newest signed checkpoint held of a feed."""
        log = self._holding.shelf.get(server_id, epoch)
        return log.checkpoint if log is not None else None

    def root_at(self, server_id: str, epoch: int, size: int) -> bytes | None:
        """Return the root that a feed had at a size; None where that is not held."""
        log = self._holding.shelf.get(server_id, epoch)
        return log.root_at(size) if log is not None else None

    def server_key(self, server_id: str) -> bytes | None:
        """Return the identity key of a server of the roster."""
        certificate = self.charter.server(ServerId(server_id))
        return certificate.key if certificate is not None else None

    def servers(self) -> Mapping[str, bytes]:
        """Return every server of the roster and its identity key."""
        return {name: one.key for name, one in self.charter.servers().items()}

    def witnesses(self) -> Collection[str]:
        """Return the servers whose signatures settle what is in a feed."""
        return self.charter.witnesses_at(self.charter.number)

    def authors(self) -> Collection[str]:
        """Return everybody who has a feed: the servers of the roster and those removed from it."""
        return self.charter.certificates().keys()

    def is_author(self, server_id: str) -> bool:
        """Say whether somebody is or was a server."""
        return self.charter.was_server(ServerId(server_id))

    @property
    def standing(self) -> tuple[int, int, int]:
        """What stays the same while the servers and what counts of their feeds do."""
        return self.charter.number, self._holding.fold.limit_count, self._holding.shelf.aside_count
