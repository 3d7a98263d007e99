"""Holds what this server forwards between endpoints to the rules: one change costs its elements."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, ClassVar, Final

from typing_extensions import override

from services.authority.policy.deciding import VIEW
from services.edge.policy.book import PolicyBook
from services.edge.policy.compiling import deeper, table_name, whole_table
from services.edge.policy.concerned import concerned
from services.edge.policy.inbound import inbound_of
from services.edge.policy.keeping import KeptTable
from services.edge.policy.table import KernelTable
from services.kernel.errors import NotFoundError, SeipdError
from services.kernel.service import Health, HealthState

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from services.authority.ports import Json, Ledger
    from services.base.ledger.watching import Change
    from services.edge.policy.inbound import Inbound
    from services.kernel.ids import MeshId

logger = logging.getLogger(__name__)

LOOK_AROUND_S: Final = 60.0
"""Others' rules may be many, and all are read."""
MANY: Final = 64
"""Of so many changes at once it is not worked out whom they concern: all are told."""


class PolicyService(KeptTable):
    """Knows the rules, and keeps them in the kernel."""

    name: ClassVar[str] = "policy"
    views: ClassVar[tuple[str, ...]] = ("tree", VIEW)
    not_kept: ClassVar[str] = "rules between endpoints are NOT kept here"

    def __init__(
        self,
        *,
        ledger: Ledger,
        mesh_id: MeshId,
        interface: str,
        table: KernelTable | None = None,
    ) -> None:
        super().__init__(ledger=ledger, table=table or KernelTable(table_name(interface)))
        self._mesh_id = mesh_id
        self._interface = interface
        self._book = PolicyBook(mesh_id)
        self._levels = 0
        self._tell: list[Callable[[Collection[str] | None], None]] = []
        self._inbound: dict[str, Inbound] = {}
        self._dropped_by = ""
        self._looked_s = 0.0

    @override
    async def start(self) -> None:
        await super().start()
        await self._look_around()

    @override
    def health(self) -> Health:
        found = super().health()
        if found.state is not HealthState.OK or not self._dropped_by:
            return found
        name = self._interface
        detail = (
            f"{self._dropped_by} of another firewall drops what goes from endpoint to endpoint:"
            f" let through there what comes in and goes out by {name}"
        )
        return Health(state=HealthState.DEGRADED, detail=detail)

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

    @override
    async def _look(self) -> None:
        await super()._look()
        if asyncio.get_running_loop().time() >= self._looked_s + LOOK_AROUND_S:
            await self._look_around()

    async def _look_around(self) -> None:
        self._looked_s = asyncio.get_running_loop().time()
        try:
            found = await asyncio.to_thread(self._table.dropped_by, self._interface)
        except SeipdError:
            found = ""
        if found and found != self._dropped_by:
            logger.warning("%s of another firewall drops what is forwarded here", found)
        self._dropped_by = found

    @override
    def _begin(self) -> None:
        self._book = PolicyBook(self._mesh_id)

    @override
    def _load(self, held: Iterable[tuple[str, str, Json]]) -> None:
        for view, key, value in held:
            self._take(view, key, value)

    @override
    def _follow(self, changes: list[Change]) -> tuple[str, Callable[[], None]]:
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
        return commands, lambda: self._tell_of(told)

    @override
    def _tell_all(self) -> None:
        self._inbound.clear()
        self._tell_of([None])

    @override
    def _whole(self) -> str:
        text = whole_table(
            self._book,
            interface=self._interface,
            ranges=self._ledger.charter.genesis.ranges,
            mesh_id=self._mesh_id,
        )
        self._levels = self._book.levels
        return text

    @override
    def _counted(self) -> str:
        return f"{self._book.rule_count} rules, {self._book.endpoint_count} endpoints"

    def _take(self, view: str, key: str, value: Json | None) -> None:
        if view == VIEW:
            self._book.put_pair(key, value)
        else:
            self._book.put_node(key, value)

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
