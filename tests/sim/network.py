"""A network of datagrams that loses, delays, doubles and overtakes, and that can be cut."""

from __future__ import annotations

import hashlib
import struct
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable

    from tests.sim.events import EventQueue

Address = tuple[str, int]

HEADER_BYTES = 28  # IPv4 and UDP, which the traffic figures include


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkModel:
    """What happens to a datagram between two servers, each with its own luck."""

    delay_s: float = 0.02
    jitter_s: float = 0.0
    loss: float = 0.0
    double: float = 0.0
    late: float = 0.0  # so many come up to late_s after those that were sent later
    late_s: float = 1.0


@dataclass(slots=True)
class _Port:
    owner: str
    deliver: Callable[[bytes, Address], None] | None


class Network:
    """Who listens where, which ways are cut, and what was sent."""

    def __init__(self, queue: EventQueue, rng: random.Random, link: LinkModel) -> None:
        self._queue = queue
        self._rng = rng
        self._ports: dict[Address, _Port] = {}
        self._digest = hashlib.blake2b(digest_size=16)
        self.link = link
        self.cuts: set[tuple[str, str]] = set()
        self.dark: set[str] = set()  # addresses' first halves that lead nowhere now
        self.sent_bytes: Counter[str] = Counter()
        self.sent_count: Counter[str] = Counter()
        self.delivered_count = 0

    def listen(
        self, address: Address, owner: str, deliver: Callable[[bytes, Address], None]
    ) -> None:
        self._ports[address] = _Port(owner, deliver)

    def hang_up(self, owner: str) -> None:
        for port in self._ports.values():
            if port.owner == owner:
                port.deliver = None

    def cut(self, these: Iterable[str], those: Iterable[str], *, one_way: bool = False) -> None:
        """Let nothing through from these to those, nor back unless it is one way."""
        those = tuple(those)
        for one in these:
            for other in those:
                self.cuts.add((one, other))
                if not one_way:
                    self.cuts.add((other, one))

    def heal(self) -> None:
        self.cuts.clear()

    def reaches(self, one: str, other: str) -> bool:
        return (one, other) not in self.cuts

    def send(self, sender: str, data: bytes, source: Address, to: Address) -> None:
        self.sent_bytes[sender] += len(data) + HEADER_BYTES
        self.sent_count[sender] += 1
        port = self._ports.get(to)
        if port is None or (sender, port.owner) in self.cuts:
            return
        if self.dark and to[0].rpartition(".")[0].startswith(tuple(self.dark)):
            return
        link, chance = self.link, self._rng.random
        for _ in range(2 if link.double and chance() < link.double else 1):
            if link.loss and chance() < link.loss:
                continue
            delay_s = link.delay_s
            if link.jitter_s:
                delay_s += chance() * link.jitter_s
            if link.late and chance() < link.late:
                delay_s += chance() * link.late_s
            self._queue.later(delay_s, self._deliver, port, data, source, sender)

    def _deliver(self, port: _Port, data: bytes, source: Address, sender: str) -> None:
        # What is cut or down while a datagram is under way does not get it.
        if port.deliver is None or (sender, port.owner) in self.cuts:
            return
        self.delivered_count += 1
        self._digest.update(struct.pack("<dI", self._queue.now_s, len(data)))
        self._digest.update(sender.encode() + port.owner.encode())
        port.deliver(data, source)

    def trace(self) -> str:
        """Return a hash of what was delivered when, from whom to whom."""
        return self._digest.hexdigest()
