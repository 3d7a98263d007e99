"""Keeps an endpoint at a good server: measures, decides by ``choosing``, and moves it.

Through the tunnel its own server is knocked at every five seconds. A port that refuses is an
answer, too: what counts is that something came back.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final, Protocol

from seipd.agent.changes import Change
from seipd.agent.choosing import Chooser
from seipd.agent.serverlist import fetch_servers, load_servers, nearest, outside, save_servers
from services.kernel.errors import SeipdError
from services.kernel.places import parse_place

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from seipd.agent.choosing import Move
    from seipd.agent.serverlist import KnownServer
    from seipd.agent.state import AgentState
    from services.kernel.clock import Clock

logger = logging.getLogger(__name__)

LOOK_S: Final = 1.0
KNOCK_S: Final = 5.0
PROBE_S: Final = 20.0
LIST_S: Final = 60.0
WORRIED_MS: Final = 6_500
KNOCK_TIMEOUT_S: Final = 2.0
MAX_PROBED: Final = 8
DNS_S: Final = 10.0


class Home(Protocol):
    """The server that the endpoint is at, and the way to another."""

    @property
    def mesh(self) -> dict[str, Any]:
        """What ``mesh.json`` holds."""

    async def received_bytes(self) -> int:
        """Return how much came through the tunnel since it is up."""

    async def move(self, server_id: str, address: str) -> None:
        """Go to another server.

        Raises:
            SeipdError: that did not work; the endpoint is where it was.
        """


class Roaming:
    """One endpoint's eye on the servers."""

    def __init__(
        self,
        *,
        state: AgentState,
        home: Home,
        clock: Clock,
        find: Callable[[], Awaitable[list[KnownServer]]],
    ) -> None:
        self._state = state
        self._home = home
        self._clock = clock
        self._find = find
        self._chooser = Chooser()
        self._servers: dict[str, KnownServer] = {}
        self._heard_ms = self._now_ms()
        self._received = -1
        self._due_ms = {"knock": 0, "probe": 0, "list": 0, "dns": 0}
        self.moved_because = ""

    async def run(self) -> None:
        """Look until cancelled."""
        self._know(load_servers(self._state))
        while True:
            await self.look()
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """Measure what is due, and move if that is better."""
        silent_ms = await self._silent_ms()
        is_worried = silent_ms >= WORRIED_MS
        async with asyncio.TaskGroup() as group:
            if is_worried and not self._knows_another and self._is_due("dns", DNS_S):
                group.create_task(self._ask_dns())
            if self._is_due("knock", KNOCK_S) or is_worried:
                mesh = self._home.mesh
                group.create_task(knock(mesh["gateway"], mesh["private_port"]))
            if self._is_due("probe", PROBE_S) or is_worried:
                for one in self._servers.values():
                    group.create_task(self._measure(one))
            if not is_worried and self._is_due("list", LIST_S):
                group.create_task(self._refresh())
        silent_ms = await self._silent_ms()
        at = self._home.mesh["server"]["server_id"]
        move = self._chooser.decide(at, silent_ms=silent_ms, now_ms=self._now_ms())
        if move is not None:
            await self.go(move)

    async def go(self, move: Move) -> None:
        """Move; where that fails the other is not tried again for a minute."""
        logger.info("going to %s: %s", move.server_id, move.why)
        silent_ms = self._now_ms() - self._heard_ms
        self._chooser.moved(now_ms=self._now_ms(), silent_ms=silent_ms)
        try:
            await self._home.move(move.server_id, self._servers[move.server_id].at_hand)
        except SeipdError as error:
            logger.warning("%s: %s", move.server_id, error)
            self._chooser.failed(move.server_id, now_ms=self._now_ms())
            return
        self.moved_because = move.why
        self._heard_ms, self._received = self._now_ms(), -1

    async def network_changed(self, change: Change) -> None:
        """Take that the way out is another one, or that this machine slept."""
        if change in (Change.WAY, Change.AWAKE):
            self._chooser.network_changed()

    @property
    def silent_s(self) -> int:
        """For how long nothing came through the tunnel; it is knocked at each five seconds."""
        return (self._now_ms() - self._heard_ms) // 1000

    def latencies_ms(self) -> dict[str, float]:
        """Return the moving averages of the servers that answer."""
        found = {name: self._chooser.latency_ms(name) for name in self._servers}
        return {name: ms for name, ms in found.items() if ms is not None}

    async def _refresh(self) -> None:
        try:
            servers = await fetch_servers(self._home.mesh)
        except SeipdError as error:
            logger.warning("no list of servers: %s", error)
            return
        self._know(servers)
        save_servers(self._state, servers)

    @property
    def _knows_another(self) -> bool:
        own = self._home.mesh["server"]["server_id"]
        return any(one != own for one in self._servers)

    async def _ask_dns(self) -> None:
        """Find the others by the mesh's domain: nobody told of them while there was time."""
        try:
            servers = await self._find()
        except SeipdError as error:
            logger.warning("no server is found by DNS: %s", error)
            return
        self._know(servers)

    def _know(self, servers: list[KnownServer]) -> None:
        own = self._home.mesh["server"]["server_id"]
        region = next((one.region for one in servers if one.server_id == own), None)
        # A server without a public address is reached through others: no way out of a dead tunnel.
        candidates = outside(servers, self._home.mesh["allowed_ips"])
        chosen = nearest(candidates, region, count=MAX_PROBED)
        chosen += [one for one in servers if one.server_id == own and one not in chosen]
        self._servers = {one.server_id: one for one in chosen}
        self._chooser.know({one.server_id: one.load for one in chosen})

    async def _measure(self, one: KnownServer) -> None:
        latency_ms = await knock(*parse_place(one.at_hand))
        self._chooser.measured(one.server_id, latency_ms, now_ms=self._now_ms())

    async def _silent_ms(self) -> int:
        try:
            received = await self._home.received_bytes()
        except SeipdError as error:
            # WireGuard is made anew just now; nothing comes through meanwhile.
            logger.info("how much came is not known: %s", error)
            return self._now_ms() - self._heard_ms
        if received != self._received:
            self._received, self._heard_ms = received, self._now_ms()
        return self._now_ms() - self._heard_ms

    def _is_due(self, what: str, every_s: float) -> bool:
        now_ms = self._now_ms()
        if now_ms < self._due_ms[what]:
            return False
        self._due_ms[what] = now_ms + int(every_s * 1000)
        return True

    def _now_ms(self) -> int:
        return int(self._clock.monotonic_s() * 1000)


async def knock(host: str, port: int) -> float | None:
    """Return the milliseconds until a TCP port answered, be it by refusing; None if it did not."""
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    try:
        async with asyncio.timeout(KNOCK_TIMEOUT_S):
            _, writer = await asyncio.open_connection(host, port)
    except ConnectionRefusedError:
        return 1000 * (loop.time() - began_s)
    except (TimeoutError, OSError):
        return None
    writer.close()
    return 1000 * (loop.time() - began_s)
