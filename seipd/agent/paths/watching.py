"""Looks to whom packets go, measures paths that say nothing by themselves, tells the status."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any, Final

from seipd.agent.steady import steadily
from services.kernel.errors import SeipdError
from services.runtime.tasks import TaskOwner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from seipd.agent.paths.held import Held
    from seipd.agent.paths.proved import ProvedPeers
    from seipd.agent.paths.rendezvous import Rendezvous
    from seipd.agent.paths.service import Paths
    from seipd.agent.paths.talking import Talkers
    from seipd.agent.routes.book import RouteBook
    from services.kernel.clock import Clock

logger = logging.getLogger(__name__)

LOOK_S: Final = 0.3
ECHO_S: Final = 10.0
UNKNOWN_S: Final = 60.0
MAX_UNKNOWN: Final = 32
"""Where nobody knows who is talked to, paths to so many are kept."""
BOTH_PICK: Final = "the routers on both sides pick a port for each destination"
_SMOOTHING: Final = 0.3


class PathWatch:
    """Keeps the paths that are used wanted."""

    def __init__(
        self,
        *,
        paths: Paths,
        peers: ProvedPeers,
        rendezvous: Rendezvous,
        talkers: Talkers | None,
        inner: Iterable[str],
        book: Callable[[], RouteBook],
        clock: Clock,
    ) -> None:
        """Keep what is needed.

        Args:
            paths: the paths.
            peers: the endpoints that were proved.
            rendezvous: measures through the tunnel.
            talkers: who is talked to; None where that can't be known.
            inner: the mesh's own networks.
            book: who carries which subnet.
            clock: the clock.
        """
        self._paths = paths
        self._peers = peers
        self._rendezvous = rendezvous
        self._talkers = talkers
        self._inner = tuple(inner)
        self._book = book
        self._clock = clock
        self._tasks = TaskOwner("path-watch")

    async def begin(self) -> None:
        """Look from now on."""
        if self._talkers is not None:
            try:
                await asyncio.to_thread(self._talkers.begin, self._networks())
            except SeipdError as error:
                logger.warning("who is talked to is not known: %s", error)
                self._talkers = None
        self._tasks.spawn(
            steadily(self._look_forever, "looking who is talked to"), name="paths-talkers"
        )
        self._tasks.spawn(steadily(self._measure_forever, "measuring paths"), name="paths-echo")

    async def end(self) -> None:
        """Look no more; may be called twice."""
        await self._tasks.close()
        if self._talkers is not None:
            with contextlib.suppress(SeipdError):
                await asyncio.to_thread(self._talkers.end)

    async def routes_changed(self) -> None:
        """Take that packets to other networks are to be looked at, too."""
        if self._talkers is not None:
            with contextlib.suppress(SeipdError):
                await asyncio.to_thread(self._talkers.begin, self._networks())

    def facts(self) -> list[dict[str, Any]]:
        """Return the paths as the status shows them."""
        now_s = self._clock.now_ms() // 1000
        return [_shown(held, now_s) for held in self._paths.held]

    async def _look_forever(self) -> None:
        has_failed = False
        while True:
            try:
                wanted = await self._wanted()
            except SeipdError as error:
                if has_failed:
                    logger.warning("who is talked to is not known: %s", error)
                    await asyncio.sleep(ECHO_S)
                # Somebody flushed the firewall, as a rule: then the set is there again at once.
                has_failed = True
                await self.routes_changed()
                continue
            has_failed = False
            for address in wanted:
                self._paths.want(address)
            await asyncio.sleep(LOOK_S if self._talkers is not None else UNKNOWN_S)

    async def _wanted(self) -> list[str]:
        book = self._book()
        if self._talkers is None:
            found = [one.address for one in self._peers.proved[:MAX_UNKNOWN]]
        else:
            noted = await asyncio.to_thread(self._talkers.addresses)
            found = [book.behind(one) or one for one in noted]
        return [*found, *book.wanted()]

    def _networks(self) -> tuple[str, ...]:
        return (*self._inner, *self._book().subnets())

    async def _measure_forever(self) -> None:
        while True:
            for held in self._paths.held:
                if held.path.path != "direct" and held.path.is_wanted(self._clock.monotonic_s()):
                    await self._measure(held)
            await asyncio.sleep(ECHO_S)

    async def _measure(self, held: Held) -> None:
        path = held.path.path
        took_s = await self._rendezvous.echo(held.peer.address)
        if took_s is None or held.path.path != path:
            held.echo_ms = None
            return
        new_ms = took_s * 1000
        old_ms = held.echo_ms if held.echo_path == path else None
        held.echo_path = path
        held.echo_ms = new_ms if old_ms is None else old_ms + _SMOOTHING * (new_ms - old_ms)


def _shown(held: Held, now_s: int) -> dict[str, Any]:
    path, status = held.path, held.status
    echo_ms = held.echo_ms if held.echo_path == path.path else None
    latency_ms = path.latency_ms if path.latency_ms is not None else echo_ms
    is_own = path.path != "server" and status is not None
    return {
        "node_id": held.peer.node_id,
        "name": held.peer.name,
        "address": held.peer.address,
        "path": path.path,
        "why": BOTH_PICK if held.is_hopeless and path.path == "relay" else path.why,
        "phase": path.phase.value,
        "latency_us": None if latency_ms is None else round(latency_ms * 1000),
        "endpoint": "" if path.endpoint is None else _place(path.endpoint),
        "last_handshake_seconds": (
            max(now_s - status.last_handshake_s, 0) if is_own and status is not None else None
        ),
        "rx_bytes": status.rx_bytes if is_own and status is not None else None,
        "tx_bytes": status.tx_bytes if is_own and status is not None else None,
    }


def _place(address: tuple[str, int]) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
