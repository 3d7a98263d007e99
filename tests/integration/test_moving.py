"""An endpoint leaves a server that died, keeps its address, and is reached at the new one."""

from __future__ import annotations

import json
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from seipd.lab import net

if TYPE_CHECKING:
    from seipd.lab.mesh import Lab

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

LIMIT_S = 15.0


def endpoint_status(lab: Lab, name: str) -> dict:
    return lab._agent_status(lab.plan.host(name))


def server_of(lab: Lab, name: str) -> str:
    """Return where an endpoint is, as it wrote it down: asking takes long with a dead server."""
    return json.loads((lab.plan.host(name).data_root / "mesh.json").read_text())["server"][
        "server_id"
    ]


def ping(lab: Lab, source: str, target: str) -> bool:
    host = lab.plan.host(source)
    command = [*host.enter(), "ping", "-c", "1", "-W", "1", target]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def wait_for(probe, seconds: float) -> float:
    """Return after how many seconds the probe held."""
    began = time.monotonic()
    while not probe():
        assert time.monotonic() - began < seconds
        time.sleep(0.2)
    return time.monotonic() - began


def test_the_endpoint_of_a_dead_server_is_at_another_within_15_seconds(lab: Lab) -> None:
    first, second = lab.plan.servers
    address, far = lab.tunnel_address("e1"), lab.tunnel_address("e2")
    assert ping(lab, "e2", address)
    time.sleep(3)
    net.partition(first, second)
    for one in lab.plan.endpoints:
        net.partition(one, first)
    target = lab.status(second)["server_id"]
    moved_s = wait_for(lambda: server_of(lab, "e1") == target, LIMIT_S + 5)
    assert moved_s <= LIMIT_S
    wait_for(lambda: ping(lab, "e1", far), 30)
    assert ping(lab, "e2", address)
    assert lab.tunnel_address("e1") == address
    # The agent writes its status once a second.
    wait_for(lambda: "was silent for" in endpoint_status(lab, "e1")["moved_because"], 30)
    net.heal([first, second, *lab.plan.endpoints])
    home = lab.status(first)["server_id"]
    # The one that it came from sends there, too, once it has heard.
    wait_for(lambda: home in lab.seipd(second, "peers"), 60)
    wait_for(lambda: ping(lab, "s1", address), 40)
