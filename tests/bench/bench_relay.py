"""A relay beside what it can be measured by, in turn, between the same namespaces.

    python -m tests.bench.bench_relay [--seconds 1] [--rounds 15] [kernel|flood|program|many ...]

``kernel``: what iperf3 brings through the kernel's path against plain routing, which does nothing
but look up the way; datagrams of 1,400 bytes. They do not look like WireGuard's, so the table is
told to take what does not; the rest of it is as ever. ``flood``: the same with datagrams that do,
by sendmmsg(2), which costs a sender so little that every look-up shows; for information. Of both,
the CPU time of a datagram is told, too: the sender's system call carries it through all three
hosts, so that is what it costs, and other programs' turns are not in it. The lesser ratio counts.
``program``: our own path against the barest loop of recv_into and sendto that Python has.
``many``: all again among 10,000 sessions. Through wireguard-go, that would be what is measured.
Needs root and iperf3.
"""

from __future__ import annotations

import argparse
import ctypes
import select
import socket
import statistics
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from services.edge.relay import tables
from services.edge.relay.model import Link, Place, Side
from services.runtime.nft import Nft
from tests.bench.bench_stun import batch_of
from tests.fakes.relay_lab import three_hosts

KERNEL_TARGET, PROGRAM_TARGET = 0.8, 0.5
SESSIONS = 10_000
PACKET = b"\x04\0\0\0" + bytes(1396)
BATCH = 64
RELAY, TO_B = "198.18.1.1", "198.18.2.2"
SENDER_PORT, RECEIVER_PORT, IPERF_PORT = 51820, 51821, 5201
FIRST_PORT = 9104
TABLE = "seipd_relay_bench"
BARE_LOOP = """
import socket
take, give = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
take.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
take.bind(("0.0.0.0", 9000))
buffer = bytearray(2048)
view = memoryview(buffer)
print("ready", flush=True)
while True:
    size = take.recv_into(buffer)
    give.sendto(view[:size], ("198.18.2.2", 51821))
"""
OUR_LOOP = """
import asyncio, sys
from services.edge.relay.model import Link, Place, Side
from services.edge.relay.userpath import UserPath
async def main():
    loop = asyncio.get_running_loop()
    path = UserPath(on_control=lambda *args: None, monotonic_s=loop.time)
    a, b = (Place(host=f"198.18.{n}.1", port=9103 + n) for n in (1, 2))
    here = (("198.18.1.2", 51820), ("198.18.2.2", 51821))
    count = int(sys.argv[1])
    for place in (a, b):
        path.open(place)
    for number in range(count):
        ends = tuple((f"10.{n}.{number >> 8}.{number & 255}", 4000) for n in (1, 2))
        ends = here if number == count - 1 else ends
        a.bound[ends[0]], b.bound[ends[1]] = 2 * number, 2 * number + 1
        sides = [Side(place=one, address=end) for one, end in zip((a, b), ends)]
        path.link(Link(number=number, a=sides[0], b=sides[1], rate_kbits=100_000_000))
    print("ready", flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("what", nargs="*")
    given = parser.parse_args()
    wanted = given.what or ["kernel", "flood", "program", "many"]
    good = True
    with three_hosts(forwards=True) as hosts:
        bench = Bench(hosts, seconds=given.seconds, rounds=given.rounds)
        for sessions in (1, SESSIONS) if "many" in wanted else (1,):
            if "kernel" in wanted:
                good &= bench.kernel(sessions=sessions)
            if "flood" in wanted:
                bench.flood_kernel(sessions=sessions)
            if "program" in wanted:
                good &= bench.program(sessions=sessions)
    return 0 if good else 1


def _other_form(text: str) -> str:
    """Take what is no WireGuard packet, at the same cost."""
    return text.replace(
        "@th,64,32 0x04000000 udp length >= 40 meta", "@th,64,32 != 0x04000000 udp length >= 9 meta"
    )


class Measured(NamedTuple):
    """How many packets a second came, and how much CPU time of the sender's one cost."""

    packets_s: float
    cpu_ns: float


class Bench:
    """The three hosts, and how long and how often."""

    def __init__(self, hosts, *, seconds: int, rounds: int) -> None:
        self.a, self.relay, self.b = hosts
        self.seconds, self.rounds = seconds, rounds
        with self.b.entered():
            # Nobody reads it: what arrives is counted by the interface, and no answer goes back.
            self.sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.sink.bind((TO_B, RECEIVER_PORT))

    def kernel(self, *, sessions: int) -> bool:
        """What iperf3 brings, against plain routing, whose turn comes without any table."""

        def relayed() -> Measured:
            table = self.table(sessions, a_port=IPERF_PORT, b_port=IPERF_PORT, edit=_other_form)
            with table, self.forwarding_control():
                return self.iperf3(RELAY)

        return self.compare(
            "iperf3 by the kernel",
            relayed,
            "routing",
            lambda: self.iperf3(TO_B),
            KERNEL_TARGET,
            sessions,
        )

    def flood_kernel(self, *, sessions: int) -> bool:
        """The same for a sender that costs nothing."""

        def relayed() -> Measured:
            with self.table(sessions):
                return self.flood((RELAY, FIRST_PORT))

        def routed() -> Measured:
            return self.flood((TO_B, RECEIVER_PORT))

        return self.compare("a flood by the kernel", relayed, "routing", routed, 0.0, sessions)

    def program(self, *, sessions: int) -> bool:
        """Against the barest loop."""

        def bare() -> Measured:
            with self.running(BARE_LOOP):
                return self.flood((RELAY, 9000), tells_cpu=False)

        def ours() -> Measured:
            with self.running(OUR_LOOP, str(sessions)):
                return self.flood((RELAY, FIRST_PORT), tells_cpu=False)

        return self.compare("the program", ours, "a bare loop", bare, PROGRAM_TARGET, sessions)

    def compare(self, name, ours, other_name, other, target: float, sessions: int) -> bool:
        """Have both in turn, the first to begin changing; what counts is a round's ratio."""
        rounds: list[tuple[Measured, Measured]] = []
        for number in range(self.rounds):
            if number & 1:
                mine, theirs = ours(), other()
            else:
                theirs, mine = other(), ours()
            rounds.append((mine, theirs))
        ratios = [mine.packets_s / theirs.packets_s for mine, theirs in rounds]
        low, ratio, high = statistics.quantiles(ratios, n=4)
        mine, theirs = (
            Measured(*(statistics.median(column) for column in zip(*one, strict=True)))
            for one in zip(*rounds, strict=True)
        )
        print(
            f"{name}, {sessions} sessions: {mine.packets_s / 1000:.0f} k packets/s, {other_name} "
            f"{theirs.packets_s / 1000:.0f} k packets/s: {ratio:.2f} (half of the rounds "
            f"{low:.2f} to {high:.2f}; at least {target})"
        )
        if mine.cpu_ns:
            by_cpu = statistics.median(other.cpu_ns / one.cpu_ns for one, other in rounds)
            print(
                f"  CPU time of a packet: {mine.cpu_ns:.0f} ns, {other_name} "
                f"{theirs.cpu_ns:.0f} ns: {by_cpu:.2f}"
            )
            # Where other programs keep b from reading, what comes says little of the way there.
            ratio = min(ratio, by_cpu)
        return ratio >= target

    def iperf3(self, host: str) -> Measured:
        """Return how many datagrams a second came to b."""
        server = subprocess.Popen(
            ["ip", "netns", "exec", self.b.name, "iperf3", "-s", "-1"], stdout=subprocess.DEVNULL
        )
        try:
            while str(IPERF_PORT) not in self.b.run("ss", "-Hltn", f"sport = :{IPERF_PORT}"):
                time.sleep(0.02)
            words = f"iperf3 -J -u -b 0 -l 1400 -t {self.seconds} --cport {SENDER_PORT} -c {host}"
            end = msgspec.json.decode(self.a.run(*words.split()))["end"]
        finally:
            server.kill()
            server.wait()
        told, busy = end["sum"], end["cpu_utilization_percent"]["host_total"] / 100
        return Measured(
            (told["packets"] - told["lost_packets"]) / told["seconds"],
            busy * told["seconds"] / told["packets"] * 1e9,
        )

    @contextmanager
    def forwarding_control(self):
        """Carry iperf3's other connection, by TCP, without connection tracking."""
        with self.relay.entered():
            listener = socket.create_server((RELAY, IPERF_PORT))
        carrier = threading.Thread(target=self.carry_control, args=(listener,), daemon=True)
        carrier.start()
        try:
            yield
        finally:
            listener.close()
            carrier.join(5)

    def carry_control(self, listener: socket.socket) -> None:
        near, _ = listener.accept()
        with self.relay.entered():
            far = socket.create_connection((TO_B, IPERF_PORT))
        with near, far:
            other = {near: far, far: near}
            while True:
                for sock in select.select([near, far], [], [], 10)[0]:
                    data = sock.recv(65536)
                    if not data:
                        return
                    other[sock].sendall(data)

    def flood(self, address: tuple[str, int], *, tells_cpu: bool = True) -> Measured:
        """Send all that goes; return how many packets a second came to b."""
        with self.a.entered():
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("198.18.1.2", SENDER_PORT))
        sock.connect(address)
        buffers = [ctypes.create_string_buffer(PACKET, len(PACKET)) for _ in range(BATCH)]
        batch = batch_of(buffers)
        send = ctypes.CDLL(None).sendmmsg
        before, began, used = self.arrived(), time.perf_counter(), time.thread_time_ns()
        until = began + self.seconds
        while time.perf_counter() < until:
            send(sock.fileno(), batch, BATCH, 0)
        sock.close()
        took, used = time.perf_counter() - began, time.thread_time_ns() - used
        time.sleep(0.05)
        came = self.arrived() - before
        return Measured(came / took, used / came if tells_cpu else 0.0)

    def arrived(self) -> int:
        told = self.b.run("cat", "/sys/class/net/eth0/statistics/rx_packets")
        return int(told)

    @contextmanager
    def table(self, sessions: int, *, a_port=FIRST_PORT, b_port=RECEIVER_PORT, edit=str):
        with self.relay.entered():
            nft = Nft()
        here, there = (Place(host=f"198.18.{n}.1", port=a_port) for n in (1, 2))
        nft.run(edit(tables.setup(TABLE, a_port, a_port + 255)))
        for host in (here.host, there.host):
            nft.run(tables.here(TABLE, host))
        lines = []
        for number in range(sessions):
            ends = [(f"10.{n}.{number >> 8}.{number & 255}", 4000) for n in (1, 2)]
            if number == sessions - 1:
                ends = [("198.18.1.2", SENDER_PORT), (TO_B, b_port)]
            sides = [
                Side(place=place, address=end)
                for place, end in zip((here, there), ends, strict=True)
            ]
            one = Link(number=number, a=sides[0], b=sides[1], rate_kbits=100_000_000)
            lines.append(tables.link(TABLE, one, rate_kbits=one.rate_kbits))
        for at in range(0, len(lines), 500):
            nft.run("\n".join(lines[at : at + 500]))
        try:
            yield
        finally:
            nft.run(tables.teardown(TABLE))
            nft.close()

    @contextmanager
    def running(self, code: str, *words: str):
        process = subprocess.Popen(
            ["ip", "netns", "exec", self.relay.name, sys.executable, "-c", code, *words],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        try:
            assert process.stdout.readline() == "ready\n"
            yield
        finally:
            process.kill()
            process.wait()


if __name__ == "__main__":
    sys.exit(main())
