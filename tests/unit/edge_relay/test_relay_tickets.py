"""Tickets: what a relay takes, and what it does not."""

from __future__ import annotations

import hashlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.base.crypto.signatures import BadSignatureError, SigningKey
from services.edge.relay.tickets import (
    CLOCK_SKEW_MS,
    MAX_LIFETIME_MS,
    BadTicketError,
    check_place_and_time,
    check_signature,
    parse_ticket,
    sign_ticket,
)
from services.kernel.errors import InputError, WireError

SERVER = SigningKey(bytes(range(32)))
MESH = hashlib.sha256(b"mesh").digest()
RELAY = bytes([7]) * 16
BOX = bytes([8]) * 32
A, B = bytes([1]) * 32, bytes([2]) * 32
NOW_MS = 1_800_000_000_000
HOUR_MS = 3_600_000


def ticket(**changed) -> bytes:
    values = {
        "relay_id": RELAY,
        "box_key": BOX,
        "nonce": bytes(16),
        "keys": (A, B),
        "now_ms": NOW_MS,
        "lifetime_ms": HOUR_MS,
        "rate_kbits": 20_000,
        "customer": bytes([9]) * 16,
    }
    return sign_ticket(SERVER, MESH, **(values | changed))


def test_a_ticket_comes_back_as_it_was_made():
    data = ticket(keys=(B, A))
    got = parse_ticket(data)
    check_signature(got, data, MESH)
    check_place_and_time(got, relay_id=RELAY, box_key=BOX, now_ms=NOW_MS)
    assert (got.key_a, got.key_b, got.rate_kbits) == (A, B, 20_000)
    assert got.other_than(A) == B
    assert got.other_than(B) == A


def test_the_vector_of_the_documentation():
    assert hashlib.sha256(ticket()).hexdigest() == (
        "57a22ac12b50d02240f642aed935af320611e86516814155ed85fa21481c8000"
    )


def test_rly_02_expired_or_early_tickets_open_nothing():
    got = parse_ticket(ticket())
    for good_ms in (NOW_MS - CLOCK_SKEW_MS, NOW_MS + HOUR_MS + CLOCK_SKEW_MS - 1):
        check_place_and_time(got, relay_id=RELAY, box_key=BOX, now_ms=good_ms)
    for bad_ms in (NOW_MS - CLOCK_SKEW_MS - 1, NOW_MS + HOUR_MS + CLOCK_SKEW_MS, 0, 2**53):
        with pytest.raises(BadTicketError):
            check_place_and_time(got, relay_id=RELAY, box_key=BOX, now_ms=bad_ms)


def test_rly_02_no_ticket_holds_for_longer_than_an_hour():
    with pytest.raises(InputError):
        ticket(lifetime_ms=MAX_LIFETIME_MS + 1)
    with pytest.raises(InputError):
        ticket(lifetime_ms=0)
    wire = msgspec.msgpack.decode(ticket()[64:])
    wire[7] += 1
    with pytest.raises(WireError):
        parse_ticket(bytes(64) + msgspec.msgpack.encode(wire))


def test_rly_03_a_ticket_is_for_one_relay():
    got = parse_ticket(ticket())
    for place in ({"relay_id": bytes(16), "box_key": BOX}, {"relay_id": RELAY, "box_key": A}):
        with pytest.raises(BadTicketError):
            check_place_and_time(got, now_ms=NOW_MS, **place)


def test_rly_03_a_third_key_is_no_party():
    with pytest.raises(BadTicketError):
        parse_ticket(ticket()).other_than(bytes(32))


def test_a_ticket_of_another_mesh_is_not_signed():
    data = ticket()
    with pytest.raises(BadSignatureError):
        check_signature(parse_ticket(data), data, hashlib.sha256(b"other").digest())


def test_rly_07_nobody_meets_themselves():
    with pytest.raises(InputError):
        ticket(keys=(A, A))


@given(st.integers(0, 8 * 310))
def test_a_changed_bit_is_noticed(bit):
    data = bytearray(ticket())
    data[bit // 8 % len(data)] ^= 1 << bit % 8
    with pytest.raises((WireError, BadSignatureError)):
        check_signature(parse_ticket(bytes(data)), bytes(data), MESH)


@given(st.binary(max_size=400))
def test_any_bytes_are_a_ticket_or_a_wire_error(data):
    with pytest.raises(WireError):
        parse_ticket(data)


@given(
    nonce=st.binary(min_size=16, max_size=16),
    keys=st.lists(st.binary(min_size=32, max_size=32), min_size=2, max_size=2, unique=True),
    rate=st.integers(1, 100_000_000),
    now_ms=st.integers(0, 2**53 - 1 - HOUR_MS),
)
def test_every_ticket_parses_and_fits(nonce, keys, rate, now_ms):
    data = ticket(nonce=nonce, keys=tuple(keys), rate_kbits=rate, now_ms=now_ms)
    got = parse_ticket(data)
    check_signature(got, data, MESH)
    assert [got.key_a, got.key_b] == sorted(keys)
