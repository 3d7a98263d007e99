r"""Tickets: a server's word that two endpoints may meet on a relay. Pure.

    Ed25519 signature (64) || msgpack [server key (32), relay id (16), relay's box key (32),
        session nonce (16), key a (32), key b (32), issued, expires, kbit/s, customer tag (16)]
    signed: "seipd/relay-ticket/v1\0" || mesh id (32) || the msgpack bytes

The keys are the WireGuard keys of the two, the smaller one first. Times are milliseconds of UTC. A
ticket opens nothing by itself: who uses it proves to hold one of the two keys (``messages.py``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import msgspec

from services.base.crypto.signatures import verify_or_raise
from services.kernel.errors import InputError, UnauthenticatedError, WireError
from services.kernel.ids import KEY_BYTES, SIGNATURE_BYTES

if TYPE_CHECKING:
    from services.base.crypto.signatures import Signer

ID_BYTES: Final = 16
MAX_LIFETIME_MS: Final = 3_600_000
CLOCK_SKEW_MS: Final = 30_000
MAX_RATE_KBITS: Final = 100_000_000
MAX_TICKET_BYTES: Final = 320

_PURPOSE: Final = b"seipd/relay-ticket/v1\0"

_Key = Annotated[bytes, msgspec.Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]
_Id = Annotated[bytes, msgspec.Meta(min_length=ID_BYTES, max_length=ID_BYTES)]
_Time = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
_Rate = Annotated[int, msgspec.Meta(ge=1, le=MAX_RATE_KBITS)]


class BadTicketError(UnauthenticatedError):
    """A ticket that opens nothing here and now."""

    default_code = "bad_ticket"


class Ticket(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """Who may meet on which relay, until when, how fast, and for whose account."""

    server_key: _Key
    relay_id: _Id
    box_key: _Key
    nonce: _Id
    key_a: _Key
    key_b: _Key
    issued_ms: _Time
    expires_ms: _Time
    rate_kbits: _Rate
    customer: _Id

    def other_than(self, key: bytes) -> bytes:
        """Return the key of the other party.

        Raises:
            BadTicketError: the key is of neither.
        """
        if key == self.key_a:
            return self.key_b
        if key == self.key_b:
            return self.key_a
        raise BadTicketError("the ticket is for others")


_DECODER: Final = msgspec.msgpack.Decoder(Ticket)


def sign_ticket(
    signer: Signer,
    mesh_id: bytes,
    *,
    relay_id: bytes,
    box_key: bytes,
    nonce: bytes,
    keys: tuple[bytes, bytes],
    now_ms: int,
    lifetime_ms: int,
    rate_kbits: int,
    customer: bytes,
) -> bytes:
    """Return a ticket.

    Args:
        signer: the server's identity.
        mesh_id: 32 bytes.
        relay_id: where the two shall meet.
        box_key: the X25519 key of that relay.
        nonce: 16 fresh random bytes.
        keys: the WireGuard keys of the two, in any order.
        now_ms: the time.
        lifetime_ms: for how long.
        rate_kbits: how much each may send.
        customer: 16 bytes that stand for who has asked; shares are counted by them.

    Raises:
        InputError: a value that no relay would take.
    """
    key_a, key_b = sorted(keys)
    ticket = Ticket(
        server_key=signer.public_key,
        relay_id=relay_id,
        box_key=box_key,
        nonce=nonce,
        key_a=key_a,
        key_b=key_b,
        issued_ms=now_ms,
        expires_ms=now_ms + lifetime_ms,
        rate_kbits=rate_kbits,
        customer=customer,
    )
    body = msgspec.msgpack.encode(ticket)
    try:
        parse_ticket(bytes(SIGNATURE_BYTES) + body)
    except WireError as error:
        raise InputError(f"a ticket that no relay would take: {error}") from error
    return signer.sign(_PURPOSE + mesh_id + body) + body


def parse_ticket(data: bytes) -> Ticket:
    """Parse a ticket without checking its signature, its time or its relay.

    Raises:
        WireError: malformed, or in another spelling than ours.
    """
    if not SIGNATURE_BYTES < len(data) <= MAX_TICKET_BYTES:
        raise WireError("not a ticket")
    body = data[SIGNATURE_BYTES:]
    try:
        ticket = _DECODER.decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise WireError("not a ticket") from error
    if msgspec.msgpack.encode(ticket) != body:
        raise WireError("a ticket in another spelling than ours", code="non_canonical")
    if ticket.key_a >= ticket.key_b:
        raise WireError("a ticket is for two, in order")
    if not 0 < ticket.expires_ms - ticket.issued_ms <= MAX_LIFETIME_MS:
        raise WireError("a ticket does not hold for so long", code="bad_lifetime")
    return ticket


def check_signature(ticket: Ticket, data: bytes, mesh_id: bytes) -> None:
    """Check that the server that a ticket names has signed it.

    Raises:
        BadSignatureError: it has not.
    """
    signature, body = data[:SIGNATURE_BYTES], data[SIGNATURE_BYTES:]
    verify_or_raise(ticket.server_key, _PURPOSE + mesh_id + body, signature, what="a ticket")


def check_place_and_time(ticket: Ticket, *, relay_id: bytes, box_key: bytes, now_ms: int) -> None:
    """Check that a ticket is for this relay and holds now.

    Raises:
        BadTicketError: it is not, or does not.
    """
    if ticket.relay_id != relay_id or ticket.box_key != box_key:
        raise BadTicketError("the ticket is for another relay")
    if not ticket.issued_ms - CLOCK_SKEW_MS <= now_ms < ticket.expires_ms + CLOCK_SKEW_MS:
        raise BadTicketError("the ticket does not hold now", code="expired_ticket")
