"""An endpoint's side of one session at one relay. Pure: datagrams and the time in, datagrams out.

    ALLOCATING --ALLOCATED--> BINDING --BOUND--> ALONE --BOUND--> TOGETHER
         |                       |                 |                 |
         +-----------------------+--- LOST <-------+-----------------+

A relay that dies says nothing: six questions without an answer, within ten seconds of its last
word as a rule, are the end. Fewer would be the end of one that lives, where some get lost.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Final

from services.base.crypto.aead import XCHACHA20_NONCE_BYTES
from services.base.crypto.agreement import x25519_public
from services.edge.relay import messages
from services.edge.relay.messages import (
    Allocate,
    Allocated,
    Bound,
    Code,
    Error,
    State,
    ToSession,
    Used,
    Verb,
)
from services.kernel.errors import WireError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from services.edge.relay.messages import Answer

RETRY_S: Final = 1.0
ALONE_S: Final = 2.0
HEARTBEAT_S: Final = 5.0
TRIES: Final = 3
"""To get a session."""
SESSION_TRIES: Final = 6
SESSION_RETRY_S: Final = 0.6
_RETRY_ROUND_TRIPS: Final = 1.5
_REMEMBERED: Final = 8
_SAMPLES: Final = 16
_OLD_WEIGHT: Final = 0.875

Datagram = tuple[bytes, tuple[str, int]]
"""What is to be sent, and where."""


class Phase(Enum):
    """How far a session is."""

    ALLOCATING = "allocating"
    BINDING = "binding"
    ALONE = "alone"
    TOGETHER = "together"
    LOST = "lost"


_WHY: Final = {
    Code.FULL: "full",
    Code.ADDRESS: "address",
    Code.ENDED: "ended",
    Code.EXPIRED: "expired",
    Code.REVOKED: "revoked",
}
_PHASES: Final = {State.ALONE: Phase.ALONE, State.TOGETHER: Phase.TOGETHER}


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A relay and a ticket for it, as a server offers them."""

    relay_id: bytes
    hosts: tuple[str, ...]
    """Its addresses, the preferred one first."""
    port: int
    """For control."""
    box_key: bytes
    ticket: bytes = field(repr=False)


class RelayClient:
    """Gets a session, binds it, keeps it, and knows when it is lost."""

    def __init__(
        self,
        *,
        offer: Offer,
        private_key: bytes,
        counters: Iterator[int],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        """Prepare; ``begin`` sends the first datagram.

        Args:
            offer: where, and with what ticket.
            private_key: of this endpoint's WireGuard.
            counters: rise, from above all that this endpoint has used before: the time will do;
                and are shared by all that it has at one relay, whose answers they tell apart.
            random_bytes: gives nonces.

        Raises:
            InputError: ``bad_key``: a relay key of small order.
        """
        self.offer = offer
        self.phase = Phase.ALLOCATING
        self.why = ""
        """Why it was lost."""
        self.latency_s: float | None = None
        """Of a round trip to the relay, smoothed."""
        self.ends_s = 0.0
        """When the ticket is over, by the clock that is handed in."""
        self.statement = b""
        """The newest account of the relay."""
        self.samples_s: deque[float | None] = deque(maxlen=_SAMPLES)
        """Round trips as they came, None for a question that had no answer in time."""
        self._random_bytes = random_bytes
        self._counters = counters
        self._counter = 0
        self._public_key = x25519_public(private_key)
        self._agreed = messages.agreed_key(
            private_key, other=offer.box_key, endpoint=self._public_key, relay=offer.box_key
        )
        self._host_at = 0
        self._session: Allocated | None = None
        self._token = messages.NO_TOKEN
        self._asked_s: dict[int, float] = {}
        self._answered = 0
        self._tries = 0
        self._prolongs = 0
        self._is_moved = False
        self._next_s = 0.0

    @property
    def data_address(self) -> tuple[str, int] | None:
        """Where WireGuard is to send what is for the other side."""
        return (self._host, self._session.data_port) if self._session is not None else None

    @property
    def _host(self) -> str:
        return self.offer.hosts[self._host_at % len(self.offer.hosts)]

    @property
    def _retry_s(self) -> float:
        """After how long an answer counts as lost."""
        if self._session is None:
            return RETRY_S
        usual_s = _RETRY_ROUND_TRIPS * (self.latency_s or 0.0)
        return min(max(usual_s, SESSION_RETRY_S), RETRY_S)

    def begin(self, now_s: float) -> list[Datagram]:
        """Ask for the session."""
        return [self._allocate(now_s)]

    def prolong(self, ticket: bytes, now_s: float) -> list[Datagram]:
        """Go on under a newer ticket for the same relay."""
        offer = self.offer
        self.offer = Offer(
            relay_id=offer.relay_id,
            hosts=offer.hosts,
            port=offer.port,
            box_key=offer.box_key,
            ticket=ticket,
        )
        self._prolongs = TRIES
        return self._prolong(now_s)

    def end(self) -> list[Datagram]:
        """Give the session up."""
        was, self.phase, self.why = self.phase, Phase.LOST, "closed"
        if self._session is None or was is Phase.LOST:
            return []
        return [self._say(Verb.TEARDOWN, self._session)]

    def ask_usage(self, now_s: float) -> list[Datagram]:
        """Ask for an account; ``statement`` has it once it is here."""
        if self._session is None or self.phase is Phase.LOST:
            return []
        asked = self._say(Verb.USAGE, self._session)
        self._asked_s[self._counter] = now_s
        return [asked]

    def is_from(self, address: tuple[str, int]) -> bool:
        """Say whether a datagram from there may be for this session."""
        return address in ((self._host, self.offer.port), self.data_address)

    def receive(self, data: bytes, address: tuple[str, int], now_s: float) -> list[Datagram]:
        """Take what came in; what does not open is not for us."""
        if self.phase is Phase.LOST:
            return []
        try:
            if address == (self._host, self.offer.port):
                return self._on_allocated(messages.open_allocated(self._agreed, data), now_s)
            if self._session is not None and address == self.data_address:
                key = self._session.session_key
                return self._on_answer(messages.open_answer(key, data), now_s)
        except WireError:
            pass
        return []

    def tick(self, now_s: float) -> list[Datagram]:
        """Ask again, or give up; to be called several times a second."""
        if self.phase is Phase.LOST or now_s < self._next_s:
            return []
        if self._tries:
            self.samples_s.append(None)
        if self._tries >= (TRIES if self._session is None else SESSION_TRIES):
            return self._next_host(now_s)
        if self._session is None:
            return [self._allocate(now_s)]
        return [self._ask(self._session, now_s), *self._prolong(now_s)]

    def _prolong(self, now_s: float) -> list[Datagram]:
        """Bring the newer ticket; the session goes on without an answer, too."""
        if self.phase is Phase.LOST or not self._prolongs:
            return []
        self._prolongs -= 1
        tries, next_s = self._tries, self._next_s
        asked = self._allocate(now_s)
        self._tries, self._next_s = tries, next_s
        return [asked]

    def _next_host(self, now_s: float) -> list[Datagram]:
        self._host_at += 1
        if self._session is not None or self._host_at >= len(self.offer.hosts):
            self._lose("silent")
            return []
        self._tries = 0
        return [self._allocate(now_s)]

    def _allocate(self, now_s: float) -> Datagram:
        self._note_asked(now_s)
        message = Allocate(key=self._public_key, counter=self._counter, ticket=self.offer.ticket)
        data = messages.seal_allocate(self._agreed, message, nonce=self._nonce())
        return data, (self._host, self.offer.port)

    def _ask(self, session: Allocated, now_s: float) -> Datagram:
        verb = Verb.BIND if self.phase in (Phase.ALLOCATING, Phase.BINDING) else Verb.HEARTBEAT
        self._note_asked(now_s)
        return self._say(verb, session, is_noted=True)

    def _say(self, verb: Verb, session: Allocated, *, is_noted: bool = False) -> Datagram:
        if not is_noted:
            self._counter = next(self._counters)
        message = ToSession(verb=verb, counter=self._counter, token=self._token)
        data = messages.seal_to_session(
            session.session_key, session.index, message, nonce=self._nonce()
        )
        return data, (self._host, session.data_port)

    def _note_asked(self, now_s: float) -> None:
        self._counter = next(self._counters)
        self._tries += 1
        self._next_s = now_s + self._retry_s
        self._asked_s[self._counter] = now_s
        while len(self._asked_s) > _REMEMBERED:
            del self._asked_s[min(self._asked_s)]

    def _on_allocated(self, answer: Allocated | Error, now_s: float) -> list[Datagram]:
        if not self._is_answer(answer.counter, now_s):
            return []
        if isinstance(answer, Error):
            self._lose(_WHY[answer.code])
            return []
        was, self._session = self._session, answer
        self._prolongs = 0
        self.ends_s = now_s + answer.left_ms / 1000
        if was is not None and was.session_key == answer.session_key:
            return []
        self.phase, self._token = Phase.BINDING, answer.token
        return [self._ask(answer, now_s)]

    def _on_answer(self, answer: Answer, now_s: float) -> list[Datagram]:
        is_news = answer.counter == self._answered
        if not is_news and not self._is_answer(answer.counter, now_s):
            return []
        if isinstance(answer, Error):
            self._lose(_WHY[answer.code])
            return []
        if isinstance(answer, Used):
            self.statement = answer.statement
            return []
        return self._on_bound(answer, now_s)

    def _on_bound(self, answer: Bound, now_s: float) -> list[Datagram]:
        self._token = answer.token
        was_moved, self._is_moved = self._is_moved, answer.state is State.ELSEWHERE
        if self._is_moved:
            # At once, but not over and over behind a router that never settles on an address.
            return [] if was_moved or self._session is None else [self._ask(self._session, now_s)]
        self.phase = _PHASES[answer.state]
        pause_s = HEARTBEAT_S if self.phase is Phase.TOGETHER else ALONE_S
        self._next_s = now_s + pause_s
        return []

    def _is_answer(self, counter: int, now_s: float) -> bool:
        """Say whether this was asked and is the newest answer so far."""
        asked_s = self._asked_s.pop(counter, None)
        if asked_s is None or counter <= self._answered:
            return False
        self._answered, self._tries = counter, 0
        sample_s = max(now_s - asked_s, 0.0)
        self.samples_s.append(sample_s)
        old_s = self.latency_s
        self.latency_s = (
            sample_s if old_s is None else _OLD_WEIGHT * old_s + (1 - _OLD_WEIGHT) * sample_s
        )
        return True

    def _lose(self, why: str) -> None:
        self.phase, self.why = Phase.LOST, why

    def _nonce(self) -> bytes:
        return self._random_bytes(XCHACHA20_NONCE_BYTES)
