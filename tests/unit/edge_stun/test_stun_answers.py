"""The STUN server's answers, as who asks sees them."""

from __future__ import annotations

import pytest

from services.edge.stun.answering import (
    ANSWERS_PER_S,
    MAX_ASKERS,
    Answer,
    Answerer,
    Askers,
    Came,
    Places,
)
from services.edge.stun.messages import (
    BINDING_ERROR,
    BINDING_REQUEST,
    BINDING_SUCCESS,
    COOKIE,
    Attribute,
    Message,
    attribute,
    decode_address,
    decode_error,
    decode_xor_address,
    encode,
    parse,
)

MODERN = COOKIE + b"abcdefghijkl"
CLASSIC = b"0123456789abcdef"
ASKER4 = ("198.51.100.7", 40_000)
ASKER6 = ("2001:db8::7", 40_000, 0, 0)
PLACES = Places(hosts=("203.0.113.1", "203.0.113.2"), ports=(3478, 3479))
CHANGE_BOTH = (Attribute.CHANGE_REQUEST, b"\0\0\0\x06")


def request(*attributes: tuple[int, bytes], transaction: bytes = MODERN, sealed: bool = False):
    message = Message(
        kind=BINDING_REQUEST,
        transaction=transaction,
        attributes=attributes,
        has_fingerprint=sealed,
    )
    return encode(message)


def said(answer: bytes | None) -> Message:
    assert answer is not None
    return parse(answer)


@pytest.mark.parametrize("source", [ASKER4, ASKER6], ids=["IPv4", "IPv6"])
def test_a_plain_request_is_answered_with_the_address_it_came_from(source: tuple) -> None:
    answer = Answerer().quick(request(), source, 0.0)
    message = said(answer)
    assert (message.kind, message.transaction) == (BINDING_SUCCESS, MODERN)
    assert message.has_fingerprint
    mapped = message.value(Attribute.XOR_MAPPED_ADDRESS)
    assert decode_xor_address(mapped, MODERN) == source[:2]
    assert message.value(Attribute.SOFTWARE) == b"seip"


@pytest.mark.parametrize("source", [ASKER4, ASKER6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("places", [None, PLACES], ids=["one address", "two"])
def test_the_quick_answer_is_the_one_that_is_made_slowly(
    source: tuple, places: Places | None
) -> None:
    quick = Answerer(places=places).quick(request(), source, 0.0)
    slow = Answerer(places=places).answer(request(), source, 0.0)
    assert slow == Answer(data=quick)


def test_an_old_client_is_told_plainly() -> None:
    message = said(Answerer().reply(request(transaction=CLASSIC), ASKER4, 0.0))
    assert (message.kind, message.transaction) == (BINDING_SUCCESS, CLASSIC)
    assert decode_address(message.value(Attribute.MAPPED_ADDRESS)) == ASKER4
    assert not message.has_fingerprint
    assert message.value(Attribute.XOR_MAPPED_ADDRESS) is None


def test_a_request_with_a_fingerprint_is_answered() -> None:
    named = (Attribute.SOFTWARE, b"a client")
    message = said(Answerer().reply(request(named, sealed=True), ASKER4, 0.0))
    assert message.kind == BINDING_SUCCESS


@pytest.mark.parametrize("transaction", [MODERN, CLASSIC], ids=["modern", "classic"])
def test_attributes_that_have_to_be_known_and_are_not_are_named(transaction: bytes) -> None:
    data = request((0x0024, bytes(4)), (0x7FFF, b""), (0xC001, b"?"), transaction=transaction)
    message = said(Answerer().reply(data, ASKER4, 0.0))
    assert (message.kind, message.transaction) == (BINDING_ERROR, transaction)
    assert decode_error(message.value(Attribute.ERROR_CODE)) == 420
    assert message.value(Attribute.UNKNOWN_ATTRIBUTES) == b"\x00\x24\x7f\xff"


def test_an_old_client_gets_an_even_number_of_unknown_attributes() -> None:
    data = request((0x7FFF, b""), transaction=CLASSIC)
    message = said(Answerer().reply(data, ASKER4, 0.0))
    assert message.value(Attribute.UNKNOWN_ATTRIBUTES) == b"\x7f\xff\x7f\xff"


@pytest.mark.parametrize("transaction", [MODERN, CLASSIC], ids=["modern", "classic"])
def test_an_answer_from_elsewhere_is_refused_by_who_has_one_address(transaction: bytes) -> None:
    message = said(Answerer().reply(request(CHANGE_BOTH, transaction=transaction), ASKER4, 0.0))
    assert decode_error(message.value(Attribute.ERROR_CODE)) == 420
    assert message.value(Attribute.UNKNOWN_ATTRIBUTES)[:2] == b"\x00\x03"


def test_a_request_to_change_nothing_is_answered_as_any_other() -> None:
    data = request((Attribute.CHANGE_REQUEST, bytes(4)))
    assert said(Answerer().reply(data, ASKER4, 0.0)).kind == BINDING_SUCCESS


@pytest.mark.parametrize(
    ("flags", "place", "origin"),
    [
        (0, 0, ("203.0.113.1", 3478)),
        (2, 1, ("203.0.113.1", 3479)),
        (4, 2, ("203.0.113.2", 3478)),
        (6, 3, ("203.0.113.2", 3479)),
    ],
)
def test_a_server_with_two_addresses_answers_from_where_it_was_asked_to(
    flags: int, place: int, origin: tuple[str, int]
) -> None:
    data = request((Attribute.CHANGE_REQUEST, bytes((0, 0, 0, flags))))
    answer = Answerer(places=PLACES).answer(data, ASKER4, 0.0)
    assert answer is not None
    assert answer.place == place
    message = parse(answer.data)
    assert decode_address(message.value(Attribute.RESPONSE_ORIGIN)) == origin
    assert decode_address(message.value(Attribute.OTHER_ADDRESS)) == ("203.0.113.2", 3479)


def test_a_server_with_two_addresses_answers_to_another_port() -> None:
    data = request((Attribute.RESPONSE_PORT, b"\x9c\x41"))
    answer = Answerer(places=PLACES).answer(data, ASKER4, 0.0)
    assert answer is not None
    assert answer.port == 40_001
    mapped = parse(answer.data).value(Attribute.XOR_MAPPED_ADDRESS)
    assert decode_xor_address(mapped, MODERN) == ASKER4


def test_stn_02_padding_is_answered_with_no_more_of_it() -> None:
    answerer = Answerer(places=PLACES)
    for size_bytes in (0, 8, 700, 1500):
        data = request((Attribute.PADDING, bytes(size_bytes)))
        answer = answerer.answer(data, ASKER4, 0.0)
        assert answer is not None
        assert len(parse(answer.data).value(Attribute.PADDING)) == min(size_bytes, 1024)
        assert len(answer.data) <= 1200
    both = request((Attribute.PADDING, bytes(8)), (Attribute.RESPONSE_PORT, b"\x9c\x41"))
    assert answerer.answer(both, ASKER4, 0.0) is None


def test_who_has_one_address_knows_nothing_of_discovery() -> None:
    data = request((Attribute.PADDING, bytes(8)), (Attribute.RESPONSE_PORT, b"\x9c\x41"))
    message = said(Answerer().reply(data, ASKER4, 0.0))
    assert message.value(Attribute.UNKNOWN_ATTRIBUTES) == b"\x00\x26\x00\x27"


def test_an_old_client_is_told_the_other_address_too() -> None:
    data = request(CHANGE_BOTH, transaction=CLASSIC)
    answer = Answerer(places=PLACES, place=1).answer(data, ASKER4, 0.0)
    assert answer is not None
    assert answer.place == 2
    message = parse(answer.data)
    assert decode_address(message.value(Attribute.SOURCE_ADDRESS)) == ("203.0.113.2", 3478)
    assert decode_address(message.value(Attribute.CHANGED_ADDRESS)) == ("203.0.113.2", 3478)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        request()[:19],
        b"\x40" + request()[1:],
        request()[:2] + b"\x00\x04" + request()[4:],
        request() + b"\0\0\0",
        request()[:2] + b"\x00\x03" + request()[4:] + b"\0\0\0",
        request()[:4] + b"\x21\x12\xa4\x43" + request()[8:],
        request()[:4] + b"\x42\xa4\x12\x21" + request()[8:],
        request()[:4] + bytes(4) + request()[8:],
        request((Attribute.SOFTWARE, bytes(1600))),
        request()[:2] + b"\x00\x04" + request()[4:] + b"\x80\x22\x00\x08",
    ],
    ids=[
        "nothing",
        "cut header",
        "first bits",
        "length of more",
        "more than its length",
        "length not of fours",
        "cookie one off",
        "cookie turned round",
        "cookie of nothing",
        "too large",
        "attribute longer than the message",
    ],
)
def test_stn_01_malformed_datagrams_are_not_answered(data: bytes) -> None:
    answerer = Answerer(places=PLACES)
    assert answerer.reply(data, ASKER4, 0.0) is None
    assert answerer.counters()["ignored"] == 1


def test_stn_03_a_wrong_or_misplaced_fingerprint_is_not_answered() -> None:
    good = request(sealed=True)
    wrong = good[:-1] + bytes((good[-1] ^ 1,))
    early = request((Attribute.FINGERPRINT, good[-4:]), (Attribute.SOFTWARE, b"late"))
    for data in (wrong, early):
        assert Answerer().reply(data, ASKER4, 0.0) is None


@pytest.mark.parametrize("kind", [Attribute.MESSAGE_INTEGRITY, Attribute.MESSAGE_INTEGRITY_SHA256])
def test_stn_03_credentials_that_nobody_gave_are_not_answered(kind: Attribute) -> None:
    assert Answerer().reply(request((kind, bytes(20))), ASKER4, 0.0) is None


@pytest.mark.parametrize("kind", [0x0101, 0x0111, 0x0011, 0x0003, 0x0103, 0x0002, 0x0000, 0x3EEF])
def test_stn_05_responses_indications_and_other_methods_are_not_answered(kind: int) -> None:
    data = encode(Message(kind=kind, transaction=MODERN))
    assert Answerer(places=PLACES).reply(data, ASKER4, 0.0) is None


def test_stn_07_no_answer_of_a_server_is_answered_by_another() -> None:
    one, other = Answerer(), Answerer(places=PLACES)
    questions = [
        request(),
        request(transaction=CLASSIC),
        request((0x7FFF, b"")),
        request(CHANGE_BOTH),
    ]
    for question in questions:
        answer = one.reply(question, ASKER4, 0.0)
        assert answer
        assert other.reply(answer, ("203.0.113.9", 3478), 0.0) is None


def test_stn_02_answers_to_the_smallest_requests_stay_small() -> None:
    sizes = {
        (places is not None, source[0]): len(Answerer(places=places).reply(request(), source, 0.0))
        for places in (None, PLACES)
        for source in (ASKER4, ASKER6)
    }
    assert max(size for (has_two, _), size in sizes.items() if not has_two) <= 3 * 20
    assert max(sizes.values()) <= 108
    unknown = request(*((number, b"") for number in range(0x100, 0x200)))
    for data in (unknown, request((0x7FFF, b"")), request((0x7FFF, b""), transaction=CLASSIC)):
        assert len(Answerer().reply(data, ASKER4, 0.0)) <= 3 * len(data)


def test_stn_02_no_host_is_sent_more_than_so_much_a_second() -> None:
    answerer, other = Answerer(), ("198.51.100.8", 1024)
    sent = [answerer.reply(request(), (ASKER4[0], 1024 + n), 5.0) for n in range(ANSWERS_PER_S)]
    assert all(sent)
    assert answerer.reply(request(), ASKER4, 5.9) is None
    assert answerer.reply(request((0x7FFF, b"")), ASKER4, 5.9) is None
    assert answerer.reply(request(), other, 5.9)
    assert answerer.counters()["limited"] == 2
    assert answerer.reply(request(), ASKER4, 6.1)


def test_stn_02_a_network_of_ipv6_is_one_host() -> None:
    answerer = Answerer(askers=Askers(per_s=3))
    answers = [answerer.reply(request(), (f"2001:db8::{n}", 9000, 0, 0), 0.0) for n in range(1, 6)]
    assert [bool(one) for one in answers] == [True] * 3 + [False] * 2
    assert answerer.reply(request(), ("2001:db8:0:1::1", 9000, 0, 0), 0.0)


def test_who_asks_from_this_very_machine_is_not_limited() -> None:
    answerer = Answerer(askers=Askers(per_s=1))
    for _ in range(5):
        assert answerer.reply(request(), ("127.0.0.1", 9000), 0.0)


def test_a_flood_of_forged_sources_is_not_remembered() -> None:
    askers = Askers()
    for number in range(MAX_ASKERS + 10):
        askers.find(f"198.{18 + (number >> 16)}.{number >> 8 & 255}.{number & 255}", 0.0)
    assert len(askers._known) <= MAX_ASKERS


def test_nothing_is_sent_to_port_0() -> None:
    assert Answerer().reply(request(), ("198.51.100.7", 0), 0.0) is None
    assert Answerer().reply(request((0x7FFF, b"")), ("198.51.100.7", 0), 0.0) is None


def test_the_counters_say_what_became_of_all() -> None:
    answerer = Answerer(places=PLACES)
    for data in (request(), request(CHANGE_BOTH), request((0x7FFF, b"")), b"?"):
        answerer.reply(data, ASKER4, 0.0)
    assert answerer.counters() == {
        Came.ANSWERED: 1,
        Came.CHANGED: 1,
        Came.UNKNOWN: 1,
        Came.IGNORED: 1,
        Came.LIMITED: 0,
    }


def test_padding_may_hold_anything() -> None:
    data = bytearray(request((Attribute.SOFTWARE, b"abc")))
    data[-1] = 0xFF
    assert said(Answerer().reply(bytes(data), ASKER4, 0.0)).kind == BINDING_SUCCESS
    assert attribute(Attribute.SOFTWARE, b"abc")[-1] == 0
