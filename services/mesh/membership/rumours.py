"""Rumours on their way: those told least often go first, and each is told so many times. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from services.mesh.membership.alive import ALIVE_BYTES
from services.mesh.membership.messages import MAX_RUMOURS, Rumour, Suspicion

if TYPE_CHECKING:
    from collections.abc import Iterator

SUSPICION_BYTES: Final = 30
LOUD_TELLINGS: Final = 9
"""So often a rumour is told without waiting for a message that goes out anyway."""

Key = tuple[str, str]  # subject and reporter; an ALIVE has no reporter


def size_of(rumour: Rumour) -> int:
    """Return how many bytes a rumour takes in a message, at most."""
    return SUSPICION_BYTES if isinstance(rumour, Suspicion) else ALIVE_BYTES + 2


@dataclass(frozen=True, slots=True)
class _Kept:
    key: Key
    rumour: Rumour


class RumourQueue:
    """What is still to be told, in buckets by how often it was."""

    def __init__(self) -> None:
        self._tellings = 1
        self._buckets: list[dict[Key, Rumour]] = [{}]
        self._told: dict[Key, int] = {}

    def set_tellings(self, tellings: int) -> None:
        """Have each rumour told so many times."""
        self._tellings = max(1, tellings)
        while len(self._buckets) < self._tellings:
            self._buckets.append({})
        for bucket in self._buckets[self._tellings :]:
            for key in bucket:
                del self._told[key]
        del self._buckets[self._tellings :]

    def put(self, key: Key, rumour: Rumour, *, tellings: int | None = None) -> None:
        """Take a rumour that was not told yet; an older one of the same key goes.

        Where nobody is waiting for it, a few ``tellings`` do.
        """
        self.drop(key)
        told = 0 if tellings is None else max(0, self._tellings - tellings)
        self._buckets[told][key] = rumour
        self._told[key] = told

    def drop(self, key: Key) -> None:
        """Tell something no more."""
        told = self._told.pop(key, None)
        if told is not None:
            del self._buckets[told][key]

    def is_loud(self) -> bool:
        """Say whether something is new enough to be told by itself."""
        return any(self._buckets[:LOUD_TELLINGS])

    def take(self, room_bytes: int, first: tuple[Rumour, ...] = ()) -> tuple[Rumour, ...]:
        """Return rumours for one message, ``first`` before all, and count them as told."""
        taken = list(first)
        room_bytes -= sum(map(size_of, first))
        told = []
        for kept in self._in_order():
            if len(taken) >= MAX_RUMOURS or room_bytes < size_of(kept.rumour):
                break
            told.append(kept)
            if kept.rumour not in first:
                taken.append(kept.rumour)
                room_bytes -= size_of(kept.rumour)
        for kept in told:
            self._count(kept)
        return tuple(taken)

    def __len__(self) -> int:
        return len(self._told)

    def _in_order(self) -> Iterator[_Kept]:
        for bucket in self._buckets:
            for key, rumour in bucket.items():
                yield _Kept(key, rumour)

    def _count(self, kept: _Kept) -> None:
        told = self._told[kept.key]
        self.drop(kept.key)
        if told + 1 < self._tellings:
            self._buckets[told + 1][kept.key] = kept.rumour
            self._told[kept.key] = told + 1
