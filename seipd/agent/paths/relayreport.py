"""Tells the server how good the relays were that this endpoint used.

Each heartbeat is noted with what came of it. Once a minute the relay is asked for its statement of
what it carried, and what it said last is kept: a relay that dies says nothing more. The report goes
to the server each five minutes and at the end.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import fmean, median
from typing import TYPE_CHECKING, Any, Final, Protocol

from services.authority.relays.usage import session_in
from services.edge.relay.tickets import parse_ticket
from services.edge.relaying.reports import signed_report
from services.kernel.errors import SeipdError, WireError
from services.kernel.ids import b64u_encode

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from services.base.crypto.signatures import Signer
    from services.kernel.clock import Clock
    from services.kernel.ids import MeshId

logger = logging.getLogger(__name__)

REPORT_S: Final = 300.0
STATEMENT_S: Final = 60.0
TICK_S: Final = 5.0
KEPT_ROUND_TRIPS: Final = 120
KEPT_TICKETS: Final = 4
MAX_NOTES: Final = 512
GOOD: Final = 100
SILENT: Final = "silent"
_MAX_MS: Final = 60_000


class Offered(Protocol):
    """The part of a relay's offer that is needed here."""

    @property
    def relay_id(self) -> bytes:
        """Which relay."""

    @property
    def ticket(self) -> bytes:
        """What opens a session there."""


@dataclass(slots=True, kw_only=True)
class Notes:
    """What is known of one session over a relay."""

    begun_s: float
    reported_s: float
    asked_s: float
    heard_s: float
    sent_count: int = 0
    answered_count: int = 0
    missed_count: int = 0
    """Heartbeats without an answer since the last one that had."""
    silent_s: float = 0.0
    round_trips_ms: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT_ROUND_TRIPS))
    statement: bytes = b""

    def note(self, round_trip_ms: float | None, now_s: float) -> None:
        """Take what came of a heartbeat: its round trip, or that no answer came."""
        self.sent_count += 1
        if round_trip_ms is None:
            self.missed_count += 1
            return
        if self.missed_count > 1:
            self.silent_s += now_s - self.heard_s
        self.answered_count, self.missed_count, self.heard_s = self.answered_count + 1, 0, now_s
        self.round_trips_ms.append(round_trip_ms)

    def fields(self, now_s: float, rating: int) -> dict[str, Any]:
        """Return what a report says of it."""
        silent_s = self.silent_s + (now_s - self.heard_s if self.missed_count > 1 else 0.0)
        duration_s = max(int(now_s - self.begun_s), 0)
        trips = self.round_trips_ms
        steps = [abs(one - other) for one, other in pairwise(trips)]
        return {
            "sent": self.sent_count,
            "answered": self.answered_count,
            "silent_s": min(int(silent_s), duration_s),
            "duration_s": duration_s,
            "latency_ms": min(round(median(trips)), _MAX_MS) if trips else 0,
            "jitter_ms": min(round(fmean(steps)), _MAX_MS) if steps else 0,
            "rating": rating,
        }


class RelayReporter:
    """Notes by peer and relay; all of it bounded."""

    def __init__(
        self,
        *,
        identity: Signer,
        mesh_id: MeshId,
        send: Callable[[dict[str, Any]], Awaitable[None]],
        ask_usage: Callable[[bytes], None],
        clock: Clock,
    ) -> None:
        """Prepare.

        Args:
            identity: this endpoint's key.
            mesh_id: the mesh.
            send: hands a report to the server.
            ask_usage: has the relay that carries for a peer say what it carried.
            clock: the clock.
        """
        self._identity = identity
        self._mesh_id = mesh_id
        self._send = send
        self._ask_usage = ask_usage
        self._clock = clock
        self._notes: dict[tuple[bytes, bytes], Notes] = {}
        self._tickets: dict[tuple[bytes, bytes], dict[bytes, bytes]] = {}
        self._waiting: deque[dict[str, Any]] = deque(maxlen=MAX_NOTES)

    def offered(self, peer_key: bytes, offers: Sequence[Offered]) -> None:
        """Take what was offered for a peer: a report needs the ticket."""
        for offer in offers:
            held = self._tickets.setdefault((peer_key, offer.relay_id), {})
            try:
                nonce = parse_ticket(offer.ticket).nonce
            except WireError:
                continue
            held.pop(nonce, None)
            held[nonce] = offer.ticket
            while len(held) > KEPT_TICKETS:
                del held[next(iter(held))]
        while len(self._tickets) > MAX_NOTES:
            del self._tickets[next(iter(self._tickets))]

    def heartbeat(self, peer_key: bytes, relay_id: bytes, round_trip_ms: float | None) -> None:
        """Take what came of a heartbeat."""
        now_s = self._clock.monotonic_s()
        notes = self._notes.get((peer_key, relay_id))
        if notes is None:
            # The first statement is asked for soon: a session may be short.
            asked_s = now_s - STATEMENT_S + TICK_S
            notes = Notes(begun_s=now_s, reported_s=now_s, asked_s=asked_s, heard_s=now_s)
            self._notes[peer_key, relay_id] = notes
            while len(self._notes) > MAX_NOTES:
                del self._notes[next(iter(self._notes))]
        notes.note(round_trip_ms, now_s)

    def usage(self, peer_key: bytes, relay_id: bytes, statement: bytes) -> None:
        """Take what a relay says that it carried."""
        notes = self._notes.get((peer_key, relay_id))
        if notes is not None:
            notes.statement = statement

    def ended(self, peer_key: bytes, relay_id: bytes, why: str = "") -> None:
        """Take that a relay carries for a peer no more; ``silent`` is the relay's own fault."""
        notes = self._notes.pop((peer_key, relay_id), None)
        if notes is not None:
            self._report(peer_key, relay_id, notes, rating=0 if why == SILENT else GOOD)
        self._tickets.pop((peer_key, relay_id), None)

    async def run(self) -> None:
        """Ask for statements and send reports until cancelled."""
        while True:
            await asyncio.sleep(TICK_S)
            self.look()
            await self.flush()

    def look(self) -> None:
        """Ask for the statements and make the reports that are due."""
        now_s = self._clock.monotonic_s()
        for (peer_key, relay_id), notes in list(self._notes.items()):
            if now_s - notes.asked_s >= STATEMENT_S:
                notes.asked_s = now_s
                self._ask_usage(peer_key)
            if now_s - notes.reported_s >= REPORT_S and notes.statement:
                notes.reported_s = now_s
                self._report(peer_key, relay_id, notes, rating=GOOD)

    async def flush(self) -> None:
        """Send what is waiting; what the server refuses is not sent again."""
        while self._waiting:
            report = self._waiting.popleft()
            try:
                await self._send(report)
            except SeipdError as error:
                logger.info("a report on a relay was not taken: %s", error)

    def _report(self, peer_key: bytes, relay_id: bytes, notes: Notes, *, rating: int) -> None:
        ticket = self._ticket(peer_key, relay_id, notes.statement)
        if ticket is None:
            return
        said = {
            **notes.fields(self._clock.monotonic_s(), rating),
            "ticket": b64u_encode(ticket),
            "usage": b64u_encode(notes.statement),
            "time_ms": self._clock.now_ms(),
        }
        self._waiting.append(signed_report(self._identity, self._mesh_id, said))

    def _ticket(self, peer_key: bytes, relay_id: bytes, statement: bytes) -> bytes | None:
        """Return the ticket of the session that a relay speaks of; None without any."""
        try:
            session = session_in(statement)
        except WireError:
            return None
        return self._tickets.get((peer_key, relay_id), {}).get(session)
