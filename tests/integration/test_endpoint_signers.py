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


def test_an_endpoint_of_a_revoked_server_goes_elsewhere_and_keeps_its_address(lab: Lab) -> None:
    assert until(lambda: status(lab, "e2")["trust"]["server"]["state"] == "proven")
    before = status(lab, "e2")
    gone = before["server"]["id"]
    lab.seipd(lab.plan.host("s1"), "server", "revoke", gone, "--yes")
    assert until(lambda: status(lab, "e2")["server"]["id"] != gone, 60.0)
    assert until(lambda: status(lab, "e2")["trust"]["server"]["state"] == "proven")
    after = status(lab, "e2")
    assert after["connected"]
    assert gone in after["moved_because"]
    assert after["tunnel_address"] == before["tunnel_address"]
    assert until(lambda: {"e1", "e3"} <= {peer["name"] for peer in status(lab, "e2")["peers"]})
