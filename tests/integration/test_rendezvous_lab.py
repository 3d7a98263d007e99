"""Endpoints find each other by their servers: real daemons, real tunnels, small clients."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from services.edge.punch.messages import PORT, Call, Here, encode, tunnel_bytes
from tests.fakes.labs import lab_of
from tests.fakes.rendezvous_ends import Client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from seipd.lab.mesh import Lab

pytestmark = [pytest.mark.integration, pytest.mark.long, pytest.mark.timeout(300)]

GATEWAY = "10.64.0.1"
HOSTILE = (
    "127.0.0.1|51940",
    "::ffff:127.0.0.1|51940",
    "169.254.169.254|8080",
    "10.64.0.1|51941",
    "172.16.0.20|51941",
    "10.1.2.3|5000",
    "192.168.1.1|5000",
    "224.0.0.251|5353",
    "255.255.255.255|5000",
    "198.18.0.12|22",
)


@pytest.fixture(scope="module")
def mesh() -> Iterator[Lab]:
    """Two servers; e1 and e3 are at the first, e2 at the second."""
    with lab_of(2, 3) as built:
        built.up(lambda line: None)
        yield built


@pytest.fixture(scope="module")
def clients(mesh: Lab) -> Iterator[dict[str, Client]]:
    made = {name: Client(mesh, name) for name in ("e1", "e2", "e3")}
    for client in made.values():
        known = client.wait("known", lambda told: told["observed"] is not None)
        client.observed = known["observed"]
    yield made
    for client in made.values():
        client.end()


def test_the_server_tells_where_each_tunnel_comes_from(clients: dict[str, Client]) -> None:
    for client in clients.values():
        host, port = client.observed
        assert host == client.host.address
        assert port > 1024


@pytest.mark.parametrize(("one", "other"), [("e1", "e3"), ("e1", "e2"), ("e2", "e3")])
def test_both_hear_of_a_meeting_within_a_second(
    clients: dict[str, Client], one: str, other: str, record_property: Callable[..., None]
) -> None:
    caller, called = clients[one], clients[other]
    caller.forget()
    called.forget()
    caller.say("call", called.address)
    begun_s = caller.wait("called")["at_s"]
    met = [caller.wait("meet"), called.wait("meet")]
    assert [told["peer"] for told in met] == [called.address, caller.address]
    for told, seen in zip(met, (called, caller), strict=True):
        assert ["OBSERVED", *seen.observed] in told["candidates"]
    assert met[0]["offers"] == met[1]["offers"]
    took_s = max(told["at_s"] for told in met) - begun_s
    record_property("seconds_to_meet", round(took_s, 4))
    assert took_s < 1.0


def test_a_word_reaches_an_endpoint_of_another_server(clients: dict[str, Client]) -> None:
    clients["e1"].say("signal", clients["e2"].address, "FALL_BACK")
    told = clients["e2"].wait("signalled")
    assert (told["peer"], told["code"]) == (clients["e1"].address, "FALL_BACK")


def test_an_echo_tells_how_far_another_endpoint_is(clients: dict[str, Client]) -> None:
    for address in (clients["e2"].address, clients["e3"].address, GATEWAY):
        clients["e1"].say("echo", address)
        assert 0 < clients["e1"].wait("echoed")["seconds"] < 1
    clients["e1"].say("echo", "10.64.15.77")
    assert clients["e1"].wait("echoed")["seconds"] is None


def test_stn_11_hostile_candidates_reach_nobody(clients: dict[str, Client]) -> None:
    one = clients["e1"]
    good = "198.18.77.7|40000"
    one.say("candidates", *HOSTILE, good)
    for other in (clients["e2"], clients["e3"]):
        other.forget()
        one.say("call", other.address, "00" * 16)
        told = other.wait("meet")
        seen = ["OBSERVED", *one.observed]
        assert told["candidates"] == [seen, ["LOCAL", "198.18.77.7", 40000]]
    one.say("candidates")


STRANGER = """
import socket, sys
host, source = sys.argv[1:3]
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
sock.bind((source, int(sys.argv[3])))
sock.settimeout(0.7)
got = []
for word in sys.argv[4:]:
    sock.sendto(bytes.fromhex(word), (host, 51941))
try:
    while True:
        got.append(sock.recv(2000).hex())
except TimeoutError:
    print(" ".join(got))
"""


def stranger(
    lab: Lab, name: str, target: str, source: str, port: int, *words: bytes
) -> list[bytes]:
    """Send from a host what nobody asked for; return what comes back."""
    host = lab.plan.host(name)
    done = subprocess.run(
        [
            *host.enter(),
            *(sys.executable, "-c", STRANGER, target, source, str(port)),
            *(word.hex() for word in words),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    return [bytes.fromhex(word) for word in done.stdout.split()]


def test_stn_11_a_stranger_is_answered_as_stun_or_not_at_all(
    mesh: Lab, clients: dict[str, Client]
) -> None:
    one, other = clients["e1"], clients["e2"]
    other.forget()
    words = [
        encode(Here(2**50, (), False, True, 0, 0)),
        encode(Call(2**50 + 1, tunnel_bytes(other.address), ())),
    ]
    first, second = mesh.plan.host("s1"), mesh.plan.host("s2")
    # By no tunnel, to the public address; from the port and from another.
    assert stranger(mesh, "e2", first.address, clients["e2"].host.address, 40404, *words) == []
    assert stranger(mesh, "s2", first.address, second.address, 40405, *words) == []
    # Through the own tunnel, by a program that is not the agent.
    assert stranger(mesh, "e1", GATEWAY, one.address, 40406, *words) == []
    # In another's name, past the tunnel: routed to the server as if its addresses lay there.
    host = mesh.plan.host("e2")
    route = ["ip", "route", "replace", f"{GATEWAY}/32", "via", first.address]
    back = ["ip", "route", "del", f"{GATEWAY}/32", "via", first.address]
    claim = ["ip", "address", "add", f"{one.address}/32", "dev", "lo"]
    drop = ["ip", "address", "del", f"{one.address}/32", "dev", "lo"]
    for command in (route, claim):
        subprocess.run([*host.enter(), *command], check=True)
    try:
        assert stranger(mesh, "e2", GATEWAY, one.address, PORT, *words) == []
    finally:
        for command in (back, drop):
            subprocess.run([*host.enter(), *command], check=True)
    # What was said in e1's name changed nothing: it is still heard, and nobody was told to meet it.
    one.forget()
    one.say("refresh")
    assert one.wait("known", lambda told: told["observed"])["observed"] == one.observed
    one.say("call", other.address)
    assert other.wait("meet")["candidates"] == [["OBSERVED", *one.observed]]
    # STUN is what this port says to the world.
    (answer,) = stranger(
        mesh,
        "e2",
        first.address,
        clients["e2"].host.address,
        40407,
        bytes.fromhex("000100002112a442") + b"transaction!",
    )
    assert answer[:2] == b"\x01\x01"


def test_endpoints_are_here_again_soon_after_their_server_came_back(
    mesh: Lab, clients: dict[str, Client]
) -> None:
    second = mesh.plan.host("s2")
    mesh.stop_server(second)
    one, other = clients["e1"], clients["e2"]
    one.forget()
    one.say("call", other.address)
    assert one.wait("nothing")["why"] == "UNREACHABLE"
    mesh.start_server(second)
    other.forget()
    other.say("call", one.address)
    assert other.wait("meet")["peer"] == one.address
    one.forget()
    one.say("call", other.address)
    assert one.wait("meet")["peer"] == other.address
