"""Recovery services of a little mesh in one process: each has its feed, all have one state."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from seipd.signerd.recovery import RecoveryDesk, refused
from services.authority.recovery.recovering import RootRecovery
from services.authority.recovery.service import RecoveryService
from services.base.crypto.signatures import generate_signing_key
from services.base.ledger.author import Author
from services.base.ledger.changes import CHANGE_KINDS
from services.base.signing.dealing import RecoveryError
from services.kernel.errors import RejectedError
from services.kernel.signing import PublicKeyInfo
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
        try:
            return self.desk.finish(request)
        except RecoveryError as error:
            return refused(error)

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
            if record.kind in CHANGE_KINDS:
                self.world.charter.offer(record)
            server.hlc = max(one.hlc for one in self.world.servers)
            self.world.write(server, record)
        self.fold = self.world.updated(self.fold)
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
        for server in self._mesh.world.servers:
            server.hlc = max(one.hlc for one in self._mesh.world.servers)
            self._mesh.world.name_roster(server)
        self._mesh.take(self.server, [])


class WorldRoot:
    """The root of a little mesh; ``holds_root`` where its signer is."""

    def __init__(self, mesh: SharedMesh, *, holds_root: bool) -> None:
        self._mesh, self._world = mesh, mesh.world
        self.holds_root = holds_root
        self._turn = asyncio.Lock()

    def turn(self) -> asyncio.Lock:
        return self._turn

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


class NewSigner:
    """The signer of a server that shall have the root: a fresh key, and the recovery calls."""

    address: str | None = None

    def __init__(self, folder: Path) -> None:
        self.key = generate_signing_key()
        self.calls = DeskInProcess(folder)
        self.root_here = False
        self.adopted = False

    async def holds_root(self) -> bool:
        return self.root_here

    async def ready(self, key_id: str) -> None:
        self.key_id = key_id

    async def signer(self) -> Any:
        return self

    async def desk(self) -> DeskInProcess:
        return self.calls

    async def adopt(self) -> None:
        self.adopted = True

    async def sign(self, canonical_bytes: bytes, *, scope: str, key_id: str) -> bytes:
        assert (scope, key_id) == ("platform", self.key_id)
        return self.key.sign(canonical_bytes)

    async def public_key(self, *, scope: str, key_id: str) -> PublicKeyInfo:
        return PublicKeyInfo(public_key=self.key.public_key, key_id=key_id, state="active")


def recovery_of(mesh: SharedMesh, at: int, host: NewSigner) -> RootRecovery:
    ledger = MeshLedger(mesh, at)
    return RootRecovery(
        ledger=ledger,
        author=Author(key=ledger.server.key, mesh_id=ledger.mesh_id, clock=StillClock()),
        key=ledger.server.key,
        host=host,
        clock=StillClock(),
    )
