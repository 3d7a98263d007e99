"""The tunnel as a service: one driver owns the device and does everything in order.

Callers say what they want and wait for the device's answer. The driver gathers what has been asked
meanwhile into one transaction, looks every half minute, and when an address went, whether the
device is still as wanted, and makes it anew when it went away. Stopping leaves the tunnel up, and
the next start adopts it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from services.base.crypto.agreement import x25519_public
from services.edge.wireguard import network, sidetable
from services.edge.wireguard.choose import BackendChoice, choose_backend, remove_leftover
from services.edge.wireguard.driver import Driver, DriverCounters
from services.edge.wireguard.model import (
    DeviceStatus,
    InterfacePlan,
    PeerConfig,
    PeerStatus,
    check_interface_name,
    check_key,
)
from services.edge.wireguard.requests import (
    CheckNow,
    RemovePeer,
    ReplacePeers,
    Request,
    RequestQueue,
    ResetPeer,
    SetPeer,
    SetPlan,
)
from services.edge.wireguard.watch import InterfaceWatch
from services.kernel.errors import SeipdError, StartError, UnavailableError
from services.kernel.service import Health, HealthState

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from services.edge.wireguard.backend import Backend
    from services.kernel.clock import Clock
    from services.runtime.tasks import TaskOwner

DRIFT_INTERVAL_S = 30.0
ANSWER_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Running:
    """All that is there between start and stop."""

    backend: Backend
    queue: RequestQueue
    driver: Driver
    task: asyncio.Task[None]
    watch: asyncio.Task[None]
    listen_port: int


class WireGuardService:
    """Keeps interface, addresses, routes and peers as they are wanted."""

    name: ClassVar[str] = "wireguard"

    def __init__(
        self,
        *,
        interface: str,
        listen_port: int,
        private_key: bytes,
        run_dir: Path,
        clock: Clock,
        tasks: TaskOwner,
        backend_choice: BackendChoice = "auto",
        plan: InterfacePlan | None = None,
        drift_interval_s: float = DRIFT_INTERVAL_S,
        fwmark: int = 0,
    ) -> None:
        check_interface_name(interface)
        check_key(private_key)
        self._interface = interface
        self._listen_port = listen_port
        self._private_key = private_key
        self._public_key = x25519_public(private_key)
        self._run_dir = run_dir
        self._clock = clock
        self._tasks = tasks
        self._choice: BackendChoice = backend_choice
        self._plan = plan or InterfacePlan()
        self._drift_interval_s = drift_interval_s
        self._fwmark = fwmark
        self._state = HealthState.STOPPED
        self._why = ""
        self._running: _Running | None = None

    async def start(self) -> None:
        """Have the interface up, adopting our own; peers that are there stay until told otherwise.

        Raises:
            StartError: with the code of what is in the way; nothing new is left behind.
        """
        if self._running is not None:
            return
        self._state, self._why = HealthState.STARTING, ""
        try:
            self._running = await self._start()
        except SeipdError as error:
            self._state, self._why = HealthState.FAILED, str(error)
            raise StartError(
                str(error), service=self.name, code=error.code, mend=error.mend
            ) from error
        self._state = HealthState.OK

    async def stop(self, *, down: bool = False) -> None:
        """Stop looking after the tunnel and leave it up; ``down`` takes it down.

        Raises:
            SeipdError: with ``down``, when the interface is not ours.
        """
        running, self._running = self._running, None
        if running is not None:
            running.watch.cancel()
            running.queue.close()
            _, pending = await asyncio.wait({running.task}, timeout=_STOP_TIMEOUT_S)
            if pending:
                running.task.cancel()
                await asyncio.wait({running.task})
            await (running.backend.remove() if down else running.backend.close())
            if down:
                await sidetable.clear(self._interface)
        elif down:
            await remove_leftover(
                interface=self._interface, run_dir=self._run_dir, public_key=self._public_key
            )
        self._state = HealthState.STOPPED

    def health(self) -> Health:
        """Say how the tunnel is."""
        running = self._running
        if running is not None and running.task.done():
            return Health(state=HealthState.FAILED, detail="the driver of the tunnel ended")
        if running is not None and running.driver.trouble:
            return Health(state=HealthState.DEGRADED, detail=running.driver.trouble)
        return Health(state=self._state, detail=self._why)

    def status(self) -> DeviceStatus:
        """Return what the device is, without waiting for it."""
        running = self._running
        return DeviceStatus(
            interface=self._interface,
            backend=running.backend.kind if running else "",
            public_key=self._public_key,
            listen_port=running.listen_port if running else self._listen_port,
            peer_count=len(running.driver.table.wanted) if running else 0,
            mtu=running.driver.mtu if running else None,
        )

    def counters(self) -> DriverCounters:
        """Return what happened since the start."""
        return self._running.driver.counters if self._running else DriverCounters()

    async def peers(self) -> dict[bytes, PeerStatus]:
        """Read the peers from the device.

        Raises:
            UnavailableError: it is away.
        """
        return (await self._up().backend.read()).peers

    async def set_peer(self, peer: PeerConfig, *, restates: bool = False) -> None:
        """Want this peer so, and return when the device has it.

        Args:
            peer: as it is wanted.
            restates: tell the device its endpoint, though it is the one that was told last: since
                then WireGuard may have heard the peer from elsewhere.

        Raises:
            UnavailableError: no answer yet; the wish stays and is tried again.
        """
        await self._ask(SetPeer(peer, restates))

    async def remove_peer(self, public_key: bytes) -> None:
        """Want this peer no more, and return when the device does not have it.

        Raises:
            UnavailableError: no answer yet; the wish stays and is tried again.
        """
        await self._ask(RemovePeer(public_key))

    async def replace_peers(self, peers: Mapping[bytes, PeerConfig]) -> None:
        """Want exactly these peers; only what differs is told to the device, in one batch.

        Raises:
            UnavailableError: no answer yet; the wish stays and is tried again.
        """
        await self._ask(ReplacePeers(tuple(peers.values())))

    async def reset_peer(self, public_key: bytes) -> None:
        """Make a peer anew, in one transaction: with a keepalive the handshake begins at once.

        Raises:
            NotFoundError: no such peer is wanted.
            UnavailableError: no answer.
        """
        await self._ask(ResetPeer(public_key))

    async def set_plan(self, plan: InterfacePlan) -> None:
        """Want these addresses and routes, and return when the interface has them.

        Raises:
            ConflictError: ``route_in_use``.
            UnavailableError: no answer yet; the wish stays and is tried again.
        """
        await self._ask(SetPlan(plan))

    async def check(self) -> None:
        """Compare everything with the device now, and mend it.

        Raises:
            UnavailableError: it is away.
        """
        await self._ask(CheckNow())

    async def _ask(self, request: Request) -> None:
        answer = self._up().queue.put(request)
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                await answer
        except TimeoutError as error:
            raise UnavailableError(
                "WireGuard did not answer in time; it is tried again", code="wireguard_timeout"
            ) from error

    def _up(self) -> _Running:
        if self._running is None:
            raise UnavailableError("WireGuard is not up", code="wireguard_gone")
        return self._running

    def _note_gone(self) -> None:
        if self._running is not None:
            self._running.driver.note_gone()

    async def _start(self) -> _Running:
        backend = await self._choose()
        created = await backend.open(private_key=self._private_key, listen_port=self._listen_port)
        try:
            listen_port = (await backend.read()).listen_port
            queue = RequestQueue()
            driver = Driver(
                interface=self._interface,
                backend=backend,
                queue=queue,
                private_key=self._private_key,
                public_key=self._public_key,
                listen_port=listen_port,
                plan=self._plan,
                clock=self._clock,
                drift_interval_s=self._drift_interval_s,
                ensure=network.ensure,
            )
            await driver.ensure_network()
        except BaseException:
            await (backend.remove() if created else backend.close())
            raise
        task = self._tasks.spawn(driver.run(), name=f"wireguard-{self._interface}")
        watch = InterfaceWatch(self._interface, driver.note_drift)
        return _Running(
            backend=backend,
            queue=queue,
            driver=driver,
            task=task,
            watch=self._tasks.spawn(watch.run(), name=f"watch-{self._interface}"),
            listen_port=listen_port,
        )

    async def _choose(self) -> Backend:
        backend = await self._choose_once()
        if self._choice in ("auto", backend.kind):
            return backend
        # The other backend was chosen since: what is there of ours makes way.
        await remove_leftover(
            interface=self._interface, run_dir=self._run_dir, public_key=self._public_key
        )
        return await self._choose_once()

    async def _choose_once(self) -> Backend:
        return await choose_backend(
            self._choice,
            interface=self._interface,
            run_dir=self._run_dir,
            on_gone=self._note_gone,
            fwmark=self._fwmark,
        )
