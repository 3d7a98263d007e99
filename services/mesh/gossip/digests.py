"""What this server holds, as SUMMARY, BUCKETS, DIGEST and FACTS tell of it. Pure.

An idle mesh says one SUMMARY of 20 bytes at a time, whatever its size. Where two differ, at most
``MAX_A_ROUND`` datagrams follow; what did not fit comes in a later round.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from services.mesh.gossip.facthashes import FactHashes
from services.mesh.gossip.messages import (
    ABOUT_FACTS,
    ABOUT_FEEDS,
    MAX_COUNTERS,
    MAX_FEEDS,
    Buckets,
    Digest,
    FactCounter,
    FactCounters,
    FeedSize,
    Message,
    Summary,
    id_of_raw,
    raw_id,
)
from services.mesh.gossip.summary import HASH_BYTES, SetSummary

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from services.mesh.facts.envelope import Fact
    from services.mesh.gossip.ports import FeedHead, Rng

MAX_A_ROUND: Final = 4
_NO_ROOT: Final = bytes(HASH_BYTES)


class Holdings:
    """The feeds and facts of this server, kept as hashes that change with each of them."""

    def __init__(self, *, mesh_id: bytes, rng: Rng) -> None:
        self._rng = rng
        self._feeds = SetSummary(mesh_id)
        self._facts = FactHashes(mesh_id)

    def set_servers(
        self, authors: Iterable[str], members: Iterable[str], heads: Mapping[str, FeedHead]
    ) -> None:
        """Have exactly these authors' feeds, and the facts of those who still are members."""
        names = {raw_id(name): name for name in authors}
        for gone in self._feeds.every() - names.keys():
            self._feeds.remove(gone)
        for name in names.values():
            self.feed(name, heads.get(name))
        self._facts.set_servers(map(raw_id, members))

    def feed(self, server_id: str, head: FeedHead | None) -> None:
        """Note how much is held of a feed now."""
        value = None
        if head is not None and head.size:
            value = head.epoch.to_bytes(4) + head.size.to_bytes(8) + head.root
        self._feeds.put(raw_id(server_id), value)

    def fact(self, fact: Fact, now_ms: int) -> None:
        """Note a fact that is held now."""
        self._facts.put(fact, now_ms)

    def advance(self, now_ms: int) -> None:
        """Let time pass: facts settle and expire."""
        self._facts.advance(now_ms)

    def summary(self) -> Summary:
        """Return what is said of everything in one small message."""
        return Summary(feeds=self._feeds.total, facts=self._facts.hashes.total)

    def answer(self, hashes: Summary | Buckets, heads: Mapping[str, FeedHead]) -> list[Message]:
        """Return what to answer another's hashes with: nothing where they are ours, too."""
        if isinstance(hashes, Buckets):
            return self._differing(hashes, heads)
        return self._compare(hashes, heads)

    def compare_facts(self, theirs: FactCounters) -> tuple[list[bytes], list[FactCounters]]:
        """Return the keys of facts that are newer here; as asked, a wish for those newer there."""
        newer_here, newer_there = [], []
        for one in theirs.facts:
            counter = self._facts.counter(one.key)
            if counter is None:
                continue
            if counter > one.counter:
                newer_here.append(one.key)
            elif counter < one.counter and theirs.asks:
                newer_there.append(FactCounter(key=one.key, counter=counter))
        wish = [FactCounters(facts=tuple(newer_there), asks=False)] if newer_there else []
        return newer_here, wish

    def _compare(self, summary: Summary, heads: Mapping[str, FeedHead]) -> list[Message]:
        answer: list[Message] = []
        if summary.feeds != self._feeds.total:
            keys = self._feeds.every()
            if len(keys) <= MAX_FEEDS:
                answer += self._digests(keys, heads)
            else:
                answer.append(Buckets(about=ABOUT_FEEDS, hashes=self._feeds.packed))
        if summary.facts != self._facts.hashes.total:
            if len(self._facts.counters) <= MAX_COUNTERS:
                answer += self._fact_counters(self._facts.counters)
            else:
                answer.append(Buckets(about=ABOUT_FACTS, hashes=self._facts.hashes.packed))
        return answer

    def _differing(self, buckets: Buckets, heads: Mapping[str, FeedHead]) -> list[Message]:
        if buckets.about == ABOUT_FEEDS:
            return [*self._digests(self._feeds.differing(buckets.hashes), heads)]
        return [*self._fact_counters(self._facts.hashes.differing(buckets.hashes))]

    def _digests(self, keys: Iterable[bytes], heads: Mapping[str, FeedHead]) -> list[Digest]:
        names = self._some(keys, MAX_A_ROUND * MAX_FEEDS)
        sizes = sizes_of([id_of_raw(name) for name in names], heads)
        return [
            Digest(feeds=tuple(sizes[at : at + MAX_FEEDS]), asks=True)
            for at in range(0, len(sizes), MAX_FEEDS)
        ]

    def _fact_counters(self, keys: Iterable[bytes]) -> list[FactCounters]:
        some = [
            FactCounter(key=key, counter=self._facts.counters.get(key, 0))
            for key in self._some(keys, MAX_A_ROUND * MAX_COUNTERS)
        ]
        return [
            FactCounters(facts=tuple(some[at : at + MAX_COUNTERS]), asks=True)
            for at in range(0, len(some), MAX_COUNTERS)
        ]

    def _some(self, keys: Iterable[bytes], count: int) -> list[bytes]:
        """Return all of these, or some by chance where that is too much at once."""
        every = sorted(keys)
        return every if len(every) <= count else self._rng.sample(every, count)


def sizes_of(names: Iterable[str], heads: Mapping[str, FeedHead]) -> list[FeedSize]:
    """Return how much is held of each of these feeds."""
    sizes = []
    for name in names:
        head = heads.get(name)
        sizes.append(
            FeedSize(
                server=raw_id(name),
                epoch=head.epoch if head else 0,
                size=head.size if head else 0,
                root=head.root[:HASH_BYTES] if head else _NO_ROOT,
            )
        )
    return sizes


def is_ahead(head: FeedHead | None, epoch: int, size: int) -> bool:
    """Say whether what is held here goes beyond what somebody else holds."""
    return head is not None and (head.epoch, head.size) > (epoch, size)


def is_behind(head: FeedHead | None, epoch: int, size: int) -> bool:
    """Say whether somebody else holds more than is held here."""
    have = (head.epoch, head.size) if head else (0, 0)
    return size > 0 and (epoch, size) > have
