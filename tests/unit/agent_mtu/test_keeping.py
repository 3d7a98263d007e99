"""The agent notices by itself that large packets vanish, and asks no more than it has to."""

from __future__ import annotations

import asyncio

import pytest

from seipd.agent.changes import Change
from seipd.agent.mtu import keeping
from seipd.agent.mtu.deciding import TunnelSize
from seipd.agent.mtu.keeping import AGAIN_S, MtuKeeper
from seipd.agent.mtu.searching import SMALL, Search
from seipd.agent.uplink import WayOut
from services.edge.wireguard.mtu import WaySize
from services.runtime.tasks import TaskOwner
from tests.fakes.peering import settled

HOME = WayOut(interface=2, own="192.168.1.2", router="192.168.1.1")
PHONE = WayOut(interface=3, own="10.33.0.7", router="10.33.0.1")
MESH = {"server": {"endpoint": "198.51.100.7:51940"}, "gateway": "10.64.0.1"}


class Network:
    """This machine's way out, what it carries, its clock; and the interface as it was set."""

    def __init__(self) -> None:
        self.way, self.link_bytes = HOME, 1500
        self.most = 1500
        self.now_s = 1000.0
        self.searched_count = 0
        self.set_to: list[int] = []
        self.refuses = 0
        self.while_searching = lambda: None
        self.mesh = MESH
        self.size = TunnelSize()
        self.keeper = MtuKeeper(self.size, "seip1", self)

    def monotonic_s(self) -> float:
        return self.now_s

    async def way_to(self, host: str, **_) -> WayOut:
        assert host == "198.51.100.7"
        return self.way

    async def size_of_way(self, host: str, **_) -> WaySize:
        return WaySize(link_bytes=self.link_bytes)

    async def search(self, mtu: int, ask) -> Search:
        self.searched_count += 1
        self.while_searching()
        found = Search(mtu)
        while found.outcome is None:
            found.take([one for one in found.sizes if one <= self.most])
        return found

    async def resize(self) -> None:
        if self.refuses:
            self.refuses -= 1
            raise ValueError("WireGuard is away")
        self.set_to.append(self.size.mtu)

    async def later(self, seconds: float) -> None:
        """Let time pass; the look of each ten seconds comes by itself."""
        self.now_s += seconds
        self.keeper._news.set()
        await settled()


@pytest.fixture
async def network(monkeypatch):
    made = Network()
    for name in ("way_to", "size_of_way", "search"):
        monkeypatch.setattr(keeping, name, getattr(made, name))
    tasks = TaskOwner("test")
    made.begin = lambda: made.keeper.begin(tasks, made, made.resize)
    yield made
    await tasks.close()


async def test_a_network_that_carries_everything_is_asked_once_in_ten_minutes(network) -> None:
    network.begin()
    await settled()
    await network.later(AGAIN_S - 1)
    assert (network.set_to, network.searched_count) == ([1420], 1)
    await network.later(2)
    assert network.searched_count == 2


async def test_it_falls_where_large_packets_vanish_and_rises_on_another_network(network) -> None:
    network.most = 1350
    network.begin()
    await settled()
    assert network.set_to == [1420, 1344]
    assert network.size.facts()["by"] == "path"
    network.way, network.most = PHONE, 1500
    await network.keeper.network_changed(Change.WAY)
    await settled()
    assert network.set_to == [1420, 1344, 1420]
    assert network.searched_count == 2


async def test_a_path_that_becomes_narrow_is_noticed_within_ten_minutes_and_once(network) -> None:
    network.begin()
    await settled()
    network.most = 1296
    await network.later(AGAIN_S + 1)
    await network.later(AGAIN_S + 1)
    assert network.set_to == [1420, 1296]


async def test_where_no_echo_comes_back_it_asks_less_and_less(network) -> None:
    network.most = 0
    network.begin()
    for _ in range(7200):
        await asyncio.sleep(0)
    for _ in range(120):
        await network.later(60)
    assert network.set_to == [1420]
    assert network.searched_count < 25, "in two hours"
    network.most = 1344
    await network.keeper.network_changed(Change.AWAKE)
    await settled()
    assert network.set_to == [1420, 1344]


async def test_a_server_that_comes_back_after_hours_is_asked_at_once(network) -> None:
    network.most = 0
    network.begin()
    for _ in range(20):
        await network.later(600)
    before = network.searched_count
    network.keeper.note_tunnel(connected=False)
    await network.later(1)
    assert network.searched_count == before
    network.most = 1344
    network.keeper.note_tunnel(connected=True)
    await settled()
    assert network.set_to == [1420, 1344]
    network.keeper.note_tunnel(connected=False)
    network.keeper.note_tunnel(connected=True)
    await settled()
    assert network.searched_count == before + 1, "nothing is new"


async def test_what_was_found_while_the_network_changed_is_of_no_network(network) -> None:
    network.most = 1296

    def changes() -> None:
        network.way, network.most = PHONE, 1500
        network.keeper.hurry()
        network.while_searching = lambda: None

    network.while_searching = changes
    network.begin()
    await settled()
    assert network.set_to == [1420]


async def test_an_interface_that_did_not_take_it_is_told_again(network, monkeypatch) -> None:
    monkeypatch.setattr("seipd.agent.steady.AGAIN_S", (0.0,))
    network.refuses = 1
    network.begin()
    await settled()
    assert network.set_to == [1420]


def test_small_is_smaller_than_anything_that_is_tried() -> None:
    assert all(one > SMALL for one in Search(1280).sizes[1:])
