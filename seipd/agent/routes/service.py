"""Keeps this endpoint's routes beyond the mesh as they are wished, proved and approved.

Looked at every second is the file of the wishes, so that ``seip up`` is heard while the agent runs;
the server is asked when it says that something changed, after a move, and every five minutes.
"""

from __future__ import annotations

import asyncio
import logging
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Protocol

from seipd.agent.private_api import PrivateApi
from seipd.agent.proving import Prover, Verdict
from seipd.agent.reporting import report_lie
from seipd.agent.routes.book import EMPTY, RouteBook
from seipd.agent.routes.closing import server_places
from seipd.agent.routes.firewall import Carried
from seipd.agent.routes.knowing import Knower, Learnt
from seipd.agent.routes.planning import side_table
from seipd.agent.routes.wishes import RoutingWishes, load_wishes
from seipd.agent.steady import steadily
from seipd.agent.tunnel import interface_plan
from services.edge.punch.messages import What
from services.kernel.errors import SeipdError, UnavailableError
from services.runtime.tasks import TaskOwner

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from seipd.agent.routes.book import Router
    from seipd.agent.state import AgentState
    from services.edge.wireguard.model import DeviceStatus, InterfacePlan
    from services.kernel.clock import Clock

logger = logging.getLogger(__name__)

LOOK_S: Final = 1.0
SOON_S: Final = 3.0
ASK_S: Final = 8.0
KEEP_S: Final = 15.0
AGAIN_S: Final = 300.0


class Home(Protocol):
    """The server that the endpoint is at."""

    @property
    def mesh(self) -> dict[str, Any]:
        """What ``mesh.json`` holds."""

    async def carry(self, subnets: tuple[str, ...]) -> None:
        """Send to the server what is for these subnets, too."""


class Interface(Protocol):
    """The part of WireGuard that is steered from here."""

    async def set_plan(self, plan: InterfacePlan) -> None:
        """Have these addresses and routes."""

    def status(self) -> DeviceStatus:
        """Return what the device is."""


class Carrier(Protocol):
    """Carries subnets for others, on a machine that may."""

    async def carry(self, carried: Carried) -> str:
        """Carry exactly this; return what is in the way, or nothing."""

    async def end(self) -> None:
        """Carry nothing, and leave nothing behind."""


class Routes:
    """The agent's routes; ``book`` is who carries what, as it is gone by now."""

    def __init__(
        self,
        *,
        state: AgentState,
        signer_count: int,
        clock: Clock,
        carrier: Carrier,
        mtu: Callable[[], int],
    ) -> None:
        self._state = state
        self._signer_count = signer_count
        self._clock = clock
        self._carrier = carrier
        self._mtu = mtu
        self._knower = Knower(keys=state.keys(), clock=clock)
        self._wishes = load_wishes(state)
        self._learnt: Learnt | None = None
        self._due_s = self._kept_s = 0.0
        self._at = ""
        self._plan: InterfacePlan | None = None
        self._trouble = ""
        self._port = 0
        self._news = asyncio.Event()
        self._tasks = TaskOwner("agent-routes")
        self.on_changed: list[Callable[[], Awaitable[None]]] = []
        """Told where the book is another one."""
        self.book = EMPTY

    @property
    def wishes(self) -> RoutingWishes:
        """What is wanted."""
        return self._wishes

    def plan(self, mesh: dict[str, Any]) -> InterfacePlan:
        """Return the addresses and routes to have now."""
        servers = server_places(self._state, mesh)
        side = side_table(mesh, self.book, wants_exit=bool(self._wishes.exit_node), servers=servers)
        return interface_plan(mesh, side, mtu=self._mtu())

    async def resize(self, home: Home, interface: Interface) -> None:
        """Have packets as large as they may be now, whatever else is asked for meanwhile.

        Raises:
            SeipdError: WireGuard does not take it.
        """
        plan = self._plan
        if plan is None:
            plan = await asyncio.to_thread(self.plan, home.mesh)
        await self._have(plan, interface)

    def heard(self, what: What) -> None:
        """Take what the server says has changed."""
        if what is What.PEERS:
            self._due_s = 0.0
            self._news.set()

    def touched(self) -> None:
        """Take that the firewall was changed, by whomever: it is looked at now."""
        self._kept_s = -KEEP_S
        self._news.set()

    def begin(self, home: Home, interface: Interface) -> None:
        """Look after them from now on, until ``end``."""
        self._tasks.spawn(
            steadily(lambda: self._look_forever(home, interface), "following routes"),
            name="agent-routes",
        )

    async def _look_forever(self, home: Home, interface: Interface) -> None:
        while True:
            try:
                await self.look(home, interface)
            except SeipdError as error:
                logger.info("routes: %s", error)
                self._due_s = self._clock.monotonic_s() + SOON_S
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._news.wait()
            except TimeoutError:
                continue
            self._news.clear()

    async def look(self, home: Home, interface: Interface) -> None:
        """Take up what was wished meanwhile, ask where that is due, and do it.

        Raises:
            SeipdError: the server is away, or WireGuard does not take it.
        """
        wishes = await asyncio.to_thread(load_wishes, self._state)
        at = home.mesh["server"]["server_id"]
        if (wishes, at) != (self._wishes, self._at):
            self._wishes, self._at, self._due_s = wishes, at, 0.0
            await self._apply(home, interface)
        if self._clock.monotonic_s() >= self._due_s:
            await self._ask(home)
            await self._apply(home, interface)
        elif self._clock.monotonic_s() >= self._kept_s + KEEP_S:
            await self._keep(interface)

    async def end(self) -> None:
        """Look no more, and carry nothing."""
        await self._tasks.close()
        await self._carrier.end()

    async def _ask(self, home: Home) -> None:
        mesh, lies = home.mesh, dict[str, Verdict]()
        # What is heard from here on may be newer than the answer: it is asked for once more.
        self._due_s = math.inf
        keys = self._state.keys()
        judge = Prover(
            state=self._state,
            keys=keys,
            signer_count=self._signer_count,
            clock=self._clock,
            on_lie=lies.__setitem__,
        )
        try:
            async with asyncio.timeout(ASK_S), PrivateApi(mesh, keys) as api:
                learnt = await self._knower.ask(api, judge, mesh)
                if await self._knower.offer(api, mesh, learnt.own, self._wishes):
                    learnt = await self._knower.ask(api, judge, mesh)
        except TimeoutError as error:
            raise UnavailableError("the server does not say who carries what") from error
        finally:
            # Whatever comes of it, it is not the last time.
            self._due_s = min(self._due_s, self._clock.monotonic_s() + SOON_S)
        for subject, verdict in lies.items():
            logger.error("refused: %s: %s", subject, verdict.why)
            now_ms = self._clock.now_ms()
            await report_lie(mesh, keys, subject=subject, verdict=verdict, now_ms=now_ms)
        self._learnt = learnt
        if not learnt.waiting and self._due_s > self._clock.monotonic_s():
            self._due_s = self._clock.monotonic_s() + AGAIN_S

    async def _apply(self, home: Home, interface: Interface) -> None:
        book = self._book(home.mesh)
        if book != self.book:
            self.book = book
            for tell in self.on_changed:
                await tell()
        await home.carry(book.through_server())
        plan = await asyncio.to_thread(self.plan, home.mesh)
        await self._have(plan, interface)
        await self._keep(interface)

    async def _have(self, plan: InterfacePlan, interface: Interface) -> None:
        plan = replace(plan, mtu=self._mtu())
        if plan == self._plan:
            return
        self._plan = plan
        try:
            await interface.set_plan(plan)
        except SeipdError:
            self._plan = None
            raise

    async def _keep(self, interface: Interface) -> None:
        """Have the firewall as it is to be: another program may have flushed everything."""
        self._kept_s = self._clock.monotonic_s()
        self._port = interface.status().listen_port
        self._trouble = await self._carrier.carry(self._carried())

    def _book(self, mesh: dict[str, Any]) -> RouteBook:
        learnt, wishes = self._learnt, self._wishes
        if learnt is None:
            return EMPTY
        found = self._exit()
        return RouteBook(
            learnt.routers if wishes.accepts else (),
            inner=mesh["allowed_ips"],
            exit_address=found.address if found is not None else None,
        )

    def _exit(self) -> Router | None:
        wanted = self._wishes.exit_node
        if not wanted or self._learnt is None:
            return None
        fits = (one for one in self._learnt.routers if wanted in (one.name, one.address))
        return next((one for one in fits if one.is_exit), None)

    def _carried(self) -> Carried:
        """Return what this endpoint carries: what was approved, and is offered still."""
        port = self._port if self._wishes.exit_node else 0
        uses = bool(self.book.subnets()) or self.book.exit_address is not None
        if self._learnt is None:
            return Carried(uses=uses, port=port)
        own, wishes = self._learnt.own, self._wishes
        return Carried(
            subnets=tuple(one for one in own.routes if one in wishes.advertise),
            is_exit=own.exit and wishes.offers_exit,
            members=self._learnt.members,
            uses=uses,
            port=port,
        )

    def facts(self) -> dict[str, Any]:
        """Return what the status shows."""
        carried, learnt = self._carried(), self._learnt
        routers = learnt.routers if learnt is not None and self._wishes.accepts else ()
        return {
            "mode": self._wishes.mode,
            "accepts": self._wishes.accepts,
            "subnets": [
                {"prefix": prefix, "by": one.name, "address": one.address}
                for one in routers
                for prefix in one.prefixes
                if prefix in self.book.subnets()
            ],
            "waiting": list(learnt.waiting) if learnt is not None else [],
            "refused": list(learnt.refused) if learnt is not None else [],
            "offered": [*self._wishes.advertise, *(["exit"] if self._wishes.offers_exit else [])],
            "carried": [*carried.subnets, *(["exit"] if carried.is_exit else [])],
            "trouble": self._trouble,
            "exit": self._exit_facts(),
        }

    def _exit_facts(self) -> dict[str, Any] | None:
        wanted, found = self._wishes.exit_node, self._exit()
        if not wanted:
            return None
        if found is not None:
            return {"name": found.name, "address": found.address, "why": ""}
        why = "the server was not asked yet"
        if self._learnt is not None:
            why = "no endpoint of this name may be an exit"
        if self._learnt is not None and wanted in self._learnt.waiting:
            why = "it is not proved yet"
        return {"name": wanted, "address": None, "why": why}
