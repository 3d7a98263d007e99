"""The book of sessions: who gets one, who is bound where, and how it ends."""

from __future__ import annotations

import pytest

from services.edge.relay.messages import NO_TOKEN, Bound, Code, Error, State, Verb
from services.edge.relay.model import Account, Granted, Link, Tell, Unlink
from services.edge.relay.tickets import BadTicketError
from tests.fakes.relay_book import FIRST_PORT, NOW_MS, Played, book_of, key_of, ticket_for

A, B, C = key_of(1), key_of(2), key_of(3)
AT_A, AT_B, AT_C = ("198.18.1.1", 5000), ("198.18.2.2", 6000), ("198.18.3.3", 7000)
MOVED = ("198.18.1.1", 5999)
FAR = ("203.0.113.9", 5000)


@pytest.fixture
def played() -> Played:
    return Played(book_of())


def pair(played: Played):
    ticket = ticket_for(A, B)
    return played.bind(ticket, A, AT_A), played.bind(ticket, B, AT_B)


def links(effects) -> list:
    return [one for one in effects if isinstance(one, Link | Unlink)]


def answers(effects) -> list:
    return [(one.address, one.answer) for one in effects if isinstance(one, Tell)]


def test_both_are_told_when_the_second_binds(played):
    ticket = ticket_for(A, B)
    a = played.allocate(ticket, A, AT_A)
    assert isinstance(a, Granted)
    ((_, alone),) = answers(played.say(a, AT_A))
    assert alone.state is State.ALONE
    b = played.allocate(ticket, B, AT_B)
    effects = played.say(b, AT_B)
    (link,) = links(effects)
    assert (link.a.address, link.b.address) == (AT_A, AT_B)
    assert (link.a.place, link.b.place) == (a.place, b.place)
    assert [(to, answer.state) for to, answer in answers(effects)] == [
        (AT_A, State.TOGETHER),
        (AT_B, State.TOGETHER),
    ]


def test_a_session_gets_the_lowest_port_that_those_of_both_parties_leave_free(played):
    with_b = played.bind(ticket_for(A, B), A, AT_A)
    with_c = played.bind(ticket_for(A, C), A, AT_A)
    c = played.bind(ticket_for(A, C), C, AT_C)
    b_with_c = played.bind(ticket_for(B, C), B, AT_B)
    b = played.bind(ticket_for(A, B), B, AT_B)
    assert [one.place.port - FIRST_PORT for one in (with_b, with_c, c, b_with_c, b)] == [
        0,
        1,
        1,
        2,
        0,
    ]
    played.say(with_b, AT_A, Verb.TEARDOWN)
    assert played.bind(ticket_for(A, key_of(4)), A, AT_A).place.port == FIRST_PORT


def test_endpoints_with_all_the_sessions_that_they_may_have_get_a_port_for_each():
    played = Played(book_of())
    hubs = (A, B)
    ports = {hub: set() for hub in hubs}
    for number in range(63):
        for hub in hubs:
            spoke = key_of(100 + number + 100 * hubs.index(hub))
            ports[hub].add(played.allocate(ticket_for(hub, spoke), hub, AT_A).place.port)
    shared = [played.allocate(ticket_for(A, B), hub, AT_A).place.port for hub in hubs]
    assert [len(ports[hub]) for hub in hubs] == [63, 63]
    assert shared[0] == shared[1]
    assert shared[0] not in ports[A] | ports[B]


def test_a_port_that_another_program_has_is_given_to_nobody(played):
    ticket = ticket_for(A, B)
    played.allocate(ticket, A, AT_A)
    played.book.bar_port(FIRST_PORT)
    assert played.allocate(ticket, A, AT_A).place.port == FIRST_PORT + 1
    assert played.allocate(ticket, B, AT_B).place.port == FIRST_PORT + 1


def test_rly_03_a_ticket_opens_nothing_for_a_third(played):
    with pytest.raises(BadTicketError):
        played.allocate(ticket_for(A, B), C, AT_C)
    assert len(played.book) == 0


def test_rly_03_a_replayed_allocate_is_not_answered(played):
    ticket = ticket_for(A, B)
    assert isinstance(played.allocate(ticket, A, AT_A, counter=7), Granted)
    assert played.allocate(ticket, A, FAR, counter=7) is None
    assert played.allocate(ticket, A, FAR, counter=6) is None


def test_rly_03_a_ticket_of_an_ended_session_is_not_replayed(played):
    ticket = ticket_for(A, B)
    granted = played.allocate(ticket, A, AT_A, counter=7)
    played.say(granted, AT_A, Verb.TEARDOWN, counter=8)
    assert len(played.book) == 0
    assert played.allocate(ticket, A, FAR, counter=7) is None
    assert played.allocate(ticket, A, FAR, counter=8) is None
    assert isinstance(played.allocate(ticket, A, AT_A, counter=9), Granted)


def test_rly_03_what_was_said_is_not_heard_twice(played):
    a, _ = pair(played)
    assert played.say(a, AT_A, Verb.HEARTBEAT, counter=500)
    assert played.say(a, MOVED, Verb.HEARTBEAT, counter=500) == []
    assert played.say(a, MOVED, Verb.TEARDOWN, counter=499) == []
    assert len(played.book) == 1


def test_rly_03_another_host_proves_itself_before_it_is_sent_to(played):
    a, _ = pair(played)
    effects = played.say(a, FAR, Verb.HEARTBEAT)
    assert links(effects) == []
    ((to, answer),) = answers(effects)
    assert (to, answer.state) == (FAR, State.ELSEWHERE)
    effects = played.say(a, FAR, Verb.HEARTBEAT, token=answer.token)
    assert [type(one) for one in links(effects)] == [Unlink, Link]
    assert links(effects)[1].a.address == FAR


def test_a_bind_without_a_token_binds_nothing(played):
    granted = played.allocate(ticket_for(A, B), A, AT_A)
    ((_, answer),) = answers(played.say(granted, AT_A, token=NO_TOKEN))
    assert answer.state is State.ELSEWHERE


def test_a_nat_that_changes_the_port_rebinds_by_a_heartbeat(played):
    a, b = pair(played)
    effects = played.say(a, MOVED, Verb.HEARTBEAT)
    unlink, link = links(effects)
    assert (unlink.a.address, link.a.address, link.b.address) == (AT_A, MOVED, AT_B)
    assert answers(effects)[-1][1].state is State.TOGETHER
    assert a.place.bound == {MOVED: a.direction, AT_B: b.direction}


def test_a_heartbeat_from_where_one_is_changes_nothing(played):
    a, _ = pair(played)
    effects = played.say(a, AT_A, Verb.HEARTBEAT)
    assert links(effects) == []
    ((_, answer),) = answers(effects)
    assert isinstance(answer, Bound)
    assert answer.state is State.TOGETHER


def test_a_session_is_heard_on_its_own_port_only(played):
    a, _ = pair(played)
    other = played.allocate(ticket_for(A, C), A, AT_A)
    played.counter += 1
    message_place = Granted(
        direction=a.direction,
        place=other.place,
        left_ms=0,
        session_key=a.session_key,
        token=a.token,
    )
    assert played.say(message_place, AT_A) == []


def test_session_keys_differ_by_party_and_by_session(played):
    a, b = pair(played)
    assert a.session_key != b.session_key
    played.say(a, AT_A, Verb.TEARDOWN)
    again = played.allocate(ticket_for(A, B), A, AT_A)
    assert again.direction == a.direction
    assert again.session_key != a.session_key


def test_two_sessions_never_share_an_address_and_port(played):
    pair(played)
    thief = played.allocate(ticket_for(C, key_of(4)), C, AT_A)
    assert thief.place.port == FIRST_PORT
    ((_, answer),) = answers(played.say(thief, AT_A))
    assert answer.code is Code.ADDRESS


def test_an_address_whose_holder_is_silent_goes_to_who_is_heard(played):
    a, _ = pair(played)
    played.now_s += 20
    newcomer = played.bind(ticket_for(C, key_of(4)), C, AT_A)
    assert newcomer.place.bound[AT_A] == newcomer.direction
    ((_, answer),) = answers(played.say(a, MOVED, Verb.HEARTBEAT))[-1:]
    assert answer.state is State.TOGETHER


def test_rly_05_a_client_has_so_many_sessions_and_no_more():
    played = Played(book_of(sessions_per_client=2))
    for other in (2, 3):
        assert isinstance(played.allocate(ticket_for(A, key_of(other)), A, AT_A), Granted)
    assert played.allocate(ticket_for(A, key_of(4)), A, AT_A) is Code.FULL
    assert played.allocate(ticket_for(A, key_of(5)), key_of(5), AT_B) is Code.FULL
    assert isinstance(played.allocate(ticket_for(B, C), B, AT_B), Granted)


def test_rly_05_there_are_so_many_sessions_and_no_more():
    played = Played(book_of(sessions=2))
    assert isinstance(played.allocate(ticket_for(A, B), A, AT_A), Granted)
    assert isinstance(played.allocate(ticket_for(A, C), C, AT_C), Granted)
    assert played.allocate(ticket_for(B, C), B, AT_B) is Code.FULL
    assert isinstance(played.allocate(ticket_for(A, B), B, AT_B), Granted)


def test_rly_05_a_session_that_one_side_left_silent_ends(played):
    a, _ = pair(played)
    played.now_s += 59
    assert played.book.sweep(now_ms=NOW_MS, now_s=played.now_s) == []
    played.say(a, AT_A, Verb.HEARTBEAT)
    played.now_s += 2
    effects = played.book.sweep(now_ms=NOW_MS, now_s=played.now_s)
    assert isinstance(effects[0], Unlink)
    assert {to: answer.code for to, answer in answers(effects)} == {
        AT_A: Code.ENDED,
        AT_B: Code.ENDED,
    }
    assert len(played.book) == 0
    assert a.place.bound == {}


def test_rly_05_data_is_a_sign_of_life(played):
    a, b = pair(played)
    played.now_s += 40
    played.book.carried(a.direction, 1000, played.now_s)
    played.book.carried(b.direction, 1000, played.now_s)
    played.now_s += 40
    assert played.book.sweep(now_ms=NOW_MS, now_s=played.now_s) == []
    played.book.carried(a.direction, 0, played.now_s)
    played.now_s += 21
    assert played.book.sweep(now_ms=NOW_MS, now_s=played.now_s) != []


def test_rly_02_a_session_ends_with_its_ticket(played):
    pair(played)
    assert played.book.sweep(now_ms=NOW_MS + 3_600_000, now_s=played.now_s) == []
    effects = played.book.sweep(now_ms=NOW_MS + 3_630_000, now_s=played.now_s)
    assert {answer.code for _, answer in answers(effects)} == {Code.EXPIRED}


def test_a_newer_ticket_prolongs_the_session_that_runs(played):
    a, _ = pair(played)
    newer = ticket_for(A, B, now_ms=NOW_MS + 3_000_000, nonce=bytes([3]) * 16, rate_kbits=5)
    again = played.allocate(newer, A, AT_A)
    assert (again.direction, again.place, again.session_key) == (
        a.direction,
        a.place,
        a.session_key,
    )
    assert links(played.effects) == []
    assert played.book.sweep(now_ms=NOW_MS + 3_630_000, now_s=played.now_s) == []
    assert played.book.rate_kbits(a.direction >> 1) == 5


def test_an_older_ticket_shortens_nothing(played):
    a, _ = pair(played)
    older = ticket_for(A, B, lifetime_ms=1000, nonce=bytes([3]) * 16)
    assert played.allocate(older, A, AT_A).left_ms == a.left_ms


def test_a_party_that_comes_by_another_address_of_the_relay_gets_its_port_there(played):
    a, _ = pair(played)
    other = played.allocate(ticket_for(A, B), A, ("2001:db8::1", 5000, 0, 0), host="2001:db8::9")
    assert (other.place.host, other.place.port) == ("2001:db8::9", a.place.port)
    assert [type(one) for one in played.effects] == [Unlink]
    assert a.place.bound == {AT_B: a.direction ^ 1}


def test_rly_04_revoking_ends_all_sessions_of_a_client(played):
    pair(played)
    played.bind(ticket_for(A, C), A, AT_A)
    played.bind(ticket_for(B, C), B, AT_B)
    effects = played.book.revoke(A)
    assert len(played.book) == 1
    assert isinstance(effects[0], Unlink)
    assert {answer.code for _, answer in answers(effects)} == {Code.REVOKED}
    assert sorted(played.book.clients()) == [B, C]


def test_rly_06_no_data_goes_where_it_must_not():
    refused = {"127.0.0.1", "169.254.169.254"}
    played = Played(book_of(why_refused=lambda host, port: "refused" if host in refused else None))
    assert played.allocate(ticket_for(A, B), A, ("127.0.0.1", 5000)) is Code.ADDRESS
    granted = played.allocate(ticket_for(A, B), A, AT_A)
    token = played.book._proofs.token(granted.direction, 1, ("169.254.169.254", 80))
    ((_, answer),) = answers(played.say(granted, ("169.254.169.254", 80), token=token))
    assert answer.code is Code.ADDRESS
    assert granted.place.bound == {}


def test_rly_07_nobody_is_bound_to_where_the_other_is(played):
    ticket = ticket_for(A, B)
    played.bind(ticket, A, AT_A)
    b = played.allocate(ticket, B, AT_A)
    ((_, answer),) = answers(played.say(b, AT_A))
    assert isinstance(answer, Error)
    assert answer.code is Code.ADDRESS


def test_teardown_tells_the_other(played):
    a, _ = pair(played)
    effects = played.say(a, AT_A, Verb.TEARDOWN)
    assert [type(one) for one in effects] == [Unlink, Tell]
    assert [(to, answer.code) for to, answer in answers(effects)] == [(AT_B, Code.ENDED)]
    assert played.say(a, AT_A) == []


def test_the_account_is_given_to_who_is_bound(played):
    a, _ = pair(played)
    assert played.say(a, AT_A, Verb.USAGE) == [
        Account(direction=a.direction, counter=played.counter)
    ]
    assert played.say(a, MOVED, Verb.USAGE) == []
