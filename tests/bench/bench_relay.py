"""A relay beside what it can be measured by, in turn, between the same namespaces.

    python -m tests.bench.bench_relay [--seconds 1] [--rounds 7] [kernel|program|many ...]

``kernel``: packets a second through the kernel's path against plain routing, which does nothing but
look up the way. ``program``: our own path against the barest loop of recv_into and sendto that
Python has. ``many``: both of ours again among 10,000 sessions. All send the same datagrams of 1,400
bytes that look like WireGuard's, by sendmmsg(2); iperf3's do not look so, and through wireguard-go
that would be what is measured. Needs root.
"""

from __future__ import annotations

import argparse
import ctypes
import socket
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

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
SENDER_PORT, RECEIVER_PORT = 51820, 51821
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
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("what", nargs="*")
    given = parser.parse_args()
    wanted = given.what or ["kernel", "program", "many"]
    good = True
    with three_hosts(forwards=True) as hosts:
        bench = Bench(hosts, seconds=given.seconds, rounds=given.rounds)
        if "kernel" in wanted:
            good &= bench.kernel(sessions=1)
        if "program" in wanted:
            good &= bench.program(sessions=1)
        if "many" in wanted:
            good &= bench.kernel(sessions=SESSIONS)
            good &= bench.program(sessions=SESSIONS)
    return 0 if good else 1


class Bench:
    """The three hosts, and how long and how often."""

    def __init__(self, hosts, *, seconds: float, rounds: int) -> None:
        self.a, self.relay, self.b = hosts
        self.seconds, self.rounds = seconds, rounds
        with self.b.entered():
            # Nobody reads it: what arrives is counted by the interface, and no answer goes back.
            self.sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.sink.bind((TO_B, RECEIVER_PORT))

    def kernel(self, *, sessions: int) -> bool:
        """Against plain routing, whose turn comes without any table."""

        def routed() -> float:
            return self.flood((TO_B, RECEIVER_PORT))

        def relayed() -> float:
            with self.table(sessions):
                return self.flood((RELAY, FIRST_PORT))

        return self.compare("the kernel", relayed, "routing", routed, KERNEL_TARGET, sessions)

    def program(self, *, sessions: int) -> bool:
        """Against the barest loop."""

        def bare() -> float:
            with self.running(BARE_LOOP):
                return self.flood((RELAY, 9000))

        def ours() -> float:
            with self.running(OUR_LOOP, str(sessions)):
                return self.flood((RELAY, FIRST_PORT))

        return self.compare("the program", ours, "a bare loop", bare, PROGRAM_TARGET, sessions)

    def compare(self, name, ours, other_name, other, target: float, sessions: int) -> bool:
        rates, ratios = [], []
        for _ in range(self.rounds):
            theirs, mine = other(), ours()
            rates.append((mine, theirs))
            ratios.append(mine / theirs)
        ratio = statistics.median(ratios)
        mine, theirs = (statistics.median(column) for column in zip(*rates, strict=True))
        print(
            f"{name}, {sessions} sessions: {mine / 1000:.0f} k packets/s, {other_name} "
            f"{theirs / 1000:.0f} k packets/s: {ratio:.2f} (at least {target})"
        )
        return ratio >= target

    def flood(self, address: tuple[str, int]) -> float:
        """Send all that goes; return how many packets a second came to b."""
        with self.a.entered():
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("198.18.1.2", SENDER_PORT))
        sock.connect(address)
        buffers = [ctypes.create_string_buffer(PACKET, len(PACKET)) for _ in range(BATCH)]
        batch = batch_of(buffers)
        send = ctypes.CDLL(None).sendmmsg
        before, began = self.arrived(), time.perf_counter()
        until = began + self.seconds
        while time.perf_counter() < until:
            send(sock.fileno(), batch, BATCH, 0)
        sock.close()
        took = time.perf_counter() - began
        time.sleep(0.05)
        return (self.arrived() - before) / took

    def arrived(self) -> int:
        told = self.b.run("cat", "/sys/class/net/eth0/statistics/rx_packets")
        return int(told)

    @contextmanager
    def table(self, sessions: int):
        with self.relay.entered():
            nft = Nft()
        here, there = (Place(host=f"198.18.{n}.1", port=FIRST_PORT) for n in (1, 2))
        nft.run(tables.setup(TABLE, FIRST_PORT, FIRST_PORT + 255))
        for host in (here.host, there.host):
            nft.run(tables.here(TABLE, host))
        lines = []
        for number in range(sessions):
            ends = [(f"10.{n}.{number >> 8}.{number & 255}", 4000) for n in (1, 2)]
            if number == sessions - 1:
                ends = [("198.18.1.2", SENDER_PORT), (TO_B, RECEIVER_PORT)]
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
