"""A server that nobody talks to finds out that it was revoked, and believes the root alone."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest
from aiohttp.test_utils import TestClient, TestServer

from seipd.daemon.standing import MAX_PAUSE_S, SILENCE_S, StandingService, is_shunned
from services.kernel.errors import UnavailableError, UnreachableError
from services.kernel.records import record_from_value
from services.kernel.service import HealthState
from services.mesh.bulk.ports import Place
from services.mesh.membership.states import State
from tests.fakes.neighbour import Neighbour, hand_over
from tests.fakes.one_server import OneServer


def peer(state=State.ALIVE, heard_s=1.0):
    return SimpleNamespace(state=state, last_heard_s=heard_s)


@pytest.mark.parametrize(
    ("peers", "shunned"),
    [
        ([], False),
        ([peer()], False),
        ([peer(heard_s=SILENCE_S + 1), peer()], False),
        ([peer(heard_s=SILENCE_S + 1), peer(heard_s=None)], True),
        ([peer(State.DEAD), peer(State.DEAD), peer()], True),
        ([peer(State.DEAD), peer(heard_s=None), peer()], False),
    ],
)
def test_silence_or_most_of_the_others_dead_looks_like_being_shunned(peers, shunned) -> None:
    assert is_shunned(peers) is shunned


class Bench:
    """The last of three servers, which asks the first one over its real public API."""

    def __init__(self, last: Neighbour, client: TestClient) -> None:
        self.last = last
        self.client = client
        self.peers = [peer(heard_s=None)]
        self.now_s = 100.0
        self.asked = 0
        self.is_away = False
        self.remembered = []
        self.tampers = lambda records: records
        self.service = StandingService(
            ledger=last.ledger,
            asks=self,
            peers=lambda: self.peers,
            places=lambda: [Place(server_id="server-0123456789abcdef", host="192.0.2.1", port=1)],
            remember=self.remembered.append,
            rng=random.Random(1),  # noqa: S311 (failures repeat)
            clock=SimpleNamespace(monotonic_s=lambda: self.now_s),
        )

    async def changes_after(self, place, number):
        self.asked += 1
        if self.is_away:
            raise UnreachableError("away")
        answer = await self.client.get(f"/api/servers/changes/{number}")
        assert answer.status == 200
        told = (await answer.json())["charter"]
        return self.tampers([record_from_value(one) for one in told])

    async def look_after(self, seconds: float) -> int:
        self.now_s += seconds
        await self.service.look()
        return self.asked


@pytest.fixture
async def one(tmp_path):
    server = await OneServer.start(tmp_path / "one")
    yield server
    await server.stop()


@pytest.fixture
async def bench(one, tmp_path):
    last = await Neighbour.join(one, tmp_path / "last")
    await hand_over(one.ledger, last.ledger)
    async with TestClient(TestServer(one.app("public"))) as client:
        yield Bench(last, client)
    await last.stop()


async def test_gos_08_a_revoked_server_learns_it_from_anybody_and_takes_no_more_writes(
    one, bench
) -> None:
    last = bench.last
    await last.endpoint("before")
    await one.services.root_keys.revoke(last.server_id)
    await bench.look_after(0)
    assert last.ledger.charter.server(last.server_id) is not None
    await bench.look_after(SILENCE_S)
    assert last.ledger.charter.server(last.server_id) is None
    health = bench.service.health()
    assert (health.state, "revoked" in health.detail) == (HealthState.FAILED, True)
    assert last.ledger.health().state is HealthState.FAILED
    with pytest.raises(UnavailableError, match="revoked"):
        await last.endpoint("after")
    assert bench.remembered == [last.ledger.charter.records]
    asked = bench.asked
    assert await bench.look_after(1000) == asked


async def test_what_the_root_did_not_sign_revokes_nobody(one, bench) -> None:
    last = bench.last
    await one.services.root_keys.revoke(last.server_id)

    def forged(records):
        return [
            record_from_value({**value, "actor_sig": records[0].value()["actor_sig"][::-1]})
            for value in (record.value() for record in records)
        ]

    bench.tampers = forged
    await bench.look_after(0)
    await bench.look_after(SILENCE_S)
    assert bench.asked == 1
    assert last.ledger.charter.server(last.server_id) is not None
    await last.endpoint("still")


async def test_a_server_that_is_cut_off_asks_ever_more_rarely_and_works_on(bench) -> None:
    bench.is_away = True
    await bench.look_after(0)
    for _ in range(1000):
        await bench.look_after(5.0)
    assert 10 < bench.asked < 5000 / SILENCE_S / 4
    assert bench.service.health().detail == "no other server talks to this one"
    await bench.last.endpoint("still")
    asked = bench.asked
    bench.peers = [peer()]
    await bench.look_after(MAX_PAUSE_S)
    assert bench.asked == asked
    assert bench.service.health().detail == ""


@pytest.mark.parametrize("number", ["-1", "x", "1e3", "0x1", "9999999999", "٣"])
async def test_pub_01_only_a_number_is_asked_for(bench, number) -> None:
    answer = await bench.client.get(f"/api/servers/changes/{number}")
    assert answer.status == 400


async def test_who_knows_every_change_gets_none(one, bench) -> None:
    answer = await bench.client.get(f"/api/servers/changes/{one.ledger.charter.number}")
    assert await answer.json() == {"charter": []}
