"""The agent's line to its server's rendezvous, and the echo between endpoints: UDP in the tunnel.

What is said and repeated, ``talk`` decides; here are the socket, the clock and the callbacks. Only
what comes in by the tunnel's own interface, from the port of the same name, is listened to.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from typing import TYPE_CHECKING, Protocol

from seipd.agent.paths.talk import Heard, Talk
from seipd.agent.steady import steadily
from services.edge.punch.messages import (
    PORT,
    Echo,
    Echoed,
    Known,
    Meet,
    Nothing,
    Signal,
    SignalCode,
    What,
    Why,
    decode,
    encode,
    host_text,
    tunnel_bytes,
)
from services.kernel.errors import SeipdError, WireError
from services.runtime.tasks import TaskOwner
from services.runtime.udp import ArrivalSocket

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random  # noqa: TID251 (handed in)

    from services.edge.punch.messages import Candidate, Message
    from services.kernel.clock import Clock
    from services.runtime.udp import Address

logger = logging.getLogger(__name__)

ECHO_TIMEOUT_S = 1.0
MAX_ECHOES = 512
_MAX_COUNTER = 2**48


class Listener(Protocol):
    """What wants to know of other endpoints. Called on the event loop; must not raise or wait."""

    def known(self, known: Known) -> None:
        """The server sees this endpoint's tunnel come from another address than before."""

    def meet(self, meet: Meet) -> None:
        """Another endpoint is to be met, by whoever's wish."""

    def nothing(self, peer: str, why: Why) -> None:
        """A call came to nothing."""

    def signalled(self, peer: str, code: SignalCode) -> None:
        """Another endpoint lets this one know something."""


class Rendezvous:
    """Says that this endpoint is here, calls others, and tells who calls."""

    def __init__(
        self, *, address: str, gateway: str, interface: str, clock: Clock, rng: Random
    ) -> None:
        """Prepare; nothing is opened.

        Args:
            address: this endpoint's IPv4 tunnel address.
            gateway: the server's address in the tunnel, the same at every server.
            interface: of the tunnel.
            clock: the clock.
            rng: of the system.
        """
        self._address = address
        self._gateway = gateway
        self._interface = interface
        self._clock = clock
        self._rng = rng
        self._talk = Talk(counter=rng.randrange(_MAX_COUNTER), now_s=clock.monotonic_s())
        self._socket = ArrivalSocket(self._on_arrival)
        self._tasks = TaskOwner("rendezvous")
        self._news = asyncio.Event()
        self._listeners: list[Listener] = []
        self._on_changed: list[Callable[[What], None]] = []
        self._echoes: dict[int, tuple[str, float, asyncio.Future[float | None]]] = {}

    def subscribe(self, listener: Listener) -> None:
        """Tell this one, too."""
        self._listeners.append(listener)

    def subscribe_changed(self, on_changed: Callable[[What], None]) -> None:
        """Call this where the policy, or the peers and routes, are to be fetched anew.

        Also at the first answer of each server: what was fetched before may be older than that.
        """
        self._on_changed.append(on_changed)

    async def start(self) -> None:
        """Open the socket and say that this endpoint is here. The tunnel's address must be there.

        Raises:
            ConflictError: ``port_in_use``.
        """
        self._socket.open(self._address, PORT, shared=True)
        self._tasks.spawn(
            steadily(self._speak_forever, "speaking with the server"), name="rendezvous-speak"
        )

    async def stop(self) -> None:
        """Fall silent; may be called twice."""
        await self._tasks.close()
        self._socket.close()
        for _, _, future in self._echoes.values():
            if not future.done():
                future.set_result(None)

    @property
    def known(self) -> Known | None:
        """The newest answer of this server; None after ``refresh`` until it answers again."""
        return self._talk.known

    @property
    def heard_s(self) -> float | None:
        """When the server last answered, by the monotonic clock."""
        return self._talk.known_s

    @property
    def round_trip_s(self) -> float | None:
        """How long the newest answer took."""
        return self._talk.round_trip_s

    def set_candidates(self, candidates: Sequence[Candidate], *, is_symmetric: bool) -> None:
        """Tell the server where this endpoint may be reached, best first; at once if it is news."""
        self._talk.set_candidates(candidates, is_symmetric=is_symmetric, now_s=self._now_s())
        self._news.set()

    def decline(self) -> None:
        """Meet nobody from now on, until there are candidates: all goes over the server."""
        self._talk.set_candidates(None, is_symmetric=False, now_s=self._now_s())
        self._news.set()

    def refresh(self) -> None:
        """Say at once that the network, or the server, is another one than before."""
        self._talk.refresh(self._now_s())
        self._news.set()

    def call(self, peer: str, excluded: Sequence[bytes] = ()) -> None:
        """Ask to meet an endpoint: ``meet`` or ``nothing`` comes of it within five seconds.

        Args:
            peer: its tunnel address.
            excluded: ids of relays that did not work, newest last.

        Raises:
            InputError: ``peer`` is no IPv4 address.
        """
        self._talk.call(tunnel_bytes(peer), excluded, self._now_s())
        self._news.set()

    def forget(self, peer: str) -> None:
        """Give a call up in silence."""
        self._talk.forget(tunnel_bytes(peer))

    def signal(self, peer: str, code: SignalCode) -> None:
        """Let another endpoint know something, over the servers; repeated until it has it.

        Raises:
            InputError: ``peer`` is no IPv4 address.
        """
        self._talk.signal(tunnel_bytes(peer), code, self._now_s())
        self._news.set()

    async def echo(self, address: str, *, timeout_s: float = ECHO_TIMEOUT_S) -> float | None:
        """Return the seconds to an endpoint (or the gateway) and back, by the path as it is now.

        Asked once; None where nothing came back in time, or too many are asked at once.
        """
        if len(self._echoes) >= MAX_ECHOES:
            return None
        counter = self._rng.randrange(_MAX_COUNTER)
        future: asyncio.Future[float | None] = asyncio.get_running_loop().create_future()
        self._echoes[counter] = address, self._now_s(), future
        self._send(Echo(counter=counter), address)
        try:
            async with asyncio.timeout(timeout_s):
                return await future
        except TimeoutError:
            return None
        finally:
            self._echoes.pop(counter, None)

    async def _speak_forever(self) -> None:
        while True:
            self._news.clear()
            self._follow(self._talk.due(self._now_s()))
            left_s = max(self._talk.next_s - self._now_s(), 0.0)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await self._news.wait()

    def _on_arrival(self, data: bytes, address: Address, interface: int) -> None:
        host, port = address[0], address[1]
        if port != PORT or not self._is_tunnel(interface):
            return
        try:
            message = decode(data)
        except WireError:
            return
        match message:
            case Echo():
                self._send(Echoed(counter=message.counter), host)
            case Echoed():
                self._on_echoed(message, host)
            case _ if host == self._gateway:
                self._follow(self._talk.take(message, self._now_s()))
                self._news.set()

    def _on_echoed(self, message: Echoed, host: str) -> None:
        asked, sent_s, future = self._echoes.get(message.counter, ("", 0.0, None))
        if future is not None and asked == host and not future.done():
            future.set_result(self._now_s() - sent_s)

    def _follow(self, heard: Heard) -> None:
        for message in heard.replies:
            self._send(message, self._gateway)
        for event in heard.events:
            if isinstance(event, What):
                for on_changed in self._on_changed:
                    on_changed(event)
            else:
                for listener in self._listeners:
                    _tell(listener, event)

    def _send(self, message: Message, host: str) -> None:
        try:
            self._socket.send(encode(message), (host, PORT))
        except SeipdError as error:
            logger.warning("not sent: %s", error)

    def _is_tunnel(self, interface: int) -> bool:
        try:
            return socket.if_indextoname(interface) == self._interface
        except OSError:
            return False

    def _now_s(self) -> float:
        return self._clock.monotonic_s()


def _tell(listener: Listener, event: Known | Meet | Nothing | Signal) -> None:
    match event:
        case Known():
            listener.known(event)
        case Meet():
            listener.meet(event)
        case Nothing():
            listener.nothing(host_text(event.peer), event.why)
        case Signal():
            listener.signalled(host_text(event.peer), event.code)
