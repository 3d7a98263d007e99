"""How soon a server that fell is known dead by all, and whether anybody is buried alive."""

from __future__ import annotations

from dataclasses import dataclass

from services.mesh.membership.states import State
from tests.sim.measure import DELAY_S, LOSS
from tests.sim.mesh import Mesh, MeshOptions
from tests.sim.network import LinkModel
from tests.sim.verifying import verified_once

WARM_UP_S = 30.0
WITHIN_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Deaths:
    """What was believed of the fallen and of the living."""

    servers: int
    known_s: tuple[float, ...]  # for each of the fallen: until the last of the others knew
    quiet_hours: float
    false_deaths: int
    false_suspicions: int


def deaths(servers: int, *, fallen: int = 5, quiet_s: float = 3600.0, seed: int = 1) -> Deaths:
    """Let servers fall one by one, then watch a mesh in which nobody falls."""
    options = MeshOptions(
        servers=servers,
        witnesses=3,
        folding=1,
        known=True,
        link=LinkModel(delay_s=DELAY_S / 2, loss=LOSS),
    )
    with verified_once():
        mesh = Mesh(seed, options)
        mesh.start()
        mesh.queue.run(WARM_UP_S)
        known_s = tuple(_fall(mesh, number) for number in range(1, fallen + 1))
        mesh.queue.run(WARM_UP_S)
        wrong = _watch(mesh, quiet_s)
    return Deaths(
        servers=servers,
        known_s=known_s,
        quiet_hours=quiet_s / 3600,
        false_deaths=wrong[State.DEAD],
        false_suspicions=wrong[State.SUSPECT],
    )


def _fall(mesh: Mesh, number: int) -> float:
    """Return how long it took until everybody knew; the server is back afterwards."""
    fallen = mesh.all[number]
    others = [server for server in mesh.all if server is not fallen]
    fallen.crash()
    fell_s = mesh.queue.now_s

    def is_known() -> bool:
        return all(
            server.members.get(fallen.name, (0.0, State.ALIVE))[1] is State.DEAD
            for server in others
        )

    assert mesh.queue.run_until(is_known, at_most_s=WITHIN_S, step_s=0.05), "never known dead"
    known_s = max(server.members[fallen.name][0] for server in others) - fell_s
    fallen.start()
    mesh.queue.run(WARM_UP_S)
    return known_s


def _watch(mesh: Mesh, seconds: float) -> dict[State, int]:
    """Return how often somebody was held to be dead or suspect though nobody fell."""
    for server in mesh.all:
        server.changes.clear()
    mesh.queue.run(seconds)
    counts = dict.fromkeys(State, 0)
    for server in mesh.all:
        for state in server.changes:
            counts[state] += 1
    return counts
