"""Keeps the table of this server in step with the nodes and rules: one change costs its elements.

The table is there before the tunnels are, and stays when the daemon stops, as they do. Where the
kernel does not take it, all else goes on, and the health says that nothing is held to its rules.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, ClassVar, Final

from services.authority.policy.deciding import VIEW
from services.edge.policy.book import PolicyBook
from services.edge.policy.compiling import FAMILY, deeper, table_name, whole_table
from services.edge.policy.concerned import concerned
from services.edge.policy.inbound import inbound_of
from services.edge.policy.table import KernelTable
from services.kernel.errors import NotFoundError, SeipdError
from services.kernel.service import Health, HealthState
from services.runtime.tasks import TaskOwner

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from services.authority.ports import Ledger
    from services.base.ledger.watching import Change
    from services.edge.policy.inbound import Inbound
    from services.kernel.ids import MeshId

logger = logging.getLogger(__name__)

VIEWS: Final = ("tree", VIEW)
MANY: Final = 64
"""Of so many changes at once it is not worked out whom they concern: all are told."""
LOOK_EVERY_S: Final = 5.0
"""Another's firewall may have flushed every table; and what was refused may be taken by now."""


class PolicyService:
    """Holds what this server forwards between endpoints to the rules."""

    name: ClassVar[str] = "policy"

    def __init__(
        self,
        *,
        ledger: Ledger,
        mesh_id: MeshId,
        interface: str,
        table: KernelTable | None = None,
    ) -> None:
        self._ledger = ledger
        self._mesh_id = mesh_id
        self._interface = interface
        self._table = table or KernelTable(table_name(interface))
        self._full_name = f"{FAMILY} {self._table.name}"
        self._book = PolicyBook(mesh_id)
        self._levels = 0
        self._waiting: list[Change] = []
        self._news = asyncio.Event()
        self._tasks = TaskOwner("policy", on_crash=self._crashed)
        self._tell: list[Callable[[Collection[str] | None], None]] = []
        self._inbound: dict[str, Inbound] = {}
        self._trouble = "not started"
        self._is_running = False

    async def start(self) -> None:
        """Compile everything, and put it into the kernel where that takes it."""
        self._book = PolicyBook(self._mesh_id)
        self._ledger.subscribe(VIEWS, self._on_changes)
        await asyncio.to_thread(self._load, self._ledger.state.scan(*VIEWS))
        await self._replace()
        self._is_running = True
        self._tasks.spawn(self._apply_forever(), name="policy-apply")

    async def stop(self) -> None:
        """Watch no more; the table stays as long as the tunnels do."""
        self._is_running = False
        await self._tasks.close()
        self._table.close()

    def health(self) -> Health:
        """Say how many rules there are, or why they are not kept."""
        if not self._is_running:
            return Health(state=HealthState.STOPPED)
        counted = f"{self._book.rule_count} rules, {self._book.endpoint_count} endpoints"
        if self._trouble:
            detail = f"rules between endpoints are NOT kept here: {self._trouble}"
            return Health(state=HealthState.DEGRADED, detail=detail)
        return Health(state=HealthState.OK, detail=counted)

    def subscribe(self, tell: Callable[[Collection[str] | None], None]) -> None:
        """Tell of the endpoints that something else may reach now; None stands for all."""
        self._tell.append(tell)

    def inbound_of(self, node_id: str) -> Inbound:
        """Return what may reach an endpoint.

        Raises:
            NotFoundError: there is no such endpoint.
        """
        if not self._book.is_endpoint(node_id):
            raise NotFoundError(f"there is no endpoint {node_id}")
        # Endpoints of one customer that no rule has as its target are told the same.
        is_target = bool(self._book.sources_at(node_id))
        key = node_id if is_target else self._book.path_of(node_id)[1]
        if key not in self._inbound:
            self._inbound[key] = inbound_of(self._book, node_id)
        return self._inbound[key]

    def _load(self, held: Iterable[tuple[str, str, dict[str, object]]]) -> None:
        for view, key, value in held:
            self._take(view, key, value)

    def _take(self, view: str, key: str, value: dict[str, object] | None) -> None:
        if view == VIEW:
            self._book.put_pair(key, value)
        else:
            self._book.put_node(key, value)

    def _on_changes(self, changes: list[Change]) -> None:
        self._waiting += changes
        self._news.set()

    async def _apply_forever(self) -> None:
        while True:
            try:
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self._news.wait()
            except TimeoutError:
                await self._look()
                continue
            self._news.clear()
            await self._apply()

    async def _apply(self) -> None:
        changes, self._waiting = self._waiting, []
        # Who was concerned before and who is after: a node that goes is found only before.
        told = self._concerned(changes)
        for one in changes:
            self._take(one.view, one.key, one.new)
        told += self._concerned(changes)
        self._inbound.clear()
        commands, _ = self._book.elements.take_changes(self._full_name)
        if self._book.levels > self._levels:
            self._levels = self._book.levels
            commands += deeper(self._book, interface=self._interface)
        if commands and self._trouble:
            await self._replace()
        elif commands:
            try:
                await asyncio.to_thread(self._table.run, commands)
            except SeipdError as error:
                logger.warning("a change of the rules was refused, all are put anew: %s", error)
                await self._replace()
        self._tell_of(told)

    def _concerned(self, changes: list[Change]) -> list[set[str] | None]:
        if len(changes) > MANY:
            return [None]
        return [concerned(self._book, one.view, one.key, one.old, one.new) for one in changes]

    def _tell_of(self, told: list[set[str] | None]) -> None:
        nodes: set[str] | None = set()
        for one in told:
            nodes = None if one is None or nodes is None else nodes | one
        if nodes is None or nodes:
            for tell in self._tell:
                tell(nodes)

    def _crashed(self, task: str, error: BaseException) -> None:
        self._trouble = f"{task} ended: {error!r}"

    async def _look(self) -> None:
        """Put the table anew where it is missing, or was refused."""
        try:
            if not self._trouble and await asyncio.to_thread(self._table.is_there):
                return
        except SeipdError as error:
            self._trouble = str(error)
            return
        if not self._trouble:
            logger.warning("the table %s was removed by somebody, it comes back", self._full_name)
        await self._replace()

    async def _replace(self) -> None:
        try:
            await asyncio.to_thread(self._put_whole)
        except SeipdError as error:
            if str(error) != self._trouble:
                logger.warning("rules between endpoints are not kept: %s", error)
            self._trouble = str(error)
        else:
            if self._trouble and self._is_running:
                logger.info("rules between endpoints are kept again")
            self._trouble = ""

    def _put_whole(self) -> None:
        text = whole_table(
            self._book,
            interface=self._interface,
            ranges=self._ledger.charter.genesis.ranges,
            mesh_id=self._mesh_id,
        )
        self._levels = self._book.levels
        self._table.replace(text)
