"""The mesh's names asked with dig, from outside and through the tunnel, over UDP and TCP."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

import pytest

from services.kernel.addr import tunnel6
from tests.fakes.labs import lab_of

if TYPE_CHECKING:
    from seipd.lab.mesh import Lab

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

DOMAIN = "mesh.internal"
GATEWAY = "10.64.0.1"


@pytest.fixture(scope="module")
def lab():
    """Two servers, one endpoint, and a host on which nothing runs: s3."""
    with lab_of(3, 1) as built:
        built.prepare()
        built.start_servers(lambda line: None, server_count=2)
        built.join_endpoint(built.plan.endpoints[0], built.plan.servers[0])
        until(lambda: all(one["dns"] for one in known(built)), 60)
        yield built


def known(lab: Lab):
    """Return of each server whether each other knows its ports, and the region's set has both."""
    answers = []
    for host in lab.plan.servers[:2]:
        region = dig(lab, "s3", host, f"eu-central.seip.{DOMAIN}")
        both = {server.address for server in lab.plan.servers[:2]}
        config = [dig(lab, "s3", host, f"_config.{one}", "TXT") for one in ids(lab)]
        told = all(one and "dns=53" in one[0] for one in config)
        answers.append({"dns": set(region) == both and told})
    return answers


def until(probe, seconds: float) -> None:
    begun = time.monotonic()
    while not probe():
        assert time.monotonic() - begun < seconds, "it did not happen in time"
        time.sleep(0.2)


def ids(lab: Lab) -> list[str]:
    """Return the servers' public names, s1 first."""
    names = []
    for host in lab.plan.servers[:2]:
        status = lab.status(host)
        names.append(f"{status['server_id']}.{status['region']}.seip.{DOMAIN}")
    return names


def run_dig(lab: Lab, on: str, server: str, name: str, *words: str) -> str:
    host = lab.plan.host(on)
    done = subprocess.run(
        [*host.enter(), "dig", "+time=2", "+tries=2", f"@{server}", *name.split(), *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )
    return done.stdout


def dig(lab: Lab, on: str, server, name: str, *words: str) -> list[str]:
    """Return the data of the answers, in order."""
    address = server if isinstance(server, str) else server.address
    said = run_dig(lab, on, address, name, "+noall", "+answer", *words)
    lines = [line.split(None, 4) for line in said.splitlines() if not line.startswith(";")]
    return sorted(line[4] for line in lines if len(line) == 5)


def header(lab: Lab, on: str, server: str, name: str, *words: str) -> dict[str, str]:
    """Return the rcode and the flags."""
    said = run_dig(lab, on, server, name, "+comments", *words)
    found = {"status": "", "flags": "", "all": said}
    for line in said.splitlines():
        if "status: " in line:
            found["status"] = line.split("status: ")[1].split(",")[0]
        if line.startswith(";; flags: "):
            found["flags"] = line.removeprefix(";; flags: ").split(";")[0]
    return found


WAYS = {
    "udp": (),
    "tcp": ("+tcp",),
    "no recursion": ("+norec",),
    "no edns": ("+noedns",),
    "no cookie": ("+nocookie",),
}


def expected(lab: Lab) -> dict[tuple[str, str], list[str]]:
    """Return every public name of the contract, and what stands there."""
    found: dict[tuple[str, str], list[str]] = {}
    for name, host in zip(ids(lab), lab.plan.servers, strict=False):
        status = lab.status(host)
        found[name, "A"] = [host.address]
        found[f"private.{name}", "A"] = [status["tunnel_address"]]
        found[f"backend.{name}", "A"] = [status["backbone_address"]]
        found[f"ns{status['ns']}.{DOMAIN}", "A"] = [host.address]
    both = sorted(host.address for host in lab.plan.servers[:2])
    found[f"eu-central.seip.{DOMAIN}", "A"] = both
    found[DOMAIN, "NS"] = [f"ns1.{DOMAIN}.", f"ns2.{DOMAIN}."]
    found[DOMAIN, "CAA"] = ['0 issue "letsencrypt.org"', '0 issue "sectigo.com"']
    return found


@pytest.mark.parametrize("way", WAYS)
def test_every_name_of_the_contract_is_answered_the_same_by_every_server(lab: Lab, way) -> None:
    for (name, rtype), data in expected(lab).items():
        for server in lab.plan.servers[:2]:
            assert dig(lab, "s3", server, name, rtype, *WAYS[way]) == data, (name, way)
    inside = dig(lab, "e1", GATEWAY, f"eu-central.seip.{DOMAIN}", "A", *WAYS[way])
    assert inside == [host.address for host in lab.plan.servers[:2]]


def test_a_client_finds_the_ports_of_a_server_by_its_config_text(lab: Lab) -> None:
    for name in ids(lab):
        for server in lab.plan.servers[:2]:
            (text,) = dig(lab, "s3", server, f"_config.{name}", "TXT")
            words = dict(word.split("=") for word in text.strip('"').split())
            assert int(words.pop("load")) >= 0
            assert words == {
                "v": "sp1",
                "http": "9100",
                "udp": "51940",
                "gossip": "9102",
                "stun": "3478",
                "relay": "9103",
                "dns": "53",
                "private_http": "9101",
                "region": "eu-central",
                "host": name,
            }


def test_the_case_of_a_question_comes_back(lab: Lab) -> None:
    name = ids(lab)[0].upper()
    said = run_dig(lab, "s3", lab.plan.servers[0].address, name, "+noall", "+answer")
    assert said.startswith(name)


def test_authority_no_recursion_nothing_and_no_such_name(lab: Lab) -> None:
    server = lab.plan.servers[0].address
    own = header(lab, "s3", server, ids(lab)[0])
    assert (own["status"], own["flags"].split()) == ("NOERROR", ["qr", "aa", "rd"])
    gone = header(lab, "s3", server, f"nope.{DOMAIN}", "+authority")
    assert gone["status"] == "NXDOMAIN"
    assert "SOA" in gone["all"]
    empty = header(lab, "s3", server, ids(lab)[0], "MX")
    assert (empty["status"], "SOA" in empty["all"]) == ("NOERROR", True)
    assert header(lab, "s3", server, "example.org")["status"] == "REFUSED"
    assert header(lab, "s3", server, "version.bind", "TXT", "CH")["status"] == "REFUSED"
    assert header(lab, "s3", server, DOMAIN, "+opcode=UPDATE")["status"] == "NOTIMP"
    assert header(lab, "s3", server, DOMAIN, "+edns=1", "+noednsneg")["status"] == "BADVERS"
    assert "HINFO" in run_dig(lab, "s3", server, DOMAIN, "ANY")
    assert "Transfer failed" in run_dig(lab, "s3", server, DOMAIN, "AXFR")


def test_endpoints_are_answered_through_the_tunnel_alone(lab: Lab) -> None:
    address = lab.tunnel_address("e1")
    (node,) = (
        one["node_id"]
        for customer in lab.seipd_json(lab.plan.servers[0], "tree", "ls")
        for one in lab.seipd_json(lab.plan.servers[0], "tree", "ls", customer["node_id"])
    )
    names = [f"e1.default.ep.{DOMAIN}", f"private.{node}.ep.{DOMAIN}"]
    for name in names:
        for way in WAYS.values():
            assert dig(lab, "e1", GATEWAY, name, *way) == [address]
        assert len(dig(lab, "e1", GATEWAY, name, "AAAA")) == 1
        backbone = lab.status(lab.plan.servers[0])["backbone_address"]
        assert dig(lab, "s2", backbone, name) == [address]
        for server in lab.plan.servers[:2]:
            assert header(lab, "s3", server.address, name)["status"] == "NXDOMAIN"
            assert header(lab, "s3", server.address, name, "+tcp")["status"] == "NXDOMAIN"
    assert dig(lab, "e1", GATEWAY, f"-x {address}") == [f"{names[0]}."]
    mesh_id = lab.status(lab.plan.servers[0])["mesh_id"]
    over_six = str(tunnel6(mesh_id, IPv4Address(GATEWAY)))
    assert dig(lab, "e1", over_six, names[0]) == [address]
    assert dig(lab, "e1", over_six, names[0], "+tcp") == [address]


def test_who_comes_to_the_gateway_from_outside_is_a_stranger(lab: Lab) -> None:
    outside, server = lab.plan.host("s3"), lab.plan.servers[0]
    route = ["ip", "route", "add", f"{GATEWAY}/32", "via", server.address]
    subprocess.run([*outside.enter(), *route], check=True)
    try:
        name = f"e1.default.ep.{DOMAIN}"
        for way in ((), ("+tcp",)):
            found = header(lab, "s3", GATEWAY, name, *way)
            assert found["status"] in ("NXDOMAIN", ""), found
        assert dig(lab, "s3", GATEWAY, name) == []
    finally:
        subprocess.run([*outside.enter(), *route[:2], "del", *route[3:]], check=True)


def test_servers_have_names_in_reverse_for_those_inside(lab: Lab) -> None:
    status = lab.status(lab.plan.servers[0])
    name = ids(lab)[0]
    assert dig(lab, "e1", GATEWAY, "-x " + status["tunnel_address"]) == [f"private.{name}."]
    assert dig(lab, "e1", GATEWAY, "-x " + status["backbone_address"]) == [f"backend.{name}."]
    reverse = ".".join(reversed(status["tunnel_address"].split("."))) + ".in-addr.arpa"
    found = header(lab, "s3", lab.plan.servers[0].address, reverse, "PTR")
    assert found["status"] == "REFUSED"


def serial(lab: Lab, server) -> int:
    (soa,) = dig(lab, "s3", server, DOMAIN, "SOA")
    return int(soa.split()[2])


def test_what_an_operator_sets_is_answered_at_once_and_everywhere(lab: Lab) -> None:
    first, second = lab.plan.servers[:2]
    name, before = f"www.{DOMAIN}", serial(lab, first)
    assert header(lab, "s3", first.address, name)["status"] == "NXDOMAIN"
    for number in (1, 2, 3):
        lab.seipd(first, "dns", "set", "www", "A", f"192.0.2.{number}")
        assert dig(lab, "s3", first, name) == [f"192.0.2.{number}"]
        assert serial(lab, first) > before
        before = serial(lab, first)
    until(lambda: dig(lab, "s3", second, name) == ["192.0.2.3"], 40)
    lab.seipd(second, "dns", "set", "alias", "CNAME", f"www.{DOMAIN}", "--ttl", "60")
    until(lambda: dig(lab, "s3", first, f"alias.{DOMAIN}") == ["192.0.2.3", f"www.{DOMAIN}."], 40)
    until(lambda: serial(lab, first) == serial(lab, second), 40)
    rows = lab.seipd_json(first, "dns", "ls")
    assert [(row["name"], row["type"], row["ttl"]) for row in rows] == [
        (f"alias.{DOMAIN}", "CNAME", 60),
        (name, "A", 300),
    ]
    lab.seipd(first, "dns", "rm", "www")
    assert header(lab, "s3", first.address, name)["status"] == "NXDOMAIN"


def test_a_resolver_resolves_through_us(lab: Lab, tmp_path) -> None:
    host, conf = lab.plan.host("s3"), tmp_path / "unbound.conf"
    conf.write_text(
        "server:\n interface: 127.0.0.1\n port: 5353\n do-daemonize: no\n use-syslog: no\n"
        f' chroot: ""\n username: ""\n directory: "{tmp_path}"\n pidfile: ""\n'
        ' module-config: "iterator"\n'
        f'stub-zone:\n name: "{DOMAIN}"\n stub-addr: {lab.plan.servers[0].address}\n'
    )
    resolver = subprocess.Popen([*host.enter(), "unbound", "-c", str(conf)])
    try:
        name = f"eu-central.seip.{DOMAIN}"
        both = [one.address for one in lab.plan.servers[:2]]
        until(lambda: dig(lab, "s3", "127.0.0.1", name, "-p", "5353") == both, 40)
        gone = header(lab, "s3", "127.0.0.1", f"nope.{DOMAIN}", "-p", "5353")
        assert gone["status"] == "NXDOMAIN"
        own = ids(lab)[0]
        assert "dns=53" in dig(lab, "s3", "127.0.0.1", f"_config.{own}", "TXT", "-p", "5353")[0]
    finally:
        resolver.terminate()
        resolver.wait(10)


MANY = """
import socket, sys, time
held = []
for number in range(300):
    one = socket.create_connection((sys.argv[1], 53), timeout=5)
    held.append(one)
time.sleep(1)
left = 0
for one in held:
    one.setblocking(False)
    try:
        left += bool(one.recv(1))
    except BlockingIOError:
        left += 1
    except OSError:
        pass
print(left, flush=True)
sys.stdin.read()
"""


def test_dns_09_one_host_holds_a_few_connections_and_the_others_are_served(lab: Lab) -> None:
    outside, server = lab.plan.host("s3"), lab.plan.servers[0]
    words = [*outside.enter(), sys.executable, "-c", MANY, server.address]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "16\n"
        name = ids(lab)[0]
        assert dig(lab, "s2", server, name, "+tcp") == [server.address]
        assert dig(lab, "s3", server, name) == [server.address]
        holder.stdin.close()
    until(lambda: dig(lab, "s3", server, name, "+tcp") == [server.address], 40)


def test_the_status_and_the_metrics_tell_of_it(lab: Lab) -> None:
    server = lab.plan.servers[0]
    status = lab.status(server)
    assert status["ports"]["dns"] == 53
    (service,) = (one for one in status["services"] if one["name"] == "dns")
    assert (service["state"], service["detail"]) == ("ok", "port 53")
    socket = str(server.data_root / "run" / "seipd.sock")
    done = subprocess.run(
        ["curl", "-s", "--unix-socket", socket, "http://seipd/metrics"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert 'seipd_dns_answers_total{rcode="noerror"}' in done.stdout


HOLD = """
import socket, sys, time
one, two = socket.socket(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
one.bind(("0.0.0.0", 53)); one.listen(); two.bind(("0.0.0.0", 53))
print("held", flush=True)
time.sleep(600)
"""


def test_dns_19_a_region_has_no_dead_server_and_a_port_that_is_taken_stops_nothing_else(
    lab: Lab,
) -> None:
    first, second = lab.plan.servers[:2]
    region = f"eu-central.seip.{DOMAIN}"
    name = ids(lab)[1]
    os.kill(lab.daemon_pid(second), signal.SIGKILL)
    until(lambda: dig(lab, "s3", first, region) == [first.address], 60)
    assert dig(lab, "s3", first, name) == [second.address]
    holder = subprocess.Popen(
        [*second.enter(), sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "held\n"
        lab.start_server(second)
        (service,) = (one for one in lab.status(second)["services"] if one["name"] == "dns")
        assert service["state"] == "degraded"
        assert "port 53/tcp" in service["detail"]
        assert "--dns-port" in service["detail"]
        assert lab.status(second)["healthy"]
    finally:
        holder.kill()
        holder.wait(10)
    until(lambda: dig(lab, "s3", second, name) == [second.address], 60)
    until(lambda: dig(lab, "s3", first, region) == [first.address, second.address], 60)
    with contextlib.suppress(StopIteration):
        assert next(
            one["state"] for one in lab.status(second)["services"] if one["name"] == "dns"
        ) == ("ok")
