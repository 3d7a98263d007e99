"""Signed answers, as dnspython's validator takes them."""

from __future__ import annotations

import dns.dnssec
import dns.flags
import dns.message
import dns.name
import dns.rdatatype
import dns.rrset
import pytest
from dns.rdatatype import AAAA, CNAME, DNSKEY, DS, HINFO, NS, NSEC, RRSIG, SOA, TXT, A

from services.edge.dns.records import addresses, names, texts
from services.edge.dns.signing import LIFETIME_S, MAX_KEPT_DENIALS, PERIOD_S, SKEW_S
from services.edge.dns.wire import Flag, Type
from services.edge.dns.zone import Source
from services.kernel.dnsnames import name_of
from tests.fakes.signed_zone import SignedZone
from tests.unit.edge_dns.dns_kit import (
    DOMAIN,
    INSIDE,
    LONG,
    NOW_S,
    STRANGER,
    STREAM,
    Small,
    cookie,
    opt,
    query,
)

APEX = dns.name.from_text(DOMAIN)
DO = 0x8000


class Signed:
    """A small zone that is signed, and what a validator makes of it."""

    def __init__(self) -> None:
        self.keys = SignedZone(DOMAIN, now_s=NOW_S)
        self.small = Small(signer=self.keys.signer)
        self.small.put("", texts(60, ["top"]), source=Source.OPERATOR)
        self.small.put("alias", names(Type.CNAME, 60, [name_of(f"{LONG}.{DOMAIN}")]))
        self.small.put("away", names(Type.CNAME, 60, [name_of("example.com")]))
        self.small.put("dangling", names(Type.CNAME, 60, [name_of(f"gone.{DOMAIN}")]))

    def ask(
        self, name: str, rtype: str = "A", asker=STREAM, options=b"", **more
    ) -> dns.message.Message:
        data = query(name, int(dns.rdatatype.from_text(rtype)), **more)
        data = data[:10] + b"\0\1" + data[12:] + opt(1232, options, flags=DO)
        answer = self.small.raw(data, asker)
        assert answer is not None
        return dns.message.from_wire(answer)

    def checked(self, name: str, rtype: str = "A", asker=STREAM) -> dns.message.Message:
        """Return an answer all of whose sets are signed well."""
        message = self.ask(name, rtype, asker)
        for section in (message.answer, message.authority, message.additional):
            for rrset in section:
                if rrset.rdtype != RRSIG:
                    self.validate(section, rrset)
        return message

    def validate(self, section, rrset) -> None:
        rrsig = next(
            one
            for one in section
            if (one.rdtype, one.covers, one.name) == (RRSIG, rrset.rdtype, rrset.name)
        )
        dns.dnssec.validate(rrset, rrsig, {APEX: self.dnskeys()}, now=NOW_S)

    def dnskeys(self) -> dns.rrset.RRset:
        (keys,) = (one for one in self.ask("", "DNSKEY").answer if one.rdtype == DNSKEY)
        return keys


@pytest.fixture
def signed() -> Signed:
    return Signed()


def kinds(section) -> list:
    return [(one.rdtype, one.covers) if one.rdtype == RRSIG else one.rdtype for one in section]


@pytest.mark.parametrize(
    ("name", "rtype", "found"),
    [
        (LONG, "A", A),
        (LONG, "AAAA", AAAA),
        (LONG.upper(), "A", A),
        (f"_config.{LONG}", "TXT", TXT),
        ("", "NS", NS),
        ("", "SOA", SOA),
        ("", "TXT", TXT),
        ("", "DNSKEY", DNSKEY),
        ("away", "A", CNAME),
        (LONG, "ANY", HINFO),
        (LONG, "NSEC", NSEC),
    ],
)
def test_an_answer_is_signed(signed: Signed, name: str, rtype: str, found) -> None:
    message = signed.checked(name, rtype)
    assert kinds(message.answer) == [found, (RRSIG, found)]
    assert message.ednsflags & DO


def test_an_alias_and_what_it_leads_to_are_signed_each(signed: Signed) -> None:
    message = signed.checked("alias")
    assert kinds(message.answer) == [CNAME, (RRSIG, CNAME), A, (RRSIG, A)]


def test_the_addresses_of_name_servers_are_signed(signed: Signed) -> None:
    message = signed.checked("", "NS")
    assert kinds(message.additional) == [A, (RRSIG, A)] * 2


def test_the_entry_point_signs_the_keys_and_nothing_else(signed: Signed) -> None:
    tags = {
        rtype: one[0].key_tag
        for rtype in ("DNSKEY", "SOA")
        for one in signed.ask("", rtype).answer
        if one.rdtype == RRSIG
    }
    ds = dns.dnssec.make_ds(APEX, next(k for k in signed.dnskeys() if k.flags == 257), "SHA256")
    assert signed.keys.ds.split(None, 3)[3] == ds.to_text().upper()
    assert tags["DNSKEY"] == ds.key_tag != tags["SOA"]


def test_a_type_that_is_not_there_is_denied_by_the_types_that_are(signed: Signed) -> None:
    message = signed.checked(LONG, "TXT")
    assert message.rcode() == 0
    assert kinds(message.authority) == [SOA, (RRSIG, SOA), NSEC, (RRSIG, NSEC)]
    nsec = message.authority[2]
    assert nsec.name == dns.name.from_text(LONG, APEX)
    assert nsec.to_text().endswith(f"NSEC \\000.{LONG}.{DOMAIN}. A AAAA RRSIG NSEC")


def test_a_name_with_names_below_it_alone_is_there_without_types(signed: Signed) -> None:
    message = signed.checked("seip", "A")
    assert message.rcode() == 0
    assert message.authority[2].to_text().endswith(f"\\000.seip.{DOMAIN}. RRSIG NSEC")


def test_the_apex_says_all_its_types_and_denies_a_ds_of_its_own(signed: Signed) -> None:
    message = signed.checked("", "DS")
    types = message.authority[2].to_text().partition(f"{DOMAIN}. ")[2].split()[4:]
    assert {"NS", "SOA", "TXT", "RRSIG", "NSEC", "DNSKEY"} == set(types)
    assert DS not in types


def test_a_name_that_is_not_there_is_denied_with_its_wildcard(signed: Signed) -> None:
    message = signed.checked("x.y.nothing", "A")
    assert message.rcode() == 3
    nsecs = [one for one in message.authority if one.rdtype == NSEC]
    assert [one.to_text() for one in nsecs] == [
        f"nothinf\\255.{DOMAIN}. 30 IN NSEC nothing\\000.{DOMAIN}. RRSIG NSEC",
        f"\\)\\255.{DOMAIN}. 30 IN NSEC *\\000.{DOMAIN}. RRSIG NSEC",
    ]


def test_an_alias_that_leads_nowhere_is_signed_and_its_end_denied(signed: Signed) -> None:
    message = signed.checked("dangling")
    assert (message.rcode(), kinds(message.answer)) == (3, [CNAME, (RRSIG, CNAME)])
    assert kinds(message.authority).count(NSEC) == 2


def test_who_asks_inside_gets_the_names_of_endpoints_signed(signed: Signed) -> None:
    assert A in kinds(signed.checked("pc.acme.ep", "A", INSIDE).answer)
    assert signed.checked("pc.acme.ep", "A", STREAM).rcode() == 3


def test_who_does_not_ask_for_signatures_gets_none(signed: Signed) -> None:
    for name, rtype in ((LONG, "A"), ("nothing", "A"), ("", "DNSKEY")):
        reply = signed.small.ask(name, int(Type[rtype]), edns=1232)
        assert not {46, 47} & {one.rtype for one in (*reply.rr, *reply.auth)}
    assert not signed.small.ask(LONG, Type.NSEC, edns=1232).rr


def test_an_answer_with_signatures_is_not_kept_for_those_without(signed: Signed) -> None:
    small = signed.small
    signed.ask("ns1", "A", INSIDE)
    assert small.answerer.counts.quick == 0
    assert len(small.ask("ns1", "A", INSIDE, edns=1232).rr) == 1
    assert len(small.ask("ns1", "A", INSIDE, edns=1232).rr) == 1
    assert small.answerer.counts.quick == 1
    assert RRSIG in [one.rdtype for one in signed.ask("ns1", "A", INSIDE).answer]


def test_a_stranger_without_a_cookie_comes_again_over_tcp_and_costs_no_signature(
    signed: Signed,
) -> None:
    message = signed.ask(LONG, "A", STRANGER, cookie(b"12345678"))
    assert message.flags & dns.flags.TC
    assert signed.keys.signer.signed_count == 0
    (option,) = message.options
    answer = signed.ask(LONG, "A", STRANGER, cookie(option.client, option.server))
    assert kinds(answer.answer) == [A, (RRSIG, A)]


def test_checking_disabled_changes_nothing_and_is_echoed(signed: Signed) -> None:
    data = bytearray(query(LONG, "A"))
    data[3] |= Flag.CD
    data[11] = 1
    answer = dns.message.from_wire(signed.small.raw(bytes(data) + opt(1232, flags=DO)))
    assert answer.flags & dns.flags.CD
    assert not answer.flags & dns.flags.AD
    assert kinds(answer.answer) == [A, (RRSIG, A)]


def test_the_reverse_zones_are_not_signed(signed: Signed) -> None:
    signed.small.table.put(
        Source.MESH,
        name_of("7.0.64.10.in-addr.arpa"),
        [names(Type.PTR, 30, [name_of(f"pc.acme.ep.{DOMAIN}")])],
    )
    message = signed.ask("7.0.64.10.in-addr.arpa.", "PTR", INSIDE)
    assert len(message.answer) == 1


@pytest.mark.parametrize("published", [False, True])
def test_nothing_is_signed_by_a_key_that_is_not_published(signed: Signed, published) -> None:
    keys = signed.keys
    keys.published = keys.key_set(NOW_S, keys.other_key) if published else None
    assert kinds(signed.ask(LONG, "A").answer) == [A]
    assert kinds(signed.ask("", "DNSKEY").answer) == ([DNSKEY] if published else [])


def test_a_signature_is_made_once_until_the_set_changes_or_half_a_day_is_over(
    signed: Signed,
) -> None:
    signer = signed.keys.signer
    first = signed.ask(LONG, "A").answer
    assert signed.ask(LONG, "A").answer == first
    assert signer.signed_count == 1
    signed.small.put(LONG, *addresses(60, "198.51.100.9"))
    assert signed.checked(LONG, "A").answer != first
    assert signer.signed_count == 2
    later = signer.at(NOW_S + PERIOD_S)
    assert later is not None
    later.rrsig(name_of(f"{LONG}.{DOMAIN}"), addresses(60, "198.51.100.9")[0])
    assert signer.signed_count == 3


def test_a_signature_is_good_for_clocks_that_are_behind_and_longer_than_any_ttl(
    signed: Signed,
) -> None:
    for clock_s in (NOW_S, NOW_S - NOW_S % PERIOD_S, NOW_S - NOW_S % PERIOD_S + PERIOD_S - 1):
        signing = signed.keys.signer.at(clock_s)
        assert signing is not None
        head = signing.rrsig(signed.keys.apex, addresses(60, "192.0.2.1")[0]).rdatas[0]
        expiration_s, inception_s = (int.from_bytes(head[at : at + 4], "big") for at in (8, 12))
        assert inception_s <= clock_s - SKEW_S
        assert expiration_s - clock_s > 86_400
        assert expiration_s - inception_s == LIFETIME_S + SKEW_S


@pytest.mark.slow
def test_names_that_are_made_up_take_no_more_room_than_is_set(signed: Signed) -> None:
    for number in range(MAX_KEPT_DENIALS + 10):
        signed.ask(f"n{number}", "A")
    kept = signed.keys.signer._denials
    assert len(kept) == MAX_KEPT_DENIALS


@pytest.mark.parametrize("name", ["", LONG, "alias", "eu-west.seip", "seip"])
def test_a_signature_that_is_asked_for_is_told_and_no_denial_contradicts_itself(
    signed: Signed, name: str
) -> None:
    owner = dns.name.from_text(f"{name}.{DOMAIN}" if name else DOMAIN)
    answer = signed.ask(name, "RRSIG")
    assert kinds(answer.answer) == [(RRSIG, NSEC)]
    link = signed.checked(name, "NSEC")
    assert kinds(link.answer) == [NSEC, (RRSIG, NSEC)]
    assert {one.name for one in (*answer.answer, *link.answer)} == {owner}
    assert answer.authority == link.authority == []
