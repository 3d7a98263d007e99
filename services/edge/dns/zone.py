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
    SERVERS = 1
    OPERATOR = 2
    CHALLENGES = 3


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
        self._said: dict[Source, dict[bytes, Sets]] = {source: {} for source in Source}
        self._below_count: dict[bytes, int] = {}
        self._on_change = on_change

    def names(self, source: Source) -> list[bytes]:
        """Return the names of which a source says something."""
        return list(self._said[source])

    def find(self, name: bytes) -> Mapping[int, RecordSet] | None:
        """See ``Names``."""
        found = [sets for one in self._said.values() if (sets := one.get(name)) is not None]
        if found:
            return found[0] if len(found) == 1 else _merged(found)
        return {} if name in self._below_count else None

    def put(self, source: Source, name: bytes, records: Iterable[RecordSet]) -> None:
        """Let a source say what stands at a name, instead of what it said before."""
        sets: Sets = {one.rtype: one for one in records if one.rdatas}
        said = self._said[source]
        known = said.get(name)
        if known == sets or not (known or sets):
            return
        if sets:
            said[name] = sets
        else:
            del said[name]
        if bool(sets) != bool(known):
            self._count(name, 1 if sets else -1)
        self._on_change(name)

    def _count(self, name: bytes, step: int) -> None:
        for parent in parents_of(name):
            count = self._below_count.get(parent, 0) + step
            if count:
                self._below_count[parent] = count
            else:
                del self._below_count[parent]


def _merged(said: Iterable[Sets]) -> Sets:
    """Return what counts, the sources in their order; of texts all do: two may prove one name."""
    merged: Sets = {}
    for sets in said:
        for rtype, records in sets.items():
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
