"""A subnet behind an endpoint, and an endpoint as the way out, as those who use them see it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from seipd.lab import net
from tests.fakes.labs import lab_of

if TYPE_CHECKING:
    from seipd.lab.mesh import Lab

pytestmark = [pytest.mark.integration, pytest.mark.long, pytest.mark.timeout(240)]

LAN, LAN_GATE, LAN_HOST = "192.168.77.0/24", "192.168.77.1", "192.168.77.9"
OUT_GATE, OUT_HOST = "203.0.113.1", "198.51.100.9"
"""Not in one network: an exit is no way into those that it is in itself."""
PORT = 8080
PROVED_S = 75.0
"""What changed is signed by the servers within half a minute, and asked for again soon."""

SAYS_WHO = f"""
import socket
listener = socket.create_server(("0.0.0.0", {PORT}))
while True:
    connection, (host, _) = listener.accept()
    connection.sendall(host.encode())
    connection.close()
"""
ASKS = "import socket,sys;print(socket.create_connection((sys.argv[1],{}),3).recv(64).decode())"


class Beside:
    """A host without any part of the mesh, on a cable of one endpoint."""

    def __init__(self, lab: Lab, name: str, endpoint: str, gate: str, address: str) -> None:
        self.namespace = f"{lab.plan.prefix}-{name}"
        net.run("ip", "netns", "add", self.namespace)
        near = ("ip", "-n", lab.plan.host(endpoint).namespace)
        cable = ("type", "veth", "peer", "name", "eth0", "netns", self.namespace)
        net.run(*near, "link", "add", name, *cable)
        for enter, link, own in ((near, name, gate), (self._ip, "eth0", address)):
            net.run(*enter, "addr", "add", f"{own}/24", "dev", link)
            net.run(*enter, "link", "set", link, "up")
        net.run(*self._ip, "route", "add", "default", "dev", "eth0")
        enter = ("ip", "netns", "exec", self.namespace)
        self.server = subprocess.Popen([*enter, sys.executable, "-c", SAYS_WHO])

    @property
    def _ip(self) -> tuple[str, ...]:
        return ("ip", "-n", self.namespace)


@pytest.fixture(scope="module")
def lab():
    """Two servers; e1 has a subnet and the way out, e2 an agent, e3 a stock client."""
    with lab_of(2, 3) as built:
        built.up(lambda line: None)
        beside = [
            Beside(built, "lan", "e1", LAN_GATE, LAN_HOST),
            Beside(built, "out", "e1", OUT_GATE, OUT_HOST),
        ]
        net.run(
            "ip", "-n", built.plan.host("e1").namespace, "route", "add", "default", "dev", "out"
        )
        yield built
        for one in beside:
            one.server.kill()
            one.server.wait()


def inside(lab: Lab, name: str, *words: str) -> str:
    """Run a command on a host; return what it printed, nothing where it failed."""
    done = subprocess.run(
        [*lab.plan.host(name).enter(), *words], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() if done.returncode == 0 else ""


def seen_as(lab: Lab, name: str, address: str) -> str:
    """Return under which address a host is seen, over TCP."""
    return inside(lab, name, sys.executable, "-c", ASKS.format(PORT), address)


def pings(lab: Lab, name: str, address: str) -> bool:
    return bool(inside(lab, name, "ping", "-c", "1", "-W", "1", address))


def until(probe, seconds: float) -> float:
    began = time.monotonic()
    while not probe():
        assert time.monotonic() - began < seconds, "it did not happen in time"
        time.sleep(0.2)
    return time.monotonic() - began


def up(lab: Lab, name: str, *words: str) -> None:
    host = lab.plan.host(name)
    lab.seip(host, "up", "--wireguard-interface", host.interface, *words)


def address_of(lab: Lab, name: str) -> str:
    mesh = json.loads((lab.plan.host(name).data_root / "mesh.json").read_text())
    return mesh["tunnel_address"]


def route(lab: Lab, what: str, prefix: str) -> None:
    # Each time at the other server than the one that carries e1.
    lab.seipd(lab.plan.host("s2"), "tree", "route", what, address_of(lab, "e1"), prefix)


def offered(lab: Lab) -> dict[str, bool]:
    listed = lab.seipd_json(lab.plan.host("s2"), "tree", "route", "ls")
    return {one["route"]: one["approved"] for one in listed}


def routes(lab: Lab, name: str) -> dict:
    return json.loads((lab.plan.host(name).data_root / "run/status.json").read_text())["routes"]


@contextmanager
def stock(lab: Lab, name: str):
    """Have plain wg-quick in place of the agent, with the file that the agent prints."""
    host = lab.plan.host(name)
    path = host.folder / f"{host.interface}q.conf"
    path.write_text(lab.seip(host, "config"))
    path.chmod(0o600)
    lab.seip(host, "down", "--wireguard-interface", host.interface)
    net.run(*host.enter(), "wg-quick", "up", str(path))
    try:
        yield
    finally:
        net.run(*host.enter(), "wg-quick", "down", str(path))
        up(lab, name)


def test_a_subnet_that_nobody_approved_is_not_reached(lab: Lab) -> None:
    up(lab, "e1", "--advertise-routes", LAN, "--advertise-exit-node")
    until(lambda: offered(lab) == {LAN: False, "exit": False}, 40)
    assert not pings(lab, "e2", LAN_HOST)
    assert routes(lab, "e2")["subnets"] == []
    assert inside(lab, "e1", "cat", "/proc/sys/net/ipv4/conf/lan/forwarding") == "0"


def test_an_approved_subnet_is_reached_by_the_agent_and_a_stock_client(
    lab: Lab, record_property
) -> None:
    route(lab, "approve", LAN)
    route(lab, "approve", "exit")
    took_s = until(lambda: pings(lab, "e2", LAN_HOST), PROVED_S)
    record_property("seconds_until_reached", round(took_s, 1))
    assert seen_as(lab, "e2", LAN_HOST) == LAN_GATE
    until(lambda: routes(lab, "e3")["subnets"], PROVED_S)
    with stock(lab, "e3"):
        until(lambda: pings(lab, "e3", LAN_HOST), 40)
        assert seen_as(lab, "e3", LAN_HOST) == LAN_GATE
        # A stock client goes over its server, e2 mostly not: they reach each other all the same.
        assert pings(lab, "e3", address_of(lab, "e2"))
        assert pings(lab, "e2", address_of(lab, "e3"))


def test_nothing_begins_in_the_subnet(lab: Lab) -> None:
    host = ("ip", "netns", "exec", f"{lab.plan.prefix}-lan")
    net.run(*host, "ip", "route", "replace", "10.64.0.0/10", "via", LAN_GATE)
    target = address_of(lab, "e2")
    done = subprocess.run(
        [*host, "ping", "-c", "1", "-W", "1", target], capture_output=True, check=False
    )
    assert done.returncode != 0


def test_in_hub_mode_all_goes_over_the_server(lab: Lab) -> None:
    up(lab, "e3", "--mode", "hub")
    until(lambda: pings(lab, "e3", LAN_HOST), PROVED_S)
    assert pings(lab, "e3", address_of(lab, "e2"))
    assert pings(lab, "e2", address_of(lab, "e3"))
    listed = json.loads(lab.seip(lab.plan.host("e3"), "peers", "--json"))
    assert {one["path"] for one in listed} == {"server"}


def test_with_an_exit_node_everything_goes_out_there(lab: Lab) -> None:
    assert seen_as(lab, "e2", OUT_HOST) == ""
    up(lab, "e2", "--exit-node", "e1")
    until(lambda: (routes(lab, "e2")["exit"] or {}).get("address"), PROVED_S)
    until(lambda: pings(lab, "e2", OUT_HOST), 40)
    assert seen_as(lab, "e2", OUT_HOST) == OUT_GATE
    # What is near stays near: no detour over the tunnel.
    assert "dev eth0" in inside(lab, "e2", "ip", "route", "get", lab.plan.host("s1").address)
    assert pings(lab, "e2", LAN_HOST)


def test_without_the_exit_nothing_goes_out_until_that_is_wished(lab: Lab) -> None:
    host = lab.plan.host("e2")
    net.run("ip", "-n", host.namespace, "route", "add", "default", "dev", "eth0")
    lab.seip(lab.plan.host("e1"), "down", "--wireguard-interface", lab.plan.host("e1").interface)
    tables = inside(lab, "e1", "nft", "list", "tables")
    assert "seip_routes" not in tables
    assert inside(lab, "e1", "cat", "/proc/sys/net/ipv4/conf/lan/forwarding") == "0"
    assert host.interface in inside(lab, "e2", "ip", "route", "get", OUT_HOST)
    assert seen_as(lab, "e2", OUT_HOST) == ""
    up(lab, "e2", "--exit-node", "none")
    until(lambda: "dev eth0" in inside(lab, "e2", "ip", "route", "get", OUT_HOST), 40)
    up(lab, "e1")
    until(lambda: pings(lab, "e2", LAN_HOST), PROVED_S)


def test_a_withdrawn_subnet_is_reached_no_more(lab: Lab) -> None:
    with stock(lab, "e3"):
        until(lambda: pings(lab, "e3", LAN_HOST), 40)
        route(lab, "withdraw", LAN)
        until(lambda: not pings(lab, "e3", LAN_HOST), 40)
        until(lambda: routes(lab, "e2")["subnets"] == [], 40)
        assert not pings(lab, "e2", LAN_HOST)
