"""The private API over real tunnels: from where it answers, and when."""

from __future__ import annotations

import json
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from seipd.agent.state import AgentState
from services.edge.auth.sessions import auth_input
from services.kernel.ids import b64u_decode, b64u_encode

if TYPE_CHECKING:
    from seipd.lab.mesh import Lab

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

GATEWAY = "10.64.0.1"
NO_ANSWER = "000"


def curl(lab: Lab, name: str, url: str, *, token: str = "") -> str:
    """Return the status that a host of the lab gets, or ``000``."""
    host = lab.plan.host(name)
    words = ["curl", "-ks", "--max-time", "3", "-o", "/dev/null", "-w", "%{http_code}"]
    if token:
        words += ["-H", f"Authorization: Bearer {token}"]
    done = subprocess.run(
        [*host.enter(), *words, url],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return done.stdout


def asked_inside(lab: Lab, name: str, url: str, body: dict[str, Any]) -> dict[str, Any]:
    host = lab.plan.host(name)
    done = subprocess.run(
        [*host.enter(), "curl", "-ks", "--max-time", "5", "-d", json.dumps(body), url],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return json.loads(done.stdout)


def token_of(lab: Lab, name: str, server: str) -> str:
    """Log in at a server with an endpoint's key, over the public port."""
    keys = AgentState(lab.plan.host(name).data_root).keys()
    base = f"https://{lab.plan.host(server).address}:9100"
    given = asked_inside(lab, name, f"{base}/api/auth/challenge", {})
    signed = auth_input(given["mesh_id"], given["server_id"], b64u_decode(given["nonce"]))
    answer = {
        "key": b64u_encode(keys.identity.public_key),
        "nonce": given["nonce"],
        "signature": b64u_encode(keys.identity.sign(signed)),
    }
    return asked_inside(lab, name, f"{base}/api/auth", answer)["token"]


def until(probe, seconds: float = 60.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := probe():
            return found
        time.sleep(0.2)
    return probe()


def test_prv_04_a_stolen_token_is_refused_in_another_tunnel(lab: Lab) -> None:
    token = token_of(lab, "e1", "s1")
    assert curl(lab, "e1", f"https://{GATEWAY}:9101/metrics", token=token) == "200"
    own = lab.status(lab.plan.host("s1"))
    for address in (own["tunnel_address"], own["backbone_address"]):
        url = f"https://{address}:9101/metrics"
        assert curl(lab, "e1", url, token=token) == "200", address
        assert curl(lab, "e2", url) == "401", address
        assert curl(lab, "e2", url, token=token) == "403", address
        assert curl(lab, "s2", url, token=token) == "403", address


def test_prv_02_it_follows_the_address_that_goes_and_comes(lab: Lab) -> None:
    server = lab.plan.host("s1")
    url = f"https://{GATEWAY}:9101/openapi.json"

    def listening() -> list[str]:
        said = subprocess.run(
            [*server.enter(), "ss", "-Hltn", "sport = :9101"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        return sorted(line.split()[3].rpartition(":")[0] for line in said.splitlines())

    before = listening()
    assert len(before) == 3
    # Again and again: once would be mended before anybody sees it.
    taking = (
        f"for i in $(seq 600); do ip addr del {GATEWAY}/32 dev {server.interface}; sleep 0.1; done"
    )
    with subprocess.Popen(
        [*server.enter(), "sh", "-c", taking], stderr=subprocess.DEVNULL
    ) as taker:
        assert until(lambda: GATEWAY not in listening())
        assert set(listening()) < set(before)
        assert curl(lab, "e1", url) == NO_ANSWER
        taker.kill()
    # The tunnel gets its address back by itself, and the listener comes with it.
    assert until(lambda: listening() == before)
    assert until(lambda: curl(lab, "e1", url) == "200")
    assert lab.status(server)["healthy"]
