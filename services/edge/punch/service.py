"""The rendezvous port: one socket for own endpoints, one for other servers, some for the world.

Who an endpoint is, its tunnel address tells: what came out of WireGuard with that source was sent
by the one who holds the key. Who a server is, its backbone address tells in the same way. Whatever
came in by any other interface is answered as STUN or not at all.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final, Protocol

from services.edge.punch.book import Book, Outgoing
from services.edge.punch.meetings import Meetings
from services.edge.punch.messages import (
    PORT,
    Call,
    Carried,
    Carry,
    Echo,
    Echoed,
    Here,
    Met,
    Pass,
    Passed,
    Refused,
    Signal,
    Signalled,
    What,
    decode,
    encode,
)
from services.edge.punch.telling import Teller
from services.edge.punch.words import Words
from services.kernel.errors import ConflictError, SeipdError, WireError
from services.kernel.service import Health, HealthState
from services.runtime.ratelimit import RateLimiter
from services.runtime.tasks import TaskOwner
from services.runtime.udp import ArrivalSocket, UdpSocket

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from services.edge.punch.book import Presence
    from services.edge.punch.meetings import Offers, Policy
    from services.edge.punch.messages import Message
    from services.edge.punch.parties import Parties
    from services.edge.wireguard.model import PeerStatus
    from services.kernel.clock import Clock
    from services.kernel.ids import ServerId
    from services.kernel.targets import Network
    from services.runtime.udp import Address

logger = logging.getLogger(__name__)

LOOK_S: Final = 15.0
LOOK_APART_S: Final = 0.1
LOOK_SHARE: Final = 20
"""Reading the device takes at most one part in so many of the time."""
RETRY_S: Final = 5.0
SLICE: Final = 500
MAX_CHANGES: Final = 1024
FROM_ONE_PER_MINUTE: Final = 1800
"""Of one endpoint: with 256 paths it has a tenth of that to say, and may say it all at once."""
FROM_SERVER_PER_MINUTE: Final = 120_000


class PeerReader(Protocol):
    """The part of the WireGuard service that is needed here."""

    async def peers(self) -> Mapping[bytes, PeerStatus]:
        """Read the peers from the device.

        Raises:
            UnavailableError: it is away.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class PunchSettings:
    """Where to listen."""

    public_hosts: tuple[str, ...]
    """Addresses at which the world may ask how it is seen; none if that is not answered."""
    public_port: int
    gateway: str
    """Of the tunnel: where endpoints talk to."""
    backbone: str
    """Own address: where servers talk to."""
    interface: str
    """Of the tunnel."""
    mesh_ranges: tuple[Network, ...]
    """No candidate lies in there."""


class PunchService:
    """Tells endpoints of each other."""

    name: ClassVar[str] = "punch"

    def __init__(
        self,
        *,
        settings: PunchSettings,
        parties: Parties,
        policy: Policy,
        offers: Offers,
        tunnels: PeerReader,
        answer_stun: Callable[[bytes, Address, float], bytes | None],
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._parties = parties
        self._tunnels = tunnels
        self._answer_stun = answer_stun
        self._clock = clock
        # Other than what a server before this one told, or this one before its restart.
        first = clock.now_ms()
        self._book = Book(parties=parties, first_version=first)
        self._teller = Teller(mesh_ranges=settings.mesh_ranges, first_serial=first)
        self._meetings = Meetings(
            book=self._book, parties=parties, policy=policy, offers=offers, teller=self._teller
        )
        self._words = Words(book=self._book, parties=parties, policy=policy)
        self._inner = ArrivalSocket(self._on_endpoint)
        self._backbone = ArrivalSocket(self._on_server)
        self._public: list[UdpSocket] = []
        self._tasks = TaskOwner("punch", on_crash=self._on_crash)
        self._news, self._look = asyncio.Event(), asyncio.Event()
        self._wakes_s = float("inf")
        self._changes: asyncio.Queue[Iterable[Outgoing]] = asyncio.Queue(MAX_CHANGES)
        self._state = HealthState.STOPPED
        self._trouble = ""
        self._ignored: Counter[str] = Counter()
        self._by_endpoint = RateLimiter(per_minute=FROM_ONE_PER_MINUTE)
        self._by_server = RateLimiter(per_minute=FROM_SERVER_PER_MINUTE)
        self.port = settings.public_port

    async def start(self) -> None:
        """Open the ports; where one is not to be had, go on trying."""
        self._state = HealthState.STARTING
        self._try_open()
        self._tasks.spawn(self._tick_forever(), name="punch-tick")
        self._tasks.spawn(self._look_forever(), name="punch-look")
        self._tasks.spawn(self._tell_forever(), name="punch-changes")
        self._tasks.spawn(self._retry_forever(), name="punch-retry")

    async def stop(self) -> None:
        """Fall silent; may be called twice."""
        self._state = HealthState.STOPPED
        await self._tasks.close()
        self._close()

    def health(self) -> Health:
        """Say how many endpoints are here."""
        detail = self._trouble or f"{len(self._book)} endpoints are here"
        return Health(state=self._state, detail=detail)

    def counters(self) -> Mapping[str, int]:
        """Return every number that only grows by its name; the names are fixed."""
        return {
            **self._meetings.counts,
            "signalled": self._words.count,
            "ignored": self._ignored.total(),
        }

    @property
    def here_count(self) -> int:
        """How many endpoints are here."""
        return len(self._book)

    def changed(self, what: What, nodes: Collection[str] | None) -> None:
        """Have endpoints fetch something anew, soon.

        Args:
            what: what changed.
            nodes: the ids of those concerned; None for all.
        """
        told = self._book.changed(what, nodes, self._now_s())
        try:
            self._changes.put_nowait(told)
        except asyncio.QueueFull:
            # So much is going on that it is simplest to tell everybody at once, in order.
            self._send_all(told)

    def gone(self, address: str) -> None:
        """Have those who may have a tunnel to an endpoint look whether they still may, soon."""
        nodes = self._book.told_of(address)
        if nodes:
            self.changed(What.PEERS, nodes)

    def _on_endpoint(self, data: bytes, address: Address, interface: int) -> None:
        now_s, host = self._now_s(), address[0]
        if not self._by_endpoint.spend(host, now_s=now_s).allowed:
            self._ignored["flood"] += 1
            return
        message = self._read(data, address, interface)
        if message is None:
            return
        if isinstance(message, Here):
            self._send_all(self._book.here(host, message, now_s))
        elif isinstance(message, Echo):
            self._inner.send(encode(Echoed(counter=message.counter)), address)
        elif (one := self._book.get(host)) is not None:
            self._send_all(self._from_endpoint(one, message, now_s))
        elif self._book.own_party(host) is not None:
            self._send_all(self._book.greet(host))
        else:
            self._ignored["stranger"] += 1
        self._wake()

    def _from_endpoint(self, one: Presence, message: Message, now_s: float) -> list[Outgoing]:
        match message:
            case Call():
                return self._meetings.call(one, message, now_s)
            case Met():
                self._teller.met(one.address, message.peer, message.serial)
            case Signal():
                return self._words.signal(one, message, now_s)
            case Signalled():
                return self._words.signalled(one, message, now_s)
            case _:
                self._ignored["out of place"] += 1
        return []

    def _on_server(self, data: bytes, address: Address, interface: int) -> None:
        if not self._by_server.spend(address[0], now_s=self._now_s()).allowed:
            self._ignored["flood"] += 1
            return
        message = self._read(data, address, interface)
        if message is None:
            return
        server_id = self._parties.server_at(address[0])
        if server_id is None or server_id == self._parties.own_id:
            self._ignored["stranger"] += 1
            return
        self._send_all(self._from_server(server_id, message, self._now_s()))
        self._wake()

    def _from_server(self, server_id: ServerId, message: Message, now_s: float) -> list[Outgoing]:
        match message:
            case Pass():
                return self._meetings.on_pass(server_id, message, now_s)
            case Passed():
                return self._meetings.on_passed(server_id, message)
            case Refused():
                return self._meetings.on_refused(server_id, message)
            case Carry():
                return self._words.on_carry(server_id, message)
            case Carried():
                return self._words.on_carried(server_id, message)
            case _:
                self._ignored["out of place"] += 1
        return []

    def _read(self, data: bytes, address: Address, interface: int) -> Message | None:
        """Return a message that came through the tunnel, from the port of the same name."""
        if address[1] != PORT or not self._is_tunnel(interface):
            self._ignored["stranger"] += 1
            return None
        try:
            return decode(data)
        except WireError:
            self._ignored["malformed"] += 1
            return None

    def _is_tunnel(self, interface: int) -> bool:
        try:
            return socket.if_indextoname(interface) == self._settings.interface
        except OSError:
            return False

    def _send_all(self, outgoing: Iterable[Outgoing]) -> None:
        for one in outgoing:
            sock = self._backbone if self._parties.server_at(one.host) else self._inner
            sock.send(one.data, (one.host, PORT))

    def _wake(self) -> None:
        """Have what is due looked over sooner, if something is due sooner now."""
        if min(self._book.next_s, self._teller.next_s) < self._wakes_s:
            self._news.set()
        if self._book.wants_look:
            self._look.set()

    async def _tick_forever(self) -> None:
        while True:
            self._news.clear()
            now_s = self._now_s()
            self._send_all(self._book.tick(now_s))
            self._send_all(self._teller.tick(now_s))
            self._wakes_s = min(self._book.next_s, self._teller.next_s)
            with contextlib.suppress(TimeoutError):
                left_s = self._wakes_s - self._now_s()
                async with asyncio.timeout(left_s if left_s < LOOK_S else LOOK_S):
                    await self._news.wait()

    async def _look_forever(self) -> None:
        """See where endpoints come from: often enough, and soon where somebody is new."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._look.wait()
            self._look.clear()
            began_s = self._now_s()
            if len(self._book):
                await self._look_once(began_s)
            took_s = self._now_s() - began_s
            await asyncio.sleep(max(LOOK_APART_S, took_s * LOOK_SHARE))

    async def _look_once(self, began_s: float) -> None:
        self._book.wants_look = False
        try:
            peers = await self._tunnels.peers()
        except SeipdError as error:
            logger.debug("where endpoints come from is not known: %s", error)
            return
        for number, (key, peer) in enumerate(peers.items()):
            if peer.endpoint is not None:
                host, port = peer.endpoint
                self._send_all(self._book.observe(key, host, port, began_s))
            if number % SLICE == SLICE - 1:
                await asyncio.sleep(0)

    async def _tell_forever(self) -> None:
        while True:
            told = await self._changes.get()
            for number, one in enumerate(told):
                self._inner.send(one.data, (one.host, PORT))
                if number % SLICE == SLICE - 1:
                    await asyncio.sleep(0)
            self._wake()

    async def _retry_forever(self) -> None:
        while True:
            await asyncio.sleep(RETRY_S)
            if self._state is HealthState.DEGRADED:
                self._close()
                self._try_open()

    def _try_open(self) -> None:
        try:
            self._open()
        except ConflictError as error:
            self._close()
            self._state, self._trouble = HealthState.DEGRADED, f"{error}: {error.mend}"
            logger.warning("no rendezvous: %s", self._trouble)
        else:
            self._state, self._trouble = HealthState.OK, ""

    def _open(self) -> None:
        """Open every socket.

        Raises:
            ConflictError: ``port_in_use``.
        """
        settings = self._settings
        self._inner.open(settings.gateway, PORT, shared=True)
        self._backbone.open(settings.backbone, PORT, shared=True)
        port = settings.public_port
        for host in settings.public_hosts:
            sock = UdpSocket(lambda data, address: None)
            port = sock.open(host, port, shared=True)
            sock.on_datagram = self._stranger(sock)
            self._public.append(sock)
        self.port = port

    def _stranger(self, sock: UdpSocket) -> Callable[[bytes, Address], None]:
        def on_datagram(data: bytes, address: Address) -> None:
            answer = self._answer_stun(data, address, self._now_s())
            if answer is not None:
                sock.send(answer, address)

        return on_datagram

    def _close(self) -> None:
        self._inner.close()
        self._backbone.close()
        public, self._public = self._public, []
        for sock in public:
            sock.close()

    def _on_crash(self, task: str, error: BaseException) -> None:
        self._state, self._trouble = HealthState.FAILED, f"{task} ended: {error!r}"

    def _now_s(self) -> float:
        return self._clock.monotonic_s()
