"""Recovery services of a little mesh in one process: each has its feed, all have one state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from seipd.signerd.recovery import RecoveryDesk
from services.authority.recovery.service import RecoveryService
from services.base.ledger.author import Author
from services.kernel.errors import RejectedError
from tests.fakes.world import START_MS, World

if TYPE_CHECKING:
    from pathlib import Path

    from services.base.signing import recovery_wire as wire


class StillClock:
    def now_ms(self) -> int:
        return START_MS + 1000

    def monotonic_s(self) -> float:
        return 1.0


class DeskInProcess:
    """A signer's recovery calls without a socket."""

    def __init__(self, folder: Path) -> None:
        self.desk = RecoveryDesk(folder)

    async def deal(self, request: wire.DealRequest) -> wire.DealReply:
        return self.desk.deal(request)

    async def write(self, request: wire.WriteRequest) -> wire.WriteReply:
        return self.desk.write(request)

    async def begin(self, request: wire.BeginRequest) -> wire.BeginReply:
        return self.desk.begin(request)

    async def finish(self, request: wire.FinishRequest) -> wire.EndorseReply:
        return self.desk.finish(request)

    async def endorse(self, request: wire.EndorseRequest) -> wire.EndorseReply:
        return self.desk.endorse(request)


class SharedMesh:
    """One world, whose state all ledgers see at once."""

    def __init__(self, count: int) -> None:
        self.world = World(count)
        self.fold = self.world.folded()
        self.subscribers: list[Any] = []
        self.silent: set[str] = set()

    def take(self, server: Any, records: Any) -> None:
        for record in records:
            server.hlc = max(one.hlc for one in self.world.servers)
            self.world.write(server, record)
        self.fold = self.world.folded()
        refused = [one for one in self.fold.items_of([r.id for r in records]) if one.refusal]
        for tell in self.subscribers:
            tell([])
        if refused:
            raise RejectedError("refused", code=refused[0].refusal)


class MeshLedger:
    """One server's view of a shared mesh."""

    def __init__(self, mesh: SharedMesh, at: int) -> None:
        self._mesh, self.server = mesh, mesh.world.servers[at]
        self.server_id, self.mesh_id = self.server.id, mesh.world.mesh_id

    @property
    def state(self) -> Any:
        return self._mesh.fold.state

    @property
    def charter(self) -> Any:
        return self._mesh.world.charter

    def subscribe(self, _: Any, subscriber: Any) -> None:
        self._mesh.subscribers.append(subscriber)

    async def submit(self, records: Any) -> None:
        self._mesh.take(self.server, records)

    async def name_roster(self) -> None:
        """Nothing to name here."""


class WorldRoot:
    """The root of a little mesh; ``holds_root`` where its signer is."""

    def __init__(self, mesh: SharedMesh, *, holds_root: bool) -> None:
        self._world = mesh.world
        self.holds_root = holds_root

    async def sign_record(self, kind: str, body: Any) -> Any:
        return self._world.signed(self._world.root, kind, body)


def service_of(mesh: SharedMesh, at: int, folder: Path, *, holds_root: bool) -> RecoveryService:
    ledger = MeshLedger(mesh, at)
    return RecoveryService(
        ledger=ledger,
        author=Author(key=ledger.server.key, mesh_id=ledger.mesh_id, clock=StillClock()),
        key=ledger.server.key,
        root=WorldRoot(mesh, holds_root=holds_root),
        signer=DeskInProcess(folder),
        settle_s=0.0,
    )
