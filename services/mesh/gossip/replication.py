"""Decides what to get from whom until every feed is as long here as anywhere. Pure.

For each feed of which somebody holds more, one source at a time: a PULL for each gap in what is
held, again after a time-out, another source after five; once the entries up to a
checkpoint are there, they are stored. A range that is long, too big, or has entries that don't fit
in datagrams is fetched as tiles over HTTPS. What a source has sent so far counts against that
source alone, 64 KiB for all feeds, and a source whose entries did not match is left aside a while.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from services.mesh.gossip.catchup import Catchup, Doing
from services.mesh.gossip.counters import Count, Counters
from services.mesh.gossip.digests import is_behind
from services.mesh.gossip.effects import Catching, FetchTiles, Ingest, SendPull
from services.mesh.gossip.messages import id_of_raw

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from services.mesh.gossip.messages import Entries
    from services.mesh.gossip.ports import FeedHead, Rng

FAR_BEHIND: Final = 256
MAX_BUFFERED_BYTES: Final = 64 * 1024
MAX_ENTRY_OVERHEAD_BYTES: Final = 64
MAX_REASSEMBLY_S: Final = 30.0
MAX_PULLS: Final = 64
MAX_PULLS_A_PEER: Final = 8
MAX_FETCHES: Final = 4
MAX_OTHER_SOURCES: Final = 2
MAX_TRIES: Final = 5
PULL_TIMEOUT_S: Final = 0.5
MAX_PULL_TIMEOUT_S: Final = 2.0
ROUND_TRIPS: Final = 1.6
"""With three quarters of less, answers on their way would be asked for again."""
NEWS_TIMEOUT_S: Final = 0.1
SILENCE_S: Final = 1.0
FIRST_PENALTY_S: Final = 1.0
MAX_PENALTY_S: Final = 300.0


class Replicator:
    """Catches up with every feed; handed offers, entries and the time, returns what to do."""

    def __init__(
        self,
        *,
        rng: Rng,
        counters: Counters,
        usable: Callable[[str], bool],
        own_id: str,
        rtt_s: Callable[[str], float | None] = lambda _: None,
    ) -> None:
        self._rng = rng
        self._counters = counters
        self._usable = usable
        self._rtt_s = rtt_s
        self._own_id = own_id
        self._feeds: dict[str, Catchup] = {}

    @property
    def open_count(self) -> int:
        """How many feeds are known to be longer elsewhere."""
        return len(self._feeds)

    def is_behind_with(self, server_id: str) -> bool:
        """Say whether somebody claims to hold more of a feed."""
        return server_id in self._feeds

    def holders(self, server_id: str, head: FeedHead | None) -> frozenset[str]:
        """Return who told, while it was missing here, that it holds as much of a feed as we do."""
        feed = self._feeds.get(server_id)
        if feed is None or head is None:
            return frozenset()
        held = (head.epoch, head.size)
        return frozenset(peer for peer, offered in feed.offers.items() if offered >= held)

    def buffered_bytes(self, peer: str) -> int:
        """Return how much of what a peer has sent is waiting for the rest."""
        return sum(
            one.buffered_bytes
            for one in self._feeds.values()
            if one.source == peer and one.doing is Doing.PULLING
        )

    def offered(
        self, peer: str, server_id: str, epoch: int, size: int, head: FeedHead | None
    ) -> None:
        """Note that a peer holds so much of a feed of the roster."""
        if not is_behind(head, epoch, size):
            return
        if server_id == self._own_id:
            self._counters.add(Count.OWN_FEED_AHEAD)
        # Each source's word stands alone: a made-up epoch or size costs only who says it.
        feed = self._feeds.setdefault(server_id, Catchup(server_id=server_id))
        feed.offers[peer] = (epoch, size)

    def plan(self, heads: Mapping[str, FeedHead], now_s: float) -> list[Catching]:
        """Return what to do next; cheap when nothing is missing."""
        effects: list[Catching] = []
        for feed in tuple(self._feeds.values()):
            head = heads.get(feed.server_id)
            self._refresh(feed, head)
            if not feed.offers:
                if feed.doing in {Doing.NOTHING, Doing.PULLING}:
                    del self._feeds[feed.server_id]
                continue
            late_s = min(feed.deadline_s, feed.started_s + MAX_REASSEMBLY_S)
            if feed.doing is Doing.PULLING and now_s >= late_s:
                effects += self._timed_out(feed, head, now_s)
            if feed.doing is Doing.NOTHING:
                effects += self._begin(feed, head, now_s)
        return effects

    def entries(
        self, peer: str, message: Entries, head: FeedHead | None, now_s: float
    ) -> list[Catching]:
        """Take a part of an answer, or news that nobody asked for."""
        feed = self._feeds.get(id_of_raw(message.server))
        if (
            feed is None
            or feed.doing is not Doing.PULLING
            or (feed.source, feed.epoch) != (peer, message.epoch)
        ):
            return self._news(peer, message, head, now_s)
        self._refresh(feed, head)
        if not message.entries and message.start < message.size:
            if message.start == feed.first_gap():
                return self._by_https(feed, head, now_s)
            return []
        before = (len(feed.entries), feed.checkpoint)
        if not self._keep(feed, message):
            return self._by_https(feed, head, now_s)
        complete = self._complete(feed)
        if complete is not None:
            feed.doing = Doing.STORING
            return [complete]
        if before != (len(feed.entries), feed.checkpoint):
            feed.progressed, feed.tries = True, 0
            feed.deadline_s = now_s + self._timeout_s(feed)
        feed.bursts -= message.last
        if feed.bursts <= 0 and feed.progressed:
            return self._pull(feed, now_s)
        return []

    def _news(
        self, peer: str, message: Entries, head: FeedHead | None, now_s: float
    ) -> list[Catching]:
        """Store entries that follow what is held; where they don't, go and get what is missing."""
        server_id = id_of_raw(message.server)
        self.offered(peer, server_id, message.epoch, message.size, head)
        feed = self._feeds.get(server_id)
        if feed is None or peer not in feed.offers:
            return []
        have = head.size if head is not None and head.epoch == message.epoch else 0
        if (
            message.start > have
            or feed.doing in {Doing.STORING, Doing.FETCHING}
            or feed.left_aside.get(peer, (0.0, 0.0))[0] > now_s
        ):
            return []
        if message.checkpoint is None and feed.doing is Doing.NOTHING:
            return self._expect_rest(feed, peer, message, have, now_s)
        if message.checkpoint is None or message.start + len(message.entries) != message.size:
            return []
        feed.clear()
        feed.doing, feed.source, feed.epoch, feed.have = Doing.STORING, peer, message.epoch, have
        self._counters.add(Count.ENTRIES_RECEIVED, message.size - have)
        return [
            Ingest(
                server_id=server_id,
                epoch=message.epoch,
                start=have,
                entries=message.entries[have - message.start :],
                checkpoint=message.checkpoint,
                source=peer,
            )
        ]

    def _expect_rest(
        self, feed: Catchup, peer: str, message: Entries, have: int, now_s: float
    ) -> list[Catching]:
        """Wait for what comes right behind the first part of news, as if it had been asked for."""
        if message.entries and self._may_pull(peer):
            feed.doing, feed.source, feed.started_s = Doing.PULLING, peer, now_s
            feed.epoch, feed.have, feed.tries, feed.bursts = message.epoch, have, 0, 1
            feed.deadline_s = now_s + NEWS_TIMEOUT_S
            self._keep(feed, message)
        return []

    def stored(self, server_id: str, head: FeedHead | None, now_s: float) -> list[Catching]:
        """Note that a feed has grown here; go on if there is more."""
        feed = self._feeds.get(server_id)
        if feed is None:
            return []
        feed.clear()
        feed.by_https = False
        feed.left_aside.pop(feed.source, None)
        self._refresh(feed, head)
        if not feed.offers:
            del self._feeds[server_id]
            return []
        return self._begin(feed, head, now_s)

    def failed(self, server_id: str, source: str, now_s: float) -> None:
        """Note that a source's entries could not be fetched or stored: leave it aside a while."""
        feed = self._feeds.get(server_id)
        if feed is None or feed.source != source:
            return
        was_by_https = feed.doing is Doing.FETCHING
        feed.clear()
        # What HTTPS did not give may come in datagrams, if it is not too much for them.
        feed.by_https = False if was_by_https else feed.by_https
        self._leave_aside(feed, source, now_s)

    def forget(self, peer: str) -> None:
        """Drop what a server has offered and sent, and its feed's catching up."""
        self._feeds.pop(peer, None)
        for feed in self._feeds.values():
            feed.offers.pop(peer, None)
            if feed.source == peer and feed.doing is Doing.PULLING:
                feed.clear()

    @staticmethod
    def _refresh(feed: Catchup, head: FeedHead | None) -> None:
        """Forget what is held by now, wherever it came from."""
        feed.offers = {
            peer: (epoch, size)
            for peer, (epoch, size) in feed.offers.items()
            if is_behind(head, epoch, size)
        }
        if head is None or head.epoch != feed.epoch or head.size <= feed.have:
            return
        feed.have = head.size
        for index in [index for index in feed.entries if index < head.size]:
            feed.buffered_bytes -= len(feed.entries.pop(index)) + MAX_ENTRY_OVERHEAD_BYTES
        if feed.checkpoint is not None and feed.checkpoint[0] <= head.size:
            feed.checkpoint = None

    def _begin(self, feed: Catchup, head: FeedHead | None, now_s: float) -> list[Catching]:
        sources = [
            peer
            for peer in sorted(feed.offers)
            if self._usable(peer) and feed.left_aside.get(peer, (0.0, 0.0))[0] <= now_s
        ]
        if not sources:
            return []
        source = self._rng.sample(sources, 1)[0]
        epoch, size = feed.offers[source]
        feed.epoch = epoch
        feed.have = head.size if head is not None and head.epoch == epoch else 0
        if size - feed.have > FAR_BEHIND or feed.by_https:
            if self._busy(Doing.FETCHING) >= MAX_FETCHES:
                return []
            feed.doing, feed.source = Doing.FETCHING, source
            self._counters.add(Count.FETCHES)
            return [
                FetchTiles(
                    server_id=feed.server_id,
                    epoch=epoch,
                    start=feed.have,
                    stop=size,
                    source=source,
                    others=self._others(sources, source),
                )
            ]
        if not self._may_pull(source):
            return []
        feed.doing, feed.source, feed.started_s = Doing.PULLING, source, now_s
        feed.tries = 0
        return self._pull(feed, now_s)

    def _others(self, sources: list[str], source: str) -> tuple[str, ...]:
        """Return who else may be asked for tiles at the same time."""
        rest = [one for one in sources if one != source]
        return tuple(self._rng.sample(rest, min(len(rest), MAX_OTHER_SOURCES)))

    def _may_pull(self, source: str) -> bool:
        return (
            self._busy(Doing.PULLING) < MAX_PULLS
            and self._busy(Doing.PULLING, source) < MAX_PULLS_A_PEER
        )

    def _busy(self, doing: Doing, source: str | None = None) -> int:
        return sum(
            one.doing is doing and source in {None, one.source} for one in self._feeds.values()
        )

    def _pull(self, feed: Catchup, now_s: float) -> list[Catching]:
        gaps = feed.gaps()
        feed.progressed = False
        feed.bursts = len(gaps)
        feed.deadline_s = now_s + self._timeout_s(feed)
        self._counters.add(Count.PULLS_SENT, len(gaps))
        return [
            SendPull(
                peer=feed.source,
                server_id=feed.server_id,
                epoch=feed.epoch,
                start=start,
                stop=stop,
            )
            for start, stop in gaps
        ]

    def _timeout_s(self, feed: Catchup) -> float:
        far_s = ROUND_TRIPS * (self._rtt_s(feed.source) or 0.0)
        first_s = min(max(PULL_TIMEOUT_S, far_s), MAX_PULL_TIMEOUT_S)
        return first_s * (1 + feed.tries / 2) * (0.75 + self._rng.random() / 2)

    def _timed_out(self, feed: Catchup, head: FeedHead | None, now_s: float) -> list[Catching]:
        self._counters.add(Count.PULLS_TIMED_OUT)
        feed.tries += 1
        if now_s - feed.started_s >= MAX_REASSEMBLY_S:
            return self._by_https(feed, head, now_s)
        if feed.tries >= MAX_TRIES:
            # Silence is the network's fault more often than the source's: the pause stays short.
            _, penalty_s = feed.left_aside.get(feed.source, (0.0, 0.0))
            feed.left_aside[feed.source] = (now_s + SILENCE_S, penalty_s)
            feed.clear()
            return []
        return self._pull(feed, now_s)

    def _by_https(self, feed: Catchup, head: FeedHead | None, now_s: float) -> list[Catching]:
        feed.clear()
        feed.by_https = True
        return self._begin(feed, head, now_s)

    def _leave_aside(self, feed: Catchup, source: str, now_s: float) -> None:
        _, before_s = feed.left_aside.get(source, (0.0, 0.0))
        penalty_s = min(before_s * 2, MAX_PENALTY_S) if before_s else FIRST_PENALTY_S
        until_s = now_s + penalty_s * (0.75 + self._rng.random() / 2)
        feed.left_aside[source] = (until_s, penalty_s)

    def _keep(self, feed: Catchup, message: Entries) -> bool:
        """Keep what is new of a message; False when it is too much for the buffer."""
        room = MAX_BUFFERED_BYTES - self.buffered_bytes(feed.source)
        for index, entry in enumerate(message.entries, message.start):
            if index < feed.have or index in feed.entries:
                continue
            room -= len(entry) + MAX_ENTRY_OVERHEAD_BYTES
            if room < 0:
                return False
            feed.entries[index] = entry
            feed.buffered_bytes += len(entry) + MAX_ENTRY_OVERHEAD_BYTES
        if message.checkpoint is not None and message.size > feed.have:
            known = feed.checkpoint[0] if feed.checkpoint else 0
            if message.size > known:
                feed.checkpoint = (message.size, message.checkpoint)
        return True

    def _complete(self, feed: Catchup) -> Ingest | None:
        if feed.checkpoint is None:
            return None
        size, checkpoint = feed.checkpoint
        if feed.first_gap() < size:
            return None
        self._counters.add(Count.ENTRIES_RECEIVED, size - feed.have)
        return Ingest(
            server_id=feed.server_id,
            epoch=feed.epoch,
            start=feed.have,
            entries=tuple(feed.entries[index] for index in range(feed.have, size)),
            checkpoint=checkpoint,
            source=feed.source,
        )
