"""Rules between endpoints over the daemon's own socket, by the command line, and for agents."""

from __future__ import annotations

import asyncio
import json
from ipaddress import IPv4Address

import pytest

from services.authority.policy.traffic import parse_traffic
from services.edge.policy.inbound import inbound_from
from tests.fakes.nftmodel import Packet
from tests.unit.api.callers_kit import joined, login


@pytest.fixture
async def ends(public, server, operator) -> dict[str, dict]:
    """Two endpoints of one customer and one of another, by what their join answered."""
    answer = await operator.post("/api/tree/add", data=json.dumps({"name": "beta"}))
    assert answer.status == 201
    found = {}
    for name, customer in (("web", "default"), ("desk", "default"), ("other", "beta")):
        key, told = await joined(public, server, name, customer=customer)
        found[name] = {**told, "key": key}
    return found


def open_to(server, source: dict, target: dict, port: int) -> bool:
    packet = Packet(
        saddr=source["tunnel_address"], daddr=target["tunnel_address"], l4proto=6, dport=port
    )
    return server.policy._table.model.passes(packet)


async def until(probe) -> None:
    async with asyncio.timeout(60):
        while not probe():
            await asyncio.sleep(0.01)


async def test_a_rule_is_said_checked_listed_and_taken_away(server, seipd, ends) -> None:
    other, web = ends["other"], ends["web"]
    done = await seipd("acl", "check", "other", "web", "tcp/443")
    assert (done.returncode, done.stdout) == (1, "no: nothing opens it between them\n")
    done = await seipd("acl", "allow", "beta", "web.default", "tcp/443", "--json")
    rule = json.loads(done.stdout)["rule"]
    await until(lambda: open_to(server, other, web, 443))
    assert not open_to(server, other, web, 22)
    said = f"yes: rule {rule[:8]} allows beta to web.default tcp/443\n"
    for source, target in (("other", "web"), (other["tunnel_address"], web["node_id"])):
        done = await seipd("acl", "check", source, target, "tcp/443")
        assert (done.returncode, done.stdout) == (0, said)
    done = await seipd("explain", "other", "web", "tcp/443")
    assert done.returncode == 0
    assert said in done.stdout
    assert (await seipd("explain", "other", "web", "tcp/22")).returncode == 1
    done = await seipd("explain", "other", "web", "--json")
    assert json.loads(done.stdout)["open"] == "tcp/443"
    done = await seipd("acl", "ls")
    assert rule[:8] in done.stdout
    assert "web.default" in done.stdout
    done = await seipd("acl", "rm", rule[:8])
    assert done.returncode == 0
    await until(lambda: not open_to(server, other, web, 443))
    assert (await seipd("acl", "rm", rule[:8])).returncode == 5
    assert (await seipd("acl", "check", "other", "web", "tcp/443")).returncode == 1


async def test_a_check_says_that_the_kernel_does_not_hold_the_rules(server, seipd, ends) -> None:
    table = server.policy._table
    assert (await seipd("acl", "check", "desk", "web", "tcp/443")).stderr == ""
    table.refuses, table.model = "nftables: Operation not permitted", None
    assert (await seipd("acl", "deny", "beta", "web", "any")).returncode == 0
    await until(lambda: not server.policy.is_kept)
    done = await seipd("acl", "check", "other", "web", "tcp/443")
    assert done.returncode == 1
    assert "keeps no rules now" in done.stderr
    done = await seipd("acl", "check", "desk", "web", "any", "--json")
    assert json.loads(done.stdout)["kept"] is False


async def test_a_rule_denies_within_a_customer(server, seipd, ends) -> None:
    desk, web = ends["desk"], ends["web"]
    assert open_to(server, desk, web, 22)
    assert (await seipd("acl", "deny", "everybody", "web", "tcp/22")).returncode == 0
    await until(lambda: not open_to(server, desk, web, 22))
    assert open_to(server, desk, web, 443)
    done = await seipd("acl", "check", "desk", "web", "tcp")
    assert done.returncode == 1
    assert "only tcp/1-21, tcp/23-65535 is open" in done.stdout


async def test_the_question_about_keys_is_still_answered(server, seipd, ends) -> None:
    root = server.ledger.state.get("mesh", "root_node")
    key = server.services.author
    assert key is not None
    done = await seipd("acl", "check", "A" * 43, "read", root)
    assert done.returncode == 1
    assert "no grant" in done.stdout


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("check", "other", "web", "tcp/0"), 2),
        (("check", "other", "web", "ssh"), 2),
        (("check", "other", "nobody", "tcp/22"), 5),
        (("allow", "beta", "beta", "tcp/99999"), 2),
        (("allow", "nobody", "beta", "tcp/22"), 5),
        (("rm", "ab"), 2),
    ],
)
async def test_what_makes_no_sense_is_refused(seipd, ends, words, status) -> None:
    done = await seipd("acl", *words)
    assert done.returncode == status
    assert "Traceback" not in done.stderr
    assert json.loads((await seipd("acl", "ls", "--json")).stdout) == []


async def test_a_name_that_two_have_is_asked_about(public, server, seipd, ends) -> None:
    await joined(public, server, "web", customer="beta")
    done = await seipd("acl", "check", "desk", "web", "tcp/22")
    assert done.returncode == 6
    assert "NAME.CUSTOMER" in done.stderr
    assert (await seipd("acl", "check", "desk", "web.default", "tcp/22")).returncode == 0


async def test_an_agent_is_told_what_may_reach_it(private, public, server, operator, ends) -> None:
    _, session = await login(public, server, ends["web"]["key"])
    headers = {"Authorization": f"Bearer {session['token']}"}

    async def told(have: str = ""):
        return await (await private.get(f"/api/mesh/policy?have={have}", headers=headers)).json()

    first = await told()
    inbound = inbound_from(first)
    (own,) = inbound.classes
    members = {IPv4Address(ends[one]["tunnel_address"]) for one in ("desk", "web")}
    assert set(own[1]) == members
    assert inbound.strangers == ()
    assert await told(first["version"]) == {"version": first["version"]}
    rule = {"source": "other", "target": "web", "traffic": "tcp/443"}
    await operator.post("/api/acl/allow", data=json.dumps(rule))
    await until(lambda: open_to(server, ends["other"], ends["web"], 443))
    second = inbound_from(await told(first["version"]))
    other = (IPv4Address(ends["other"]["tunnel_address"]),)
    assert (parse_traffic("tcp/443").spans, other) in second.classes
    # Strangers are told nothing.
    assert (await private.get("/api/mesh/policy")).status == 401


async def test_who_is_concerned_is_told(server, operator, ends) -> None:
    told: list = []
    server.policy.subscribe(told.append)
    rule = {"source": "beta", "target": "web", "traffic": "tcp/443"}
    await operator.post("/api/acl/allow", data=json.dumps(rule))
    await until(lambda: told)
    assert told == [{ends["web"]["node_id"]}]
    rule = {"source": "beta", "target": "everybody", "traffic": "tcp/443"}
    await operator.post("/api/acl/deny", data=json.dumps(rule))
    await until(lambda: len(told) > 1)
    assert told[1] is None
