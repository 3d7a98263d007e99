"""Port 22 closed and 443 open between two customers: real connections, on servers and agents."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.fakes.labs import lab_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from seipd.lab.mesh import Lab
    from seipd.lab.plan import Host

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

SOON_S = 40.0
WAIT_S = 3.0
SERVE = """
import socket, threading
def serve(family, port):
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    listening.bind(("", port))
    listening.listen()
    while True:
        one, _ = listening.accept()
        threading.Thread(target=echo, args=(one,), daemon=True).start()
def echo(one):
    try:
        while data := one.recv(100):
            one.sendall(data)
    except OSError:
        one.close()
for port in (22, 443):
    for family in (socket.AF_INET, socket.AF_INET6):
        threading.Thread(target=serve, args=(family, port)).start()
"""
CONNECT = """
import socket, sys
host, port, limit_s = sys.argv[1:]
try:
    with socket.create_connection((host, int(port)), timeout=float(limit_s)) as one:
        one.sendall(b"hello")
        print(one.recv(100).decode())
except OSError as error:
    print(error)
"""
HOLD = """
import socket, sys, time
one = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=5)
one.settimeout(0.2)
began = time.monotonic()
while time.monotonic() - began < 30:
    try:
        one.sendall(b"x")
        answer = one.recv(100)
    except OSError:
        answer = b""
    print(time.monotonic(), len(answer), flush=True)
    time.sleep(0.02)
"""


@pytest.fixture(scope="module")
def policy_lab() -> Iterator[Lab]:
    """Two servers; e1 and e3 are of the first customer, e2 of another."""
    with lab_of(2, 3) as lab:
        lab.prepare()
        lab.start_servers(lambda line: None)
        first, second = lab.plan.servers
        lab.seipd(first, "tree", "add", "beta")
        until(lambda: "beta" in lab.seipd(second, "tree", "ls"))
        for name, server, customer in (
            ("e1", first, "default"),
            ("e2", second, "beta"),
            ("e3", second, "default"),
        ):
            host = lab.plan.host(name)
            token = lab.invite(server, "endpoint", "--customer", customer)
            lab.seip(host, "join", token, "--name", name)
            # Over the servers alone, so that it is seen what these let through.
            mode = "hub" if name == "e2" else "mesh"
            lab.seip(host, "up", "--wireguard-interface", host.interface, "--mode", mode)
            start(lab, name, SERVE)
        # Both servers know all, and each agent what may reach it.
        for name in ("e1", "e2", "e3"):
            until(lambda one=name: policy_of(lab, one)["state"] == "kept")
        yield lab


def until(probe: Callable[[], bool], limit_s: float = SOON_S) -> float:
    """Return how long it took until the probe held."""
    began = time.monotonic()
    while not probe():
        assert time.monotonic() - began < limit_s
        time.sleep(0.02)
    return time.monotonic() - began


def start(lab: Lab, name: str, script: str, *words: str) -> subprocess.Popen[str]:
    command = [*lab.plan.host(name).enter(), sys.executable, "-c", script, *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def connects(lab: Lab, source: str, address: str, port: int, *, within_s: float = 1.0) -> bool:
    child = start(lab, source, CONNECT, address, str(port), str(within_s))
    return child.communicate(timeout=30)[0].strip() == "hello"


def policy_of(lab: Lab, name: str) -> dict:
    path = lab.plan.host(name).data_root / "run" / "status.json"
    return json.loads(path.read_bytes()).get("policy", {"state": "none"})


def path_of(lab: Lab, name: str, address: str) -> str:
    path = lab.plan.host(name).data_root / "run" / "status.json"
    held = json.loads(path.read_bytes())["paths"]["held"]
    return next((one["path"] for one in held if one["address"] == address), "")


def refused_by(lab: Lab, name: str) -> int:
    table = f"seip_policy_{lab.plan.host(name).interface}"
    listed = nft(lab, name, "-j", "list", "chain", "inet", table, "refuse").stdout
    rules = [one["rule"]["expr"] for one in json.loads(listed)["nftables"] if "rule" in one]
    return sum(part["counter"]["packets"] for rule in rules for part in rule if "counter" in part)


def service_of(lab: Lab, server: Host) -> dict:
    (row,) = [one for one in lab.status(server)["services"] if one["name"] == "policy"]
    return row


def agent_pid(lab: Lab, name: str) -> int:
    path = lab.plan.host(name).data_root / "run" / "status.json"
    return json.loads(path.read_bytes())["pid"]


@contextmanager
def resting(*pids: int | None) -> Iterator[None]:
    """Let programs do nothing for a while; the kernel goes on."""
    for pid in pids:
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def nft(lab: Lab, name: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = [*lab.plan.host(name).enter(), "nft", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def addresses(lab: Lab, name: str) -> tuple[str, str]:
    mesh = json.loads((lab.plan.host(name).data_root / "mesh.json").read_bytes())
    return mesh["tunnel_address"], mesh["tunnel_address6"]


def test_between_customers_all_is_closed_until_a_rule_opens_a_port(policy_lab: Lab) -> None:
    lab, first = policy_lab, policy_lab.plan.servers[0]
    for address in addresses(lab, "e2"):
        assert not connects(lab, "e1", address, 443)
    for address in addresses(lab, "e3"):
        assert connects(lab, "e1", address, 22)
    lab.seipd(first, "acl", "allow", "default", "e2", "tcp/443")
    for address in addresses(lab, "e2"):
        until(lambda to=address: connects(lab, "e1", to, 443))
        assert not connects(lab, "e1", address, 22)
    for address in addresses(lab, "e1"):
        assert not connects(lab, "e2", address, 443)
    assert lab.seipd(first, "acl", "check", "e1", "e2", "tcp/443").startswith("yes: rule ")


def test_each_of_server_and_agent_keeps_the_rules_alone(policy_lab: Lab) -> None:
    lab = policy_lab
    (to, _), second = addresses(lab, "e2"), lab.plan.servers[1]
    tables = {server.name: f"seipd_policy_{server.interface}" for server in lab.plan.servers}
    agents = f"seip_policy_{lab.plan.host('e2').interface}"
    # The agent's is empty: the servers refuse. Whoever keeps a table would put it back: they rest.
    with resting(agent_pid(lab, "e2")):
        assert nft(lab, "e2", "flush", "table", "inet", agents).returncode == 0
        assert not connects(lab, "e1", to, 22)
        assert connects(lab, "e1", to, 443)
    until(lambda: "jump inbound" in nft(lab, "e2", "list", "table", "inet", agents).stdout)
    lab.seip(lab.plan.host("e2"), "down")
    assert agents not in nft(lab, "e2", "list", "tables").stdout
    lab.seip(lab.plan.host("e2"), "up", "--wireguard-interface", lab.plan.host("e2").interface)
    until(lambda: agents in nft(lab, "e2", "list", "tables").stdout)
    # The servers' are empty: the agent refuses, by what it was told.
    pids = [lab.daemon_pid(server) for server in lab.plan.servers]
    with resting(*pids):
        for name, table in tables.items():
            assert nft(lab, name, "flush", "table", "inet", table).returncode == 0
        until(lambda: connects(lab, "e1", to, 443))
        assert not connects(lab, "e1", to, 22)
        # That it is the agent who refuses is seen where its table is empty, too.
        with resting(agent_pid(lab, "e2")):
            assert nft(lab, "e2", "flush", "table", "inet", agents).returncode == 0
            until(lambda: connects(lab, "e1", to, 22))
    # What somebody changed or removed comes back by itself.
    until(lambda: not connects(lab, "e1", to, 22))
    for name, table in tables.items():
        shown = ("list", "table", "inet", table)
        until(lambda at=name, words=shown: "jump between" in nft(lab, at, *words).stdout)
        assert nft(lab, name, "delete", "table", "inet", table).returncode == 0
    assert nft(lab, "e2", "delete", "table", "inet", agents).returncode == 0
    until(lambda: tables[second.name] in nft(lab, second.name, "list", "tables").stdout)
    until(lambda: agents in nft(lab, "e2", "list", "tables").stdout)
    assert not connects(lab, "e1", to, 22)


def test_a_change_takes_effect_within_a_second_on_running_connections(
    policy_lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    lab, second = policy_lab, policy_lab.plan.servers[1]
    to, _ = addresses(lab, "e2")
    until(lambda: connects(lab, "e1", to, 443))
    held = start(lab, "e1", HOLD, to, "443")
    assert held.stdout is not None
    for _ in range(10):
        held.stdout.readline()
    said = lab.seipd_json(second, "acl", "deny", "default", "e2", "tcp/443")
    denied_s, last_s = time.monotonic(), 0.0
    at_s, size = denied_s, 1
    # Long enough that an answer would have come again, had it been a lost packet.
    while at_s < max(denied_s, last_s) + WAIT_S:
        at_s, size = (float(word) for word in held.stdout.readline().split())
        last_s = at_s if size else last_s
        assert at_s < denied_s + SOON_S
    held.kill()
    held.wait()
    cut_s = max(last_s - denied_s, 0)
    assert not connects(lab, "e1", to, 443)
    lab.seipd(second, "acl", "rm", said["rule"])
    opened_s = until(lambda: connects(lab, "e1", to, 443, within_s=0.3))
    with capsys.disabled():
        sys.stdout.write(
            f"\na denial cut a running connection {cut_s:.2f} s after it was said;"
            f" once it was taken back a new one took {opened_s:.2f} s\n"
        )


def test_a_direct_tunnel_is_held_to_the_rules_by_the_agent(
    policy_lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    lab, first = policy_lab, policy_lab.plan.servers[0]
    to, _ = addresses(lab, "e3")
    until(lambda: connects(lab, "e1", to, 22) and path_of(lab, "e1", to) == "direct", 60)
    said = lab.seipd_json(first, "acl", "deny", "everybody", "e3", "tcp/22")
    refused = refused_by(lab, "e3")
    refused_s = until(lambda: not connects(lab, "e1", to, 22))
    with capsys.disabled():
        sys.stdout.write(f"\non a direct tunnel it was refused after {refused_s:.2f} s\n")
    assert connects(lab, "e1", to, 443)
    assert path_of(lab, "e1", to) == "direct"
    assert refused_by(lab, "e3") > refused
    lab.seipd(first, "acl", "rm", said["rule"])
    until(lambda: connects(lab, "e1", to, 22))


def test_cli_02_and_04_nothing_of_ours_is_left_and_nothing_of_others_is_touched(
    policy_lab: Lab,
) -> None:
    lab, second = policy_lab, policy_lab.plan.servers[1]
    table = f"seipd_policy_{second.interface}"
    assert nft(lab, second.name, "add", "table", "inet", "somebodys").returncode == 0
    pid = lab.daemon_pid(second)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert table in nft(lab, second.name, "list", "tables").stdout
    lab.start_server(second)
    assert service_of(lab, second)["state"] == "ok"
    lab.stop_server(second)
    assert table in nft(lab, second.name, "list", "tables").stdout
    lab.seipd(second, "down")
    assert nft(lab, second.name, "list", "tables").stdout == "table inet somebodys\n"
    # A table of that name that is another's stays, and the daemon says so.
    assert nft(lab, second.name, "add", "table", "inet", table).returncode == 0
    lab.start_server(second)
    row = service_of(lab, second)
    assert row["state"] == "degraded"
    assert "is not ours" in row["detail"]
