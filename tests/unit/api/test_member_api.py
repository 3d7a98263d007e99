"""The private server as its members, and those who are none, see it."""

from __future__ import annotations

import json

import pytest
from aiohttp.test_utils import TestClient, TestServer

from seipd.api.server import PRIVATE_ROUTES
from services.kernel.ids import b64u_decode, b64u_encode
from tests.unit.api.callers_kit import joined, login


class TestPrivate:
    async def bearer(self, public, server):
        key, answer = await joined(public, server)
        _, session = await login(public, server, key)
        return key, answer, {"Authorization": f"Bearer {session['token']}"}

    async def test_a_member_sees_its_own_node_and_no_other_customer_s(
        self, public, private, server
    ) -> None:
        _, answer, headers = await self.bearer(public, server)
        node = answer["node_id"]
        assert (await private.get(f"/api/tree/node/{node}", headers=headers)).status == 200
        assert (await private.get(f"/api/mesh/peers/{node}", headers=headers)).status == 200
        root = server.ledger.state.get("mesh", "root_node")
        for path in (
            f"/api/tree/node/{root}",
            f"/api/tree/children/{root}",
            f"/api/mesh/peers/{root}",
            f"/api/mesh/status/{root}",
        ):
            assert (await private.get(path, headers=headers)).status == 404

    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"Authorization": ""},
            {"Authorization": "Bearer"},
            {"Authorization": "Basic eDp5"},
            {"Authorization": "Bearer x.y.z"},
            {"Authorization": "Bearer " + "a" * 5000},
        ],
    )
    async def test_prv_05_without_a_good_token(self, private, headers) -> None:
        answer = await private.get("/metrics?token=x", headers=headers)
        assert answer.status == 401

    async def test_prv_06_prv_07_prv_08_tokens_made_by_others(
        self, public, private, server
    ) -> None:
        import orjson

        key, _, headers = await self.bearer(public, server)
        good = headers["Authorization"].removeprefix("Bearer ")
        head, claims = (orjson.loads(b64u_decode(part)) for part in good.split(".")[:2])
        real = server.identity.session_signing_key

        def token(head, claims, signer=real):
            signed = f"{b64u_encode(orjson.dumps(head))}.{b64u_encode(orjson.dumps(claims))}"
            return f"{signed}.{b64u_encode(signer.sign(signed.encode()))}"

        async def status(text):
            answer = await private.get("/metrics", headers={"Authorization": f"Bearer {text}"})
            return answer.status

        assert await status(token(head, claims)) == 200
        bad = [
            token({**head, "alg": "none"}, claims),
            token({**head, "alg": "HS256"}, claims),
            token({**head, "kid": "../../etc/passwd"}, claims),
            token({**head, "jwk": {}}, claims),
            token(head, claims, key),
            token(head, {**claims, "exp": str(claims["exp"])}),
            token(head, {**claims, "exp": 10**15}),
            token(head, {**claims, "exp": claims["iat"]}),
            token(head, {**claims, "iat": claims["iat"] + 3600}),
            token(head, {**claims, "iss": "server-0000000000000000"}),
            token(head, {k: v for k, v in claims.items() if k != "exp"}),
            token(head, {**claims, "admin": True}),
            good[:-40] + ("A" if good[-40] != "A" else "B") + good[-39:],
        ]
        assert [await status(one) for one in bad] == [401] * len(bad)

    async def test_prv_10_a_key_that_left_is_nobody_at_once(self, public, private, server) -> None:
        _, answer, headers = await self.bearer(public, server)
        assert (await private.get("/metrics", headers=headers)).status == 200
        await server.ledger.submit(
            [server.author.record("tree.remove", {"node": answer["node_id"]})]
        )
        gone = await private.get("/metrics", headers=headers)
        assert (gone.status, (await gone.json(content_type=None))["code"]) == (401, "revoked")

    async def test_prv_11_a_member_reaches_no_operator_s_route(
        self, public, private, server
    ) -> None:
        from seipd.api.routes import Access

        _, _, headers = await self.bearer(public, server)
        for route in PRIVATE_ROUTES:
            if route.access is not Access.OPERATOR:
                continue
            path = route.path.replace("{key:.+}", "k").replace("{", "").replace("}", "")
            answer = await private.request(route.method, path, data=b"{}", headers=headers)
            assert answer.status == 403, path

    async def test_prv_12_a_member_changes_nothing_of_others(self, public, private, server) -> None:
        _, _, headers = await self.bearer(public, server)
        _, victim = await joined(public, server, "victim")
        before = server.ledger.state.root()
        record = server.author.record("tree.remove", {"node": victim["node_id"]}).value()
        answer = await private.post(
            "/api/tree/delta", data=json.dumps({"record": record}), headers=headers
        )
        assert answer.status == 403
        release = json.dumps({"node": victim["node_id"]})
        assert (
            await private.post("/api/ipam/release", data=release, headers=headers)
        ).status == 404
        assert server.ledger.state.root() == before

    async def test_led_09_the_same_record_again_has_no_second_effect(self, server) -> None:
        async with TestClient(TestServer(server.app("operator"))) as operator:
            record = server.author.record(
                "tree.rename", {"node": server.enroll.customer_id("default"), "name": "renamed"}
            ).value()
            body = json.dumps({"record": record})
            first = await operator.post("/ledger/feed/append", data=body)
            again = await operator.post("/ledger/feed/append", data=body)
        assert (first.status, again.status) == (201, 409)

    @pytest.mark.parametrize(
        "query", ["start=-1", "start=01", "limit=0", "limit=1000000000", "limit=x", "start=1_0"]
    )
    async def test_prv_18_pages_that_are_none(self, server, query) -> None:
        async with TestClient(TestServer(server.app("operator"))) as operator:
            answer = await operator.get(f"/ledger/feed/entries?{query}")
        assert answer.status == 400
