"""What a HERE and a CALL cost at a server, by how many endpoints are there, and their memory.

Run: python -m tests.bench.bench_rendezvous [ENDPOINTS ...]

The pure part with its codec, from datagram to datagrams; no sockets, no ledger.
"""

from __future__ import annotations

import gc
import sys
import time
import tracemalloc

from services.edge.punch.book import Book
from services.edge.punch.meetings import Meetings, NoOffers
from services.edge.punch.messages import (
    Call,
    CandidateKind,
    Here,
    What,
    candidate,
    decode,
    encode,
    tunnel_bytes,
)
from services.edge.punch.parties import Party
from services.edge.punch.telling import Teller
from services.kernel.ids import ServerId
from tests.fakes.rendezvous import MESH_RANGES, FakeParties, FakePolicy, State

COUNTS = (1_000, 100_000)
MEASURED = 20_000
OWN = ServerId("server-" + "1" * 16)
CANDIDATES = tuple(
    candidate(CandidateKind.LOCAL, f"192.168.1.{number}", 51820) for number in range(1, 5)
)


class Crowd:
    """A server, and endpoints that are carried there."""

    def __init__(self, count: int) -> None:
        self.state = State(servers={OWN: "172.16.0.10"})
        self.addresses = [
            f"10.{64 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"
            for number in range(count)
        ]
        for number, address in enumerate(self.addresses):
            party = Party(node_id=f"n{number}", key=number.to_bytes(32, "big"), carrier=OWN)
            self.state.endpoints[address] = party
        parties = FakeParties(OWN, self.state)
        self.book = Book(parties=parties, first_version=1)
        self.meetings = Meetings(
            book=self.book,
            parties=parties,
            policy=FakePolicy(self.state),
            offers=NoOffers(),
            teller=Teller(mesh_ranges=MESH_RANGES, first_serial=1),
        )

    def come(self) -> float:
        """Have all say that they are here; return the bytes that each takes."""
        data = encode(Here(1, CANDIDATES, False, True, 0, 0))
        gc.collect()
        tracemalloc.start()
        for number, address in enumerate(self.addresses):
            self.book.here(address, decode(data), 0.0)  # type: ignore[arg-type]
            self.book.observe(number.to_bytes(32, "big"), "203.0.113.7", 40000, 1.0)
        used, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return used / len(self.addresses)

    def here_us(self) -> float:
        """Return the time of one HERE of somebody who is here."""
        data = encode(Here(2, CANDIDATES, False, False, 1, 1))
        step = max(len(self.addresses) // MEASURED, 1)
        asked = self.addresses[::step]
        begun = time.perf_counter()
        for address in asked:
            self.book.here(address, decode(data), 2.0)  # type: ignore[arg-type]
        return (time.perf_counter() - begun) / len(asked) * 1e6

    def call_us(self) -> float:
        """Return the time of one CALL that brings two together."""
        half = len(self.addresses) // 2
        step = max(half // MEASURED, 1)
        pairs = list(zip(self.addresses[:half:step], self.addresses[half::step], strict=False))
        calls = [encode(Call(1, tunnel_bytes(other), ())) for _, other in pairs]
        begun = time.perf_counter()
        for (address, _), data in zip(pairs, calls, strict=True):
            one = self.book.get(address)
            assert one is not None
            assert len(self.meetings.call(one, decode(data), 3.0)) == 2  # type: ignore[arg-type]
        return (time.perf_counter() - begun) / len(pairs) * 1e6

    def tell_all_s(self) -> float:
        """Return the time to tell all of a change."""
        begun = time.perf_counter()
        assert sum(1 for _ in self.book.changed(What.POLICY, None, 4.0)) == len(self.addresses)
        return time.perf_counter() - begun


def main(counts: tuple[int, ...]) -> None:
    print("endpoints   bytes each   HERE us   CALL us   tell all s")
    for count in counts:
        crowd = Crowd(count)
        size = crowd.come()
        gc.freeze()
        row = f"{count:9}{size:13.0f}{crowd.here_us():10.1f}{crowd.call_us():10.1f}"
        print(f"{row}{crowd.tell_all_s():13.3f}")
        gc.unfreeze()


if __name__ == "__main__":
    main(tuple(map(int, sys.argv[1:])) or COUNTS)
