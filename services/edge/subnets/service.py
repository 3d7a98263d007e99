"""Keeps the guard of subnets in step with the nodes, and tells whom it concerns.

It is there before the tunnels are, and stays when the daemon stops, as they do. Where the kernel
does not take it, this server carries no subnets: ``is_kept`` says so.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, ClassVar, Final

from services.edge.policy.compiling import FAMILY
from services.edge.policy.table import KernelTable
from services.edge.subnets.guarding import SubnetBook, table_name, whole_table
from services.kernel.errors import SeipdError
from services.kernel.service import Health, HealthState
from services.runtime.tasks import TaskOwner

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from services.authority.ports import Ledger
    from services.base.ledger.watching import Change
    from services.kernel.ids import MeshId

logger = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 5.0
"""Another's firewall may have flushed every table."""


class SubnetService:
    """Guards subnets behind endpoints."""

    name: ClassVar[str] = "subnets"

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
        self._book = SubnetBook(mesh_id)
        self._waiting: list[Change] = []
        self._news = asyncio.Event()
        self._tasks = TaskOwner("subnets", on_crash=self._crashed)
        self._tell: list[Callable[[Collection[str]], None]] = []
        self._trouble = "not started"
        self._is_running = False

    @property
    def is_kept(self) -> bool:
        """Whether the kernel holds the guard."""
        return not self._trouble

    async def start(self) -> None:
        """Put the guard into the kernel, where that takes it."""
        self._book = SubnetBook(self._mesh_id)
        self._ledger.subscribe(["tree"], self._on_changes)
        await asyncio.to_thread(self._load, self._ledger.state.scan("tree"))
        await self._replace()
        self._is_running = True
        self._tasks.spawn(self._apply_forever(), name="subnets-apply")

    async def stop(self) -> None:
        """Watch no more; the table stays as long as the tunnels do."""
        self._is_running = False
        await self._tasks.close()
        self._table.close()

    def health(self) -> Health:
        """Say how many subnets there are, or why none is carried."""
        if not self._is_running:
            return Health(state=HealthState.STOPPED)
        if self._trouble:
            detail = f"no subnets are carried here: {self._trouble}"
            return Health(state=HealthState.DEGRADED, detail=detail)
        return Health(state=HealthState.OK, detail=f"{self._book.subnet_count} subnets")

    def subscribe(self, tell: Callable[[Collection[str]], None]) -> None:
        """Tell of the endpoints for whom other routes count from now on."""
        self._tell.append(tell)

    def _load(self, nodes: Iterable[tuple[str, str, dict[str, object]]]) -> None:
        for _, node_id, node in nodes:
            self._book.put(node_id, node)

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
        told: set[str] = set()
        for one in changes:
            told |= self._book.put(one.key, one.new)
        commands, _ = self._book.elements.take_changes(self._full_name)
        if commands:
            try:
                await asyncio.to_thread(self._table.run, commands)
            except SeipdError as error:
                logger.warning("a change of the subnets was refused, all are put anew: %s", error)
                await self._replace()
        for tell in self._tell if told else ():
            tell(told)

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
        await self._replace()

    async def _replace(self) -> None:
        try:
            text = whole_table(self._book, interface=self._interface)
            await asyncio.to_thread(self._table.replace, text)
        except SeipdError as error:
            if str(error) != self._trouble:
                logger.warning("subnets are not guarded: %s", error)
            self._trouble = str(error)
        else:
            self._trouble = ""
