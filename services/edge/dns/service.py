"""The name server: UDP and TCP, for everybody on the public addresses, for more in the tunnel.

Sockets of their own on the tunnel's addresses tell by which interface a query came: one that claims
an address of the mesh but came in from outside is a stranger's. Where another program has the port
at one of this machine's addresses, as systemd-resolved has at 127.0.0.53, it answers at the others.
A port that can't be had leaves the rest of the daemon alone; it is tried again until it can.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Final, Protocol

from services.edge.dns.answering import Asker
from services.edge.dns.ratelimiting import NETWORK4, NETWORK6, network_in, packed_of
from services.edge.dns.streams import SWEEP_S, Streams
from services.edge.dns.ways import LOOPBACK4, single_addresses
from services.kernel.errors import ConflictError, SeipdError
from services.kernel.service import Health, HealthState
from services.runtime.batches import AnsweringSocket
from services.runtime.tasks import TaskOwner
from services.runtime.udp import ArrivalSocket, bound_socket, way_out

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from services.edge.dns.answering import Answerer
    from services.edge.dns.publishing import Publisher
    from services.edge.dns.serials import Serials
    from services.kernel.clock import Clock
    from services.runtime.udp import Address, UdpSocket

logger = logging.getLogger(__name__)

LOOK_OVER_S: Final = 2.0
LOOK_APART_S: Final = 0.1
RETRY_S: Final = 5.0
ANY4: Final = "0.0.0.0"  # noqa: S104 (a name server is for everybody)
ANY6: Final = "::"
_LOOPBACK: Final = "lo"
_PORT_TRIES: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class DnsSettings:
    """Where to listen, and what lies inside."""

    bind_address: str
    public_address: str
    """Answered from where a machine has several and this is one of them."""
    port: int
    inner_addresses: tuple[str, ...]
    """Of this server, in the tunnel and the backbone."""
    interface: str
    """Of the tunnel."""
    is_inner: Callable[[str], bool]
    """Whether an address lies in the tunnel or the backbone."""


class Recursion(Protocol):
    """Looks up for those inside what is not the mesh's own."""

    def complete(
        self, data: bytes, answer: bytes, source: str, *, stream: bool
    ) -> bytes | asyncio.Future[bytes]:
        """Return what one inside is told, soon where it has to be looked up."""


class DnsService:
    """Answers for the mesh's domain, and for the reverse of its ranges."""

    name: ClassVar[str] = "dns"

    def __init__(
        self,
        *,
        settings: DnsSettings,
        answerer: Answerer,
        publisher: Publisher,
        serials: Serials,
        clock: Clock,
        recursion: Recursion | None = None,
    ) -> None:
        self._settings = settings
        self._recursion = recursion
        self._answerer = answerer
        self._publisher = publisher
        self._serials = serials
        self._clock = clock
        self._sockets: list[UdpSocket] = []
        self._streams = self._new_streams()
        self._tasks = TaskOwner("dns", on_crash=self._on_crash)
        self._state = HealthState.STOPPED
        self._trouble = ""
        self._news = asyncio.Event()
        self._singles: tuple[str, ...] = ()
        self.port = 0

    async def start(self) -> None:
        """Fill the zone and open the port; where that is not to be had, go on trying."""
        self._state = HealthState.STARTING
        self._publisher.begin(self._answerer)
        await self._try_open()
        self._tasks.spawn(self._look_over_forever(), name="dns-zone")
        self._tasks.spawn(self._sweep_forever(), name="dns-streams")

    async def stop(self) -> None:
        """Fall silent; may be called twice."""
        self._state = HealthState.STOPPED
        await self._tasks.close()
        await self._close()
        with contextlib.suppress(SeipdError):
            self._serials.save()

    def health(self) -> Health:
        """Say where it answers, or what is in the way."""
        if self._trouble:
            return Health(state=self._state, detail=self._trouble)
        where = f" at {', '.join(self._singles)}" if self._singles else ""
        return Health(state=self._state, detail=f"port {self.port}{where}")

    def hurry(self) -> None:
        """Look over the servers and challenges soon: something was heard of them."""
        self._news.set()

    def counters(self) -> Mapping[str, int]:
        """Return every number by its name; the names are fixed."""
        counts = self._answerer.counts
        return {
            "quick": counts.quick,
            "looked_up": counts.looked_up,
            "truncated": counts.truncated,
            "ignored": counts.ignored,
            **self._answerer.rate_counts(),
            "streams_refused": self._streams.refused_count,
            "streams_timed_out": self._streams.timed_out_count,
            "send_dropped": sum(one.dropped_count for one in self._sockets),
        }

    def answered(self) -> Mapping[str, int]:
        """Return how many answers were looked up, by their code."""
        return {code.name.lower(): count for code, count in self._answerer.counts.by_rcode.items()}

    @property
    def stream_count(self) -> int:
        """How many connections there are now."""
        return self._streams.count

    def _new_streams(self) -> Streams:
        return Streams(answer=self._on_query, monotonic_s=self._clock.monotonic_s)

    async def _try_open(self) -> None:
        try:
            await self._open()
        except ConflictError as error:
            await self._close()
            self._state = HealthState.DEGRADED
            self._trouble = f"{error}: {error.mend}"
            logger.warning("no name server: %s", self._trouble)
        else:
            self._state, self._trouble = HealthState.OK, ""
            logger.info("answering on port %d", self.port)

    async def _open(self) -> None:
        """Open every socket.

        Raises:
            ConflictError: ``port_in_use``.
        """
        settings = self._settings
        self._streams = self._new_streams()
        for attempt in range(_PORT_TRIES):
            try:
                # TCP first: two programs that share a port over UDP would not notice.
                self.port = await self._listen(settings.bind_address, settings.port)
                self._open_public(settings.bind_address)
                break
            except ConflictError:
                await self._close()
                if settings.port and await self._open_singles():
                    break
                if settings.port or attempt == _PORT_TRIES - 1:
                    raise
        if settings.bind_address == ANY4 and socket.has_ipv6:
            await self._open_six()
        for address in settings.inner_addresses:
            try:
                await self._open_inner(address)
            except ConflictError as error:
                # A machine may have no IPv6 at all.
                if ":" not in address:
                    raise
                logger.info("not answering at %s: %s", address, error)

    async def _open_singles(self) -> bool:
        """Answer where this machine is reached, if not at all of its addresses."""
        settings = self._settings
        if settings.bind_address != ANY4:
            return False
        self.port = settings.port
        wanted, found = self._wanted(), []
        for host in wanted:
            try:
                await self._listen(host, self.port, shared=True)
                self._open_public(host)
            except ConflictError as error:
                logger.info("not answering at %s: %s", host, error)
            else:
                found.append(host)
        if set(found) <= {LOOPBACK4}:
            await self._close()
            return False
        self._singles = wanted
        logger.warning("another program has port %d: answering at %s", self.port, found)
        return True

    def _wanted(self) -> tuple[str, ...]:
        return single_addresses(self._settings.public_address, way_out())

    async def _open_six(self) -> None:
        """Answer over IPv6, too, where this machine has it."""
        try:
            bound_socket(ANY6, 0, socket.SOCK_DGRAM).close()
        except OSError:
            return
        await self._listen(ANY6, self.port)
        self._open_public(ANY6)

    async def _listen(self, host: str, port: int, *, shared: bool = False) -> int:
        try:
            sock = bound_socket(host, port, socket.SOCK_STREAM, shared=shared)
        except OSError as error:
            raise _refused(host, port, "tcp", error) from error
        try:
            await self._streams.listen(sock)
        except OSError as error:
            sock.close()
            raise _refused(host, port, "tcp", error) from error
        bound: int = sock.getsockname()[1]
        return bound

    def _open_public(self, host: str) -> None:
        hosts = [host]
        # The answer must come from the address that was asked, whichever way the route goes.
        public = self._settings.public_address
        if host == ANY4 and public and ":" not in public and public != host:
            hosts.append(public)
        for one in hosts:
            self._take(AnsweringSocket(self._stranger(NETWORK6 if ":" in one else NETWORK4)), one)

    def _take(self, sock: UdpSocket, host: str) -> None:
        try:
            sock.open(host, self.port, shared=True)
        except ConflictError as error:
            raise _refused(host, self.port, "udp", error.__cause__) from error
        self._sockets.append(sock)

    async def _open_inner(self, host: str) -> None:
        sock = ArrivalSocket(lambda data, address, interface: None)
        self._take(sock, host)
        sock.on_arrival = self._arrived(sock)
        if self._settings.bind_address != ANY4 or self._singles:
            await self._listen(host, self.port, shared=True)

    def _stranger(self, network: slice) -> Callable[[bytes, bytes], bytes | None]:
        quick, now_s = self._answerer.quick, self._clock.monotonic_s

        def on_question(data: bytes, host: bytes) -> bytes | None:
            answer = quick(data, host[network], inside=False, now_s=now_s())
            return self._answer(data, host, inside=False) if answer is None else answer

        return on_question

    def _arrived(self, sock: UdpSocket) -> Callable[[bytes, Address, int], None]:
        def on_arrival(data: bytes, address: Address, interface: int) -> None:
            inside = self._is_inside(address[0], interface)
            now_s, host = self._clock.monotonic_s(), packed_of(address[0])
            answer = self._answerer.quick(data, network_in(host), inside=inside, now_s=now_s)
            if answer is None:
                answer = self._answer(data, host, inside=inside)
            if answer is None:
                return
            whole = self._complete(data, answer, address[0]) if inside else answer
            if isinstance(whole, bytes):
                sock.send(whole, address)
            else:
                whole.add_done_callback(partial(_send_late, sock, address))

        return on_arrival

    def _complete(
        self, data: bytes, answer: bytes, source: str, *, stream: bool = False
    ) -> bytes | asyncio.Future[bytes]:
        if self._recursion is None:
            return answer
        return self._recursion.complete(data, answer, source, stream=stream)

    def _is_inside(self, source: str, interface: int) -> bool:
        """Say whether a datagram to an inner address came through the tunnel, or from here."""
        try:
            name = socket.if_indextoname(interface)
        except OSError:
            return False
        if name == _LOOPBACK:
            return True
        return name == self._settings.interface and self._settings.is_inner(source)

    def _on_query(
        self, data: bytes, source: str, local: str
    ) -> bytes | asyncio.Future[bytes] | None:
        # A connection that stands was answered through the tunnel, since its address lies there.
        here = local in self._settings.inner_addresses
        inside = here and (source == local or self._settings.is_inner(source))
        answer = self._answer(data, packed_of(source), inside=inside, stream=True)
        if answer is None or not inside:
            return answer
        return self._complete(data, answer, source, stream=True)

    def _answer(
        self, data: bytes, host: bytes, *, inside: bool, stream: bool = False
    ) -> bytes | None:
        asker = Asker(address=host, network=network_in(host), inside=inside, stream=stream)
        return self._answerer.answer(
            data,
            asker,
            now_s=self._clock.monotonic_s(),
            clock_s=self._clock.now_ms() // 1000,
        )

    async def _look_over_forever(self) -> None:
        tried_s = self._clock.monotonic_s()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_OVER_S):
                    await self._news.wait()
            self._news.clear()
            self._publisher.look_over()
            # Many servers may tell something at once.
            await asyncio.sleep(LOOK_APART_S)
            now_s = self._clock.monotonic_s()
            if now_s - tried_s >= RETRY_S:
                tried_s = now_s
                await self._mend()

    async def _mend(self) -> None:
        """Open what is not open, and where this machine is reached by now."""
        if self._singles and self._singles != self._wanted():
            await self._close()
        elif self._state is not HealthState.DEGRADED:
            return
        await self._try_open()

    async def _sweep_forever(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            self._streams.sweep()

    async def _close(self) -> None:
        sockets, self._sockets, self._singles = self._sockets, [], ()
        for sock in sockets:
            sock.close()
        await self._streams.close()

    def _on_crash(self, task: str, error: BaseException) -> None:
        self._state, self._trouble = HealthState.FAILED, f"{task} ended: {error!r}"


def _send_late(sock: UdpSocket, address: Address, answer: asyncio.Future[bytes]) -> None:
    if not answer.cancelled() and answer.exception() is None:
        sock.send(answer.result(), address)


def _refused(host: str, port: int, kind: str, error: BaseException | None) -> ConflictError:
    why = getattr(error, "strerror", None) or str(error)
    return ConflictError(
        f"{host} port {port}/{kind} can't be opened: {why}",
        code="port_in_use",
        mend="end what holds the port, give the right to it (CAP_NET_BIND_SERVICE),"
        " or choose another with --dns-port",
    )
