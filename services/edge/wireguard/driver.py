"""The one owner of the device: carries out requests in order, looks for drift, makes it anew.

What callers want is kept apart from what the device was told (`table`), so a failure loses no wish:
it is compared as a whole with the device and told again.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, assert_never

from services.edge.wireguard.backend import DeviceGoneError, DeviceRefusedError
from services.edge.wireguard.diff import compare
from services.edge.wireguard.links import LinkGoneError
from services.edge.wireguard.model import PeerChanges
from services.edge.wireguard.requests import (
    CheckNow,
    RemovePeer,
    ReplacePeers,
    RequestQueue,
    ResetPeer,
    SetPeer,
    SetPlan,
    Ticket,
)
from services.edge.wireguard.table import PeerTable
from services.kernel.errors import NotFoundError, SeipdError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from services.edge.wireguard.backend import Backend
    from services.edge.wireguard.model import DeviceSnapshot, InterfacePlan
    from services.edge.wireguard.network import NetworkOutcome
    from services.kernel.clock import Clock

logger = logging.getLogger(__name__)

SESSION_LIFE_S = 180
"""WireGuard's REJECT_AFTER_TIME: a peer silent for longer has no session."""

_FIRST_RETRY_S = 0.1
_LAST_RETRY_S = 10.0


@dataclass(slots=True)
class DriverCounters:
    """What happened since the start."""

    drift_mended: int = 0
    restarts: int = 0
    batches: int = 0
    peers_refused: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outcome:
    mended_count: int
    refused: Mapping[bytes, SeipdError]


class EnsureNetwork(Protocol):
    """Makes addresses, routes and forwarding of an interface as planned."""

    async def __call__(self, interface: str, plan: InterfacePlan) -> NetworkOutcome:
        """See `network.ensure`."""


class Driver:
    """Drives one device that is open."""

    def __init__(
        self,
        *,
        interface: str,
        backend: Backend,
        queue: RequestQueue,
        private_key: bytes,
        public_key: bytes,
        listen_port: int,
        plan: InterfacePlan,
        clock: Clock,
        drift_interval_s: float,
        ensure: EnsureNetwork,
    ) -> None:
        self._interface = interface
        self._backend = backend
        self._queue = queue
        self._private_key = private_key
        self._public_key = public_key
        self._listen_port = listen_port
        self._plan = plan
        self._clock = clock
        self._drift_interval_s = drift_interval_s
        self._ensure = ensure
        self._is_gone = False
        self._is_drifted = False
        self._is_in_doubt = False
        self._is_known = False
        self._device_trouble = ""
        self._network_trouble = ""
        self._network_changes_count = 0
        self.table = PeerTable()
        self.counters = DriverCounters()

    @property
    def trouble(self) -> str:
        """What is not as wanted, for people; empty when all is."""
        return "; ".join(part for part in (self._device_trouble, self._network_trouble) if part)

    @property
    def mtu(self) -> int | None:
        """What the interface is to have; None where it is left alone."""
        return self._plan.mtu

    def note_gone(self) -> None:
        """Take note that the device went away."""
        self._is_gone = True
        self._queue.wake()

    def note_drift(self) -> None:
        """Take note that somebody changed the device: compare everything with it at once."""
        self._is_drifted = True
        self._queue.wake()

    async def ensure_network(self) -> None:
        """Make addresses, routes and forwarding as planned.

        Raises:
            SeipdError: as `network.ensure`.
        """
        try:
            outcome = await self._ensure(self._interface, self._plan)
        except SeipdError as error:
            self._network_trouble = str(error)
            raise
        self._network_trouble = "; ".join(outcome.problems)
        self._network_changes_count = outcome.changes_count

    async def run(self) -> None:
        """Work until the queue is closed."""
        pause_s = self._drift_interval_s
        look_at_s = self._clock.monotonic_s() + pause_s
        try:
            while not self._queue.is_closed:
                await self._queue.wait(max(0.0, look_at_s - self._clock.monotonic_s()))
                is_time = self._is_drifted or self._clock.monotonic_s() >= look_at_s
                self._is_drifted = False
                await self._turn(self._queue.take(), is_time=is_time)
                if is_time:
                    look_at_s = self._clock.monotonic_s() + self._drift_interval_s
                if self._is_in_doubt:
                    look_at_s = self._clock.monotonic_s() + _LAST_RETRY_S
        finally:
            self._queue.close()

    async def _turn(self, tickets: list[Ticket], *, is_time: bool) -> None:
        self._take_wishes(tickets)
        try:
            if self._is_gone:
                raise DeviceGoneError("it ended")
            await self._carry_out(tickets)
            if is_time:
                await self._mend()
        except (DeviceGoneError, LinkGoneError) as error:
            if not await self._recover(str(error)):
                _fail(tickets, error)
        except SeipdError as error:
            self._is_in_doubt = True
            self._device_trouble = str(error)
            logger.error("WireGuard is not as wanted", extra={"reason": str(error)})  # noqa: TRY400
            _fail(tickets, error)
        for ticket in tickets:
            ticket.done()

    async def _carry_out(self, tickets: list[Ticket]) -> None:
        kinds = {type(ticket.request) for ticket in tickets}
        if self._is_in_doubt:
            _fail_refused(tickets, (await self._reconcile(restate=True)).refused)
        elif self.table.is_complete and not self._is_known:
            # The first whole set after a start: sessions of an adopted device must live on.
            now_s = self._clock.now_ms() // 1000
            outcome = await self._reconcile(dead_before_s=now_s - SESSION_LIFE_S)
            _fail_refused(tickets, outcome.refused)
        else:
            refused = await self._apply(self.table.changes())
            self.table.confirm()
            _fail_refused(tickets, refused)
        if SetPlan in kinds:
            await self._network_for([t for t in tickets if isinstance(t.request, SetPlan)])
        if CheckNow in kinds:
            await self._mend()

    def _take_wishes(self, tickets: list[Ticket]) -> None:
        for ticket in tickets:
            match ticket.request:
                case SetPeer(peer, restates):
                    self.table.set(peer, restates=restates)
                case RemovePeer(public_key):
                    self.table.remove(public_key)
                case ReplacePeers(peers):
                    self.table.replace_all(peers)
                case ResetPeer(public_key):
                    if not self.table.reset(public_key):
                        ticket.failed(NotFoundError("no such WireGuard peer"))
                case SetPlan(plan):
                    self._plan = plan
                case CheckNow():
                    pass
                case _:
                    assert_never(ticket.request)

    async def _network_for(self, tickets: list[Ticket]) -> None:
        """Make the network as planned; what hinders that is no trouble of the peers."""
        try:
            await self.ensure_network()
        except LinkGoneError:
            raise
        except SeipdError as error:
            logger.warning("addresses and routes are not as wanted", extra={"reason": str(error)})
            _fail(tickets, error)

    async def _reconcile(self, *, dead_before_s: int = 0, restate: bool = False) -> _Outcome:
        """Read the device, tell it all that differs, and make anew what is to be."""
        snapshot = await self._backend.read()
        if (snapshot.public_key, snapshot.listen_port) != (self._public_key, self._listen_port):
            logger.warning("the WireGuard device has another key or port; set again")
            await self._backend.open(private_key=self._private_key, listen_port=self._listen_port)
        changes = self._differences(snapshot, dead_before_s=dead_before_s, restate=restate)
        refused = await self._apply(changes)
        refused |= await self._apply(self.table.resets())
        self.table.confirm()
        self._is_known = self.table.is_complete
        self._is_in_doubt = False
        self._device_trouble = f"{len(refused)} peers are refused" if refused else ""
        return _Outcome(mended_count=changes.peer_count, refused=refused)

    async def _mend(self) -> None:
        """Compare everything with the device, mend what differs and count it."""
        outcome = await self._reconcile(restate=self._is_in_doubt)
        await self._network_for([])
        mended = outcome.mended_count - len(outcome.refused) + self._network_changes_count
        if mended > 0:
            logger.warning("the WireGuard device had drifted", extra={"mended_count": mended})
            self.counters.drift_mended += mended

    def _differences(
        self, snapshot: DeviceSnapshot, *, dead_before_s: int, restate: bool
    ) -> PeerChanges:
        changes = compare(
            self.table.wanted,
            snapshot.peers,
            dead_before_s=dead_before_s,
            restate=self.table.touched if restate else (),
        )
        if self.table.is_complete:
            return changes
        # Nobody gave us the whole set yet: a peer that we do not know may be a wanted one.
        removed = tuple(key for key in changes.remove if key in self.table.touched)
        return PeerChanges(remove=removed, upsert=changes.upsert)

    async def _apply(self, changes: PeerChanges) -> dict[bytes, SeipdError]:
        """Tell the device; return the peers that it refuses, having told it all others."""
        if not changes:
            return {}
        self.counters.batches += 1
        try:
            await self._backend.apply(changes)
        except DeviceRefusedError as error:
            return await self._apply_apart(changes, error)
        return {}

    async def _apply_apart(
        self, changes: PeerChanges, error: DeviceRefusedError
    ) -> dict[bytes, SeipdError]:
        """Find the peer that spoils a batch, so that no other waits for it."""
        if changes.peer_count == 1:
            key = (*changes.remove, *(upsert.public_key for upsert in changes.upsert))[0]
            self.counters.peers_refused += 1
            logger.error("WireGuard refuses a peer", extra={"reason": str(error)})
            return {key: error}
        refused: dict[bytes, SeipdError] = {}
        if changes.remove and changes.upsert:
            parts = [PeerChanges(remove=changes.remove), PeerChanges(upsert=changes.upsert)]
        else:
            at = max(len(changes.remove), len(changes.upsert)) // 2
            parts = [
                PeerChanges(remove=changes.remove[:at], upsert=changes.upsert[:at]),
                PeerChanges(remove=changes.remove[at:], upsert=changes.upsert[at:]),
            ]
        for part in parts:
            refused.update(await self._apply(part))
        return refused

    async def _recover(self, why: str) -> bool:
        """Make the device anew and tell it everything; False when stopped meanwhile."""
        pause_s = _FIRST_RETRY_S
        while not self._queue.is_closed:
            self._device_trouble = f"the WireGuard device is away: {why}"
            logger.warning("the WireGuard device is away", extra={"reason": why})
            self._is_gone = False
            try:
                created = await self._backend.open(
                    private_key=self._private_key, listen_port=self._listen_port
                )
                await self._reconcile(restate=True)
                await self._network_for([])
            except SeipdError as error:
                why = str(error)
                await self._queue.pause(pause_s)
                pause_s = min(pause_s * 2, _LAST_RETRY_S)
            else:
                self.counters.restarts += created
                return True
        return False


def _fail(tickets: list[Ticket], error: SeipdError) -> None:
    for ticket in tickets:
        ticket.failed(error)


def _fail_refused(tickets: list[Ticket], refused: Mapping[bytes, SeipdError]) -> None:
    for ticket in tickets if refused else ():
        match ticket.request:
            case SetPeer(peer) if peer.public_key in refused:
                ticket.failed(refused[peer.public_key])
            case RemovePeer(key) | ResetPeer(key) if key in refused:
                ticket.failed(refused[key])
            case ReplacePeers():
                ticket.failed(next(iter(refused.values())))
            case _:
                pass
