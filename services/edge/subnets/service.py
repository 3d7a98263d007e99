"""Keeps the guard of subnets in step with the nodes, and tells whom it concerns.

Where the kernel does not take it, this server carries no subnets: ``is_kept`` says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from typing_extensions import override

from services.edge.policy.keeping import KeptTable
from services.edge.policy.table import KernelTable
from services.edge.subnets.guarding import SubnetBook, table_name, whole_table

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from services.authority.ports import Json, Ledger
    from services.base.ledger.watching import Change
    from services.kernel.ids import MeshId


class SubnetService(KeptTable):
    """Guards subnets behind endpoints."""

    name: ClassVar[str] = "subnets"
    views: ClassVar[tuple[str, ...]] = ("tree",)
    not_kept: ClassVar[str] = "no subnets are carried here"

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
        self._book = SubnetBook(mesh_id)
        self._tell: list[Callable[[Collection[str]], None]] = []

    def subscribe(self, tell: Callable[[Collection[str]], None]) -> None:
        """Tell of the endpoints for whom other routes count from now on."""
        self._tell.append(tell)

    @override
    def _begin(self) -> None:
        self._book = SubnetBook(self._mesh_id)

    @override
    def _load(self, held: Iterable[tuple[str, str, Json]]) -> None:
        for _, node_id, node in held:
            self._book.put(node_id, node)

    @override
    def _follow(self, changes: list[Change]) -> tuple[str, Callable[[], None]]:
        told: set[str] = set()
        for one in changes:
            told |= self._book.put(one.key, one.new)
        commands, _ = self._book.elements.take_changes(self._full_name)
        return commands, lambda: self._tell_of(told)

    @override
    def _tell_all(self) -> None:
        self._tell_of(self._book.endpoints)

    @override
    def _whole(self) -> str:
        return whole_table(self._book, interface=self._interface)

    @override
    def _counted(self) -> str:
        return f"{self._book.subnet_count} subnets"

    def _tell_of(self, told: set[str]) -> None:
        for tell in self._tell if told else ():
            tell(told)
