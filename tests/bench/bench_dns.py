"""Queries a second on one core: our name server beside NSD and beside a plain one by dnslib.

    python -m tests.bench.bench_dns [--seconds 2] [--rounds 7] [--names 1000 100000]

The same zone, the same queries, dnsperf on another core; the servers take turns, and the median of
the rounds' ratios counts. Where other programs want the same cores, the queries a second of CPU
time that a server used tell more than those a second of the clock. Then what a change costs and
whether the next answers have it, and what the names of 100,000 endpoints take in memory, all of
them asked for. Needs Debian's nsd and dnsperf.
"""

from __future__ import annotations

import argparse
import gc
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from ipaddress import IPv4Address
from pathlib import Path

from services.base.ledger.state import State
from services.edge.dns.answering import Answerer, Asker, Soa
from services.edge.dns.cookies import Cookies
from services.edge.dns.innernames import EndpointNames
from services.edge.dns.ratelimiting import ResponseRates
from services.edge.dns.zone import Table, Zone
from services.kernel.dnsnames import name_of
from tests.bench.dns_servers import DOMAIN, Fixed, address, answerer_of, host

TARGETS = {1_000: 0.6, 100_000: 0.55}
DNSLIB_TARGET = 15
MEMORY_TARGET_MB = 150
SERVER_CPU, CLIENT_CPU = 0, 1
INSIDE = Asker(address=bytes(4), network=b"net", inside=True)
NSD = """
server:
  server-count: 1
  ip-address: 127.0.0.1
  port: {port}
  do-ip6: no
  username: ""
  zonesdir: "{folder}"
  database: ""
  pidfile: "{folder}/nsd.pid"
  xfrdfile: "{folder}/xfrd.state"
  zonelistfile: "{folder}/zone.list"
  xfrdir: "{folder}"
  cpu-affinity: {cpu}
  server-1-cpu-affinity: {cpu}
  rrl-ratelimit: 0
  verbosity: 0
  logfile: "{folder}/log"
remote-control:
  control-enable: no
zone:
  name: "{domain}"
  zonefile: "zone"
"""


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextmanager
def python_server(kind: str, count: int):
    port = free_port()
    words = [sys.executable, "-m", "tests.bench.dns_servers", kind, str(count), str(port)]
    with subprocess.Popen([*words, str(SERVER_CPU)], stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout.readline() == "ready\n"
            yield port, child.pid
        finally:
            child.kill()


@contextmanager
def nsd_server(count: int):
    port = free_port()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lines = [f"$ORIGIN {DOMAIN}.", "$TTL 60"]
        lines.append("@ IN SOA ns1 hostmaster 1 3600 600 604800 30")
        lines += ["@ IN NS ns1", "ns1 IN A 198.51.100.1"]
        lines += [f"{host(number)}. IN A {address(number)}" for number in range(count)]
        (folder / "zone").write_text("\n".join(lines) + "\n")
        conf = folder / "nsd.conf"
        conf.write_text(NSD.format(port=port, folder=folder, cpu=SERVER_CPU, domain=DOMAIN))
        with subprocess.Popen([shutil.which("nsd") or "/usr/sbin/nsd", "-d", "-c", conf]) as child:
            try:
                wait_for(port, host(count - 1))
                yield port, child.pid
            finally:
                child.terminate()
                child.wait(20)


def wait_for(port: int, name: str) -> None:
    asked = b"\0\1\0\0\0\1\0\0\0\0\0\0" + name_of(name) + b"\0\1\0\1"
    deadline_s = time.monotonic() + 30
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.settimeout(0.3)
        one.connect(("127.0.0.1", port))
        while time.monotonic() < deadline_s:
            try:
                one.send(asked)
                if one.recv(512)[3] & 0xF == 0:
                    return
            except OSError:
                time.sleep(0.1)
    raise SystemExit("the server does not answer")


def queries_a_second(port: int, file: Path, seconds: float) -> tuple[float, float]:
    """Return the queries answered a second, and how many of a hundred were lost."""
    client = ["taskset", "-c", str(CLIENT_CPU), "dnsperf", "-s", "127.0.0.1", "-p", str(port)]
    load = ["-d", str(file), "-l", str(seconds), "-c", "8", "-q", "200"]
    done = subprocess.run([*client, *load], capture_output=True, text=True, check=True)
    rate = re.search(r"Queries per second:\s+([\d.]+)", done.stdout)
    lost = re.search(r"Queries lost:\s+\d+ \(([\d.]+)%\)", done.stdout)
    codes = re.search(r"Response codes:\s+(.*)", done.stdout)
    assert rate is not None
    assert lost is not None
    assert codes is not None
    assert re.fullmatch(r"NOERROR \d+ \(100.00%\)", codes[1].strip()), codes[1]
    return float(rate[1]), float(lost[1])


def family(pid: int) -> list[int]:
    """Return a process and those below it."""
    found = [pid]
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = entry.read_text().rpartition(")")[2].split()
            if int(fields[1]) == pid:
                found += family(int(entry.parent.name))
    return found


def cpu_s(pid: int) -> float:
    """Return the CPU time that a process and those below it have used."""
    ticks = 0
    for one in family(pid):
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def race(count: int, seconds: float, rounds: int) -> None:
    """Let the three take turns; print the medians of what they did, and of the ratios."""
    by_wall: dict[str, list[float]] = {"nsd": [], "ours": [], "dnslib": []}
    by_cpu: dict[str, list[float]] = {"nsd": [], "ours": [], "dnslib": []}
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        step = 7919  # another order than that of the zone
        file.writelines(f"{host(number * step % count)} A\n" for number in range(count))
        file.flush()
        with (
            nsd_server(count) as nsd,
            python_server("ours", count) as ours,
            python_server("dnslib", count) as plain,
        ):
            servers = {"nsd": nsd, "ours": ours, "dnslib": plain}
            queries_a_second(ours[0], Path(file.name), seconds)  # each once: it lies ready
            for _ in range(rounds):
                for name, (port, pid) in servers.items():
                    before_s = cpu_s(pid)
                    rate, lost = queries_a_second(port, Path(file.name), seconds)
                    by_wall[name].append(rate)
                    by_cpu[name].append(rate * seconds / (cpu_s(pid) - before_s))
                    if lost > 1:
                        print(f"  {name}: {lost} % lost")
    for what, rates in (("a second", by_wall), ("a second of its CPU", by_cpu)):
        told = ", ".join(f"{name} {statistics.median(one):,.0f}" for name, one in rates.items())
        print(
            f"{count:,} names, queries {what}: {told};"
            f" {ratio(rates, 'nsd'):.2f} of NSD (target {TARGETS.get(count, 0.55)}),"
            f" {ratio(rates, 'dnslib'):.1f} times dnslib (target {DNSLIB_TARGET})"
        )


def ratio(rates: dict[str, list[float]], other: str) -> float:
    """Return the median of the ratios within a round."""
    return statistics.median(
        mine / theirs for mine, theirs in zip(rates["ours"], rates[other], strict=True)
    )


def asked(name: str) -> bytes:
    return b"\0\1\0\0\0\1\0\0\0\0\0\0" + name_of(name) + b"\0\1\0\1"


def answered(answerer: Answerer, question: bytes) -> bytes:
    quick = answerer.quick(question, b"net", inside=True, now_s=0.0)
    found = quick or answerer.answer(question, INSIDE, now_s=0.0, clock_s=0)
    assert found is not None
    return found


def changes(count: int, changed_count: int = 20_000) -> float:
    """Return what the change of a record costs, the median in microseconds."""
    zone = Fixed(count)
    answerer = answerer_of(zone)
    zone.begin(answerer)
    for number in range(count):
        answered(answerer, asked(host(number)))
    names = [host(number * 7919 % count) for number in range(changed_count)]
    questions = [asked(name) for name in names]
    spent_s: list[float] = []
    for number, (name, question) in enumerate(zip(names, questions, strict=True)):
        new = address(number % 60_000)
        begun_s = time.perf_counter()
        zone.put(name, new)
        spent_s.append(time.perf_counter() - begun_s)
        assert answered(answerer, question)[-4:] == socket.inet_aton(new)
        assert answered(answerer, question)[-4:] == socket.inet_aton(new)
    return statistics.median(spent_s) * 1e6


def resident_mb() -> float:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


class Endpoints:
    """A state with so many endpoints, and an answerer over it."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.state = State()
        root, acme = "root-node", "acme-node"
        self.state.put("mesh", "root_node", root)
        self.state.put("tree", root, {"kind": "root", "name": "root", "parent": None})
        self.state.put("tree", acme, {"kind": "customer", "name": "acme", "parent": root})
        self.state.put("name", f"{root}/acme", acme)
        for number in range(count):
            self.put(number, number)
            self.state.put("name", f"{acme}/pc-{number}", self.node(number))

    def node(self, number: int) -> str:
        return f"{number:08x}-0000-4000-8000-000000000000"

    def put(self, number: int, offset: int) -> dict[str, str]:
        inner = str(IPv4Address("10.64.0.10") + offset)
        held = {"kind": "endpoint", "name": f"pc-{number}", "parent": "acme-node", "address": inner}
        self.state.put("tree", self.node(number), held)
        self.state.put("ipam", inner, self.node(number))
        return held

    def serve(self) -> None:
        """Answer each name once, so that all lie ready."""
        self.names = EndpointNames(state=lambda: self.state, mesh_id="ab" * 32, domain=DOMAIN)
        self.answerer = Answerer(
            zones=[Zone(apex=name_of(DOMAIN), public=Table(), inner=self.names)],
            soa=Soa(mname=name_of(f"ns1.{DOMAIN}"), rname=name_of(f"hostmaster.{DOMAIN}")),
            serial=lambda: 1,
            cookies=Cookies(os.urandom, now_s=0),
            rates=ResponseRates(per_second=0),
        )
        for number in range(self.count):
            assert self.address(number)

    def address(self, number: int) -> bytes:
        return answered(self.answerer, asked(f"pc-{number}.acme.ep.{DOMAIN}"))[-4:]


def endpoint_changes(count: int, changed_count: int = 20_000) -> float:
    """Return what the change of an endpoint costs the name server, the median in microseconds."""
    mesh = Endpoints(count)
    mesh.serve()
    spent_s: list[float] = []
    for step in range(changed_count):
        number, offset = step * 7919 % count, 200_000 + step
        held = mesh.put(number, offset)
        begun_s = time.perf_counter()
        for name in mesh.names.names_of(mesh.node(number), held):
            mesh.answerer.changed(name)
        spent_s.append(time.perf_counter() - begun_s)
        wanted = (IPv4Address("10.64.0.10") + offset).packed
        assert mesh.address(number) == mesh.address(number) == wanted
    return statistics.median(spent_s) * 1e6


def endpoint_memory(count: int) -> tuple[float, float]:
    """Return megabytes: of the state that holds the endpoints, and of DNS with all names asked."""
    before = resident_mb()
    mesh = Endpoints(count)
    with_state = resident_mb()
    mesh.serve()
    return with_state - before, resident_mb() - with_state


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--names", type=int, nargs="*", default=[1_000, 100_000])
    options = parser.parse_args()
    state_mb, dns_mb = endpoint_memory(100_000)
    print(
        f"100,000 endpoints: {dns_mb:.0f} MB for DNS, every name asked for"
        f" (target under {MEMORY_TARGET_MB}), beside {state_mb:.0f} MB of the ledger's state"
    )
    for what, measure in (("an endpoint's", endpoint_changes), ("a record's", changes)):
        small_us, large_us = measure(100), measure(100_000)
        print(
            f"{what} change: {small_us:.1f} us among 100 names, {large_us:.1f} us among 100,000;"
            " each was right at the next two questions"
        )
    for count in options.names:
        race(count, options.seconds, options.rounds)


if __name__ == "__main__":
    main()
