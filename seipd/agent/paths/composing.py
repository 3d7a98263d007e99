"""Puts together what makes direct and relayed paths for one running agent."""

from __future__ import annotations

import logging
import secrets
from typing import TYPE_CHECKING, Any

from seipd.agent.answer import stun_ports_of
from seipd.agent.changes import Change
from seipd.agent.marks import FWMARK
from seipd.agent.paths.places import Places
from seipd.agent.paths.proved import ProvedPeers
from seipd.agent.paths.rawport import RawPort
from seipd.agent.paths.relays import RelayWork
from seipd.agent.paths.rendezvous import Rendezvous
from seipd.agent.paths.service import MAX_PATHS, Paths
from seipd.agent.paths.talking import Talkers
from seipd.agent.paths.watching import PathWatch
from seipd.agent.peerlines import SERVER
from seipd.agent.routes.book import EMPTY
from seipd.agent.state import MAX_STATUS_BYTES
from seipd.agent.steady import steadily
from services.base.storage.files import read_private
from services.edge.punch.messages import SignalCode, What
from services.kernel import canonical
from services.kernel.errors import SeipdError
from services.runtime.nft import Nft, is_available
from services.runtime.tasks import TaskOwner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from seipd.agent.outside import Outside
    from seipd.agent.routes.book import RouteBook
    from seipd.agent.state import AgentState
    from services.edge.wireguard.model import Endpoint
    from services.edge.wireguard.service import WireGuardService
    from services.kernel.clock import Clock

logger = logging.getLogger(__name__)

MESH: str = "mesh"
HUB: str = "hub"


class PathWork:
    """Everything about paths; ``begin`` it once the tunnel's interface is up."""

    def __init__(
        self,
        *,
        state: AgentState,
        interface: str,
        signer_count: int,
        mode: str,
        wireguard: WireGuardService,
        outside: Outside,
        clock: Clock,
        keeps_rules: Callable[[], bool],
        book: Callable[[], RouteBook] = lambda: EMPTY,
    ) -> None:
        """Put it together.

        Args:
            state: of this endpoint.
            interface: the tunnel's.
            signer_count: how many servers have to sign what a proof stands on.
            mode: ``mesh``: other endpoints directly; ``hub``: all over the server.
            wireguard: the tunnel.
            outside: the way out of this machine.
            clock: the clock.
            keeps_rules: says whether this endpoint holds what comes in to the rules.
            book: who carries which subnet.
        """
        mesh, keys = state.mesh(), state.keys()
        inner: Iterable[str] = mesh["allowed_ips"]
        self._state = state
        self._mode = mode
        self._wireguard = wireguard
        self._outside = outside
        self._tasks = TaskOwner("path-work")
        self._port = RawPort(inner=(mesh["tunnel_address"], mesh["tunnel_address6"]), mark=FWMARK)
        self.rendezvous = Rendezvous(
            address=mesh["tunnel_address"],
            gateway=mesh["gateway"],
            interface=interface,
            clock=clock,
            rng=secrets.SystemRandom(),
        )
        self._places = Places(
            port=self._port,
            interface=interface,
            servers=self._servers,
            ports=lambda: stun_ports_of(state.mesh()),
            mapped=self._mapped,
            told=lambda found, is_symmetric: self.rendezvous.set_candidates(
                found, is_symmetric=is_symmetric
            ),
        )
        self._peers = ProvedPeers(
            state=state, signer_count=signer_count, clock=clock, keeps_rules=keeps_rules
        )
        self._paths = Paths(
            private_key=keys.wireguard_private,
            port=self._port,
            device=wireguard,
            rendezvous=self.rendezvous,
            places=self._places,
            peers=self._peers,
            relays_of=lambda paths: RelayWork(
                state=state, port=self._port, listener=paths, clock=clock
            ),
            mesh_ranges=inner,
            prefixes_of=lambda address: book().prefixes_of(address),
            clock=clock,
        )
        self._nft = Nft() if is_available() else None
        self._watch = PathWatch(
            paths=self._paths,
            peers=self._peers,
            rendezvous=self.rendezvous,
            talkers=Talkers(self._nft, interface) if self._nft is not None else None,
            inner=inner,
            book=book,
            clock=clock,
        )
        self.why_none = "" if mode == MESH else "hub mode"

    async def begin(self) -> None:
        """Speak with the server, and have paths where they are wanted and can be had.

        Where they can't, all goes over the server, and the status says why.
        """
        try:
            await self.rendezvous.start()
            if self._mode != MESH:
                self.rendezvous.decline()
                return
            self._port.open(self._wireguard.status().listen_port)
        except SeipdError as error:
            logger.warning("%s", error)
            self.why_none = str(error)
            self.rendezvous.decline()
            return
        for address in left_behind(self._state):
            self.rendezvous.signal(address, SignalCode.RESTARTED)
        self.rendezvous.subscribe_changed(self._on_changed)
        self._outside.on_change.append(self._on_network)
        self._outside.on_mapped.append(lambda _: self._places.hurry())
        self._tasks.spawn(steadily(self._places.run, "looking for candidates"), name="paths-places")
        self._tasks.spawn(steadily(self._peers.run, "proving peers"), name="paths-peers")
        await self._paths.begin()
        await self._watch.begin()

    async def end(self) -> None:
        """Let everything go over the server again; may be called twice."""
        await self._watch.end()
        await self._paths.end()
        await self._tasks.close()
        await self.rendezvous.stop()
        self._port.close()
        if self._nft is not None:
            self._nft.close()

    def facts(self) -> dict[str, Any]:
        """Return what the status shows."""
        return {
            "mode": self._mode,
            "why_none": self.why_none,
            "is_symmetric": self._places.is_symmetric,
            "peers": self._peers.counts,
            "held": self._watch.facts(),
        }

    @property
    def is_busy(self) -> bool:
        """Whether a path is looked for just now."""
        return any(held.path.is_busy for held in self._paths.held)

    def moved(self) -> None:
        """Take that the endpoint is at another server."""
        self.rendezvous.refresh()
        self._places.hurry()
        self._peers.changed()

    async def routes_changed(self) -> None:
        """Take that others carry subnets now."""
        self._paths.restate()
        await self._watch.routes_changed()

    def _servers(self) -> list[str]:
        server = self._state.mesh()["server"]
        places = (server["endpoint"], *server["addresses"])
        return [place.rpartition(":")[0].strip("[]") for place in places]

    def _mapped(self) -> Endpoint | None:
        mapped = self._outside.mapped
        return (mapped.host, mapped.port) if mapped is not None else None

    def _on_changed(self, what: What) -> None:
        if what is What.PEERS:
            self._peers.changed()
        else:
            self._peers.rules_changed()

    async def _on_network(self, change: Change) -> None:
        self._paths.network_changed(is_lost=change is not Change.MORE)


def left_behind(state: AgentState) -> list[str]:
    """Return the tunnel addresses of those who may still send to an agent that was killed."""
    try:
        data = read_private(state.run / "status.json", max_bytes=MAX_STATUS_BYTES)
        held = canonical.decode_object(data)["paths"]["held"]
        found = [str(one["address"]) for one in held if one["path"] != SERVER]
    except (SeipdError, OSError, KeyError, TypeError):
        return []
    return found[:MAX_PATHS]
