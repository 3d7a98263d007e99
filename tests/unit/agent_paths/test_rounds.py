"""A target that never answered gets five packets a round, and rounds are apart."""

from __future__ import annotations

from seipd.agent.paths.candidates import BURST_S, ROUNDS_APART_S, CandidateBook

VICTIM = ("198.51.100.9", 5000)
OTHER = ("203.0.113.7", 40000)


def sent(book: CandidateBook, from_s: float, to_s: float) -> list[tuple[str, int]]:
    """Return where pings go in a span of time."""
    found = []
    for step in range(round((to_s - from_s) * 20)):
        found += [address for address, _ in book.take_due(from_s + step / 20)]
    return found


def test_stn_11_a_target_that_is_named_again_and_again_gets_one_round() -> None:
    book = CandidateBook(0)
    hits = []
    for step in range(20):
        now_s = 100.0 + step / 10
        # Now with this one alone, now with others, so that it is forgotten between.
        book.replace([VICTIM] if step % 2 else [OTHER], now_s)
        book.burst(now_s)
        hits += sent(book, now_s, now_s + 0.1)
    assert hits.count(VICTIM) <= len(BURST_S)


def test_stn_11_a_source_that_is_forged_again_and_again_gets_one_round() -> None:
    book = CandidateBook(0)
    hits = []
    for step in range(20):
        now_s = 100.0 + step / 10
        book.replace([OTHER], now_s)
        book.add(VICTIM, now_s)
        hits += sent(book, now_s, now_s + 0.1)
    assert hits.count(VICTIM) <= len(BURST_S)


def test_the_next_round_comes_after_a_while() -> None:
    book = CandidateBook(0)
    book.replace([VICTIM], 100.0)
    book.burst(100.0)
    assert sent(book, 100.0, 100.0 + ROUNDS_APART_S) == [VICTIM] * len(BURST_S)
    book.burst(100.0 + ROUNDS_APART_S)
    assert sent(book, 100.0 + ROUNDS_APART_S, 105.0) == [VICTIM] * len(BURST_S)


def test_one_that_answered_is_asked_at_once_when_the_network_changes() -> None:
    book = CandidateBook(0)
    book.replace([OTHER], 100.0)
    book.burst(100.0)
    ((_, counter),) = book.take_due(100.0)
    assert book.answered(OTHER, counter, 100.02)
    sent(book, 100.05, 101.0)
    book.burst(101.0)
    assert sent(book, 101.0, 102.0) == [OTHER] * len(BURST_S)
