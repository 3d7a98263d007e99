"""Subnets as those who offer, approve and use them see them."""

from __future__ import annotations

import json

import pytest

from services.base.ledger.author import Author
from tests.unit.api.callers_kit import joined, login

LAN = "192.168.7.0/24"


class Member:
    """An endpoint with a session."""

    def __init__(self, key, answer, token, private, server) -> None:
        self.key, self.node, self.address = key, answer["node_id"], answer["tunnel_address"]
        self._headers = {"Authorization": f"Bearer {token}"}
        self._private, self._server = private, server

    async def get(self, path):
        answer = await self._private.get(path, headers=self._headers)
        return answer.status, json.loads(await answer.read())

    async def routes(self):
        status, value = await self.get(f"/api/mesh/routes/{self.node}")
        assert status == 200, value
        return value

    async def advertise(self, serial, *prefixes, is_exit=False):
        author = Author(key=self.key, mesh_id=self._server.ledger.mesh_id, clock=self._server.clock)
        body = {"node": self.node, "prefixes": list(prefixes), "exit": is_exit, "serial": serial}
        record = author.record("tree.advertise", body).value()
        answer = await self._private.post(
            "/api/tree/delta", data=json.dumps({"record": record}), headers=self._headers
        )
        return answer.status


@pytest.fixture
async def member(public, private, server):
    async def member(name, **wanted):
        key, answer = await joined(public, server, name, **wanted)
        _, session = await login(public, server, key)
        return Member(key, answer, session["token"], private, server)

    return member


async def test_a_subnet_is_offered_approved_used_and_withdrawn(member, seipd) -> None:
    router, user = await member("router"), await member("user")
    assert await router.advertise(1, LAN, is_exit=True) == 201
    assert (await user.routes())["routers"] == []
    listed = json.loads((await seipd("--json", "tree", "route", "ls")).stdout)
    assert [(one["name"], one["customer"], one["route"], one["approved"]) for one in listed] == [
        ("router", "default", LAN, False),
        ("router", "default", "exit", False),
    ]
    done = await seipd("tree", "route", "approve", router.address, LAN)
    assert done.returncode == 0, done.stderr
    done = await seipd("tree", "route", "approve", router.node, "exit")
    assert done.returncode == 0, done.stderr
    explained = json.loads((await seipd("--json", "explain", "192.168.7.77")).stdout)
    assert (explained["subnet"], explained["name"]) == (LAN, "router")
    (carried,) = (await user.routes())["routers"]
    assert (carried["address"], carried["routes"], carried["exit"]) == (router.address, [LAN], True)
    assert (await user.routes())["members"] == []
    own = await router.routes()
    assert own["own"]["routes"] == [LAN]
    assert sorted(own["members"]) == sorted([router.address, user.address])
    assert (await seipd("tree", "route", "withdraw", "router", LAN)).returncode == 0
    assert (await seipd("explain", "192.168.7.77")).returncode == 5
    (carried,) = (await user.routes())["routers"]
    assert (carried["routes"], carried["exit"]) == ([], True)
    shown = (await seipd("tree", "route", "ls")).stdout
    assert LAN in shown


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("approve", "10.64.0.99", LAN), 5, "10.64.0.99"),
        (("approve", "me", "192.168.9.0/24"), 5, "router does not offer 192.168.9.0/24"),
        (("withdraw", "me", LAN), 5, "is not approved"),
        (("approve", "me", "192.168.7.1/24"), 2, "not a prefix"),
        (("approve", "me", "0.0.0.0/0"), 2, "too much for a subnet"),
    ],
)
async def test_what_an_operator_is_told(member, seipd, words, code, said) -> None:
    router = await member("router")
    assert await router.advertise(1, LAN) == 201
    done = await seipd("tree", "route", *(router.address if one == "me" else one for one in words))
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr


async def test_other_customers_do_not_hear_of_a_subnet(member, seipd) -> None:
    router = await member("router")
    assert (await seipd("tree", "add", "acme")).returncode == 0
    stranger = await member("stranger", customer="acme")
    await router.advertise(1, LAN)
    await seipd("tree", "route", "approve", router.address, LAN)
    assert (await stranger.routes())["routers"] == []
    status, _ = await stranger.get(f"/api/mesh/routes/{router.node}")
    assert status == 404
    assert stranger.address not in (await router.routes())["members"]
    # Of the same subnet of theirs nobody's packets would know which is meant.
    assert await stranger.advertise(1, LAN) == 201
    refused = await seipd("tree", "route", "approve", stranger.address, LAN)
    assert "overlaps" in refused.stderr


async def test_an_endpoint_approves_nothing_itself(member, server) -> None:
    router = await member("router")
    await router.advertise(1, LAN)
    author = Author(key=router.key, mesh_id=server.ledger.mesh_id, clock=server.clock)
    record = author.record("tree.approve", {"node": router.node, "route": LAN}).value()
    answer = await router._private.post(
        "/api/tree/delta", data=json.dumps({"record": record}), headers=router._headers
    )
    assert answer.status in (403, 409)
    assert (await router.routes())["routers"] == []
