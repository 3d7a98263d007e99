"""How far servers are from each other, and what a person sees of a server that is in doubt."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace

import pytest
from aiohttp import web

from seipd.config.model import Settings
from seipd.daemon.latencies import LatencyService, interval_s, lifetime_ms, nearest, told_in
from seipd.daemon.mesh_info import DaemonInfo
from services.edge.wireguard.model import PeerStatus
from services.kernel.errors import UnavailableError
from services.mesh.facts.envelope import sign_envelope
from services.mesh.facts.kinds import KINDS, LATENCY
from services.mesh.facts.payloads import MAX_LATENCIES, decode_payload, encode_payload
from services.mesh.facts.payloads import LatencyPayload as Payload
from services.mesh.facts.statewords import WordKeeper
from services.mesh.gossip.peerstate import PeerState
from services.mesh.membership.states import State
from tests.fakes.neighbour import Neighbour
from tests.fakes.one_server import OneServer
from tests.fakes.programs import run_program

FAR = "server-00000000000000ff"


class Bench:
    """A latency service whose measurements are set by hand."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.measured: dict[str, float] = {}
        self.told: list[tuple[dict[str, int], int]] = []
        self.away = ""
        clock = SimpleNamespace(monotonic_s=lambda: self.now_s)
        self.service = LatencyService(measured=lambda: self.measured, tell=self, clock=clock)

    def publish_fact(self, kind: int, payload: bytes, *, lifetime_ms: int) -> None:
        if self.away:
            raise UnavailableError(self.away)
        assert kind == LATENCY
        fact = SimpleNamespace(payload=payload)
        self.told.append((told_in(fact), lifetime_ms))

    def look_after(self, seconds: float) -> int:
        self.now_s += seconds
        self.service.look()
        return len(self.told)


def test_round_trips_are_told_once_a_minute_and_when_somebody_new_was_measured() -> None:
    bench = Bench()
    assert bench.look_after(100) == 0
    bench.measured = {FAR: 83.6}
    assert bench.look_after(1) == 1
    bench.measured = {FAR: 20.0}
    assert bench.look_after(59) == 1
    assert bench.look_after(1) == 2
    bench.measured["server-00000000000000aa"] = 0.3
    assert bench.look_after(1) == 3
    assert bench.told[0] == ({FAR: 84}, 240_000)
    assert bench.told[-1][0] == {FAR: 20, "server-00000000000000aa": 0}


def test_what_could_not_be_told_is_told_at_the_next_look() -> None:
    bench = Bench()
    bench.measured, bench.away = {FAR: 5.0}, "gossip is not running"
    assert bench.look_after(0) == 0
    assert "gossip is not running" in bench.service.health().detail
    bench.away = ""
    assert bench.look_after(0) == 1
    assert bench.service.health().detail == ""


def test_a_large_mesh_hears_of_the_nearest_and_seldom() -> None:
    measured = {f"server-{number:016x}": float(number) for number in range(999, 0, -1)}
    told = nearest({**measured, FAR: 1e9})
    assert [one.round_trip_ms for one in told.latencies] == list(range(1, MAX_LATENCIES + 1))
    payload = encode_payload(told)
    KINDS[LATENCY].check(payload)
    assert decode_payload(payload, Payload) == told
    assert (
        decode_payload(encode_payload(nearest({FAR: 1e9})), Payload).latencies[0]
        == (nearest({FAR: 60_000.0}).latencies[0])
    )
    assert interval_s(1000) == 16_000
    assert lifetime_ms(100_000) == KINDS[LATENCY].max_lifetime_ms


def peer_of(server_id: str) -> PeerState:
    return PeerState(
        server_id=server_id,
        address="203.0.113.5:9102",
        via=None,
        session_age_s=None,
        last_heard_s=12.0,
        lag_records=7,
        latency_ms=83.6,
        state=State.SUSPECT,
        why="no answer to this server since 3 s",
        uptime=0.5,
        checks=10,
    )


@pytest.fixture
async def server(tmp_path):
    """A server that doubts the other one and reaches it through a third."""
    one = await OneServer.start(tmp_path / "data")
    other = await Neighbour.join(one, tmp_path / "other")
    fact = sign_envelope(
        other.key,
        bytes.fromhex(one.ledger.mesh_id),
        kind=LATENCY,
        payload=encode_payload(nearest({one.ledger.server_id: 81.0})),
        counter=1,
        now_ms=one.clock.now_ms(),
        lifetime_ms=120_000,
    )
    device = PeerStatus(
        public_key=other.wireguard_key, endpoint=None, allowed_ips=(), keepalive_seconds=25
    )

    async def peers():
        return {other.wireguard_key: device}

    info = DaemonInfo(
        settings=Settings(data_root=one.folder),
        public_address="127.0.0.1",
        version="test",
        ledger=one.ledger,
        gossip=SimpleNamespace(
            peers=lambda: [peer_of(other.server_id)],
            addresses=dict,
            facts=lambda kind: {other.server_id: fact} if kind == LATENCY else {},
        ),
        wireguard=SimpleNamespace(peers=peers),
        names=SimpleNamespace(slots=dict),
        trust=one.trust,
        release_of=lambda _: None,
        words=WordKeeper(lambda: None),
        through=lambda: {other.server_id: FAR},
        clock=one.clock,
    )
    one.services.mesh.servers, one.services.mesh.peers = info.servers, info.peers
    (one.folder / "run").mkdir()
    runner = web.AppRunner(one.app("operator"))
    await runner.setup()
    await web.UnixSite(runner, str(one.folder / "run/seipd.sock")).start()
    yield SimpleNamespace(one=one, other=other)
    await runner.cleanup()
    await other.stop()
    await one.stop()


@pytest.mark.parametrize("command", ["servers", "peers"])
async def test_servers_and_peers_show_state_region_lag_latency_and_the_reason(
    server, command
) -> None:
    async def seipd(*arguments: str) -> str:
        words = (f"--data-root={server.one.folder}", *arguments)
        done = await asyncio.to_thread(run_program, "seipd", *words)
        assert done.returncode == 0
        return done.stdout

    table, document = await seipd(command), json.loads(await seipd(command, "--json"))
    name = server.other.server_id
    row = next(line for line in table.splitlines() if line.startswith(name)).split()
    heads = table.splitlines()[0].split()
    region = server.one.ledger.charter.server(name).region
    assert {"region", "state", "lag", "latency"} <= set(heads)
    assert {region, "suspect", "7", "84"} <= set(row)
    assert f"{name} is suspect: no answer to this server since 3 s" in table
    assert f"{name} is reached through {FAR}" in table
    (found,) = [one for one in document if name in (one.get("server_id"), one.get("name"))]
    assert (found["state"], found["lag_records"], found["latency_ms"]) == ("suspect", 7, 84)
    assert (found["region"], found["through"]) == (region, FAR)
    if command == "servers":
        assert found["latencies_ms"] == {server.one.ledger.server_id: 81}
