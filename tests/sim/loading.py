"""What a server finds again after it fell, and how its fold is made of it, as the service does."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from services.base.crypto.signatures import verify
from services.base.ledger.fold import Fold, HorizonError
from services.base.ledger.limits import LIMIT_KINDS
from services.base.ledger.points import settled_points
from services.base.ledger.replay import Replay
from services.base.ledger.snapshot import Snapshot, decode_snapshot, encode_snapshot
from services.base.ledger.state import State
from tests.fakes.world import APPLIERS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from services.base.crypto.signatures import SigningKey
    from services.base.ledger.roster import Charter
    from services.kernel.ids import ServerId
    from services.kernel.records import Record
    from tests.sim.founding import Founding
    from tests.sim.tape import Copy


@dataclass(slots=True)
class Disk:
    """Nothing that was not synced is ever here."""

    feeds: dict[ServerId, Copy] = field(default_factory=dict)
    changes: tuple[Record, ...] = ()  # of the roster, as the root chain brought them
    aside: list[Copy] = field(default_factory=list)
    state: bytes | None = None
    facts: tuple[bytes, ...] = ()
    newest_hello_ms: dict[str, int] = field(default_factory=dict)
    membership: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Loader:
    """Makes folds of what a server holds."""

    founding: Founding
    key: SigningKey
    own_id: ServerId
    disk: Disk
    held: dict[ServerId, Copy]
    retain_settled: int

    def load(self) -> Fold:
        """Continue from the state file, or fold from the first record."""
        if self.disk.state is not None:
            snapshot = decode_snapshot(
                io.BytesIO(self.disk.state),
                mesh_id=self.founding.mesh_id,
                key=self.key.public_key,
                verify=verify,
            )
            with contextlib.suppress(HorizonError):
                return self.build(snapshot)
        return self.build(None)

    def build(self, snapshot: Snapshot | None) -> Fold:
        charter = self.founding.charter()
        standing = (*self.disk.changes, *(snapshot.charter_records[1:] if snapshot else ()))
        for record in standing:
            if record.kind not in LIMIT_KINDS:
                charter.offer(record)
        fold = self.bare(charter, snapshot.state if snapshot else State())
        if snapshot is not None:
            fold.resume(snapshot.points, snapshot.horizon_ms)
        fold.publish_charter(one for one in standing if one.kind in LIMIT_KINDS)
        held = self.held
        replay = Replay(fold, own_id=self.own_id, verify=verify)
        replay.run(lambda: {name: held[name] for name in charter.certificates() if name in held})
        return fold

    def bare(self, charter: Charter, state: State) -> Fold:
        """Return a fold to which nothing was added: that of a server that stores and compares."""
        return Fold(
            charter=charter,
            state=state,
            appliers=APPLIERS,
            verify=verify,
            root_at=self.root_at,
            retain_settled=self.retain_settled,
        )

    def save(self, fold: Fold) -> None:
        """Write the signed state file of the settled point."""
        points, horizon_ms = settled_points(fold)
        provisional = fold.rewind()
        try:
            snapshot = Snapshot(
                state=fold.state,
                charter_records=(*fold.charter.records, *fold.limits.records),
                points=points,
                horizon_ms=horizon_ms,
            )
            self.disk.state = encode_snapshot(
                snapshot, mesh_id=self.founding.mesh_id, sign=self.key.sign
            )
        finally:
            fold.forward(provisional)

    def root_at(self, name: ServerId, size: int) -> bytes | None:
        copy = self.held.get(name)
        return copy.root_at(size) if copy is not None else None
