"""The kinds of facts there are, in one table; a fact of any other kind is refused. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from services.kernel.errors import WireError
from services.mesh.facts.payloads import (
    MAX_PAYLOAD_BYTES,
    Address6Payload,
    AddressPayload,
    ChallengePayload,
    LatencyPayload,
    LinksPayload,
    LoadPayload,
    Payload,
    PortsPayload,
    RelayPayload,
    ReleasePayload,
    decode_payload,
)

_SECOND_MS: Final = 1_000
_MINUTE_MS: Final = 60 * _SECOND_MS
_HOUR_MS: Final = 60 * _MINUTE_MS
_DAY_MS: Final = 24 * _HOUR_MS


@dataclass(frozen=True, slots=True, kw_only=True)
class FactKind:
    """One kind of facts."""

    number: int
    name: str
    max_lifetime_ms: int
    """How long a fact may hold from its issue."""
    max_skew_ms: int = 30 * _SECOND_MS
    """How far in the future its issue may lie."""
    settle_ms: int = 5 * _SECOND_MS
    """How old a fact is before it counts in the hashes of what is held.

    Of a kind that changes all the time something is always under way; hashes that took it in at
    once would never be equal anywhere, and each difference costs a few datagrams.
    """
    is_kept: bool = False
    """Whether it is worth anything after a restart."""
    payload: type[Payload] | None = None
    """The shape of what it says; None for bytes that only its readers understand."""
    max_payload_bytes: int = MAX_PAYLOAD_BYTES

    def check(self, payload: bytes) -> None:
        """Check what a fact says.

        Raises:
            WireError: malformed, out of bounds, or in another spelling than ours.
        """
        if len(payload) > self.max_payload_bytes:
            raise WireError(f"a fact about {self.name} says too much", code="too_large")
        if self.payload is not None:
            decode_payload(payload, self.payload)


ADDRESS: Final = 0
LOAD: Final = 1
STATE: Final = 2
LATENCY: Final = 3
LINKS: Final = 4
RELEASE: Final = 5
CHALLENGE: Final = 6
PORTS: Final = 7
RELAY: Final = 8
ADDRESS6: Final = 9

KINDS: Final = {
    kind.number: kind
    for kind in (
        FactKind(
            number=ADDRESS,
            name="address",
            max_lifetime_ms=30 * _DAY_MS,
            max_skew_ms=5 * _MINUTE_MS,
            settle_ms=0,
            is_kept=True,
            payload=AddressPayload,
        ),
        FactKind(number=LOAD, name="load", max_lifetime_ms=2 * _HOUR_MS, payload=LoadPayload),
        FactKind(
            number=STATE, name="state", max_lifetime_ms=10 * _MINUTE_MS, max_payload_bytes=256
        ),
        FactKind(
            number=LATENCY, name="latency", max_lifetime_ms=1 * _DAY_MS, payload=LatencyPayload
        ),
        FactKind(number=LINKS, name="links", max_lifetime_ms=2 * _HOUR_MS, payload=LinksPayload),
        FactKind(
            number=RELEASE, name="release", max_lifetime_ms=1 * _DAY_MS, payload=ReleasePayload
        ),
        FactKind(
            number=CHALLENGE,
            name="challenges",
            max_lifetime_ms=15 * _MINUTE_MS,
            payload=ChallengePayload,
        ),
        FactKind(number=PORTS, name="ports", max_lifetime_ms=1 * _DAY_MS, payload=PortsPayload),
        FactKind(number=RELAY, name="relay", max_lifetime_ms=1 * _DAY_MS, payload=RelayPayload),
        FactKind(
            number=ADDRESS6, name="address6", max_lifetime_ms=1 * _DAY_MS, payload=Address6Payload
        ),
    )
}


def kind_of(number: int) -> FactKind:
    """Return a kind by its number.

    Raises:
        WireError: ``unknown_kind``.
    """
    kind = KINDS.get(number)
    if kind is None:
        raise WireError(f"a fact of kind {number}, which is unknown here", code="unknown_kind")
    return kind
