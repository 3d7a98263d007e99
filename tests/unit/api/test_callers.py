"""Who may log in, and from where a session is good, as its holder and a thief see it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from seipd.api.server import PRIVATE_ROUTES, build_app
from services.authority.governance import parameters
from services.authority.governance.service import Wish
from services.base.crypto.signatures import generate_signing_key
from services.edge.auth import sessions
from services.edge.auth.sessions import auth_input
from services.kernel.addr import own_tunnel_address
from services.kernel.ids import b64u_decode, b64u_encode

if TYPE_CHECKING:
    from tests.fakes.one_server import OneServer


class Tunnel:
    """The private API as it is asked from an address inside the tunnel."""

    def __init__(self, server: OneServer) -> None:
        self.source = "127.0.0.1"
        self.app, _ = build_app(
            server.services, PRIVATE_ROUTES, title="private", operator=False, tunnel_only=True
        )
        self.app.middlewares.insert(0, self._from_source)

    @web.middleware
    async def _from_source(self, request, handler):
        return await handler(request.clone(remote=self.source))


@pytest.fixture
def tunnel(server):
    return Tunnel(server)


@pytest.fixture
async def private(tunnel):
    async with TestClient(TestServer(tunnel.app)) as client:
        yield client


async def post(client, path, data):
    answer = await client.post(path, data=data)
    return answer.status, json.loads(await answer.read())


async def challenge(public):
    _, given = await post(public, "/api/auth/challenge", b"{}")
    return given


async def answer(public, server, key, nonce):
    signed = auth_input(server.ledger.mesh_id, server.ledger.server_id, b64u_decode(nonce))
    body = {
        "key": b64u_encode(key.public_key),
        "nonce": nonce,
        "signature": b64u_encode(key.sign(signed)),
    }
    return await post(public, "/api/auth", json.dumps(body))


async def login(public, server, key):
    status, given = await answer(public, server, key, (await challenge(public))["nonce"])
    assert status == 200, given
    return {"Authorization": f"Bearer {given['token']}"}


async def joined(public, server, name):
    key = generate_signing_key()
    record = server.join_record(await server.token(), key, name)
    status, given = await post(public, "/api/join", json.dumps({"record": record}))
    assert status == 201, given
    return key, given


async def asked(private, path, headers):
    given = await private.get(path, headers=headers)
    return given.status, json.loads(await given.read()).get("code")


class TestWhereATokenIsGood:
    async def test_prv_04_from_its_own_tunnel_addresses_and_no_other(
        self, public, private, tunnel, server
    ) -> None:
        key, mine = await joined(public, server, "laptop")
        _, other = await joined(public, server, "thief")
        headers = await login(public, server, key)
        path = f"/api/mesh/status/{mine['node_id']}"
        for source in (mine["tunnel_address"], mine["tunnel_address6"]):
            tunnel.source = source
            assert await asked(private, path, headers) == (200, None)
        own = server.ledger.charter.server(server.ledger.server_id)
        for source in (
            other["tunnel_address"],
            other["tunnel_address6"],
            mine["gateway"],
            own.backbone,
            "127.0.0.1",
            "203.0.113.7",
            f"::ffff:{mine['tunnel_address']}",
        ):
            tunnel.source = source
            assert await asked(private, path, headers) == (403, "wrong_origin"), source

    async def test_prv_04_without_an_address_it_is_good_nowhere(
        self, public, private, tunnel, server
    ) -> None:
        key, mine = await joined(public, server, "laptop")
        headers = await login(public, server, key)
        await server.ipam.release(mine["node_id"])
        tunnel.source = mine["tunnel_address"]
        path = f"/api/mesh/status/{mine['node_id']}"
        assert await asked(private, path, headers) == (403, "wrong_origin")

    async def test_prv_04_a_server_s_from_its_backbone_or_tunnel_address(
        self, public, private, tunnel, server
    ) -> None:
        _, mine = await joined(public, server, "laptop")
        headers = await login(public, server, server.identity.signing_key)
        own = server.ledger.charter.server(server.ledger.server_id)
        for source in (own.backbone, str(own_tunnel_address(own.slices)), "10.64.0.1"):
            tunnel.source = source
            assert (await private.get("/metrics", headers=headers)).status == 200, source
        tunnel.source = mine["tunnel_address"]
        assert await asked(private, "/metrics", headers) == (403, "wrong_origin")

    async def test_prv_04_a_thief_uses_up_nothing_of_its_victim(
        self, public, private, tunnel, server
    ) -> None:
        key, mine = await joined(public, server, "laptop")
        headers = await login(public, server, key)
        tunnel.source = "10.64.0.99"
        for _ in range(20):
            await private.get("/metrics", headers=headers)
        tunnel.source = mine["tunnel_address"]
        first = await private.get("/metrics", headers=headers)
        assert first.headers["RateLimit-Remaining"] == "299"

    async def test_a_caller_s_budget_is_what_was_voted(
        self, public, private, tunnel, server, monkeypatch
    ) -> None:
        key, mine = await joined(public, server, "laptop")
        headers = await login(public, server, key)
        tunnel.source = mine["tunnel_address"]
        path = f"/api/mesh/status/{mine['node_id']}"
        first = await private.get(path, headers=headers)
        assert (first.status, first.headers["RateLimit-Limit"]) == (200, "300")
        wish = Wish(parameter=parameters.CALLER_RATE, new_value=60, expires_s=60)
        proposal = await server.governance.propose(wish)
        await server.governance.vote(proposal["id"], approve=True)
        now_s = server.clock.monotonic_s()
        monkeypatch.setattr(server.clock, "monotonic_s", lambda: now_s)
        answers = [await private.get(path, headers=headers) for _ in range(61)]
        assert answers[0].headers["RateLimit-Limit"] == "60"
        assert (answers[0].status, answers[-1].status) == (200, 429)


class TestStrangers:
    async def test_pub_22_strangers_can_t_fill_the_memory_of_used_challenges(
        self, public, server, monkeypatch
    ) -> None:
        monkeypatch.setattr(sessions, "MAX_REMEMBERED", 5)
        for _ in range(8):
            nonce = (await challenge(public))["nonce"]
            assert (await answer(public, server, generate_signing_key(), nonce))[0] == 401
        key, _ = await joined(public, server, "laptop")
        assert "Authorization" in await login(public, server, key)

    async def test_pub_22_without_its_signature_a_key_s_standing_stays_unknown(
        self, public, server
    ) -> None:
        member, _ = await joined(public, server, "laptop")
        thief = generate_signing_key()
        said = []
        for claimed in (member.public_key, generate_signing_key().public_key):
            nonce = (await challenge(public))["nonce"]
            body = {
                "key": b64u_encode(claimed),
                "nonce": nonce,
                "signature": b64u_encode(thief.sign(b64u_decode(nonce))),
            }
            status, given = await post(public, "/api/auth", json.dumps(body))
            said.append((status, given["code"], given["detail"]))
        assert said[0] == said[1] == (401, "unauthenticated", "the signature is wrong")

    async def test_pub_22_a_stranger_does_not_learn_whether_a_challenge_was_used(
        self, public, server
    ) -> None:
        member, _ = await joined(public, server, "laptop")
        nonces = [(await challenge(public))["nonce"] for _ in range(2)]
        assert (await answer(public, server, member, nonces[0]))[0] == 200
        stranger = generate_signing_key()
        said = [await answer(public, server, stranger, nonce) for nonce in nonces]
        assert said[0][0] == 401
        assert said[0][1]["detail"] == said[1][1]["detail"]


class TestClocks:
    """A challenge carries no time of the client's: what its clock says can't matter."""

    async def test_pub_25_the_server_tells_its_time_and_judges_by_it_alone(
        self, public, server
    ) -> None:
        key, _ = await joined(public, server, "laptop")
        given = await challenge(public)
        assert abs(given["now_ms"] - server.clock.now_ms()) < 60_000
        assert int.from_bytes(b64u_decode(given["nonce"])[:8], "big") <= given["now_ms"]
        server.clock.shift_ms = 50_000
        assert (await answer(public, server, key, given["nonce"]))[0] == 200

    @pytest.mark.parametrize("shift_ms", [61_000, -1_000, 10 * 365 * 86_400_000])
    async def test_pub_25_a_challenge_is_not_good_at_another_time_of_the_server_s(
        self, public, server, shift_ms
    ) -> None:
        key, _ = await joined(public, server, "laptop")
        given = await challenge(public)
        server.clock.shift_ms = shift_ms
        status, said = await answer(public, server, key, given["nonce"])
        assert (status, said["code"]) == (401, "challenge_expired")

    async def test_pub_25_a_time_in_the_answer_is_refused(self, public, server) -> None:
        key, _ = await joined(public, server, "laptop")
        nonce = (await challenge(public))["nonce"]
        body = {
            "key": b64u_encode(key.public_key),
            "nonce": nonce,
            "signature": b64u_encode(bytes(64)),
            "now_ms": 0,
        }
        status, said = await post(public, "/api/auth", json.dumps(body))
        assert (status, said["code"]) == (400, "bad_field")
