"""What came of asking servers for quotes, as the trust policy sees it. Pure: time comes in.

A refused quote warns, the third in a row is a loss. So is an hour without a good one, whether its
server does not answer, or answers what is not believed: who is asked since less than an hour, or
did well within it, has lost nothing. So, at once, is hardware that was believed and is enrolled for
nobody any more. Times are of a clock that nobody sets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.authority.trust.policy import IN_A_ROW, Attested, Outcome
from services.base.attestation.conversation import (
    REPORT_FRESH_MS,
    Believed,
    Disbelieved,
    Lapsed,
    Unanswered,
    Withdrawn,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

News = Believed | Disbelieved | Lapsed | Unanswered | Withdrawn


@dataclass(slots=True, kw_only=True)
class _Known:
    until_ms: int
    platform: str | None = None
    refusals_count: int = 0
    code: str = "not_attested"


class AttestationBook:
    """What is known of each server's hardware, by its key."""

    def __init__(self) -> None:
        self._known: dict[bytes, _Known] = {}

    def watch(self, server_keys: Iterable[bytes], *, now_ms: int) -> None:
        """Go by these servers: an hour begins for new ones, the others are forgotten."""
        fresh = now_ms + REPORT_FRESH_MS
        self._known = {key: self._known.get(key) or _Known(until_ms=fresh) for key in server_keys}

    def hear(self, news: News) -> None:
        """Take an outcome; of a server that is not watched none."""
        known = self._known.get(news.server_key)
        if known is None:
            return
        if isinstance(news, Believed):
            known.until_ms, known.platform = news.until_ms, news.quote.platform.value
            known.refusals_count, known.code = 0, "quote_stale"
        elif isinstance(news, Disbelieved):
            known.refusals_count, known.code = news.in_a_row, news.code
        elif isinstance(news, Withdrawn):
            known.until_ms, known.code = 0, "quote_not_enrolled"

    def of(self, server_key: bytes, *, now_ms: int) -> Attested:
        """Return what is known of one server."""
        known = self._known.get(server_key)
        if known is None:
            return Attested()
        if known.refusals_count >= IN_A_ROW or now_ms >= known.until_ms:
            return Attested(outcome=Outcome.LOST, code=known.code)
        if known.refusals_count:
            return Attested(outcome=Outcome.WARNED, code=known.code)
        if known.platform is None:
            return Attested()
        return Attested(outcome=Outcome.GOOD, platform=known.platform)
