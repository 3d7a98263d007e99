"""The public server as strangers, good and bad, see it."""

from __future__ import annotations

import asyncio
import json

import pytest
from aiohttp.test_utils import TestClient, TestServer

from seipd.api.server import PRIVATE_ROUTES, PUBLIC_ROUTES
from seipd.client.trust import UntrustedServerError, trust_server
from services.authority.enroll.service import Wanted
from services.base.crypto.signatures import generate_signing_key
from services.edge.auth.sessions import auth_input
from services.kernel.ids import b64u_encode
from tests.fakes.one_server import OneServer
from tests.unit.api.callers_kit import joined, login, post


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "bad_json"),
        (b"not json", "bad_json"),
        ("{}".encode("utf-16"), "bad_json"),
        (b"\xef\xbb\xbf{}", "bad_json"),
        (b'{"record":{},"record":{}}', "bad_json"),
        (b'{"record":NaN}', "bad_json"),
        (b'{"record":1e999}', "bad_json"),
        (b"[" * 100_000, "too_large"),
        (b"[" * 1000, "bad_json"),
        (b'{"record":"\\ud800"}', "bad_field"),
        (b"[]", "bad_json"),
        (b'{"record":{},"is_admin":true}', "bad_field"),
        (b'{"record":5}', "bad_field"),
        (b'{"record":{}}', "bad_record"),
    ],
)
async def test_pub_01_to_pub_07_bodies_that_are_none(public, server, data, code) -> None:
    before = server.ledger.state.root()
    status, answer = await post(public, "/api/join", data)
    assert status in (400, 413)
    assert answer["code"] == code
    assert server.ledger.state.root() == before


async def test_pub_08_a_body_over_the_limit(public) -> None:
    status, answer = await post(public, "/api/join", b"x" * 70_000)
    assert (status, answer["code"]) == (413, "too_large")


async def test_an_endpoint_joins_and_gets_all_it_needs(public, server) -> None:
    _, answer = await joined(public, server)
    assert answer["tunnel_address"] == "10.64.0.10"
    assert answer["tunnel_address6"].startswith("fd")
    assert answer["server"]["server_id"] == server.ledger.server_id
    assert answer["gateway"] == "10.64.0.1"


async def test_pub_12_fifty_at_once_with_one_token(public, server) -> None:
    token = await server.token()
    records = [server.join_record(token, generate_signing_key(), f"h{n}") for n in range(50)]
    answers = await asyncio.gather(
        *(post(public, "/api/join", json.dumps({"record": record})) for record in records)
    )
    statuses = [status for status, _ in answers]
    assert statuses.count(201) == 1
    assert {answer["code"] for status, answer in answers if status != 201} <= {"token_used"}


async def test_pub_13_tokens_that_are_not_good_all_look_alike(public, server) -> None:
    good = await server.token()
    role = (
        await server.services.enroll.invite(
            Wanted(role="server"),
            addresses=("127.0.0.1:9100",),
        )
    ).token
    key = generate_signing_key()
    cases = [
        server.join_record(role, key, "a"),
        server.join_record(good, key, "a", signature=b64u_encode(bytes(64))),
        server.join_record(good, key, "a", invite="0" * 32),
    ]
    server.clock.shift_ms = 0
    bodies = [await post(public, "/api/join", json.dumps({"record": one})) for one in cases]
    late = server.join_record(good, key, "a")
    server.clock.shift_ms = 2 * 3_600_000 - 1
    bodies.append(await post(public, "/api/join", json.dumps({"record": late})))
    assert {(status, answer["code"], answer["detail"]) for status, answer in bodies[:3]} == {
        (401, "token_invalid", bodies[0][1]["detail"])
    }
    assert bodies[3][0] in (401, 422)


async def test_pub_14_a_token_stays_used_after_a_restart(public, server, tmp_path) -> None:
    token = await server.token()
    first = server.join_record(token, generate_signing_key(), "a")
    assert (await post(public, "/api/join", json.dumps({"record": first})))[0] == 201
    await server.stop()
    await server.begin()
    async with TestClient(TestServer(server.app("public"))) as client:
        again = server.join_record(token, generate_signing_key(), "b")
        status, answer = await post(client, "/api/join", json.dumps({"record": again}))
    assert (status, answer["code"]) == (409, "token_used")


async def test_pub_15_the_same_join_again_answers_the_same(public, server) -> None:
    key = generate_signing_key()
    record = server.join_record(await server.token(), key, "laptop")
    answers = [await post(public, "/api/join", json.dumps({"record": record})) for _ in range(3)]
    assert [status for status, _ in answers] == [201] * 3
    assert len({answer["tunnel_address"] for _, answer in answers}) == 1
    assert server.ipam.describe()["free"] == server.ipam.describe()["usable"] - 1


@pytest.mark.parametrize(
    "wireguard_key",
    [
        b64u_encode(bytes(32)),
        b64u_encode(bytes(31)),
        b64u_encode(bytes(33)),
        b64u_encode(b"\x01" + bytes(31)),
        b64u_encode(b"\xaa" * 32) + "=",
        "Z" * 42 + "Z",
    ],
)
async def test_pub_16_wireguard_keys_that_are_none(public, server, wireguard_key) -> None:
    record = server.join_record(
        await server.token(), generate_signing_key(), "a", wireguard_key=wireguard_key
    )
    status, answer = await post(public, "/api/join", json.dumps({"record": record}))
    assert (status, answer["code"]) == (400, "bad_key")


async def test_pub_17_the_server_s_own_wireguard_key(public, server) -> None:
    own = b64u_encode(server.identity.wireguard_public_key)
    record = server.join_record(
        await server.token(), generate_signing_key(), "a", wireguard_key=own
    )
    status, answer = await post(public, "/api/join", json.dumps({"record": record}))
    assert (status, answer["code"]) == (409, "key_in_use")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a" * 64,
        "../x",
        "a\0b",
        "a\nb",
        "%00",
        "\u202eabc",
        "\uff21\uff24\uff2d\uff29\uff2e",
        "a\u200db",
        "ns1",
        "www",
        "_acme-challenge",
        "localhost",
        "-a",
        "a-",
        "xn--a",
        "Upper",
    ],
)
async def test_pub_18_names_that_are_none(public, server, name) -> None:
    before = server.ipam.describe()["free"]
    record = server.join_record(await server.token(), generate_signing_key(), name)
    status, answer = await post(public, "/api/join", json.dumps({"record": record}))
    assert (status, answer["code"]) == (400, "bad_name")
    assert server.ipam.describe()["free"] == before


async def test_a_record_that_was_changed_under_way(public, server) -> None:
    record = server.join_record(await server.token(), generate_signing_key(), "a")
    record["body"]["name"] = "b"
    status, answer = await post(public, "/api/join", json.dumps({"record": record}))
    assert (status, answer["code"]) == (403, "bad_signature")


async def test_pub_21_a_signature_for_another_purpose_or_server(public, server) -> None:
    key, _ = await joined(public, server)
    assert (await login(public, server, key))[0] == 200
    for purpose in (
        lambda mesh, server_id, nonce: b"seipd/gossip-hello/v1\0" + nonce,
        lambda mesh, server_id, nonce: auth_input(mesh, "server-0000000000000000", nonce),
        lambda mesh, server_id, nonce: auth_input("00" * 32, server_id, nonce),
    ):
        status, answer = await login(public, server, key, purpose=purpose)
        assert (status, answer["code"]) == (401, "unauthenticated")


async def test_pub_22_a_nonce_is_answered_once(public, server) -> None:
    key, _ = await joined(public, server)
    _, given = await post(public, "/api/auth/challenge", b"{}")
    assert (await login(public, server, key, nonce=given["nonce"]))[0] == 200
    assert (await login(public, server, key, nonce=given["nonce"]))[1]["code"] == "replay"
    assert (await login(public, server, key, nonce=b64u_encode(bytes(56))))[1][
        "code"
    ] == "bad_challenge"
    _, given = await post(public, "/api/auth/challenge", b"{}")
    server.clock.shift_ms = 61_000
    assert (await login(public, server, key, nonce=given["nonce"]))[1][
        "code"
    ] == "challenge_expired"


async def test_pub_23_challenges_cost_no_memory_and_are_limited(public, server) -> None:
    statuses = [(await post(public, "/api/auth/challenge", b"{}"))[0] for _ in range(70)]
    assert 60 <= statuses.count(200) <= 62
    assert set(statuses) == {200, 429}
    answer = await public.post("/api/auth/challenge", data=b"{}")
    assert int(answer.headers["Retry-After"]) >= 1
    assert answer.headers["RateLimit-Limit"] == "60"
    assert len(server.services.auth._challenges._used) == 0


async def test_pub_32_a_forwarded_header_is_no_identity(public) -> None:
    for number in range(60):
        await public.get("/api/health", headers={"X-Forwarded-For": f"10.0.0.{number}"})
    assert (await public.get("/api/health", headers={"X-Forwarded-For": "1.2.3.4"})).status == 429


@pytest.mark.parametrize(
    "path", ["/%2Fapi/health", "/api/health/", "/API/health", "/api/%2e%2e/x", "/api/join%00"]
)
async def test_pub_34_other_spellings_of_a_path(public, path) -> None:
    answer = await public.get(path)
    assert answer.status == 404
    assert answer.content_type == "application/problem+json"


async def test_pub_34_a_method_that_is_not_for_the_path(public) -> None:
    answer = await public.delete("/api/join")
    assert answer.status == 405
    assert "POST" in answer.headers["Allow"]


async def test_pub_35_while_the_server_stops(public, server) -> None:
    server.gate.draining = True
    answer = await public.get("/api/health")
    assert (answer.status, (await answer.json(content_type=None))["code"]) == (503, "not_ready")


async def test_pub_36_what_strangers_see_holds_no_secret(public, server) -> None:
    secrets = [
        b64u_encode(server.identity.signing_key.seed),
        b64u_encode(server.identity.wireguard_private_key),
        server.identity.signing_key.seed.hex(),
    ]
    await joined(public, server)
    for path in ("/api/health", "/api/stats", "/api/servers", "/api/tls/status", "/openapi.json"):
        text = await (await public.get(path)).text()
        assert not any(secret in text for secret in secrets)
        assert "10.64.0.10" not in text


async def test_prv_03_pub_37_no_private_route_answers_on_the_public_port(public) -> None:
    public_paths = {route.path for route in PUBLIC_ROUTES}
    checked = 0
    for route in PRIVATE_ROUTES:
        if route.path in public_paths:
            continue
        path = route.path.replace("{key:.+}", "k").replace("{", "").replace("}", "")
        answer = await public.request(route.method, path, data=b"{}")
        if answer.status == 429:
            break
        assert answer.status == 404, path
        checked += 1
    assert checked > 20


async def test_the_openapi_document_is_true(public, server, private) -> None:
    for client, routes in ((public, PUBLIC_ROUTES), (private, PRIVATE_ROUTES)):
        document = json.loads(await (await client.get("/openapi.json")).read())
        assert document["openapi"].startswith("3.1")
        served = {
            (route.resource.canonical, route.method.lower())
            for route in client.app.router.routes()
            if route.method != "HEAD"
        }
        described = {
            (path, method) for path, methods in document["paths"].items() for method in methods
        }
        assert {(path.replace(":.+", ""), method) for path, method in served} == described
        assert len(described) == len(routes) + 1


async def test_the_proof_of_a_server_is_believed_only_whole(public, server) -> None:
    shown = json.loads(await (await public.get("/api/tls/status")).read())
    mesh_id, server_id = server.ledger.mesh_id, server.ledger.server_id
    assert (
        trust_server(shown, mesh_id=mesh_id, server_id=server_id).certificate.server_id == server_id
    )
    other = await OneServer.start(server.folder / "other")
    try:
        stranger = other.tls.authority_pem.decode()
        for bad in (
            {**shown, "authority_pem": stranger},
            {**shown, "chain": [other.records[0].value()]},
            {**shown, "certificate": other.records[1].value()},
            {**shown, "certificate": shown["genesis"]},
            {},
        ):
            with pytest.raises(UntrustedServerError):
                trust_server(bad, mesh_id=mesh_id, server_id=server_id)
        with pytest.raises(UntrustedServerError):
            trust_server(shown, mesh_id=other.ledger.mesh_id, server_id=server_id)
    finally:
        await other.stop()
