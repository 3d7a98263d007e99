"""The book knows who is here, and forgets; changes are told until they were heard of."""

from __future__ import annotations

from services.edge.punch.book import CHANGED_AGAIN_S, SILENT_S, Book, Outgoing
from services.edge.punch.messages import (
    CandidateKind,
    Changed,
    Here,
    Known,
    What,
    candidate,
    decode,
    host_bytes,
)
from services.edge.punch.parties import Party
from services.kernel.ids import ServerId
from tests.fakes.rendezvous import FakeParties, State

OWN, OTHER = ServerId("server-" + "1" * 16), ServerId("server-" + "2" * 16)
ADDRESS = "10.64.0.10"
KEY = b"k" * 32


def book_of(count: int = 1) -> tuple[Book, State]:
    state = State()
    for number in range(count):
        party = Party(node_id=f"n{number}", key=number.to_bytes(2, "big") + KEY[2:], carrier=OWN)
        state.endpoints[f"10.64.{number >> 7}.{10 + (number & 0x7F)}"] = party
    return Book(parties=FakeParties(OWN, state), first_version=100), state


def here(counter: int = 1, *, fresh: bool = False, policy: int = 0, peers: int = 0) -> Here:
    return Here(counter, (), False, fresh, policy, peers)


def read(outgoing: list[Outgoing]) -> list[object]:
    return [decode(one.data) for one in outgoing]


def test_who_is_carried_here_is_answered_and_a_stranger_is_not() -> None:
    book, state = book_of()
    (known,) = read(book.here(ADDRESS, here(7), 0.0))
    assert known == Known(7, b"", 0, 100, 100)
    assert book.here("10.64.0.99", here(7), 0.0) == []
    state.endpoints["10.64.0.50"] = Party(node_id="far", key=b"f" * 32, carrier=OTHER)
    assert book.here("10.64.0.50", here(7), 0.0) == []
    assert len(book) == 1


def test_who_is_silent_for_a_minute_is_forgotten() -> None:
    book, _ = book_of(2)
    book.here(ADDRESS, here(1), 0.0)
    book.here("10.64.0.11", here(1), 30.0)
    book.here(ADDRESS, here(2), 40.0)
    assert book.next_s == 30.0 + SILENT_S
    book.tick(91.0)
    assert book.get("10.64.0.11") is None
    assert book.get(ADDRESS) is not None
    book.tick(200.0)
    assert len(book) == 0
    assert book.next_s == float("inf")


def test_a_word_that_comes_late_changes_nothing_unless_the_endpoint_began_anew() -> None:
    book, _ = book_of()
    far = candidate(CandidateKind.STUN, "203.0.113.7", 4000)
    book.here(ADDRESS, Here(9, (far,), False, False, 0, 0), 0.0)
    assert book.here(ADDRESS, here(8), 1.0) == []
    one = book.get(ADDRESS)
    assert one is not None
    assert one.candidates == (far,)
    assert book.here(ADDRESS, here(2, fresh=True), 2.0) != []
    assert one.candidates == ()


def test_says_where_the_tunnel_comes_from_as_soon_as_that_is_known() -> None:
    book, _ = book_of()
    key = bytes(2) + KEY[2:]
    book.here(ADDRESS, here(1), 10.0)
    assert book.wants_look
    one = book.get(ADDRESS)
    assert one is not None
    assert not book.is_settled(one, 10.1)
    assert book.is_settled(one, 11.5)
    assert book.observe(key, "203.0.113.7", 4000, 9.9) == []
    (known,) = read(book.observe(key, "203.0.113.7", 4000, 10.0))
    assert known == Known(1, host_bytes("203.0.113.7"), 4000, 100, 100)
    assert book.is_settled(one, 10.1)
    assert book.observe(key, "203.0.113.7", 4000, 11.0) == []
    assert read(book.observe(key, "203.0.113.7", 4001, 12.0)) != []
    assert book.observe(b"s" * 32, "203.0.113.7", 4001, 12.0) == []


def test_what_was_observed_before_the_network_changed_counts_no_more() -> None:
    book, _ = book_of()
    key = bytes(2) + KEY[2:]
    book.here(ADDRESS, here(1), 10.0)
    book.observe(key, "203.0.113.7", 4000, 10.0)
    (known,) = read(book.here(ADDRESS, here(2, fresh=True), 20.0))
    assert isinstance(known, Known)
    assert known.observed is None
    assert book.observe(key, "203.0.113.7", 4000, 19.9) == []
    # The same word again begins nothing anew.
    book.observe(key, "203.0.113.8", 4000, 20.1)
    (again,) = read(book.here(ADDRESS, here(2, fresh=True), 20.5))
    assert isinstance(again, Known)
    assert again.observed == ("203.0.113.8", 4000)


def test_a_change_is_told_until_a_here_shows_it() -> None:
    book, _ = book_of(2)
    book.here(ADDRESS, here(1), 0.0)
    book.here("10.64.0.11", here(1), 0.0)
    (out,) = book.changed(What.POLICY, ["n0", "elsewhere"], 1.0)
    assert out.host == ADDRESS
    assert decode(out.data) == Changed(What.POLICY, 101)
    assert book.tick(1.2) == []
    assert read(book.tick(1.25)) == [Changed(What.POLICY, 101)]
    book.here(ADDRESS, here(2, policy=100), 1.3)
    assert read(book.tick(1.8)) == [Changed(What.POLICY, 101)]
    book.here(ADDRESS, here(3, policy=101), 1.9)
    assert book.tick(10.0) == []
    assert book.unheard_count == 0


def test_a_change_that_is_never_heard_of_is_given_up_and_still_known() -> None:
    book, _ = book_of()
    book.here(ADDRESS, here(1), 0.0)
    list(book.changed(What.PEERS, None, 1.0))
    said = sum(len(book.tick(1.0 + step / 20)) for step in range(20 * 20))
    assert said == len(CHANGED_AGAIN_S) - 1
    (known,) = read(book.here(ADDRESS, here(2), 30.0))
    assert known == Known(2, b"", 0, 100, 101)


def test_of_two_changes_the_newer_one_is_told() -> None:
    book, _ = book_of()
    book.here(ADDRESS, here(1), 0.0)
    list(book.changed(What.POLICY, None, 1.0))
    list(book.changed(What.POLICY, ["n0"], 1.1))
    assert read(book.tick(1.4)) == [Changed(What.POLICY, 102)]
    assert book.unheard_count == 1


def test_who_comes_back_after_a_change_hears_of_it() -> None:
    book, _ = book_of()
    assert list(book.changed(What.POLICY, ["n0"], 1.0)) == []
    (known,) = read(book.here(ADDRESS, here(1), 2.0))
    assert known == Known(1, b"", 0, 101, 100)


def test_an_address_that_went_to_another_node_is_the_other_one_now() -> None:
    book, state = book_of()
    book.here(ADDRESS, here(9), 0.0)
    state.endpoints[ADDRESS] = Party(node_id="next", key=b"n" * 32, carrier=OWN)
    book.here(ADDRESS, here(1), 1.0)
    assert len(book) == 1
    one = book.get(ADDRESS)
    assert one is not None
    assert (one.node_id, one.key, one.counter) == ("next", b"n" * 32, 1)
    assert book.observe(bytes(2) + KEY[2:], "203.0.113.7", 4000, 5.0) == []


def test_tells_many_in_turn_and_each_costs_the_same() -> None:
    book, _ = book_of(2000)
    for number in range(2000):
        book.here(f"10.64.{number >> 7}.{10 + (number & 0x7F)}", here(1), 0.0)
    told = book.changed(What.POLICY, None, 1.0)
    assert len([next(told) for _ in range(10)]) == 10
    assert book.unheard_count == 10
    assert sum(1 for _ in told) == 1990
