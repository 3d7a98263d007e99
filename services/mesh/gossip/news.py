"""What has grown here since the others were last told, packed to be understood at once. Pure.

New entries that fit in a few datagrams go out as they are, with their checkpoint, so that whoever
holds what was before them need not ask; of anything longer only the size is told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from services.kernel.errors import SeipdError
from services.mesh.gossip.answers import pack_answer
from services.mesh.gossip.digests import sizes_of
from services.mesh.gossip.messages import MAX_FEEDS, MAX_INDEX, Digest, Entries, Pull, raw_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.mesh.gossip.messages import Message
    from services.mesh.gossip.ports import FeedHead, FeedReader

MAX_TOLD_WHOLE: Final = 16
MAX_DATAGRAMS_A_FEED: Final = 3


class News:
    """The feeds that have grown and how much of each was told."""

    def __init__(self, feeds: FeedReader) -> None:
        self._feeds = feeds
        self._told: dict[str, tuple[int, int]] = {}
        self._grown: dict[str, frozenset[str]] = {}  # by whom each is known

    def __bool__(self) -> bool:
        return bool(self._grown)

    def begin(self, server_id: str, head: FeedHead) -> None:
        """Note what is held of a feed and is no news."""
        self._told.setdefault(server_id, (head.epoch, head.size))

    def grew(self, server_id: str, *, known_by: frozenset[str]) -> None:
        """Note that more is held of a feed, and who need not be told of it."""
        self._grown[server_id] = known_by

    @property
    def known_by(self) -> frozenset[str]:
        """Who knows all that is news here."""
        return frozenset.intersection(*self._grown.values()) if self._grown else frozenset()

    def forget(self, server_id: str) -> None:
        """Drop a feed."""
        self._told.pop(server_id, None)
        self._grown.pop(server_id, None)

    def take(self) -> list[Message]:
        """Return what to tell, once."""
        heads = self._feeds.feeds()
        whole: list[Message] = []
        sizes: list[str] = []
        for server_id in self._grown:
            head = heads.get(server_id)
            if head is None:
                continue
            entries = self._entries(server_id, head) if len(whole) < MAX_TOLD_WHOLE else ()
            whole += entries
            if not entries:
                sizes.append(server_id)
            self._told[server_id] = (head.epoch, head.size)
        self._grown.clear()
        told = sizes_of(sizes, heads)
        return whole + [
            Digest(feeds=tuple(told[at : at + MAX_FEEDS]), asks=False)
            for at in range(0, len(told), MAX_FEEDS)
        ]

    def _entries(self, server_id: str, head: FeedHead) -> Sequence[Entries]:
        """Return what is new of a feed and its checkpoint, if they fit in a few datagrams."""
        epoch, start = self._told.get(server_id, (head.epoch, 0))
        checkpoint = self._feeds.checkpoint(server_id, head.epoch)
        if epoch != head.epoch or start >= head.size or checkpoint is None:
            return ()
        pull = Pull(server=raw_id(server_id), epoch=epoch, start=start, stop=MAX_INDEX)
        if head.size - start > MAX_TOLD_WHOLE:
            return ()
        try:
            entries = self._feeds.read(server_id, epoch, start, head.size)
        except SeipdError:
            return ()
        parts = pack_answer(pull, entries, size=head.size, checkpoint=checkpoint)
        is_whole = parts and parts[-1].checkpoint is not None
        return parts if is_whole and len(parts) <= MAX_DATAGRAMS_A_FEED else ()
