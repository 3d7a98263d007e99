"""A server is revoked: the others drop it at once, and everybody else goes on."""

from __future__ import annotations

import re
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from services.kernel import canonical
from tests.fakes.labs import lab_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from seipd.lab.mesh import Lab
    from seipd.lab.plan import Host

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

PINGS = 60


@pytest.fixture(scope="module")
def three():
    """Three servers with an endpoint on each; another prefix than the common lab's."""
    with lab_of(3, 3) as built:
        # What endpoints say to each other is to go over these servers.
        built.endpoint_mode = "hub"
        built.up(lambda line: None)
        yield built


def until(probe: Callable[[], object], seconds: float = 30.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if probe():
            return True
        time.sleep(0.05)
    return bool(probe())


def on(lab: Lab, host: Host, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*host.enter(), *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=lab.environment(host),
    )


def server_of(lab: Lab, name: str) -> str:
    """Return where an endpoint is, as it wrote it down."""
    data = (lab.plan.host(name).data_root / "mesh.json").read_bytes()
    found: str = canonical.decode_object(data)["server"]["server_id"]
    return found


def wireguard_keys(lab: Lab, host: Host) -> set[str]:
    return set(on(lab, host, "wg", "show", host.interface, "peers").stdout.split())


def host_id(lab: Lab, name: str) -> str:
    found: str = lab.status(lab.plan.host(name))["server_id"]
    return found


def customers(lab: Lab, host: Host) -> str:
    return on(lab, host, "seipd", "tree", "ls", "--json").stdout


def test_prv_10_a_revoked_server_is_out_at_once_and_the_rest_goes_on(three: Lab) -> None:
    first, second, third = three.plan.servers
    gone = host_id(three, "s3")
    key = on(three, third, "wg", "show", third.interface, "public-key").stdout.strip()
    addresses = {row["host"]: row["tunnel_address"] for row in three.overview()}
    assert on(three, third, "seipd", "tree", "add", "before").returncode == 0
    assert until(lambda: all("before" in customers(three, one) for one in (first, second)))
    for server in (first, second):
        assert key in wireguard_keys(three, server)
    ping = subprocess.Popen(
        [
            *three.plan.host("e1").enter(),
            *("ping", "-i", "0.2", "-c", str(PINGS), addresses["e2"]),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    done = on(three, first, "seipd", "server", "revoke", gone, "--yes", "--json")
    assert done.returncode == 0, done.stderr
    revoked = canonical.decode(done.stdout.encode())
    assert until(lambda: key not in wireguard_keys(three, first), 1.0)
    assert until(lambda: revoked["record"] in shown(three, second, gone))
    assert until(lambda: key not in wireguard_keys(three, second), 1.0)

    on(three, third, "seipd", "tree", "add", "after")
    said, _ = ping.communicate(timeout=60)
    assert f"{PINGS} packets transmitted, {PINGS} received" in said
    for server in (first, second):
        listed = customers(three, server)
        assert "before" in listed
        assert "after" not in listed
        assert key not in wireguard_keys(three, server)
        row = next(
            line
            for line in on(three, server, "seipd", "server", "ls").stdout.splitlines()
            if gone in line
        )
        assert "revoked" in row
    # Its endpoint goes to another server by itself, with its address.
    at = {host_id(three, "s1"), host_id(three, "s2")}
    assert until(lambda: server_of(three, "e3") in at, 20.0)
    knock = ("ping", "-c", "1", "-W", "1", addresses["e3"])
    assert until(lambda: on(three, three.plan.host("e1"), *knock).returncode == 0, 10.0)
    assert len({three.status(one)["state_hash"] for one in (first, second)}) == 1


def test_an_heir_named_later_takes_the_slice_and_its_endpoints(three: Lab) -> None:
    first, second, _ = three.plan.servers
    gone, heir = host_id(three, "s3"), host_id(three, "s2")
    slices = set(three.status(second)["slices"])
    done = on(three, first, "seipd", "server", "revoke", gone, "--heir", heir, "--yes", "--json")
    assert done.returncode == 0, done.stderr
    inherited = canonical.decode(done.stdout.encode())["slices"]
    assert until(lambda: set(three.status(second)["slices"]) == slices | set(inherited))
    e3 = three.plan.host("e3")
    endpoint = on(three, e3, "wg", "show", e3.interface, "public-key").stdout.strip()
    carrying = [one for one in (first, second) if endpoint in wireguard_keys(three, one)]
    assert [host_id(three, one.name) for one in carrying] == [server_of(three, "e3")]
    assert until(lambda: inherited[0] in on(three, second, "ip", "route").stdout, 1.0)
    allowed = on(three, first, "wg", "show", first.interface, "allowed-ips").stdout
    (peer,) = [line for line in allowed.splitlines() if inherited[0] in line]
    assert re.match(re.escape(second_key(three)), peer)


def shown(lab: Lab, host: Host, server_id: str) -> str:
    return on(lab, host, "seipd", "server", "show", server_id, "--json").stdout


def second_key(lab: Lab) -> str:
    host = lab.plan.host("s2")
    return on(lab, host, "wg", "show", host.interface, "public-key").stdout.strip()


def test_the_revoked_server_learns_it_says_so_and_lets_nobody_in(three: Lab) -> None:
    third = three.plan.host("s3")

    def alarmed() -> dict[str, str]:
        return {
            one["name"]: one["detail"]
            for one in three.status(third)["services"]
            if one["state"] == "failed"
        }

    assert until(lambda: "standing" in alarmed(), 60.0)
    assert alarmed()["standing"].startswith("this server was revoked")
    assert alarmed()["ledger"] == "this server was revoked"
    said = on(three, third, "seipd", "status")
    assert (said.returncode, "revoked" in said.stdout) == (1, True)
    assert on(three, third, "seipd", "doctor").returncode == 1
    assert until(lambda: wireguard_keys(three, third) == set(), 5.0)
    invited = on(three, third, "seipd", "invite", "endpoint")
    assert invited.returncode != 0
    assert "this server was revoked" in invited.stderr
    # It knows from now on, whether anybody answers or not.
    three.stop_server(third)
    again = on(three, third, "seipd", "run", "--public-address", third.address)
    assert again.returncode != 0
    assert "does not name this server any more" in again.stderr
