"""What servers say of themselves all the time, as often as the daemon does: what idling costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from seipd.daemon import latencies, load
from services.base.ledger.ticks import StateWord
from services.kernel.ids import raw_server_id
from services.mesh.facts.kinds import LATENCY, LOAD, STATE
from services.mesh.facts.payloads import Latency, LatencyPayload, LoadPayload, encode_payload

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.sim.mesh import Mesh
    from tests.sim.server import SimServer

LIFETIME_MS = 600_000
WORD_INTERVAL_S = 20.0
LATENCIES = 16
HASH = bytes(range(32))


def begin_chatter(mesh: Mesh) -> None:
    """Have each server tell its load and its latencies, and each witness words on the state."""
    count = len(mesh.all)
    nearest = sorted(raw_server_id(one.name) for one in mesh.all[:LATENCIES])
    distances = LatencyPayload(
        latencies=tuple(Latency(server=one, round_trip_ms=200) for one in nearest)
    )
    busy = LoadPayload(cpu_permille=730, endpoints_count=12, version="0.1.0")
    for server in mesh.all:
        say(server, LOAD, load.interval_s(count), lambda: encode_payload(busy))
        say(server, LATENCY, latencies.interval_s(count), lambda: encode_payload(distances))
        if server.name in mesh.all[0].ledger.witnesses():
            say(server, STATE, WORD_INTERVAL_S, word(server).encode)


def word(server: SimServer) -> StateWord:
    return StateWord(
        time_ms=server.clock.now_ms(),
        roster_number=server.ledger.charter.number,
        roster_hash=HASH,
        feeds_hash=HASH,
        root=HASH,
    )


def say(server: SimServer, kind: int, every_s: float, payload: Callable[[], bytes]) -> None:
    rng = server.mesh.random(f"{server.name} says {kind}")

    def again() -> None:
        server.publish(kind, payload(), LIFETIME_MS)
        server.later(every_s, again)

    server.later(rng.random() * every_s, again)
