"""The feeds that a simulated server holds, as gossip reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from services.base.ledger.heads import FeedHeads
from services.kernel.ids import ServerId

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from services.base.ledger.fold import Fold
    from services.base.ledger.limits import Prefix
    from services.base.ledger.roster import Charter
    from tests.sim.tape import Copy


class Shelf:
    """What gossip asks of a ledger."""

    fold: Fold

    def __init__(self, held: Mapping[ServerId, Copy]) -> None:
        self.held: dict[ServerId, Copy] = dict(held)
        self._heads = FeedHeads(self.held, self._limit_of)  # type: ignore[arg-type]

    def feeds(self) -> Mapping[str, Any]:
        return self._heads

    def read(self, server_id: str, epoch: int, start: int, stop: int) -> list[bytes]:
        copy = self._copy(server_id, epoch)
        return copy.read(start, stop) if copy is not None else []

    def checkpoint(self, server_id: str, epoch: int) -> bytes | None:
        copy = self._copy(server_id, epoch)
        return copy.checkpoint if copy is not None else None

    def root_at(self, server_id: str, epoch: int, size: int) -> bytes | None:
        copy = self._copy(server_id, epoch)
        return copy.root_at(size) if copy is not None else None

    def authors(self) -> Collection[str]:
        return self.charter.certificates().keys()

    def is_author(self, server_id: str) -> bool:
        return self.charter.was_server(ServerId(server_id))

    def server_key(self, server_id: str) -> bytes | None:
        certificate = self.charter.server(ServerId(server_id))
        return certificate.key if certificate is not None else None

    def servers(self) -> Mapping[str, bytes]:
        return {name: one.key for name, one in self.charter.servers().items()}

    def witnesses(self) -> Collection[str]:
        return self.charter.witnesses_at(self.charter.number)

    @property
    def standing(self) -> tuple[int, int]:
        return self.charter.number, self.fold.limit_count

    @property
    def charter(self) -> Charter:
        return self.fold.charter

    def _copy(self, server_id: str, epoch: int) -> Copy | None:
        copy = self.held.get(ServerId(server_id))
        return copy if copy is not None and copy.epoch == epoch else None

    def _limit_of(self, name: ServerId) -> Prefix | None:
        return self.fold.limit_of(name)
