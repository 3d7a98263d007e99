"""DNS-10: nobody is flooded by our answers to what somebody else sent in its name."""

from __future__ import annotations

import dnslib

from services.edge.dns.answering import Asker
from services.edge.dns.ratelimiting import (
    MAX_COUNTED,
    ResponseRates,
    Verdict,
    network_in,
    packed_of,
)
from tests.unit.edge_dns.dns_kit import INSIDE, LONG, STRANGER, STREAM, Small, cookie, query

RATE = 20


def flood(small: Small, names, asker=STRANGER) -> tuple[int, int, int]:
    """Send; return the octets sent, the octets answered, and how many answers had TC."""
    sent = got = cut = 0
    for name in names:
        asked = query(name)
        answer = small.raw(asked, asker)
        sent += len(asked)
        got += len(answer or b"")
        cut += bool(answer and answer[2] & 2)
    return sent, got, cut


def test_dns_10_a_thousand_times_the_same_name_in_a_second() -> None:
    small = Small(per_second=RATE)
    sent, got, cut = flood(small, [LONG] * 1000)
    assert got <= 0.6 * sent
    assert cut >= 400


def test_dns_10_a_thousand_names_that_are_not_there() -> None:
    small = Small(per_second=RATE)
    sent, got, _ = flood(small, [f"x{n}" for n in range(1000)])
    assert got <= 0.6 * sent


def test_dns_10_a_thousand_names_that_are_not_ours_and_a_thousand_that_are_no_names() -> None:
    small = Small(per_second=RATE)
    sent, got, _ = flood(small, [f"x{n}.example.net." for n in range(1000)])
    assert got <= 0.6 * sent
    small.now_s = 1.5
    answers = [small.raw(query(LONG)[:-1], STRANGER) for _ in range(1000)]
    assert sum(one is not None for one in answers) <= 2 * RATE


def test_dns_10_who_really_asked_can_come_over_tcp_or_with_a_cookie() -> None:
    small = Small(per_second=RATE)
    flood(small, [LONG] * 1000)
    assert small.ask(LONG, asker=STREAM).rr
    client = bytes(8)
    served = None
    while served is None:  # every second answer over the rate comes, with TC and a cookie
        served = small.raw(query(LONG, edns=1232, options=cookie(client)), STRANGER)
    asked = query(LONG, edns=1232, options=cookie(client, served[-16:]))
    for _ in range(200):
        answer = small.raw(asked, STRANGER)
        assert answer is not None
        assert dnslib.DNSRecord.parse(answer).rr


def test_others_and_those_inside_are_served_all_the_while() -> None:
    small = Small(per_second=RATE)
    flood(small, [LONG] * 1000)
    other = Asker(address=bytes([198, 18, 0, 1]), network=bytes([198, 18, 0]), inside=False)
    assert small.ask(LONG, asker=other).rr
    sent, got, cut = flood(small, [LONG] * 500, INSIDE)
    assert (got > sent, cut) == (True, 0)


def test_a_resolver_that_asks_for_many_names_is_served() -> None:
    small = Small(per_second=RATE)
    for number in range(500):
        small.put(f"a-host-with-a-long-name-{number:04}", source=0)
    rates = ResponseRates(per_second=RATE)
    verdicts = [rates.verdict(b"net", b"%d" % n, now_s=0.1) for n in range(500)]
    assert set(verdicts) == {Verdict.SEND}


def test_the_rate_is_of_a_second_and_the_next_one_is_another() -> None:
    rates = ResponseRates(per_second=2)
    first = [rates.verdict(b"n", b"a", now_s=0.0) for _ in range(8)]
    assert first.count(Verdict.SEND) == 4
    assert {Verdict.SLIP, Verdict.DROP} < set(first)
    assert rates.verdict(b"n", b"a", now_s=1.1) is Verdict.SEND
    # A clock that goes back starts anew, too.
    assert rates.verdict(b"n", b"a", now_s=-50.0) is Verdict.SEND


def test_what_is_counted_is_bounded() -> None:
    rates = ResponseRates(per_second=1)
    for number in range(MAX_COUNTED + 1000):
        rates.verdict(b"%d" % number, b"a", now_s=0.5)
    assert len(rates._by_network) <= MAX_COUNTED
    for number in range(MAX_COUNTED + 1000):
        rates.verdict(b"0", b"%d" % number, now_s=0.5)
    assert len(rates._by_answer) <= MAX_COUNTED


def test_dns_10_forged_networks_that_fill_the_counts_open_no_door() -> None:
    rates = ResponseRates(per_second=5)
    for number in range(MAX_COUNTED):
        rates.verdict(b"%d" % number, b"a", now_s=0.5)
    victim = [rates.verdict(b"victim", b"a", now_s=0.5) for _ in range(1000)]
    assert victim.count(Verdict.SEND) <= 5
    assert not rates.passes(b"victim", now_s=0.5)
    for number in range(MAX_COUNTED):
        rates.verdict(b"more-%d" % number, b"a", now_s=0.5)
    # Who asks in earnest now is told to come over TCP.
    late = [rates.verdict(b"late-%d" % number, b"a", now_s=0.5) for number in range(1000)]
    assert late.count(Verdict.SLIP) == late.count(Verdict.DROP) == 500


def test_a_rate_of_nothing_is_no_rate() -> None:
    rates = ResponseRates(per_second=0)
    assert all(rates.verdict(b"n", b"a", now_s=0) is Verdict.SEND for _ in range(1000))


def network_of(address: str) -> bytes:
    return network_in(packed_of(address))


def test_a_network_is_a_24_or_a_56() -> None:
    assert network_of("192.0.2.1") == network_of("192.0.2.200") != network_of("192.0.3.1")
    assert network_of("2001:db8:0:1::1") == network_of("2001:db8::ff:1:2:3:4")
    assert network_of("2001:db8:0:100::1") != network_of("2001:db8::1")
    assert network_of("fe80::1%eth0") == network_of("fe80::2")
    assert network_of("::ffff:192.0.2.1") == network_of("::1")
