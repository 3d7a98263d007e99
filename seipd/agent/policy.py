"""Holds what comes out of the tunnel to the rules of the mesh, whichever path it took here.

The server tells what may reach this endpoint; it says when that changes, and is asked every minute
beside. What was told last is kept on disk, and holds until the server has told something else.
Where nothing was ever told, or the kernel takes no table, what the servers let through comes in.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING, Any, Final, Protocol

from seipd.agent.noting import note
from seipd.agent.private_api import PrivateApi
from seipd.agent.steady import steadily
from services.base.storage.files import read_private
from services.edge.policy.endpoint_table import InboundBook, Place, endpoint_table_name
from services.edge.policy.inbound import Inbound, inbound_from
from services.edge.policy.table import KernelTable, remove_table
from services.edge.punch.messages import What
from services.kernel import canonical
from services.kernel.errors import SeipdError, UnavailableError
from services.kernel.ids import MeshId
from services.runtime.tasks import TaskOwner

if TYPE_CHECKING:
    from seipd.agent.state import AgentState

logger = logging.getLogger(__name__)

FILE: Final = "policy.json"
MAX_FILE_BYTES: Final = 16 << 20
ASK_S: Final = 8.0
AGAIN_S: Final = 60.0
SOON_S: Final = 2.0
FEWEST_S: Final = 0.25
"""Between two questions: a server answers 300 a minute."""
LOOK_S: Final = 5.0
"""Another's firewall may flush every table, and people edit."""


class Home(Protocol):
    """The server that the endpoint is at."""

    @property
    def mesh(self) -> dict[str, Any]:
        """What ``mesh.json`` holds."""


class AgentPolicy:
    """The table of this endpoint; ``begin`` it before the interface has peers."""

    def __init__(
        self, *, state: AgentState, interface: str, table: KernelTable | None = None
    ) -> None:
        mesh = state.mesh()
        self._state = state
        self._table = table or KernelTable(endpoint_table_name(interface))
        self._place = Place(
            interface=interface,
            tunnel_range=tunnel_range_of(mesh),
            mesh_id=MeshId(mesh["mesh_id"]),
        )
        self._book = InboundBook(self._place)
        self._version = ""
        self._trouble = ""
        self._news = asyncio.Event()
        self._touched = asyncio.Event()
        self._turn = asyncio.Lock()
        self._tasks = TaskOwner("agent-policy")
        self._api: PrivateApi | None = None
        self._at: dict[str, Any] = {}

    async def begin(self, home: Home) -> None:
        """Have what was told last, in the place of what a killed agent left; follow the server."""
        held = await asyncio.to_thread(self._kept)
        if held is None:
            await self._remove()
        else:
            await self._have(held)
        self._tasks.spawn(
            steadily(lambda: self._follow(home), "following the rules"), name="agent-policy-follow"
        )
        self._tasks.spawn(
            steadily(self._guard, "guarding the table of rules"), name="agent-policy-guard"
        )

    async def end(self) -> None:
        """Take the table away."""
        await self._tasks.close()
        await self._remove()
        self._table.close()

    def heard(self, what: What) -> None:
        """Take what the server says has changed."""
        if what is What.POLICY:
            self._news.set()

    def touched(self) -> None:
        """Take that the firewall was changed, by whomever: the table is looked at now."""
        self._touched.set()

    def facts(self) -> dict[str, Any]:
        """Return what the status shows."""
        state = "kept" if self._version and not self._trouble else "not kept"
        why = self._trouble or ("" if self._version else "the server has told no rules yet")
        return {"state": state, "version": self._version, "why": why}

    async def _follow(self, home: Home) -> None:
        """Ask when something changed, and now and then."""
        try:
            while True:
                pause_s = AGAIN_S
                try:
                    await self._ask(home)
                except SeipdError as error:
                    logger.info("rules: %s", error)
                    await self._close()
                    pause_s = SOON_S
                await asyncio.sleep(FEWEST_S)
                await self._rest(pause_s)
        finally:
            await self._close()

    async def _rest(self, pause_s: float) -> None:
        """Wait for news."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await self._news.wait()
        self._news.clear()

    async def _guard(self) -> None:
        """See that the table stays, whatever the server says meanwhile, or does not."""
        while True:
            self._touched.clear()
            async with self._turn:
                await self._look()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._touched.wait()

    async def _ask(self, home: Home) -> None:
        mesh = home.mesh
        try:
            async with asyncio.timeout(ASK_S):
                api = await self._session(mesh)
                told = await api.call("GET", f"/api/mesh/policy?have={self._version}")
        except TimeoutError as error:
            raise UnavailableError("the server does not say what may reach us") from error
        if told.keys() == {"version"} and told["version"] == self._version:
            return
        await self._have(told)
        await asyncio.to_thread(note, self._state.folder / FILE, told)

    async def _session(self, mesh: dict[str, Any]) -> PrivateApi:
        """Return the session with the server that the endpoint is at: logging in takes long."""
        at = mesh["server"]
        if self._api is None or self._at != at:
            await self._close()
            self._api, self._at = PrivateApi(mesh, self._state.keys()), at
            await self._api.__aenter__()
        return self._api

    async def _close(self) -> None:
        api, self._api = self._api, None
        if api is not None:
            await api.__aexit__(None, None, None)

    async def _have(self, told: dict[str, Any]) -> None:
        """Hold to what was told.

        Raises:
            WireError: it makes no sense; what was before stays.
        """
        inbound: Inbound = inbound_from(told)
        async with self._turn:
            await self._put(inbound, str(told["version"]))

    async def _put(self, inbound: Inbound, version: str) -> None:
        is_first = not self._version
        self._book.put(inbound)
        self._version = version
        commands = self._book.take_changes() if not is_first and not self._trouble else ""
        if commands:
            try:
                await asyncio.to_thread(self._table.run, commands)
            except SeipdError as error:
                logger.info("rules are put anew: %s", error)
                await self._replace()
        elif is_first or self._trouble:
            await self._replace()

    async def _look(self) -> None:
        if not self._version:
            return
        try:
            is_intact = not self._trouble and await asyncio.to_thread(self._table.is_intact)
        except SeipdError as error:
            self._trouble = str(error)
            return
        if not is_intact:
            await self._replace()

    async def _replace(self) -> None:
        try:
            await asyncio.to_thread(self._table.replace, self._book.whole())
        except SeipdError as error:
            if not self._trouble:
                logger.warning("rules are not kept by this endpoint: %s", error)
            self._trouble = str(error)
        else:
            self._trouble = ""

    async def _remove(self) -> None:
        try:
            await asyncio.to_thread(self._table.remove)
        except SeipdError as error:
            logger.info("rules: %s", error)

    def _kept(self) -> dict[str, Any] | None:
        path = self._state.folder / FILE
        if not path.exists():
            return None
        try:
            value = canonical.decode_object(read_private(path, max_bytes=MAX_FILE_BYTES))
            inbound_from(value)
        except (SeipdError, OSError) as error:
            logger.warning("%s is not used: %s", FILE, error)
            return None
        return value


def remove_leftover_table(interface: str) -> bool:
    """Remove the table that a killed agent left; say whether there was one."""
    try:
        return remove_table(endpoint_table_name(interface))
    except SeipdError as error:
        logger.info("rules: %s", error)
        return False


def tunnel_range_of(mesh: dict[str, Any]) -> IPv4Network:
    """Return the range that the mesh's endpoints have their addresses of."""
    own = IPv4Address(mesh["tunnel_address"])
    networks = (IPv4Network(one) for one in mesh["allowed_ips"] if ":" not in one)
    return next(one for one in networks if own in one)
