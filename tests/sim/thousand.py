"""One run with very many servers: a few fold and are asked, all store, gossip and compare.

Folding the same records a thousand times over would only prove that a function has one value. So a
sample folds in full, the witnesses among them; the others check each checkpoint and root, pass on
what they hold, and are compared by the sizes and roots of all feeds.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from tests.sim.measure import peak_mib
from tests.sim.mesh import Mesh, MeshOptions
from tests.sim.network import LinkModel
from tests.sim.oracle import check
from tests.sim.plan import CHAOS_S, Crash, Cut, Faults, Plan
from tests.sim.verifying import verified_once
from tests.sim.workload import Workload

FOLDING = 12
WITNESSES = 9
QUIET_WITHIN_S = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LargeRun:
    """What a large run came to."""

    servers: int
    quiet: bool
    quiet_s: float
    answered: int
    refused: int
    datagrams: int
    wall_s: float
    peak_mib: float


def large_plan(servers: int, seed: int, mesh: Mesh) -> Plan:
    rng = mesh.random(f"large plan {seed}")
    return Plan(
        link=mesh.options.link,
        skews_ms=tuple(int(rng.gauss(0, 1500)) for _ in range(servers)),
        crashes=tuple(
            Crash(at_s=rng.random() * CHAOS_S, who=who, down_s=1 + rng.random() * 20)
            for who in rng.sample(range(servers), servers // 25)
        ),
        cuts=(
            Cut(at_s=5.0, these=frozenset(rng.sample(range(servers), servers // 3)), for_s=15.0),
            Cut(
                at_s=22.0,
                these=frozenset(rng.sample(range(servers), servers // 10)),
                for_s=12.0,
                one_way=True,
            ),
        ),
    )


def play_large(servers: int, *, seed: int = 1, wishes_s: float = 4.0) -> LargeRun:
    """Run faults and wishes on a large mesh, heal it, and judge it.

    Raises:
        Broken: a promise does not hold.
    """
    began_s = time.perf_counter()
    options = MeshOptions(
        servers=servers,
        witnesses=WITNESSES,
        folding=FOLDING,
        known=True,
        link=LinkModel(delay_s=0.05, jitter_s=0.05, loss=0.05, double=0.01, late=0.01),
    )
    with verified_once():
        mesh = Mesh(seed, options)
        mesh.start()
        mesh.queue.run(5.0)
        faults = Faults(mesh, large_plan(servers, seed, mesh))
        faults.begin()
        workload = Workload(mesh, wishes_s=wishes_s, askable=FOLDING)
        workload.begin()
        mesh.queue.run(CHAOS_S)
        workload.stop()
        faults.heal()
        healed_s = mesh.queue.now_s
        quiet = mesh.run_until_quiet(at_most_s=QUIET_WITHIN_S)
        check(mesh, workload.told.receipts)
    return LargeRun(
        servers=servers,
        quiet=quiet,
        quiet_s=mesh.queue.now_s - healed_s,
        answered=len(workload.told.receipts),
        refused=workload.told.refused.total(),
        datagrams=mesh.network.delivered_count,
        wall_s=time.perf_counter() - began_s,
        peak_mib=peak_mib(),
    )
