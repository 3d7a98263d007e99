"""What is known of one server. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Final

import msgspec

from services.mesh.membership.uptime import Uptime

NEVER_S: Final = float("-inf")
PATIENCE: Final = 1.5
PATIENCE_S: Final = 300.0
_RTT_SHARE: Final = 0.25


class State(Enum):
    """What a server is held to be."""

    UNKNOWN = "unknown"
    ALIVE = "alive"
    SUSPECT = "suspect"
    DEAD = "dead"


class Since(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """When a state began, by the clock of seconds and by UTC."""

    s: float
    ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """When a reporter's suspicion came in, and of which incarnation."""

    at_s: float
    claimed: int


@dataclass(slots=True, kw_only=True)
class Suspected:
    """A suspicion that is believed here, and when it ends in death."""

    started_s: float
    deadline_s: float


@dataclass(slots=True, kw_only=True)
class Member:
    """One other server of the roster."""

    server_id: str
    raw: bytes
    since: Since
    state: State = State.UNKNOWN
    incarnation: int = 0
    alive: bytes | None = None
    refreshed_s: float = NEVER_S  # when its newest ALIVE came in
    reports: dict[str, Report] = field(default_factory=dict)  # by reporter
    died_of: frozenset[int] = frozenset()  # the incarnations that were suspected when it died
    suspected: Suspected | None = None
    slow: tuple[float, float] = (0.0, NEVER_S)  # how long its last refutation took, and when
    heard_s: float = NEVER_S
    fed_s: float = NEVER_S
    rtt_s: float | None = None
    pinged: tuple[int, float] | None = None
    probe: int | None = None
    blamed: tuple[str, ...] = ()  # who had no answer, while it is suspect or dead
    uptime: Uptime = field(default_factory=Uptime)

    def cleared(self, now_s: float) -> None:
        """End a suspicion; remember how long it took to refute it."""
        if self.suspected is not None:
            self.slow = (max(now_s - self.suspected.started_s, self.patience_s(now_s) / 2), now_s)
            self.suspected = None

    def patience_s(self, now_s: float) -> float:
        """Return how long the next suspicion should last at least, going by the last ones."""
        took_s, at_s = self.slow
        return took_s * PATIENCE if now_s - at_s < PATIENCE_S else 0.0

    def ponged(self, seq: int, now_s: float) -> None:
        """Take the answer to the last PING for the round-trip time."""
        if self.pinged is None or self.pinged[0] != seq:
            return
        sample_s = now_s - self.pinged[1]
        known_s = self.rtt_s
        self.rtt_s = sample_s if known_s is None else known_s + (sample_s - known_s) * _RTT_SHARE
        self.pinged = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberStatus:
    """What people and other services may know of a server."""

    server_id: str
    state: State
    since_ms: int
    incarnation: int
    why: str
    latency_ms: float | None
    uptime: float | None
    checks: int


def why_of(member: Member, now_s: float, *, own_id: str) -> str:
    """Say in words why a server is in its state."""
    for_s = max(0, int(now_s - member.since.s))
    match member.state:
        case State.ALIVE:
            return "it answers"
        case State.UNKNOWN:
            return "nothing was heard of it yet"
        case State.SUSPECT | State.DEAD:
            names = ["this server" if one == own_id else one for one in member.blamed]
            more = len(names) - 3
            by = ", ".join(names[:3]) + (f" and {more} more" if more > 0 else "")
            return f"no answer to {by or 'anyone'} since {for_s} s"
