"""A server whose provider gives it another address tells the others, once it is sure."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from seipd.config.model import Settings
from seipd.daemon import network
from seipd.daemon.network import is_found, with_public_address
from seipd.daemon.own_address import CONFIRM_S, LOOK_S, AddressWatch
from services.edge.stun.asking import Seen

OLD, NEW, INNER = "198.51.100.7", "198.51.100.8", "10.64.0.9"
SERVERS = [("203.0.113.1", 3478)]


class World:
    """What STUN servers say, and who is told."""

    def __init__(self) -> None:
        self.host: str | None = OLD
        self.told: list[str] = []
        self.asked: list[object] = []
        clock = SimpleNamespace(monotonic_s=lambda: 0.0, now_ms=lambda: 0)
        self.watch = AddressWatch(
            host=OLD,
            servers=lambda: SERVERS,
            is_inner=lambda host: host == INNER,
            tell=SimpleNamespace(),
            clock=clock,
            find=self.find,
        )
        self.watch.on_change.append(self.told.append)

    async def find(self, servers: object) -> Seen | None:
        self.asked.append(servers)
        return self.host and seen(self.host)


def seen(host: str, *, is_symmetric: bool = False) -> Seen:
    return Seen(host=host, port=40_000, is_symmetric=is_symmetric, answers_count=1)


@pytest.fixture
def world() -> World:
    return World()


async def test_the_same_address_is_no_news(world: World) -> None:
    assert await world.watch.look() == LOOK_S
    assert world.told == []
    assert world.asked == [SERVERS]


async def test_another_one_is_told_after_the_second_look(world: World) -> None:
    world.host = NEW
    assert await world.watch.look() == CONFIRM_S
    assert (world.told, world.watch.host) == ([], OLD)
    assert await world.watch.look() == LOOK_S
    assert (world.told, world.watch.host) == ([NEW], NEW)
    await world.watch.look()
    assert world.told == [NEW]
    assert NEW in world.watch.health().detail


async def test_what_was_said_once_is_forgotten(world: World) -> None:
    for world.host in (NEW, OLD, NEW, None, NEW):
        await world.watch.look()
    assert world.told == []


async def test_an_address_inside_of_the_mesh_is_none(world: World) -> None:
    world.host = INNER
    for _ in range(3):
        assert await world.watch.look() == LOOK_S
    assert world.told == []


async def test_an_address_that_was_found_is_known_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    async def find(servers: object) -> Seen:
        return seen(NEW, is_symmetric=True)

    monkeypatch.setattr(network, "find_address", find)
    found = await with_public_address(Settings(stun_servers="203.0.113.1"))
    assert (found.public_address, is_found(found)) == (NEW, True)
    assert (await with_public_address(Settings(), SERVERS)).public_address == NEW


@pytest.mark.parametrize(
    "settings",
    [
        Settings(public_address=OLD, stun_servers="203.0.113.1"),
        Settings(public_address="none", stun_servers="203.0.113.1"),
        Settings(bind_address=OLD, stun_servers="203.0.113.1"),
        Settings(),
    ],
    ids=["given", "hidden", "bound", "nobody to ask"],
)
async def test_nobody_is_asked_where_there_is_nothing_to_find_out(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def find(servers: object) -> Seen:
        raise AssertionError

    monkeypatch.setattr(network, "find_address", find)
    assert await with_public_address(settings) == settings
    assert not is_found(settings)


async def test_where_no_server_answers_all_is_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    async def find(servers: object) -> None:
        return None

    monkeypatch.setattr(network, "find_address", find)
    assert (await with_public_address(Settings(), SERVERS)).public_address == ""
