"""Names on an endpoint: the mesh's, a customer's, everybody's; and as before once it is down."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from seipd.lab import net
from services.kernel import canonical
from tests.fakes.labs import lab_of

if TYPE_CHECKING:
    from seipd.lab.mesh import Lab

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

GATEWAY = "10.64.0.1"


@pytest.fixture(scope="module")
def names_lab():
    """Two servers; the first one's machine asks a name server on the second one's address."""
    with lab_of(2, 2) as lab:
        lab.prepare()
        first, second = lab.plan.servers
        path = net.CONFIGS / first.namespace / "resolv.conf"
        path.write_text(f"nameserver {second.address}0\nnameserver {lab.plan.host('e2').address}\n")
        lab.start_servers(lambda line: None)
        for host in lab.plan.endpoints:
            lab.join_endpoint(host, first)
        yield lab


def on(lab: Lab, name: str, *words: str, check: bool = True) -> str:
    host = lab.plan.host(name)
    done = subprocess.run(
        [*host.enter(), *words],
        capture_output=True,
        text=True,
        check=False,
        env=lab.environment(host),
        timeout=60,
    )
    assert not check or done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


def resolv_conf(lab: Lab, name: str) -> list[str]:
    text = (net.CONFIGS / lab.plan.host(name).namespace / "resolv.conf").read_text()
    return [line.split()[1] for line in text.splitlines() if line.startswith("nameserver")]


def wait_for(probe, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not probe():
        assert time.monotonic() < deadline
        time.sleep(0.2)


@contextlib.contextmanager
def name_server(lab: Lab, name: str, address: str, *names: str):
    """Run somebody else's name server on a host."""
    host = lab.plan.host(name)
    words = [sys.executable, "-m", "tests.fakes.nameserver", address, "53", *names]
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen(
        [*host.enter(), *words], stdout=subprocess.PIPE, cwd=root, env=lab.environment(host)
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"up\n"
            yield
        finally:
            process.kill()


def domain_of(lab: Lab) -> str:
    return lab.status(lab.plan.servers[0])["domain"]


def own_servers(lab: Lab) -> list[str]:
    return [one.address for one in lab.plan.servers]


def test_an_endpoint_finds_another_by_name_and_reaches_it(names_lab: Lab) -> None:
    lab = names_lab
    assert resolv_conf(lab, "e1") == [GATEWAY, *own_servers(lab)]
    name = f"e2.default.ep.{domain_of(lab)}"
    found = on(lab, "e1", "getent", "ahostsv4", name)
    assert lab.tunnel_address("e2") in found
    assert "1 received" in on(lab, "e1", "ping", "-c", "1", "-W", "2", name)
    told = on(lab, "e1", "dig", "+noall", "+comments", "+answer", name)
    assert "flags: qr aa rd ra" in told
    back = on(lab, "e1", "dig", "+short", "-x", lab.tunnel_address("e2"))
    assert back.strip() == f"{name}."
    status = canonical.decode(on(lab, "e1", "seip", "status", "--json").encode())
    assert status["dns"] == {"way": "resolv.conf", "state": "set", "why": ""}


def test_other_names_come_from_the_servers_name_servers(names_lab: Lab) -> None:
    lab = names_lab
    address = lab.plan.host("e2").address
    with name_server(lab, "e2", address, "www.example.com=192.0.2.80"):
        for more in ((), ("+tcp",)):
            words = ("dig", "+short", "+tries=1", "+time=6", f"@{GATEWAY}", *more)
            assert on(lab, "e1", *words, "www.example.com").strip() == "192.0.2.80"
        assert "192.0.2.80" in on(lab, "e1", "getent", "ahostsv4", "www.example.com")
        # Asked from outside the tunnel, the same server looks up nothing.
        outside = f"@{lab.plan.servers[0].address}"
        assert "REFUSED" in on(lab, "e1", "dig", "+tries=1", outside, "www.example.com")


def test_a_customers_own_domain_comes_from_its_own_name_server(names_lab: Lab) -> None:
    lab = names_lab
    first, tunnel = lab.plan.servers[0], lab.tunnel_address("e2")
    with name_server(lab, "e2", tunnel, "wiki.corp.example=10.64.0.99"):
        words = ("dig", "+short", "+tries=1", "+time=6", f"@{GATEWAY}", "wiki.corp.example")
        assert on(lab, "e1", *words) == ""
        said = lab.seipd_json(first, "dns", "split", "set", "default", "corp.example", tunnel)
        assert said["upstreams"] == [tunnel]
        wait_for(lambda: on(lab, "e1", *words).strip() == "10.64.0.99", 40)
        (row,) = lab.seipd_json(first, "dns", "split", "ls")
        assert (row["customer"], row["domain"]) == ("default", "corp.example")
        lab.seipd(first, "dns", "split", "rm", "default", "corp.example")
        assert lab.seipd_json(first, "dns", "split", "ls") == []


def test_down_leaves_the_file_as_it_was_and_no_dns_does_not_touch_it(names_lab: Lab) -> None:
    lab = names_lab
    path = net.CONFIGS / lab.plan.host("e2").namespace / "resolv.conf"
    lab.seip(lab.plan.host("e2"), "down", "--wireguard-interface", lab.plan.host("e2").interface)
    before = path.read_text()
    assert resolv_conf(lab, "e2") == own_servers(lab)
    interface = ("--wireguard-interface", lab.plan.host("e2").interface)
    lab.seip(lab.plan.host("e2"), "up", "--no-dns", *interface)
    assert path.read_text() == before
    lab.seip(lab.plan.host("e2"), "down", *interface)
    lab.seip(lab.plan.host("e2"), "up", *interface)
    assert resolv_conf(lab, "e2") == [GATEWAY, *own_servers(lab)]


@pytest.mark.parametrize("mend", ["down", "up"])
def test_after_a_crash_names_go_on_and_the_next_command_mends_the_file(
    names_lab: Lab, mend: str
) -> None:
    lab, host = names_lab, names_lab.plan.host("e1")
    interface = ("--wireguard-interface", host.interface)
    pid = canonical.decode_object((host.data_root / "run" / "status.json").read_bytes())["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: pid not in net.pids(host.namespace), 30)
    assert resolv_conf(lab, "e1")[0] == GATEWAY
    server = lab.status(lab.plan.servers[0])
    name = f"{server['server_id']}.{server['region']}.seip.{server['domain']}"
    # The machine's own name servers stand behind the gateway that is not there any more.
    assert lab.plan.servers[0].address in on(lab, "e1", "getent", "ahostsv4", name)
    lab.seip(host, mend, *interface)
    if mend == "down":
        assert resolv_conf(lab, "e1") == own_servers(lab)
        lab.seip(host, "up", *interface)
    assert resolv_conf(lab, "e1") == [GATEWAY, *own_servers(lab)]


def test_a_dead_server_gives_the_resolver_back(names_lab: Lab) -> None:
    lab = names_lab
    assert resolv_conf(lab, "e1")[0] == GATEWAY
    for host in lab.plan.servers:
        lab.stop_server(host)
    wait_for(lambda: resolv_conf(lab, "e1") == own_servers(lab), 40)
    lab.start_server(lab.plan.servers[0])
    wait_for(lambda: resolv_conf(lab, "e1")[0] == GATEWAY, 40)
