"""What the services of this tier need of the ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from services.base.ledger.heads import FeedHead
    from services.base.ledger.roster import Charter
    from services.base.ledger.standing import Item
    from services.base.ledger.state import State
    from services.base.ledger.watching import Change
    from services.base.ledger.writer import Receipt
    from services.kernel.ids import MeshId, ServerId
    from services.kernel.records import Record


class Ledger(Protocol):
    """Reads the state, appends records, tells of changes."""

    server_id: ServerId

    @property
    def state(self) -> State:
        """The replicated state."""

    @property
    def charter(self) -> Charter:
        """The genesis and the roster."""

    @property
    def mesh_id(self) -> MeshId:
        """The mesh."""

    def feeds(self) -> Mapping[str, FeedHead]:
        """How much of each feed is held."""

    def root_at(self, server_id: str, epoch: int, size: int) -> bytes | None:
        """Return the root that a feed had at a size; None where that is not held."""

    def without_effect(self, kinds: Collection[str]) -> list[Item]:
        """Return the entries of these kinds that are remembered and have no effect."""

    def require_writable(self) -> None:
        """Refuse where records would not be taken now.

        Raises:
            UnavailableError: ``read_only`` or ``clock_off``.
        """

    async def submit(self, records: Sequence[Record]) -> list[Receipt]:
        """Append records, all or none."""

    async def name_roster(self) -> None:
        """Go by the newest roster from now on."""

    def subscribe(self, views: Sequence[str], subscriber: Callable[[list[Change]], None]) -> None:
        """Tell of changes in these views."""


class Allocator(Protocol):
    """Gives out tunnel addresses."""

    def pick(self) -> str:
        """Reserve the next free address.

        Raises:
            PoolExhaustedError: none is left.
        """

    def give_back(self, address: str) -> None:
        """Return an address that was picked and not assigned."""


Json = dict[str, Any]
