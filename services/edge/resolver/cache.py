"""Answers of upstreams, kept for as long as they may be. Pure: time comes in."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Hashable

    from services.edge.resolver.messages import Answer

MAX_BYTES: Final = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    answer: Answer
    since_s: float
    until_s: float


class AnswerCache:
    """Bounded by what it holds; what was asked for longest ago goes first."""

    def __init__(self, *, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._kept: OrderedDict[Hashable, _Kept] = OrderedDict()
        self.size_bytes = 0
        self.hit_count = 0

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Hashable, *, now_s: float) -> tuple[Answer, int] | None:
        """Return an answer and how many seconds it has lain here; None where none holds."""
        kept = self._kept.get(key)
        if kept is None:
            return None
        if now_s >= kept.until_s:
            self._drop(key)
            return None
        self._kept.move_to_end(key)
        self.hit_count += 1
        return kept.answer, int(now_s - kept.since_s)

    def put(
        self, key: Hashable, answer: Answer, *, now_s: float, ttl_s: float | None = None
    ) -> None:
        """Keep an answer for its TTL, or for another one; one without is not kept."""
        if key in self._kept:
            self._drop(key)
        ttl_s = answer.ttl_s if ttl_s is None else ttl_s
        if ttl_s <= 0 or answer.size_bytes > self._max_bytes:
            return
        self._kept[key] = _Kept(answer=answer, since_s=now_s, until_s=now_s + ttl_s)
        self.size_bytes += answer.size_bytes
        while self.size_bytes > self._max_bytes:
            self._drop(next(iter(self._kept)))

    def clear(self) -> None:
        """Forget everything: other upstreams may say otherwise."""
        self._kept.clear()
        self.size_bytes = 0

    def _drop(self, key: Hashable) -> None:
        self.size_bytes -= self._kept.pop(key).answer.size_bytes
