"""Whether relays answer: what came of asking them, and whom to ask next. Pure.

A server asks a few relays now and then: those that it would offer first. One that did not answer
three times in a row is down for this server at once, whatever its reputation is; what the last
twenty answers were like is this server's voice on it.
"""

from __future__ import annotations

from collections import deque
from itertools import pairwise
from statistics import fmean, median
from typing import TYPE_CHECKING, Final

from services.edge.relaying.reputation import Quality, Session, quality_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

KEPT: Final = 20
MISSED_FOR_DOWN: Final = 3
ENOUGH: Final = 5
"""So many answers make a voice."""
INTERVAL_S: Final = 30.0


class Probes:
    """The latest round trips to each relay that is asked, in ms; None where no answer came."""

    def __init__(self) -> None:
        self._held: dict[str, deque[float | None]] = {}

    def put(self, relay_id: str, round_trip_ms: float | None) -> None:
        """Take what came of asking once."""
        self._held.setdefault(relay_id, deque(maxlen=KEPT)).append(round_trip_ms)

    def is_known(self, relay_id: str) -> bool:
        """Say whether a relay was asked before."""
        return relay_id in self._held

    def is_down(self, relay_id: str) -> bool:
        """Say whether a relay did not answer of late."""
        last = list(self._held.get(relay_id, ()))[-MISSED_FOR_DOWN:]
        return len(last) == MISSED_FOR_DOWN and all(one is None for one in last)

    def is_answering(self, relay_id: str) -> bool:
        """Say whether a relay answered when it was asked last."""
        held = self._held.get(relay_id)
        return held is not None and held[-1] is not None

    def latency_ms(self, relay_id: str) -> float | None:
        """Return how long an answer takes of late; None where none came."""
        came = [one for one in self._held.get(relay_id, ()) if one is not None]
        return median(came) if came else None

    def quality(self, relay_id: str) -> Quality | None:
        """Return what this server makes of a relay; None before it has asked often enough."""
        asked = self._held.get(relay_id, ())
        if len(asked) < ENOUGH:
            return None
        came = [one for one in asked if one is not None]
        steps = [abs(one - other) for one, other in pairwise(came)]
        return quality_of(
            Session(
                sent_count=len(asked),
                answered_count=len(came),
                silent_s=INTERVAL_S * (len(asked) - len(came)),
                duration_s=INTERVAL_S * len(asked),
                latency_ms=median(came) if came else 0.0,
                jitter_ms=fmean(steps) if steps else 0.0,
                rating=None,
            )
        )

    def keep_only(self, is_known: Callable[[str], bool]) -> None:
        """Forget relays that are gone."""
        for relay_id in [name for name in self._held if not is_known(name)]:
            del self._held[relay_id]


def next_to_ask(
    near: Sequence[str], doubtful: Sequence[str], *, turn: int, limit: int
) -> list[str]:
    """Return whom to ask now: the near ones and, in turns, those that are not offered.

    Args:
        near: the relays that this server would offer first.
        doubtful: those that it does not offer, and that may have come back.
        turn: counts up.
        limit: how many at most; half of them are kept for those in doubt.
    """
    room = min(len(doubtful), limit // 2)
    start = turn * room % len(doubtful) if doubtful else 0
    chosen = [*doubtful, *doubtful][start : start + room]
    return [*near[: limit - room], *chosen]
