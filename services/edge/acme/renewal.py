"""When a certificate is renewed: as its CA suggests, else at two thirds of its life. Pure.

Each certificate has a moment of its own within the window, drawn from its fingerprint: the same
after a restart, and another for each server, so that a mesh does not come to its CA all at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

import msgspec

from services.edge.acme.failures import CaAnswerError

if TYPE_CHECKING:
    from services.edge.acme.checking import Leaf

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
ASK_AGAIN_MS: Final = 6 * HOUR_MS
ALARM_MS: Final = 14 * DAY_MS
MIN_ASK_AGAIN_MS: Final = 60_000
MAX_ASK_AGAIN_MS: Final = DAY_MS
JITTER: Final = 0.05
CLOCK_SLACK_MS: Final = HOUR_MS


class Advice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the CA said about renewing a certificate (RFC 9773)."""

    fingerprint: str
    start_ms: int
    end_ms: int
    ask_again_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a certificate does now."""

    due_ms: int
    is_due: bool
    is_expired: bool
    is_alarming: bool
    """Whether little of its life is left: by then it should long have been renewed."""
    is_clock_wrong: bool


def advice_of(start: str, end: str, *, fingerprint: str, ask_again_ms: int) -> Advice:
    """Return the CA's window.

    Raises:
        CaAnswerError: no times, or the end before the start.
    """
    start_ms, end_ms = _time_ms(start), _time_ms(end)
    if end_ms < start_ms:
        raise CaAnswerError("the CA's window for renewing ends before it begins")
    return Advice(
        fingerprint=fingerprint, start_ms=start_ms, end_ms=end_ms, ask_again_ms=ask_again_ms
    )


def due_ms(leaf: Leaf, advice: Advice | None) -> int:
    """Return when to renew: as is advised, but while there is still life left."""
    share = int(leaf.fingerprint[:8], 16) / 0xFFFFFFFF
    if advice is not None and advice.fingerprint == leaf.fingerprint:
        advised_ms = int(advice.start_ms + share * (advice.end_ms - advice.start_ms))
        return min(advised_ms, leaf.not_after_ms - _alarming_ms(leaf))
    return int(leaf.not_before_ms + leaf.life_ms * (2 / 3 + JITTER * (2 * share - 1)))


def standing_of(leaf: Leaf, advice: Advice | None, now_ms: int) -> Standing:
    """Return how a certificate does.

    A clock that shows a time before the certificate was made is wrong: nothing is due by it.
    """
    due = due_ms(leaf, advice)
    is_clock_wrong = now_ms < leaf.not_before_ms - CLOCK_SLACK_MS
    left_ms = leaf.not_after_ms - now_ms
    return Standing(
        due_ms=due,
        is_due=now_ms >= due and not is_clock_wrong,
        is_expired=left_ms <= 0,
        is_alarming=left_ms < _alarming_ms(leaf),
        is_clock_wrong=is_clock_wrong,
    )


def ask_again_ms(retry_after_s: float) -> int:
    """Return how long to wait before the CA is asked again: as it says, within RFC 9773, 4.3."""
    return min(max(int(retry_after_s * 1000), MIN_ASK_AGAIN_MS), MAX_ASK_AGAIN_MS)


def _alarming_ms(leaf: Leaf) -> int:
    # Of a short-lived one a sixth of its life, half of what is left when it is due.
    return min(ALARM_MS, leaf.life_ms // 6)


def _time_ms(text: str) -> int:
    try:
        when = datetime.fromisoformat(text)
    except ValueError as error:
        raise CaAnswerError("the CA's window for renewing has no times") from error
    if when.tzinfo is None:
        raise CaAnswerError("the CA's window for renewing has no time zone")
    return int(when.timestamp() * 1000)
