"""Whether our own feed is as long here as anywhere: asked after each start, before we write. Pure.

A disk that was put back holds less of our feed than the others do. Whoever appended to that would
sign a second story, which is proof of a lie. So those in session are asked, and writing begins

* at once where the roster has nobody else;
* when more than half of the other witnesses (without any: one server) hold no more than we;
* after ``ALONE_S``, when nobody in session holds more or has not answered yet: a server that is
  cut off, or most of whose witnesses are down, works on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from services.mesh.gossip.messages import MAX_INDEX, Pull, raw_id

if TYPE_CHECKING:
    from collections.abc import Collection

    from services.mesh.gossip.ports import FeedHead

ALONE_S: Final = 5.0
ASK_AGAIN_S: Final = 0.5


class OwnFeed:
    """What the others told of our own feed since the start."""

    def __init__(self, *, own_id: str, now_s: float) -> None:
        self._own_id = own_id
        self._begun_s = now_s
        self._told: dict[str, tuple[int, int]] = {}  # peer: epoch, size
        self._asked_s: dict[str, float] = {}
        self.is_current = False

    def told(self, peer: str, epoch: int, size: int) -> None:
        """Note how much of our feed a peer holds."""
        if not self.is_current:
            self._told[peer] = (epoch, size)

    def question(self, peer: str, head: FeedHead | None, now_s: float) -> Pull | None:
        """Return what to ask a peer that is in session; None where it is not due.

        Whoever holds as much as we answers with the checkpoint, whoever holds more with what
        follows, and whoever holds less asks us for the rest.
        """
        if self.is_current or head is None or self._agrees(peer, head):
            return None
        if now_s - self._asked_s.get(peer, -ASK_AGAIN_S) < ASK_AGAIN_S:
            return None
        self._asked_s[peer] = now_s
        return Pull(server=raw_id(self._own_id), epoch=head.epoch, start=head.size, stop=MAX_INDEX)

    def decide(
        self,
        *,
        others: Collection[str],
        witnesses: Collection[str],
        in_session: Collection[str],
        head: FeedHead | None,
        now_s: float,
    ) -> bool:
        """Say whether writing may begin now; true once, after which nothing is asked any more."""
        if self.is_current:
            return False
        agreeing = {peer for peer in others if self._agrees(peer, head)}
        voters = {peer for peer in witnesses if peer in others}
        majority = 2 * len(agreeing & voters) > len(voters) if voters else bool(agreeing)
        waited = now_s - self._begun_s >= ALONE_S
        self.is_current = not others or majority or (waited and agreeing.issuperset(in_session))
        if self.is_current:
            self._told.clear()
            self._asked_s.clear()
        return self.is_current

    def _agrees(self, peer: str, head: FeedHead | None) -> bool:
        held = (head.epoch, head.size) if head is not None else (0, 0)
        told = self._told.get(peer)
        return told is not None and (told <= held or not told[1])
