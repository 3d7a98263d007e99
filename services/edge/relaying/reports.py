r"""An endpoint's report on a session over a relay: its form, and when it counts. Pure.

    {answered, duration_s, jitter_ms, key, latency_ms, rating, sent, silent_s, ticket, time_ms,
     usage, signature}
    signed: "seipd/relay-report/v1\0" || mesh id (32) || canonical JSON without the signature

It takes two signatures: the endpoint's over all of it, and the relay's under ``usage``, which says
that there was such a session with this endpoint (``authority.relays.usage``). The ticket shows that
a server of the mesh opened it. What an endpoint of the relay's own owner says does not count.
Times are whole seconds and milliseconds; ``rating`` is from 0 to 100, or null.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec

from services.authority.relays.usage import MAX_USAGE_BYTES, open_usage
from services.base.crypto.signatures import verify
from services.edge.relaying.reputation import Session
from services.kernel import canonical
from services.kernel.errors import ForbiddenError, InputError
from services.kernel.ids import b64u_decode, b64u_encode, parse_key, parse_signature

if TYPE_CHECKING:
    from services.base.crypto.signatures import Signer
    from services.kernel.ids import MeshId

MAX_SKEW_MS: Final = 120_000
MAX_TICKET_BYTES: Final = 600
MAX_SESSION_S: Final = 7 * 86_400
HEARTBEATS_A_S: Final = 2
"""Nobody asks a relay more often."""

_PURPOSE: Final = b"seipd/relay-report/v1\0"
_SLACK: Final = 10
_Count = Annotated[int, msgspec.Meta(ge=0, le=HEARTBEATS_A_S * MAX_SESSION_S + _SLACK)]
_Seconds = Annotated[int, msgspec.Meta(ge=0, le=MAX_SESSION_S)]
_Milliseconds = Annotated[int, msgspec.Meta(ge=0, le=60_000)]


class Report(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What an endpoint tells its server of a session."""

    key: Annotated[str, msgspec.Meta(max_length=43)]
    ticket: Annotated[str, msgspec.Meta(max_length=MAX_TICKET_BYTES * 4 // 3 + 2)]
    usage: Annotated[str, msgspec.Meta(max_length=MAX_USAGE_BYTES * 4 // 3 + 2)]
    sent: _Count
    answered: _Count
    silent_s: _Seconds
    duration_s: _Seconds
    latency_ms: _Milliseconds
    jitter_ms: _Milliseconds
    rating: Annotated[int, msgspec.Meta(ge=0, le=100)] | None
    time_ms: Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
    signature: Annotated[str, msgspec.Meta(max_length=86)]

    @property
    def session(self) -> Session:
        """The session as reputation takes it."""
        return Session(
            sent_count=self.sent,
            answered_count=self.answered,
            silent_s=self.silent_s,
            duration_s=self.duration_s,
            latency_ms=self.latency_ms,
            jitter_ms=self.jitter_ms,
            rating=None if self.rating is None else self.rating / 100,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """What a ticket says that a server of the mesh signed."""

    relay_id: bytes
    session_id: bytes
    parties: frozenset[bytes]
    """The WireGuard keys of the two."""
    kbit_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reporter:
    """The endpoint that tells, as the state has it."""

    key: bytes
    wireguard_key: bytes


def signed_report(signer: Signer, mesh_id: MeshId, value: dict[str, Any]) -> dict[str, Any]:
    """Return a report as it is sent.

    Args:
        signer: the endpoint's identity.
        mesh_id: the mesh.
        value: the fields but for key and signature.
    """
    whole = {**value, "key": b64u_encode(signer.public_key)}
    return {**whole, "signature": b64u_encode(signer.sign(_signed(mesh_id, whole)))}


def check_report(
    report: Report,
    mesh_id: MeshId,
    *,
    reporter: Reporter,
    granted: Granted,
    relay_key: bytes,
    now_ms: int,
) -> bytes:
    """Check that a session was as an endpoint reports it, as far as its two sides say so.

    Returns which session of that endpoint it is: by its start, for tickets are renewed.

    Args:
        report: the report.
        mesh_id: the mesh.
        reporter: who it is from, as the server knows it.
        granted: what is in the report's ticket, whose signature was checked.
        relay_key: the key of the relay that the ticket is for.
        now_ms: the time.

    Raises:
        InputError: not of now, or numbers that no session has.
        ForbiddenError: ``bad_signature``, or ``not_your_session``.
        WireError: the relay's statement is malformed.
        BadSignatureError: the relay did not sign it.
    """
    if parse_key(report.key) != reporter.key or reporter.wireguard_key not in granted.parties:
        raise ForbiddenError("that is another's session", code="not_your_session")
    if abs(report.time_ms - now_ms) > MAX_SKEW_MS:
        raise InputError("the report is not of now", mend="check this machine's clock")
    unsigned = msgspec.structs.asdict(report)
    signature = parse_signature(unsigned.pop("signature"))
    if not verify(reporter.key, _signed(mesh_id, unsigned), signature):
        raise ForbiddenError("the report's signature is wrong", code="bad_signature")
    return _session_of(report, mesh_id, reporter=reporter, granted=granted, relay_key=relay_key)


def _session_of(
    report: Report, mesh_id: MeshId, *, reporter: Reporter, granted: Granted, relay_key: bytes
) -> bytes:
    usage = open_usage(b64u_decode(report.usage), mesh_id, relay_key)
    said = (usage.relay, usage.session, usage.party)
    if said != (granted.relay_id, granted.session_id, reporter.wireguard_key):
        raise ForbiddenError("the relay speaks of another session", code="not_your_session")
    seconds = (usage.told_ms - usage.started_ms) / 1000 + _SLACK
    is_sound = (
        report.answered <= report.sent <= HEARTBEATS_A_S * report.duration_s + _SLACK
        and report.silent_s <= report.duration_s <= seconds + MAX_SKEW_MS / 1000
        and usage.told_ms <= report.time_ms + MAX_SKEW_MS
        # Twice what was allowed: a burst at the start and the end is not cheating.
        and usage.from_bytes + usage.to_bytes <= 2 * 2 * seconds * granted.kbit_s * 125
    )
    if not is_sound:
        raise InputError("no session is like that", code="implausible")
    return usage.started_ms.to_bytes(8, "big")


def parse_report(value: object) -> Report:
    """Check the form of a report.

    Raises:
        InputError: malformed, or a number out of range; nothing negative is in range.
    """
    try:
        return msgspec.convert(value, Report)
    except msgspec.ValidationError as error:
        raise InputError(f"a relay report: {error}") from error


def _signed(mesh_id: MeshId, value: dict[str, Any]) -> bytes:
    return _PURPOSE + bytes.fromhex(mesh_id) + canonical.encode(value)
