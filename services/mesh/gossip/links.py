"""When to greet which server at which address, and how it answers. Pure.

A server that is wanted and has no session gets a HELLO at each of its addresses in turn, with
growing pauses of up to five seconds. One with a session gets a HELLO again when a PING stays
without an answer, when the session is old, or when the session goes over the public address
although the backbone may carry it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import msgspec

from services.kernel.budget import Budget

if TYPE_CHECKING:
    from services.mesh.gossip.ports import Rng
    from services.mesh.gossip.session import Session
    from services.runtime.udp import Address

FIRST_RETRY_S: Final = 0.25
MAX_RETRY_S: Final = 5.0
FIRST_UPGRADE_S: Final = 2.0
MAX_UPGRADE_S: Final = 60.0
QUIET_S: Final = 1.0
UNANSWERED_S: Final = 3.0
REKEY_S: Final = 600.0
REKEY_SLACK_S: Final = 60.0
PULL_RATE_BYTES_S: Final = 2 * 1024 * 1024
PULL_BURST_BYTES: Final = 512 * 1024


class Places(msgspec.Struct, frozen=True, kw_only=True):
    """Where a server may be reached."""

    public: Address | None
    backbone: Address | None

    def all(self) -> list[Address]:
        """Return the places to try, in order."""
        return [one for one in (self.public, self.backbone) if one is not None]


@dataclass(slots=True, kw_only=True)
class Link:
    """What is known of the way to one server."""

    peer: str
    budget: Budget
    heard_s: float | None = None
    behind: dict[str, tuple[int, int]] = field(default_factory=dict)  # feed: epoch, size
    _attempts: int = 0
    _next_hello_s: float = 0.0
    _next_upgrade_s: float = 0.0
    _upgrades: int = 0
    _unanswered_s: float | None = None

    @classmethod
    def new(cls, peer: str, now_s: float) -> Link:
        """Return the link to a server that was just learnt of."""
        budget = Budget(rate_per_s=PULL_RATE_BYTES_S, burst=PULL_BURST_BYTES, now_s=now_s)
        return cls(peer=peer, budget=budget)

    def heard(self, now_s: float) -> None:
        """Note a good BOX from the server."""
        self.heard_s = now_s
        self._unanswered_s = None
        self._attempts = 0

    def connected(self, now_s: float, *, over_backbone: bool) -> None:
        """Note a new session."""
        self.heard(now_s)
        self._next_hello_s = now_s
        if over_backbone:
            self._upgrades = 0
        else:
            self._next_upgrade_s = now_s + FIRST_UPGRADE_S

    def moved(self, now_s: float) -> None:
        """Note that the server has told a new address: try it now."""
        self._attempts = 0
        self._next_hello_s = now_s

    def asked(self, now_s: float) -> None:
        """Note a PING that was sent."""
        if self._unanswered_s is None:
            self._unanswered_s = now_s

    @property
    def is_asked(self) -> bool:
        """Whether an answer is awaited."""
        return self._unanswered_s is not None

    @property
    def hello_count(self) -> int:
        """How many HELLOs were sent since the server was last heard."""
        return self._attempts

    def wants_hello(self, session: Session, places: Places, now_s: float) -> bool:
        """Say whether the session should be replaced: old, quiet, or not over the backbone."""
        if self._is_quiet(now_s) or now_s - session.created_s >= _rekey_s(session):
            return True
        backbone = places.backbone
        return backbone not in {None, session.address} and now_s >= self._next_upgrade_s

    def hello_to(
        self, session: Session | None, places: Places, rng: Rng, now_s: float
    ) -> Address | None:
        """Return the address that a HELLO should go to now, if one should."""
        if now_s < self._next_hello_s:
            return None
        if session is None or self._is_quiet(now_s):
            return self._next_try(session, places, rng, now_s)
        if now_s - session.created_s >= _rekey_s(session):
            self._next_hello_s = now_s + MAX_RETRY_S
            return session.address
        backbone = places.backbone
        if backbone is not None and session.address != backbone and now_s >= self._next_upgrade_s:
            pause_s = min(FIRST_UPGRADE_S * 2 ** min(self._upgrades, 10), MAX_UPGRADE_S)
            self._upgrades += 1
            self._next_upgrade_s = now_s + pause_s * (0.75 + rng.random() / 2)
            return backbone
        return None

    def is_doubtful(self, now_s: float) -> bool:
        """Say whether the server has left us without an answer for too long."""
        return self._unanswered_s is not None and now_s - self._unanswered_s >= UNANSWERED_S

    def _is_quiet(self, now_s: float) -> bool:
        return self._unanswered_s is not None and now_s - self._unanswered_s >= QUIET_S

    def _next_try(
        self, session: Session | None, places: Places, rng: Rng, now_s: float
    ) -> Address | None:
        addresses = places.all()
        if session is not None and session.address not in addresses:
            addresses.append(session.address)
        if not addresses:
            return None
        address = addresses[self._attempts % len(addresses)]
        pause_s = min(FIRST_RETRY_S * 2 ** min(self._attempts, 10), MAX_RETRY_S)
        self._attempts += 1
        self._next_hello_s = now_s + pause_s * (0.75 + rng.random() / 2)
        return address


def _rekey_s(session: Session) -> float:
    """Return the age at which a session is renewed; its initiator is the first to do so."""
    return REKEY_S if session.initiator else REKEY_S + REKEY_SLACK_S
