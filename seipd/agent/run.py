"""The agent: keeps the tunnel up until told to stop; tells its state in a small file."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from seipd.agent.background import forget_status, remove_tunnel
from seipd.agent.diagnosis import STALE_HANDSHAKE_S
from seipd.agent.discovery.finding import find_servers, own_names
from seipd.agent.ending import end_each
from seipd.agent.home import TunnelHome
from seipd.agent.hostdns.keeping import WAITING, AskedGateway, ResolverKeeper
from seipd.agent.hostdns.planning import Wish
from seipd.agent.hostdns.ways import ChosenResolver, restore_file
from seipd.agent.lock import only_agent
from seipd.agent.marks import FWMARK
from seipd.agent.mtu.keeping import MtuKeeper, keeper_of_mtu
from seipd.agent.outside import Outside
from seipd.agent.paths.composing import PathWork
from seipd.agent.policy import AgentPolicy
from seipd.agent.proving import certified_server
from seipd.agent.roaming import Roaming
from seipd.agent.routes.carrying import SubnetCarrier, clear_leftovers
from seipd.agent.routes.service import Routes
from seipd.agent.steady import steadily
from seipd.agent.telling import Patience, StatusFile
from services.edge.wireguard.service import WireGuardService
from services.kernel.errors import SeipdError, UnavailableError
from services.kernel.ids import MeshId
from services.runtime.clock import SystemClock
from services.runtime.nftwatch import FirewallWatch
from services.runtime.tasks import TaskOwner

if TYPE_CHECKING:
    from collections.abc import Callable

    from seipd.agent.renewing import Renewing
    from seipd.agent.state import AgentState
    from seipd.agent.wanted import Tunnel
    from services.edge.wireguard.model import InterfacePlan, PeerStatus

logger = logging.getLogger(__name__)

RENEWED_WITHIN_S = 180.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What has a part of its own in the status."""

    outside: Outside
    paths: PathWork
    routes: Routes
    policy: AgentPolicy
    sizing: MtuKeeper

    def facts(self) -> dict[str, Any]:
        """Return those parts."""
        return {
            "outside": self.outside.facts(),
            "paths": self.paths.facts(),
            "routes": self.routes.facts(),
            "policy": self.policy.facts(),
            "mtu": self.sizing.size.facts(),
        }


async def run_agent(state: AgentState, tunnel: Tunnel) -> int:
    """Have the tunnel up until SIGTERM; take it down then.

    Raises:
        ConflictError: ``locked``: an agent of this endpoint runs already.
        StartError: WireGuard can't be set up; the code says why.
        RefusedError: the server's keys are not those that the root signed.
        UnavailableError: ``agent_crashed``: a part of it ended that nothing goes on without.
    """
    certified_server(state.mesh())
    with only_agent(state, tunnel.interface) as before:
        if before not in (None, tunnel.interface):
            # One that was killed: two interfaces with one key would be at odds.
            with contextlib.suppress(SeipdError):
                await remove_tunnel(state, before, state.keys())
        crashed = await _run(state, tunnel)
    if crashed:
        raise UnavailableError(
            f"a part of the agent ended: {crashed[0]}",
            code="agent_crashed",
            mend="start it again, and report the fault that its log shows",
        )
    return 0


async def _run(state: AgentState, tunnel: Tunnel) -> list[str]:
    """Have the tunnel up until told to stop; return what crashed."""
    mesh = state.mesh()
    clock, stop, crashed = SystemClock(), _stop_event(), list[str]()
    tasks = _tasks_of(stop, crashed)
    sizing = await keeper_of_mtu(tunnel, mesh, clock)
    routes = await routes_of(state, tunnel, clock, lambda: sizing.size.mtu)
    wireguard = wireguard_of(state, tunnel, routes.plan(mesh), tasks)
    home = TunnelHome(
        state=state, wireguard=wireguard, signer_count=tunnel.signer_count, clock=clock
    )
    roaming = Roaming(
        state=state,
        home=home,
        clock=clock,
        find=lambda: find_servers(mesh["domain"], names=own_names(mesh["gateway"])),
    )
    keeper = resolver_keeper(state, mesh, tunnel)
    outside = Outside(home=home, interface=tunnel.interface)
    policy = AgentPolicy(state=state, interface=tunnel.interface)
    paths = PathWork(
        state=state,
        interface=tunnel.interface,
        signer_count=tunnel.signer_count,
        mode=routes.wishes.mode,
        wireguard=wireguard,
        outside=outside,
        clock=clock,
        keeps_rules=lambda: policy.facts()["state"] == "kept",
        book=lambda: routes.book,
    )
    _introduce(home, paths, routes, policy, outside, sizing)
    outside.on_change.append(roaming.network_changed)
    await wireguard.start()
    try:
        await policy.begin(home)
        await home.begin()
        works = {
            "watching the firewall": FirewallWatch(policy.touched, routes.touched).run,
            "roaming": roaming.run,
            "renewing": renewing_of(state, clock).run,
        }
        for name, work in works.items():
            tasks.spawn(steadily(work, name), name=f"agent: {name}")
        outside.begin(tasks)
        await paths.begin()
        routes.begin(home, wireguard)
        sizing.begin(tasks, home, lambda: routes.resize(home, wireguard))
        if keeper is not None:
            keeper.begin()
        await _watch(
            state,
            home,
            roaming,
            keeper,
            Told(outside=outside, paths=paths, routes=routes, policy=policy, sizing=sizing),
            tunnel,
            stop,
        )
    finally:
        forget_status(state)
        await end_each(
            {
                "the router's port": outside.end,
                "paths": paths.end,
                "routes": routes.end,
                "the server's peer": home.end,
                **({"names": keeper.end} if keeper is not None else {}),
                "WireGuard": lambda: wireguard.stop(down=True),
                "the rest": tasks.close,
                "rules": policy.end,
            }
        )
    return crashed


def wireguard_of(
    state: AgentState, tunnel: Tunnel, plan: InterfacePlan, tasks: TaskOwner
) -> WireGuardService:
    """Return the interface."""
    return WireGuardService(
        interface=tunnel.interface,
        listen_port=0,
        private_key=state.keys().wireguard_private,
        backend_choice=tunnel.backend,  # type: ignore[arg-type]  # checked by the command line
        run_dir=state.run,
        clock=SystemClock(),
        tasks=tasks,
        plan=plan,
        fwmark=FWMARK,
    )


def _tasks_of(stop: asyncio.Event, crashed: list[str]) -> TaskOwner:
    """Return an owner of tasks that are all needed: where one crashes the agent ends."""

    def on_crash(name: str, _: BaseException) -> None:
        crashed.append(name)
        stop.set()

    return TaskOwner("agent", on_crash=on_crash)


def _stop_event() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


def _introduce(
    home: TunnelHome,
    paths: PathWork,
    routes: Routes,
    policy: AgentPolicy,
    outside: Outside,
    sizing: MtuKeeper,
) -> None:
    """Have each hear of what the others do."""
    home.on_moved += [paths.moved, sizing.hurry]
    paths.rendezvous.subscribe_changed(routes.heard)
    paths.rendezvous.subscribe_changed(policy.heard)
    routes.on_changed.append(paths.routes_changed)
    outside.on_change.append(sizing.network_changed)


async def routes_of(
    state: AgentState, tunnel: Tunnel, clock: SystemClock, mtu: Callable[[], int]
) -> Routes:
    """Return what looks after routes beyond the mesh; what a killed agent left of it is gone."""
    await asyncio.to_thread(clear_leftovers, tunnel.interface, state.run)
    mesh = state.mesh()
    carrier = SubnetCarrier(
        interface=tunnel.interface,
        mesh_id=MeshId(mesh["mesh_id"]),
        inner=mesh["allowed_ips"],
        run_dir=state.run,
    )
    return Routes(
        state=state, signer_count=tunnel.signer_count, clock=clock, carrier=carrier, mtu=mtu
    )


def renewing_of(state: AgentState, clock: SystemClock) -> Renewing:
    """Return what renews the certificates of this endpoint, at whichever server it is then."""
    from seipd.agent.certificate import issue_certificate, learn_when_due
    from seipd.agent.renewing import Renewing
    from services.edge.acme.certfiles import CertificateFiles

    return Renewing(
        files=CertificateFiles(state.folder / "certs"),
        renew=lambda name: issue_certificate(state, name, wait_s=RENEWED_WITHIN_S),
        learn=lambda name: learn_when_due(state, name),
        clock=clock,
        rng=secrets.SystemRandom(),
    )


def resolver_keeper(
    state: AgentState, mesh: dict[str, Any], tunnel: Tunnel
) -> ResolverKeeper | None:
    """Return what points this machine's resolver at the gateway; None where that is not wanted.

    What an agent that crashed left in a resolv.conf is taken out first.
    """
    try:
        restore_file(state.folder)
    except SeipdError as error:
        logger.warning("%s", error)
    if not tunnel.sets_dns:
        return None
    domains = tuple(dict.fromkeys((mesh["domain"], *tunnel.domains)))
    wish = Wish(gateway=mesh["gateway"], interface=tunnel.interface, domains=domains)
    return ResolverKeeper(
        resolver=ChosenResolver(wish, state.folder),
        gateway=AskedGateway(mesh["gateway"], mesh["domain"]),
    )


async def _watch(
    state: AgentState,
    home: TunnelHome,
    roaming: Roaming,
    keeper: ResolverKeeper | None,
    told: Told,
    tunnel: Tunnel,
    stop: asyncio.Event,
) -> None:
    """Look at the handshake, ask for a new one where it is missing, write the status file."""
    clock, file = SystemClock(), StatusFile(state.run / "status.json")
    patience = Patience(clock.monotonic_s())
    while not stop.is_set():
        peer = await _peer(home)
        age_s = _age_s(peer, clock.now_ms() // 1000)
        connected = age_s is not None and age_s < STALE_HANDSHAKE_S
        home.watch.note_tunnel(connected=connected)
        told.sizing.note_tunnel(connected=connected)
        value = {
            **_tunnel_facts(home, peer, age_s),
            "interface": tunnel.interface,
            "options": tunnel.words(),
            "dns": keeper.facts() if keeper is not None else None,
            **told.facts(),
            "silent_seconds": roaming.silent_s,
            "moved_because": roaming.moved_because,
            "latencies_ms": {name: round(ms) for name, ms in roaming.latencies_ms().items()},
        }
        await asyncio.to_thread(file.write, value)
        if patience.asks_anew(connected=connected, now_s=clock.monotonic_s()):
            # WireGuard repeats a lost initiation after five seconds; a new peer asks at once.
            with contextlib.suppress(SeipdError):
                await home.reset()
        with contextlib.suppress(TimeoutError):
            is_settled = connected and (keeper is None or keeper.facts()["state"] != WAITING)
            is_settled |= home.watch.is_revoked
            pause_s = patience.pause_s(is_settled=is_settled, now_s=clock.monotonic_s())
            async with asyncio.timeout(pause_s):
                await stop.wait()


async def _peer(home: TunnelHome) -> PeerStatus | None:
    try:
        return await home.peer()
    except SeipdError as error:
        # It is made anew where it went away.
        logger.info("WireGuard is not there: %s", error)
        return None


def _tunnel_facts(home: TunnelHome, peer: PeerStatus | None, age_s: int | None) -> dict[str, Any]:
    device = home.device()
    return {
        "pid": os.getpid(),
        "backend": device.backend,
        "port": device.listen_port,
        "last_handshake_seconds": age_s,
        "rx_bytes": peer.rx_bytes if peer else 0,
        "tx_bytes": peer.tx_bytes if peer else 0,
        "trust": home.watch.trust,
    }


def _age_s(peer: PeerStatus | None, now_s: int) -> int | None:
    if peer is None or not peer.last_handshake_s:
        return None
    return max(now_s - peer.last_handshake_s, 0)
