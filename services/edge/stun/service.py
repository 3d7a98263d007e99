"""The STUN server's sockets: IPv4 and IPv6, and four more where the machine has two addresses.

A port that can't be had leaves the rest of the daemon alone; it is tried again until it can.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

from services.edge.stun.answering import Answerer, Askers, Came, Places
from services.kernel.errors import ConflictError
from services.kernel.service import Health, HealthState
from services.runtime.tasks import TaskOwner
from services.runtime.udp import UdpSocket, bound_socket

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from services.kernel.clock import Clock
    from services.runtime.udp import Address

logger = logging.getLogger(__name__)

RETRY_S: Final = 5.0
ANY4: Final = "0.0.0.0"  # noqa: S104 (a STUN server is for everybody)
ANY6: Final = "::"


@dataclass(frozen=True, slots=True, kw_only=True)
class StunSettings:
    """Where to listen."""

    bind_address: str
    port: int
    """0 for a free one."""
    public_addresses: tuple[str, ...] = ()
    """Answered from where a machine has several and these are among them."""
    alternate_address: str = ""
    """Another address of this machine, for RFC 5780; empty for none."""


class StunService:
    """Tells whoever asks by which address and port they are seen."""

    name: ClassVar[str] = "stun"

    def __init__(self, *, settings: StunSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._askers = Askers()
        self._sockets: list[UdpSocket] = []
        self._answerers: list[Answerer] = []
        self._tasks = TaskOwner("stun", on_crash=self._on_crash)
        self._state = HealthState.STOPPED
        self._trouble = ""
        self.port = 0
        self.places: Places | None = None
        """Where it answers from, if it has two addresses."""

    async def start(self) -> None:
        """Open the port; where that is not to be had, go on trying."""
        self._state = HealthState.STARTING
        self._try_open()
        self._tasks.spawn(self._retry_forever(), name="stun-retry")

    async def stop(self) -> None:
        """Fall silent; may be called twice."""
        self._state = HealthState.STOPPED
        await self._tasks.close()
        self._close()

    def health(self) -> Health:
        """Say where it answers, or what is in the way."""
        if self._trouble and not self.port:
            return Health(state=self._state, detail=self._trouble)
        if self._trouble:
            return Health(state=self._state, detail=f"port {self.port}, but {self._trouble}")
        more = f", and RFC 5780 at {self.places.hosts[1]}" if self.places is not None else ""
        return Health(state=self._state, detail=f"port {self.port}{more}")

    def counters(self) -> Mapping[str, int]:
        """Return what became of all datagrams; the names are fixed."""
        counts = Counter({one.value: 0 for one in Came})
        for answerer in self._answerers:
            counts.update(answerer.counters())
        return counts

    def _try_open(self) -> None:
        try:
            self._open()
        except ConflictError as error:
            self._close()
            self._state = HealthState.DEGRADED
            self._trouble = f"{error}: {error.mend}"
            logger.warning("no STUN server: %s", self._trouble)
            return
        self._trouble = self._missing()
        self._state = HealthState.DEGRADED if self._trouble else HealthState.OK
        logger.info("answering on port %d%s", self.port, self._trouble and f", but {self._trouble}")

    def _open(self) -> None:
        """Open every socket.

        Raises:
            ConflictError: ``port_in_use``.
        """
        hosts, pair = self._hosts(), self._pair()
        port, other = self._ports(needs_two=pair is not None)
        if pair is not None:
            self.places = Places(hosts=pair, ports=(port, other))
            self._open_places(self.places)
        for host in hosts:
            if pair is None or host not in pair:
                self._take(host, port)
        self.port = port

    def _hosts(self) -> list[str]:
        settings = self._settings
        hosts = [settings.bind_address]
        if settings.bind_address == ANY4:
            # The answer must come from the address that was asked, whichever way the route goes.
            hosts += [one for one in settings.public_addresses if is_here(one)]
            hosts += [ANY6] if is_here(ANY6) else []
        return list(dict.fromkeys(hosts))

    def _pair(self) -> tuple[str, str] | None:
        """Return the two addresses of RFC 5780, if there are two and both are of this machine."""
        other = self._settings.alternate_address
        if not other or self._missing():
            return None
        return self._partner(other), other

    def _partner(self, other: str) -> str:
        known = (*self._settings.public_addresses, self._settings.bind_address)
        return next((one for one in known if (":" in one) == (":" in other)), "")

    def _missing(self) -> str:
        """Say why the second address is of no use; nothing where it is, or where none is set."""
        other = self._settings.alternate_address
        if not other:
            return ""
        first = self._partner(other)
        if first == other or {first, other} & {ANY4, ANY6}:
            return f"{other} is no second address beside {first}"
        away = [one for one in (first, other) if not is_here(one)]
        return f"{away[0] or 'its partner'} is no address of this machine" if away else ""

    def _ports(self, *, needs_two: bool) -> tuple[int, int]:
        """Make sure that nobody has the ports: sockets that share one do not tell.

        Raises:
            ConflictError: ``port_in_use``.
        """
        settings = self._settings
        port = _free(settings.bind_address, settings.port)
        if not needs_two:
            return port, 0
        # RFC 5780 knows no number for the second port; the next one is what others take.
        return port, _free(settings.bind_address, settings.port and (port + 1) % 65536)

    def _open_places(self, places: Places) -> None:
        sockets: list[UdpSocket] = []
        for place in range(4):
            host, port = places.at(place)
            answerer = self._new_answerer(places, place)
            sock = self._new_socket(host, port)
            sock.on_datagram = _answering(answerer, sockets, place, self._clock.monotonic_s)
            sockets.append(sock)

    def _take(self, host: str, port: int) -> None:
        sock = self._new_socket(host, port)
        answerer = self._new_answerer(None, 0)
        sock.on_datagram = _answering(answerer, [sock], 0, self._clock.monotonic_s)

    def _new_answerer(self, places: Places | None, place: int) -> Answerer:
        answerer = Answerer(askers=self._askers, places=places, place=place)
        self._answerers.append(answerer)
        return answerer

    def _new_socket(self, host: str, port: int) -> UdpSocket:
        sock = UdpSocket(lambda data, address: None)
        sock.open(host, port, shared=True)
        self._sockets.append(sock)
        return sock

    def _close(self) -> None:
        sockets, self._sockets = self._sockets, []
        for sock in sockets:
            sock.close()
        self._answerers = []
        self.places = None
        self.port = 0

    async def _retry_forever(self) -> None:
        while True:
            await asyncio.sleep(RETRY_S)
            if self._state is HealthState.DEGRADED and not (self.port and self._missing()):
                self._close()
                self._try_open()

    def _on_crash(self, task: str, error: BaseException) -> None:
        self._state, self._trouble = HealthState.FAILED, f"{task} ended: {error!r}"


def _answering(
    answerer: Answerer, sockets: list[UdpSocket], place: int, monotonic_s: Callable[[], float]
) -> Callable[[bytes, Address], None]:
    """Return what answers the datagrams of one socket; ``sockets`` are those of all places."""
    quick = answerer.quick

    def on_datagram(data: bytes, address: Address) -> None:
        answer = quick(data, address, monotonic_s())
        if answer is None:
            slow = answerer.answer(data, address, monotonic_s())
            if slow is not None:
                where = (address[0], slow.port, *address[2:]) if slow.port else address
                sockets[slow.place].send(slow.data, where)
        elif answer:
            sockets[place].send(answer, address)

    return on_datagram


def is_here(host: str) -> bool:
    """Say whether this machine has an address."""
    try:
        bound_socket(host, 0, socket.SOCK_DGRAM).close()
    except OSError:
        return False
    return bool(host)


def _free(host: str, port: int) -> int:
    try:
        sock = bound_socket(host, port, socket.SOCK_DGRAM)
    except OSError as error:
        raise ConflictError(
            f"{host} port {port}/udp can't be opened: {error.strerror}",
            code="port_in_use",
            mend="end what holds the port, or choose another with --stun-port",
        ) from error
    bound: int = sock.getsockname()[1]
    sock.close()
    return bound
