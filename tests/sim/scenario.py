"""One simulated run from a seed: faults and wishes, healing, quiet, judgement."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.sim.mesh import Mesh, MeshOptions
from tests.sim.oracle import Broken, check
from tests.sim.plan import CHAOS_S, MAX_JOINING, Faults, Plan, plan_of
from tests.sim.verifying import verified_once
from tests.sim.workload import Workload

if TYPE_CHECKING:
    from collections import Counter

QUIET_WITHIN_S = 240.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run came to; ``broken`` is empty where every promise held."""

    seed: int
    broken: str
    quiet_s: float
    answered: int
    refused: Counter[str]
    voided: int
    rebuilds: int
    generation: int
    delivered: int
    trace: str
    state_hash: str
    wall_s: float


def play(seed: int, *, servers: int, plan: Plan | None = None, liars: bool = False) -> Outcome:
    """Run the simulation of a seed, with its own faults unless others are given."""
    plan = plan or plan_of(seed, servers, liars=liars)
    began_s = time.perf_counter()
    with verified_once():
        mesh = Mesh(seed, options_of(plan, servers))
        workload = Workload(mesh, wishes_s=plan.wishes_s)
        try:
            broken, quiet_s = _live(mesh, plan, workload), mesh.queue.now_s - CHAOS_S
        except Broken as error:
            broken, quiet_s = str(error), mesh.queue.now_s - CHAOS_S
    up = [server for server in mesh.honest() if server.is_up]
    return Outcome(
        seed=seed,
        broken=broken,
        quiet_s=quiet_s,
        answered=len(workload.told.receipts),
        refused=workload.told.refused,
        voided=max(len(server.ledger.fold.voided) for server in up),
        rebuilds=sum(server.ledger.rebuilds for server in up),
        generation=min(server.ledger.fold.charter.chain.newest.generation for server in up),
        delivered=mesh.network.delivered_count,
        trace=mesh.network.trace(),
        state_hash=up[0].ledger.fold.state.root().hex(),
        wall_s=time.perf_counter() - began_s,
    )


def options_of(plan: Plan, servers: int) -> MeshOptions:
    return MeshOptions(
        servers=servers,
        spares=MAX_JOINING,
        witnesses=min(5, servers - (servers + 1) % 2),
        retain_settled=plan.retain_settled,
        backbone=plan.backbone,
        link=plan.link,
    )


def _live(mesh: Mesh, plan: Plan, workload: Workload) -> str:
    mesh.start()
    faults = Faults(mesh, plan)
    faults.begin()
    workload.begin()
    mesh.queue.run(CHAOS_S)
    workload.stop()
    faults.heal()
    quiet = mesh.queue.run_until(
        lambda: faults.root_holder.is_done and mesh.agrees() and mesh.is_settled(),
        at_most_s=QUIET_WITHIN_S,
        step_s=0.5,
    )
    check(mesh, workload.told.receipts + faults.root_holder.receipts)
    if quiet:
        return ""
    return f"agreed, but not settled after {QUIET_WITHIN_S:.0f} s: {unsettled(mesh)}"


def unsettled(mesh: Mesh) -> str:
    """Say which servers' feeds hold entries that no attest covers."""
    fold = mesh.honest()[0].ledger.fold
    names = [mesh.servers[name].number for name, feed in fold.feeds.items() if feed.unsettled]
    return f"unsettled feeds: {sorted(names)}"
