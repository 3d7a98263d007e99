"""What a large mesh costs: how fast news spreads, what idling sends, how it all comes to rest."""

from __future__ import annotations

import resource
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.sim.chatter import begin_chatter
from tests.sim.epidemic import SERF_FANOUT, ideal_rounds, serf_rounds
from tests.sim.founding import signed_record
from tests.sim.mesh import Mesh, MeshOptions
from tests.sim.network import LinkModel
from tests.sim.verifying import verified_once

if TYPE_CHECKING:
    from collections.abc import Iterator

    from services.kernel.records import Record

DELAY_S = 0.1
LOSS = 0.05
SETTLE_S = 40.0  # until each has told that it is there
PAUSE_S = 4.0  # between two records, at least
REST_S = 60.0
STEP_S = 0.005


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """One record on its way to all."""

    servers: int
    fanout: float
    all_s: float  # the median of the runs
    worst_s: float
    most_s: float  # to 99 of 100 servers
    ideal_s: float
    serf_rounds: int
    serf_same_rounds: int

    @property
    def ratio(self) -> float:
        return self.all_s / self.ideal_s

    @property
    def rounds(self) -> float:
        return self.all_s / DELAY_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Idle:
    """What servers send when nothing happens, headers of IP and UDP included."""

    servers: int
    mean_bytes_s: float
    most_bytes_s: float
    datagrams_s: float


def quiet_mesh(servers: int, *, seed: int) -> Mesh:
    """Return a mesh that has been up for a while; only the first server folds."""
    options = MeshOptions(
        servers=servers,
        witnesses=min(9, servers - 1 | 1),
        folding=1,
        known=True,
        link=LinkModel(delay_s=DELAY_S, loss=LOSS),
    )
    mesh = Mesh(seed, options)
    mesh.start()
    begin_chatter(mesh)
    mesh.queue.run(SETTLE_S)
    assert mesh.agrees(), "the mesh did not come to rest"
    return mesh


def measure(servers: int, *, seed: int = 1, records: int = 9) -> tuple[Spread, Idle]:
    """Measure one mesh: what it sends when idle, then how long some records take to be all over."""
    with verified_once():
        mesh = quiet_mesh(servers, seed=seed)
        idling = idle(mesh)
        times = [_one(mesh, record) for record in _records(mesh, records)]
        fanout = statistics.median(one for server in mesh.all for one in server.told_counts)
    told = round(fanout)
    spread = Spread(
        servers=servers,
        fanout=fanout,
        all_s=statistics.median(all_s for all_s, _ in times),
        worst_s=max(all_s for all_s, _ in times),
        most_s=statistics.median(most_s for _, most_s in times),
        ideal_s=DELAY_S * ideal_rounds(servers, fanout=told, loss=LOSS, seed=seed),
        serf_rounds=serf_rounds(servers, fanout=SERF_FANOUT, loss=LOSS),
        serf_same_rounds=serf_rounds(servers, fanout=told, loss=LOSS),
    )
    return spread, idling


def _records(mesh: Mesh, count: int) -> Iterator[Record]:
    founding = mesh.founding
    for number in range(count):
        body = {"node": founding.customer, "name": f"name-{number}"}
        yield signed_record(
            founding.mesh_id, founding.root, "tree.rename", body, f"{10_000 + number:032x}"
        )


def _one(mesh: Mesh, record: Record) -> tuple[float, float]:
    """Return the time from the record's being durable at its server until all and 99 % have it.

    What follows each record, the word of the witnesses, is everywhere before the next one goes out:
    whoever still lacks that has to ask for it first, which is no spreading of one record.
    """
    first = mesh.all[0]
    for server in mesh.all:
        server.told_counts.clear()
    durable: list[float] = []
    first.submit([record], lambda _: durable.append(mesh.queue.now_s))
    while not durable:
        mesh.queue.run(STEP_S)
    wanted, most_s = first.ledger.size, 0.0
    missing = list(mesh.all)
    while missing := [one for one in missing if one.ledger.held[first.name].size < wanted]:
        mesh.queue.run(STEP_S)
        taken_s = mesh.queue.now_s - durable[0]
        assert taken_s < 60, "the record did not reach all within a minute"
        if 100 * len(missing) > len(mesh.all):
            most_s = taken_s
    mesh.queue.run(PAUSE_S)
    mesh.queue.run_until(
        lambda: all(one.ledger.held[first.name].size == first.ledger.size for one in mesh.all),
        at_most_s=REST_S,
        step_s=0.5,
    )
    return taken_s, most_s


def idle(mesh: Mesh, *, seconds: float = 60.0) -> Idle:
    """Measure what an idle mesh sends."""
    before, before_count = mesh.network.sent_bytes.copy(), mesh.network.sent_count.total()
    mesh.queue.run(seconds)
    sent = [mesh.network.sent_bytes[one.name] - before[one.name] for one in mesh.all]
    return Idle(
        servers=len(mesh.all),
        mean_bytes_s=statistics.mean(sent) / seconds,
        most_bytes_s=max(sent) / seconds,
        datagrams_s=(mesh.network.sent_count.total() - before_count) / seconds / len(mesh.all),
    )


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
