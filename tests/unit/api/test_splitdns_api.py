"""A customer's own domains over the daemon's own socket, and by the command line."""

from __future__ import annotations

import json

import pytest

from services.authority.splitdns.view import domains_of
from services.base.ledger.author import Author
from services.kernel.ids import b64u_encode
from tests.unit.api.callers_kit import joined, login


async def post(operator, **body):
    answer = await operator.post("/api/dns/split", data=json.dumps(body))
    return answer.status, await answer.json()


async def rows(operator):
    return await (await operator.get("/api/dns/split")).json()


async def test_a_domain_is_set_replaced_listed_and_removed(operator) -> None:
    for upstreams in (["10.64.0.20"], ["10.64.0.21", "9.9.9.9:5353"]):
        status, said = await post(
            operator, customer="default", domain="Corp.Example.", upstreams=upstreams
        )
        assert (status, said["domain"], said["upstreams"]) == (200, "corp.example", upstreams)
    (row,) = await rows(operator)
    assert (row["customer"], row["domain"]) == ("default", "corp.example")
    assert row["upstreams"] == ["10.64.0.21", "9.9.9.9:5353"]
    assert (await post(operator, customer="default", domain="corp.example", upstreams=[]))[0] == 200
    assert await rows(operator) == []


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"customer": "nobody", "domain": "a.example", "upstreams": ["9.9.9.9"]}, "not_found"),
        ({"customer": "default", "domain": "a..b", "upstreams": ["9.9.9.9"]}, "bad_name"),
        ({"customer": "default", "domain": "a.b", "upstreams": ["9.9.9.9:22"]}, "bad_upstream"),
        *(
            (
                {"customer": "default", "domain": "a.b", "upstreams": ["9.9.9.9", one]},
                "bad_upstream",
            )
            for one in ("127.0.0.1", "192.168.1.1", "10.0.0.53", "[::1]", "10.64.0.1")
        ),
        ({"customer": "default", "domain": "a.b", "upstreams": []}, "rejected_orphan"),
        ({"customer": "default", "domain": "a.b"}, "bad_field"),
    ],
)
async def test_what_is_no_such_domain_is_refused(operator, body, code) -> None:
    _, said = await post(operator, **body)
    assert said["code"] == code
    assert await rows(operator) == []


async def test_the_command_line_sets_lists_and_removes(seipd) -> None:
    done = await seipd("dns", "split", "set", "default", "corp.example", "10.64.0.20", "--json")
    assert json.loads(done.stdout)["upstreams"] == ["10.64.0.20"]
    done = await seipd("dns", "split", "ls")
    assert "corp.example" in done.stdout
    assert "10.64.0.20" in done.stdout
    done = await seipd("dns", "split", "rm", "default", "corp.example")
    assert "none of its own" in done.stdout
    done = await seipd("dns", "split", "ls", "--json")
    assert json.loads(done.stdout) == []


async def test_who_operates_a_customer_names_its_name_servers(public, private, server) -> None:
    key, _ = await joined(public, server)
    _, session = await login(public, server, key)
    headers = {"Authorization": f"Bearer {session['token']}"}
    ledger = server.ledger
    member = Author(key=key, mesh_id=ledger.mesh_id, clock=server.clock)
    customer = ledger.state.get("name", f"{ledger.state.get('mesh', 'root_node')}/default")
    body = {"customer": customer, "domain": "corp.example", "upstreams": ["10.64.0.20"]}

    async def hand_in():
        record = json.dumps({"record": member.record("dns.split", body).value()})
        answer = await private.post("/api/tree/delta", data=record, headers=headers)
        return answer.status, await answer.json()

    status, refused = await hand_in()
    assert (status, refused["code"]) == (403, "rejected_unauthorised")
    grant = {"node": customer, "key": b64u_encode(key.public_key), "capability": "operate"}
    root = Author(key=server.signer.key, mesh_id=ledger.mesh_id, clock=server.clock)
    await ledger.submit([root.record("tree.grant", grant)])
    assert (await hand_in())[0] == 201
    assert domains_of(ledger.state, customer)["corp.example"]["upstreams"] == ["10.64.0.20"]
