"""A network in memory with a clock of its own: delay, loss, sessions, stalls, cuts and liars."""

from __future__ import annotations

import hashlib
import heapq
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from services.base.crypto.signatures import SigningKey
from services.kernel.ids import server_id_of
from services.mesh.membership.membership import Membership
from services.mesh.membership.messages import Ack, MembershipMessage, PingReq
from services.mesh.membership.ports import Changed, Effect, Tell
from services.mesh.membership.settings import MembershipSettings
from services.mesh.membership.states import State

if TYPE_CHECKING:
    from collections.abc import Callable

MESH_ID = hashlib.sha256(b"a mesh").digest()
START_MS = 1_800_000_000_000
TICK_S = 0.1
BOX_BYTES = 32
HELLO_BYTES = 176
HELLO_ACK_BYTES = 148
MAX_PLAINTEXT_BYTES = 1168
SESSION_S = 600.0

_KEYS: list[SigningKey] = []


def keys(count: int) -> list[SigningKey]:
    """The first so many of an endless row of keys."""
    while len(_KEYS) < count:
        _KEYS.append(SigningKey(hashlib.sha256(b"key %d" % len(_KEYS)).digest()))
    return _KEYS[:count]


def name_of(key: SigningKey) -> str:
    return server_id_of(key.public_key)


@dataclass(frozen=True, slots=True)
class At:
    """A reading of both clocks."""

    s: float

    behind_ms: int = 0

    @property
    def ms(self) -> int:
        return START_MS + round(self.s * 1000) - self.behind_ms


@dataclass(slots=True)
class Host:
    """One server: its membership, and what is wrong with it."""

    server_id: str
    key: SigningKey
    core: Membership
    up: bool = True
    stalled_until_s: float = 0.0
    lag_s: float = 0.0
    sent_bytes: int = 0
    received_bytes: int = 0
    sent_count: int = 0
    sessions: dict[str, float] = field(default_factory=dict)
    waiting: dict[str, list[bytes]] = field(default_factory=dict)
    changes: list[tuple[float, Changed]] = field(default_factory=list)


class Net:
    """Hosts and what is under way between them; the same from the same seed."""

    def __init__(
        self,
        count: int,
        *,
        seed: int,
        delay_s: float = 0.1,
        jitter_s: float = 0.01,
        loss: float = 0.0,
        twice: float = 0.0,
        met: bool = True,
        settled: bool = False,
        settings: MembershipSettings | None = None,
    ) -> None:
        self.rng = random.Random(seed)  # noqa: S311
        self.now_s = 0.0
        self.delay_s, self.jitter_s, self.loss = delay_s, jitter_s, loss
        self.twice = twice
        self.settings = settings or MembershipSettings()
        self.hosts: dict[str, Host] = {}
        self.cut: Callable[[str, str], bool] = lambda _a, _b: False
        self.on_box: Callable[[str, str, MembershipMessage], bool] = lambda _a, _b, _m: True
        self.lying_helpers: set[str] = set()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0
        self._decoder = msgspec.msgpack.Decoder(MembershipMessage)
        self._keys = {name_of(key): key for key in keys(count)}
        for name in self._keys:
            self.boot(name)
        if met:
            self.introduce_all()
        for host in self.hosts.values():
            host.core._is_introduced = settled  # the news of the start is long told

    def introduce_all(self) -> None:
        """Let all know each other and have sessions, as after some time of peace."""
        for one in self.hosts.values():
            for other in self.hosts.values():
                if one is not other:
                    one.sessions[other.server_id] = -self.rng.random() * SESSION_S
                    one.core.heard(other.server_id, At(self.now_s))

    def boot(
        self, name: str, saved: dict[str, object] | None = None, *, slow_clock_ms: int = 0
    ) -> Host:
        """Start a server, or start it anew with only what it had saved."""
        core = Membership(
            own_id=name,
            key=self._keys[name],
            mesh_id=MESH_ID,
            settings=self.settings,
            rng=random.Random(self.rng.getrandbits(64)),  # noqa: S311
            now=At(self.now_s, slow_clock_ms),
            key_of=lambda one: self._keys[one].public_key if one in self._keys else None,
            saved=saved,
        )
        host = Host(name, self._keys[name], core)
        self.hosts[name] = host
        core.set_members(self._keys, At(self.now_s))
        self.at(self.now_s + self.rng.random() * TICK_S, lambda: self._tick(host))
        return host

    def at(self, when_s: float, action: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._events, (when_s, self._order, action))

    def run(self, for_s: float) -> None:
        """Let time pass."""
        until_s = self.now_s + for_s
        while self._events and self._events[0][0] <= until_s:
            self.now_s, _, action = heapq.heappop(self._events)
            action()
        self.now_s = until_s

    def run_until(self, done: Callable[[], bool], *, at_most_s: float) -> float:
        """Let time pass until something is so; return how long that took, or infinity."""
        start_s = self.now_s
        while not done():
            if self.now_s - start_s >= at_most_s:
                return float("inf")
            self.run(TICK_S)
        return self.now_s - start_s

    def names(self) -> list[str]:
        return sorted(self.hosts)

    def others(self, *without: str) -> list[Host]:
        return [host for name, host in self.hosts.items() if name not in without and host.up]

    def states_of(self, name: str) -> set[State]:
        """What all the other running servers hold a server to be."""
        return {host.core.state(name) for host in self.others(name)}

    def deaths(self) -> list[tuple[float, str, str]]:
        """When who held whom dead."""
        return [
            (when_s, name, change.server_id)
            for name, host in self.hosts.items()
            for when_s, change in host.changes
            if change.new is State.DEAD
        ]

    def kill(self, name: str) -> None:
        self.hosts[name].up = False

    def inject(self, sender: str, to: str, message: MembershipMessage) -> None:
        """Have a server say something that its program would not."""
        self._box(self.hosts[sender], to, msgspec.msgpack.encode(message))

    def _tick(self, host: Host) -> None:
        if not host.up or self.hosts.get(host.server_id) is not host:
            return
        if host.stalled_until_s > self.now_s:
            self.at(host.stalled_until_s + 0.001, lambda: self._tick(host))
            return
        self._run(host, host.core.tick(At(self.now_s)))
        self.at(self.now_s + TICK_S, lambda: self._tick(host))

    def _run(self, host: Host, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Tell):
                data = msgspec.msgpack.encode(effect.message)
                assert len(data) <= MAX_PLAINTEXT_BYTES
                self._send(host, effect.peer, data)
            else:
                host.changes.append((self.now_s, effect))

    def _send(self, host: Host, to: str, data: bytes) -> None:
        if self.now_s - host.sessions.get(to, float("-inf")) < SESSION_S:
            self._box(host, to, data)
            return
        waiting = host.waiting.setdefault(to, [])
        waiting.append(data)
        if len(waiting) == 1:
            self._hello(host, to, tries=4)

    def _hello(self, host: Host, to: str, tries: int) -> None:
        if tries == 0:
            host.waiting.pop(to, None)
        if not host.waiting.get(to):
            return
        self._carry(host, to, HELLO_BYTES, lambda other: self._greeted(other, host.server_id))
        self.at(self.now_s + 0.25, lambda: self._hello(host, to, tries - 1))

    def _greeted(self, host: Host, by: str) -> None:
        self._carry(host, by, HELLO_ACK_BYTES, lambda other: self._connected(other, host.server_id))

    def _connected(self, host: Host, to: str) -> None:
        host.sessions[to] = self.now_s
        if to in self.hosts:
            self.hosts[to].sessions[host.server_id] = self.now_s
        self._run(host, host.core.heard(to, At(self.now_s)))
        for data in host.waiting.pop(to, []):
            self._box(host, to, data)

    def _box(self, host: Host, to: str, data: bytes) -> None:
        sender = host.server_id
        if not self.on_box(sender, to, self._decoder.decode(data)):
            return
        self._carry(host, to, len(data) + BOX_BYTES, lambda other: self._open(other, sender, data))

    def _open(self, host: Host, sender: str, data: bytes) -> None:
        message = self._decoder.decode(data)
        if host.server_id in self.lying_helpers and isinstance(message, PingReq):
            self.inject(host.server_id, sender, Ack(seq=message.seq, rumours=()))
            return
        self._run(host, host.core.on_message(sender, message, At(self.now_s)))

    def _carry(self, host: Host, to: str, size: int, arrive: Callable[[Host], None]) -> None:
        if not host.up:
            return
        host.sent_bytes += size
        host.sent_count += 1
        if self.rng.random() < self.loss or self.cut(host.server_id, to):
            return
        delay_s = self.delay_s + self.rng.random() * self.jitter_s
        self.at(self.now_s + delay_s, lambda: self._arrive(to, size, arrive))
        if self.twice and self.rng.random() < self.twice:
            self.at(self.now_s + 2 * delay_s, lambda: self._arrive(to, size, arrive))

    def _arrive(self, to: str, size: int, arrive: Callable[[Host], None]) -> None:
        host = self.hosts[to]
        if not host.up:
            return
        host.received_bytes += size
        wait_s = max(host.lag_s, host.stalled_until_s - self.now_s)
        if wait_s > 0:
            self.at(self.now_s + wait_s, lambda: arrive(host) if host.up else None)
        else:
            arrive(host)
