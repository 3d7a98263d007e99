"""Which records stand at which names: a table with several sources, and where zones begin. Pure.

A change of one name costs the same however many there are. A name above one that has records is
there, too, though it has none itself (RFC 8020): how many lie below each is counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Final, Protocol

from services.edge.dns.building import RecordSet
from services.edge.dns.wire import Type
from services.kernel.dnsnames import parents_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

Sets = dict[int, RecordSet]
"""The record sets of a name by their type."""

NEGATIVE_TTL_S: Final = 30


class Source(IntEnum):
    """Who says what stands at a name; of two that say the same type the later one counts."""

    MESH = 0
    OPERATOR = 1
    CHALLENGES = 2


class Names(Protocol):
    """Part of the name space."""

    def find(self, name: bytes) -> Mapping[int, RecordSet] | None:
        """Return the sets at a name, none where there are only names below it; None: no such name.

        Args:
            name: wire format, lower case.
        """


class Table:
    """Names and their record sets."""

    def __init__(self, on_change: Callable[[bytes], None] = lambda name: None) -> None:
        self._by_source: dict[bytes, dict[Source, Sets]] = {}
        self._merged: dict[bytes, Sets] = {}
        self._below_count: dict[bytes, int] = {}
        self._on_change = on_change

    def __len__(self) -> int:
        return len(self._merged)

    def names(self, source: Source) -> list[bytes]:
        """Return the names of which a source says something."""
        return [name for name, sources in self._by_source.items() if source in sources]

    def find(self, name: bytes) -> Mapping[int, RecordSet] | None:
        """See ``Names``."""
        sets = self._merged.get(name)
        if sets is None and name in self._below_count:
            return {}
        return sets

    def put(self, source: Source, name: bytes, records: Iterable[RecordSet]) -> None:
        """Let a source say what stands at a name, instead of what it said before."""
        sets: Sets = {one.rtype: one for one in records if one.rdatas}
        known = self._by_source.get(name, {})
        if known.get(source, {}) == sets:
            return
        said = {**known, source: sets}
        if not sets:
            del said[source]
        if said:
            self._by_source[name] = said
            merged = _merged(said)
        else:
            del self._by_source[name]
            merged = {}
        self._set(name, merged)
        self._on_change(name)

    def _set(self, name: bytes, sets: Sets) -> None:
        had = name in self._merged
        if sets:
            self._merged[name] = sets
        else:
            self._merged.pop(name, None)
        step = bool(sets) - had
        for parent in parents_of(name) if step else ():
            count = self._below_count.get(parent, 0) + step
            if count:
                self._below_count[parent] = count
            else:
                del self._below_count[parent]


def _merged(said: Mapping[Source, Sets]) -> Sets:
    """Return what counts; of texts all do, since two may prove something at one name."""
    merged: Sets = {}
    for source in sorted(said):
        for rtype, records in said[source].items():
            before = merged.get(rtype)
            if before is not None and rtype == Type.TXT:
                rdatas = tuple(dict.fromkeys((*before.rdatas, *records.rdatas)))
                ttl_s = min(before.ttl_s, records.ttl_s)
                merged[rtype] = RecordSet(rtype=rtype, ttl_s=ttl_s, rdatas=rdatas)
            else:
                merged[rtype] = records
    return merged


@dataclass(frozen=True, slots=True, kw_only=True)
class Zone:
    """One zone: where it begins, whether strangers may ask for it, and what holds its names."""

    apex: bytes
    public: Names
    """What everybody is told."""
    inner: Names | None = None
    """What those are told, too, who ask through the tunnel."""
    is_open: bool = True
    """Whether anybody may ask; else those alone who do so through the tunnel."""

    def find(self, name: bytes, *, inside: bool) -> Mapping[int, RecordSet] | None:
        """Return what one who asks is told of a name."""
        told = self.public.find(name)
        if not inside or self.inner is None:
            return told
        more = self.inner.find(name)
        if not more:
            return told if more is None or told else more
        return {**told, **more} if told else more
