"""Ports of an endpoint that lead elsewhere, into a container or to another port: held to the rules.

What another program leads on by NAT does not come in as other packets do, nor by the port that was
asked for.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys

import pytest

from services.edge.policy.endpoint_table import InboundBook, Place
from services.edge.policy.inbound import inbound_of
from services.kernel.addr import default_ranges
from tests.fakes.hosts import Host
from tests.fakes.policies import StillState
from tests.unit.edge_policy.policy_kit import MESH, TREE, address, book_of

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]

TUNNEL = "seip1"
CONTAINER = "172.17.0.2"
SAYS = """
import socket, sys
listener = socket.create_server(("0.0.0.0", int(sys.argv[1])))
print("ready", flush=True)
while True:
    connection, _ = listener.accept()
    connection.sendall(b"here")
    connection.close()
"""
ASKS = """
import socket, sys
try:
    one = socket.create_connection((sys.argv[2], int(sys.argv[3])), 1, (sys.argv[1], 0))
    print(one.recv(9).decode())
except OSError as error:
    print(error)
"""


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


@pytest.fixture
def net():
    """Endpoint b1 with a container behind ports of it, and a1, a2, which reach it directly."""
    state = StillState(TREE, [("allow", "a1", "b1", "tcp/443"), ("allow", "acme", "b1", "tcp/80")])
    tag = secrets.token_hex(3)
    host, container, far = (f"pp{tag}{name}" for name in "hcf")
    for name in (host, container, far):
        ip("netns", "add", name)
        ip("-n", name, "link", "set", "lo", "up")
    children = []
    try:
        for link, other in ((TUNNEL, far), ("docker0", container)):
            cable = ("type", "veth", "peer", "name", "eth0", "netns", other)
            ip("-n", host, "link", "add", link, *cable)
            ip("-n", host, "link", "set", link, "up")
            ip("-n", other, "link", "set", "eth0", "up")
        for name, link, *addresses in (
            (host, TUNNEL, f"{address(state, 'b1')}/10"),
            (host, "docker0", "172.17.0.1/16"),
            (container, "eth0", f"{CONTAINER}/16"),
            (far, "eth0", f"{address(state, 'a1')}/10", f"{address(state, 'a2')}/10"),
        ):
            for one in addresses:
                ip("-n", name, "addr", "add", one, "dev", link)
        ip("-n", container, "route", "add", "default", "via", "172.17.0.1")
        hosts = [Host(name=name, address="", wireguard=TUNNEL) for name in (host, container, far)]
        hosts[0].run("sysctl", "-qw", "net.ipv4.ip_forward=1")
        hosts[0].run("nft", "add table ip docker")
        hosts[0].run("nft", "add chain ip docker c { type nat hook prerouting priority dstnat; }")
        for asked, to in (("443", "9000"), ("8080", "9000")):
            hosts[0].run("nft", f"add rule ip docker c tcp dport {asked} dnat to {CONTAINER}:{to}")
        for asked, to in (("80", "9001"), ("81", "9001")):
            hosts[0].run("nft", f"add rule ip docker c tcp dport {asked} redirect to :{to}")
        hosts[0].run("nft", "add chain ip docker m { type nat hook postrouting priority srcnat; }")
        hosts[0].run("nft", f"add rule ip docker m oifname {TUNNEL} masquerade")
        for name, port in ((container, "9000"), (host, "9001"), (far, "9002")):
            command = ["ip", "netns", "exec", name, sys.executable, "-c", SAYS, port]
            children.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
            assert children[-1].stdout.readline() == "ready\n"
        yield state, *hosts
    finally:
        for child in children:
            child.kill()
            child.wait()
        for name in (host, container, far):
            ip("netns", "del", name)


def test_a_published_port_is_held_to_the_rules_by_the_number_that_is_asked_for(net) -> None:
    state, host, container, far = net
    to = address(state, "b1")

    def asks(source: str, port: int) -> str:
        words = (address(state, source), to, str(port))
        return far.run(sys.executable, "-c", ASKS, *words).strip()

    assert {asks("a2", port) for port in (443, 8080, 80, 81)} == {"here"}
    place = Place(interface=TUNNEL, tunnel_range=default_ranges().tunnel, mesh_id=MESH)
    book = InboundBook(place)
    book.put(inbound_of(book_of(state), "b1"))
    host.run("nft", book.whole())
    assert asks("a1", 443) == asks("a1", 80) == asks("a2", 80) == "here"
    refused = [asks("a1", 8080), asks("a1", 81), asks("a1", 9001), asks("a2", 443)]
    assert [one for one in refused if one == "here"] == []
    # What a container begins is answered.
    words = (CONTAINER, address(state, "a2"), "9002")
    assert container.run(sys.executable, "-c", ASKS, *words).strip() == "here"
