"""Whether what a peer holds of a feed is a part of what we hold of it, and how that is found out.

A DIGEST tells a size and the beginning of a root. Where our feed had another root at that size, the
peer is asked for its checkpoint, which is what a proof of equivocation needs. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from services.mesh.gossip.effects import Forked
from services.mesh.gossip.messages import Pull, id_of_raw
from services.mesh.gossip.summary import HASH_BYTES

if TYPE_CHECKING:
    from services.mesh.gossip.effects import Effect
    from services.mesh.gossip.messages import Entries, FeedSize
    from services.mesh.gossip.ports import FeedHead, FeedReader

MAX_ASKED: Final = 256
ASK_AGAIN_S: Final = 2.0


class Suspicions:
    """The checkpoints that were asked for; bounded, the oldest question is forgotten first."""

    def __init__(self, feeds: FeedReader) -> None:
        self._feeds = feeds
        self._asked: dict[tuple[str, bytes], float] = {}

    def compare(self, peer: str, one: FeedSize, head: FeedHead | None, now_s: float) -> Pull | None:
        """Return the wish for a peer's checkpoint where it holds another beginning than we."""
        if head is None or head.epoch != one.epoch or not 0 < one.size <= head.size:
            return None
        if one.size == head.size:
            root: bytes | None = head.root
        else:
            root = self._feeds.root_at(id_of_raw(one.server), one.epoch, one.size)
        if root is None or root[:HASH_BYTES] == one.root:
            return None
        question = (peer, one.server)
        if now_s - self._asked.get(question, -ASK_AGAIN_S) < ASK_AGAIN_S:
            return None
        self._asked.pop(question, None)
        self._asked[question] = now_s
        if len(self._asked) > MAX_ASKED:
            del self._asked[next(iter(self._asked))]
        return Pull(server=one.server, epoch=one.epoch, start=one.size, stop=one.size)

    def answered(self, peer: str, message: Entries, effects: list[Effect]) -> None:
        """Take the checkpoint out of an answer to our question."""
        if message.checkpoint is None or (peer, message.server) not in self._asked:
            return
        server_id = id_of_raw(message.server)
        head = self._feeds.feeds().get(server_id)
        if head is None or message.size > head.size:
            return
        effects.append(
            Forked(
                server_id=server_id,
                epoch=message.epoch,
                checkpoint=message.checkpoint,
                source=peer,
            )
        )
