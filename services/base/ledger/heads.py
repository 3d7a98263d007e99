"""How much of each feed is held."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from typing_extensions import override

from services.kernel.ids import ServerId

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from services.base.ledger.copies import FeedLog
    from services.base.ledger.limits import Prefix


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedHead:
    """How much of a feed is held under a checkpoint that signs exactly that, and its root.

    What a copy on its way has beyond that is nobody else's business before the rest has come, nor
    is what does not count of a feed whose author was removed or lied.
    """

    epoch: int
    size: int
    root: bytes


class FeedHeads(Mapping[str, FeedHead]):
    """The heads of all feeds; looking at one costs the same however many there are."""

    def __init__(
        self,
        logs: Mapping[ServerId, FeedLog],
        limit_of: Callable[[ServerId], Prefix | None],
    ) -> None:
        self._logs = logs
        self._limit_of = limit_of

    @override
    def __getitem__(self, server_id: str) -> FeedHead:
        log = self._logs[ServerId(server_id)]
        limit = self._limit_of(log.server_id)
        if limit is not None and log.signed_size > limit.size:
            return FeedHead(epoch=log.epoch, size=limit.size, root=limit.root)
        return FeedHead(epoch=log.epoch, size=log.signed_size, root=log.signed_root)

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(self._logs)

    @override
    def __len__(self) -> int:
        return len(self._logs)
