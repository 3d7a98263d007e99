"""Who was asked what, and whose hardware is believed until when. Pure: time and chance come in.

    unknown ── tick ──▶ asked ── good answer ──▶ believed for an hour, asked again after 45 min
                          │ ──── refused ──────▶ asked again later, believed no more
                          └ ──── no answer ────▶ asked again later, believed for its hour

A server that does not answer has not failed: who drops packets must not be able to demote others.
A nonce is good for one answer, within a minute. Times are of a clock that nobody sets: a machine's
that is set back would keep an old quote good.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.base.attestation.errors import (
    QuoteFormatError,
    QuoteRefusedError,
    Refusal,
    refused,
)
from services.base.attestation.judging import HardwarePolicy, judge
from services.base.attestation.messages import Challenge
from services.kernel.errors import InputError, SeipdError, WireError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from services.base.attestation.messages import Answer
    from services.base.attestation.verified import VerifiedQuote

ANSWER_WITHIN_MS = 60_000
REPORT_FRESH_MS = 3_600_000
RENEW_AFTER_MS = 2_700_000
ASK_AGAIN_MS = 120_000
MAX_SERVERS = 1012
MAX_ASKED = 32
"""So many answers are waited for at once: nobody is asked by a storm of a thousand questions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """When a server is asked again, after a good answer and after any other."""

    renew_after_ms: int = RENEW_AFTER_MS
    again_after_ms: int = ASK_AGAIN_MS


@dataclass(frozen=True, slots=True, kw_only=True)
class SendChallenge:
    """Ask this server."""

    challenge: Challenge


@dataclass(frozen=True, slots=True, kw_only=True)
class Unanswered:
    """No answer came in time: no word against the server."""

    server_key: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Lapsed:
    """What was believed of this server's hardware is over an hour old."""

    server_key: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawn:
    """What was believed of this server's hardware is so no more: none is enrolled for it."""

    server_key: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Believed:
    """The server's hardware vouches for it, from now on for an hour."""

    server_key: bytes
    quote: VerifiedQuote
    until_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Disbelieved:
    """The server answered and its answer is not good: why, and how often in a row."""

    server_key: bytes
    code: str
    what: str
    in_a_row: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What an answer is worth: the quote, or why it is not believed."""

    server_key: bytes
    result: VerifiedQuote | SeipdError


Effect = SendChallenge | Unanswered | Lapsed
Outcome = Believed | Disbelieved


@dataclass(slots=True, kw_only=True)
class _Peer:
    due_ms: int
    asked: Challenge | None = None
    asked_at_ms: int = 0
    believed: Believed | None = None
    refusals: int = 0


class Conversation:
    """All servers that one server asks for quotes."""

    def __init__(self, *, fresh_nonce: Callable[[], bytes], pace: Pace | None = None) -> None:
        self._fresh_nonce = fresh_nonce
        self._pace = pace or Pace()
        self._peers: dict[bytes, _Peer] = {}

    def watch(self, server_key: bytes, *, now_ms: int) -> None:
        """Ask this server from now on.

        Raises:
            InputError: ``too_many``: more servers than a mesh has.
        """
        if server_key not in self._peers and len(self._peers) >= MAX_SERVERS:
            raise InputError(f"more than {MAX_SERVERS} servers", code="too_many")
        self._peers.setdefault(server_key, _Peer(due_ms=now_ms))

    def forget(self, server_key: bytes) -> None:
        """Ask this server no more and believe nothing of it."""
        self._peers.pop(server_key, None)

    def hurry(self, server_key: bytes, *, now_ms: int) -> None:
        """Ask this server at the next tick: what is believed of it has changed."""
        if (peer := self._peers.get(server_key)) is not None:
            peer.due_ms = now_ms

    def withdraw(self, server_key: bytes) -> Withdrawn | None:
        """Believe nothing of this server; return what follows, where something was believed."""
        peer = self._peers.get(server_key)
        if peer is None or peer.believed is None:
            return None
        peer.believed = None
        return Withdrawn(server_key=server_key)

    def believed(self, server_key: bytes, *, now_ms: int) -> VerifiedQuote | None:
        """Return what this server's hardware said within the last hour."""
        peer = self._peers.get(server_key)
        if peer is None or peer.believed is None or now_ms >= peer.believed.until_ms:
            return None
        return peer.believed.quote

    def tick(self, *, now_ms: int) -> Iterator[Effect]:
        """Yield what is due."""
        asked_count = sum(peer.asked is not None for peer in self._peers.values())
        for server_key, peer in self._peers.items():
            if peer.asked is not None and now_ms >= peer.asked_at_ms + ANSWER_WITHIN_MS:
                self._give_up(peer, now_ms)
                asked_count -= 1
                yield Unanswered(server_key=server_key)
            if peer.believed is not None and now_ms >= peer.believed.until_ms:
                peer.believed = None
                yield Lapsed(server_key=server_key)
            if peer.asked is None and now_ms >= peer.due_ms and asked_count < MAX_ASKED:
                asked_count += 1
                peer.asked = Challenge(nonce=self._fresh_nonce(), server_key=server_key)
                peer.asked_at_ms = now_ms
                yield SendChallenge(challenge=peer.asked)

    def no_answer(self, sent: Challenge, *, now_ms: int) -> Iterator[Unanswered]:
        """Take it that a challenge won't be answered, without waiting for the minute to end."""
        peer = self._peers.get(sent.server_key)
        if peer is not None and peer.asked == sent:
            self._give_up(peer, now_ms)
            yield Unanswered(server_key=sent.server_key)

    def _give_up(self, peer: _Peer, now_ms: int) -> None:
        peer.asked = None
        peer.due_ms = now_ms + self._pace.again_after_ms

    def hear(
        self, server_key: bytes, answer: Answer, *, policy: HardwarePolicy | None, now_ms: int
    ) -> Outcome:
        """Judge the answer of the server that holds this key: ``claim``, ``judge`` and ``settle``.

        Where one clock serves for both; ``verdict_on`` takes UTC.

        Raises:
            QuoteRefusedError: as ``claim`` does.
        """
        challenge = self.claim(server_key, now_ms=now_ms)
        return self.settle(
            verdict_on(answer, challenge, policy=policy, now_ms=now_ms), now_ms=now_ms
        )

    def claim(self, server_key: bytes, *, now_ms: int, sent: Challenge | None = None) -> Challenge:
        """Return the challenge that an answer of this server is to; it is good for no other.

        Only its own words may count against a server: the caller knows by its session who speaks,
        and where question and answer travel in pairs, which challenge was ``sent``.

        Raises:
            QuoteRefusedError: ``quote_not_asked`` or ``quote_stale``: nothing was asked, or that is
                too long ago, or something else was asked since; nothing changes.
        """
        peer = self._peers.get(server_key)
        if peer is None or peer.asked is None:
            raise refused(Refusal.NOT_ASKED, "an answer to no challenge")
        outdated = sent is not None and sent != peer.asked
        if outdated or now_ms >= peer.asked_at_ms + ANSWER_WITHIN_MS:
            raise refused(Refusal.STALE, "the answer to a challenge of over a minute ago")
        asked, peer.asked = peer.asked, None
        peer.due_ms = now_ms + self._pace.again_after_ms
        return asked

    def settle(self, verdict: Verdict, *, now_ms: int) -> Outcome:
        """Remember what an answer is worth.

        Raises:
            QuoteRefusedError: ``quote_not_asked``: the server was forgotten in the meantime.
        """
        peer = self._peers.get(verdict.server_key)
        if peer is None:
            raise refused(Refusal.NOT_ASKED, "the server is asked no more")
        if isinstance(verdict.result, SeipdError):
            peer.believed = None
            peer.refusals += 1
            return Disbelieved(
                server_key=verdict.server_key,
                code=verdict.result.code,
                what=str(verdict.result),
                in_a_row=peer.refusals,
            )
        peer.believed = Believed(
            server_key=verdict.server_key, quote=verdict.result, until_ms=now_ms + REPORT_FRESH_MS
        )
        peer.refusals = 0
        peer.due_ms = now_ms + self._pace.renew_after_ms
        return peer.believed


def verdict_on(
    answer: Answer, challenge: Challenge, *, policy: HardwarePolicy | None, now_ms: int
) -> Verdict:
    """Judge an answer; some 40 ms of work, and nothing of the conversation in it.

    ``policy`` is what is believed of this one server; None where nothing is enrolled for it;
    ``now_ms`` is UTC, for certificates.
    """
    result: VerifiedQuote | SeipdError
    try:
        if policy is None:
            raise refused(Refusal.NOT_ENROLLED, "no hardware of this server is enrolled")
        result = judge(answer, challenge, policy=policy, now_ms=now_ms)
    except (QuoteFormatError, QuoteRefusedError, WireError) as error:
        result = error
    return Verdict(server_key=challenge.server_key, result=result)
