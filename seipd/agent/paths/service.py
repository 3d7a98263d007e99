"""The paths to all other endpoints: what happens is told to them, what they want is done.

``pathing`` decides for one peer; this is the glue to WireGuard's port and device, to the rendezvous
and the relays, and to the clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from ipaddress import ip_network
from typing import TYPE_CHECKING, Final, Protocol

from seipd.agent.paths.effects import Ask, Drop, LeaveRelay, SeekRelay, Send, SetPeer, Tell
from seipd.agent.paths.held import Held
from seipd.agent.paths.pathing import PeerPath
from seipd.agent.paths.peers import TunnelPeers
from seipd.agent.paths.phase import Phase
from seipd.agent.paths.probes import NONCE_BYTES, ProbeBox
from seipd.agent.paths.rawport import Kind
from seipd.agent.steady import steadily
from services.edge.punch.messages import CandidateKind, Why
from services.kernel.errors import InputError, SeipdError, WireError
from services.kernel.targets import neighbourhood, why_refused
from services.runtime.tasks import TaskOwner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from seipd.agent.paths.effects import Effect
    from seipd.agent.paths.peers import Device
    from seipd.agent.paths.places import Places
    from seipd.agent.paths.proved import Peer, ProvedPeers
    from seipd.agent.paths.rawport import RawPort
    from seipd.agent.paths.rendezvous import Rendezvous
    from services.edge.punch.messages import Known, Meet, RelayOffer, SignalCode
    from services.edge.wireguard.model import Endpoint, PeerStatus
    from services.kernel.clock import Clock
    from services.kernel.targets import Network
    from services.runtime.udp import Address

logger = logging.getLogger(__name__)

MAX_PATHS: Final = 256
MEETING_S: Final = 5.0
"""After so long the other has stopped to send to where it was told."""
TICK_FAST_S: Final = 0.05
TICK_S: Final = 0.25

_WHY: Final = {
    Why.UNKNOWN: "the server knows no such endpoint",
    Why.AWAY: "it is away, or a stock WireGuard client",
    Why.FORBIDDEN: "the policy lets the two not meet",
    Why.BUSY: "the server has too many calls",
    Why.UNREACHABLE: "its server does not answer",
}


class Relays(Protocol):
    """Has relays carry."""

    def begin(self, peer_key: bytes, offers: Sequence[RelayOffer]) -> None:
        """Have one of these carry for the two; again with newer tickets, go on."""

    def end(self, peer_key: bytes) -> None:
        """Let it go."""

    async def run(self) -> None:
        """Work until cancelled."""


class Paths:
    """Satisfies the listeners of the rendezvous, of the proved peers and of the relays."""

    def __init__(
        self,
        *,
        private_key: bytes,
        port: RawPort,
        device: Device,
        rendezvous: Rendezvous,
        places: Places,
        peers: ProvedPeers,
        relays_of: Callable[[Paths], Relays] | None,
        mesh_ranges: Iterable[str],
        prefixes_of: Callable[[str], tuple[str, ...]],
        clock: Clock,
    ) -> None:
        """Prepare.

        Args:
            private_key: WireGuard's.
            port: WireGuard's port.
            device: the WireGuard service.
            rendezvous: the line to the server.
            places: where this endpoint may be reached.
            peers: who may get a tunnel.
            relays_of: makes what has relays carry, and tells us; None where nothing does.
            mesh_ranges: what lies inside of the mesh.
            prefixes_of: the subnets that the endpoint of a tunnel address carries.
            clock: the clock.
        """
        self._box = ProbeBox(private_key)
        self._port = port
        self._rendezvous = rendezvous
        self._places = places
        self._peers = peers
        self._relays = relays_of(self) if relays_of is not None else None
        self._mesh_ranges = [ip_network(one) for one in mesh_ranges]
        self._clock = clock
        self._start_ms = clock.now_ms() - int(clock.monotonic_s() * 1000)
        self._tunnels = TunnelPeers(device=device, prefixes_of=prefixes_of, on_read=self._read)
        self._held: dict[str, Held] = {}
        self._by_key: dict[bytes, Held] = {}
        self._meetings: dict[str, tuple[Meet, float]] = {}
        self._news = asyncio.Event()
        self._tasks = TaskOwner("paths")

    async def begin(self) -> None:
        """Have paths from now on."""
        self._port.attach(Kind.PROBE, self._probed)
        self._rendezvous.subscribe(self)
        self._peers.subscribe(self)
        self._tasks.spawn(steadily(self._tunnels.run, "tunnels to peers"), name="paths-tunnels")
        self._tasks.spawn(steadily(self._tick_forever, "paths"), name="paths-tick")
        if self._relays is not None:
            self._tasks.spawn(steadily(self._relays.run, "relays"), name="paths-relays")

    async def end(self) -> None:
        """Let all packets go over the server again, and say so to the others."""
        for held in list(self._held.values()):
            self._follow(held, held.path.end("the agent ends", self._now_s()))
        await self._tasks.close()
        with contextlib.suppress(SeipdError):
            await self._tunnels.close()

    @property
    def held(self) -> list[Held]:
        """All paths that there are."""
        return list(self._held.values())

    def want(self, address: str) -> None:
        """Take note that packets go to a tunnel address: a better path is worth while."""
        found = self._peers.address_of(address)
        if found is None:
            return
        peer = self._peers.find(found)
        if peer is None:
            self._peers.want(found)
            return
        held = self._path_of(peer)
        if held is not None:
            self._follow(held, held.path.want(self._now_s()))

    def network_changed(self, *, is_lost: bool = True) -> None:
        """Take that this machine is reached by other addresses now.

        Args:
            is_lost: what was open before may be so no more; else there is only more than before.
        """
        if is_lost:
            self._rendezvous.refresh()
            self._places.changed()
        else:
            self._places.hurry()
        for held in list(self._held.values()):
            if is_lost:
                held.excluded_s.clear()
            self._follow(held, held.path.network_changed(self._now_s(), is_lost=is_lost))

    def restate(self, addresses: Iterable[str] | None = None) -> None:
        """Take that the subnets of these, or of all, are others than before."""
        chosen = self._held if addresses is None else addresses
        self._tunnels.restate([self._held[one].peer for one in chosen if one in self._held])

    # What the rendezvous tells.

    def known(self, known: Known) -> None:
        """The server sees this endpoint elsewhere: nothing to do, it tells the others itself."""

    def meet(self, meet: Meet) -> None:
        """Another endpoint is to be met."""
        peer = self._peers.find(meet.peer_address)
        if peer is None:
            self._meetings[meet.peer_address] = meet, self._now_s()
            while len(self._meetings) > MAX_PATHS:
                del self._meetings[next(iter(self._meetings))]
            self._peers.want(meet.peer_address, now=True)
            return
        if peer.key != meet.key:
            logger.warning("the server names another key of %s than was proved", peer.name)
            self._peers.changed()
            return
        held = self._path_of(peer)
        if held is None:
            return
        held.near = self._near(meet)
        addresses = [one.endpoint for one in meet.candidates if self._may_send(held, one.endpoint)]
        held.is_hopeless = (
            meet.is_symmetric
            and self._places.is_symmetric
            and not any(":" in host for host, _ in addresses)
        )
        offers = self._fair(meet.offers)
        if self._relays is not None and held.path.path == "relay" and offers:
            self._relays.begin(peer.key, offers)
        now_s = self._now_s()
        self._follow(held, held.path.meet(addresses, offers, now_s, hopeless=held.is_hopeless))

    def nothing(self, peer: str, why: Why) -> None:
        """A call came to nothing."""
        held = self._held.get(peer)
        if held is not None:
            self._follow(held, held.path.refused(_WHY[why], self._now_s()))

    def signalled(self, peer: str, code: SignalCode) -> None:
        """Another endpoint says how far it is."""
        held = self._held.get(peer)
        if held is not None:
            self._follow(held, held.path.signalled(code, self._now_s()))

    # What the proved peers tell.

    def peer_proved(self, peer: Peer) -> None:
        """A peer may have a tunnel now."""
        meet, told_s = self._meetings.pop(peer.address, (None, 0.0))
        if meet is None:
            return
        if self._now_s() - told_s < MEETING_S:
            self.meet(meet)
        elif (held := self._path_of(peer)) is not None:
            self._follow(held, held.path.want(self._now_s()))

    def peer_gone(self, peer: Peer) -> None:
        """A peer is none any more, or another than before."""
        held = self._held.get(peer.address)
        if held is not None:
            self._follow(held, held.path.end("it is another endpoint now", self._now_s()))
            self._forget(held)

    # What the relays tell.

    def relay_bound(self, peer_key: bytes, relay_id: bytes, address: Address) -> None:
        """A relay carries for the two."""
        held = self._by_key.get(peer_key)
        if held is not None:
            self._follow(held, held.path.relay_bound(address, self._now_s()))

    def relay_lost(self, peer_key: bytes, relay_id: bytes, why: str) -> None:
        """No relay carries for the two any more."""
        held = self._by_key.get(peer_key)
        if held is not None:
            # Ended by the other end, as a rule, which may be late in going where this one is.
            if why != "ended":
                held.exclude(relay_id, self._now_s())
            self._follow(held, held.path.relay_lost(f"the relay: {why}", self._now_s()))

    def relay_usage(self, peer_key: bytes, relay_id: bytes, statement: bytes) -> None:
        """A relay signed how much it carried: nothing is made of that here."""

    def _probed(self, data: bytes, source: Address) -> None:
        try:
            key, probe = self._box.decode(data)
        except WireError:
            return
        held = self._by_key.get(key)
        if held is not None and self._may_send(held, source):
            self._follow(held, held.path.heard(probe, source, self._now_s()))

    def _read(self, found: dict[bytes, PeerStatus]) -> None:
        for held in list(self._held.values()):
            held.status = found.get(held.peer.key)
            self._follow(held, held.path.device(held.status, self._now_s()))

    def _path_of(self, peer: Peer) -> Held | None:
        held = self._held.get(peer.address)
        if held is not None:
            return held
        if len(self._held) >= MAX_PATHS and not self._make_room():
            logger.debug("no path to %s: there are too many", peer.name)
            return None
        try:
            self._box.know(peer.key)
        except InputError:
            return None
        held = Held(
            peer=peer, path=PeerPath(start_ms=self._start_ms, leads=self._box.own < peer.key)
        )
        self._held[peer.address] = self._by_key[peer.key] = held
        self._news.set()
        return held

    def _make_room(self) -> bool:
        """Forget the oldest of those that came to nothing: others may call as many as they like."""
        idle = (one for one in self._held.values() if one.path.phase is Phase.IDLE)
        found = next(idle, None)
        if found is not None:
            self._forget(found)
        return found is not None

    def _forget(self, held: Held) -> None:
        self._box.forget(held.peer.key)
        self._held.pop(held.peer.address, None)
        self._by_key.pop(held.peer.key, None)

    def _near(self, meet: Meet) -> tuple[Network, ...]:
        known = self._rendezvous.known
        own = known.observed if known is not None else None
        seen = [one for one in meet.candidates if one.kind is CandidateKind.OBSERVED]
        return neighbourhood(own[0], seen[0].endpoint[0]) if own is not None and seen else ()

    def _may_send(self, held: Held, address: Endpoint) -> bool:
        """Judge an address that others named; the server judged it, too."""
        on_link = [*held.near, *(one.network for one in self._places.networks)]
        return why_refused(*address, mesh_ranges=self._mesh_ranges, on_link=on_link) is None

    def _fair(self, offers: Sequence[RelayOffer]) -> tuple[RelayOffer, ...]:
        """Return the relays that may be sent to."""
        if self._relays is None:
            return ()
        on_link = [one.network for one in self._places.networks]
        return tuple(
            one
            for one in offers
            if not any(
                why_refused(host, one.control_port, mesh_ranges=self._mesh_ranges, on_link=on_link)
                for host in (one.host4, one.host6)
                if host
            )
        )

    def _follow(self, held: Held, effects: list[Effect]) -> None:
        for effect in effects:
            self._do(held, effect)
        self._tunnels.is_hurried |= held.path.phase is Phase.SHAKING
        if held.path.is_busy:
            self._news.set()

    def _do(self, held: Held, effect: Effect) -> None:
        peer = held.peer
        match effect:
            case Send(address, probe):
                nonce = secrets.token_bytes(NONCE_BYTES)
                self._port.send(self._box.encode(peer.key, probe, nonce), address)
            case SetPeer() | Drop():
                logger.info("%s: %s %s", peer.name, held.path.path, held.path.endpoint or "")
                self._tunnels.order(peer, effect)
            case Ask():
                self._rendezvous.call(peer.address, held.excluded(self._now_s()))
            case Tell(code):
                self._rendezvous.signal(peer.address, code)
            case SeekRelay(offers) if self._relays is not None:
                self._relays.begin(peer.key, offers)
            case LeaveRelay() if self._relays is not None:
                self._relays.end(peer.key)
            case _:
                pass

    async def _tick_forever(self) -> None:
        while True:
            self._news.clear()
            now_s = self._now_s()
            for held in list(self._held.values()):
                self._follow(held, held.path.tick(now_s))
                if held.path.is_over(now_s):
                    self._forget(held)
            phases = {held.path.phase for held in self._held.values()}
            self._tunnels.is_hurried = Phase.SHAKING in phases
            if any(held.path.is_busy for held in self._held.values()):
                await asyncio.sleep(TICK_FAST_S)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK_S if self._held else None):
                    await self._news.wait()

    def _now_s(self) -> float:
        return self._clock.monotonic_s()
