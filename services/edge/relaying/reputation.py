"""How good a relay is, from what those who used it tell. Pure.

Each who tells is heard, and nobody is heard louder. The sessions of one endpoint make its one
opinion; of the endpoints of a customer the middle one makes the voice of the customer, told by any
number of servers or by one; and of the voices again the middle one counts. Two voices that always
say ``NEUTRAL`` sit with the others, so that what a single one says, however bad or good, moves
nothing, and three have to agree before a relay is suspended. Servers that look after a relay
themselves have one voice each.

The middle is taken part by part: how much of the time it answered, how little got lost, how even
its latency is, and what its users made of it. ``PARTS`` says how much each counts.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

NEUTRAL: Final = 0.7
NEUTRAL_VOICES: Final = 2
UPTIME_PART: Final = 0.4
LOSS_PART: Final = 0.25
EVENNESS_PART: Final = 0.15
RATING_PART: Final = 0.2

WORST_LOSS: Final = 0.2
"""Where this much is lost, nobody can work with it: the part is nought."""
QUIET_MS: Final = 20.0
"""Jitter is compared with the latency, or with this where that is shorter."""
MAX_SESSION_S: Final = 600.0
"""A longer session weighs no more."""
KEPT_SESSIONS: Final = 8
KEPT_REPORTERS: Final = 256
"""How many endpoints of one customer are heard about one relay: the latest."""
FORGOTTEN_S: Final = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Four parts, each from 0 (useless) to 1 (none better); no rating where none is told."""

    uptime: float
    delivery: float
    evenness: float
    rating: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What an endpoint noted of one session over a relay."""

    sent_count: int
    answered_count: int
    silent_s: float
    duration_s: float
    latency_ms: float
    jitter_ms: float
    rating: float | None


def quality_of(session: Session) -> Quality:
    """Return how good a relay was in a session; numbers out of range are taken as the nearest."""
    lost = 1.0 - _part(session.answered_count, session.sent_count)
    if not session.answered_count:
        return Quality(uptime=0.0, delivery=0.0, evenness=0.0, rating=session.rating)
    uneven = session.jitter_ms / max(session.latency_ms, QUIET_MS)
    return Quality(
        uptime=1.0 - _part(session.silent_s, session.duration_s),
        delivery=_within(1.0 - lost / WORST_LOSS),
        evenness=_within(1.0 - uneven),
        rating=None if session.rating is None else _within(session.rating),
    )


def score(voices: Sequence[Quality]) -> float:
    """Return the reputation that follows: 0 to 1, ``NEUTRAL`` where nobody spoke."""
    return (
        UPTIME_PART * _middle([one.uptime for one in voices])
        + LOSS_PART * _middle([one.delivery for one in voices])
        + EVENNESS_PART * _middle([one.evenness for one in voices])
        + RATING_PART * _middle([one.rating for one in voices if one.rating is not None])
    )


def voice_of(opinions: Sequence[Quality]) -> Quality:
    """Return the middle of some opinions, one of which at least there is."""
    ratings = [one.rating for one in opinions if one.rating is not None]
    return Quality(
        uptime=_median([one.uptime for one in opinions]),
        delivery=_median([one.delivery for one in opinions]),
        evenness=_median([one.evenness for one in opinions]),
        rating=_median(ratings) if ratings else None,
    )


class Opinions:
    """What the endpoints of one server told of the relays that they used; all of it bounded."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, str], OrderedDict[bytes, deque[_Told]]] = {}

    def add(
        self,
        *,
        relay_id: str,
        customer: str,
        reporter: bytes,
        session_id: bytes,
        session: Session,
        now_s: float,
    ) -> None:
        """Take what an endpoint tells of a session; what it told of that before counts no more."""
        reporters = self._held.setdefault((relay_id, customer), OrderedDict())
        told = reporters.pop(reporter, deque(maxlen=KEPT_SESSIONS))
        kept = [one for one in told if one.session_id != session_id]
        reporters[reporter] = deque([*kept, _Told(session_id, session, now_s)], KEPT_SESSIONS)
        while len(reporters) > KEPT_REPORTERS:
            reporters.popitem(last=False)

    def voices(self, now_s: float) -> dict[str, dict[str, Quality]]:
        """Return the voice of each customer on each relay: relay, then customer."""
        found: dict[str, dict[str, Quality]] = {}
        for (relay_id, customer), reporters in list(self._held.items()):
            _forget(reporters, now_s)
            if reporters:
                opinions = [_opinion(told) for told in reporters.values()]
                found.setdefault(relay_id, {})[customer] = voice_of(opinions)
            else:
                del self._held[relay_id, customer]
        return found

    def keep_only(self, is_known: Callable[[str], bool]) -> None:
        """Forget the relays that are gone."""
        for relay_id, customer in [key for key in self._held if not is_known(key[0])]:
            del self._held[relay_id, customer]


@dataclass(frozen=True, slots=True)
class _Told:
    session_id: bytes
    session: Session
    told_s: float


def joined(told: Iterable[Mapping[str, Quality]]) -> list[Quality]:
    """Return the voices that several servers tell of one relay: each voice once, the middle one.

    Args:
        told: what each server tells, by the name of the voice.
    """
    by_voice: dict[str, list[Quality]] = {}
    for voices in told:
        for name, quality in voices.items():
            by_voice.setdefault(name, []).append(quality)
    return [voice_of(said) for _, said in sorted(by_voice.items())]


def _forget(reporters: OrderedDict[bytes, deque[_Told]], now_s: float) -> None:
    for reporter, told in list(reporters.items()):
        while told and told[0].told_s < now_s - FORGOTTEN_S:
            told.popleft()
        if not told:
            del reporters[reporter]


def _opinion(told: Iterable[_Told]) -> Quality:
    """Return what one endpoint makes of a relay: its sessions by their length."""
    weighed = [
        (quality_of(one.session), min(max(one.session.duration_s, 1.0), MAX_SESSION_S))
        for one in told
    ]
    rated = [(one.rating, weight) for one, weight in weighed if one.rating is not None]
    return Quality(
        uptime=_mean([(one.uptime, weight) for one, weight in weighed]),
        delivery=_mean([(one.delivery, weight) for one, weight in weighed]),
        evenness=_mean([(one.evenness, weight) for one, weight in weighed]),
        rating=_mean(rated) if rated else None,
    )


def _mean(weighed: Sequence[tuple[float, float]]) -> float:
    return _within(sum(value * weight for value, weight in weighed) / sum(w for _, w in weighed))


def _middle(values: Sequence[float]) -> float:
    return _median([*values, *[NEUTRAL] * NEUTRAL_VOICES])


def _median(values: Sequence[float]) -> float:
    ordered = sorted(map(_within, values))
    half = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[half]
    return (ordered[half - 1] + ordered[half]) / 2


def _part(some: float, whole: float) -> float:
    return _within(some / whole) if whole > 0 else 0.0


def _within(value: float) -> float:
    return min(max(value, 0.0), 1.0)
