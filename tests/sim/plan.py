"""What goes wrong, when and to whom: drawn from a seed, or from Hypothesis, and then played."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.sim.liars import Liar, begin_lying
from tests.sim.network import LinkModel
from tests.sim.root_holder import RootHolder, RosterStep, Task

if TYPE_CHECKING:
    from tests.sim.mesh import Mesh

CHAOS_S = 40.0
MAX_JOINING = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Crash:
    """A server falls and comes back."""

    at_s: float
    who: int
    down_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """Some servers lose the others for a while, maybe in one direction only."""

    at_s: float
    these: frozenset[int]
    for_s: float
    one_way: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A server's clock is set."""

    at_s: float
    who: int
    by_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Save:
    """A server writes its state file, from which its next start goes on."""

    at_s: float
    who: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that happens to a mesh, the clients' wishes aside."""

    link: LinkModel = field(default_factory=LinkModel)
    skews_ms: tuple[int, ...] = ()
    crashes: tuple[Crash, ...] = ()
    cuts: tuple[Cut, ...] = ()
    steps: tuple[Step, ...] = ()
    saves: tuple[Save, ...] = ()
    retain_settled: int = 4096
    wishes_s: float = 4.0
    backbone: bool = False
    roster: tuple[RosterStep, ...] = ()
    liars: tuple[Liar, ...] = ()


def plan_of(seed: int, server_count: int, *, liars: bool = False) -> Plan:
    """Return the mixed faults of a seed."""
    rng = random.Random(f"plan {seed}")  # noqa: S311 (repeatable)

    def moment() -> float:
        return rng.random() * CHAOS_S

    def anyone() -> int:
        return rng.randrange(server_count)

    far_off = rng.random() < 0.3
    skews = [int(rng.gauss(0, 1500)) for _ in range(server_count)]
    if far_off:
        skews[anyone()] = rng.choice((-1, 1)) * rng.randrange(15_000, 45_000)
    return Plan(
        link=LinkModel(
            delay_s=rng.choice((0.005, 0.03, 0.1)),
            jitter_s=rng.choice((0.0, 0.02, 0.15)),
            loss=rng.choice((0.0, 0.01, 0.05, 0.2)),
            double=rng.choice((0.0, 0.02, 0.1)),
            late=rng.choice((0.0, 0.02)),
        ),
        skews_ms=tuple(skews),
        crashes=tuple(
            Crash(at_s=moment(), who=anyone(), down_s=0.2 + rng.random() * 15)
            for _ in range(rng.randrange(7))
        ),
        cuts=tuple(
            Cut(
                at_s=moment(),
                these=frozenset(
                    rng.sample(range(server_count), rng.randint(1, max(1, server_count // 2)))
                ),
                for_s=2 + rng.random() * 25,
                one_way=rng.random() < 0.3,
            )
            for _ in range(rng.randrange(4))
        ),
        steps=tuple(
            Step(at_s=moment(), who=anyone(), by_ms=rng.randrange(-20_000, 20_000))
            for _ in range(rng.choice((0, 0, 1, 2)))
        ),
        saves=tuple(Save(at_s=moment(), who=anyone()) for _ in range(rng.choice((0, 5, 20)))),
        retain_settled=rng.choice((16, 64, 4096, 4096)),
        wishes_s=rng.choice((2.0, 6.0, 12.0)),
        backbone=rng.random() < 0.3,
        roster=(*roster_of(rng, server_count), *rotations_of(seed)),
        liars=tuple(
            Liar(at_s=5 + moment() / 2, who=who, kind=rng.choice(("fork", "junk", "backdate")))
            for who in rng.sample(range(1, server_count), rng.choice((1, 1, 2)))
        )
        if liars
        else (),
    )


def roster_of(rng: random.Random, server_count: int) -> tuple[RosterStep, ...]:
    """Return which servers join and which are removed, if any."""
    joining = rng.choice((0, 0, 1, MAX_JOINING))
    steps = [
        RosterStep(at_s=rng.random() * CHAOS_S, who=server_count + number)
        for number in range(joining)
    ]
    if rng.random() < 0.3:
        who = rng.randrange(1, server_count)
        steps.append(RosterStep(at_s=rng.random() * CHAOS_S, who=who, task=Task.REMOVE))
    return tuple(steps)


def rotations_of(seed: int) -> tuple[RosterStep, ...]:
    """Return when the root is rotated, if it is."""
    rng = random.Random(f"rotations {seed}")  # noqa: S311 (repeatable)
    return tuple(
        RosterStep(
            at_s=5 + rng.random() * (CHAOS_S - 5),
            task=Task.ROTATE,
            overlap_s=rng.choice((2.0, 10.0, 30.0)),
        )
        for _ in range(rng.choice((0, 1, 1, 2)))
    )


class Faults:
    """Plays a plan on a mesh, and heals it."""

    def __init__(self, mesh: Mesh, plan: Plan) -> None:
        self._mesh = mesh
        self._plan = plan
        self._cuts: list[tuple[Cut, tuple[str, ...], tuple[str, ...]]] = []
        self._healed = False
        self.root_holder = RootHolder(mesh)

    def begin(self) -> None:
        """Have everything happen at its time."""
        queue, plan = self._mesh.queue, self._plan
        for skew_ms, server in zip(plan.skews_ms, self._mesh.all, strict=False):
            server.clock.skew_ms = skew_ms
        for crash in plan.crashes:
            queue.later(crash.at_s, self._crash, crash)
        for cut in plan.cuts:
            queue.later(cut.at_s, self._cut, cut)
        for step in plan.steps:
            queue.later(step.at_s, self._step, step)
        for save in plan.saves:
            queue.later(save.at_s, self._save, save)
        self.root_holder.begin(plan.roster)
        for liar in plan.liars:
            queue.later(liar.at_s, begin_lying, self._mesh, liar)
        if plan.backbone:
            self._mesh.network.dark.add("172.16.")
            queue.later(CHAOS_S / 2, self._mesh.network.dark.clear)

    def heal(self) -> None:
        """Mend the network and start whoever is down; the links stay as bad as they were."""
        self._healed = True
        self._cuts.clear()
        self._mesh.network.heal()
        for server in self._mesh.joined():
            if not server.is_up:
                server.start()

    def _crash(self, crash: Crash) -> None:
        server = self._mesh.all[crash.who]
        if server.is_up:
            server.crash()
            self._mesh.queue.later(crash.down_s, self._back, crash.who)

    def _back(self, who: int) -> None:
        server = self._mesh.all[who]
        if not server.is_up:
            server.start()

    def _cut(self, cut: Cut) -> None:
        names = self._mesh.founding.names
        these = tuple(names[one] for one in sorted(cut.these))
        those = tuple(name for name in names if name not in these)
        self._cuts.append((cut, these, those))
        self._draw()
        self._mesh.queue.later(cut.for_s, self._mend, cut)

    def _mend(self, cut: Cut) -> None:
        if not self._healed:
            self._cuts = [one for one in self._cuts if one[0] is not cut]
            self._draw()

    def _draw(self) -> None:
        self._mesh.network.heal()
        for cut, these, those in self._cuts:
            self._mesh.network.cut(these, those, one_way=cut.one_way)

    def _step(self, step: Step) -> None:
        self._mesh.all[step.who].clock.skew_ms += step.by_ms

    def _save(self, save: Save) -> None:
        server = self._mesh.all[save.who]
        if server.is_up:
            server.save_state()
