"""What is believed of the answers of several STUN servers."""

from __future__ import annotations

import itertools

import pytest

from services.edge.stun.answering import Answerer, Places
from services.edge.stun.asking import DEFAULT_PORT, Inquiry, Seen, parse_servers
from services.edge.stun.messages import BINDING_ERROR, Message, encode, parse
from services.kernel.errors import InputError

FIRST = ("203.0.113.1", 3478)
SECOND = ("203.0.113.2", 3478)
THIRD = ("203.0.113.3", 3478)
MAPPED = ("198.51.100.7", 40_000)


def inquiry(*servers: tuple[str, int]) -> Inquiry:
    numbers = itertools.count()
    return Inquiry(servers, token=lambda size: next(numbers).to_bytes(size, "big"))


def answer(asked: Inquiry, server: tuple[str, int], mapped: tuple[str, int]) -> bytes:
    """Return what a server says that sees us at ``mapped``."""
    question = next(data for data, where in asked.questions() if where == server)
    said = Answerer().reply(question, mapped, 0.0)
    assert said is not None
    return said


def test_one_server_says_who_we_are() -> None:
    asked = inquiry(FIRST)
    assert not asked.is_done
    asked.heard(answer(asked, FIRST, MAPPED), FIRST)
    assert asked.is_done
    assert asked.seen() == Seen(host=MAPPED[0], port=MAPPED[1], is_symmetric=False, answers_count=1)


def test_questions_are_asked_until_they_are_answered() -> None:
    asked = inquiry(FIRST, SECOND)
    assert [where for _, where in asked.questions()] == [FIRST, SECOND]
    asked.heard(answer(asked, FIRST, MAPPED), FIRST)
    assert [where for _, where in asked.questions()] == [SECOND]


def test_without_an_answer_nothing_is_known() -> None:
    assert inquiry(FIRST).seen() is None
    assert inquiry().is_done


def test_stn_10_two_ports_at_two_servers_mean_a_symmetric_nat() -> None:
    asked = inquiry(FIRST, SECOND)
    asked.heard(answer(asked, FIRST, MAPPED), FIRST)
    asked.heard(answer(asked, SECOND, (MAPPED[0], 40_001)), SECOND)
    seen = asked.seen()
    assert seen is not None
    assert seen.is_symmetric
    assert seen.host == MAPPED[0]


def test_one_liar_among_three_does_not_decide() -> None:
    asked = inquiry(FIRST, SECOND, THIRD)
    asked.heard(answer(asked, FIRST, ("198.51.100.66", 1)), FIRST)
    asked.heard(answer(asked, SECOND, MAPPED), SECOND)
    asked.heard(answer(asked, THIRD, MAPPED), THIRD)
    seen = asked.seen()
    assert seen is not None
    assert (seen.host, seen.port) == MAPPED


def test_stn_09_an_answer_to_another_question_is_ignored() -> None:
    asked, other = inquiry(FIRST), Inquiry([FIRST], token=lambda size: b"\xff" * size)
    asked.heard(answer(other, FIRST, MAPPED), FIRST)
    assert asked.seen() is None
    assert asked.ignored_count == 1


def test_stn_09_an_answer_from_another_source_is_ignored() -> None:
    asked = inquiry(FIRST)
    data = answer(asked, FIRST, MAPPED)
    for source in (SECOND, (FIRST[0], 3479)):
        asked.heard(data, source)
    assert asked.seen() is None
    asked.heard(data, FIRST)
    assert asked.seen() is not None


@pytest.mark.parametrize(
    "mapped",
    [
        "127.0.0.1",
        "0.0.0.0",  # noqa: S104 (what a liar says)
        "224.0.0.1",
        "255.255.255.255",
        "169.254.169.254",
        "10.1.2.3",
        "172.16.5.5",
        "192.168.1.1",
        "100.64.0.1",
        "::1",
        "::",
        "ff02::1",
        "fe80::1",
        "fd00::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
    ],
)
def test_stn_09_an_address_that_nobody_else_could_use_is_ignored(mapped: str) -> None:
    asked = inquiry(FIRST)
    asked.heard(answer(asked, FIRST, (mapped, 40_000)), FIRST)
    assert asked.seen() is None


def test_stn_09_an_error_and_noise_are_ignored() -> None:
    asked = inquiry(FIRST)
    question, _ = asked.questions()[0]
    refusal = encode(Message(kind=BINDING_ERROR, transaction=parse(question).transaction))
    for data in (refusal, question, b"", b"\0" * 20, answer(asked, FIRST, MAPPED)[:-1]):
        asked.heard(data, FIRST)
    assert asked.seen() is None


def test_an_answer_counts_once() -> None:
    asked = inquiry(FIRST, SECOND)
    data = answer(asked, FIRST, MAPPED)
    asked.heard(data, FIRST)
    asked.heard(data, FIRST)
    seen = asked.seen()
    assert seen is not None
    assert seen.answers_count == 1


def test_a_server_with_two_addresses_is_noticed() -> None:
    asked = inquiry(FIRST)
    places = Places(hosts=(FIRST[0], SECOND[0]), ports=(3478, 3479))
    said = Answerer(places=places).reply(asked.questions()[0][0], MAPPED, 0.0)
    asked.heard(said or b"", FIRST)
    assert asked.others == {FIRST: (SECOND[0], 3479)}


def test_the_setting_names_servers_in_every_form() -> None:
    text = "198.51.100.1, stun.example.org:3479,[2001:db8::1]:99,[2001:db8::2],2001:db8::3"
    assert parse_servers(text) == (
        ("198.51.100.1", DEFAULT_PORT),
        ("stun.example.org", 3479),
        ("2001:db8::1", 99),
        ("2001:db8::2", DEFAULT_PORT),
        ("2001:db8::3", DEFAULT_PORT),
    )
    assert parse_servers("") == ()


@pytest.mark.parametrize(
    "text",
    [
        "a b",
        "198.51.100.1:0",
        "198.51.100.1:65536",
        "x:1:2",
        "[::1",
        "host:",
        ",".join("abcdefghi"),
    ],
)
def test_what_names_no_server_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse_servers(text)
