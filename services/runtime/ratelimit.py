"""Token buckets by caller, bounded: the longest unused bucket is forgotten first. Pure."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass

MAX_CALLERS = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """Whether a call may go on, and what the RateLimit headers say."""

    allowed: bool
    limit: int
    remaining: int
    reset_s: int


class RateLimiter:
    """So many calls a minute for each caller, with a burst of as many."""

    def __init__(self, *, per_minute: int, max_callers: int = MAX_CALLERS) -> None:
        self._limit, self._rate_per_s = per_minute, per_minute / 60
        self._max_callers = max_callers
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self.refused_count = 0

    def allow(self, per_minute: int) -> None:
        """Go by another number of calls a minute from now on; what was used stays used."""
        self._limit, self._rate_per_s = per_minute, per_minute / 60

    def spend(self, caller: str, *, now_s: float) -> Spent:
        """Take one token from a caller's bucket."""
        level, filled_s = self._buckets.pop(caller, (float(self._limit), now_s))
        elapsed_s = max(now_s - filled_s, 0.0)
        level = min(level + elapsed_s * self._rate_per_s, float(self._limit))
        allowed = level >= 1
        if allowed:
            level -= 1
        else:
            self.refused_count += 1
        self._buckets[caller] = (level, now_s)
        while len(self._buckets) > self._max_callers:
            self._buckets.popitem(last=False)
        reset_s = math.ceil((1 - level) / self._rate_per_s) if level < 1 else 0
        return Spent(allowed=allowed, limit=self._limit, remaining=int(level), reset_s=reset_s)
