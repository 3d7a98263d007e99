"""The control messages of a relay: round trips, foreign bytes, and who can read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.base.crypto.agreement import generate_x25519
from services.edge.relay import messages
from services.edge.relay.messages import (
    Allocate,
    Allocated,
    Bound,
    Code,
    Error,
    State,
    ToSession,
    Used,
    Verb,
    agreed_key,
)
from services.kernel.errors import InputError, WireError

KEY = bytes(range(32))
OTHER_KEY = bytes(range(1, 33))
NONCE = bytes(range(24))
INDEX = b"\x01\x02\x03\x04"
TOKEN = b"tokentok"

counters = st.integers(0, messages.MAX_COUNTER)


def allocate(counter: int = 5, ticket: bytes = bytes(300)) -> bytes:
    message = Allocate(key=bytes([9]) * 32, counter=counter, ticket=ticket)
    return messages.seal_allocate(KEY, message, nonce=NONCE)


def to_session(verb: Verb, counter: int = 5) -> bytes:
    message = ToSession(verb=verb, counter=counter, token=TOKEN)
    return messages.seal_to_session(KEY, INDEX, message, nonce=NONCE)


def answers() -> list[bytes]:
    allocated = Allocated(
        counter=5,
        index=INDEX,
        data_port=9104,
        token=TOKEN,
        left_ms=3_600_000,
        session_key=bytes(32),
    )
    return [
        messages.seal_allocated(KEY, allocated, nonce=NONCE),
        messages.seal_bound(KEY, Bound(counter=5, state=State.TOGETHER, token=TOKEN), nonce=NONCE),
        messages.seal_error(KEY, Error(counter=5, code=Code.FULL), nonce=NONCE),
        messages.seal_used(KEY, Used(counter=5, statement=bytes(180)), nonce=NONCE),
    ]


def test_both_ends_agree_on_a_key_and_no_third_does():
    endpoint, relay, third = generate_x25519(), generate_x25519(), generate_x25519()
    roles = {"endpoint": endpoint[1], "relay": relay[1]}
    there = agreed_key(endpoint[0], other=relay[1], **roles)
    assert agreed_key(relay[0], other=endpoint[1], **roles) == there
    assert agreed_key(third[0], other=relay[1], **roles) != there
    with pytest.raises(InputError):
        agreed_key(relay[0], other=bytes(32), endpoint=bytes(32), relay=relay[1])


@given(counters, st.binary(min_size=1, max_size=320))
def test_allocate_comes_back(counter, ticket):
    data = allocate(counter, ticket)
    assert messages.sender_of(data) == bytes([9]) * 32
    got = messages.open_allocate(KEY, data)
    assert got == Allocate(key=bytes([9]) * 32, counter=counter, ticket=ticket)
    assert len(data) <= messages.MAX_ALLOCATE_BYTES


@given(st.sampled_from(Verb), counters)
def test_what_goes_to_a_session_comes_back(verb, counter):
    data = to_session(verb, counter)
    assert messages.index_of(data) == INDEX
    got = messages.open_to_session(KEY, data)
    assert got == ToSession(verb=verb, counter=counter, token=TOKEN)


def test_answers_come_back():
    allocated, bound, error, used = answers()
    assert isinstance(messages.open_allocated(KEY, allocated), Allocated)
    assert messages.open_allocated(KEY, error) == Error(counter=5, code=Code.FULL)
    assert messages.open_answer(KEY, bound) == Bound(counter=5, state=State.TOGETHER, token=TOKEN)
    assert messages.open_answer(KEY, error) == Error(counter=5, code=Code.FULL)
    assert messages.open_answer(KEY, used) == Used(counter=5, statement=bytes(180))


def test_no_answer_is_longer_than_its_question():
    allocated, bound, error, _ = answers()
    shortest = allocate(ticket=bytes(200))
    assert max(len(allocated), len(error)) <= len(shortest)
    assert max(len(bound), len(error)) <= len(to_session(Verb.HEARTBEAT))
    largest = Used(counter=0, statement=bytes(messages.MAX_STATEMENT_BYTES))
    assert len(messages.seal_used(KEY, largest, nonce=NONCE)) == len(to_session(Verb.USAGE))


def test_nobody_else_opens_them():
    with pytest.raises(WireError):
        messages.open_allocate(OTHER_KEY, allocate())
    for verb in Verb:
        with pytest.raises(WireError):
            messages.open_to_session(OTHER_KEY, to_session(verb))
    for data in answers():
        with pytest.raises(WireError):
            messages.open_answer(OTHER_KEY, data)
        with pytest.raises(WireError):
            messages.open_allocated(OTHER_KEY, data)


@given(st.integers(0, 10_000))
def test_a_changed_bit_is_noticed_everywhere(bit):
    def flipped(data: bytes) -> bytes:
        changed = bytearray(data)
        changed[bit // 8 % len(data)] ^= 1 << bit % 8
        return bytes(changed)

    with pytest.raises(WireError):
        messages.open_allocate(KEY, flipped(allocate()))
    with pytest.raises(WireError):
        messages.open_to_session(KEY, flipped(to_session(Verb.BIND)))
    for data in answers():
        with pytest.raises(WireError):
            messages.open_answer(KEY, flipped(data))


@given(st.binary(max_size=500))
def test_any_bytes_are_refused_as_wire_errors(data):
    for magic in (b"", b"seiR\x01", b"seiR\x02", b"seiR\x05", b"seiR\x82", b"seiR\x83"):
        for opened in (
            messages.sender_of,
            lambda data: messages.open_allocate(KEY, data),
            lambda data: messages.open_to_session(KEY, data),
            lambda data: messages.open_allocated(KEY, data),
            lambda data: messages.open_answer(KEY, data),
        ):
            try:
                opened(magic + data)
            except WireError:
                continue
            assert opened is messages.sender_of  # which proves nothing by itself


def test_an_answer_is_no_question():
    """What a relay says can't be sent back to it: lengths and types differ."""
    for data in answers():
        with pytest.raises(WireError):
            messages.index_of(data)
        with pytest.raises(WireError):
            messages.sender_of(data)
