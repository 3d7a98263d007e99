"""An operator's DNS records over the daemon's own socket, and by the command line."""

from __future__ import annotations

import functools
import json

import pytest

from services.base.ledger.author import Author
from services.kernel.ids import b64u_encode
from tests.unit.api.callers_kit import joined, login


@pytest.fixture
def dns(seipd):
    """Run ``seipd dns``."""
    return functools.partial(seipd, "dns")


async def post(operator, path: str, **body):
    answer = await operator.post(f"/api/dns/{path}", data=json.dumps(body))
    return answer.status, await answer.json()


async def records(operator):
    rows = await (await operator.get("/api/dns/records")).json()
    return [(row["name"], row["type"], row["ttl"], row["values"]) for row in rows]


async def test_records_are_set_listed_replaced_and_removed(operator) -> None:
    status, said = await post(operator, "set", name="www", type="a", values=["192.0.2.1"])
    assert (status, said["type"], said["ttl"]) == (200, "A", 300)
    name = said["name"]
    domain = name.removeprefix("www.")
    assert len(said["record"]) == 32
    await post(operator, "set", name=name, type="A", values=["192.0.2.2"], ttl=60)
    await post(operator, "set", name="@", type="TXT", values=["hello"])
    assert await records(operator) == [
        (domain, "TXT", 300, ["hello"]),
        (name, "A", 60, ["192.0.2.2"]),
    ]
    assert (await post(operator, "remove", name="www", type="a"))[0] == 200
    assert (await post(operator, "remove", name="@"))[1]["types"] == ["TXT"]
    assert await records(operator) == []


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("set", {"name": "x.seip", "type": "A", "values": ["192.0.2.1"]}, 400, "bad_name"),
        ("set", {"name": "a..b", "type": "A", "values": ["192.0.2.1"]}, 400, "bad_name"),
        ("set", {"name": "www", "type": "NS", "values": ["ns.example"]}, 400, "bad_type"),
        ("set", {"name": "www", "type": "A", "values": ["1.2.3"]}, 400, "bad_record"),
        ("set", {"name": "www", "type": "A", "values": []}, 400, "bad_field"),
        ("set", {"name": "www", "type": "A", "values": ["192.0.2.1"], "x": 1}, 400, "bad_field"),
        ("remove", {"name": "www"}, 404, "not_found"),
        ("remove", {"name": "www", "type": "A"}, 404, "not_found"),
    ],
)
async def test_what_is_wrong_is_named(operator, path, body, status, code) -> None:
    answer = await post(operator, path, **body)
    assert (answer[0], answer[1]["code"]) == (status, code)


async def test_an_alias_beside_others_is_refused(operator) -> None:
    await post(operator, "set", name="www", type="A", values=["192.0.2.1"])
    status, answer = await post(
        operator, "set", name="www", type="CNAME", values=["web.example.org"]
    )
    assert answer["code"] == "alias_not_alone"
    assert status in (409, 422)
    assert len(await records(operator)) == 1


async def test_the_command_line_sets_lists_and_removes(dns) -> None:
    done = await dns("set", "www", "A", "192.0.2.1", "192.0.2.2", "--ttl", "60", "--json")
    assert json.loads(done.stdout)["values"] == ["192.0.2.1", "192.0.2.2"]
    done = await dns("set", "www", "TXT", "v=spf1 -all")
    assert done.returncode == 0
    done = await dns("ls")
    assert "192.0.2.2" in done.stdout
    assert "v=spf1 -all" in done.stdout
    done = await dns("ls", "--json")
    assert [row["type"] for row in json.loads(done.stdout)] == ["A", "TXT"]
    done = await dns("rm", "www")
    assert "A, TXT" in done.stdout
    done = await dns("rm", "www")
    assert done.returncode == 5
    assert done.stderr.startswith("error: ")
    done = await dns("set", "www", "A", "x")
    assert done.returncode == 2
    assert "write an IPv4 address" in done.stderr


async def test_a_member_hands_in_a_record_of_its_own_if_it_may(public, private, server) -> None:
    key, _ = await joined(public, server)
    _, session = await login(public, server, key)
    headers = {"Authorization": f"Bearer {session['token']}"}
    ledger = server.ledger
    member = Author(key=key, mesh_id=ledger.mesh_id, clock=server.clock)
    domain = ledger.charter.genesis.domain
    body = {"name": f"mine.{domain}", "type": "A", "ttl": 60, "values": ["192.0.2.7"]}

    async def hand_in():
        record = json.dumps({"record": member.record("dns.set", body).value()})
        answer = await private.post("/api/tree/delta", data=record, headers=headers)
        return answer.status, await answer.json()

    status, refused = await hand_in()
    assert (status, refused["code"]) == (403, "rejected_unauthorised")
    grant = {
        "node": ledger.state.get("mesh", "root_node"),
        "key": b64u_encode(key.public_key),
        "capability": "operate",
    }
    root = Author(key=server.signer.key, mesh_id=ledger.mesh_id, clock=server.clock)
    await ledger.submit([root.record("tree.grant", grant)])
    assert (await hand_in())[0] == 201
    assert ledger.state.get("dns", body["name"])["A"]["values"] == ["192.0.2.7"]
