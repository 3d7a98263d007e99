"""The relay: its sockets, its clock, and what it says of itself.

Tickets are looked at by the desk, sessions are kept by the book, packets go by the kernel or, where
that can't be, by the program. A stop tells every party, so that none waits for a silence.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

from services.base.crypto.aead import XCHACHA20_NONCE_BYTES
from services.base.crypto.agreement import x25519_public
from services.edge.relay import messages
from services.edge.relay.carrier import Carrier
from services.edge.relay.desk import Came, Desk, Question
from services.edge.relay.fairness import Fairness
from services.edge.relay.kernelpath import KernelPath
from services.edge.relay.messages import Bound, Code, Error, Used
from services.edge.relay.model import Account, Tell
from services.edge.relay.proofs import SECRET_BYTES, Proofs
from services.edge.relay.sessions import Book
from services.edge.relay.settings import RelaySettings, RelayStatus
from services.edge.relay.sockets import ControlSocket
from services.edge.relay.userpath import UserPath
from services.kernel.errors import ConflictError, SeipdError, WireError
from services.kernel.service import Health, HealthState
from services.runtime.ratelimit import RateLimiter
from services.runtime.tasks import TaskOwner

if TYPE_CHECKING:
    from collections.abc import Callable

    from services.edge.relay.model import Address, Effect, Place
    from services.edge.relay.settings import Statement
    from services.edge.relay.sockets import Arrival
    from services.kernel.clock import Clock

logger = logging.getLogger(__name__)

SWEEP_S: Final = 5.0
SWEEPS_PER_LOOK: Final = 3
# Of one address: some hundred endpoints may stand behind one router.
ALLOCATES_PER_MINUTE: Final = 600
ALL_ALLOCATES_PER_MINUTE: Final = 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Running:
    """All that is there between start and stop."""

    book: Book
    desk: Desk
    user: UserPath
    carrier: Carrier
    sockets: list[ControlSocket]
    port: int


class RelayService:
    """Passes on what two endpoints with a ticket send to each other, and nothing else."""

    name: ClassVar[str] = "relay"

    def __init__(
        self,
        *,
        settings: RelaySettings,
        is_server: Callable[[bytes], bool],
        is_welcome: Callable[[bytes], bool],
        why_refused: Callable[[str, int], str | None],
        clock: Clock,
        statement: Statement | None = None,
    ) -> None:
        """Take what it needs of the world.

        Args:
            settings: see there.
            is_server: whether a server with this identity key may sign tickets.
            is_welcome: whether an endpoint with this WireGuard key is of the mesh.
            why_refused: why nothing is to be sent to an address; None where it may be.
            clock: the time.
            statement: signs accounts; None where nobody is given any.
        """
        self._settings = settings
        self._is_server = is_server
        self._is_welcome = is_welcome
        self._why_refused = why_refused
        self._clock = clock
        self._statement = statement
        self._by_host = RateLimiter(per_minute=ALLOCATES_PER_MINUTE)
        self._by_all = RateLimiter(per_minute=ALL_ALLOCATES_PER_MINUTE)
        self._fairness = Fairness(settings.capacity_kbits)
        self._running: _Running | None = None
        self._tasks = TaskOwner("relay", on_crash=self._on_crash)
        self._state = HealthState.STOPPED
        self._trouble = ""

    @property
    def port(self) -> int:
        """The control port; 0 while there is none."""
        return self._running.port if self._running else 0

    @property
    def box_key(self) -> bytes:
        """The public key that the relay is spoken to with."""
        return x25519_public(self._settings.box_private)

    async def start(self) -> None:
        """Open the port; where that is not to be had, go on trying."""
        self._state = HealthState.STARTING
        await self._try_open()
        self._tasks.spawn(self._keep_up(), name="relay-upkeep")

    async def stop(self) -> None:
        """Tell every party and fall silent; may be called twice."""
        self._state = HealthState.STOPPED
        await self._tasks.close()
        running, self._running = self._running, None
        if running is None:
            return
        for number in list(running.book.numbers()):
            for one in running.book.end(number, Code.ENDED):
                self._tell(one, running)
        for sock in running.sockets:
            sock.close()
        await running.carrier.close()

    def health(self) -> Health:
        """Say by which path how many sessions go, or what is in the way."""
        running = self._running
        if running is None:
            return Health(state=self._state, detail=self._trouble)
        detail = f"port {running.port}, {len(running.book)} sessions"
        if running.carrier.has_kernel:
            return Health(state=self._state, detail=f"{detail}, carried by the kernel")
        why = running.carrier.trouble or self._trouble
        more = f": {why}" if why else ""
        return Health(state=self._state, detail=f"{detail}, carried by this program{more}")

    def status(self) -> RelayStatus:
        """Return how it is, in numbers."""
        running = self._running
        counts: Counter[Came] = running.desk.counts if running else Counter()
        asked = {one.value: counts[one] for one in Came}
        if running is None:
            return RelayStatus(
                path="",
                port=0,
                sessions=0,
                carried_bytes=0,
                asked=asked,
                passed_packets=0,
                dropped_packets=0,
                limited_packets=0,
            )
        return RelayStatus(
            path="kernel" if running.carrier.has_kernel else "userspace",
            port=running.port,
            sessions=len(running.book),
            carried_bytes=running.book.total_bytes,
            asked=asked,
            passed_packets=running.user.passed_count,
            dropped_packets=running.user.dropped_count,
            limited_packets=running.user.limited_count,
        )

    def clients(self) -> list[bytes]:
        """Return the WireGuard keys of all endpoints that have a session."""
        return self._running.book.clients() if self._running is not None else []

    def revoked(self, wireguard_key: bytes) -> None:
        """End all sessions of an endpoint at once."""
        if self._running is not None:
            self._running.carrier.run(self._running.book.revoke(wireguard_key))

    def recheck(self) -> None:
        """Ask again about everybody who has a session, and every server that has given one."""
        running = self._running
        if running is None:
            return
        for key in running.book.clients():
            if not self._is_welcome(key):
                self.revoked(key)
        running.carrier.run(running.book.end_those_of(lambda key: not self._is_server(key)))

    async def _try_open(self) -> None:
        try:
            self._running = await self._open()
        except ConflictError as error:
            self._state = HealthState.DEGRADED
            self._trouble = f"{error}: {error.mend}"
            logger.warning("no relay: %s", self._trouble)
            return
        self._state = HealthState.OK
        logger.info("%s", self.health().detail)

    async def _open(self) -> _Running:
        """Open the control port and choose the path.

        Raises:
            ConflictError: ``port_in_use``.
        """
        settings = self._settings
        sockets: list[ControlSocket] = []
        port = settings.port
        try:
            for host in settings.hosts:
                sockets.append(ControlSocket(self._on_arrival))
                port = sockets[-1].open(host, port)
        except ConflictError:
            for sock in sockets:
                sock.close()
            raise
        book = Book(
            proofs=Proofs(secrets.token_bytes(SECRET_BYTES)),
            first_port=port + 1,
            why_refused=self._why_refused,
            limits=settings.limits,
        )
        user = UserPath(on_control=self._on_control, monotonic_s=self._clock.monotonic_s)
        carrier = Carrier(
            book=book,
            user=user,
            kernel=await self._kernel(port + 1),
            tell=self._tell,
            monotonic_s=self._clock.monotonic_s,
        )
        self._tasks.spawn(carrier.drive(), name="relay-carrier")
        desk = Desk(
            book=book,
            relay_id=settings.relay_id,
            box_private=settings.box_private,
            mesh_id=settings.mesh_id,
            is_server=self._is_server,
            is_welcome=self._is_welcome,
        )
        return _Running(
            book=book, desk=desk, user=user, carrier=carrier, sockets=sockets, port=port
        )

    async def _kernel(self, first_port: int) -> KernelPath | None:
        self._trouble = ""
        if not self._settings.may_use_kernel:
            return None
        kernel = KernelPath(table=self._settings.table, first_port=first_port)
        try:
            await asyncio.to_thread(kernel.open)
        except SeipdError as error:
            self._trouble = str(error)
            return None
        return kernel

    def _on_arrival(self, arrival: Arrival, sock: ControlSocket) -> None:
        running, now_s = self._running, self._clock.monotonic_s()
        if running is None or not self._may_ask(arrival.address[0], now_s):
            return
        reply = running.desk.take(
            Question(
                data=arrival.data,
                address=arrival.address,
                host=arrival.host,
                now_ms=self._clock.now_ms(),
                now_s=now_s,
                nonce=secrets.token_bytes(XCHACHA20_NONCE_BYTES),
            )
        )
        running.carrier.run(reply.effects)
        if reply.place is not None and not _has_opened(running, reply.place):
            return
        if reply.data:
            running.carrier.arrive(arrival.host, arrival.interface)
            sock.answer(reply.data, arrival)

    def _may_ask(self, host: str, now_s: float) -> bool:
        """Say whether a host may ask once more; whoever has one address of a /64 has them all."""
        network = socket.inet_pton(socket.AF_INET6, host)[:8].hex() if ":" in host else host
        if not self._by_host.spend(network, now_s=now_s).allowed:
            return False
        return self._by_all.spend("", now_s=now_s).allowed

    def _on_control(self, data: bytes, address: Address, place: Place) -> None:
        running = self._running
        if running is None:
            return
        try:
            direction = int.from_bytes(messages.index_of(data), "big")
            key = running.book.session_key(direction)
            if key is None:
                return
            message = messages.open_to_session(key, data)
        except WireError:
            return
        now_s = self._clock.monotonic_s()
        running.carrier.run(
            running.book.hear(direction, message, place=place, address=address, now_s=now_s)
        )

    def _tell(self, one: Effect, running: _Running | None = None) -> None:
        running = running or self._running
        if running is None:
            return
        if isinstance(one, Account):
            self._give_account(one, running)
            return
        if not isinstance(one, Tell):
            return
        nonce = secrets.token_bytes(XCHACHA20_NONCE_BYTES)
        if isinstance(one.answer, Bound):
            data = messages.seal_bound(one.session_key, one.answer, nonce=nonce)
        elif isinstance(one.answer, Error):
            data = messages.seal_error(one.session_key, one.answer, nonce=nonce)
        else:
            data = messages.seal_used(one.session_key, one.answer, nonce=nonce)
        running.user.say(one.place, data, one.address)

    def _give_account(self, one: Account, running: _Running) -> None:
        book = running.book
        party = book.party(one.direction)
        key = book.session_key(one.direction)
        if self._statement is None or party is None or key is None:
            return
        if party.address is None:
            return
        statement = self._statement(
            nonce=book.nonce(one.direction >> 1),
            key=party.key,
            bytes_from=book.carried_bytes(one.direction),
            bytes_to=book.carried_bytes(one.direction ^ 1),
            started_ms=book.started_ms(one.direction >> 1),
            told_ms=self._clock.now_ms(),
        )
        used = Used(counter=one.counter, statement=statement)
        side = party.side
        self._tell(
            Tell(place=side.place, address=side.address, session_key=key, answer=used), running
        )

    async def _keep_up(self) -> None:
        sweeps = 0
        while True:
            await asyncio.sleep(SWEEP_S)
            running = self._running
            if running is None:
                await self._try_open()
                continue
            sweeps += 1
            if sweeps % SWEEPS_PER_LOOK == 0:
                await running.carrier.look()
                running.carrier.set_rates(
                    self._fairness.rates(
                        running.book,
                        rate_kbits=running.carrier.rate_kbits,
                        now_s=self._clock.monotonic_s(),
                    )
                )
            running.carrier.run(
                running.book.sweep(now_ms=self._clock.now_ms(), now_s=self._clock.monotonic_s())
            )

    def _on_crash(self, task: str, error: BaseException) -> None:
        self._state, self._trouble = HealthState.FAILED, f"{task} ended: {error!r}"


def _has_opened(running: _Running, place: Place) -> bool:
    """Listen at a data port; where another program has it, the next ALLOCATE gets another one."""
    try:
        running.user.open(place)
    except OSError as error:
        logger.warning("%s port %d/udp is not for us: %s", place.host, place.port, error)
        running.book.bar_port(place.port)
        return False
    return True
