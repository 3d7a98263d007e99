"""The client over real sockets: servers of ours on this machine, and liars."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from services.edge.stun import natkind
from services.edge.stun.answering import Answerer
from services.edge.stun.client import find_address
from services.edge.stun.natkind import NatKind, look_at_nat
from services.edge.stun.service import ANY4
from services.runtime.udp import UdpSocket

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from services.runtime.udp import Address

PUBLIC = "198.51.100.7"


@asynccontextmanager
async def server(
    answer: Callable[[bytes, Address], bytes | None], host: str = "127.0.0.1"
) -> AsyncIterator[Address]:
    """Run a STUN server that says what it likes."""

    def on_datagram(data: bytes, source: Address) -> None:
        if (said := answer(data, source)) is not None:
            sock.send(said, source)

    sock = UdpSocket(on_datagram)
    port = sock.open(host, 0)
    try:
        yield host, port
    finally:
        sock.close()


def seen_at(host: str, port: int | None = None) -> Callable[[bytes, Address], bytes | None]:
    """Return a server that sees everybody there, as if behind a NAT."""
    answerer = Answerer()
    return lambda data, source: answerer.reply(data, (host, port or source[1]), 0.0)


async def test_the_address_that_servers_agree_on_is_found() -> None:
    async with server(seen_at(PUBLIC)) as one, server(seen_at(PUBLIC)) as other:
        seen = await find_address([one, other])
    assert seen is not None
    assert (seen.host, seen.is_symmetric) == (PUBLIC, False)


async def test_over_ipv6_too() -> None:
    async with server(seen_at("2001:db8::7"), host="::1") as one:
        seen = await find_address([one], family=6)
        assert await find_address([one], family=4, deadline_s=0.3) is None
    assert seen is not None
    assert seen.host == "2001:db8::7"


async def test_a_server_that_misses_the_first_question_is_asked_again() -> None:
    heard: list[bytes] = []
    answer = seen_at(PUBLIC)

    def deaf_at_first(data: bytes, source: Address) -> bytes | None:
        heard.append(data)
        return answer(data, source) if len(heard) > 1 else None

    async with server(deaf_at_first) as one:
        seen = await find_address([one], deadline_s=30)
    assert seen is not None
    assert heard[0] == heard[1]


async def test_silence_is_given_up() -> None:
    async with server(lambda data, source: None) as one:
        assert await find_address([one], deadline_s=0.5) is None
    assert await find_address([]) is None


async def test_a_name_that_nobody_knows_is_left_out() -> None:
    async with server(seen_at(PUBLIC)) as one:
        seen = await find_address([("no-such-name.invalid", 3478), one], deadline_s=30)
    assert seen is not None
    assert seen.answers_count == 1


async def test_stn_09_what_a_liar_answers_is_ignored_and_the_next_believed() -> None:
    liars = [seen_at("127.0.0.1"), seen_at("10.0.0.1"), seen_at(ANY4), lambda data, _: data]

    def from_elsewhere(data: bytes, source: Address) -> bytes | None:
        other.send(seen_at("203.0.113.66")(data, source) or b"", source)
        return None

    other = UdpSocket(lambda data, source: None)
    other.open("127.0.0.1", 0)
    try:
        async with (
            server(liars[0]) as a,
            server(liars[1]) as b,
            server(liars[2]) as c,
            server(liars[3]) as d,
            server(from_elsewhere) as e,
            server(seen_at(PUBLIC)) as honest,
        ):
            seen = await find_address([a, b, c, d, e, honest], deadline_s=30)
    finally:
        other.close()
    assert seen is not None
    assert (seen.host, seen.answers_count) == (PUBLIC, 1)


async def test_stn_10_two_ports_at_two_servers_are_a_symmetric_nat_and_no_error() -> None:
    async with server(seen_at(PUBLIC, 1111)) as one, server(seen_at(PUBLIC, 2222)) as other:
        seen = await find_address([one, other])
        report = await look_at_nat([one, other])
    assert seen is not None
    assert seen.is_symmetric
    assert (report.kind, report.seen_as) == (NatKind.SYMMETRIC, PUBLIC)


async def test_without_an_answer_the_way_out_is_blocked() -> None:
    async with server(lambda data, source: None) as one:
        assert (await look_at_nat([one], deadline_s=0.3)).kind is NatKind.BLOCKED


async def test_a_server_with_one_address_can_tell_only_that_there_is_some_nat() -> None:
    async with server(seen_at(PUBLIC)) as one:
        report = await look_at_nat([one])
    assert (report.kind, report.seen_as, report.asked) == (NatKind.SOME, PUBLIC, None)


async def test_a_server_that_refuses_the_tests_does_not_hold_us_up() -> None:
    """At 420 pystun3 asks for ever."""
    liar = Answerer()
    async with server(lambda data, source: liar.reply(data, (PUBLIC, source[1]), 0.0)) as one:
        assert await asyncio.to_thread(natkind._test, one, deadline_s=5.0) == ""
