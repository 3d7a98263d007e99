"""The endpoint's side of rendezvous: what is to be said when, and what an answer means. Pure.

Everything is repeated until it is answered, less and less often, and in the end given up: a call
with ``Why.UNREACHABLE``, a signal in silence. Who is here is said for as long as there is an agent.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from services.edge.punch.messages import (
    MAX_CANDIDATES,
    MAX_EXCLUDED,
    Call,
    Changed,
    Here,
    Known,
    Meet,
    Met,
    Nothing,
    Signal,
    Signalled,
    What,
    Why,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.edge.punch.messages import Candidate, Message, SignalCode

HERE_S: Final = 15.0
HERE_AGAIN_S: Final = (0.5, 1.0, 2.0, 4.0, 8.0)
CALL_AGAIN_S: Final = (0.3, 0.6, 1.2, 2.4)
SIGNAL_AGAIN_S: Final = (0.3, 0.6, 1.2, 2.4)
MAX_WAITING: Final = 256
MAX_REMEMBERED: Final = 1024
MAX_PER_HOST: Final = 4

Event = Known | Meet | Nothing | Signal | What
"""What the agent is told: the messages, ``What`` where something is to be fetched anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What comes of a message: what to answer, and what to tell."""

    replies: tuple[Message, ...] = ()
    events: tuple[Event, ...] = ()


S = TypeVar("S", Call, Signal)
K = TypeVar("K")
V = TypeVar("V")


@dataclass(slots=True, kw_only=True)
class _Waiting(Generic[S]):
    """Something that was said and is not answered yet."""

    message: S
    again_s: tuple[float, ...]
    due_s: float
    sent_count: int = 0


@dataclass(slots=True, kw_only=True)
class _Here:
    """What is said of this endpoint."""

    candidates: tuple[Candidate, ...] | None = ()
    is_symmetric: bool = False
    is_fresh: bool = True
    due_s: float
    sent_s: float = 0.0
    unanswered_count: int = 0
    counters: dict[What, int] = field(default_factory=lambda: dict.fromkeys(What, 0))


class Talk:
    """Everything that is outstanding between one endpoint and its server."""

    def __init__(self, *, counter: int, now_s: float) -> None:
        self._counter = counter
        self._counter_of_here = counter
        self._here = _Here(due_s=now_s)
        self._calls: OrderedDict[bytes, _Waiting[Call]] = OrderedDict()
        self._signals: OrderedDict[tuple[bytes, SignalCode], _Waiting[Signal]] = OrderedDict()
        self._met: OrderedDict[bytes, int] = OrderedDict()
        self._signalled: OrderedDict[tuple[bytes, int], None] = OrderedDict()
        self.known: Known | None = None
        self.known_s: float | None = None
        self.round_trip_s: float | None = None

    @property
    def candidates(self) -> tuple[Candidate, ...] | None:
        """The candidates that are told of; None where nobody is to be met."""
        return self._here.candidates

    def set_candidates(
        self, candidates: Sequence[Candidate] | None, *, is_symmetric: bool, now_s: float
    ) -> None:
        """Tell of these from now on, the first ones if they are too many; at once where others."""
        kept = _bounded(candidates) if candidates is not None else None
        here = self._here
        if (kept, is_symmetric) != (here.candidates, here.is_symmetric):
            here.candidates, here.is_symmetric = kept, is_symmetric
            self._say_here(now_s)

    def refresh(self, now_s: float) -> None:
        """Say at once that the network or the server is another one."""
        self._here.is_fresh = True
        self.known = None
        self._say_here(now_s)

    def call(self, peer: bytes, excluded: Sequence[bytes], now_s: float) -> None:
        """Ask to meet an endpoint; a call that waits already is replaced where it excludes others.

        The oldest is given up for it where too many wait.
        """
        relays = tuple(excluded[-MAX_EXCLUDED:])
        waiting = self._calls.get(peer)
        if waiting is not None and waiting.message.excluded == relays:
            return
        message = Call(counter=self._next(), peer=peer, excluded=relays)
        _put(self._calls, peer, _Waiting(message=message, again_s=CALL_AGAIN_S, due_s=now_s))

    def signal(self, peer: bytes, code: SignalCode, now_s: float) -> None:
        """Let another endpoint know something."""
        message = Signal(counter=self._next(), peer=peer, code=code)
        waiting = _Waiting(message=message, again_s=SIGNAL_AGAIN_S, due_s=now_s)
        _put(self._signals, (peer, code), waiting)

    def forget(self, peer: bytes) -> None:
        """Call an endpoint no more."""
        self._calls.pop(peer, None)

    @property
    def next_s(self) -> float:
        """When something is due next."""
        calls = (one.due_s for one in self._calls.values())
        signals = (one.due_s for one in self._signals.values())
        return min([self._here.due_s, *calls, *signals])

    def due(self, now_s: float) -> Heard:
        """Return what is to be said now, and who is given up."""
        said: list[Message] = [self._here_now(now_s)] if now_s >= self._here.due_s else []
        calls, lost = _due(self._calls, now_s)
        signals, _ = _due(self._signals, now_s)
        return Heard(
            replies=(*said, *calls, *signals),
            events=tuple(Nothing(peer=peer, why=Why.UNREACHABLE) for peer in lost),
        )

    def take(self, message: Message, now_s: float) -> Heard:
        """Take what the server said."""
        match message:
            case Known():
                return self._on_known(message, now_s)
            case Meet():
                return self._on_meet(message)
            case Nothing():
                found = self._calls.pop(message.peer, None)
                return Heard(events=(message,) if found else ())
            case Changed():
                return self._on_changed(message, now_s)
            case Signal():
                return self._on_signal(message)
            case Signalled():
                self._on_signalled(message)
            case _:
                pass
        return Heard()

    def _on_known(self, message: Known, now_s: float) -> Heard:
        here = self._here
        if message.counter != self._counter_of_here:
            return Heard()
        if here.unanswered_count:
            if here.unanswered_count == 1:
                self.round_trip_s = now_s - here.sent_s
            here.unanswered_count = 0
            here.is_fresh = False
            here.due_s = now_s + HERE_S
        changed: list[Event] = [
            what
            for what, version in (
                (What.POLICY, message.policy_version),
                (What.PEERS, message.peers_version),
            )
            if self._is_news(what, version)
        ]
        is_other = self.known is None or self.known.observed != message.observed
        self.known, self.known_s = message, now_s
        return Heard(events=(*([message] if is_other else []), *changed))

    def _on_meet(self, message: Meet) -> Heard:
        replies = (Met(peer=message.peer, serial=message.serial),)
        waiting = self._calls.get(message.peer)
        if waiting is not None and not _is_excluded(message, waiting.message):
            del self._calls[message.peer]
        elif self._met.get(message.peer) == message.serial:
            return Heard(replies=replies)
        _remember(self._met, message.peer, message.serial)
        return Heard(replies=replies, events=(message,))

    def _on_changed(self, message: Changed, now_s: float) -> Heard:
        is_news = self._is_news(message.what, message.version)
        # The versions in it are the receipt.
        self._say_here(now_s)
        return Heard(events=(message.what,) if is_news else ())

    def _on_signal(self, message: Signal) -> Heard:
        replies = (Signalled(counter=message.counter, peer=message.peer),)
        key = (message.peer, message.counter)
        if key in self._signalled:
            return Heard(replies=replies)
        _remember(self._signalled, key, None)
        return Heard(replies=replies, events=(message,))

    def _on_signalled(self, message: Signalled) -> None:
        for key, one in list(self._signals.items()):
            if one.message.counter == message.counter and key[0] == message.peer:
                del self._signals[key]

    def _is_news(self, what: What, version: int) -> bool:
        heard = self._here.counters
        is_news, heard[what] = heard[what] != version, version
        return is_news

    def _say_here(self, now_s: float) -> None:
        self._here.due_s, self._here.unanswered_count = now_s, 0

    def _here_now(self, now_s: float) -> Here:
        here = self._here
        if not here.unanswered_count:
            self._counter_of_here = self._next()
            here.sent_s = now_s
        waits = HERE_AGAIN_S[here.unanswered_count : here.unanswered_count + 1] or (HERE_S,)
        here.unanswered_count += 1
        here.due_s = now_s + waits[0]
        return Here(
            counter=self._counter_of_here,
            candidates=here.candidates,
            is_symmetric=here.is_symmetric,
            is_fresh=here.is_fresh,
            policy_version=here.counters[What.POLICY],
            peers_version=here.counters[What.PEERS],
        )

    def _next(self) -> int:
        self._counter += 1
        return self._counter


def _bounded(candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Return what a server takes: each address once, few ports of one host."""
    kept: dict[tuple[bytes, int], Candidate] = {}
    of_host: dict[bytes, int] = {}
    for one in candidates:
        count = of_host.get(one.host, 0)
        if (one.host, one.port) not in kept and count < MAX_PER_HOST:
            kept[one.host, one.port] = one
            of_host[one.host] = count + 1
    return tuple(kept.values())[:MAX_CANDIDATES]


def _is_excluded(meet: Meet, call: Call) -> bool:
    """Say whether a meeting is none for a call: it was made before relays were excluded."""
    return any(one.relay_id in call.excluded for one in meet.offers)


def _due(waiting: OrderedDict[K, _Waiting[S]], now_s: float) -> tuple[list[S], list[K]]:
    """Return what is to be said again, and what was said often enough, which is forgotten."""
    said, lost = [], []
    for key, one in waiting.items():
        if now_s < one.due_s:
            continue
        if one.sent_count == len(one.again_s):
            lost.append(key)
            continue
        one.due_s = now_s + one.again_s[one.sent_count]
        one.sent_count += 1
        said.append(one.message)
    for key in lost:
        del waiting[key]
    return said, lost


def _put(waiting: OrderedDict[K, _Waiting[S]], key: K, one: _Waiting[S]) -> None:
    waiting.pop(key, None)
    waiting[key] = one
    if len(waiting) > MAX_WAITING:
        waiting.popitem(last=False)


def _remember(seen: OrderedDict[K, V], key: K, value: V) -> None:
    seen.pop(key, None)
    seen[key] = value
    if len(seen) > MAX_REMEMBERED:
        seen.popitem(last=False)
