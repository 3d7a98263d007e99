"""What an endpoint is told of another one, and again until it says that it has it. Pure.

What an endpoint says of where it is reached may point anywhere. Nobody is told of an address where
a datagram would do harm: see ``services.kernel.targets``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from services.edge.punch.book import Outgoing
from services.edge.punch.messages import (
    MAX_DATAGRAM_BYTES,
    Candidate,
    CandidateKind,
    Meet,
    Pass,
    Passed,
    encode,
    host_text,
    packed,
)
from services.edge.punch.repeats import Repeats
from services.kernel.targets import neighbourhood, why_refused

if TYPE_CHECKING:
    from collections.abc import Collection

    from services.edge.punch.book import Presence
    from services.edge.punch.messages import RelayOffer
    from services.kernel.targets import Network

MEET_AGAIN_S: Final = (0.25, 0.5, 1.0)
MAX_UNMET: Final = 16_384
IPV6_BYTES: Final = 16
_LEAST_CANDIDATES: Final = 8

M = TypeVar("M", Meet, Pass, Passed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """Where one of the two may be reached, by its own word and by what its server sees."""

    tunnel: bytes
    key: bytes
    candidates: tuple[Candidate, ...]
    """With the observed one, if there is one, first."""
    is_symmetric: bool
    observed: bytes
    """The host that its server sees; empty where that is not known."""


def side_of(one: Presence) -> Side:
    """Return what is known of an endpoint that is here."""
    seen: tuple[Candidate, ...] = ()
    if one.observed is not None:
        host, port = one.observed
        seen = (Candidate(kind=CandidateKind.OBSERVED, host=host, port=port),)
    named = one.candidates or ()
    said = tuple(each for each in named if (each.host, each.port) != one.observed)
    return Side(
        tunnel=one.tunnel,
        key=one.key,
        candidates=seen + said,
        is_symmetric=one.is_symmetric,
        observed=one.observed[0] if one.observed is not None else b"",
    )


def versions_of(side: Side) -> frozenset[int]:
    """Return the versions of IP by which others have seen an endpoint; none where nobody has."""
    seen = (one for one in side.candidates if one.kind is not CandidateKind.LOCAL)
    return frozenset(6 if len(one.host) == IPV6_BYTES else 4 for one in seen)


def judged(
    other: Side, *, own_observed: bytes, mesh_ranges: Collection[Network]
) -> tuple[Candidate, ...]:
    """Return the candidates of one side that the other may be told of."""
    both = own_observed and other.observed
    near = neighbourhood(own_observed, other.observed) if both else ()
    return tuple(
        one
        for one in other.candidates
        if why_refused(one.host, one.port, mesh_ranges=mesh_ranges, on_link=near) is None
    )


def fitted(message: M) -> M:
    """Return a message that fits in a datagram: with fewer of the last candidates, then offers."""
    while len(packed(message)) > MAX_DATAGRAM_BYTES:
        if len(message.candidates) <= _LEAST_CANDIDATES and not isinstance(message, Passed):
            message = msgspec.structs.replace(message, offers=message.offers[:-1])
        else:
            message = msgspec.structs.replace(message, candidates=message.candidates[:-1])
    return message


class Teller:
    """Says MEET, and says it again."""

    def __init__(self, *, mesh_ranges: Collection[Network], first_serial: int) -> None:
        self._mesh_ranges = mesh_ranges
        self._serial = first_serial
        self._unmet: Repeats[tuple[str, bytes]] = Repeats(MEET_AGAIN_S, limit=MAX_UNMET)
        self._told: dict[tuple[str, bytes], tuple[int, Outgoing]] = {}

    def next_serial(self) -> int:
        """Return a number for a meeting that no other has."""
        self._serial += 1
        return self._serial

    def meet(self, own: Side, other: Side, offers: tuple[RelayOffer, ...], serial: int) -> Outgoing:
        """Return what one side is told of the other."""
        candidates = judged(other, own_observed=own.observed, mesh_ranges=self._mesh_ranges)
        meet = Meet(
            key=other.key,
            peer=other.tunnel,
            candidates=candidates,
            is_symmetric=other.is_symmetric,
            offers=offers,
            serial=serial,
        )
        return Outgoing(host=host_text(own.tunnel), data=encode(fitted(meet)))

    def repeat(self, out: Outgoing, peer: bytes, serial: int, now_s: float) -> None:
        """Say this again until there is a receipt."""
        self._unmet.sent((out.host, peer), now_s)
        if (out.host, peer) in self._unmet:
            self._told[out.host, peer] = serial, out

    def met(self, address: str, peer: bytes, serial: int) -> None:
        """Take a receipt."""
        told = self._told.get((address, peer))
        if told is not None and told[0] == serial:
            del self._told[address, peer]
            self._unmet.settle((address, peer))

    def tick(self, now_s: float) -> list[Outgoing]:
        """Return what is to be said again."""
        again, lost = self._unmet.due(now_s)
        for name in lost:
            del self._told[name]
        return [self._told[name][1] for name in again]

    @property
    def next_s(self) -> float:
        """When ``tick`` has something to do next."""
        return self._unmet.next_s
