"""An endpoint asks for a majority of three witnesses; two of them go and come back."""

from __future__ import annotations

import json
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes.labs import lab_of

if TYPE_CHECKING:
    from seipd.lab.mesh import Lab

pytestmark = [pytest.mark.integration, pytest.mark.long, pytest.mark.timeout(400)]


@pytest.fixture
def lab():
    with lab_of(3, 3) as built:
        built.up(lambda line: None)
        yield built


def status(lab: Lab, name: str) -> dict[str, Any]:
    host = lab.plan.host(name)
    said = subprocess.run(
        [*host.enter(), "seip", "status", "--json"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=lab.environment(host),
    )
    return json.loads(said.stdout)


def until(probe, seconds: float = 120.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := probe():
            return found
        time.sleep(0.5)
    return probe()


def trust(lab: Lab) -> tuple[str, dict[str, str]]:
    """Return what e1 holds of its server, and of each peer."""
    shown = status(lab, "e1")
    return shown["trust"]["server"]["state"], {
        peer["name"]: peer["trust"] for peer in shown["peers"]
    }


def test_without_a_majority_who_is_believed_stays_and_nobody_is_added(lab: Lab) -> None:
    proven = ("proven", {"e2": "proven", "e3": "proven"})
    assert until(lambda: trust(lab) == proven), status(lab, "e1")
    assert status(lab, "e1")["trust"]["needed"] == 2
    lab.seip(lab.plan.host("e3"), "leave", "--wireguard-interface", lab.plan.host("e3").interface)
    assert until(lambda: trust(lab)[1] == {"e2": "proven"})
    for name in ("s2", "s3"):
        lab.stop_server(lab.plan.host(name))
    lab.join_endpoint(lab.plan.host("e3"), lab.plan.host("s1"))
    alone = ("believed", {"e2": "believed", "e3": "waiting"})
    assert until(lambda: trust(lab) == alone), status(lab, "e1")
    shown = status(lab, "e1")
    assert shown["connected"]
    assert "words on the state are" in shown["trust"]["server"]["why"]
    for name in ("s2", "s3"):
        lab.start_server(lab.plan.host(name))
    assert until(lambda: trust(lab) == proven), status(lab, "e1")


def test_an_endpoint_of_a_revoked_server_learns_it_and_goes_elsewhere(lab: Lab) -> None:
    host = lab.plan.host("e2")
    assert until(lambda: status(lab, "e2")["trust"]["server"]["state"] == "proven")
    gone = status(lab, "e2")["server"]["id"]
    lab.seipd(lab.plan.host("s1"), "server", "revoke", gone, "--yes")
    assert until(lambda: status(lab, "e2")["trust"]["server"]["code"] == "revoked")
    said = subprocess.run(
        [*host.enter(), "seip", "doctor"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=lab.environment(host),
    )
    assert said.returncode == 1
    assert "the root removed this server from the mesh" in said.stdout
    shown = subprocess.run(
        [*host.enter(), "wg", "show", host.interface, "peers"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.strip() == ""
    lab.seip(host, "leave", "--wireguard-interface", host.interface)
    lab.seip(host, "join", lab.invite(lab.plan.host("s1"), "endpoint"), "--name", "e2-again")
    lab.seip(host, "up", "--wireguard-interface", host.interface)
    assert status(lab, "e2")["connected"]
