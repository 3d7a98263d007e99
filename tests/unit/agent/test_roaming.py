"""The running agent moves by what it measures; a list or an answer that is bad moves nothing."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from seipd.agent import roaming
from seipd.agent.answer import check_attached
from seipd.agent.roaming import Roaming, knock
from seipd.agent.serverlist import KnownServer, nearest, outside, save_servers, servers_of
from seipd.agent.state import AgentState
from services.kernel.errors import UnavailableError, UnreachableError, WireError

ONE, TWO, THREE = (f"server-{digit * 16}" for digit in "123")


@dataclass
class Clock:
    now_s: float = 0.0

    def now_ms(self) -> int:
        return int(self.now_s * 1000)

    def monotonic_s(self) -> float:
        return self.now_s


@dataclass
class Home:
    mesh: dict = field(
        default_factory=lambda: {
            "gateway": "10.64.0.1",
            "private_port": 9101,
            "allowed_ips": ["10.64.0.0/10", "172.16.0.0/22"],
            "server": {"server_id": ONE},
        }
    )
    received: int = 0
    is_alive: bool = True
    refuses: set[str] = field(default_factory=set)
    moves: list[tuple[str, str]] = field(default_factory=list)

    async def received_bytes(self) -> int:
        self.received += 100 if self.is_alive else 0
        return self.received

    async def move(self, server_id: str, address: str) -> None:
        self.moves.append((server_id, address))
        if server_id in self.refuses:
            raise UnreachableError("nobody answers")
        self.mesh = {**self.mesh, "server": {"server_id": server_id}}
        self.received, self.is_alive = 0, True


class Stage:
    """A mesh of three servers whose round trips a test sets, by address."""

    def __init__(self, tmp_path, monkeypatch) -> None:
        self.round_trips = {"192.0.2.1": 20.0, "192.0.2.2": 30.0, "192.0.2.3": 90.0}
        self.clock, self.home = Clock(), Home()
        state = AgentState(tmp_path)
        tmp_path.mkdir(mode=0o700, exist_ok=True)
        listed = [
            KnownServer(server_id=name, region="lab", address=f"192.0.2.{number}:9100")
            for number, name in enumerate((ONE, TWO, THREE), start=1)
        ]
        save_servers(state, listed)
        self.asked = self.searched = 0

        async def measured(host: str, port: int) -> float | None:
            return self.round_trips.get(host)

        async def fetched(mesh) -> list[KnownServer]:
            self.asked += 1
            return listed

        async def found() -> list[KnownServer]:
            self.searched += 1
            return listed

        monkeypatch.setattr(roaming, "knock", measured)
        monkeypatch.setattr(roaming, "fetch_servers", fetched)
        self.roaming = Roaming(state=state, home=self.home, clock=self.clock, find=found)

    async def pass_s(self, seconds: int) -> None:
        for _ in range(seconds):
            await self.roaming.look()
            self.clock.now_s += 1


@pytest.fixture
def stage(tmp_path, monkeypatch):
    return Stage(tmp_path / "state", monkeypatch)


async def test_at_peace_it_stays(stage) -> None:
    await stage.pass_s(180)
    assert stage.home.moves == []
    assert stage.asked == 3
    assert stage.roaming.latencies_ms() == {ONE: 20.0, TWO: 30.0, THREE: 90.0}


async def test_who_was_told_of_no_other_server_finds_them_by_dns(stage, monkeypatch) -> None:
    async def nothing(mesh) -> list[KnownServer]:
        return []

    monkeypatch.setattr(roaming, "fetch_servers", nothing)
    await stage.pass_s(30)
    assert stage.searched == 0
    stage.home.is_alive = False
    del stage.round_trips["192.0.2.1"]
    await stage.pass_s(14)
    assert stage.searched == 1
    assert stage.home.moves == [(TWO, "192.0.2.2:9100")]


async def test_a_dead_server_is_left_for_the_nearest_that_answers(stage) -> None:
    await stage.pass_s(30)
    stage.home.is_alive = False
    del stage.round_trips["192.0.2.1"]
    await stage.pass_s(12)
    assert stage.home.moves == [(TWO, "192.0.2.2:9100")]
    assert stage.roaming.moved_because == f"{ONE} was silent for 10 s"
    await stage.pass_s(60)
    assert len(stage.home.moves) == 1


async def test_who_refuses_is_passed_over_for_the_next(stage) -> None:
    await stage.pass_s(30)
    stage.home.is_alive, stage.home.refuses = False, {TWO}
    del stage.round_trips["192.0.2.1"]
    await stage.pass_s(13)
    assert [name for name, _ in stage.home.moves] == [TWO, THREE]


async def test_without_any_network_it_stays_and_goes_on(stage) -> None:
    await stage.pass_s(30)
    stage.home.is_alive = False
    stage.round_trips.clear()
    await stage.pass_s(300)
    assert stage.home.moves == []


async def test_a_slow_server_is_left_once(stage) -> None:
    await stage.pass_s(30)
    stage.round_trips["192.0.2.1"] = 900.0
    await stage.pass_s(60)
    assert stage.home.moves == [(TWO, "192.0.2.2:9100")]


async def test_a_closed_port_answers_too() -> None:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    assert await knock("127.0.0.1", port) is not None
    server.close()
    await server.wait_closed()
    assert await knock("127.0.0.1", port) is not None


@pytest.mark.parametrize(
    "value",
    [
        None,
        {},
        {"servers": [{"server_id": "s1", "region": "lab"}]},
        {"servers": [{"server_id": ONE, "region": "a b"}]},
        {"servers": [{"server_id": ONE, "region": "lab", "address": "host\nname:1"}]},
        {"servers": [{"server_id": ONE, "region": "lab", "address": "192.0.2.1:0"}]},
        {"servers": [{"server_id": ONE, "region": "lab"}] * 2049},
    ],
)
def test_a_list_that_is_not_good(value) -> None:
    with pytest.raises(WireError):
        servers_of(value)


def test_servers_without_an_address_are_left_out_and_the_own_region_goes_first() -> None:
    value = {
        "servers": [
            {"server_id": ONE, "region": "eu-west", "address": "192.0.2.1:9100"},
            {"server_id": TWO, "region": "us-east", "address": None},
            {
                "server_id": THREE,
                "region": "ap-south",
                "address": "192.0.2.3:9100",
                "load": {"cpu_percent": 130, "endpoints": 4},
            },
        ]
    }
    found = servers_of(value)
    assert [(one.server_id, one.load) for one in found] == [(ONE, 0.0), (THREE, 13.0)]
    assert [one.server_id for one in nearest(found, "ap-south", count=1)] == [THREE]


def test_a_server_without_a_public_address_is_no_way_out() -> None:
    listed = [
        KnownServer(server_id=ONE, region="lab", address="172.16.0.9:9100"),
        KnownServer(server_id=TWO, region="lab", address="192.0.2.2:9100"),
    ]
    found = outside(listed, ["10.64.0.0/10", "172.16.0.0/22", "fd00::/64"])
    assert [one.server_id for one in found] == [TWO]


def test_an_answer_that_changes_who_the_endpoint_is() -> None:
    with pytest.raises(WireError):
        check_attached({"node_id": "x"}, {})


async def test_a_tunnel_that_is_made_anew_is_silence_and_no_end(stage) -> None:
    await stage.pass_s(30)

    async def gone() -> int:
        raise UnavailableError("WireGuard is not up", code="wireguard_gone")

    stage.home.received_bytes = gone
    await stage.pass_s(12)
    assert stage.home.moves == [(TWO, "192.0.2.2:9100")]


async def test_its_silence_is_told(stage) -> None:
    await stage.pass_s(30)
    assert stage.roaming.silent_s <= 1
    stage.home.is_alive, stage.home.refuses = False, {TWO, THREE}
    await stage.pass_s(40)
    assert stage.roaming.silent_s in (40, 41)
