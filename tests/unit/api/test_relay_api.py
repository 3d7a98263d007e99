"""The relay directory over HTTP: what members see, what operators do, what a relay tells."""

from __future__ import annotations

import hashlib
import json

import msgspec
import pytest

from services.authority.relays.introductions import introduced, introduction_from_text
from services.base.ledger.author import Author
from services.edge.relay.tickets import parse_ticket
from services.edge.relaying.lifesigns import FRESH_S, signed_lifesign
from services.kernel.ids import b64u_decode, b64u_encode, relay_id_of
from tests.fakes.world import key_of
from tests.unit.api.callers_kit import joined, login, post

KEY = key_of("community relay")
RELAY = relay_id_of(KEY.public_key)
BOX = hashlib.sha256(b"box").digest()


def introduction(server, **other) -> str:
    said = {"host": "203.0.113.9", "host6": "", "port": 9103, "region": "eu-central"}
    found = introduced(
        KEY,
        server.ledger.mesh_id,
        box=BOX,
        now_ms=server.clock.now_ms(),
        **{**said, **other},
    )
    return found.text()


async def register(operator, server, **body):
    said = {"introduction": introduction(server), **body}
    status, answer = await post(operator, "/api/relay/register", json.dumps(said))
    server.relays.look()
    return status, answer


async def get(client, path, headers=None):
    answer = await client.get(path, headers=headers or {})
    return answer.status, await answer.json()


@pytest.fixture
async def members(public, server):
    """Two endpoints: their nodes, and how they ask."""
    found = []
    for name in ("one", "two"):
        key, answer = await joined(public, server, name)
        _, session = await login(public, server, key)
        found.append((answer["node_id"], {"Authorization": f"Bearer {session['token']}"}))
    return found


async def test_a_relay_is_registered_listed_and_retired(operator, server) -> None:
    status, answer = await register(operator, server, customer="default")
    assert (status, answer["relay_id"]) == (200, RELAY)
    _, listed = await get(operator, "/api/relay/list")
    (row,) = listed["relays"]
    assert (row["relay_id"], row["owner"], row["state"]) == (RELAY, "default", "usable")
    assert row["reputation_percent"] == 70
    assert (await get(operator, "/api/relay/list?region=us-east"))[1]["relays"] == []
    status, _ = await post(operator, "/api/relay/retire", json.dumps({"relay": RELAY}))
    assert status == 200
    server.relays.look()
    assert (await get(operator, "/api/relay/list"))[1]["relays"] == []


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"introduction": "relay1.nothing"}, "bad_field"),
        ({"introduction": "hello"}, "bad_field"),
        ({"customer": "nobody"}, "not_found"),
        ({}, "bad_signature"),
    ],
)
async def test_what_is_no_introduction_is_not_registered(operator, server, body, code) -> None:
    bent = introduction(server)
    if not body:
        value = json.loads(b64u_decode(bent.removeprefix("relay1.")))
        value["host"] = "203.0.113.10"
        text = json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
        body = {"introduction": "relay1." + b64u_encode(text)}
    _, answer = await register(operator, server, **body)
    assert answer["code"] == code
    assert (await get(operator, "/api/relay/list"))[1]["relays"] == []


async def test_members_see_relays_and_not_whose_they_are(
    operator, private, server, members
) -> None:
    await register(operator, server, customer="default")
    (_, headers), _ = members
    status, listed = await get(private, "/api/relay/list", headers)
    assert status == 200
    assert "owner" not in listed["relays"][0]
    status, found = await get(private, "/api/relay/nearest", headers)
    assert (status, found["regions"]) == (200, ["eu-central"])
    assert found["relays"][0]["distance_km"] == 0
    status, _ = await get(private, "/api/relay/list")
    assert status == 401


async def test_a_member_gets_tickets_for_whom_it_may_talk_to(
    operator, private, server, members
) -> None:
    await register(operator, server)
    (own, headers), (peer, _) = members
    body = json.dumps({"peer": peer})
    status, answer = await post(private, "/api/relay/ticket", body, **headers)
    assert status == 200
    (offer,) = answer["offers"]
    assert (offer["host"], offer["port"]) == ("203.0.113.9", 9103)
    ticket = parse_ticket(b64u_decode(offer["ticket"]))
    nodes = {
        server.ledger.state.get("wg", b64u_encode(key)) for key in (ticket.key_a, ticket.key_b)
    }
    assert nodes == {own, peer}
    for excluded, count in (([RELAY], 0), ([], 1)):
        body = json.dumps({"peer": peer, "excluded": excluded})
        _, answer = await post(private, "/api/relay/ticket", body, **headers)
        assert len(answer["offers"]) == count
    for stranger in ("00000000-0000-4000-8000-000000000009", own):
        body = json.dumps({"peer": stranger})
        status, _ = await post(private, "/api/relay/ticket", body, **headers)
        assert status == 404


async def test_rly_04_a_member_that_left_gets_no_ticket(operator, private, server, members) -> None:
    await register(operator, server)
    (_, headers), (peer, _) = members
    record = server.author.record("tree.remove", {"node": peer})
    await server.ledger.submit([record])
    status, _ = await post(private, "/api/relay/ticket", json.dumps({"peer": peer}), **headers)
    assert status == 404


async def test_who_operates_a_customer_registers_its_relays(public, private, server) -> None:
    key, _ = await joined(public, server)
    _, session = await login(public, server, key)
    headers = {"Authorization": f"Bearer {session['token']}"}
    ledger = server.ledger
    customer = ledger.state.get("name", f"{ledger.state.get('mesh', 'root_node')}/default")
    found = introduction_from_text(introduction(server))
    body = {
        "relay": RELAY,
        "owner": customer,
        "introduction": msgspec.structs.asdict(found),
    }
    member = Author(key=key, mesh_id=ledger.mesh_id, clock=server.clock)

    async def hand_in() -> tuple[int, dict]:
        record = json.dumps({"record": member.record("relay.register", body).value()})
        return await post(private, "/api/tree/delta", record, **headers)

    status, refused = await hand_in()
    assert (status, refused["code"]) == (403, "rejected_unauthorised")
    grant = {"node": customer, "key": b64u_encode(key.public_key), "capability": "operate"}
    root = Author(key=server.signer.key, mesh_id=ledger.mesh_id, clock=server.clock)
    await ledger.submit([root.record("tree.grant", grant)])
    assert (await hand_in())[0] == 201
    server.relays.look()
    assert [one.owner for one in server.relays.all()] == [customer]


async def test_rly_10_a_report_that_is_none_is_refused(private, members) -> None:
    (_, headers), _ = members
    for body in ({}, {"report": {}}, {"report": {"sent": -1}}):
        status, answer = await post(private, "/api/relay/report", json.dumps(body), **headers)
        assert (status, answer["code"]) == (400, "bad_field")


async def test_a_relay_that_lives_learns_who_has_left(public, operator, server, members) -> None:
    await register(operator, server)
    node = server.ledger.state.get("tree", members[0][0])
    here, gone = b64u_decode(node["wireguard_key"]), hashlib.sha256(b"gone").digest()

    async def tell(key=KEY):
        server.clock.shift_ms += 1
        sign = signed_lifesign(
            key,
            server.ledger.mesh_id,
            keys=[here, gone],
            sessions_count=1,
            load_permille=300,
            now_ms=server.clock.now_ms(),
        )
        return await post(public, "/api/relay/life", json.dumps({"sign": sign})), sign

    (status, answer), sign = await tell()
    assert (status, answer["gone"]) == (200, [b64u_encode(gone)])
    server.relays.look()
    assert server.relays.get(RELAY).load_permille == 300
    status, again = await post(public, "/api/relay/life", json.dumps({"sign": sign}))
    assert (status, again["code"]) == (400, "stale")
    bent = {**sign, "load": 0}
    status, answer = await post(public, "/api/relay/life", json.dumps({"sign": bent}))
    assert (status, answer["code"]) == (403, "bad_signature")
    (status, answer), _ = await tell(key_of("nobody"))
    assert (status, answer["code"]) == (404, "not_registered")
    server.clock.shift_ms += int(FRESH_S * 1000) + 1000
    server.relays.look()
    assert server.relays.get(RELAY).why_not == "down"
    await tell()
    server.relays.look()
    assert server.relays.get(RELAY).why_not == ""


async def test_the_relays_and_the_reports_are_counted(operator, private, server, members) -> None:
    await register(operator, server)
    (_, headers), _ = members
    await post(private, "/api/relay/report", json.dumps({"report": {}}), **headers)
    text = await (await operator.get("/metrics")).text()
    assert 'seipd_relays{state="usable"} 1.0' in text
    assert 'seipd_relays{state="suspended"} 0.0' in text
    assert 'seipd_relay_reports_total{came="refused"} 1.0' in text


async def test_the_command_line_registers_lists_finds_and_retires(seipd, server) -> None:
    done = await seipd("relay", "register", introduction(server), "--customer", "default", "--json")
    assert json.loads(done.stdout)["relay_id"] == RELAY
    server.relays.look()
    done = await seipd("relay", "ls")
    assert "203.0.113.9:9103" in done.stdout
    assert "usable" in done.stdout
    done = await seipd("relay", "nearest", "--region", "us-east", "--json")
    assert json.loads(done.stdout)[0]["distance_km"] > 6000
    done = await seipd("relay", "retire", RELAY)
    assert RELAY in done.stdout
    server.relays.look()
    done = await seipd("relay", "ls", "--json")
    assert json.loads(done.stdout) == []
    done = await seipd("relay", "retire", RELAY)
    assert done.returncode != 0
