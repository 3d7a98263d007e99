"""Takes endpoints' reports on relays, and keeps what they are worth.

What counts and what does not is said in ``reports`` and ``reputation``; here are the ticket's
signature, the state, and the clock.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from services.edge.relay.tickets import check_signature, parse_ticket
from services.edge.relaying.hearing import voice_name
from services.edge.relaying.knowing import end_of, is_own_relay
from services.edge.relaying.reports import Granted, Reporter, check_report, parse_report
from services.edge.relaying.reputation import Opinions
from services.kernel.errors import ForbiddenError, NotFoundError
from services.kernel.ids import b64u_decode

if TYPE_CHECKING:
    from collections.abc import Callable

    from services.authority.ports import Ledger
    from services.edge.relaying.finding import Relay
    from services.edge.relaying.reputation import Quality
    from services.kernel.clock import Clock


class Directory(Protocol):
    """The part of the relay directory that is needed here."""

    def get(self, relay_id: str) -> Relay | None:
        """Return a relay, usable or not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What became of a report that is as it should be."""

    relay_id: str
    counts: bool
    why: str


class RelayReports:
    """Checks reports and forms opinions of them."""

    def __init__(self, *, ledger: Ledger, directory: Directory, clock: Clock) -> None:
        self._ledger = ledger
        self._directory = directory
        self._clock = clock
        self._opinions = Opinions()
        self.taken_count = 0
        self.refused_count = 0

    def take(self, node_id: str, value: dict[str, Any]) -> Taken:
        """Take an endpoint's report.

        Raises:
            InputError: malformed, not of now, or like no session.
            ForbiddenError: another's session, or not signed by whom it needs.
            NotFoundError: the relay or the endpoint is gone.
            WireError: a part of it is malformed.
            BadSignatureError: the ticket or the relay's statement is not signed.
        """
        self.refused_count += 1
        report = parse_report(value)
        end = end_of(self._ledger.state, self._ledger.charter, node_id)
        if end is None:
            raise NotFoundError(f"there is no endpoint {node_id}")
        granted = self._granted(b64u_decode(report.ticket))
        relay_id = str(uuid.UUID(bytes=granted.relay_id))
        relay = self._directory.get(relay_id)
        if relay is None:
            raise NotFoundError("there is no such relay")
        session_id = check_report(
            report,
            self._ledger.mesh_id,
            reporter=Reporter(key=end.key, wireguard_key=end.wireguard_key),
            granted=granted,
            relay_key=relay.key,
            now_ms=self._clock.now_ms(),
        )
        self.refused_count -= 1
        self.taken_count += 1
        if is_own_relay(self._ledger.state, relay, end):
            return Taken(relay_id=relay_id, counts=False, why="it is a relay of your own")
        self._opinions.add(
            relay_id=relay_id,
            customer=end.customer,
            reporter=end.key,
            session_id=session_id,
            session=report.session,
            now_s=self._clock.monotonic_s(),
        )
        return Taken(relay_id=relay_id, counts=True, why="")

    def voices(self) -> dict[str, dict[bytes, Quality]]:
        """Return the voice of each customer on each relay."""
        held = self._opinions.voices(self._clock.monotonic_s())
        return {
            relay_id: {voice_name(customer): quality for customer, quality in voices.items()}
            for relay_id, voices in held.items()
        }

    def keep_only(self, is_known: Callable[[str], bool]) -> None:
        """Forget relays that are gone."""
        self._opinions.keep_only(is_known)

    def _granted(self, data: bytes) -> Granted:
        ticket = parse_ticket(data)
        charter = self._ledger.charter
        if charter.at(charter.number).server_of_key(ticket.server_key) is None:
            raise ForbiddenError("no server of the mesh gave that ticket", code="not_your_session")
        check_signature(ticket, data, bytes.fromhex(self._ledger.mesh_id))
        return Granted(
            relay_id=ticket.relay_id,
            session_id=ticket.nonce,
            parties=frozenset({ticket.key_a, ticket.key_b}),
            kbit_s=ticket.rate_kbits,
        )
