"""DNS-20: what of an upstream's answer goes on to an endpoint."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from itertools import accumulate

import dnslib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.edge.dns.wire import Flag, Rcode, parse_query
from services.edge.resolver.hints import addresses_in
from services.edge.resolver.messages import (
    Answer,
    Asked,
    Entry,
    encode_answer,
    encode_query,
    limit_of,
    loose_end,
    parse_answer,
)
from services.kernel.dnsnames import name_of
from services.kernel.errors import WireError

NAME = name_of("www.example.com")
ASKED = Asked(name=NAME, rtype=1)
ID = b"\x12\x34"


def answered(*lines: str, rcode: int = 0, authority: tuple[str, ...] = ()) -> bytes:
    """Return an upstream's answer to ASKED."""
    reply = dnslib.DNSRecord.parse(encode_query(ASKED, ID, NAME)).reply()
    reply.header.rcode = rcode
    for line in lines:
        reply.add_answer(*dnslib.RR.fromZone(line))
    for line in authority:
        reply.add_auth(*dnslib.RR.fromZone(line))
    return bytes(reply.pack())


def parsed(data: bytes, asked: Asked = ASKED) -> Answer | None:
    return parse_answer(data, asked, ID, NAME)


def told(
    answer: Answer, *, age_s: int = 0, limit: int = 1232, edns: bool = True
) -> dnslib.DNSRecord:
    question = dnslib.DNSRecord.question("wWw.eXample.com")
    if edns:
        question.add_ar(dnslib.EDNS0(udp_len=1232))
    query = parse_query(bytes(question.pack()))
    return dnslib.DNSRecord.parse(encode_answer(query, answer, age_s=age_s, limit=limit))


def test_a_query_wants_recursion_and_carries_the_flags_of_a_checker() -> None:
    plain = dnslib.DNSRecord.parse(encode_query(ASKED, ID, NAME))
    assert (plain.header.rd, plain.header.cd, plain.header.ad) == (1, 0, 0)
    strict = replace(ASKED, dnssec_ok=True, checking_disabled=True)
    checking = dnslib.DNSRecord.parse(encode_query(strict, ID, NAME))
    assert (checking.header.rd, checking.header.cd) == (1, 1)
    assert checking.ar[0].edns_do == 1


def test_an_answer_over_an_alias_is_told_whole_in_the_case_of_the_question() -> None:
    data = answered("www.example.com 60 CNAME cdn.example.net", "cdn.example.net 90 A 192.0.2.1")
    found = parsed(data)
    assert found is not None
    assert found.ttl_s == 60
    reply = told(found, age_s=20)
    assert str(reply.q.qname) == "wWw.eXample.com."
    assert [(str(one.rname), one.ttl) for one in reply.rr] == [
        ("wWw.eXample.com.", 40),
        ("cdn.example.net.", 70),
    ]
    assert (reply.header.ra, reply.header.aa, reply.header.ad) == (1, 0, 0)


def test_dns_20_records_that_do_not_belong_to_the_question_are_dropped() -> None:
    found = parsed(
        answered(
            "www.example.com 60 A 192.0.2.1",
            "bank.example 60 A 203.0.113.66",
            'www.example.com 60 TXT "more"',
            authority=("example.com 60 NS ns.evil.example",),
        )
    )
    assert found is not None
    assert [one.rdata for one in found.answers] == [bytes([192, 0, 2, 1])]
    assert found.authority == ()


def test_names_in_data_are_written_out_and_compressed_anew() -> None:
    asked = replace(ASKED, rtype=15)
    reply = dnslib.DNSRecord.parse(encode_query(asked, ID, NAME)).reply()
    reply.add_answer(*dnslib.RR.fromZone("www.example.com 60 MX 10 mail.www.example.com"))
    found = parse_answer(bytes(reply.pack()), asked, ID, NAME)
    assert found is not None
    assert found.answers[0].rdata == b"\0\x0a" + name_of("mail.www.example.com")
    query = dnslib.DNSRecord.question("www.example.com", "MX").pack()
    query = bytes(query)
    octets = encode_answer(parse_query(query), found, limit=512)
    assert str(dnslib.DNSRecord.parse(octets).rr[0].rdata) == "10 mail.www.example.com."
    assert len(octets) < len(query) + 12 + 2 + 9


def test_the_soa_says_for_how_long_there_is_no_such_name() -> None:
    line = "example.com 3600 SOA ns.example.com h.example.com 1 2 3 4 120"
    found = parsed(answered(rcode=3, authority=(line,)))
    assert found is not None
    assert found.ttl_s == 120
    reply = told(found)
    assert reply.header.rcode == Rcode.NXDOMAIN
    assert len(reply.auth) == 1
    assert parsed(answered(rcode=3)) == Answer(rcode=3)
    assert Answer(rcode=3).ttl_s == 0


def test_a_ttl_with_the_highest_bit_is_none_and_a_long_one_is_a_day() -> None:
    data = bytearray(answered("www.example.com 1 A 192.0.2.1"))
    at = len(data) - 4 - 2 - 4
    data[at : at + 4] = b"\x80\0\0\0"
    assert parsed(bytes(data)).ttl_s == 0
    data[at : at + 4] = b"\x7f\0\0\0"
    assert parsed(bytes(data)).ttl_s == 86_400


def test_what_does_not_fit_is_cut_and_says_so() -> None:
    entries = tuple(
        Entry(name=NAME, rtype=16, ttl_s=1, rdata=b"\xff" + bytes([number]) * 255)
        for number in range(9)
    )
    answer = Answer(rcode=0, answers=entries)
    assert told(answer).header.tc == 1
    assert not told(answer).rr
    whole = told(answer, limit=65_535)
    assert (whole.header.tc, len(whole.rr)) == (0, 9)
    plain = parse_query(dnslib.DNSRecord.question("www.example.com").pack())
    assert limit_of(plain, stream=False) == 512
    assert limit_of(plain, stream=True) == 65_535


def test_dns_20_another_id_name_type_or_no_response_is_no_answer() -> None:
    data = answered("www.example.com 60 A 192.0.2.1")
    for bad in (
        b"",
        data[:11],
        b"\x99" + data[1:],
        data[:2] + bytes([data[2] & 0x7F]) + data[3:],
        data[:13] + b"x" + data[14:],
        data[:12] + NAME + b"\0\x1c" + data[12 + len(NAME) + 2 :],
        data + b"\0",
        data[:-1],
    ):
        with pytest.raises(WireError):
            parsed(bad)


def test_dns_20_other_letters_than_asked_are_asked_for_over_tcp() -> None:
    data = answered("www.example.com 60 A 192.0.2.1")
    swapped = data[:13] + b"W" + data[14:]
    assert parsed(swapped) is None
    assert parse_answer(swapped, ASKED, ID, NAME, stream=True) is not None
    cut = data[:2] + bytes([data[2] | Flag.TC >> 8]) + data[3:]
    assert parsed(cut) is None


def test_an_alias_that_leads_out_has_a_loose_end() -> None:
    led = parsed(answered("www.example.com 60 CNAME cdn.example.net"))
    assert loose_end(led, ASKED) == name_of("cdn.example.net")
    whole = parsed(
        answered("www.example.com 60 CNAME cdn.example.net", "cdn.example.net 1 A 192.0.2.1")
    )
    assert loose_end(whole, ASKED) is None
    line = "example.com 3600 SOA ns.example.com h.example.com 1 2 3 4 120"
    nothing = parsed(answered("www.example.com 60 CNAME x.example.com", authority=(line,)))
    assert loose_end(nothing, ASKED) is None


@given(st.binary(max_size=200), st.integers(0, 200))
def test_dns_20_any_octets_are_an_answer_or_none(tail: bytes, at: int) -> None:
    whole = answered(
        "www.example.com 60 CNAME cdn.example.net",
        "cdn.example.net 90 A 192.0.2.1",
        authority=("example.com 3600 SOA ns.example.com h.example.com 1 2 3 4 120",),
    )
    data = whole[:at] + tail
    try:
        found = parsed(data)
    except WireError:
        return
    if found is not None:
        told(found)


@given(st.sampled_from([1, 16, 28, 64, 65]), st.binary(max_size=80))
def test_any_data_of_a_record_gives_addresses_or_one_error(rtype: int, rdata: bytes) -> None:
    try:
        found = addresses_in(rtype, rdata)
    except WireError:
        return
    assert rtype != 16 or found == []
    assert all(isinstance(one, (IPv4Address, IPv6Address)) for one in found)


def test_the_hints_of_a_service_are_read_behind_its_name_and_whatever_else_it_says() -> None:
    head = b"\0\1" + name_of("alt.example.com")
    four, six = bytes([192, 0, 2, 1, 192, 0, 2, 2]), bytes(10) + b"\xff\xff" + bytes([10, 64, 0, 7])
    parts = [(1, b"\2h2"), (3, b"\x20\xfb"), (4, four), (6, six), (7, b"/dns{?dns}")]
    written = [
        key.to_bytes(2, "big") + len(value).to_bytes(2, "big") + value for key, value in parts
    ]
    rdata = head + b"".join(written)
    found = ["192.0.2.1", "192.0.2.2", "10.64.0.7"]
    assert [str(one) for one in addresses_in(65, rdata)] == found
    ends = set(accumulate(map(len, written), initial=len(head)))
    for cut in set(range(3, len(rdata))) - ends:
        with pytest.raises(WireError):
            addresses_in(65, rdata[:cut])
