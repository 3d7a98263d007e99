"""What ``seipd doctor`` says of the NAT in front: asked for, kept for some minutes."""

from __future__ import annotations

from types import SimpleNamespace

from seipd.daemon.outside import FRESH_S, Outside
from services.edge.stun.natkind import NatKind, NatReport

SERVERS = [("203.0.113.1", 3478)]
REPORT = NatReport(kind=NatKind.PORT_RESTRICTED, seen_as="198.51.100.7", asked="203.0.113.1")


class World:
    """STUN servers, and a clock."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.servers = list(SERVERS)
        self.asked_count = 0
        clock = SimpleNamespace(monotonic_s=lambda: self.now_s, now_ms=lambda: 0)
        self.outside = Outside(servers=lambda: self.servers, clock=clock, look=self.look)

    async def look(self, servers: object) -> NatReport:
        assert servers == SERVERS
        self.asked_count += 1
        return REPORT


async def test_it_says_what_lies_in_between_and_who_was_asked() -> None:
    assert await World().outside.shown() == {
        "kind": "port-restricted cone",
        "seen_as": "198.51.100.7",
        "asked": "203.0.113.1",
    }


async def test_where_there_is_nobody_to_ask_it_says_nothing() -> None:
    world = World()
    world.servers.clear()
    assert await world.outside.shown() is None
    assert world.asked_count == 0


async def test_the_answer_is_kept_for_some_minutes() -> None:
    world = World()
    for world.now_s in (0.0, 1.0, FRESH_S - 1):
        await world.outside.shown()
    assert world.asked_count == 1
    world.now_s = FRESH_S
    await world.outside.shown()
    assert world.asked_count == 2
