"""Offers relays to two endpoints that want to meet: the nearest two, each with a ticket.

A ticket is good for a quarter of an hour, so that whoever was thrown out of the mesh gets no new
one; asked again for the same two within half a minute it is the same ticket, for both ask.
"""

from __future__ import annotations

import uuid
from collections import OrderedDict
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final, Protocol

from services.edge.relay.tickets import sign_ticket
from services.edge.relaying.knowing import end_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from services.authority.ports import Ledger
    from services.base.crypto.signatures import Signer
    from services.edge.relaying.finding import Found, Relay
    from services.edge.relaying.knowing import End
    from services.kernel.clock import Clock

MAX_OFFERS: Final = 2
LIFETIME_MS: Final = 900_000
SAME_MS: Final = 30_000
MAX_REMEMBERED: Final = 8192
SESSION_KBITS: Final = 200_000
"""How much each of the two may send; a relay may have less to give."""
NONCE_BYTES: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayOffer:
    """A relay, and the ticket for it; an empty host where it has no such address."""

    relay_id: bytes
    host4: bytes
    host6: bytes
    control_port: int
    box_key: bytes
    ticket: bytes


class Directory(Protocol):
    """The part of the relay directory that is needed here."""

    def nearest(
        self,
        ends: Sequence[str | None],
        *,
        limit: int,
        excluded: Collection[str] = (),
        versions: Sequence[Collection[int]] = (),
    ) -> list[Found]:
        """Return the usable relays that cost least between these regions."""


@dataclass(frozen=True, slots=True)
class _Given:
    ticket: bytes
    box: bytes
    at_ms: int


class RelayOffering:
    """Chooses relays and signs tickets."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        directory: Directory,
        signer: Signer,
        clock: Clock,
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._ledger = ledger
        self._directory = directory
        self._signer = signer
        self._clock = clock
        self._random_bytes = random_bytes
        self._given: OrderedDict[tuple[bytes, bytes, str], _Given] = OrderedDict()

    def offers(
        self,
        node_a: str,
        node_b: str,
        excluded: Collection[bytes] = (),
        versions: Sequence[Collection[int]] = (),
    ) -> list[RelayOffer]:
        """Return up to two relays for two endpoints, the best first; none where one left the mesh.

        Args:
            node_a: who asks; the session goes to the account of its customer.
            node_b: the other.
            excluded: ids of relays that did not work.
            versions: of IP, that each of the two is known to have.
        """
        state, charter = self._ledger.state, self._ledger.charter
        one, other = end_of(state, charter, node_a), end_of(state, charter, node_b)
        if one is None or other is None or one.wireguard_key == other.wireguard_key:
            return []
        unwanted = {str(uuid.UUID(bytes=relay_id)) for relay_id in excluded}
        found = self._directory.nearest(
            [one.region, other.region],
            limit=MAX_OFFERS,
            excluded=unwanted,
            versions=versions,
        )
        return [self._offer(each.relay, one, other) for each in found]

    def _offer(self, relay: Relay, one: End, other: End) -> RelayOffer:
        return RelayOffer(
            relay_id=uuid.UUID(relay.relay_id).bytes,
            host4=_packed(relay.host),
            host6=_packed(relay.host6),
            control_port=relay.port,
            box_key=relay.box,
            ticket=self._ticket(relay, one, other),
        )

    def _ticket(self, relay: Relay, one: End, other: End) -> bytes:
        low, high = sorted((one.wireguard_key, other.wireguard_key))
        name, now_ms = (low, high, relay.relay_id), self._clock.now_ms()
        given = self._given.get(name)
        if given is not None and given.box == relay.box and 0 <= now_ms - given.at_ms < SAME_MS:
            return given.ticket
        ticket = sign_ticket(
            self._signer,
            bytes.fromhex(self._ledger.mesh_id),
            relay_id=uuid.UUID(relay.relay_id).bytes,
            box_key=relay.box,
            nonce=self._random_bytes(NONCE_BYTES),
            keys=(low, high),
            now_ms=now_ms,
            lifetime_ms=LIFETIME_MS,
            rate_kbits=SESSION_KBITS,
            customer=uuid.UUID(one.customer).bytes,
        )
        self._given.pop(name, None)
        self._given[name] = _Given(ticket, relay.box, now_ms)
        while len(self._given) > MAX_REMEMBERED:
            self._given.popitem(last=False)
        return ticket


def _packed(host: str) -> bytes:
    return ip_address(host).packed if host else b""
