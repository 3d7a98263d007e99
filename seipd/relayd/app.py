"""The stand-alone relay at work: it carries, and keeps in touch with the mesh, until SIGTERM."""

from __future__ import annotations

import asyncio
import logging
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from seipd.relayd.following import Follower
from seipd.relayd.roster import MeshRoster
from seipd.relayd.unwelcome import Unwelcome
from services.edge.relay.keys import box_private_key
from services.edge.relay.service import RelayService
from services.edge.relay.settings import RelaySettings
from services.edge.relaying.lifesigns import INTERVAL_S
from services.edge.relaying.loading import LoadMeter
from services.edge.relaying.running import bind_hosts, party_refusals, raw_relay_id, statements
from services.kernel.errors import SeipdError
from services.runtime.clock import SystemClock

if TYPE_CHECKING:
    from seipd.relayd.home import KnownMesh, RelayHome, Where
    from services.base.crypto.signatures import SigningKey
    from services.kernel.clock import Clock

logger = logging.getLogger(__name__)

FIRST_S: Final = 2.0
"""Until the mesh was reached once it is asked so often."""
AGAIN_S: Final = 5.0
"""After a server did not know a key it is asked again so soon."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Which relay, for which mesh, where."""

    home: RelayHome
    key: SigningKey
    mesh: KnownMesh
    where: Where
    bind_address: str


class RelayCarrier:
    """The relay as the follower needs it; satisfies Carrier."""

    def __init__(
        self, relay: RelayService, settings: RelaySettings, unwelcome: Unwelcome, clock: Clock
    ) -> None:
        self._relay = relay
        self._unwelcome = unwelcome
        self._clock = clock
        self._meter = LoadMeter(
            max_sessions=settings.limits.sessions, capacity_kbits=settings.capacity_kbits
        )

    def parties(self) -> list[bytes]:
        """Return the WireGuard keys that it carries for."""
        return self._relay.clients()

    def sessions_count(self) -> int:
        """Return how many sessions there are."""
        return self._relay.status().sessions

    def load_permille(self) -> int:
        """Return how much of what it may carry it carries."""
        status = self._relay.status()
        return self._meter.look(
            sessions_count=status.sessions,
            carried_bytes=status.carried_bytes,
            now_s=self._clock.monotonic_s(),
        )

    def revoked(self, wireguard_key: bytes) -> None:
        """End what a key takes part in; tickets that it has left open nothing any more."""
        self._unwelcome.add(wireguard_key)
        self._relay.revoked(wireguard_key)

    def recheck(self) -> None:
        """End what no server of the mesh stands behind any more."""
        self._relay.recheck()


async def run_relay(plan: Plan) -> None:
    """Carry until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    clock = SystemClock()
    roster = MeshRoster(plan.mesh.mesh_id)
    try:
        roster.take(plan.home.charter())
    except SeipdError as error:
        logger.warning("the roster that was remembered is of no use: %s", error)
    settings, unwelcome = settings_of(plan), Unwelcome(clock.monotonic_s)
    relay = RelayService(
        settings=settings,
        is_server=roster.is_server,
        # Who left is told by a server: a relay holds no copy of the ledger.
        is_welcome=unwelcome.is_welcome,
        why_refused=party_refusals(
            [one for one in (plan.where.host, plan.where.host6) if one],
            port=plan.where.port,
            inner=roster.inner_networks,
        ),
        clock=clock,
        statement=statements(plan.key, plan.mesh.mesh_id),
    )
    follower = Follower(
        home=plan.home,
        mesh=plan.mesh,
        roster=roster,
        key=plan.key,
        carrier=RelayCarrier(relay, settings, unwelcome, clock),
        clock=clock,
    )
    await relay.start()
    try:
        await _follow(follower, stop)
    finally:
        await relay.stop()


def settings_of(plan: Plan) -> RelaySettings:
    """Return what the relay is told."""
    return RelaySettings(
        relay_id=raw_relay_id(plan.key.public_key),
        mesh_id=bytes.fromhex(plan.mesh.mesh_id),
        box_private=box_private_key(plan.key.seed),
        hosts=bind_hosts(plan.bind_address),
        port=plan.where.port,
        table="seipd_community_relay",
    )


async def _follow(follower: Follower, stop: asyncio.Event) -> None:
    """Keep in touch; say whenever what the mesh says of this relay changes."""
    said, pause_s = "", FIRST_S
    while not stop.is_set():
        try:
            await follower.turn()
            is_settled = follower.state != "not_registered"
            pause_s = INTERVAL_S if is_settled else FIRST_S
            pause_s = AGAIN_S if follower.doubted else pause_s
        except SeipdError as error:
            logger.warning("%s", error)
        if follower.state != said:
            said = follower.state
            logger.info("the mesh says of this relay: %s", said)
        try:
            async with asyncio.timeout(pause_s):
                await stop.wait()
        except TimeoutError:
            continue
