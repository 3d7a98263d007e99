"""An endpoint that has IPv6 alone is in the mesh like any other, and one may change over."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from seipd.lab import net
from services.kernel import canonical
from services.kernel.errors import UnavailableError
from tests.fakes.narrow import narrow
from tests.fakes.natlab import Kind, nat_lab_of, server_address6

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from seipd.lab.plan import Host
    from tests.fakes.natlab import NatLab

pytestmark = pytest.mark.integration

SETTLE_S = 60.0
NEW_ADDRESS6 = "2001:db8::1:e1"


@pytest.fixture(scope="module")
def lab() -> Iterator[NatLab]:
    with nat_lab_of([Kind.OPEN, Kind.IPV6_ONLY]) as built:
        built.up(lambda _: None)
        yield built


def soon(what: str, found: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + SETTLE_S
    while time.monotonic() < deadline:
        if value := found():
            return value
        time.sleep(0.2)
    raise AssertionError(f"not in {SETTLE_S} s: {what}")


def pings(source: Host, address: str) -> bool:
    """Say whether three packets of three come back."""
    words = [*source.enter(), "ping", "-c", "3", "-i", "0.2", "-W", "2", address]
    return subprocess.run(words, capture_output=True, check=False, timeout=30).returncode == 0


def status(lab: NatLab, host: Host) -> dict[str, Any]:
    return canonical.decode_object(lab.seip(host, "status", "--json").encode())


def test_an_endpoint_with_ipv6_alone_is_at_a_server_that_has_both(lab: NatLab) -> None:
    first, (_, six) = lab.plan.servers[0], lab.plan.endpoints
    shown = status(lab, six)
    assert shown["connected"]
    assert shown["server"]["endpoint"] == f"[{server_address6(first)}]:51940"


def test_it_and_an_endpoint_with_ipv4_alone_reach_each_other(lab: NatLab) -> None:
    four, six = lab.plan.endpoints
    assert pings(six, lab.tunnel_address(four.name))
    assert pings(four, lab.tunnel_address(six.name))
    assert pings(four, status(lab, six)["tunnel_address6"])


def test_servers_and_the_mesh_s_names_tell_the_ipv6_address(lab: NatLab) -> None:
    first = lab.plan.servers[0]
    host = server_address6(first)
    (told,) = soon(
        "the address is told",
        lambda: [one for one in lab.seipd_json(first, "servers") if one["address6"]],
    )
    assert told["address6"] == f"[{host}]:9100"
    name = f"{told['server_id']}.{told['region']}.seip.mesh.internal"
    for asked in (first.address, host):
        words = ["dig", "+short", "+time=2", f"@{asked}", name, "AAAA"]
        answered = soon(
            "the name has it",
            lambda words=words: net.run(*first.enter(), *words).split(),
        )
        assert answered == [host]


def test_a_token_names_the_address_in_brackets(lab: NatLab) -> None:
    from services.kernel.invitations import decode_token

    first = lab.plan.servers[0]
    addresses = decode_token(lab.invite(first, "endpoint")).addresses
    assert addresses[:2] == (f"{first.address}:9100", f"[{server_address6(first)}]:9100")


def test_an_endpoint_that_comes_from_ipv4_to_ipv6_keeps_its_tunnel(lab: NatLab) -> None:
    first, (four, six) = lab.plan.servers[0], lab.plan.endpoints
    there = lab.tunnel_address(six.name)
    net.run("ip", "-n", four.namespace, "addr", "add", f"{NEW_ADDRESS6}/64", "dev", "eth0", "nodad")
    net.run("ip", "-n", four.namespace, "-4", "addr", "flush", "dev", "eth0")
    endpoint = f"[{server_address6(first)}]:51940"
    soon("the agent goes by IPv6", lambda: at(lab, four) == endpoint)
    soon("its tunnel carries", lambda: pings(four, there))
    net.run("ip", "-n", four.namespace, "addr", "add", f"{four.address}/24", "dev", "eth0")
    net.run("ip", "-n", four.namespace, "-6", "addr", "flush", "dev", "eth0", "scope", "global")
    soon("the agent goes by IPv4 again", lambda: at(lab, four) == f"{first.address}:51940")
    soon("its tunnel carries", lambda: pings(four, there))


@pytest.mark.long
def test_where_large_packets_vanish_a_page_loads_once_the_agent_noticed(lab: NatLab) -> None:
    _, six = lab.plan.endpoints
    narrow(lab.router(six.name), 1400, tells=False)
    try:
        begin_anew(lab, six, "--mtu", "1420")
        assert not loads(lab, six, seconds=3), "what a tunnel of 1420 bytes sends is lost"
        assert codes(lab, six) == ["mtu_too_large"]
        begin_anew(lab, six)
        soon("the agent noticed", lambda: status(lab, six)["mtu"]["by"] == "path")
        assert status(lab, six)["mtu"]["bytes"] == 1312
        assert loads(lab, six, seconds=20)
        assert codes(lab, six) == ["mtu_lowered"]
    finally:
        narrow(lab.router(six.name), 1500, tells=True)


def begin_anew(lab: NatLab, host: Host, *options: str) -> None:
    """End the agent and start it with these options."""
    lab.seip(host, "down", "--wireguard-interface", host.interface)
    lab.seip(host, "up", "--wireguard-interface", host.interface, *options)


def loads(lab: NatLab, host: Host, *, seconds: int) -> bool:
    """Say whether a large answer of the private API comes, and what is large goes there."""
    url = "https://10.64.0.1:9101/openapi.json"
    words = ["curl", "-sS", "-m", str(seconds), "--cacert", f"{host.data_root}/mesh-ca.pem"]
    post = ["--data-binary", "x" * 30_000, "-H", "Expect:"]
    return all(
        subprocess.run(
            [*host.enter(), *words, *more, url], capture_output=True, check=False
        ).returncode
        == 0
        for more in ((), post)
    )


def codes(lab: NatLab, host: Host) -> list[str]:
    """Return what ``seip doctor`` finds."""
    words = [*host.enter(), sys.executable, "-m", "seipd.agent", "--json", "doctor"]
    done = subprocess.run(words, capture_output=True, check=False, env=lab.environment(host))
    return [one["code"] for one in canonical.decode_object(done.stdout)["findings"]]


def at(lab: NatLab, host: Host) -> str | None:
    """Return the server's address as WireGuard has it."""
    try:
        shown = net.run(*host.enter(), "wg", "show", host.interface, "endpoints")
    except UnavailableError:
        return None
    return next((line.split()[1] for line in shown.splitlines()), None)
