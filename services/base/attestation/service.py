"""TEE attestation: answers other servers' challenges by this machine's hardware, and asks them.

How bytes travel between servers, which servers there are and which hardware is believed is handed
in; what the outcomes mean for trust is decided by whoever subscribes to them.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from services.base.attestation.binding import NONCE_BYTES, binding
from services.base.attestation.conversation import (
    Believed,
    Conversation,
    Disbelieved,
    Lapsed,
    Pace,
    SendChallenge,
    Unanswered,
    Withdrawn,
    verdict_on,
)
from services.base.attestation.errors import Refusal, refused
from services.base.attestation.messages import (
    Answer,
    decode_answer,
    decode_challenge,
    encode_answer,
    encode_challenge,
)
from services.base.attestation.tpm import TpmEvidence
from services.base.attestation.tpm_structures import name_of
from services.kernel.errors import RateLimitedError, SeipdError, UnavailableError, WireError
from services.kernel.service import Health, HealthState
from services.runtime.ratelimit import RateLimiter
from services.runtime.tasks import TaskOwner

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from services.base.attestation.judging import HardwarePolicy
    from services.base.attestation.messages import Challenge, Evidence
    from services.base.attestation.quoters import Quoter
    from services.base.attestation.verified import VerifiedQuote
    from services.kernel.clock import Clock

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 5.0
MAX_QUOTES_WAITING = 8
QUOTES_PER_MINUTE = 30
"""For one server that asks; a device takes the better part of a second for each."""

News = Believed | Disbelieved | Lapsed | Unanswered | Withdrawn


class Asker(Protocol):
    """The way to the other servers."""

    async def ask(self, server_key: bytes, challenge: bytes) -> bytes:
        """Send a challenge to the server that holds this key; return what that very server answers.

        Raises:
            SeipdError: it can't be reached.
        """


class Journal(Protocol):
    """Where it is written down whose answers were refused, and why."""

    async def refused(self, server_key: bytes, error: SeipdError) -> None:
        """Keep an entry; ``error`` has the code."""


class AttestationService:
    """``quoter`` is None on a machine whose hardware vouches for nothing."""

    name: ClassVar[str] = "attestation"

    def __init__(
        self,
        *,
        own_key: bytes,
        quoter: Quoter | None,
        asker: Asker,
        servers: Callable[[], Collection[bytes]],
        policy: Callable[[bytes], HardwarePolicy | None],
        journal: Journal,
        clock: Clock,
        pace: Pace | None = None,
        look_every_s: float = LOOK_EVERY_S,
    ) -> None:
        self._own_key = own_key
        self._quoter = quoter
        self._asker = asker
        self._servers = servers
        self._policy = policy
        self._journal = journal
        self._clock = clock
        self._look_every_s = look_every_s
        self._talk = Conversation(fresh_nonce=lambda: secrets.token_bytes(NONCE_BYTES), pace=pace)
        self._watched: set[bytes] = set()
        self._subscribers: list[Callable[[News], None]] = []
        self._quotes_waiting = 0
        self._askers = RateLimiter(per_minute=QUOTES_PER_MINUTE)
        self._tasks = TaskOwner("attestation", on_crash=self._on_crash)
        self._started = False
        self._crash = ""

    def subscribe(self, hear: Callable[[News], None]) -> None:
        """Be told of every outcome, before the next one."""
        self._subscribers.append(hear)

    async def start(self) -> None:
        """Begin to ask the other servers."""
        self._started, self._crash = True, ""
        self._tasks.spawn(self._look_forever(), name="attestation-ask")

    async def stop(self) -> None:
        """Ask no more."""
        self._started = False
        await self._tasks.close()

    def believed(self, server_key: bytes) -> VerifiedQuote | None:
        """Return what a server's hardware said within the last hour."""
        return self._talk.believed(server_key, now_ms=self._steady_ms())

    def hurry(self, server_key: bytes) -> None:
        """Ask a server soon: what is believed of it has changed; if that is nothing, at once."""
        self._talk.hurry(server_key, now_ms=self._steady_ms())
        if self._policy(server_key) is None:
            withdrawn = self._talk.withdraw(server_key)
            if withdrawn is not None:
                self._tell(withdrawn)

    async def answer(self, data: bytes, *, asker: bytes) -> bytes:
        """Return the answer to a challenge of another server, whose key ``asker`` is.

        Raises:
            WireError: no challenge.
            QuoteRefusedError: ``quote_other_key``: it is for another server.
            UnavailableError: ``attestation_unavailable``: this machine has no such hardware.
            RateLimitedError: too many quotes are asked for at once, or by this server.
        """
        spent = self._askers.spend(asker.hex(), now_s=self._clock.monotonic_s())
        if not spent.allowed:
            raise RateLimitedError("too many quotes are asked for", retry_after_s=spent.reset_s)
        challenge = decode_challenge(data)
        if challenge.server_key != self._own_key:
            raise refused(Refusal.OTHER_KEY, "the challenge is for the key of another server")
        quoter = self._device()
        bound = binding(quoter.platform, nonce=challenge.nonce, server_key=challenge.server_key)
        evidence = await self._quote(quoter, bound)
        return encode_answer(
            Answer(
                nonce=challenge.nonce,
                server_key=challenge.server_key,
                platform=quoter.platform,
                evidence=evidence,
            )
        )

    async def own_hardware(self) -> dict[str, Any]:
        """Return what an operator enrols this machine by: platform, hardware and registers now.

        Of a device other than a TPM only what it is: what it measured stands in its quotes.

        Raises:
            UnavailableError: ``attestation_unavailable``.
            RateLimitedError: too many quotes are asked for at once.
        """
        quoter = self._device()
        found: dict[str, Any] = {
            "platform": quoter.platform.value,
            "hardware": None,
            "registers": {},
        }
        # Bytes that no challenge leads to: this quote serves for none.
        evidence = await self._quote(quoter, bytes(NONCE_BYTES))
        if isinstance(evidence, TpmEvidence):
            found["hardware"] = name_of(evidence.public).hex()
            found["registers"] = {
                f"pcr{number}": [value.hex()] for number, value in sorted(evidence.pcrs.items())
            }
        return found

    def _device(self) -> Quoter:
        if self._quoter is None:
            raise UnavailableError(
                "this machine has no hardware that vouches for it",
                code="attestation_unavailable",
                mend="name the device in the setting attestation",
            )
        return self._quoter

    async def _quote(self, quoter: Quoter, bound: bytes) -> Evidence:
        if self._quotes_waiting >= MAX_QUOTES_WAITING:
            raise RateLimitedError("too many quotes are asked for at once", retry_after_s=5)
        self._quotes_waiting += 1
        try:
            return await quoter.quote(bound)
        finally:
            self._quotes_waiting -= 1

    def health(self) -> Health:
        """Say by which hardware this server answers, and how many servers are believed."""
        if not self._started:
            return Health(state=HealthState.STOPPED)
        if self._crash:
            return Health(state=HealthState.FAILED, detail=self._crash)
        platform = self._quoter.platform.value if self._quoter is not None else "no hardware here"
        count = sum(self.believed(key) is not None for key in self._watched)
        detail = f"{platform}; {count} of {len(self._watched)} other servers attested"
        if self._quoter is not None and self._policy(self._own_key) is None:
            detail += "; the hardware of this one is not enrolled"
        return Health(state=HealthState.OK, detail=detail)

    async def _look_forever(self) -> None:
        while True:
            self._look()
            await asyncio.sleep(self._look_every_s)

    def _look(self) -> None:
        now_ms = self._steady_ms()
        servers = {key for key in self._servers() if key != self._own_key}
        for key in self._watched - servers:
            self._talk.forget(key)
        for key in servers - self._watched:
            self._talk.watch(key, now_ms=now_ms)
        self._watched = servers
        for effect in list(self._talk.tick(now_ms=now_ms)):
            if isinstance(effect, SendChallenge):
                self._tasks.spawn(self._ask(effect.challenge), name="attestation-challenge")
            else:
                self._tell(effect)

    async def _ask(self, challenge: Challenge) -> None:
        """Ask once; whatever keeps an answer away is no failure of the server."""
        key = challenge.server_key
        try:
            data = await self._asker.ask(key, encode_challenge(challenge))
            answer = decode_answer(data)
        except SeipdError as error:
            if isinstance(error, WireError):
                await self._journal.refused(key, error)
            logger.debug("no attestation: %s", error, extra={"code": error.code})
            for unanswered in self._talk.no_answer(challenge, now_ms=self._steady_ms()):
                self._tell(unanswered)
            return
        now_ms, policy = self._steady_ms(), self._policy(key)
        try:
            self._talk.claim(key, now_ms=now_ms, sent=challenge)
            verdict = await asyncio.to_thread(
                verdict_on, answer, challenge, policy=policy, now_ms=self._clock.now_ms()
            )
            if self._policy(key) is None and policy is not None:
                # Withdrawn while it was judged.
                verdict = verdict_on(answer, challenge, policy=None, now_ms=now_ms)
            outcome = self._talk.settle(verdict, now_ms=now_ms)
        except SeipdError as error:
            await self._journal.refused(key, error)
            return
        if isinstance(verdict.result, SeipdError):
            await self._journal.refused(key, verdict.result)
        self._tell(outcome)

    def _steady_ms(self) -> int:
        return int(self._clock.monotonic_s() * 1000)

    def _on_crash(self, task: str, error: BaseException) -> None:
        self._crash = f"{task} ended: {error!r}"

    def _tell(self, news: News) -> None:
        for hear in self._subscribers:
            hear(news)
