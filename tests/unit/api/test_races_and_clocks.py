"""Requests that race with the loss of a right, and a server whose clock jumps."""

from __future__ import annotations

import asyncio
import json

import pytest
from aiohttp.test_utils import TestClient, TestServer

from services.base.crypto.signatures import generate_signing_key
from services.base.ledger.author import Author
from services.edge.auth.sessions import auth_input
from services.kernel.ids import b64u_decode, b64u_encode

YEARS_56_MS = 56 * 365 * 86_400_000


async def append(operator, record):
    answer = await operator.post("/ledger/feed/append", data=json.dumps({"record": record.value()}))
    return answer.status, json.loads(await answer.read())


async def admin_of_default(server, operator):
    """Return the author of records by a key that is granted admin at the default customer."""
    key, customer = generate_signing_key(), server.enroll.customer_id("default")
    body = {"node": customer, "key": b64u_encode(key.public_key), "capability": "admin"}
    assert (await append(operator, server.author.record("tree.grant", body)))[0] == 201
    return Author(key=key, mesh_id=server.ledger.mesh_id, clock=server.clock), customer, key


def revocation(server, customer, key):
    body = {"node": customer, "key": b64u_encode(key.public_key)}
    return server.author.record("tree.revoke", body)


class TestRaces:
    @pytest.mark.parametrize("place", [0, 5, 10])
    async def test_prv_14_nothing_of_a_demoted_key_counts_after_its_demotion(
        self, server, operator, place
    ) -> None:
        author, customer, key = await admin_of_default(server, operator)
        records = [
            author.record("tree.rename", {"node": customer, "name": f"name-{number}"})
            for number in range(10)
        ]
        records.insert(place, revocation(server, customer, key))
        answers = await asyncio.gather(*(append(operator, record) for record in records))
        demoted = answers[place][1]["index"]
        assert answers[place][0] == 201
        for number, (status, said) in enumerate(answers):
            if number == place:
                continue
            if status == 201:
                assert said["index"] < demoted
            else:
                assert (status, said["code"]) == (403, "rejected_unauthorised")
        late = author.record("tree.rename", {"node": customer, "name": "late"})
        assert (await append(operator, late))[0] == 403
        assert server.ledger.state.get("tree", customer)["name"] != "late"

    async def test_prv_14_in_one_batch_the_demotion_counts_for_what_stands_behind_it(
        self, server, operator
    ) -> None:
        author, customer, key = await admin_of_default(server, operator)
        before = server.ledger.state.get("tree", customer)["name"]
        rename = author.record("tree.rename", {"node": customer, "name": "late"})
        answers = await asyncio.gather(
            server.ledger.submit([revocation(server, customer, key)]),
            server.ledger.submit([rename]),
            return_exceptions=True,
        )
        assert answers[0][0].record_id
        assert answers[1].code == "rejected_unauthorised"
        assert server.ledger.state.get("tree", customer)["name"] == before


async def joined(public, server, name):
    key = generate_signing_key()
    record = server.join_record(await server.token(), key, name)
    answer = await public.post("/api/join", data=json.dumps({"record": record}))
    assert answer.status == 201
    return key, json.loads(await answer.read())


async def login(public, server, key):
    given = json.loads(await (await public.post("/api/auth/challenge", data=b"{}")).read())
    signed = auth_input(server.ledger.mesh_id, server.ledger.server_id, b64u_decode(given["nonce"]))
    body = {
        "key": b64u_encode(key.public_key),
        "nonce": given["nonce"],
        "signature": b64u_encode(key.sign(signed)),
    }
    return (await public.post("/api/auth", data=json.dumps(body))).status


@pytest.mark.parametrize("jump_ms", [YEARS_56_MS, -YEARS_56_MS + 86_400_000])
class TestClockJumps:
    async def test_cli_18_a_jump_expires_nobody(self, server, public, jump_ms) -> None:
        key, node = await joined(public, server, "laptop")
        before, servers = server.ledger.state.root(), dict(server.ledger.charter.servers())
        server.clock.shift_ms = jump_ms
        assert (await public.get("/api/health")).status == 200
        assert await login(public, server, key) == 200
        assert server.ledger.state.root() == before
        assert dict(server.ledger.charter.servers()) == servers
        assert server.ledger.state.get("ipam", node["tunnel_address"]) == node["node_id"]

    async def test_cli_18_nor_does_a_start_under_a_wrong_clock(
        self, server, public, jump_ms
    ) -> None:
        key, node = await joined(public, server, "laptop")
        before = server.ledger.state.root()
        await server.stop()
        server.clock.shift_ms = jump_ms
        await server.begin()
        assert server.ledger.state.root() == before
        assert server.fatal == []
        server.clock.shift_ms = 0
        async with TestClient(TestServer(server.app("public"))) as client:
            assert await login(client, server, key) == 200
            other = await joined(client, server, "desktop")
        assert other[1]["tunnel_address"] != node["tunnel_address"]

    async def test_cli_18_a_challenge_does_not_outlive_its_time_by_it(
        self, server, public, jump_ms
    ) -> None:
        key, _ = await joined(public, server, "laptop")
        given = json.loads(await (await public.post("/api/auth/challenge", data=b"{}")).read())
        server.clock.shift_ms = jump_ms
        signed = auth_input(
            server.ledger.mesh_id, server.ledger.server_id, b64u_decode(given["nonce"])
        )
        body = {
            "key": b64u_encode(key.public_key),
            "nonce": given["nonce"],
            "signature": b64u_encode(key.sign(signed)),
        }
        assert (await public.post("/api/auth", data=json.dumps(body))).status == 401
