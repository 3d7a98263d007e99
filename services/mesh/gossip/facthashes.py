"""The facts of this server as hashes, and their counters. Pure.

A fact counts in the hashes from the first multiple of ten seconds (UTC) at which it is as old as
its kind asks, its predecessor until then, and no fact after it has expired. So servers that told
each other everything have equal hashes although something is always under way between them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from services.mesh.facts.envelope import fact_key
from services.mesh.facts.kinds import ADDRESS, KINDS
from services.mesh.gossip.summary import SetSummary

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from services.mesh.facts.envelope import Fact

TURN_MS: Final = 10_000
SERVER_BYTES: Final = 8


class FactHashes:
    """What FACTS and the half of SUMMARY and BUCKETS that is about facts are made of."""

    def __init__(self, mesh_id: bytes) -> None:
        self.hashes = SetSummary(mesh_id)
        self._held: dict[bytes, Fact] = {}
        self._counters: dict[bytes, int] = {}
        self._hashed_until_ms: dict[bytes, int] = {}
        self._unsettled: dict[bytes, None] = {}
        self._servers: frozenset[bytes] = frozenset()
        self._turn = 0

    def set_servers(self, servers: Iterable[bytes]) -> None:
        """Have exactly these servers' facts; of each one, an address is wished for."""
        self._servers = frozenset(servers)
        for gone in [key for key in self._counters if key[:SERVER_BYTES] not in self._servers]:
            self.hashes.remove(gone)
            for table in (self._held, self._counters, self._hashed_until_ms, self._unsettled):
                table.pop(gone, None)
        for server in self._servers:
            key = server + bytes([ADDRESS])
            if key not in self._counters:
                self._counters[key] = 0
                self.hashes.put(key, None)

    def put(self, fact: Fact, now_ms: int) -> None:
        """Note the newest fact of a server and kind."""
        key = fact_key(fact.server_id, fact.kind)
        self._held[key] = fact
        if key not in self._counters:
            self.hashes.put(key, None)
        self._counters[key] = fact.counter
        self._unsettled[key] = None
        self._settle(key, now_ms)

    def advance(self, now_ms: int) -> None:
        """Let time pass."""
        turn = now_ms // TURN_MS
        if turn == self._turn:
            return
        self._turn = turn
        for key in tuple(self._unsettled):
            self._settle(key, now_ms)
        for key in [key for key, until in self._hashed_until_ms.items() if until <= now_ms]:
            del self._hashed_until_ms[key]
            self.hashes.put(key, None)

    @property
    def counters(self) -> Mapping[bytes, int]:
        """The counter of every fact that is held or wished for."""
        return self._counters

    def counter(self, key: bytes) -> int | None:
        """Return the counter held; 0 for none, None for a fact that is not wanted either."""
        known = self._counters.get(key)
        if known is None and key[:SERVER_BYTES] in self._servers and key[SERVER_BYTES] in KINDS:
            return 0
        return known

    def _settle(self, key: bytes, now_ms: int) -> None:
        fact = self._held[key]
        if now_ms < _settled_ms(fact):
            return
        del self._unsettled[key]
        if fact.holds(now_ms):
            self.hashes.put(key, fact.counter.to_bytes(8))
            self._hashed_until_ms[key] = fact.expires_ms


def _settled_ms(fact: Fact) -> int:
    settle_ms = KINDS[fact.kind].settle_ms
    return -(-(fact.issued_ms + settle_ms) // TURN_MS) * TURN_MS if settle_ms else 0
