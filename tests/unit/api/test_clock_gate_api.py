"""While a server's clock is off it answers writes with 503 and says why; words go on in time."""

from __future__ import annotations

import asyncio

from aiohttp.test_utils import TestClient, TestServer

from services.base.crypto.signatures import generate_signing_key
from services.kernel.ids import node_id_of
from services.kernel.service import HealthState
from services.mesh.gossip.clocks import clock_trouble
from tests.fakes.one_server import LOOK_S


async def test_writes_answer_clock_off_and_are_taken_again_by_themselves(server) -> None:
    ahead = [14_000]
    token = await server.token()
    server.ledger.mind_clock(lambda: clock_trouble(ahead[0]))
    key = generate_signing_key()
    record = server.join_record(token, key, "laptop")
    async with TestClient(TestServer(server.app("public"))) as client:
        answer = await client.post("/api/join", json={"record": record})
        said = await answer.json()
        assert (answer.status, said["code"]) == (503, "clock_off")
        assert "14 s ahead of the median" in said["detail"]
        health = server.ledger.health()
        assert health.state is HealthState.DEGRADED
        assert "timedatectl" in health.detail
        assert (await client.get("/api/servers")).status == 200
        assert server.ledger.state.get("tree", node_id_of(key.public_key)) is None
        ahead[0] = 0
        answer = await client.post("/api/join", json={"record": record})
        assert answer.status == 201
    assert server.ledger.health().state is HealthState.OK


async def test_led_18_no_word_on_the_state_is_older_than_the_one_before(server) -> None:
    told = []
    server.ledger.on_state_word(lambda word: told.append(word.time_ms))

    async def until_told(count: int) -> None:
        async with asyncio.timeout(60):
            while len(told) < count:
                await asyncio.sleep(LOOK_S)

    server.clock.shift_ms = 60_000
    await until_told(1)
    server.clock.shift_ms = 0
    # Long enough for the ticks of a clock that went back, if they were told.
    await asyncio.sleep(50 * LOOK_S)
    server.clock.shift_ms = 100_000
    await until_told(2)
    assert told == sorted(set(told))
