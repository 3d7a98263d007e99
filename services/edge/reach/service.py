"""Finds a way to the servers without a WireGuard session: through one who has it with both.

Looks at the device every few seconds, and has handshakes that never came begun anew. While somebody
who lives is out of reach this server tells with whom it is in session; by what both ends tell so,
the routes between them are chosen.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, ClassVar, Final, Protocol

from services.edge.reach.detours import SessionWatch, detours, inherited, links_to_tell
from services.edge.reach.prompting import Prompter
from services.kernel.errors import SeipdError, UnavailableError
from services.kernel.ids import ServerId, raw_server_id, server_id_of_raw
from services.kernel.service import Health, HealthState
from services.mesh.facts.kinds import LINKS
from services.mesh.facts.payloads import LinksPayload, decode_payload, encode_payload
from services.runtime.tasks import TaskOwner

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from services.authority.ports import Ledger
    from services.edge.wireguard.model import PeerStatus
    from services.kernel.clock import Clock
    from services.mesh.facts.envelope import Fact

logger = logging.getLogger(__name__)

LOOK_S: Final = 5.0
HURRIED_LOOK_S: Final = 1.0
START_S: Final = 10.0
"""After a start it takes so long at most until the device has all its peers."""
MIN_GAP_S: Final = 0.5
RENEW_S: Final = 300.0
LIFETIME_MS: Final = 900_000
SETTLE_S: Final = 60.0
"""After a start it takes so long at most until the others have told of their sessions again."""


class FactExchange(Protocol):
    """The part of gossip that is needed here."""

    def publish_fact(self, kind: int, payload: bytes, *, lifetime_ms: int | None = None) -> None:
        """Say something about this server from now on."""

    def facts(self, kind: int) -> Mapping[str, Fact]:
        """Return the facts of one kind that hold now, by server, our own among them."""


class PeerReader(Protocol):
    """The part of the WireGuard service that is needed here."""

    async def peers(self) -> Mapping[bytes, PeerStatus]:
        """Read the peers from the device.

        Raises:
            UnavailableError: it is away.
        """


class Router(Protocol):
    """Sends what is for one server to another."""

    def set_detours(self, through: Mapping[ServerId, ServerId]) -> None:
        """Reach exactly these servers through others."""

    async def begin_anew(self, server_id: ServerId) -> None:
        """Begin the handshake with a server anew, if it is known where that is.

        Raises:
            UnavailableError: the device is away.
        """


class ReachService:
    """Watches sessions, tells of them, and chooses who stands in the middle."""

    name: ClassVar[str] = "reach"

    def __init__(
        self,
        *,
        ledger: Ledger,
        tunnels: PeerReader,
        facts: FactExchange,
        router: Router,
        dead: Callable[[], Collection[ServerId]],
        clock: Clock,
    ) -> None:
        self._ledger = ledger
        self._tunnels = tunnels
        self._facts = facts
        self._router = router
        self._dead = dead
        self._clock = clock
        self._watch = SessionWatch()
        self._prompter = Prompter()
        self._live: frozenset[bytes] = frozenset()
        self._news = asyncio.Event()
        self._tasks = TaskOwner("reach", on_crash=self._on_crash)
        self._state = HealthState.STOPPED
        self._trouble = ""
        self._told: tuple[ServerId, ...] | None = None
        self._told_s = 0.0
        self._lost: tuple[ServerId, ...] = ()
        self._inherited: dict[ServerId, ServerId] = {}
        self._settled_s = 0.0
        self.through: Mapping[ServerId, ServerId] = {}

    async def start(self) -> None:
        """Keep to the ways round that the device goes by, and begin to look.

        It goes before whoever tells the device all its peers, so that no packet is lost.
        """
        self._state, self._trouble = HealthState.OK, ""
        await self._inherit()
        self._tasks.spawn(self._look_forever(), name="reach-look")

    async def stop(self) -> None:
        """Look no more; the routes stay as they are. May be called twice."""
        self._state = HealthState.STOPPED
        await self._tasks.close()

    def health(self) -> Health:
        """Say who is reached through others, and who is not reached at all."""
        if self._trouble:
            return Health(state=self._state, detail=self._trouble)
        said = [f"{len(self.through)} servers through others"] if self.through else []
        if self._lost:
            said.append(f"no WireGuard path to {', '.join(self._lost[:5])}")
        return Health(state=self._state, detail="; ".join(said))

    def fact_learnt(self, fact: Fact) -> None:
        """Look again where somebody tells of other sessions than before."""
        if fact.kind == LINKS:
            self._news.set()

    def member_changed(self) -> None:
        """Look again, since somebody died or came back."""
        self._news.set()

    async def look(self) -> None:
        """Read the device, begin handshakes that never came, tell, choose."""
        try:
            peers = await self._tunnels.peers()
        except UnavailableError as error:
            self._trouble = str(error)
            return
        self._trouble = ""
        others = self._others()
        servers = {key: peer for key, peer in peers.items() if key in others}
        now_s, now_ms = self._clock.monotonic_s(), self._clock.now_ms()
        self._live = self._watch.read(servers, now_s=now_s, now_ms=now_ms)
        dead = self._dead()
        await self._prompt({key: one for key, one in servers.items() if others[key] not in dead})
        self.choose()

    async def _prompt(self, peers: Mapping[bytes, PeerStatus]) -> None:
        servers = self._others()
        own = self._ledger.charter.server(self._ledger.server_id)
        if own is None:
            return
        due = self._prompter.due(own.wireguard_key, peers, self._clock.monotonic_s())
        # Where the device is away the next look tells.
        with contextlib.suppress(SeipdError):
            for key in due:
                logger.info("no handshake with %s yet: begun anew", servers[key])
                await self._router.begin_anew(servers[key])

    def choose(self) -> None:
        """Tell what the last reading showed, if somebody is out of reach, and choose anew."""
        now_s, own_id = self._clock.monotonic_s(), self._ledger.server_id
        servers, by_key, live = self._ledger.charter.servers(), self._others(), self._live
        if own_id not in servers:
            return
        lacking = {by_key[key] for key in self._watch.lacking(now_s) if key in by_key}
        dead = self._dead()
        if lacking - set(dead):
            in_session = {by_key[key] for key in live if key in by_key}
            self._tell(links_to_tell(servers, in_session, dead), now_s)
        known = self._inherited if now_s < self._settled_s else {}
        kept = {
            one: middle
            for one, middle in known.items()
            if one in servers and servers[one].wireguard_key not in live and middle in servers
        }
        self.through = kept | detours(own_id, sorted(lacking), self._links(servers))
        self._lost = tuple(sorted(lacking - self.through.keys() - set(dead)))
        self._router.set_detours(self.through)

    async def _inherit(self) -> None:
        servers = self._ledger.charter.servers()
        by_backbone = {f"{one.backbone}/32": name for name, one in servers.items()}
        with contextlib.suppress(UnavailableError):
            self._inherited = inherited(await self._tunnels.peers(), self._others(), by_backbone)
        self._settled_s = self._clock.monotonic_s() + SETTLE_S
        self.through = self._inherited
        self._router.set_detours(self.through)

    def _others(self) -> dict[bytes, ServerId]:
        own_id, servers = self._ledger.server_id, self._ledger.charter.servers()
        return {one.wireguard_key: name for name, one in servers.items() if name != own_id}

    def _tell(self, links: tuple[ServerId, ...], now_s: float) -> None:
        if links == self._told and now_s - self._told_s < RENEW_S:
            return
        payload = LinksPayload(servers=tuple(sorted(raw_server_id(name) for name in links)))
        try:
            self._facts.publish_fact(LINKS, encode_payload(payload), lifetime_ms=LIFETIME_MS)
        except SeipdError as error:
            logger.debug("the sessions were not told: %s", error)
            return
        self._told, self._told_s = links, now_s

    def _links(self, servers: Collection[ServerId]) -> dict[ServerId, list[ServerId]]:
        return {
            ServerId(name): [
                server_id
                for raw in decode_payload(fact.payload, LinksPayload).servers
                if (server_id := server_id_of_raw(raw)) in servers
            ]
            for name, fact in self._facts.facts(LINKS).items()
        }

    async def _look_forever(self) -> None:
        hurried_s = self._clock.monotonic_s() + START_S
        while True:
            await self.look()
            now_s = self._clock.monotonic_s()
            hurries = now_s < hurried_s or self._prompter.hurries
            next_s = now_s + (HURRIED_LOOK_S if hurries else LOOK_S)
            while (left_s := next_s - self._clock.monotonic_s()) > 0:
                await asyncio.sleep(MIN_GAP_S)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(left_s):
                        await self._news.wait()
                        # Reading a device with thousands of peers costs more than choosing.
                        self.choose()
                self._news.clear()

    def _on_crash(self, task: str, error: BaseException) -> None:
        self._state, self._trouble = HealthState.FAILED, f"{task} ended: {error!r}"
