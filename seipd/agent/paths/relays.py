"""The relays of the running agent: sessions there, and what the server is told of their quality."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from seipd.agent.paths.rawport import Kind
from seipd.agent.paths.relaying import Relaying
from seipd.agent.paths.relayreport import RelayReporter
from seipd.agent.private_api import PrivateApi
from services.kernel.ids import MeshId

if TYPE_CHECKING:
    from collections.abc import Sequence

    from seipd.agent.paths.rawport import RawPort
    from seipd.agent.paths.relaying import RelayListener
    from seipd.agent.state import AgentState
    from services.edge.punch.messages import RelayOffer
    from services.kernel.clock import Clock


class RelayWork:
    """Has relays carry for the paths."""

    def __init__(
        self, *, state: AgentState, port: RawPort, listener: RelayListener, clock: Clock
    ) -> None:
        keys = state.keys()
        self._state = state
        self._relaying = Relaying(
            port=port, wireguard_private=keys.wireguard_private, listener=listener, clock=clock
        )
        self._reporter = RelayReporter(
            identity=keys.identity,
            mesh_id=MeshId(state.mesh()["mesh_id"]),
            send=self._report,
            ask_usage=self._relaying.ask_usage,
            clock=clock,
        )
        self._relaying.judge = self._reporter
        port.attach(Kind.RELAY, self._relaying.received)

    def begin(self, peer_key: bytes, offers: Sequence[RelayOffer]) -> None:
        """Have one of these carry; newer tickets prolong."""
        self._relaying.begin(peer_key, offers)

    def end(self, peer_key: bytes) -> None:
        """Let it go."""
        self._relaying.end(peer_key)

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._relaying.run())
            group.create_task(self._reporter.run())

    async def _report(self, report: dict[str, Any]) -> None:
        async with PrivateApi(self._state.mesh(), self._state.keys()) as api:
            await api.call("POST", "/api/relay/report", {"report": report})
