"""Who holds an address is told to those whom the rules let talk to it, of whichever customer."""

from __future__ import annotations

import json

import pytest

from tests.unit.api.callers_kit import joined, login


@pytest.fixture
async def ends(public, server, operator) -> dict[str, dict]:
    """Two endpoints of one customer and one of another, each with its headers."""
    answer = await operator.post("/api/tree/add", data=json.dumps({"name": "beta"}))
    assert answer.status == 201
    found = {}
    for name, customer in (("web", "default"), ("desk", "default"), ("other", "beta")):
        key, told = await joined(public, server, name, customer=customer)
        _, session = await login(public, server, key)
        found[name] = {**told, "headers": {"Authorization": f"Bearer {session['token']}"}}
    return found


async def looked_up(private, who: dict, *addresses: str) -> list[str]:
    answer = await private.post(
        f"/api/mesh/peers/{who['node_id']}",
        data=json.dumps({"addresses": list(addresses)}),
        headers=who["headers"],
    )
    assert answer.status == 200, await answer.text()
    return [one["name"] for one in (await answer.json())["peers"]]


async def test_a_brother_is_told_of_and_a_stranger_is_not(private, ends) -> None:
    web, desk, other = (ends[name]["tunnel_address"] for name in ("web", "desk", "other"))
    assert await looked_up(private, ends["web"], desk, other, "10.64.9.9", web) == ["desk"]
    assert await looked_up(private, ends["other"], web, desk) == []
    assert await looked_up(private, ends["web"], desk, desk) == ["desk"]


async def test_a_rule_opens_it_both_ways_and_takes_it_back(private, seipd, ends) -> None:
    """Answers come back by the same tunnel, so both have to know the other."""
    web, other = ends["web"]["tunnel_address"], ends["other"]["tunnel_address"]
    done = await seipd("acl", "allow", "beta", "web.default", "tcp/443", "--json")
    rule = json.loads(done.stdout)["rule"]
    assert await looked_up(private, ends["other"], web) == ["web"]
    assert await looked_up(private, ends["web"], other) == ["other"]
    assert await looked_up(private, ends["desk"], other) == []
    assert (await seipd("acl", "rm", rule[:8])).returncode == 0
    assert await looked_up(private, ends["other"], web) == []


async def test_who_may_not_be_talked_to_within_a_customer_is_not_told_of(
    private, seipd, ends
) -> None:
    web = ends["web"]["tunnel_address"]
    assert await looked_up(private, ends["desk"], web) == ["web"]
    for source, target in (("desk", "web"), ("web", "desk")):
        assert (await seipd("acl", "deny", source, target, "any")).returncode == 0
    assert await looked_up(private, ends["desk"], web) == []


@pytest.mark.parametrize("body", [{}, {"addresses": ["x"]}, {"addresses": ["10.64.0.9"] * 65}])
async def test_a_malformed_question_is_refused(private, ends, body) -> None:
    web = ends["web"]
    path = f"/api/mesh/peers/{web['node_id']}"
    answer = await private.post(path, data=json.dumps(body), headers=web["headers"])
    assert answer.status in (400, 413)


async def test_nobody_asks_in_the_name_of_another(private, ends) -> None:
    path = f"/api/mesh/peers/{ends['desk']['node_id']}"
    body = json.dumps({"addresses": [ends["web"]["tunnel_address"]]})
    answer = await private.post(path, data=body, headers=ends["web"]["headers"])
    assert answer.status == 404
    assert (await private.post(path, data=body)).status == 401
