"""Keeps WireGuard's peers in step with the state: one change costs one peer."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, ClassVar, Protocol

from services.edge.peering.plan import endpoint_peer, interface_plan, is_ours, server_peer
from services.kernel.errors import SeipdError, StartError
from services.kernel.ids import ServerId, parse_key
from services.kernel.service import Health, HealthState
from services.runtime.tasks import TaskOwner

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from services.authority.ports import Json, Ledger
    from services.base.ledger.service import Change
    from services.edge.wireguard.model import InterfacePlan, PeerConfig
    from services.kernel.certificates import ServerCertificate

logger = logging.getLogger(__name__)

RETRY_S = 1.0


class Tunnels(Protocol):
    """The part of the WireGuard service that is steered from here."""

    async def set_plan(self, plan: InterfacePlan) -> None:
        """Have these addresses and routes."""

    async def replace_peers(self, peers: Mapping[bytes, PeerConfig]) -> None:
        """Have exactly these peers."""

    async def set_peer(self, peer: PeerConfig) -> None:
        """Add or change one peer."""

    async def remove_peer(self, public_key: bytes) -> None:
        """Remove one peer."""


class PeeringService:
    """Watches the roster and the tree; tells WireGuard."""

    name: ClassVar[str] = "peering"

    def __init__(
        self,
        *,
        ledger: Ledger,
        tunnels: Tunnels,
        endpoint_of: Callable[[ServerId], tuple[str, int] | None],
    ) -> None:
        self._ledger = ledger
        self._tunnels = tunnels
        self._endpoint_of = endpoint_of
        self._work: asyncio.Queue[PeerConfig | bytes] = asyncio.Queue()
        self._tasks = TaskOwner("peering")
        self._peer_count = 0
        self._state = HealthState.STOPPED

    async def start(self) -> None:
        """Set the interface up and load every peer in one batch.

        Raises:
            StartError: WireGuard refused.
        """
        try:
            await self._tunnels.set_plan(self.plan())
            peers = await asyncio.to_thread(self._all_peers)
            await self._tunnels.replace_peers(peers)
        except SeipdError as error:
            raise StartError(
                str(error), service=self.name, code=error.code, mend=error.mend
            ) from error
        self._peer_count = len(peers)
        self._ledger.subscribe(["roster", "tree"], self._on_changes)
        self._tasks.spawn(self._apply_forever(), name="peering-apply")
        self._state = HealthState.OK

    async def stop(self) -> None:
        """Stop watching; the tunnels stay as they are."""
        self._state = HealthState.STOPPED
        await self._tasks.close()

    def health(self) -> Health:
        """Say how many peers there are and how many changes wait."""
        detail = f"{self._peer_count} peers, {self._work.qsize()} changes waiting"
        return Health(state=self._state, detail=detail)

    def plan(self) -> InterfacePlan:
        """Return the addresses and routes that this server's certificate asks for."""
        charter = self._ledger.charter
        return interface_plan(self._ledger.mesh_id, charter.genesis.ranges, self._own())

    def address_learnt(self, server_id: ServerId) -> None:
        """Point a server's peer to its newest address."""
        certificate = self._ledger.charter.server(server_id)
        if certificate is not None and server_id != self._ledger.server_id:
            self._work.put_nowait(self._server_peer(certificate))

    def _own(self) -> ServerCertificate:
        own = self._ledger.charter.server(self._ledger.server_id)
        if own is None:
            raise StartError(
                "the roster does not name this server any more", service=self.name, code="revoked"
            )
        return own

    def _server_peer(self, certificate: ServerCertificate) -> PeerConfig:
        endpoint = self._endpoint_of(certificate.server_id)
        return server_peer(self._ledger.mesh_id, certificate, endpoint)

    def _all_peers(self) -> dict[bytes, PeerConfig]:
        mesh_id, own = self._ledger.mesh_id, self._own()
        peers = {
            one.wireguard_key: self._server_peer(one)
            for one in self._ledger.charter.servers().values()
            if one.server_id != own.server_id
        }
        for _, _, node in self._ledger.state.scan("tree"):
            if is_ours(own.slices, node):
                peer = endpoint_peer(mesh_id, node)
                peers[peer.public_key] = peer
        return peers

    def _on_changes(self, changes: list[Change]) -> None:
        own = self._own()
        for change in changes:
            if change.view == "tree":
                self._on_node(own, change.old, change.new)
            elif change.key != "head" and change.key != own.server_id:
                self._on_server(change)

    def _on_node(self, own: ServerCertificate, old: Json | None, new: Json | None) -> None:
        was, now = is_ours(own.slices, old), is_ours(own.slices, new)
        if was and old is not None and (not now or _key(old) != _key(new)):
            self._work.put_nowait(parse_key(old["wireguard_key"]))
        if now and new is not None:
            self._work.put_nowait(endpoint_peer(self._ledger.mesh_id, new))

    def _on_server(self, change: Change) -> None:
        if change.old is not None and (
            change.new is None or change.new["wireguard_key"] != change.old["wireguard_key"]
        ):
            self._work.put_nowait(parse_key(change.old["wireguard_key"]))
        certificate = self._ledger.charter.server(ServerId(change.key))
        if change.new is not None and certificate is not None:
            self._work.put_nowait(self._server_peer(certificate))

    async def _apply_forever(self) -> None:
        while True:
            change = await self._work.get()
            try:
                await self._apply(change)
            except SeipdError as error:
                logger.warning("WireGuard refused a change: %s", error)
                self._state = HealthState.DEGRADED
                await asyncio.sleep(RETRY_S)
                self._work.put_nowait(change)
            else:
                self._state = HealthState.OK

    async def _apply(self, change: PeerConfig | bytes) -> None:
        if isinstance(change, bytes):
            await self._tunnels.remove_peer(change)
            self._peer_count -= 1
        else:
            await self._tunnels.set_peer(change)
            self._peer_count += 1


def _key(node: Json | None) -> object:
    return node.get("wireguard_key") if node else None
