"""What callers ask of the driver, and the queue in which it waits."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.kernel.errors import SeipdError, UnavailableError

if TYPE_CHECKING:
    from services.edge.wireguard.model import InterfacePlan, PeerConfig

MAX_WAITING = 100_000


@dataclass(frozen=True, slots=True)
class SetPeer:
    """Want a peer so; ``restates``: at this endpoint, wherever WireGuard heard it from since."""

    peer: PeerConfig
    restates: bool = False


@dataclass(frozen=True, slots=True)
class RemovePeer:
    """Want a peer no more."""

    public_key: bytes


@dataclass(frozen=True, slots=True)
class ReplacePeers:
    """Want exactly these peers."""

    peers: tuple[PeerConfig, ...]


@dataclass(frozen=True, slots=True)
class ResetPeer:
    """Make a peer anew."""

    public_key: bytes


@dataclass(frozen=True, slots=True)
class SetPlan:
    """Want these addresses and routes."""

    plan: InterfacePlan


@dataclass(frozen=True, slots=True)
class CheckNow:
    """Compare everything with the device now."""


Request = SetPeer | RemovePeer | ReplacePeers | ResetPeer | SetPlan | CheckNow


@dataclass(frozen=True, slots=True)
class Ticket:
    """A request and the answer that its caller waits for."""

    request: Request
    answer: asyncio.Future[None]

    def done(self) -> None:
        """Answer that it was carried out."""
        if not self.answer.done():
            self.answer.set_result(None)

    def failed(self, error: SeipdError) -> None:
        """Answer that it was not."""
        if not self.answer.done():
            self.answer.set_exception(error)


class RequestQueue:
    """Requests in order, bounded; also what wakes the driver."""

    def __init__(self) -> None:
        self._waiting: deque[Ticket] = deque()
        self._wake = asyncio.Event()
        self._closed = asyncio.Event()
        self.refused_count = 0

    @property
    def is_closed(self) -> bool:
        """Whether no more requests are taken."""
        return self._closed.is_set()

    def put(self, request: Request) -> asyncio.Future[None]:
        """Add a request and return the future of its answer.

        Raises:
            UnavailableError: closed or full.
        """
        if self.is_closed:
            raise UnavailableError("WireGuard is not up", code="wireguard_gone")
        if len(self._waiting) >= MAX_WAITING:
            self.refused_count += 1
            raise UnavailableError("too many changes wait for WireGuard", code="queue_full")
        ticket = Ticket(request, asyncio.get_running_loop().create_future())
        self._waiting.append(ticket)
        self._wake.set()
        return ticket.answer

    def take(self) -> list[Ticket]:
        """Return all that wait."""
        taken = list(self._waiting)
        self._waiting.clear()
        return taken

    def wake(self) -> None:
        """Make `wait` return."""
        self._wake.set()

    async def wait(self, timeout_s: float) -> None:
        """Return when there is something to do, or after a time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._wake.wait()
        self._wake.clear()

    async def pause(self, pause_s: float) -> None:
        """Return after a time, or at once when the queue is closed."""
        with suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await self._closed.wait()

    def close(self) -> None:
        """Take no more requests and answer those that wait."""
        self._closed.set()
        for ticket in self.take():
            ticket.failed(UnavailableError("WireGuard is stopping", code="wireguard_gone"))
        self._wake.set()
