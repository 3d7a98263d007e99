"""The ACL as a service: answers questions from the state as it is now."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from services.edge.acl.rules import Answer, Question, Reach, check, may_meet, may_reach
from services.kernel.errors import ForbiddenError
from services.kernel.service import Health, HealthState

if TYPE_CHECKING:
    from services.authority.policy.traffic import Traffic
    from services.authority.ports import Ledger


class AclService:
    """Asks the permission tree."""

    name: ClassVar[str] = "acl"

    def __init__(self, *, ledger: Ledger) -> None:
        self._ledger = ledger

    async def start(self) -> None:
        """Nothing to acquire."""

    async def stop(self) -> None:
        """Nothing to release."""

    def health(self) -> Health:
        """It is as well as the ledger is."""
        return Health(state=HealthState.OK)

    def check(self, question: Question) -> Answer:
        """Answer whether a key may do something at a node, and why."""
        charter = self._ledger.charter
        roster = charter.at(charter.number)
        return check(self._ledger.state, roster, charter.root_keys, question)

    def require(self, question: Question) -> None:
        """Check that a key may do something at a node.

        Raises:
            ForbiddenError: it may not; the message says why.
        """
        answer = self.check(question)
        if not answer.allowed:
            raise ForbiddenError(f"{question.action} at {question.node_id}: {answer.reason}")

    def may_reach(self, source: str, target: str, traffic: Traffic | None = None) -> Reach:
        """Answer whether one endpoint reaches another, with some traffic or at all, and why."""
        return may_reach(self._ledger.state, source, target, traffic)

    def may_meet(self, one: str, other: str) -> bool:
        """Answer whether anything is open between two endpoints, in either direction."""
        return may_meet(self._ledger.state, one, other)
