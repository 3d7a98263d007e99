"""The server that the running agent is at: its peer in WireGuard, and the watch over its word."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from seipd.agent.families import endpoint_at_hand, mesh_at_hand
from seipd.agent.moving import attach
from seipd.agent.steady import steadily
from seipd.agent.trustwatch import TrustWatch
from seipd.agent.tunnel import server_peer
from services.runtime.tasks import TaskOwner

if TYPE_CHECKING:
    from collections.abc import Callable

    from seipd.agent.state import AgentState
    from services.edge.wireguard.model import DeviceStatus, PeerConfig, PeerStatus
    from services.edge.wireguard.service import WireGuardService
    from services.kernel.clock import Clock


class TunnelHome:
    """Satisfies Home; ``begin`` it once the interface is up."""

    def __init__(
        self, *, state: AgentState, wireguard: WireGuardService, signer_count: int, clock: Clock
    ) -> None:
        self._state = state
        self._wireguard = wireguard
        self._signer_count = signer_count
        self._clock = clock
        self._tasks = TaskOwner("agent-home")
        self._subnets: tuple[str, ...] = ()
        self.on_moved: list[Callable[[], None]] = []
        """Told when the endpoint is at another server."""
        self._settle(state.mesh())

    def _settle(self, mesh: dict[str, Any]) -> None:
        self.mesh: dict[str, Any] = mesh
        self._peer: PeerConfig = server_peer(mesh, self._subnets)
        self.watch = TrustWatch(
            state=self._state,
            mesh=mesh,
            keys=self._state.keys(),
            signer_count=self._signer_count,
            clock=self._clock,
        )

    async def begin(self) -> None:
        """Have the server as the one peer, and watch it."""
        await self._wireguard.replace_peers({self._peer.public_key: self._peer})
        self._watch_it()

    def _watch_it(self) -> None:
        watch = self.watch
        self._tasks.spawn(steadily(watch.run, "asking for proofs"), name="agent-trust")
        self._tasks.spawn(
            steadily(lambda: watch.mind_roster(self._drop), "minding the roster"),
            name="agent-roster",
        )

    async def end(self) -> None:
        """Watch no more; the peer stays."""
        await self._tasks.close()

    async def move(self, server_id: str, address: str) -> None:
        """Go to another server: from its answer on, packets go there.

        Other peers stay: what goes to those directly is not interrupted.

        Raises:
            SeipdError: that did not work; the endpoint is where it was.
        """
        mesh = await attach(self._state, server_id, address)
        await self.end()
        self._tasks = TaskOwner("agent-home")
        before = self._peer.public_key
        self._settle(mesh)
        await self._wireguard.set_peer(self._peer)
        if before != self._peer.public_key:
            await self._wireguard.remove_peer(before)
        self._watch_it()
        for tell in self.on_moved:
            tell()

    async def carry(self, subnets: tuple[str, ...]) -> None:
        """Send to the server what is for these subnets, too.

        Raises:
            UnavailableError: WireGuard does not answer; the wish stays.
        """
        if subnets == self._subnets:
            return
        self._subnets = subnets
        self._peer = server_peer(self.mesh, subnets)
        if not self.watch.is_revoked:
            await self._wireguard.set_peer(self._peer)

    async def received_bytes(self) -> int:
        """Return how much came from the server since it is the peer."""
        peer = await self.peer()
        return peer.rx_bytes if peer is not None else 0

    async def peer(self) -> PeerStatus | None:
        """Return what WireGuard says of the server."""
        return (await self._wireguard.peers()).get(self._peer.public_key)

    async def reset(self) -> None:
        """Ask for a handshake now, over that version of IP that there is a way for."""
        if endpoint_at_hand(self.mesh) != self.mesh["server"]["endpoint"]:
            mesh = mesh_at_hand(self.mesh)
            self.mesh, self._peer = mesh, server_peer(mesh, self._subnets)
            if not self.watch.is_revoked:
                await self._wireguard.set_peer(self._peer)
        await self._wireguard.reset_peer(self._peer.public_key)

    def device(self) -> DeviceStatus:
        """Return what WireGuard says of the interface."""
        return self._wireguard.status()

    async def _drop(self) -> None:
        await self._wireguard.remove_peer(self._peer.public_key)
