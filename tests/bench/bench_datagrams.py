"""Datagrams that one core handles in a second, beside a loop that only receives and unboxes them.

    python -m tests.bench.bench_datagrams [--count 20000]

Both receive the same datagrams from a real socket, in bursts; what is timed is receiving and what
follows it. The messages are what an idle mesh says: ACKs, PINGs and SUMMARYs that change nothing.
"""

from __future__ import annotations

import argparse
import gc
import socket
import statistics
import time

from services.mesh.gossip.codec import decode
from services.mesh.gossip.messages import encode_message
from services.mesh.membership.messages import Ack, Ping
from tests.unit.mesh_gossip.gossip_kit import World, id_of

BURST = 100
ROUNDS = 5


def sealed(world: World, count: int) -> list[bytes]:
    """Return so many datagrams from ann to bob."""
    session = world["ann"].node.sessions.current(id_of("bob"))
    summary = world["ann"].node._holdings.summary()
    kinds = [Ack(seq=0, rumours=()), Ping(seq=1, rumours=()), summary]
    return [session.seal(encode_message(kinds[number % 3])) for number in range(count)]


def in_bursts(datagrams: list[bytes], handle) -> float:
    """Return the seconds that receiving and handling took."""
    spent_s = 0.0
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
            spent_s += time.perf_counter() - begun_s
    return spent_s


def round_of(count: int) -> tuple[float, float]:
    """Return datagrams a second: bare, and with all that gossip does."""
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
    bare_s = in_bursts(sealed(world, count), unbox)
    ours_s = in_bursts(sealed(world, count), gossip)
    assert handled == count
    assert bob.counters.dropped_count == 0
    return count / bare_s, count / ours_s


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=20_000)
    count = parser.parse_args().count
    ratios = []
    for _ in range(ROUNDS):
        bare, ours = round_of(count)
        ratios.append(ours / bare)
        print(f"bare {bare:,.0f}/s, gossip {ours:,.0f}/s: {ours / bare:.2f}")
    print(f"median {statistics.median(ratios):.2f} (target 0.5)")


if __name__ == "__main__":
    main()
