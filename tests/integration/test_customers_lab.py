"""Endpoints of two customers whom a rule lets talk meet directly, and are held to it there."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes.labs import lab_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from seipd.lab.mesh import Lab

pytestmark = [pytest.mark.integration, pytest.mark.long, pytest.mark.timeout(240)]

SOON_S = 30.0
SERVE = """
import socket
for port in (22, 443):
    listening = socket.socket(socket.AF_INET6)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("", port))
    listening.listen()
    globals()[f"kept{port}"] = listening
print("ready", flush=True)
import time
time.sleep(600)
"""
CONNECT = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=1).close()
except OSError:
    sys.exit(1)
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """One server; e1 is of the first customer, e2 of another."""
    serving = []
    with lab_of(1, 2) as built:
        built.prepare()
        built.start_servers(lambda line: None)
        server = built.plan.servers[0]
        built.seipd(server, "tree", "add", "beta")
        for name, customer in (("e1", "default"), ("e2", "beta")):
            host = built.plan.host(name)
            token = built.invite(server, "endpoint", "--customer", customer)
            built.seip(host, "join", token, "--name", name)
            built.seip(host, "up", "--wireguard-interface", host.interface)
            command = [*host.enter(), sys.executable, "-c", SERVE]
            serving.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
            assert serving[-1].stdout.readline() == "ready\n"
        try:
            yield built
        finally:
            for one in serving:
                one.kill()
                one.communicate()


def until(probe: Callable[[], bool]) -> None:
    began = time.monotonic()
    while not probe():
        assert time.monotonic() - began < SOON_S
        time.sleep(0.1)


def running(lab: Lab, name: str) -> dict[str, Any]:
    with contextlib.suppress(FileNotFoundError):
        path = lab.plan.host(name).data_root / "run" / "status.json"
        found: dict[str, Any] = json.loads(path.read_text())
        return found
    return {}


def both(lab: Lab, path: str) -> bool:
    held = [running(lab, name).get("paths", {}).get("held", []) for name in ("e1", "e2")]
    return all((one[0]["path"] if one else "server") == path for one in held)


def addresses(lab: Lab, name: str) -> tuple[str, str]:
    mesh = json.loads((lab.plan.host(name).data_root / "mesh.json").read_bytes())
    return mesh["tunnel_address"], mesh["tunnel_address6"]


def connects(lab: Lab, source: str, address: str, port: int) -> bool:
    command = [*lab.plan.host(source).enter(), sys.executable, "-c", CONNECT, address, str(port)]
    return subprocess.run(command, check=False).returncode == 0


def test_a_rule_between_customers_holds_on_their_direct_tunnel(lab: Lab) -> None:
    server, (to, to6) = lab.plan.servers[0], addresses(lab, "e2")
    assert not connects(lab, "e1", to, 443)
    said = lab.seipd_json(server, "acl", "allow", "default", "e2", "tcp/443")
    # By IPv6 alone: that address is in no list either.
    until(lambda: connects(lab, "e1", to6, 443) and both(lab, "direct"))
    for address in (to, to6):
        assert connects(lab, "e1", address, 443)
        assert not connects(lab, "e1", address, 22)
    for address in addresses(lab, "e1"):
        assert not connects(lab, "e2", address, 443)
    assert both(lab, "direct"), "what was refused, was refused there"
    shown = json.loads(lab.seip(lab.plan.host("e1"), "status", "--json"))["peers"]
    assert [(one["name"], one["path"]) for one in shown] == [("e2", "direct")]
    done = lab._run("seip", lab.plan.host("e1"), "ping", to, "-c", "1")
    assert "reached directly at" in done.stderr
    lab.seipd(server, "acl", "rm", said["rule"])
    until(lambda: not connects(lab, "e1", to, 443) and both(lab, "server"))


def test_who_holds_to_no_rules_is_met_over_the_servers(lab: Lab) -> None:
    server, (to, _) = lab.plan.servers[0], addresses(lab, "e2")
    lab.seipd(server, "acl", "allow", "default", "e2", "tcp/443")
    until(lambda: connects(lab, "e1", to, 443) and both(lab, "direct"))
    host = lab.plan.host("e2")
    # Another's table of that name: the agent can't put its own there.
    table = f"seip_policy_{host.interface}"
    # At once, for it puts a table back that goes.
    words = f"delete table inet {table}; add table inet {table}"
    subprocess.run([*host.enter(), "nft", words], check=True)
    until(lambda: running(lab, "e2")["policy"]["state"] == "not kept")
    until(lambda: both(lab, "server"))
    assert connects(lab, "e1", to, 443)
    assert not connects(lab, "e1", to, 22)
