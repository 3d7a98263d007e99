"""Who holds the root key: adds servers, removes some, names other witnesses, one change at a time.

A change is handed to one server after another until one has answered for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from services.kernel.ids import b64u_encode
from tests.sim.founding import certificate_of, signed_record

if TYPE_CHECKING:
    from services.base.ledger.writer import Receipt
    from services.kernel.errors import SeipdError
    from services.kernel.records import Record
    from tests.sim.mesh import Mesh
    from tests.sim.server import SimServer

TRY_AGAIN_S = 2.0
FACTS_AT_FIRST = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class RosterStep:
    """One wish of the root holder; ``who`` is added, or removed where ``removes`` says so."""

    at_s: float
    who: int
    removes: bool = False


class RootHolder:
    """See the module."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self._rng = mesh.random("root holder")
        self._charter = mesh.founding.charter()
        self._changes: list[Record] = []
        self._waiting: list[RosterStep] = []
        self._pending: Record | None = None
        self._gone: set[int] = set()
        self.receipts: list[Receipt] = []

    @property
    def is_done(self) -> bool:
        return self._pending is None and not self._waiting

    def begin(self, steps: tuple[RosterStep, ...]) -> None:
        self._gone = {step.who for step in steps if step.removes}
        for step in steps:
            self._mesh.queue.later(step.at_s, self._wish, step)

    def _wish(self, step: RosterStep) -> None:
        self._waiting.append(step)
        self._next()

    def _next(self) -> None:
        if self._pending is not None or not self._waiting:
            return
        step = self._waiting.pop(0)
        body = self._removal(step.who) if step.removes else self._addition(step.who)
        if body is None:
            self._next()
            return
        founding = self._mesh.founding
        record_id = f"{self._rng.getrandbits(128):032x}"
        record = signed_record(
            founding.mesh_id, founding.root, "roster.change", self._numbered(body), record_id
        )
        self._charter.offer(record)
        self._changes.append(record)
        self._pending = record
        self._hand_in(step, record)

    def _numbered(self, body: dict[str, Any]) -> dict[str, Any]:
        return {
            "number": self._charter.number + 1,
            "prev": self._charter.head,
            "servers": [],
            "removed": [],
            "witnesses": list(self._charter.witnesses_at(self._charter.number)),
            **body,
        }

    def _addition(self, who: int) -> dict[str, Any] | None:
        founding = self._mesh.founding
        if self._charter.was_server(founding.names[who]):
            return None
        certificate = certificate_of(
            founding.keys[who], founding.backbones[who], (founding.slices[who],)
        )
        return {"servers": [certificate.value()]}

    def _removal(self, who: int) -> dict[str, Any] | None:
        """Return the removal of a server: of its feed counts what some other server holds."""
        name = self._mesh.founding.names[who]
        others = [
            one
            for one in self._mesh.joined()
            if one.is_up and one.honest and one.number not in self._gone and name in one.ledger.held
        ]
        left = [one for one in self._charter.servers() if one != name]
        if self._charter.server(name) is None or not others or len(left) < 3:
            return None
        copy = self._rng.choice(others).ledger.held[name]
        witnesses = list(self._charter.witnesses_at(self._charter.number))
        if name in witnesses:
            spare = [one for one in sorted(left) if one not in witnesses]
            witnesses.remove(name)
            witnesses = [*witnesses, spare[0]] if spare else witnesses[:-1]
        self._mesh.all[who].honest = False
        removal = {"server": name, "size": copy.size, "root": b64u_encode(copy.root)}
        return {"removed": [removal], "witnesses": witnesses}

    def _hand_in(self, step: RosterStep, record: Record) -> None:
        if self._pending is not record:
            return

        def answer(outcome: list[Receipt] | SeipdError) -> None:
            if isinstance(outcome, list) and self._pending is record:
                self.receipts.extend(outcome)
                self._done(step)

        servers = [one for one in self._mesh.honest() if one.is_up and one.number not in self._gone]
        if servers:
            self._rng.choice(servers).submit([record], answer)
        self._mesh.queue.later(TRY_AGAIN_S, self._hand_in, step, record)

    def _done(self, step: RosterStep) -> None:
        self._pending = None
        if not step.removes:
            self._let_in(self._mesh.all[step.who])
        self._next()

    def _let_in(self, server: SimServer) -> None:
        """Start a server with what joining gives it: the root chain and a few addresses."""
        server.disk.changes = tuple(self._changes)
        facts = self._mesh.founding.facts[: self._mesh.options.servers]
        server.disk.facts = tuple(self._rng.sample(facts, min(FACTS_AT_FIRST, len(facts))))
        server.joined = True
        server.start()
