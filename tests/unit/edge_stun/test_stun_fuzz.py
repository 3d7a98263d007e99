"""Any bytes to the STUN codec, the server and the client: a value, silence, and nothing else."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.edge.stun.answering import Answerer, Came, Places
from services.edge.stun.asking import Inquiry, is_usable
from services.edge.stun.messages import (
    BINDING_REQUEST,
    COOKIE,
    Attribute,
    Message,
    decode_address,
    decode_xor_address,
    encode,
    encode_address,
    encode_xor_address,
    has_integrity,
    parse,
)
from services.kernel.errors import WireError

ASKER = ("198.51.100.7", 40_000)
ASKER6 = ("2001:db8::7", 40_000, 0, 0)
PLACES = Places(hosts=("203.0.113.1", "203.0.113.2"), ports=(3478, 3479))
SERVER = ("203.0.113.1", 3478)

transactions = st.one_of(
    st.binary(min_size=12, max_size=12).map(lambda rest: COOKIE + rest),
    st.binary(min_size=16, max_size=16).filter(
        lambda one: sum(a == b for a, b in zip(one, COOKIE, strict=False)) < 3 and any(one[:4])
    ),
)
attributes = st.lists(
    st.tuples(
        st.one_of(st.sampled_from([int(one) for one in Attribute]), st.integers(0, 0xFFFF)),
        st.binary(max_size=40),
    ).filter(lambda one: one[0] != Attribute.FINGERPRINT),
    max_size=8,
)
messages = st.builds(
    lambda kind, transaction, listed, sealed: Message(
        kind=kind, transaction=transaction, attributes=tuple(listed), has_fingerprint=sealed
    ),
    st.one_of(st.just(BINDING_REQUEST), st.integers(0, 0x3FFF)),
    transactions,
    attributes,
    st.booleans(),
)
addresses = st.tuples(st.ip_addresses().map(str), st.integers(0, 65535)).filter(
    lambda one: "%" not in one[0]
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Give a good message with some of its bytes changed, cut or added."""
    data = bytearray(encode(draw(messages)))
    for _ in range(draw(st.integers(0, 4))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(0, len(data)))]) + draw(st.binary(max_size=8))


@given(messages)
def test_what_is_written_is_read(message: Message) -> None:
    assert parse(encode(message)) == message


@given(st.one_of(st.binary(max_size=200), damaged()))
def test_any_bytes_are_a_message_or_refused(data: bytes) -> None:
    try:
        message = parse(data)
    except WireError:
        return
    assert parse(encode(message)) == message
    has_integrity(data, b"key")


@given(addresses, transactions)
def test_an_address_is_read_as_it_was_written(address: tuple[str, int], transaction: bytes) -> None:
    assert decode_address(encode_address(address)) == address
    value = encode_xor_address(address, transaction)
    assert decode_xor_address(value, transaction) == address


@given(st.binary(max_size=24))
def test_any_value_is_an_address_or_refused(value: bytes) -> None:
    try:
        address = decode_address(value)
    except WireError:
        return
    assert decode_address(encode_address(address)) == address


@given(
    st.one_of(st.binary(max_size=200), damaged(), messages.map(encode)),
    st.sampled_from([None, PLACES]),
    st.sampled_from([ASKER, ASKER6]),
)
def test_any_bytes_get_a_small_answer_that_nobody_answers(
    data: bytes, places: Places | None, source: tuple
) -> None:
    answerer, other = Answerer(places=places), Answerer(places=PLACES)
    answer = answerer.reply(data, source, 0.0)
    if answer is None:
        assert answerer.counters()[Came.IGNORED] == 1
        return
    reply = parse(answer)
    assert reply.transaction == data[4:20]
    assert len(answer) <= max(108, 3 * len(data))
    assert other.reply(answer, SERVER, 0.0) is None


@given(st.lists(st.tuples(st.one_of(st.binary(max_size=100), damaged()), addresses), max_size=5))
def test_no_bytes_from_anywhere_make_the_client_believe_what_is_of_no_use(
    heard: list[tuple[bytes, tuple[str, int]]],
) -> None:
    inquiry = Inquiry([SERVER], token=bytes)
    for data, source in heard:
        inquiry.heard(data, source)
        inquiry.heard(data, SERVER)
    seen = inquiry.seen()
    assert seen is None or is_usable((seen.host, seen.port))


@given(addresses)
def test_the_client_believes_its_server_if_others_could_use_the_address(
    mapped: tuple[str, int],
) -> None:
    inquiry = Inquiry([SERVER], token=bytes)
    question, _ = inquiry.questions()[0]
    answer = Answerer().answer(question, mapped, 0.0)
    if answer is not None:
        inquiry.heard(answer.data, SERVER)
    assert (inquiry.seen() is not None) == is_usable(mapped)
