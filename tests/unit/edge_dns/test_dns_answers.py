"""What is answered: sets, nothing, no such name, not ours; and how much of it fits."""

from __future__ import annotations

import dnslib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.edge.dns.answering import MAX_CHAIN
from services.edge.dns.records import addresses, names, texts
from services.edge.dns.wire import Type
from services.edge.dns.zone import Source
from services.kernel.dnsnames import name_of
from tests.unit.edge_dns.dns_kit import (
    DOMAIN,
    INSIDE,
    LONG,
    STRANGER,
    STREAM,
    Small,
    cookie,
    datas,
    opt,
    query,
)

NOERROR, NXDOMAIN, NOTIMP, REFUSED = 0, 3, 4, 5
ALL = ["", LONG, f"_config.{LONG}", "eu-west.seip", "ns1", "nope", "seip", "x.y.z", "example.net."]


def test_an_address_is_answered_with_authority_and_without_recursion() -> None:
    record = Small().ask(LONG, recursion=True)
    assert datas(record) == {"198.51.100.1"}
    assert (record.header.aa, record.header.ra, record.header.rd, record.header.ad) == (1, 0, 1, 0)
    assert Small().ask(LONG, "AAAA").short() == "2001:db8::1"
    assert Small().ask(LONG, recursion=False).header.rd == 0


def test_a_name_without_this_type_is_nodata_with_the_soa() -> None:
    for name in (LONG, "seip", "eu-west.seip"):
        record = Small().ask(name, "MX")
        assert (record.header.rcode, record.rr) == (NOERROR, [])
        assert [one.rtype for one in record.auth] == [dnslib.QTYPE.SOA]


def test_no_such_name_is_nxdomain_with_the_soa() -> None:
    for name in ("nope", "a.b.c.nope", f"x.{LONG}"):
        record = Small().ask(name)
        assert (record.header.rcode, record.rr, record.header.aa) == (NXDOMAIN, [], 1)
        assert str(record.auth[0].rname) == f"{DOMAIN}."


def test_the_apex_has_soa_and_name_servers_with_glue() -> None:
    record = Small().ask("", "NS")
    assert datas(record) == {f"ns1.{DOMAIN}.", f"ns2.{DOMAIN}."}
    assert {str(one.rdata) for one in record.ar} == {"198.51.100.1", "198.51.100.2"}
    soa = Small(serial=lambda: 77).ask("", "SOA")
    assert str(soa.rr[0].rdata) == f"ns1.{DOMAIN}. hostmaster.{DOMAIN}. 77 3600 600 604800 30"


@pytest.mark.parametrize("rtype", ["ANY"])
@pytest.mark.parametrize("asker", [STRANGER, STREAM, INSIDE])
def test_dns_06_any_gets_one_small_record(rtype: str, asker) -> None:
    small = Small()
    for name in (LONG, "eu-west.seip", ""):
        data = small.raw(query(name, rtype), asker)
        assert data is not None
        assert len(data) <= 512
        record = dnslib.DNSRecord.parse(data)
        assert record.header.tc or [one.rtype for one in record.rr] == [dnslib.QTYPE.HINFO]
    assert Small().ask("nope", "ANY").header.rcode == NXDOMAIN
    assert Small().ask("seip", "ANY").rr == []


@pytest.mark.parametrize("rtype", [249, 250, 251, 252, 253, 254, 41])
def test_dns_07_transfers_and_types_of_no_zone_are_refused(rtype: int) -> None:
    for asker in (STRANGER, STREAM, INSIDE):
        record = Small().ask("", rtype, asker)
        assert (record.header.rcode, record.rr, record.header.aa) == (REFUSED, [], 0)


@pytest.mark.parametrize("rclass", [0, 2, 3, 4, 254, 255, 65535])
def test_dns_07_other_classes_are_refused(rclass: int) -> None:
    assert Small().ask("", "A", rclass=rclass).header.rcode == REFUSED
    assert Small().ask("version.bind.", "TXT", rclass=rclass).header.rcode == REFUSED


@pytest.mark.parametrize("flags", [0x2800, 0x2000, 0x7800, 0x1000])
def test_dns_07_updates_and_notifies_are_not_implemented(flags: int) -> None:
    data = bytearray(query("", "SOA"))
    data[2:4] = flags.to_bytes(2, "big")
    answer = Small().raw(bytes(data), STREAM)
    assert answer is not None
    assert answer[3] & 0xF == NOTIMP


def test_dns_08_another_version_of_edns_is_bad() -> None:
    data = query("", edns=1232)[:-11] + opt(1232, version=1)
    answer = Small().raw(data, STRANGER)
    assert answer is not None
    record = dnslib.DNSRecord.parse(answer)
    assert record.header.rcode == 0
    assert record.ar[0].ttl >> 24 == 1  # 16, BADVERS, in two parts
    assert record.ar[0].ttl >> 16 & 0xFF == 0


@pytest.mark.parametrize("size", [0, 511, 512, 1232, 4096, 65535])
def test_dns_08_no_answer_is_longer_than_asked_for_nor_than_1232(size: int) -> None:
    small = Small()
    small.put("big", *(texts(60, ["x" * 200 for _ in range(1)]), *addresses(60, *MANY)))
    for name, rtype in (("big", "A"), ("big", "TXT"), ("eu-west.seip", "A"), ("", "NS")):
        data = small.raw(query(name, rtype, edns=size), INSIDE)
        assert data is not None
        assert len(data) <= min(max(size, 512), 1232)
        assert dnslib.DNSRecord.parse(data).header.tc == (name == "big" and rtype == "A") or (
            size < 600
        )


MANY = [f"198.51.{n // 200}.{n % 200 + 1}" for n in range(200)]


def test_dns_08_without_edns_512_octets_are_the_most_and_the_rest_comes_over_tcp() -> None:
    small = Small()
    small.put("big", *addresses(60, *MANY))
    data = small.raw(query("big"), INSIDE)
    assert data is not None
    record = dnslib.DNSRecord.parse(data)
    assert (record.header.tc, record.rr) == (1, [])
    assert datas(small.ask("big")) == set(MANY)


def test_dns_08_two_opt_are_a_format_error() -> None:
    data = bytearray(query("", edns=1232) + opt(1232))
    data[11] = 2
    answer = Small().raw(bytes(data), STRANGER)
    assert answer is not None
    assert answer[3] & 0xF == 1


def test_dns_08_unknown_options_nsid_and_subnets_leak_nothing_back() -> None:
    options = b"".join(
        code.to_bytes(2, "big") + len(value).to_bytes(2, "big") + value
        for code, value in (
            (3, b""),
            (8, b"\0\1\x18\0\x0a\x40\x01"),
            (12, bytes(40)),
            (65001, b"x"),
        )
    )
    record = Small().ask(LONG, edns=1232, options=options)
    assert record.ar[0].rdata == []
    assert datas(record) == {"198.51.100.1"}
    assert not Small().ask(LONG).ar


def test_dns_08_the_do_bit_comes_back() -> None:
    data = query(LONG)
    data = data[:11] + b"\1" + data[12:]
    for flags in (0x8000, 0):
        answer = Small().raw(data + opt(1232, flags=flags), STREAM)
        assert answer is not None
        assert dnslib.DNSRecord.parse(answer).ar[0].ttl & 0xFFFF == flags


@pytest.mark.parametrize("name", ["example.net.", "org.", ".", f"x{DOMAIN}.", "10.in-addr.arpa."])
def test_dns_11_what_is_not_ours_is_refused_and_nobody_is_asked_for_it(name: str) -> None:
    record = Small().ask(name, recursion=True)
    assert (record.header.rcode, record.header.aa, record.rr, record.auth) == (REFUSED, 0, [], [])


def test_dns_12_nothing_is_believed_for_longer_than_30_seconds() -> None:
    serial = [1]
    small = Small(serial=lambda: serial[0])
    gone = small.ask("new")
    assert gone.header.rcode == NXDOMAIN
    assert gone.auth[0].ttl <= 30
    assert str(gone.auth[0].rdata).endswith(" 1 3600 600 604800 30")
    serial[0] = 2
    small.put("new", *addresses(60, "192.0.2.9"))
    assert datas(small.ask("new")) == {"192.0.2.9"}
    assert " 2 " in str(small.ask("nope").auth[0].rdata)


@pytest.mark.parametrize("asker", [STRANGER, STREAM, INSIDE])
def test_dns_13_the_case_of_the_question_comes_back_whoever_asked_before(asker) -> None:
    small = Small()
    small.ask(LONG, asker=asker)
    for name in (LONG.upper(), "SeRvEr-0123456789aBcDeF.Eu-WeSt.SeIp", LONG):
        answer = small.raw(query(name), asker)
        assert answer is not None
        assert answer[12:].startswith(query(name)[12:])
        record = dnslib.DNSRecord.parse(answer)
        assert str(record.rr[0].rname) == f"{name}.{DOMAIN}."
        assert datas(record) == {"198.51.100.1"}


def test_an_alias_is_followed_within_the_zone() -> None:
    small = Small()
    small.put("www", names(Type.CNAME, 60, [name_of(f"web.{DOMAIN}")]), source=Source.OPERATOR)
    small.put("web", *addresses(60, "192.0.2.80"))
    record = small.ask("www")
    assert [one.rtype for one in record.rr] == [dnslib.QTYPE.CNAME, dnslib.QTYPE.A]
    assert [str(one.rname) for one in record.rr] == [f"www.{DOMAIN}.", f"web.{DOMAIN}."]
    small.put("web", *addresses(60, "192.0.2.81"))
    assert "192.0.2.81" in datas(small.ask("www"))
    assert [one.rtype for one in small.ask("www", "CNAME").rr] == [dnslib.QTYPE.CNAME]
    assert small.ask("www", "MX").auth


def test_an_alias_out_of_the_zone_or_to_nothing_ends_there() -> None:
    small = Small()
    small.put("out", names(Type.CNAME, 60, [name_of("www.example.net")]))
    record = small.ask("out")
    assert (record.header.rcode, datas(record)) == (NOERROR, {"www.example.net."})
    small.put("lost", names(Type.CNAME, 60, [name_of(f"gone.{DOMAIN}")]))
    record = small.ask("lost")
    assert (record.header.rcode, len(record.rr), len(record.auth)) == (NXDOMAIN, 1, 1)


def test_aliases_in_a_circle_are_told_once_and_a_long_chain_ends() -> None:
    small = Small()
    for one, other in (("a", "b"), ("b", "c"), ("c", "a"), ("self", "self")):
        small.put(one, names(Type.CNAME, 60, [name_of(f"{other}.{DOMAIN}")]))
    assert [str(one.rname).partition(".")[0] for one in small.ask("a").rr] == ["a", "b", "c"]
    assert len(small.ask("self").rr) == 1
    for number in range(2 * MAX_CHAIN):
        small.put(f"n{number}", names(Type.CNAME, 60, [name_of(f"n{number + 1}.{DOMAIN}")]))
    assert len(small.ask("n0").rr) == MAX_CHAIN


def test_endpoints_are_answered_inside_alone_and_leave_no_trace_outside() -> None:
    small = Small()
    name = "pc.acme.ep"
    assert datas(small.ask(name, asker=INSIDE)) == {"10.64.0.10"}
    assert datas(small.ask(name, "AAAA", INSIDE)) == {"fd00::10"}
    for asker in (STREAM, STRANGER):
        for asked in (name, "acme.ep", "other.acme.ep"):
            record = small.ask(asked, asker=asker)
            assert (record.header.rcode, record.rr) == (NXDOMAIN, [])


def test_a_challenge_below_an_endpoint_is_answered_to_everybody() -> None:
    small = Small()
    small.put("_acme-challenge.pc.acme.ep", texts(1, ["proof"]), source=Source.CHALLENGES)
    assert datas(small.ask("_acme-challenge.pc.acme.ep", "TXT")) == {'"proof"'}
    assert small.ask("pc.acme.ep", "CAA").header.rcode == NOERROR
    assert small.ask("pc.acme.ep").rr == []
    assert datas(small.ask("pc.acme.ep", asker=INSIDE)) == {"10.64.0.10"}


def test_reverse_zones_are_for_those_inside() -> None:
    small = Small()
    reverse = "2.0.64.10.in-addr.arpa."
    target = names(Type.PTR, 60, [name_of(f"private.{LONG}.{DOMAIN}")])
    small.table.put(Source.MESH, name_of(reverse), [target])
    assert small.ask(reverse, "PTR").header.rcode == REFUSED
    assert datas(small.ask(reverse, "PTR", INSIDE)) == {f"private.{LONG}.{DOMAIN}."}
    assert small.ask("3.0.64.10.in-addr.arpa.", "PTR", INSIDE).header.rcode == NXDOMAIN


@pytest.mark.parametrize("rtype", ["A", "AAAA", "TXT", "NS", "SOA", "CAA", "ANY", "MX", 65, 43])
@pytest.mark.parametrize("edns", [None, 512, 4096])
def test_dns_10_a_stranger_gets_at_most_half_again_what_was_sent(rtype, edns) -> None:
    small = Small()
    for name in ALL:
        for _ in range(2):  # looked up, and then ready
            sent = query(name, rtype, edns=edns)
            got = small.raw(sent, STRANGER)
            assert got is not None
            assert len(got) <= 1.5 * len(sent)
            if len(got) < len(small.raw(sent, STREAM) or b""):
                record = dnslib.DNSRecord.parse(got)
                assert record.header.tc or not record.ar
    client = cookie(bytes(8))
    sent = query("eu-west.seip", rtype, edns=4096, options=client)
    assert len(small.raw(sent, STRANGER) or b"") <= 1.5 * len(sent)


def test_a_stranger_with_a_cookie_of_ours_gets_all_of_it() -> None:
    small = Small()
    client = b"\1\2\3\4\5\6\7\x08"
    asked = query("eu-west.seip", edns=1232, options=cookie(client))
    first = small.raw(asked, STRANGER)
    assert first is not None
    assert first[2] & 2  # TC
    server = first[-16:]
    again = small.raw(query("eu-west.seip", edns=1232, options=cookie(client, server)), STRANGER)
    assert again is not None
    record = dnslib.DNSRecord.parse(again)
    assert (record.header.tc, len(record.rr)) == (0, 40)
    forged = small.raw(
        query("eu-west.seip", edns=1232, options=cookie(client, bytes(16))), STRANGER
    )
    assert forged is not None
    assert forged[2] & 2


ASKED = st.sampled_from(["A", "AAAA", "TXT", "NS", "MX", "CAA", "CNAME", "SRV", "ANY", 65, 97])


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b", "c", "a.b", LONG]),
            ASKED,
            st.sampled_from([STRANGER, INSIDE]),
            st.sampled_from([None, 512, 1232]),
            st.integers(0, 3),
        ),
        max_size=40,
    )
)
def test_what_lies_ready_is_what_would_be_looked_up_after_every_change(steps) -> None:
    small = Small()
    for number, (name, rtype, asker, edns, change) in enumerate(steps):
        if change == 1:
            small.put(name, *addresses(60, f"192.0.2.{number % 250 + 1}", "2001:db8::5"))
        elif change == 2:
            small.put(name, texts(60, [f"step {number}"]), source=Source.OPERATOR)
        elif change == 3:
            small.put(name)
        asked = query(name, rtype, edns=edns, message_id=number)
        fresh = Small()
        fresh.table = small.table
        fresh.answerer._zones = small.answerer._zones  # the same names, nothing ready
        assert small.raw(asked, asker) == fresh.raw(asked, asker)


def test_a_changed_record_is_right_at_the_next_question() -> None:
    small = Small()
    for number in range(1, 200):
        small.put("host", *addresses(60, f"192.0.2.{number}"))
        assert datas(small.ask("host", asker=INSIDE)) == {f"192.0.2.{number}"}
        assert datas(small.ask("host", asker=INSIDE)) == {f"192.0.2.{number}"}
    small.put("host")
    assert small.ask("host", asker=INSIDE).header.rcode == NXDOMAIN


def test_a_type_whose_number_is_a_letter_is_not_taken_for_another() -> None:
    small = Small()
    small.ask(LONG, "A", INSIDE)
    assert small.ask(LONG, 65, INSIDE).rr == []
    assert small.ask(LONG, 97, INSIDE).rr == []
