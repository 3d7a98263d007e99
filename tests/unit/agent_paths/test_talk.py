"""The endpoint's talk with its server survives loss, repetition and disorder."""

from __future__ import annotations

from seipd.agent.paths.talk import HERE_S, MAX_PER_HOST, MAX_WAITING, Talk
from services.edge.punch.messages import (
    MAX_CANDIDATES,
    Call,
    CandidateKind,
    Changed,
    Here,
    Known,
    Meet,
    Met,
    Nothing,
    RelayOffer,
    Signal,
    SignalCode,
    Signalled,
    What,
    Why,
    candidate,
    tunnel_bytes,
)

PEER = tunnel_bytes("10.64.0.11")
LOCAL = candidate(CandidateKind.LOCAL, "192.168.1.5", 40000)
MEET = Meet(b"k" * 32, PEER, (), False, (), 7)


def talk_known(now_s: float = 0.0) -> Talk:
    """A talk whose first HERE was answered."""
    talk = Talk(counter=100, now_s=now_s)
    talk.due(now_s)
    talk.take(Known(101, b"\1\2\3\4", 5, 1, 1), now_s + 0.02)
    return talk


def times_of(talk: Talk, kind: type, until_s: float) -> list[float]:
    """Return when something of a kind is said, if nobody ever answers."""
    found: list[float] = []
    while (now_s := talk.next_s) <= until_s:
        said = talk.due(now_s).replies
        assert said or now_s < talk.next_s
        found += [round(now_s, 3) for one in said if isinstance(one, kind)]
    return found


def test_says_at_once_that_it_is_here_and_again_until_it_is_known() -> None:
    talk = Talk(counter=100, now_s=0.0)
    assert times_of(talk, Here, 20.0) == [0.0, 0.5, 1.5, 3.5, 7.5, 15.5]


def test_one_who_is_known_says_so_every_15_seconds() -> None:
    talk = talk_known()
    assert talk.next_s == HERE_S + 0.02
    assert talk.round_trip_s == 0.02
    (here,) = talk.due(HERE_S + 0.02).replies
    assert here == Here(102, (), False, False, 1, 1)


def test_stays_fresh_until_somebody_knows() -> None:
    talk = Talk(counter=100, now_s=0.0)
    (first,) = talk.due(0.0).replies
    (second,) = talk.due(0.5).replies
    assert first == second
    assert isinstance(first, Here)
    assert first.is_fresh


def test_other_candidates_are_told_at_once_the_same_ones_are_not() -> None:
    talk = talk_known()
    talk.set_candidates([LOCAL], is_symmetric=True, now_s=1.0)
    (here,) = talk.due(1.0).replies
    assert here == Here(102, (LOCAL,), True, False, 1, 1)
    talk.take(Known(102, b"", 0, 1, 1), 1.1)
    talk.set_candidates([LOCAL, LOCAL], is_symmetric=True, now_s=2.0)
    assert talk.due(2.0).replies == ()


def test_one_who_wants_to_meet_nobody_says_so_at_once() -> None:
    talk = talk_known()
    talk.set_candidates(None, is_symmetric=False, now_s=1.0)
    (here,) = talk.due(1.0).replies
    assert here == Here(102, None, False, False, 1, 1)


def test_tells_of_no_more_candidates_than_a_server_takes() -> None:
    talk = talk_known()
    of_one = [candidate(CandidateKind.STUN, "203.0.113.7", 5000 + n) for n in range(9)]
    of_many = [candidate(CandidateKind.LOCAL, f"192.168.1.{n}", 5000) for n in range(1, 30)]
    talk.set_candidates(of_one + of_many, is_symmetric=False, now_s=1.0)
    assert talk.candidates == (*of_one[:MAX_PER_HOST], *of_many[: MAX_CANDIDATES - MAX_PER_HOST])


def test_a_late_answer_to_an_older_word_counts_for_nothing() -> None:
    talk = talk_known()
    talk.refresh(1.0)
    talk.due(1.0)
    assert talk.take(Known(101, b"\1\2\3\4", 5, 1, 1), 1.1).events == ()
    assert talk.known is None
    assert talk.take(Known(102, b"\1\2\3\4", 6, 1, 1), 1.2).events != ()


def test_tells_of_an_observed_address_only_where_it_is_another() -> None:
    talk = talk_known()
    assert talk.take(Known(101, b"\1\2\3\4", 5, 1, 1), 1.0).events == ()
    moved = Known(101, b"\1\2\3\4", 6, 1, 1)
    assert talk.take(moved, 2.0).events == (moved,)


def test_fetches_anew_at_the_first_answer_and_at_each_other_version() -> None:
    talk = Talk(counter=100, now_s=0.0)
    talk.due(0.0)
    first = talk.take(Known(101, b"", 0, 7, 8), 0.1)
    assert {What.POLICY, What.PEERS} <= set(first.events)
    assert talk.take(Known(101, b"", 0, 7, 9), 0.2).events == (What.PEERS,)


def test_a_change_is_told_once_and_its_receipt_is_a_here() -> None:
    talk = talk_known()
    assert talk.take(Changed(What.POLICY, 2), 3.0).events == (What.POLICY,)
    assert talk.take(Changed(What.POLICY, 2), 3.1).events == ()
    (here,) = talk.due(3.1).replies
    assert isinstance(here, Here)
    assert (here.policy_version, here.peers_version) == (2, 1)


def test_a_call_is_repeated_and_given_up_within_five_seconds() -> None:
    talk = talk_known()
    talk.call(PEER, (), 1.0)
    assert times_of(talk, Call, 5.4) == [1.0, 1.3, 1.9, 3.1]
    lost = talk.due(5.5)
    assert lost.events == (Nothing(PEER, Why.UNREACHABLE),)
    assert talk.due(30.0).events == ()


def test_a_call_ends_at_the_meeting() -> None:
    talk = talk_known()
    talk.call(PEER, (), 1.0)
    talk.due(1.0)
    heard = talk.take(MEET, 1.1)
    assert heard.replies == (Met(PEER, 7),)
    assert heard.events == (MEET,)
    assert times_of(talk, Call, 14.0) == []


def test_the_same_meeting_twice_is_told_once_and_confirmed_twice() -> None:
    talk = talk_known()
    talk.take(MEET, 1.0)
    again = talk.take(MEET, 1.1)
    assert again.events == ()
    assert again.replies == (Met(PEER, 7),)


def test_a_meeting_from_before_relays_were_excluded_answers_no_call() -> None:
    talk = talk_known()
    offer = RelayOffer(b"r" * 16, b"", b"", 9103, b"b" * 32, b"")
    talk.call(PEER, (b"r" * 16,), 1.0)
    talk.due(1.0)
    assert talk.take(Meet(b"k" * 32, PEER, (), False, (offer,), 8), 1.1).events != ()
    assert times_of(talk, Call, 1.4) == [1.3]
    talk.take(MEET, 1.5)
    assert times_of(talk, Call, 14.0) == []


def test_a_refusal_counts_for_a_call_that_waits_alone() -> None:
    talk = talk_known()
    refused = Nothing(PEER, Why.AWAY)
    assert talk.take(refused, 1.0).events == ()
    talk.call(PEER, (), 1.0)
    assert talk.take(refused, 1.1).events == (refused,)
    assert talk.take(refused, 1.2).events == ()


def test_the_same_call_waits_once_another_replaces_it() -> None:
    talk = talk_known()
    talk.call(PEER, (), 1.0)
    (first,) = talk.due(1.0).replies
    talk.call(PEER, (), 1.1)
    assert talk.due(1.1).replies == ()
    talk.call(PEER, (b"r" * 16,), 1.2)
    (second,) = talk.due(1.2).replies
    assert isinstance(first, Call)
    assert isinstance(second, Call)
    assert second.counter > first.counter


def test_calls_that_wait_are_bounded() -> None:
    talk = talk_known()
    for number in range(MAX_WAITING + 50):
        talk.call(number.to_bytes(4, "big"), (), 1.0)
    assert len(talk.due(1.0).replies) == MAX_WAITING


def test_a_signal_is_repeated_until_it_has_arrived() -> None:
    talk = talk_known()
    talk.signal(PEER, SignalCode.FALL_BACK, 1.0)
    (said,) = talk.due(1.0).replies
    assert isinstance(said, Signal)
    assert talk.due(1.3).replies == (said,)
    talk.take(Signalled(said.counter, tunnel_bytes("10.64.0.99")), 1.4)
    assert talk.due(1.9).replies == (said,)
    talk.take(Signalled(said.counter, PEER), 2.0)
    assert times_of(talk, Signal, 14.0) == []


def test_a_signal_that_comes_twice_is_told_once() -> None:
    talk = talk_known()
    signal = Signal(9, PEER, SignalCode.RESTARTED)
    assert talk.take(signal, 1.0).events == (signal,)
    again = talk.take(signal, 1.1)
    assert again.events == ()
    assert again.replies == (Signalled(9, PEER),)
