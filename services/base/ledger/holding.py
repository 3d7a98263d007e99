"""What a ledger holds: the feeds on the disk, and the fold that is made of them."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from services.base.crypto.signatures import SigningKey, verify
from services.base.ledger.fold import Fold, HorizonError
from services.base.ledger.limits import LIMIT_KINDS
from services.base.ledger.replay import Replay, check_entries
from services.base.ledger.roster import Charter
from services.base.ledger.shelf import Shelf
from services.base.ledger.snapshot import Snapshot, decode_snapshot
from services.base.ledger.standing import Checked
from services.base.ledger.state import State
from services.base.storage.files import open_private
from services.kernel.ids import server_id_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from services.base.ledger.limits import Prefix
    from services.kernel.ids import ServerId
    from services.kernel.records import Record
    from services.kernel.views import Appliers

logger = logging.getLogger(__name__)


class Holding:
    """The feeds, the fold over them, and a lock for each feed that others write."""

    fold: Fold

    def __init__(
        self,
        *,
        folder: Path,
        key: SigningKey,
        charter_records: Sequence[Record],
        appliers: Appliers,
    ) -> None:
        self.folder = folder
        self.key = key
        self.server_id = server_id_of(key.public_key)
        self.charter_records = tuple(charter_records)
        self._appliers = appliers
        self._locks: dict[ServerId, asyncio.Lock] = {}
        self.shelf = Shelf(folder, server_id=self.server_id, key=key, limit_of=self.limit_of)

    def load(self) -> None:
        """Read the state file, and fold what came after it; blocks.

        Raises:
            CorruptError: a log, a checkpoint or the state file is damaged; names the file.
        """
        snapshot = self._read_snapshot()
        try:
            self.fold = self.folded(snapshot)
        except HorizonError:
            logger.info("the state file reaches too far: folding from the first record")
            self.fold = self.folded(None)

    def folded(self, snapshot: Snapshot | None) -> Fold:
        """Fold every log behind a state file, or from its first record; blocks.

        Raises:
            CorruptError: a log or checkpoint is damaged; names the file.
            HorizonError: something belongs before the state file.
        """
        charter = Charter(self.charter_records[0])
        standing = (
            *self.charter_records[1:],
            *(snapshot.charter_records[1:] if snapshot else ()),
        )
        for record in standing:
            if record.kind not in LIMIT_KINDS:
                charter.offer(record)
        fold = Fold(
            charter=charter,
            state=snapshot.state if snapshot else State(),
            appliers=self._appliers,
            verify=verify,
            root_at=self.root_at,
        )
        if snapshot is not None:
            fold.resume(snapshot.points, snapshot.horizon_ms)
        fold.publish_charter(one for one in standing if one.kind in LIMIT_KINDS)
        replay = Replay(fold, own_id=self.server_id, verify=verify)
        replay.run(lambda: self.shelf.open_named(charter))
        return fold

    def limit_of(self, server_id: ServerId) -> Prefix | None:
        """Return what still counts of a feed; None where all of it does."""
        return self.fold.limit_of(server_id)

    def root_at(self, server_id: ServerId, size: int) -> bytes | None:
        """Return the root that a feed had at a size; None where that is not held."""
        log = self.shelf.get(server_id)
        return log.root_at(size) if log is not None else None

    def check_after(self, name: ServerId, have: int, entries: Sequence[bytes]) -> list[Checked]:
        """Check entries; those that the state begins after need no more than their checkpoint."""
        passed = min(max(self.fold.feed(name).size - have, 0), len(entries))
        return [Checked(None)] * passed + self.check(entries[passed:])

    def check(self, entries: Sequence[bytes]) -> list[Checked]:
        """Decode entries and check their signatures; blocks."""
        return check_entries(entries, mesh_id=self.fold.mesh_id, verify=verify)

    def lock(self, server_id: ServerId) -> asyncio.Lock:
        """Return the lock of a feed."""
        return self._locks.setdefault(server_id, asyncio.Lock())

    def _read_snapshot(self) -> Snapshot | None:
        path = self.folder / "state"
        if not path.exists():
            return None
        genesis = Charter(self.charter_records[0]).genesis
        with open_private(path) as file:
            return decode_snapshot(
                file, mesh_id=genesis.mesh_id, key=self.key.public_key, verify=verify
            )
