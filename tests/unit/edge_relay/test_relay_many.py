"""Ten thousand sessions: what they weigh, and that a packet costs the same among them."""

from __future__ import annotations

import asyncio
import gc
import socket
import sys
import tracemalloc

import pytest

from services.edge.relay.carrier import Carrier
from services.edge.relay.fairness import Fairness
from services.edge.relay.messages import ToSession, Verb
from services.edge.relay.model import Granted, Link
from services.edge.relay.userpath import UserPath
from tests.fakes.relay_book import Played, book_of, key_of, ticket_for

SESSIONS = 10_000


def fill(played: Played, sessions: int = SESSIONS) -> list[Link]:
    """Have so many sessions, each between two endpoints of their own, all bound."""
    links = []
    for number in range(sessions):
        a, b = key_of(2 * number + 1), key_of(2 * number + 2)
        ticket = ticket_for(a, b)
        for key, net in ((a, 1), (b, 2)):
            address = (
                f"198.{18 + (number >> 16)}.{number >> 8 & 255}.{number & 255}",
                net * 10_000,
            )
            granted = played.allocate(ticket, key, address)
            assert isinstance(granted, Granted)
            effects = played.say(granted, address)
            links += [one for one in effects if isinstance(one, Link)]
    return links


@pytest.mark.slow
def test_ten_thousand_sessions_take_less_than_a_kib_each():
    ticket_for(key_of(1), key_of(2))
    gc.collect()
    tracemalloc.start()
    played = Played(book_of())
    before, _ = tracemalloc.get_traced_memory()
    links = fill(played)
    path = UserPath(on_control=lambda data, address, place: None, monotonic_s=lambda: 0.0)
    path._senders = {one.place: _nowhere for link in links for one in (link.a, link.b)}
    carrier = Carrier(
        book=played.book,
        user=path,
        kernel=None,
        tell=lambda one: None,
        monotonic_s=lambda: played.now_s,
    )
    carrier.run(links)
    fairness = Fairness(10**6)
    for _ in range(2):
        fairness.rates(played.book, rate_kbits=carrier.rate_kbits, now_s=played.now_s)
        played.now_s += 1
    count = len(links)
    del links
    played.effects = []
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == len(played.book) == SESSIONS
    assert (after - before) / SESSIONS < 1024


def _nowhere(data, address) -> int:
    return len(data)


@pytest.mark.slow
def test_what_a_session_says_costs_the_same_among_many():
    """Counted in calls of functions, which no busy machine changes."""
    assert _calls(1) == _calls(2000)


def _calls(sessions: int) -> int:
    played = Played(book_of())
    fill(played, sessions - 1)
    a, b = key_of(10**6), key_of(10**6 + 1)
    granted = played.bind(ticket_for(a, b), a, ("203.0.113.1", 5000))
    count = 0

    def profile(frame, event, argument) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    message = ToSession(verb=Verb.HEARTBEAT, counter=10**9, token=granted.token)
    sys.setprofile(profile)
    try:
        played.book.hear(
            granted.direction,
            message,
            place=granted.place,
            address=("203.0.113.1", 5000),
            now_s=played.now_s,
        )
    finally:
        sys.setprofile(None)
    return count


async def test_packets_leave_nothing_behind():
    """Less than a block for two packets: what else runs in this process makes some, too."""
    path, link, sender, receiver = await _linked()
    packet = b"\x04\0\0\0" + bytes(1000)

    async def send(count: int) -> int:
        passed_before = path.passed_count
        for at in range(count):
            sender.sendto(packet, (link.a.place.host, link.a.place.port))
            if at % 32 == 0:
                await asyncio.sleep(0)
        await _settled(path)
        return path.passed_count - passed_before

    await send(500)
    gc.collect()
    before = sys.getallocatedblocks()
    passed = await send(2000)
    gc.collect()
    assert passed > 1000
    assert sys.getallocatedblocks() - before < passed // 2
    path.close()
    sender.close()
    receiver.close()


async def _settled(path: UserPath) -> None:
    passed = -1
    while path.passed_count != passed:
        passed = path.passed_count
        await asyncio.sleep(0.02)


async def _linked() -> tuple[UserPath, Link, socket.socket, socket.socket]:
    played = Played(book_of())
    sender, receiver = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    for sock in (sender, receiver):
        sock.bind(("127.0.0.1", 0))
        sock.setblocking(False)
    ticket = ticket_for(key_of(1), key_of(2), rate_kbits=100_000_000)
    links = []
    for key, sock in ((key_of(1), sender), (key_of(2), receiver)):
        granted = played.allocate(ticket, key, sock.getsockname(), host="127.0.0.1")
        links += [one for one in played.say(granted, sock.getsockname()) if isinstance(one, Link)]
    path = UserPath(
        on_control=lambda data, address, place: None,
        monotonic_s=asyncio.get_running_loop().time,
    )
    (link,) = links
    for side in (link.a, link.b):
        path.open(side.place)
    path.link(link)
    return path, link, sender, receiver
