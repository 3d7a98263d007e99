"""Who holds the root: adds and removes servers, names witnesses, rotates it; one change at a time.

A change is handed to one server after another until one has answered for it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any

from services.authority.rootkeys import rotating
from services.base.ledger.rootchain import ROTATE_KIND
from services.kernel.ids import b64u_encode
from tests.sim.founding import LIFETIME_MS, START_MS, certificate_of, key_of, signed_record

if TYPE_CHECKING:
    from services.base.ledger.writer import Receipt
    from services.kernel.errors import SeipdError
    from services.kernel.records import Record
    from tests.sim.mesh import Mesh
    from tests.sim.server import SimServer

TRY_AGAIN_S = 2.0
FACTS_AT_FIRST = 3


class Task(Enum):
    """What the root holder may be asked to do; the last two follow of a rotation by themselves."""

    ADD = "add"
    REMOVE = "remove"
    ROTATE = "rotate"
    SIGN_ANEW = "sign anew"
    CLOSE = "close"


@dataclass(frozen=True, slots=True, kw_only=True)
class RosterStep:
    """One wish of the root holder; ``who`` is added or removed, ``overlap_s`` is of a rotation."""

    at_s: float
    task: Task = Task.ADD
    who: int = -1
    overlap_s: float = 0.0


class RootHolder:
    """See the module."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self._rng = mesh.random("root holder")
        self._charter = mesh.founding.charter()
        self._changes: list[Record] = []
        self._waiting: list[RosterStep] = []
        self._due_count = 0
        self._pending: Record | None = None
        self._gone: set[int] = set()
        self.receipts: list[Receipt] = []

    @property
    def is_done(self) -> bool:
        return self._pending is None and not self._waiting and not self._due_count

    def begin(self, steps: tuple[RosterStep, ...]) -> None:
        self._gone = {step.who for step in steps if step.task is Task.REMOVE}
        for step in steps:
            self._later(step.at_s, step)

    def _later(self, delay_s: float, step: RosterStep) -> None:
        self._due_count += 1
        self._mesh.queue.later(delay_s, self._wish, step)

    def _wish(self, step: RosterStep) -> None:
        self._due_count -= 1
        self._waiting.append(step)
        self._next()

    def _next(self) -> None:
        if self._pending is not None or not self._waiting:
            return
        step = self._waiting.pop(0)
        record = self._link(step) if step.task is Task.ROTATE else self._change(step)
        if record is None:
            self._next()
            return
        self._charter.offer(record)
        self._changes.append(record)
        self._pending = record
        self._hand_in(step, record)

    def _change(self, step: RosterStep) -> Record | None:
        body: dict[str, Any] | None
        match step.task:
            case Task.ADD:
                body = self._addition(step.who)
            case Task.REMOVE:
                body = self._removal(step.who)
            case Task.SIGN_ANEW:
                left = rotating.to_sign_anew(self._charter)
                body = rotating.anew(self._charter, left) if left else None
            case _:
                before = rotating.window_before(self._charter)
                body = rotating.closing(self._charter, before.generation) if before else None
        return self._signed("roster.change", self._numbered(body)) if body is not None else None

    def _link(self, step: RosterStep) -> Record | None:
        """Return the link to the next key; the window of the key before is closed by then."""
        if rotating.window_before(self._charter) is not None:
            self._later(TRY_AGAIN_S, step)
            return None
        generation = self._charter.chain.newest.generation + 1
        key = key_of(f"root {generation}")
        now_ms = START_MS + int(self._mesh.queue.now_s * 1000)
        link = rotating.next_link(
            self._charter,
            key.public_key,
            now_ms=now_ms,
            closes_ms=now_ms + int(step.overlap_s * 1000),
            interval_ms=LIFETIME_MS,
        )
        claim = link.claim(self._mesh.founding.mesh_id)
        endorsement = self._mesh.roots[-1].sign(claim)
        self._mesh.roots.append(key)
        return self._signed(ROTATE_KIND, replace(link, endorsement=endorsement).value())

    def _signed(self, kind: str, body: dict[str, Any]) -> Record:
        record_id = f"{self._rng.getrandbits(128):032x}"
        return signed_record(
            self._mesh.founding.mesh_id, self._mesh.roots[-1], kind, body, record_id
        )

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
        if step.task is Task.ADD:
            self._let_in(self._mesh.all[step.who])
        if step.task is Task.ROTATE:
            self._later(step.overlap_s, RosterStep(at_s=0.0, task=Task.CLOSE))
        if step.task in {Task.ROTATE, Task.SIGN_ANEW} and rotating.to_sign_anew(self._charter):
            self._waiting.insert(0, RosterStep(at_s=0.0, task=Task.SIGN_ANEW))
        self._next()

    def _let_in(self, server: SimServer) -> None:
        """Start a server with what joining gives it: the root chain and a few addresses."""
        server.disk.changes = tuple(self._changes)
        facts = self._mesh.founding.facts[: self._mesh.options.servers]
        server.disk.facts = tuple(self._rng.sample(facts, min(FACTS_AT_FIRST, len(facts))))
        server.joined = True
        server.start()
