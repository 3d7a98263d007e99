"""``/verify/{id}``: one word about a thing, and nothing of what stands behind it."""

from __future__ import annotations

import json

import pytest
from aiohttp.test_utils import TestClient, TestServer

from services.base.crypto.signatures import generate_signing_key
from services.kernel.ids import b64u_encode
from tests.fakes.neighbour import Neighbour, hand_over


async def said(public, thing):
    answer = await public.get(f"/verify/{thing}")
    return answer.status, json.loads(await answer.read())


async def joined(public, server, name):
    key = generate_signing_key()
    record = server.join_record(await server.token(), key, name)
    answer = await public.post("/api/join", data=json.dumps({"record": record}))
    assert answer.status == 201
    return key, record, json.loads(await answer.read())


async def test_pub_31_it_says_one_word_and_repeats_the_id(server, public) -> None:
    _, record, node = await joined(public, server, "secret-name")
    things = {
        server.ledger.server_id: "valid",
        node["node_id"]: "valid",
        node["customer"]: "valid",
        record["id"]: "valid",
        "server-0000000000000000": "unknown",
        "00000000-0000-4000-8000-000000000000": "unknown",
    }
    for thing, word in things.items():
        assert await said(public, thing) == (200, {"public_id": thing, "status": word})


async def test_pub_31_nothing_of_a_customer_s_shows(server, public) -> None:
    key, record, node = await joined(public, server, "secret-name")
    hidden = (
        "secret-name",
        node["tunnel_address"],
        node["tunnel_address6"],
        b64u_encode(key.public_key),
        record["body"]["wireguard_key"],
        record["body"]["invite"],
    )
    for thing in (node["node_id"], node["customer"], record["id"]):
        answer = await public.get(f"/verify/{thing}")
        text = await answer.text() + str(dict(answer.headers))
        assert not [one for one in hidden if one in text]
    # Nor can names, keys, addresses and invitations be tried out.
    for guess in hidden:
        assert (await said(public, guess))[1]["status"] == "unknown", guess


async def test_pub_31_what_left_is_not_valid_any_more(server, public) -> None:
    _, _, node = await joined(public, server, "laptop")
    await server.ledger.submit([server.author.record("tree.remove", {"node": node["node_id"]})])
    assert (await said(public, node["node_id"]))[1]["status"] == "unknown"


async def test_pub_31_a_revoked_server_is_called_so(server, public, tmp_path) -> None:
    other = await Neighbour.join(server, tmp_path / "two")
    try:
        await hand_over(server.ledger, other.ledger)
        await hand_over(other.ledger, server.ledger)
        name = other.ledger.server_id
        assert (await said(public, name))[1] == {"public_id": name, "status": "valid"}
        async with TestClient(TestServer(server.app("operator"))) as operator:
            body = json.dumps({"server": name})
            answer = await operator.post("/api/servers/revoke", data=body)
            assert answer.status < 300, await answer.text()
        assert (await said(public, name))[1] == {"public_id": name, "status": "revoked"}
    finally:
        await other.stop()


@pytest.mark.parametrize(
    "thing",
    [
        "%ED%A0%80",
        "%FF%FE",
        "%00",
        "%0a",
        "a" * 4000,
        "..%2F..%2Fetc%2Fpasswd",
        "tree",
        "%22%2C%22x%22%3A1",
        "\u202eabc",
        "%E1%84%80" * 100,
        "*",
        "server-",
    ],
)
async def test_pub_30_ids_that_are_none_are_unknown_or_refused(public, thing) -> None:
    status, answer = await said(public, thing)
    assert status in (200, 400, 404)
    if status == 200:
        assert answer.keys() == {"public_id", "status"}
        assert answer["status"] == "unknown"


async def test_pub_30_other_spellings_of_a_good_id_are_not_it(server, public) -> None:
    _, _, node = await joined(public, server, "laptop")
    for good in (server.ledger.server_id, node["node_id"]):
        spellings = {good.upper(), f"{good}%20", f"%20{good}", f"{{{good}}}", f"urn:uuid:{good}"}
        for spelling in spellings - {good}:
            assert (await said(public, spelling))[1]["status"] in ("unknown", 404), spelling


async def test_pub_30_it_takes_no_proofs(public) -> None:
    answer = await public.post("/verify/server-0000000000000000", data=b"x" * 1000)
    assert answer.status == 405
