"""The whole simulated mesh: servers, network and time from one seed."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.sim.authoring import Reader
from tests.sim.beginnings import first_feeds
from tests.sim.events import EventQueue
from tests.sim.founding import found
from tests.sim.network import LinkModel, Network
from tests.sim.server import SimServer

if TYPE_CHECKING:
    from services.base.ledger.writer import Receipt
    from services.kernel.errors import SeipdError


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshOptions:
    """What a simulation is made of, faults aside."""

    servers: int = 20
    witnesses: int = 5
    spares: int = 0  # servers that may join later
    introduced: int | None = None  # how many others a server knows at first; None for all
    known: bool = False  # all have been up before: no address is news, nor any feed's beginning
    retain_settled: int = 4096
    fsync_s: float = 0.004
    backbone: bool = False
    folding: int | None = None  # how many servers fold; the others store and compare
    link: LinkModel = field(default_factory=LinkModel)


class Mesh:
    """See the module."""

    def __init__(self, seed: int, options: MeshOptions) -> None:
        self.seed = seed
        self.options = options
        self.founding = found(options.servers, options.witnesses, options.spares)
        self.roots = [self.founding.root]
        self.queue = EventQueue()
        self.network = Network(self.queue, self.random("network"), options.link)
        self.reader = Reader(self.founding.mesh_id)
        charter = self.founding.charter() if options.folding is not None else None
        self.all = [
            SimServer(
                self,
                number,
                charter=None if options.folding is None or number < options.folding else charter,
            )
            for number in range(options.servers + options.spares)
        ]
        self.twins: list[SimServer] = []
        self.servers = {server.name: server for server in self.all}
        self._backbones = dict(zip(self.founding.names, self.founding.backbones, strict=True))

    def random(self, purpose: str) -> random.Random:
        return random.Random(f"{self.seed}/{purpose}")  # noqa: S311 (repeatable)

    def backbone_of(self, server_id: str) -> str | None:
        return self._backbones.get(server_id) if self.options.backbone else None

    def start(self) -> None:
        """Start every server; the first writes the roster and the first nodes of the tree."""
        rng = self.random("introduced")
        facts = self.founding.facts
        for server in self.joined():
            count = self.options.introduced
            known = range(len(facts)) if count is None else rng.sample(range(len(facts)), count)
            server.disk.facts = tuple(
                facts[one] for one in known if one != server.number or self.options.known
            )
            if self.options.known:
                server.disk.feeds.update(first_feeds(self.options.servers, self.options.witnesses))
            server.start()
        if self.options.known:
            return
        first = self.all[0]
        refused: list[SeipdError] = []

        def answer(outcome: list[Receipt] | SeipdError) -> None:
            if not isinstance(outcome, list):
                refused.append(outcome)

        for record in (*self.founding.changes, *self.founding.first_records):
            first.submit([record], answer)
        self.queue.run(1.0)
        assert not refused, refused

    def joined(self) -> list[SimServer]:
        """Return the servers that belong to the mesh by now."""
        return [server for server in self.all if server.joined]

    def honest(self) -> list[SimServer]:
        return [server for server in self.all if server.joined and server.honest]

    def askable(self) -> list[SimServer]:
        """Return the servers that clients find, the second selves of liars among them."""
        return [server for server in (*self.all, *self.twins) if server.is_up]

    def agrees(self) -> bool:
        """Whether every honest server is up, idle, and holds the same of what counts."""
        servers = self.honest()
        if any(not server.is_up or server.ledger.is_busy for server in servers):
            return False
        wanted = heads(servers[0])
        return all(heads(server) == wanted for server in servers[1:])

    def is_settled(self) -> bool:
        """Whether nothing that the honest have said is provisional any more."""
        names = {server.name for server in self.honest()}
        return all(
            not server.ledger.fold.feeds[name].unsettled
            for server in self.honest()
            if not server.ledger.lazy
            for name in names & server.ledger.fold.feeds.keys()
        )

    def run_until_quiet(self, *, at_most_s: float) -> bool:
        """Run until all agree and nothing is left to settle; say whether that came to be."""
        return self.queue.run_until(
            lambda: self.agrees() and self.is_settled(), at_most_s=at_most_s, step_s=0.5
        )


def heads(server: SimServer) -> dict[str, tuple[int, bytes]]:
    """Return how much counts of each feed as a server holds it, and the root."""
    held = server.ledger.feeds()
    return {name: (head.size, head.root) for name, head in held.items() if head.size}
