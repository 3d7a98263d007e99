"""What strangers send: read strictly, answered with one of a few codes, never by a crash."""

from __future__ import annotations

import contextlib
import random

import dnslib
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.edge.dns.wire import QueryError, Rcode, parse_query
from services.kernel.dnsnames import is_below, name_of, parents_of, text_of
from services.kernel.errors import InputError
from tests.fakes.thoroughness import examples
from tests.unit.edge_dns.dns_kit import DOMAIN, INSIDE, STRANGER, STREAM, Small, opt, query

FORMERR, NOTIMP, REFUSED = 1, 4, 5
NAME = b"\4mesh\7example\3org\0"
TAIL = b"\0\1\0\1"


def message(body: bytes, *, counts: tuple[int, ...] = (1, 0, 0, 0), flags: int = 0) -> bytes:
    head = b"\x12\x34" + flags.to_bytes(2, "big")
    return head + b"".join(one.to_bytes(2, "big") for one in counts) + body


def rcode_of(data: bytes) -> int | None:
    answer = Small().raw(data, STRANGER)
    return None if answer is None else answer[3] & 0xF


@pytest.mark.parametrize("size", range(12))
def test_dns_01_what_is_shorter_than_a_header_gets_no_answer(size: int) -> None:
    assert rcode_of(query("")[:size]) is None


@pytest.mark.parametrize("count", [0, 2, 64, 65535])
def test_dns_01_another_number_of_questions_is_a_format_error(count: int) -> None:
    assert rcode_of(message(NAME + TAIL, counts=(count, 0, 0, 0))) == FORMERR


def test_dns_01_64_questions_are_a_format_error() -> None:
    assert rcode_of(message((NAME + TAIL) * 64, counts=(64, 0, 0, 0))) == FORMERR


@pytest.mark.parametrize("flags", [0x8000, 0x8180, 0xFFFF])
def test_dns_01_a_response_is_never_answered(flags: int) -> None:
    assert rcode_of(message(NAME + TAIL, flags=flags)) is None


def test_dns_01_our_own_answers_sent_back_to_us_end_there() -> None:
    small = Small()
    for asked in (query(""), query("nope"), query("x.", rclass=3), message(b"junk")):
        answer = small.raw(asked, STRANGER)
        assert answer is not None
        assert small.raw(answer, STRANGER) is None


@pytest.mark.parametrize(
    "name",
    [
        b"\xc0\x0c",  # to itself
        b"\xc0\x20",  # forward
        b"\xc0\x0e\xc0\x0c",  # to each other
        b"\1a\xc0\x0c",
        b"".join(bytes([0xC0 + (14 + 2 * n >> 8), 14 + 2 * n & 255]) for n in range(127)) + b"\0",
        b"\xc0\x00",  # into the header
        b"\xc0",
    ],
)
def test_dns_02_a_pointer_in_the_question_is_a_format_error(name: bytes) -> None:
    assert rcode_of(message(name + TAIL)) == FORMERR


@pytest.mark.parametrize(
    "owner",
    [b"\xc0\x22", b"\xc0\xff", b"\xff\xff", b"\xc0", b"\1a" * 120, b"\1a\xc0\xff", b"\xc0\x00"],
)
def test_dns_02_a_pointer_of_another_record_that_does_not_lead_back_is_one_too(
    owner: bytes,
) -> None:
    record = owner + b"\0\1\0\1" + bytes(4) + b"\0\0"
    assert rcode_of(message(NAME + TAIL + record, counts=(1, 0, 0, 1))) == FORMERR


def test_dns_02_a_pointer_back_is_walked_over() -> None:
    record = b"\xc0\x0c\0\1\0\1" + bytes(4) + b"\0\4" + bytes(4)
    assert rcode_of(message(NAME + TAIL + record, counts=(1, 0, 0, 1))) == 0


@pytest.mark.parametrize("kind", [0x40, 0x80, 0x7F, 0xBF])
def test_dns_03_labels_of_another_kind_are_a_format_error(kind: int) -> None:
    assert rcode_of(message(bytes([kind]) + b"a" * 80 + b"\0" + TAIL)) == FORMERR


@pytest.mark.parametrize("labels", [4, 5, 100])
def test_dns_03_a_name_that_is_too_long_is_a_format_error(labels: int) -> None:
    assert rcode_of(message((b"\x3f" + b"a" * 63) * labels + b"\0" + TAIL)) == FORMERR


def test_dns_03_the_longest_name_there_can_be_is_answered() -> None:
    room = 255 - len(NAME)
    name = b"\x3f" + b"a" * 63 + b"\x3f" + b"b" * 63 + b"\x3f" + b"c" * 63
    name += bytes([room - len(name) - 1]) + b"d" * (room - len(name) - 1) + NAME
    assert len(name) == 255
    assert rcode_of(message(name + TAIL)) == Rcode.NXDOMAIN
    longer = b"\1e" + name
    assert rcode_of(message(longer + TAIL)) == FORMERR


def test_dns_04_a_record_that_breaks_its_readers_is_not_read() -> None:
    caa = b"\0\x01\x01\0\1" + bytes(4) + b"\0\x08" + b"\0\4\xff\xfe\xff\xfe!!"
    data = message(NAME + TAIL + caa, counts=(1, 0, 0, 1))
    with pytest.raises(UnicodeDecodeError):
        str(dnslib.DNSRecord.parse(data))
    assert rcode_of(data) == 0


@pytest.mark.parametrize("cut", range(1, 30))
def test_a_query_cut_short_anywhere_is_a_format_error_or_silence(cut: int) -> None:
    whole = query("www", edns=1232, options=b"\0\x0a\0\x08" + bytes(8))
    got = rcode_of(whole[:-cut])
    assert got == FORMERR


def test_whatever_follows_the_message_is_a_format_error() -> None:
    for junk in (b"\0", b"GET / HTTP/1.1\r\n", NAME + TAIL):
        assert rcode_of(query("www") + junk) == FORMERR
        assert rcode_of(query("www", edns=512) + junk) == FORMERR


@pytest.mark.parametrize("counts", [(1, 1, 0, 0), (1, 0, 1, 0), (1, 0, 0, 9), (1, 0, 0, 65535)])
def test_a_query_with_records_that_it_has_no_use_for_is_a_format_error(counts) -> None:
    record = b"\0\0\1\0\1" + bytes(6)
    assert rcode_of(message(NAME + TAIL + record * min(sum(counts) - 1, 20), counts=counts)) == (
        FORMERR
    )


def test_a_cookie_of_an_odd_length_is_a_format_error() -> None:
    for size in (0, 1, 7, 9, 15, 41):
        option = b"\0\x0a" + size.to_bytes(2, "big") + bytes(size)
        assert rcode_of(query("", edns=1232, options=option)) == FORMERR


# The oracle reads no other octets.
labels = st.text("abcXYZ019-_", min_size=1, max_size=63).map(str.encode)


@st.composite
def queries(draw) -> tuple[bytes, list[bytes], int]:
    parts = draw(st.lists(labels, max_size=6).filter(lambda ls: sum(map(len, ls)) < 200))
    rtype = draw(st.integers(0, 65535))
    head = draw(st.binary(min_size=2, max_size=2)) + draw(st.sampled_from([b"\0\0", b"\1\0"]))
    wire = b"".join(bytes([len(one)]) + one for one in parts) + b"\0"
    body = wire + rtype.to_bytes(2, "big") + b"\0\1"
    if draw(st.booleans()):
        return head + b"\0\1\0\0\0\0\0\0" + body, parts, rtype
    return head + b"\0\1\0\0\0\0\0\1" + body + opt(draw(st.integers(0, 65535))), parts, rtype


@given(queries())
def test_what_is_read_is_what_the_oracle_reads(made) -> None:
    data, _parts, rtype = made
    read = parse_query(data)
    oracle = dnslib.DNSRecord.parse(data)
    assert read.message_id == oracle.header.id.to_bytes(2, "big")
    assert (read.qtype, read.qclass) == (oracle.q.qtype, oracle.q.qclass) == (rtype, 1)
    assert read.name == dnslib_wire(oracle.q.qname.label)
    assert read.question[: len(read.name)].lower() == read.name
    if read.edns is not None:
        assert read.edns.payload_bytes == oracle.ar[0].rclass


def dnslib_wire(parts: tuple[bytes, ...]) -> bytes:
    return b"".join(bytes([len(one)]) + one for one in parts).lower() + b"\0"


@given(queries())
def test_every_answer_can_be_read_by_the_oracle_and_repeats_the_question(made) -> None:
    data, _, _ = made
    for asker in (STREAM, STRANGER, INSIDE):
        answer = Small().raw(data, asker)
        assert answer is not None
        record = dnslib.DNSRecord.parse(answer)
        assert record.header.id.to_bytes(2, "big") == data[:2]
        assert record.header.qr == 1
        assert answer[12 : 12 + len(parse_query(data).question)] == parse_query(data).question


@examples(400)
@given(st.binary(max_size=300))
@example(b"\0" * 12)
def test_any_bytes_give_a_query_or_one_error(data: bytes) -> None:
    with contextlib.suppress(QueryError):
        parse_query(data)


@examples(400)
@given(st.integers(0, 2**32), queries())
def test_a_query_changed_anywhere_gives_an_answer_that_can_be_read_or_none(seed, made) -> None:
    data = bytearray(made[0])
    rng = random.Random(seed)  # noqa: S311
    for _ in range(rng.randrange(1, 4)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    answer = SHARED.raw(bytes(data), STREAM)
    if answer is not None:
        assert dnslib.DNSHeader.parse(dnslib.DNSBuffer(answer)).qr == 1
        assert answer[:2] == bytes(data[:2])
        assert len(answer) >= 12


SHARED = Small()


@given(st.lists(st.text("abcxyz019-_", min_size=1, max_size=20), min_size=1, max_size=8))
def test_a_name_has_one_wire_format_and_comes_back(parts: list[str]) -> None:
    text = ".".join(parts)
    wire = name_of(text.upper())
    assert text_of(wire) == text
    assert name_of(f"{text}.") == wire
    assert [text_of(one) for one in parents_of(wire)] == [
        ".".join(parts[n:]) for n in range(1, len(parts))
    ]


@pytest.mark.parametrize("text", ["a..b", ".a", "ä.org", "a" * 64, ".".join(["a" * 60] * 5)])
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        name_of(text)


def test_a_name_that_only_ends_in_the_same_octets_is_not_below() -> None:
    apex = name_of("b.org")
    odd = b"\4a\1b\3" + b"org\0"  # one label of four octets: a, 1, b, 3
    assert odd.endswith(b"org\0")
    assert not is_below(b"\3x\1b" + apex[2:], apex)
    assert is_below(name_of("a.b.org"), apex)
    assert is_below(apex, apex)
    assert not is_below(name_of("ab.org"), apex)


def test_operations_other_than_a_query_are_not_done() -> None:
    for opcode in (1, 2, 4, 5, 6, 15):
        data = message(NAME + TAIL, flags=opcode << 11)
        answer = Small().raw(data, STRANGER)
        assert answer is not None
        assert answer[3] & 0xF == NOTIMP
        assert answer[2] >> 3 & 0xF == opcode


def test_the_domain_itself_is_there() -> None:
    assert text_of(NAME) == DOMAIN


def test_dns_07_a_transfer_of_changes_as_secondaries_ask_for_it_is_refused() -> None:
    asked = dnslib.DNSRecord.question(DOMAIN, "IXFR")
    asked.add_auth(*dnslib.RR.fromZone(f"{DOMAIN}. 60 IN SOA a. b. 7 1 1 1 1"))
    answer = Small().raw(bytes(asked.pack()), STREAM)
    assert answer is not None
    assert answer[3] & 0xF == dnslib.RCODE.REFUSED
