"""Keeps WireGuard's peers in step with the state: one change costs one peer."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, ClassVar, Protocol

from services.authority.tree.carriers import carrier_of
from services.authority.tree.routes import routes_of
from services.edge.peering.carriers import Guests
from services.edge.peering.plan import endpoint_peer, interface_plan, is_ours, server_peer
from services.edge.peering.routed import Routed
from services.edge.peering.wishes import Wishes
from services.edge.wireguard.model import InterfacePlan
from services.kernel.errors import SeipdError, StartError
from services.kernel.ids import ServerId, parse_key
from services.kernel.service import Health, HealthState
from services.runtime.tasks import TaskOwner

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from services.authority.ports import Json, Ledger
    from services.base.ledger.watching import Change
    from services.edge.peering.wishes import Wish
    from services.edge.wireguard.model import PeerConfig
    from services.kernel.certificates import ServerCertificate

logger = logging.getLogger(__name__)

RETRY_S = 1.0
GUARD_LOOK_S = 5.0
MTU_LOOK_S = 30.0


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

    async def reset_peer(self, public_key: bytes) -> None:
        """Make one peer anew: a handshake begins at once."""


class PeeringService:
    """Watches the roster and the tree; tells WireGuard."""

    name: ClassVar[str] = "peering"

    def __init__(
        self,
        *,
        ledger: Ledger,
        tunnels: Tunnels,
        endpoint_of: Callable[[ServerId], tuple[str, int] | None],
        carries_subnets: Callable[[], bool] = lambda: True,
        mtu_of: Callable[[], Awaitable[int]],
    ) -> None:
        """Prepare.

        Args:
            ledger: the roster and the tree.
            tunnels: WireGuard.
            endpoint_of: where a server is reached.
            carries_subnets: whether there is a guard, without which nothing goes into a subnet.
            mtu_of: looks how large packets may be.
        """
        self._ledger = ledger
        self._tunnels = tunnels
        self._endpoint_of = endpoint_of
        self._wishes = Wishes()
        self._guests = Guests(lambda: ledger.charter)
        self._routed = Routed(lambda: ledger.charter)
        self._carries_subnets = carries_subnets
        self._mtu_of = mtu_of
        self._mtu: int | None = None
        self._is_guarded = False
        self._news = asyncio.Event()
        self._tasks = TaskOwner("peering")
        self._peers: set[bytes] = set()
        self._through: dict[ServerId, ServerId] = {}
        self._is_revoked = False
        # What changed while everything was being loaded.
        self._early: list[list[Change]] | None = None
        self._state = HealthState.STOPPED

    async def start(self) -> None:
        """Set the interface up and load every peer in one batch.

        Raises:
            StartError: WireGuard refused.
        """
        nodes = self._ledger.state.scan("tree")
        self._is_guarded = self._carries_subnets()
        self._ledger.subscribe(["roster", "tree"], self._on_changes)
        self._early = []
        try:
            self._mtu = await self._mtu_of()
            peers = await asyncio.to_thread(self._all_peers, nodes)
            await self._tunnels.set_plan(self.plan())
            await self._tunnels.replace_peers(peers)
        except SeipdError as error:
            raise StartError(
                str(error), service=self.name, code=error.code, mend=error.mend
            ) from error
        self._peers = set(peers)
        early, self._early = self._early, None
        for changes in early:
            self._on_changes(changes)
        self._tasks.spawn(self._apply_forever(), name="peering-apply")
        self._tasks.spawn(self._mind_mtu(), name="peering-mtu")
        self._state = HealthState.OK

    async def stop(self) -> None:
        """Stop watching; the tunnels stay as they are."""
        self._state = HealthState.STOPPED
        await self._tasks.close()

    def health(self) -> Health:
        """Say how many peers there are and how many changes wait."""
        if self._is_revoked:
            return Health(state=HealthState.FAILED, detail="this server was revoked")
        detail = f"{len(self._peers)} peers, {len(self._wishes)} changes waiting"
        return Health(state=self._state, detail=detail)

    def plan(self) -> InterfacePlan:
        """Return the addresses and routes that this server's certificate asks for."""
        charter = self._ledger.charter
        ranges, subnets = charter.genesis.ranges, self._routed.all()
        return interface_plan(self._ledger.mesh_id, ranges, self._own(), subnets, self._mtu)

    def address_learnt(self, server_id: ServerId) -> None:
        """Point a server's peer to its newest address."""
        certificate = self._ledger.charter.server(server_id)
        if self._is_revoked or certificate is None:
            return
        if server_id != self._ledger.server_id:
            self._wishes.want(self._server_peer(certificate))
            self._news.set()

    async def begin_anew(self, server_id: ServerId) -> None:
        """Begin the handshake with a server anew, if it is known where that is.

        Raises:
            UnavailableError: WireGuard is away.
        """
        certificate = self._ledger.charter.server(server_id)
        if self._is_revoked or certificate is None:
            return
        peer = self._server_peer(certificate)
        # Where nobody told an address, WireGuard may just have learnt one, which goes with a reset.
        if peer.endpoint is not None:
            await self._tunnels.set_peer(peer)
            await self._tunnels.reset_peer(peer.public_key)

    def set_detours(self, through: Mapping[ServerId, ServerId]) -> None:
        """Reach exactly these servers through others."""
        if self._is_revoked or self._through == through:
            return
        moved = through.items() ^ self._through.items()
        for server_id, middle in sorted(through.items() - self._through.items()):
            logger.info("%s is reached through %s now", server_id, middle)
        self._through = dict(through)
        self._want_servers({name for pair in moved for name in pair})

    def _want_servers(self, names: AbstractSet[ServerId]) -> None:
        servers = self._ledger.charter.servers()
        for name in sorted(names & servers.keys() - {self._ledger.server_id}):
            self._wishes.want(self._server_peer(servers[name]))
        self._news.set()

    def _own(self) -> ServerCertificate:
        own = self._ledger.charter.server(self._ledger.server_id)
        if own is None:
            raise StartError(
                "the roster does not name this server any more",
                service=self.name,
                code="revoked",
                mend="take another data root and join anew",
            )
        return own

    def _server_peer(self, certificate: ServerCertificate) -> PeerConfig:
        server_id, charter = certificate.server_id, self._ledger.charter
        carried = [] if server_id in self._through else [certificate]
        for other, middle in self._through.items():
            if middle == server_id and (one := charter.server(other)) is not None:
                carried.append(one)
        guests = [address for one in carried for address in self._guests.of(one.server_id)]
        subnets = [prefix for one in carried for prefix in self._routed.of(one.server_id)]
        endpoint = self._endpoint_of(server_id)
        return server_peer(self._ledger.mesh_id, certificate, endpoint, carried, guests, subnets)

    def _endpoint_peer(self, node: Json) -> PeerConfig:
        subnets = routes_of(node) if self._is_guarded else ()
        return endpoint_peer(self._ledger.mesh_id, node, subnets)

    def _all_peers(self, nodes: Iterable[tuple[str, str, Json]]) -> dict[bytes, PeerConfig]:
        own, peers = self._own(), {}
        for _, node_id, node in nodes:
            self._guests.note(node_id, None, node)
            self._note_subnets(node_id, node)
            if self._is_here(node):
                peer = self._endpoint_peer(node)
                peers[peer.public_key] = peer
        for one in self._ledger.charter.servers().values():
            if one.server_id != own.server_id:
                peers[one.wireguard_key] = self._server_peer(one)
        return peers

    def _is_here(self, node: Json | None) -> bool:
        return carrier_of(self._ledger.charter, node) == self._ledger.server_id

    def _on_changes(self, changes: list[Change]) -> None:
        if self._early is not None:
            self._early.append(changes)
            return
        own = self._ledger.charter.server(self._ledger.server_id)
        self._news.set()
        if own is None:
            self._give_up()
            return
        self._mind_guard()
        for change in changes:
            if change.view == "tree":
                self._on_node(change)
            elif change.key == own.server_id:
                self._on_own(own, change.old)
            elif change.key != "head":
                self._on_server(change)
        if any(change.view == "roster" for change in changes):
            self._want_subnets(self._routed.roster_changed())

    def _note_subnets(self, node_id: str, node: Json | None) -> set[ServerId]:
        return self._routed.note(node_id, node if self._is_guarded else None)

    def _mind_guard(self) -> None:
        """Send into subnets, or no more, where their guard came or went since it was looked at."""
        is_guarded = self._carries_subnets()
        if is_guarded is self._is_guarded or self._is_revoked:
            return
        self._is_guarded = is_guarded
        moved: set[ServerId] = set()
        for _, node_id, node in self._ledger.state.scan("tree"):
            if routes_of(node):
                moved |= self._note_subnets(node_id, node)
                if self._is_here(node):
                    self._wishes.want(self._endpoint_peer(node))
        self._want_subnets(moved)

    async def _mind_mtu(self) -> None:
        """Follow the uplink, which may be another one."""
        while True:
            await asyncio.sleep(MTU_LOOK_S)
            try:
                mtu = await self._mtu_of()
            except SeipdError as error:
                logger.warning("how large packets may be is not known: %s", error)
                continue
            if mtu != self._mtu and not self._is_revoked:
                logger.info("the tunnel's MTU is %d now", mtu)
                self._mtu = mtu
                self._wishes.plan(self.plan())
                self._news.set()

    def _want_subnets(self, moved: AbstractSet[ServerId]) -> None:
        """Send the subnets of these servers' endpoints where they are now."""
        if moved:
            self._want_servers(self._carrying(moved))
            self._wishes.plan(self.plan())

    def _give_up(self) -> None:
        """Nobody talks to a server that was revoked: its endpoints shall not think otherwise."""
        self._is_revoked = True
        self._wishes.forget()
        for key in self._peers:
            self._wishes.remove(key)

    def _on_node(self, change: Change) -> None:
        old, new = change.old, change.new
        was, now = self._is_here(old), self._is_here(new)
        self._want_servers(self._carrying(self._guests.note(change.key, old, new)))
        self._want_subnets(self._note_subnets(change.key, new))
        if was and old is not None and (not now or _key(old) != _key(new)):
            self._wishes.remove(parse_key(old["wireguard_key"]))
        if now and new is not None:
            self._wishes.want(self._endpoint_peer(new))

    def _on_own(self, own: ServerCertificate, old: Json | None) -> None:
        """Take up what this server inherits: addresses, routes, and the endpoints there."""
        fresh = tuple(one for one in own.slices if old is None or one not in old["slices"])
        if not fresh:
            return
        self._wishes.plan(self.plan())
        for _, _, node in self._ledger.state.scan("tree"):
            if is_ours(fresh, node) and self._is_here(node):
                self._wishes.want(self._endpoint_peer(node))

    def _on_server(self, change: Change) -> None:
        if change.old is not None and (
            change.new is None or change.new["wireguard_key"] != change.old["wireguard_key"]
        ):
            self._wishes.remove(parse_key(change.old["wireguard_key"]))
        server_id = ServerId(change.key)
        if change.new is None:
            self._take_back(self._guests.turned_out(server_id))
            self._forget_detours(server_id)
        else:
            self._want_servers(self._carrying({server_id}))

    def _carrying(self, servers: AbstractSet[ServerId]) -> set[ServerId]:
        """Return these servers and those through which they are reached."""
        return {*servers, *(self._through[one] for one in servers if one in self._through)}

    def _take_back(self, node_ids: Sequence[str]) -> None:
        """Carry the endpoints of own slices again whose server is gone."""
        for node_id in node_ids:
            node = self._ledger.state.get("tree", node_id)
            if self._is_here(node):
                self._wishes.want(self._endpoint_peer(node))

    def _forget_detours(self, gone: ServerId) -> None:
        """Nothing goes to or through a server that was removed."""
        lost = {name: middle for name, middle in self._through.items() if gone in (name, middle)}
        for name in lost:
            del self._through[name]
        self._want_servers({*lost, *lost.values()})

    async def _apply_forever(self) -> None:
        while True:
            await self._news_or_retry()
            self._mind_guard()
            while (wish := self._wishes.take()) is not None:
                try:
                    await self._apply(wish)
                except SeipdError as error:
                    logger.warning("WireGuard refused a change: %s", error)
                    self._wishes.put_off(wish)
            self._state = HealthState.DEGRADED if self._wishes.put_off_count else HealthState.OK

    async def _news_or_retry(self) -> None:
        with contextlib.suppress(TimeoutError):
            pause_s = RETRY_S if self._wishes.put_off_count else GUARD_LOOK_S
            async with asyncio.timeout(pause_s):
                await self._news.wait()
        self._news.clear()
        self._wishes.try_again()

    async def _apply(self, wish: Wish) -> None:
        if isinstance(wish, InterfacePlan):
            await self._tunnels.set_plan(wish)
        elif isinstance(wish, bytes):
            await self._tunnels.remove_peer(wish)
            self._peers.discard(wish)
        else:
            await self._tunnels.set_peer(wish)
            self._peers.add(wish.public_key)


def _key(node: Json | None) -> object:
    return node.get("wireguard_key") if node else None
