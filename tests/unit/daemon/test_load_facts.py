"""How much a server has to do: when it tells that, and who sees it where."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from types import SimpleNamespace

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from seipd.config.model import Settings
from seipd.daemon.load import LoadService, Occasions, interval_s, lifetime_ms
from seipd.daemon.mesh_info import DaemonInfo
from services.edge.wireguard.model import PeerStatus
from services.kernel.errors import UnavailableError
from services.mesh.facts.envelope import sign_envelope
from services.mesh.facts.kinds import KINDS, LOAD
from services.mesh.facts.payloads import LoadPayload, decode_payload, encode_payload
from services.mesh.facts.statewords import WordKeeper
from tests.fakes.one_server import OneServer
from tests.fakes.programs import run_program

NOW_MS = 1_700_000_000_000


class HandClock:
    def __init__(self) -> None:
        self.s = 100.0

    def now_ms(self) -> int:
        return NOW_MS + int(self.s * 1000)

    def monotonic_s(self) -> float:
        return self.s


class Bench:
    """A load service whose surroundings are set by hand."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.permille = 200
        self.told: list[tuple[LoadPayload, int]] = []
        self.away = ""
        server_key = b"s" * 32
        self.handshakes_s = {server_key: self.clock.now_ms() // 1000}
        charter = SimpleNamespace(
            servers=lambda: {"server-a": SimpleNamespace(wireguard_key=server_key)}
        )
        self.service = LoadService(
            ledger=SimpleNamespace(charter=charter),
            tell=self,
            tunnels=self,
            version="1.2.3",
            clock=self.clock,
            measure=lambda: self.permille,
        )

    def publish_fact(self, kind: int, payload: bytes, *, lifetime_ms: int) -> None:
        if self.away:
            raise UnavailableError(self.away)
        assert kind == LOAD
        self.told.append((decode_payload(payload, LoadPayload), lifetime_ms))

    async def peers(self) -> dict[bytes, PeerStatus]:
        return {
            key: PeerStatus(
                public_key=key,
                endpoint=None,
                allowed_ips=(),
                keepalive_seconds=0,
                last_handshake_s=at_s,
            )
            for key, at_s in self.handshakes_s.items()
        }

    async def look_after(self, seconds: float) -> int:
        self.clock.s += seconds
        await self.service.look()
        return len(self.told)


async def test_a_load_is_told_twice_a_minute_and_when_it_has_changed_much() -> None:
    bench = Bench()
    assert await bench.look_after(0) == 1
    assert await bench.look_after(29) == 1
    bench.permille = 300
    assert await bench.look_after(0.5) == 1
    bench.permille = 301
    assert await bench.look_after(0.4) == 2
    assert await bench.look_after(29.9) == 2
    assert await bench.look_after(0.2) == 3
    assert [load.cpu_permille for load, _ in bench.told] == [200, 301, 301]


async def test_only_endpoints_that_had_a_handshake_of_late_count() -> None:
    bench = Bench()
    now_s = bench.clock.now_ms() // 1000
    bench.handshakes_s |= {b"a" * 32: now_s - 20, b"b" * 32: now_s - 200, b"c" * 32: 0}
    await bench.look_after(0)
    assert bench.told == [
        (LoadPayload(cpu_permille=200, endpoints_count=1, version="1.2.3"), 120_000)
    ]


async def test_what_could_not_be_told_is_told_at_the_next_look() -> None:
    bench = Bench()
    bench.away = "gossip is not running"
    assert await bench.look_after(0) == 0
    assert "gossip is not running" in bench.service.health().detail
    bench.away = ""
    assert await bench.look_after(5) == 1
    assert bench.service.health().detail == ""


def test_a_large_mesh_hears_one_load_in_two_seconds_in_all() -> None:
    assert [interval_s(count) for count in (1, 15, 1000)] == [30.0, 30.0, 2000.0]
    assert lifetime_ms(10) == 120_000
    assert lifetime_ms(100_000) == KINDS[LOAD].max_lifetime_ms
    occasions = Occasions()
    occasions.told(200, now_s=0.0)
    assert not occasions.is_one(210, servers_count=1000, now_s=1999.0)
    assert occasions.is_one(210, servers_count=1000, now_s=2000.0)


@pytest.fixture
async def server(tmp_path):
    one = await OneServer.start(tmp_path / "data")
    load = LoadPayload(cpu_permille=731, endpoints_count=12, version="1.2.3")
    fact = sign_envelope(
        one.identity.signing_key,
        bytes.fromhex(one.ledger.mesh_id),
        kind=LOAD,
        payload=encode_payload(load),
        counter=1,
        now_ms=one.clock.now_ms(),
        lifetime_ms=120_000,
    )
    gossip = SimpleNamespace(
        peers=list,
        addresses=dict,
        facts=lambda kind: {fact.server_id: fact} if kind == LOAD else {},
        counters=lambda: {"sent": 7, "refused_jump": 1},
    )
    info = DaemonInfo(
        settings=Settings(data_root=one.folder),
        public_address="127.0.0.1",
        version="test",
        ledger=one.ledger,
        gossip=gossip,
        wireguard=None,
        names=SimpleNamespace(slots=dict),
        trust=one.trust,
        release_of=lambda _: {"version": "1.2.2", "code": None},
        words=WordKeeper(lambda: None),
        through=dict,
        clock=one.clock,
    )
    still = one.services.mesh
    still.servers, still.counters = info.servers, info.counters
    yield one
    await one.stop()


async def test_anyone_sees_the_load_of_each_server(server) -> None:
    async with TestClient(TestServer(server.app("public"))) as client:
        (listed,) = (await (await client.get("/api/servers")).json())["servers"]
    assert listed["load"] == {"cpu_percent": 73, "endpoints": 12, "version": "1.2.3", "protocol": 1}
    assert "release" not in listed


async def test_seipd_servers_shows_it_as_a_table_and_as_json(server) -> None:
    (server.folder / "run").mkdir()
    runner = web.AppRunner(server.app("operator"))
    await runner.setup()
    await web.UnixSite(runner, str(server.folder / "run/seipd.sock")).start()

    async def seipd(*arguments: str) -> str:
        words = (f"--data-root={server.folder}", *arguments)
        done = await asyncio.to_thread(run_program, "seipd", *words)
        assert done.returncode == 0
        return done.stdout

    table, document = await seipd("servers"), json.loads(await seipd("servers", "--json"))
    await runner.cleanup()
    heads, row = (line.split() for line in table.splitlines() if line.strip())
    assert heads[-3:] == ["cpu", "endpoints", "release"]
    assert row[-4:] == ["73", "%", "12", "1.2.2"]
    assert [one["load"]["endpoints"] for one in document] == [12]


async def test_metrics_count_gossip_and_members_under_fixed_names(server) -> None:
    async with TestClient(TestServer(server.app("operator"))) as operator:
        text = await (await operator.get("/metrics")).text()
    assert "seipd_gossip_sent_total 7.0\n" in text
    assert "seipd_gossip_refused_jump_total 1.0\n" in text
    assert 'seipd_members{state="alive"} 1.0\n' in text
    assert 'seipd_members{state="dead"} 0.0\n' in text


async def test_a_server_that_has_told_nothing_yet_has_no_load(server) -> None:
    quiet = dataclasses.replace(server.services)
    quiet.mesh.servers = lambda: [
        {"server_id": server.ledger.server_id, "address": None, "load": None, "state": "alive"}
    ]
    async with TestClient(TestServer(server.app("public"))) as client:
        (listed,) = (await (await client.get("/api/servers")).json())["servers"]
    assert listed["load"] is None
