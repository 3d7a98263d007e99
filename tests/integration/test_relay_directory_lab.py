"""Relays in the lab: the server's own, a community relay that stands alone, tickets and reports."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from services.edge.relay.client import Phase
from services.edge.relaying.reports import signed_report
from services.kernel.ids import b64u_encode, parse_key, relay_id_of
from tests.fakes.labs import lab_of
from tests.fakes.relay_calls import WIREGUARD_DATA, PrivateCalls, SideOfSession, offer_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from seipd.lab.mesh import Lab

pytestmark = [pytest.mark.integration, pytest.mark.long, pytest.mark.timeout(240)]


def until(probe: Callable[[], Any], seconds: float = 60.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := probe()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
    return found


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Two servers, two endpoints on the first, and a host that is neither."""
    with lab_of(3, 2) as built:
        built.prepare()
        built.start_servers(lambda _: None, server_count=2)
        for host in built.plan.endpoints:
            built.join_endpoint(host, built.plan.host("s1"))
        yield built


@pytest.fixture(scope="module")
def community(lab: Lab) -> Iterator[str]:
    """A relay on that host, registered as the mesh's own; its id."""
    host, server = lab.plan.host("s3"), lab.plan.host("s1")
    status = lab.status(server)
    words = ["relay", "run", "--json", "--mesh", status["mesh_id"], "--region", status["region"]]
    words += ["--server", f"{server.address}:9100", "--public-address", host.address]
    words += ["--state", str(host.folder / "relay"), "--bind-address", host.address]
    running = subprocess.Popen(
        [*host.enter(), sys.executable, "-m", "seipd", *words],
        stdout=subprocess.PIPE,
        stderr=(host.folder / "relay.log").open("wb"),
        text=True,
    )
    try:
        told, _ = json.JSONDecoder().raw_decode(_document(running))
        made = lab.seipd_json(server, "relay", "register", told["introduction"])
        assert made["relay_id"] == told["relay_id"]
        until(lambda: row_of(lab, told["relay_id"]).get("state") == "usable")
        yield told["relay_id"]
    finally:
        running.terminate()
        assert running.wait(timeout=20) == 0


def _document(running: subprocess.Popen[str]) -> str:
    assert running.stdout is not None
    lines = []
    for line in running.stdout:
        lines.append(line)
        if line.startswith("}"):
            break
    return "".join(lines)


def row_of(lab: Lab, relay_id: str) -> dict[str, Any]:
    rows = lab.seipd_json(lab.plan.host("s1"), "relay", "ls")
    return next((row for row in rows if row["relay_id"] == relay_id), {})


def relay_of(lab: Lab, name: str) -> str:
    return relay_id_of(parse_key(lab.status(lab.plan.host(name))["public_key"]))


def node_of(calls: PrivateCalls) -> str:
    node: str = calls.mesh["node_id"]
    return node


def ticket_for(own: PrivateCalls, peer: PrivateCalls, *excluded: str) -> tuple[int, Any]:
    body = {"peer": node_of(peer), "excluded": list(excluded)}
    return own.call("/api/relay/ticket", body)


def test_a_server_is_a_relay_and_the_nearest_is_told(lab: Lab) -> None:
    status, own = lab.status(lab.plan.host("s1")), relay_of(lab, "s1")
    row = until(lambda: row_of(lab, own))
    assert (row["state"], row["port"], row["host"]) == (
        "usable",
        status["ports"]["relay"],
        lab.plan.host("s1").address,
    )
    calls = PrivateCalls(lab, "e1")
    code, found = calls.call("/api/relay/nearest")
    assert (code, found["regions"]) == (200, [status["region"]])
    assert own in {one["relay_id"] for one in found["relays"]}
    code, listed = calls.call("/api/relay/list")
    assert code == 200
    assert "owner" not in listed["relays"][0]


def test_servers_find_out_whether_the_relays_of_others_live(lab: Lab, community: str) -> None:
    for relay_id in (relay_of(lab, "s2"), community):
        row = until(lambda relay_id=relay_id: asked(lab, relay_id))
        assert row["state"] == "usable"


def asked(lab: Lab, relay_id: str) -> dict[str, Any] | None:
    row = row_of(lab, relay_id)
    return row if row.get("latency_ms") is not None else None


def test_a_community_relay_carries_between_two_endpoints(lab: Lab, community: str) -> None:
    own, second = relay_of(lab, "s1"), relay_of(lab, "s2")
    one, other = PrivateCalls(lab, "e1"), PrivateCalls(lab, "e2")
    code, answer = ticket_for(one, other)
    assert code == 200
    assert len(answer["offers"]) == 2
    assert {offer["relay_id"] for offer in answer["offers"]} <= {own, second, community}
    _, answer = ticket_for(one, other, own, second)
    (offer,) = answer["offers"]
    assert offer["relay_id"] == community
    sides = [SideOfSession(calls, offer_of(offer)) for calls in (one, other)]

    def turned(probe: Callable[[], Any]) -> Callable[[], Any]:
        def turn() -> Any:
            for side in sides:
                side.turn()
            return probe()

        return turn

    until(turned(lambda: all(side.phase is Phase.TOGETHER for side in sides)))
    for number, side in enumerate(sides):
        sender = sides[1 - number]
        text = b"packet %d" % number + bytes(60)

        def came(side: SideOfSession = side, sender: Any = sender, text: bytes = text) -> Any:
            sender.say(text)
            return side.came

        until(turned(came))
        assert set(side.came) == {WIREGUARD_DATA + text}

    def account() -> bytes:
        sides[0].ask_usage()
        return sides[0].client.statement

    until(turned(account))
    report = signed_report(
        one.keys.identity,
        one.mesh["mesh_id"],
        {
            "ticket": offer["ticket"],
            "usage": b64u_encode(sides[0].client.statement),
            "sent": 3,
            "answered": 3,
            "silent_s": 0,
            "duration_s": 3,
            "latency_ms": 1,
            "jitter_ms": 0,
            "rating": 100,
            "time_ms": one.call("/api/mesh/heartbeat", {})[1]["now_ms"],
        },
    )
    code, taken = one.call("/api/relay/report", {"report": report})
    assert (code, taken["counts"], taken["relay_id"]) == (200, True, community)
    until(lambda: row_of(lab, community)["voices"] == 1)
    code, refused = other.call("/api/relay/report", {"report": report})
    assert (code, refused["code"]) == (403, "not_your_session")
    lab.seipd(lab.plan.host("s1"), "tree", "rm", node_of(other))
    until(turned(lambda: all(side.phase is Phase.LOST for side in sides)))
    assert {side.client.why for side in sides} <= {"revoked", "ended"}
    code, refused = ticket_for(one, other)
    assert (code, refused["code"]) == (404, "not_found")


def test_a_retired_relay_is_offered_to_nobody(lab: Lab, community: str) -> None:
    server = lab.plan.host("s1")
    lab.seipd(server, "relay", "retire", community)
    until(lambda: not row_of(lab, community))
    nearest = lab.seipd_json(server, "relay", "nearest")
    assert community not in {one["relay_id"] for one in nearest}
