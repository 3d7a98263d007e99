"""Folding whole logs at once: every entry is read twice, verified once and applied once.

The first pass looks only for what feeds say about feeds: rosters, attests and what counts of whom.
After it the place of every entry is known, and since each feed is in that order already, the second
pass merges all feeds into it and applies what comes, while the signatures of what will come next
are verified in other threads. Memory stays the same however long the logs are.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from services.base.ledger.feed import ATTEST_KIND
from services.base.ledger.feedrules import item_of
from services.base.ledger.standing import UNSETTLED_MS, Checked
from services.kernel.errors import CorruptError, WireError
from services.kernel.records import decode_entry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from concurrent.futures import Future

    from services.base.ledger.fold import Fold
    from services.base.ledger.standing import Feed, Item
    from services.kernel.ids import MeshId, ServerId

SCAN_BATCH: Final = 4096
READ_AHEAD: Final = 16_384
MIN_BATCH: Final = 16
MAX_BATCH: Final = 512
THREADS: Final = 2
# Canonical JSON has no spaces, and a quote within a string has a backslash before it.
_MARKS: Final = (b'"kind":"feed.', b'"kind":"roster.', b'"kind":"root.rotate"', b'"kind":"trust.')


class Log(Protocol):
    """A feed as it is held."""

    @property
    def path(self) -> str:
        """Its folder below the data root."""

    @property
    def size(self) -> int:
        """How many entries it has."""

    def read(self, start: int, stop: int) -> list[bytes]:
        """Return entries as they are."""


def parse_entries(entries: Sequence[bytes]) -> list[Checked]:
    """Parse entries whose signatures were checked when they were accepted."""
    result = []
    for data in entries:
        try:
            result.append(Checked(decode_entry(data)))
        except WireError:
            result.append(Checked(None))
    return result


def check_entries(
    entries: Sequence[bytes], *, mesh_id: MeshId, verify: Callable[[bytes, bytes, bytes], bool]
) -> list[Checked]:
    """Parse entries; one that can't be read or has a wrong signature counts for nothing."""
    result = []
    for checked in parse_entries(entries):
        record = checked.entry.record if checked.entry else None
        good = record is not None and verify(
            record.actor, record.signed_bytes(mesh_id), record.actor_sig
        )
        result.append(checked if good else Checked(None))
    return result


@dataclass(slots=True, kw_only=True)
class _Source:
    """One feed from where the fold stands."""

    feed: Feed
    log: Log
    check: Callable[[Sequence[bytes]], list[Checked]]
    start: int
    stop: int
    marked: list[tuple[int, Checked]] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    times_ms: list[int] = field(default_factory=list)

    def scan(self) -> None:
        """Find what the feed says about feeds."""
        for at in range(self.start, self.stop, SCAN_BATCH):
            entries = self.log.read(at, min(at + SCAN_BATCH, self.stop))
            indexes = [
                number
                for number, data in enumerate(entries)
                if any(mark in data for mark in _MARKS)
            ]
            checked = self.check([entries[number] for number in indexes])
            self.marked += zip((at + number for number in indexes), checked, strict=True)

    def settled(self, feed: Feed) -> None:
        """Note how much of the feed is settled now, and when."""
        self.sizes.append(feed.attested)
        self.times_ms.append(feed.settled_ms)

    def settled_ms(self, index: int) -> int:
        """Return when an entry was settled."""
        at = bisect_right(self.sizes, index)
        return self.times_ms[at] if at < len(self.sizes) else UNSETTLED_MS


class Replay:
    """Brings a fold up to date with the logs of all feeds."""

    def __init__(
        self, fold: Fold, *, own_id: ServerId, verify: Callable[[bytes, bytes, bytes], bool]
    ) -> None:
        self._fold = fold
        self._own_id = own_id
        self._verify = verify
        self._sources: dict[ServerId, _Source] = {}

    def run(self, open_logs: Callable[[], Mapping[ServerId, Log]]) -> None:
        """Fold every log.

        Args:
            open_logs: opens the logs that the roster names by now and returns all of them.

        Raises:
            CorruptError: this server's own log is shorter than what the fold began with.
            HorizonError: something belongs before the state that the fold began with.
        """
        while fresh := open_logs().keys() - self._sources.keys():
            logs = open_logs()
            for server_id in sorted(fresh):
                self._sources[server_id] = self._open(server_id, logs[server_id])
            self._offer_changes(fresh)
        for source in self._sources.values():
            self._hear_rosters(source)
        for source in self._sources.values():
            self._hear_attests(source)
        self._fold.begin()
        self._merge()
        for server_id, source in self._sources.items():
            rest = source.log.read(source.stop, source.log.size)
            if rest:
                self._fold.add(server_id, source.stop, source.check(rest))

    def _open(self, server_id: ServerId, log: Log) -> _Source:
        feed = self._fold.feed(server_id)
        own = server_id == self._own_id
        if own and feed.size > log.size:
            raise CorruptError(
                "the state file covers more than the feed holds",
                path=log.path,
                mend="restore the ledger folder from a backup; entries are missing",
            )
        source = _Source(
            feed=feed,
            log=log,
            check=parse_entries if own else self._check,
            start=feed.size,
            stop=log.size,
        )
        source.scan()
        return source

    def _check(self, entries: Sequence[bytes]) -> list[Checked]:
        return check_entries(entries, mesh_id=self._fold.mesh_id, verify=self._verify)

    def _offer_changes(self, names: set[ServerId]) -> None:
        marked = [checked for name in names for _, checked in self._sources[name].marked]
        self._fold.offer_changes(marked)

    def _hear_rosters(self, source: _Source) -> None:
        """Learn which roster the feed goes by, up to one not known, and what counts of others."""
        for index, checked in source.marked:
            if self._fold.rules.is_blocked(source.feed, checked):
                source.stop = index
                break
            if checked.entry is not None and checked.entry.record.kind != ATTEST_KIND:
                self._fold.hear(source.feed, index, checked.entry.record)

    def _hear_attests(self, source: _Source) -> None:
        """Learn what of the feed was settled when, now that all rosters and limits are known."""
        feed = source.feed
        for index, checked in source.marked:
            if index >= source.stop:
                break
            if checked.entry is None or checked.entry.record.kind != ATTEST_KIND:
                continue
            before = feed.attested
            self._fold.hear(feed, index, checked.entry.record)
            if feed.attested > before:
                source.settled(feed)
        if self._fold.settle_kept(feed, source.stop):
            source.settled(feed)

    def _merge(self) -> None:
        count = max(len(self._sources), 1)
        batch = min(max(READ_AHEAD // count, MIN_BATCH), MAX_BATCH)
        with ThreadPoolExecutor(THREADS, thread_name_prefix="ledger-verify") as threads:
            streams = [self._items(one, batch, threads) for one in self._sources.values()]
            for item in heapq.merge(*streams, key=lambda item: item.order_key):
                self._fold.append(item)

    def _items(self, source: _Source, batch: int, threads: ThreadPoolExecutor) -> Iterator[Item]:
        ahead: Future[list[Checked]] | None = None
        feed = source.feed
        for at in range(source.start, source.stop, batch):
            checked = (
                ahead.result() if ahead else self._read(source, at, min(at + batch, source.stop))
            )
            ahead = None
            if at + batch < source.stop:
                end = min(at + 2 * batch, source.stop)
                ahead = threads.submit(self._read, source, at + batch, end)
            for index, one in enumerate(checked, at):
                if one.entry is None:
                    continue
                item = item_of(feed, index, one.entry, source.settled_ms(index))
                if item is not None:
                    yield item
        # A copy may be shorter than the state that was begun with: the rest comes from others.
        feed.size = feed.processed = max(source.start, source.stop)

    @staticmethod
    def _read(source: _Source, start: int, stop: int) -> list[Checked]:
        return source.check(source.log.read(start, stop))
