"""Which path carries a session, and what happens where the kernel refuses."""

from __future__ import annotations

import asyncio

import pytest

from services.edge.relay import tables
from services.edge.relay.carrier import Carrier
from services.edge.relay.kernelpath import Leave, Seen
from services.edge.relay.messages import Verb
from services.edge.relay.model import Link, Place, Side, Tell, Unlink
from services.runtime.nft import NftError
from services.runtime.tasks import TaskOwner
from tests.fakes.relay_book import HOST, Played, book_of, key_of, ticket_for

A, B = key_of(1), key_of(2)
AT_A, AT_B = ("198.18.1.1", 5000), ("198.18.2.2", 6000)
AT_B6 = ("2001:db8::2", 6000, 0, 0)
HOST6 = "2001:db8::1"


class Kernel:
    """What the kernel was told; ``fails`` is how many calls it refuses."""

    def __init__(self) -> None:
        self.told: list = []
        self.rebuilt: list = []
        self.fails = 0
        self.is_closed = False
        self.seen = Seen(bytes_by_direction={}, taken_packets=0, sent_packets=0)

    def _refuse(self) -> None:
        if self.fails:
            self.fails -= 1
            raise NftError("no", code="nft_missing")

    def arrive(self, host, interface) -> bool:
        return interface != "closed"

    def apply(self, changes) -> None:
        self._refuse()
        self.told += changes

    def set_rates(self, rates) -> None:
        self.told += [(link.number, link.rate_kbits) for link, _ in rates]

    def rebuild(self, links, left) -> None:
        self._refuse()
        self.rebuilt.append((list(links), list(left)))

    def read(self) -> Seen:
        return self.seen

    def close(self) -> None:
        self.is_closed = True


class Program:
    def __init__(self) -> None:
        self.linked: set[int] = set()

    def link(self, one) -> None:
        self.linked.add(one.number)

    def unlink(self, number) -> None:
        self.linked.discard(number)

    def set_rate(self, number, rate_kbits) -> None:
        pass

    def take_passed(self, direction) -> int:
        return 0

    def close(self) -> None:
        pass


class World:
    def __init__(self) -> None:
        self.played = Played(book_of())
        self.kernel, self.program = Kernel(), Program()
        self.said: list = []
        self.carrier = Carrier(
            book=self.played.book,
            user=self.program,
            kernel=self.kernel,
            tell=lambda one: self.said.append((one, len(self.kernel.told))),
            monotonic_s=lambda: self.played.now_s,
        )

    def arrive(self, host=HOST, interface="eth0") -> None:
        self.carrier.arrive(host, interface)

    def bind(self, key, address, host=HOST):
        ticket = ticket_for(A, B)
        granted = self.played.allocate(ticket, key, address, host=host)
        self.carrier.run(self.played.effects)
        self.carrier.run(self.played.say(granted, address))
        return granted

    async def settle(self) -> None:
        await self.carrier.look()


@pytest.fixture
async def world():
    world = World()
    tasks = TaskOwner("test")
    tasks.spawn(world.carrier.drive(), name="drive")
    yield world
    await tasks.close()


async def test_who_is_bound_is_told_once_the_kernel_carries(world):
    world.arrive()
    world.bind(A, AT_A)
    world.bind(B, AT_B)
    await world.settle()
    assert [type(one) for one in world.kernel.told] == [Link]
    together = [after for one, after in world.said if one.answer.state == 2]
    assert together == [1, 1]
    assert world.program.linked == set()


async def test_what_arrives_where_nothing_is_forwarded_goes_by_the_program(world):
    world.arrive(interface="closed")
    world.bind(A, AT_A)
    world.bind(B, AT_B)
    await world.settle()
    assert world.program.linked == {0}
    assert [type(one) for one in world.kernel.told] == [Leave, Leave]
    assert "does not forward" in world.carrier.trouble


async def test_two_families_go_by_the_program(world):
    world.arrive()
    world.arrive(HOST6)
    world.bind(A, AT_A)
    granted = world.bind(B, AT_B6, HOST6)
    await world.settle()
    assert world.program.linked == {0}
    world.carrier.run(world.played.say(granted, AT_B6, Verb.TEARDOWN))
    await world.settle()
    assert world.program.linked == set()
    assert [one.wanted for one in world.kernel.told] == [True, True, False, False]


async def test_two_ports_go_by_the_program(world):
    """The table takes it that a session has one data port; where that was barred, it has two."""
    world.arrive()
    a = world.bind(A, AT_A)
    world.played.book.bar_port(a.place.port)
    b = world.bind(B, AT_B)
    await world.settle()
    assert a.place.port != b.place.port
    assert world.program.linked == {0}
    assert [type(one) for one in world.kernel.told] == [Leave, Leave]


async def test_a_refused_change_has_the_table_made_anew(world):
    world.arrive()
    world.bind(A, AT_A)
    world.kernel.fails = 1
    world.bind(B, AT_B)
    await world.settle()
    ((links, left),) = world.kernel.rebuilt
    assert [one.number for one in links] == [0]
    assert left == []
    assert world.carrier.has_kernel


async def test_a_kernel_that_goes_on_refusing_is_done_without(world):
    world.arrive()
    world.bind(A, AT_A)
    world.kernel.fails = 2
    world.bind(B, AT_B)
    await world.settle()
    assert not world.carrier.has_kernel
    assert world.kernel.is_closed
    assert world.program.linked == {0}
    assert [one for one, _ in world.said if isinstance(one, Tell)][-1].answer.state == 2


async def test_another_firewall_is_blamed_and_gone_around(world):
    world.arrive()
    world.bind(A, AT_A)
    world.bind(B, AT_B)
    world.kernel.seen = Seen(bytes_by_direction={}, taken_packets=100, sent_packets=95)
    await world.settle()
    assert world.carrier.has_kernel
    world.kernel.seen = Seen(bytes_by_direction={}, taken_packets=200, sent_packets=5)
    await world.settle()
    assert not world.carrier.has_kernel
    assert "another firewall" in world.carrier.trouble
    assert world.program.linked == {0}


async def test_what_the_kernel_counts_is_a_sign_of_life(world):
    world.arrive()
    a = world.bind(A, AT_A)
    world.bind(B, AT_B)
    await world.settle()
    for total in (1000, 1500):
        world.kernel.seen = Seen(
            bytes_by_direction={a.direction: total}, taken_packets=0, sent_packets=0
        )
        await world.settle()
    assert world.played.book.carried_bytes(a.direction) == 1500


async def test_a_session_that_ends_is_cut_before_anybody_is_told(world):
    world.arrive()
    world.bind(A, AT_A)
    world.bind(B, AT_B)
    await world.settle()
    world.said.clear()
    world.carrier.run(world.played.book.revoke(A))
    await world.settle()
    assert [type(one) for one in world.kernel.told] == [Link, Unlink]
    assert [after for _, after in world.said] == [2, 2]


async def test_only_rates_that_change_are_told(world):
    world.arrive()
    world.bind(A, AT_A)
    world.bind(B, AT_B)
    await world.settle()
    world.carrier.set_rates({0: 20_000})
    world.carrier.set_rates({0: 5_000})
    await world.settle()
    assert world.kernel.told[1:] == [(0, 5_000)]
    assert world.carrier.rate_kbits(0) == 5_000


async def test_without_a_kernel_all_is_done_at_once():
    played, program, said = Played(book_of()), Program(), []
    carrier = Carrier(
        book=played.book,
        user=program,
        kernel=None,
        tell=said.append,
        monotonic_s=lambda: 0.0,
    )
    for key, address in ((A, AT_A), (B, AT_B)):
        granted = played.allocate(ticket_for(A, B), key, address)
        carrier.run(played.say(granted, address))
    assert program.linked == {0}
    assert len(said) == 3
    await asyncio.sleep(0)


def test_addresses_are_spelled_by_us():
    """A scope, or anything else that a text could bring, never gets into a command."""
    side = Side(place=Place(host=HOST, port=9104), address=("198.18.1.1\n}", 5000))
    with pytest.raises(ValueError, match="does not appear to be"):
        tables.link("t", Link(number=0, a=side, b=side, rate_kbits=8), rate_kbits=8)
