"""An endpoint's side, played against a real desk and book, without a network."""

from __future__ import annotations

import random

import pytest

from services.base.crypto.agreement import generate_x25519
from services.base.crypto.signatures import generate_signing_key
from services.edge.relay.client import Phase
from services.edge.relay.desk import Came
from services.edge.relay.model import Link
from tests.fakes.relay import Relay
from tests.fakes.relay_book import FIRST_PORT, HOST, HOUR_MS, NOW_MS

A, B = generate_x25519(), generate_x25519()
AT_A, AT_B = ("198.18.1.1", 5000), ("198.18.2.2", 6000)


@pytest.fixture
def relay() -> Relay:
    return Relay()


def ticket_of(relay: Relay, **changed) -> bytes:
    return relay.ticket(**({"keys": (A[1], B[1])} | changed))


def meet(relay: Relay, ticket: bytes | None = None):
    ticket = ticket or ticket_of(relay)
    a, b = relay.client(A, AT_A, ticket), relay.client(B, AT_B, ticket)
    relay.carry(a.begin(relay.now_s), AT_A)
    relay.carry(b.begin(relay.now_s), AT_B)
    return a, b


def test_two_meet_in_two_round_trips_each(relay):
    a, b = meet(relay)
    assert (a.phase, b.phase) == (Phase.TOGETHER, Phase.TOGETHER)
    assert a.data_address == b.data_address == (HOST, FIRST_PORT)
    assert [type(one) for one in relay.links] == [Link]
    assert a.ends_s == pytest.approx(relay.now_s + 3600)


def test_who_is_alone_is_told_when_the_other_comes(relay):
    ticket = ticket_of(relay)
    a = relay.client(A, AT_A, ticket)
    relay.carry(a.begin(relay.now_s), AT_A)
    assert a.phase is Phase.ALONE
    relay.tick(30)
    assert a.phase is Phase.ALONE
    b = relay.client(B, AT_B, ticket)
    relay.carry(b.begin(relay.now_s), AT_B)
    assert (a.phase, b.phase) == (Phase.TOGETHER, Phase.TOGETHER)


def test_rly_09_a_dead_relay_is_noticed_within_ten_seconds(relay):
    a, b = meet(relay)
    relay.tick(61)
    assert a.phase is Phase.TOGETHER
    relay.is_up = False
    relay.tick(9.6)
    assert (a.phase, a.why) == (Phase.LOST, "silent")
    assert (b.phase, b.why) == (Phase.LOST, "silent")


def test_a_lost_answer_is_no_dead_relay(relay):
    a, _ = meet(relay)
    for _ in range(5):
        relay.is_up = False
        relay.tick(2)
        relay.is_up = True
        relay.tick(5)
    assert a.phase is Phase.TOGETHER


@pytest.mark.parametrize("round_trip_s", [0.0, 0.1, 0.4, 0.6])
def test_a_relay_is_kept_though_one_in_four_of_its_answers_get_lost(relay, round_trip_s):
    """As where more than one in ten datagrams is lost, each way."""
    a, _ = meet(relay)
    chance = random.Random(1)  # noqa: S311 (which answer is lost)
    carry, late = relay.carry, []

    def lose(datagrams, address):
        kept = [one for one in datagrams if chance.random() > 0.25]
        late.append((relay.now_s + round_trip_s, kept, address))

    relay.carry = lose
    for _ in range(3000):
        relay.tick(0.2)
        while late and late[0][0] <= relay.now_s:
            _, kept, address = late.pop(0)
            carry(kept, address)
        assert a.phase is Phase.TOGETHER


def test_a_relay_that_never_answers_is_given_up(relay):
    relay.is_up = False
    a, _ = meet(relay)
    relay.tick(5)
    assert (a.phase, a.why) == (Phase.LOST, "silent")


def test_the_second_address_of_a_relay_is_tried(relay):
    ticket = ticket_of(relay)
    a = relay.client(A, AT_A, ticket, hosts=("2001:db8::1", HOST))
    relay.carry(a.begin(relay.now_s), AT_A)
    relay.tick(5)
    assert a.phase is Phase.ALONE


def test_a_moved_client_is_bound_anew(relay):
    a, _ = meet(relay)
    for moved in (("198.18.1.1", 5555), ("203.0.113.7", 4444)):
        del relay.clients[next(at for at, one in relay.clients.items() if one is a)]
        relay.clients[moved] = a
        relay.tick(6)
        assert a.phase is Phase.TOGETHER
        assert relay.links[-1].a.address == moved or relay.links[-1].b.address == moved


def test_the_end_of_one_is_told_to_the_other(relay):
    a, b = meet(relay)
    relay.carry(a.end(), AT_A)
    assert (b.phase, b.why) == (Phase.LOST, "ended")
    assert len(relay.book) == 0


def test_rly_04_a_revoked_client_is_told_at_once(relay):
    a, b = meet(relay)
    relay.unwelcome.add(A[1])
    relay.run(relay.book.revoke(A[1]))
    assert (a.why, b.why) == ("revoked", "revoked")
    again = relay.client(A, AT_A, ticket_of(relay))
    relay.carry(again.begin(relay.now_s), AT_A)
    assert again.phase is Phase.ALLOCATING
    assert relay.desk.counts[Came.UNWELCOME] == 1


def test_a_newer_ticket_prolongs(relay):
    a, b = meet(relay)
    relay.tick(3000)
    newer = ticket_of(relay)
    relay.carry(a.prolong(newer, relay.now_s), AT_A)
    relay.carry(b.prolong(newer, relay.now_s), AT_B)
    relay.tick(1200)
    assert (a.phase, b.phase) == (Phase.TOGETHER, Phase.TOGETHER)
    assert [type(one) for one in relay.links] == [Link]
    relay.tick(2500)
    assert (a.why, b.why) == ("expired", "expired")


def test_a_bad_newer_ticket_costs_nothing(relay):
    a, _ = meet(relay)
    relay.carry(a.prolong(ticket_of(relay, mesh=bytes(32)), relay.now_s), AT_A)
    relay.tick(60)
    assert a.phase is Phase.TOGETHER


def test_rly_05_a_full_relay_says_so():
    relay = Relay(sessions_per_client=0)
    a, _ = meet(relay)
    assert (a.phase, a.why) == (Phase.LOST, "full")


@pytest.mark.parametrize(
    "changed",
    [
        {"signer": generate_signing_key()},
        {"mesh": bytes(32)},
        {"relay_id": bytes(16)},
        {"box_key": bytes([5]) * 32},
        {"now_ms": NOW_MS - HOUR_MS - 30_001},
        {"now_ms": NOW_MS + 60_000},
        {"keys": (B[1], bytes([9]) * 32)},
    ],
    ids=["forged", "other mesh", "other relay", "other box", "expired", "early", "for others"],
)
def test_rly_02_what_is_no_ticket_for_here_and_now_is_not_answered(relay, changed):
    a, _ = meet(relay, ticket_of(relay, **changed))
    assert a.phase is Phase.ALLOCATING
    assert relay.desk.counts[Came.BAD_TICKET] >= 1
    relay.tick(5)
    assert (a.phase, a.why) == (Phase.LOST, "silent")


def test_rly_03_a_stolen_ticket_opens_nothing_for_another_key(relay):
    thief = generate_x25519()
    stolen = relay.client(thief, AT_A, ticket_of(relay))
    relay.carry(stolen.begin(relay.now_s), AT_A)
    assert stolen.phase is Phase.ALLOCATING
    assert len(relay.book) == 0


def test_rly_03_a_recorded_exchange_opens_nothing_from_elsewhere(relay):
    recorded = []
    carry = relay.carry
    relay.carry = lambda datagrams, address: (recorded.extend(datagrams), carry(datagrams, address))
    a, _ = meet(relay)
    relay.carry = carry
    links = list(relay.links)
    thief = ("203.0.113.66", 666)
    relay.clients[thief] = a  # would hear whatever is answered
    heard = []
    a.receive = lambda *args: heard.append(args) or []
    relay.carry(recorded, thief)
    assert heard == []
    assert relay.links == links


def test_foreign_bytes_are_not_answered(relay):
    for data in (b"", b"seiR", b"seiR\x01" + bytes(400), b"\x01\0\0\0" + bytes(144)):
        relay._to_desk(data, AT_A)
    assert relay.desk.counts[Came.MALFORMED] == 4
