"""Any bytes are a message of the rendezvous in its one spelling, or a WireError."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.edge.punch.messages import (
    MAX_CANDIDATES,
    MAX_DATAGRAM_BYTES,
    MAX_OFFERS,
    MAX_TICKET_BYTES,
    Candidate,
    CandidateKind,
    Carried,
    Carry,
    Changed,
    Echo,
    Echoed,
    Here,
    Known,
    Meet,
    Message,
    Nothing,
    Pass,
    RelayOffer,
    Signal,
    SignalCode,
    What,
    Why,
    candidate,
    decode,
    encode,
    host_bytes,
    tunnel_bytes,
)
from services.kernel.errors import InputError, WireError

ONE = tunnel_bytes("10.64.0.10")
OTHER = tunnel_bytes("10.64.0.11")
FAR = candidate(CandidateKind.STUN, "203.0.113.7", 40000)
FAR6 = candidate(CandidateKind.LOCAL, "2001:db8::7", 51820)
OFFER = RelayOffer(
    relay_id=b"r" * 16,
    host4=host_bytes("203.0.113.9"),
    host6=b"",
    control_port=9103,
    box_key=b"b" * 32,
    ticket=b"t" * 280,
)
MESSAGES: list[Message] = [
    Here(1, (FAR, FAR6), False, True, 3, 4),
    Here(1, None, False, True, 3, 4),
    Known(1, FAR.host, 40000, 3, 4),
    Known(1, b"", 0, 3, 4),
    Meet(b"k" * 32, OTHER, (FAR, FAR6), True, (OFFER, OFFER), 77),
    Nothing(OTHER, Why.AWAY),
    Changed(What.PEERS, 9),
    Signal(5, OTHER, SignalCode.RESTARTED),
    Echo(1),
    Echoed(1),
    Pass(1, ONE, OTHER, (FAR,), False, FAR.host, (OFFER,)),
    Carry(ONE, OTHER, 5, SignalCode.FALL_BACK),
    Carried(ONE, OTHER, 5),
]


@pytest.mark.parametrize("message", MESSAGES)
def test_what_was_written_is_read_again(message: Message) -> None:
    data = encode(message)
    assert decode(data) == message
    assert 0x90 <= data[0] <= 0x9F


@given(st.binary(max_size=1300))
def test_any_bytes_are_a_message_or_a_wire_error(data: bytes) -> None:
    try:
        message = decode(data)
    except WireError:
        return
    assert encode(message) == data


@given(st.sampled_from(MESSAGES), st.data())
def test_a_bent_message_is_another_one_or_a_wire_error(
    message: Message, data: st.DataObject
) -> None:
    raw = bytearray(encode(message))
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        read = decode(bytes(raw))
    except WireError:
        return
    assert encode(read) == bytes(raw)


def _raw(*fields: object) -> bytes:
    return msgspec.msgpack.encode(fields)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x92\x09",
        encode(Echo(1)) + b"\0",
        b"\x92\x09\xcc\x01",  # a 1 in two bytes
        _raw(9, -1),
        _raw(9, 2**53),
        _raw(9, "1"),
        _raw(9, 1, 1),
        _raw(99, 1),
        _raw(5, b"\x0a\x40\x00", 0),
        _raw(5, OTHER, 9),
        _raw(1, 1, [[0, b"\1\2\3", 5]], False, True, 0, 0),
        _raw(1, 1, [[0, FAR.host, 0]], False, True, 0, 0),
        _raw(1, 1, [[0, FAR.host, 65536]], False, True, 0, 0),
        _raw(1, 1, [[7, FAR.host, 4000]], False, True, 0, 0),
        _raw(1, 1, [[0, FAR.host, 5]] * (MAX_CANDIDATES + 1), False, True, 0, 0),
        _raw(1, 1, [], 0, True, 0, 0),
        _raw(2, 1, b"12345", 5, 0, 0),
        _raw(4, b"k" * 31, OTHER, [], False, [], 1),
        _raw(4, b"k" * 32, OTHER, [], False, [[b"r" * 16, b"1", b"", 9103, b"b" * 32, b""]], 1),
        _raw(16, 1, ONE, OTHER, [], False, b"12345", []),
        _raw(3, 1, OTHER, [b"r" * 16] * 5),
        b"\x91" * 1000,
        bytes(2000),
    ],
)
def test_refuses_what_is_malformed_or_out_of_bounds(data: bytes) -> None:
    with pytest.raises(WireError):
        decode(data)


def test_a_datagram_stays_below_its_limit() -> None:
    longest = RelayOffer(
        relay_id=b"r" * 16,
        host4=b"1234",
        host6=b"6" * 16,
        control_port=9103,
        box_key=b"b" * 32,
        ticket=b"t" * MAX_TICKET_BYTES,
    )
    seen = tuple(Candidate(CandidateKind.LOCAL, bytes([n]) * 16, 60000) for n in range(12))
    offers = (longest,) * MAX_OFFERS
    fits = Meet(b"k" * 32, OTHER, seen, True, offers, 2**53 - 1)
    assert len(encode(fits)) <= MAX_DATAGRAM_BYTES
    with pytest.raises(WireError, match="1200"):
        encode(Meet(b"k" * 32, OTHER, seen + seen[:5], True, offers, 2**53 - 1))


def test_a_candidate_is_an_address_and_a_port() -> None:
    assert FAR.endpoint == ("203.0.113.7", 40000)
    for host, port in (("example.org", 5), ("fe80::1%eth0", 5), ("203.0.113.7", 0)):
        with pytest.raises(InputError):
            candidate(CandidateKind.LOCAL, host, port)
    with pytest.raises(InputError):
        tunnel_bytes("fd00::1")
