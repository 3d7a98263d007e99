"""Datagrams that one core handles in a second, beside a loop that only receives and unboxes them.

    python -m tests.bench.bench_datagrams [--count 20000]

Both receive the same datagrams from a real socket, in bursts; what is timed is receiving and what
follows it. The messages are what an idle mesh says, as often as it does: of nine, five are
SUMMARYs that change nothing, two PINGs, of which each is answered with an ACK of our own, and two
ACKs. The fastest of many bursts counts, so that other work on the machine does not.
"""

from __future__ import annotations

import argparse
import gc
import socket
import time

from services.mesh.gossip.codec import decode
from services.mesh.gossip.messages import encode_message
from services.mesh.membership.messages import Ack, Ping
from tests.unit.mesh_gossip.gossip_kit import World, id_of

BURST = 90
MIX = {"SUMMARY": 5, "PING": 2, "ACK": 2}
TARGET = 0.5


def sealed(world: World, kinds: list[str], count: int) -> list[bytes]:
    """Return so many datagrams from ann to bob."""
    session = world["ann"].node.sessions.current(id_of("bob"))
    messages = {
        "SUMMARY": world["ann"].node._holdings.summary(),
        "PING": Ping(seq=1, rumours=()),
        "ACK": Ack(seq=0, rumours=()),
    }
    every = [encode_message(messages[kind]) for kind in kinds]
    return [session.seal(every[number % len(every)]) for number in range(count)]


def in_bursts(datagrams: list[bytes], handle) -> float:
    """Return the seconds that receiving and handling one took in the fastest burst."""
    fastest_s = float("inf")
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        receiver.bind(("127.0.0.1", 0))
        receiver.setblocking(False)
        place = receiver.getsockname()
        for at in range(0, len(datagrams), BURST):
            burst = datagrams[at : at + BURST]
            for data in burst:
                sender.sendto(data, place)
            begun_s = time.perf_counter()
            for _ in burst:
                data, _ = receiver.recvfrom(2048)
                handle(data)
            fastest_s = min(fastest_s, (time.perf_counter() - begun_s) / len(burst))
    return fastest_s


def measure(kinds: list[str], count: int) -> tuple[float, float]:
    """Return the seconds a datagram takes: bare, and with all that gossip does."""
    world = World("ann", "bob")
    world.introduce()
    world.run(3)
    bob, address = world["bob"].node, world["ann"].public
    now = world["bob"].now()
    cipher = bob.sessions.current(id_of("ann")).cipher

    def unbox(data: bytes) -> None:
        box = decode(data)
        cipher.decrypt(box.counter, box.ciphertext, aad=box.header)

    handled = 0

    def gossip(data: bytes) -> None:
        nonlocal handled
        bob.datagram(data, address, now)
        handled += 1

    gc.collect()
    bare_s = in_bursts(sealed(world, kinds, count), unbox)
    ours_s = in_bursts(sealed(world, kinds, count), gossip)
    assert handled == count
    assert bob.counters.dropped_count == 0
    return bare_s, ours_s


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=20_000)
    count = parser.parse_args().count
    mixed = [kind for kind, share in MIX.items() for _ in range(share)]
    for name, kinds in {**{kind: [kind] for kind in MIX}, "as idle": mixed}.items():
        bare_s, ours_s = measure(kinds, count)
        print(
            f"{name:8} bare {1 / bare_s:9,.0f}/s ({bare_s * 1e6:.1f} us), gossip "
            f"{1 / ours_s:9,.0f}/s ({ours_s * 1e6:.1f} us): {bare_s / ours_s:.2f}"
        )
    print(f"target {TARGET}")


if __name__ == "__main__":
    main()
