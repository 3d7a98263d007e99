"""Asks the server who carries what, has it proved, and says what this endpoint offers."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from seipd.agent.routes.answer import RoutesAnswer, routes_answer
from seipd.agent.routes.book import Router
from seipd.agent.trustlines import PROVEN, REFUSED
from services.base.ledger.author import Author
from services.kernel.ids import MeshId

if TYPE_CHECKING:
    from collections.abc import Mapping

    from seipd.agent.proving import Verdict
    from seipd.agent.routes.answer import ListedRouter, Own
    from seipd.agent.routes.wishes import RoutingWishes
    from seipd.agent.state import AgentKeys
    from services.kernel.clock import Clock

logger = logging.getLogger(__name__)


class Api(Protocol):
    """The part of the private API that is asked."""

    async def call(self, method: str, path: str, body: Any = None) -> Any:  # noqa: ANN401 (JSON)
        """Make one authenticated request."""


class Judge(Protocol):
    """Judges by proofs."""

    async def shown_so(
        self, api: Api, listed: Mapping[str, Mapping[str, Any]]
    ) -> dict[str, Verdict]:
        """Return what is held of facts that a server shows of endpoints."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Learnt:
    """What an answer comes to."""

    routers: tuple[Router, ...]
    """Those that were proved, by their ids."""
    waiting: tuple[str, ...]
    """The names of those of which there is no proof yet."""
    refused: tuple[str, ...]
    """The names of those of which something false was shown."""
    own: Own
    members: tuple[str, ...]


class Knower:
    """One endpoint's knowledge of who carries what."""

    def __init__(self, *, keys: AgentKeys, clock: Clock) -> None:
        self._keys = keys
        self._clock = clock
        self._proven: dict[str, dict[str, Any]] = {}

    async def ask(self, api: Api, judge: Judge, mesh: dict[str, Any]) -> Learnt:
        """Return who carries what.

        What was proved once is gone by for as long as the server says the same: it may say less at
        any time, and never anything else.

        Raises:
            SeipdError: the server is away, or its answer is not good.
        """
        value = await api.call("GET", f"/api/mesh/routes/{mesh['node_id']}")
        answer = routes_answer(value)
        others = {one.node_id: one for one in answer.routers if one.node_id != mesh["node_id"]}
        verdicts = await judge.shown_so(api, {name: one.facts() for name, one in others.items()})
        for node_id, verdict in verdicts.items():
            if verdict.state == PROVEN:
                self._proven[node_id] = others[node_id].facts()
        return self._learnt(answer, others, verdicts)

    def _learnt(
        self,
        answer: RoutesAnswer,
        others: Mapping[str, ListedRouter],
        verdicts: Mapping[str, Verdict],
    ) -> Learnt:
        good, waiting, refused = [], [], []
        for node_id, one in sorted(others.items()):
            if verdicts[node_id].state == REFUSED:
                refused.append(one.name)
            elif self._proven.get(node_id) == one.facts():
                good.append(_router_of(one))
            else:
                waiting.append(one.name)
        self._proven = {name: facts for name, facts in self._proven.items() if name in others}
        return Learnt(
            routers=tuple(good),
            waiting=tuple(waiting),
            refused=tuple(refused),
            own=answer.own,
            members=tuple(answer.members),
        )

    async def offer(self, api: Api, mesh: dict[str, Any], own: Own, wishes: RoutingWishes) -> bool:
        """Say what this endpoint offers, where the state has something else; return whether so.

        Raises:
            SeipdError: the server is away, or refused.
        """
        asked = own.asked
        if (asked.prefixes, asked.exit) == (wishes.advertise, wishes.offers_exit):
            return False
        author = Author(key=self._keys.identity, mesh_id=MeshId(mesh["mesh_id"]), clock=self._clock)
        body = {
            "node": mesh["node_id"],
            "prefixes": wishes.advertise,
            "exit": wishes.offers_exit,
            "serial": asked.serial + 1,
        }
        record = author.record("tree.advertise", body)
        await api.call("POST", "/api/tree/delta", {"record": record.value()})
        logger.info("offered to carry: %s", ", ".join(wishes.advertise) or "no subnet")
        return True


def _router_of(one: ListedRouter) -> Router:
    return Router(
        node_id=one.node_id,
        name=one.name,
        address=one.address,
        prefixes=tuple(one.routes),
        is_exit=one.exit,
    )
