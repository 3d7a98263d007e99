"""The tree as a service: who is below whom, without looking through all nodes of the mesh."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, ClassVar, Final

from services.authority.tree.kin import Kin
from services.kernel.service import Health, HealthState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from services.authority.ports import Json, Ledger
    from services.base.ledger.watching import Change

NODES_A_TURN: Final = 500


class TreeService:
    """Knows the children of each node."""

    name: ClassVar[str] = "tree"

    def __init__(self, *, ledger: Ledger) -> None:
        self._ledger = ledger
        self._kin = Kin()
        # What changed while everything was being loaded.
        self._early: list[list[Change]] | None = None
        self._state = HealthState.STOPPED

    async def start(self) -> None:
        """Load the tree, and follow it from now on."""
        nodes = self._ledger.state.scan("tree")
        if self._state is HealthState.STOPPED:
            self._ledger.subscribe(["tree"], self._on_changes)
        self._kin, self._early = Kin(), []
        await asyncio.to_thread(self._load, nodes)
        early, self._early = self._early, None
        for changes in early:
            self._on_changes(changes)
        self._state = HealthState.OK

    async def stop(self) -> None:
        """Nothing to release."""

    def health(self) -> Health:
        """Say how many nodes there are."""
        return Health(state=self._state, detail=f"{len(self._kin)} nodes")

    async def children(self, node_id: str) -> list[tuple[str, Json]]:
        """Return id and node of what is right below a node, in no order.

        Others have their turn meanwhile; of what changes then some may be told already.
        """
        found = []
        for number, child in enumerate(self._kin.below(node_id), start=1):
            node = self._ledger.state.get("tree", child)
            if node is not None:
                found.append((child, node))
            if number % NODES_A_TURN == 0:
                await asyncio.sleep(0)
        return found

    def _load(self, nodes: Iterable[tuple[str, str, Json]]) -> None:
        for _, node_id, node in nodes:
            self._kin.note(node_id, node["parent"])

    def _on_changes(self, changes: list[Change]) -> None:
        if self._early is not None:
            self._early.append(changes)
            return
        for one in changes:
            self._kin.note(one.key, one.new["parent"] if one.new is not None else None)
