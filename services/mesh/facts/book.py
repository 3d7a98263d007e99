"""The newest fact of each kind of each server of the roster. Pure.

It holds no more than one fact a server and kind, and takes no more than ``BURST`` at once and one
in ``REFILL_S`` of them: whoever signs faster is not listened to, and so not passed on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from services.kernel.budget import Budget
from services.kernel.errors import WireError
from services.mesh.facts.envelope import Fact, check_signature, fact_key, parse_envelope
from services.mesh.facts.kinds import kind_of

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping

BURST: Final = 8
REFILL_S: Final = 5.0


class FactBook:
    """The facts that are held, by server and kind."""

    def __init__(
        self,
        *,
        mesh_id: bytes,
        key_of: Callable[[str], bytes | None],
        check: Callable[[Fact], None] = lambda _: None,
    ) -> None:
        self._mesh_id = mesh_id
        self._key_of = key_of
        self._check = check
        self._facts: dict[bytes, Fact] = {}
        self._budgets: dict[bytes, Budget] = {}

    def learn(self, data: bytes, *, now_ms: int, stored: bool = False) -> Fact | None:
        """Take a fact that was told; return it if it is news.

        One that was ``stored`` here may have expired, and nobody told it too often.

        Raises:
            WireError: malformed, of an unknown kind, of a server that is not in the roster, told
                too often, expired or of the future, or refused by ``check``; the code says which.
            BadSignatureError: not signed by the server that it is about.
        """
        fact = parse_envelope(data)
        if self._key_of(fact.server_id) != fact.key:
            raise WireError("a fact of a stranger", code="unknown_server")
        self._check(fact)
        key = fact_key(fact.server_id, fact.kind)
        known = self._facts.get(key)
        if known is not None and fact.counter <= known.counter:
            return None
        is_early = fact.issued_ms > now_ms + kind_of(fact.kind).max_skew_ms
        if is_early or not (stored or fact.holds(now_ms)):
            raise WireError("a fact that does not hold now", code="clock_skew")
        # Forged ones are refused before they are charged to the server that they name.
        budget = self._budget(key, now_ms / 1000)
        if not (stored or budget.spend(0, now_ms / 1000)):
            raise WireError("facts of one server too often", code="rate_limited")
        check_signature(fact, self._mesh_id)
        if not stored:
            budget.spend(1, now_ms / 1000)
        self._facts[key] = fact
        return fact

    def put_own(self, fact: Fact) -> None:
        """Take a fact that this server has just signed."""
        self._facts[fact_key(fact.server_id, fact.kind)] = fact

    def fact(self, server_id: str, kind: int) -> Fact | None:
        """Return the newest fact of a server, expired or not."""
        return self._facts.get(fact_key(server_id, kind))

    def by_key(self, key: bytes) -> Fact | None:
        """Return the newest fact with this key (``envelope.fact_key``), expired or not."""
        return self._facts.get(key)

    def valid(self, kind: int, now_ms: int) -> Mapping[str, Fact]:
        """Return the facts of one kind that hold now, by server."""
        return {
            fact.server_id: fact
            for fact in self._facts.values()
            if fact.kind == kind and fact.holds(now_ms)
        }

    def all(self) -> tuple[Fact, ...]:
        """Return everything that is held, expired or not."""
        return tuple(self._facts.values())

    def keep_only(self, servers: Container[str]) -> None:
        """Forget the servers that are no longer in the roster."""
        for key in [key for key, one in self._facts.items() if one.server_id not in servers]:
            del self._facts[key]
            self._budgets.pop(key, None)

    def _budget(self, key: bytes, now_s: float) -> Budget:
        budget = self._budgets.get(key)
        if budget is None:
            budget = Budget(rate_per_s=1 / REFILL_S, burst=BURST, now_s=now_s)
            self._budgets[key] = budget
        return budget
