"""Epochs: a feed that was restored goes on where the root says, and nobody takes that for a lie.

The entries and their indexes simply go on; what changes is the origin of the checkpoints. What a
server still holds of the epoch before, beyond its end, is another branch and is put aside.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from services.base.ledger.changes import CHANGE_KINDS, change_from_record
from services.base.ledger.checkpoint import parse_checkpoint
from services.base.ledger.note import parse_note
from services.base.ledger.replay import parse_entries
from services.base.ledger.standing import Checked
from services.kernel.errors import StorageError, WireError
from services.kernel.hlc import Hlc
from services.kernel.records import Entry

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from services.base.ledger.feedrules import Verify
    from services.base.ledger.holding import Holding
    from services.base.ledger.rootchain import RootChain
    from services.base.ledger.roster import Charter
    from services.kernel.ids import MeshId, ServerId
    from services.kernel.records import Record

logger = logging.getLogger(__name__)

MARKS: Final = (b'"kind":"roster.change"', b'"kind":"root.rotate"')


class Epochs:
    """Has every feed that is held go by the epoch of the newest roster."""

    def __init__(self, *, holding: Holding, remember: Callable[[Sequence[Record]], None]) -> None:
        self._holding = holding
        self._remember = remember
        self._number = -1
        self._chain: RootChain | None = None

    def keep_roster(self) -> None:
        """Make the roster durable that stands in no feed here, so that nothing can lose it.

        Raises:
            StorageError: the disk refused.
        """
        records = tuple(self._holding.fold.charter.records)
        if records != self._holding.charter_records:
            self._remember(records)
            self._holding.charter_records = records

    def follow(self) -> bool:
        """Go by the newest roster; say whether a feed has another epoch now.

        The roster is made durable first: without it a feed that goes on could not be opened again.
        A new root key is, too: whoever puts the feeds back can't put it back with them.

        Raises:
            StorageError: the disk refused.
        """
        holding, charter = self._holding, self._holding.fold.charter
        self._keep_root(charter)
        if charter.number == self._number:
            return False
        renewed = []
        for log in holding.shelf:
            certificate = charter.last_certificate(log.server_id)
            if certificate is not None and certificate.epoch > log.epoch:
                renewed.append((log, certificate))
        if not renewed:
            self._number = charter.number
            return False
        self.keep_roster()
        for log, certificate in renewed:
            logger.warning("the feed of %s goes on in epoch %d", log.server_id, certificate.epoch)
            log.begin_epoch(holding.fold.mesh_id, certificate)
        self._number = charter.number
        return True

    def _keep_root(self, charter: Charter) -> None:
        if charter.chain is self._chain:
            return
        try:
            self.keep_roster()
        except StorageError as error:
            logger.warning("the root key chain is not saved, it is tried again: %s", error)
        else:
            self._chain = charter.chain


def roster_changes(records: Sequence[Record], *, mesh_id: MeshId, verify: Verify) -> list[Checked]:
    """Return the roster changes among records that came without a feed, if well signed."""
    return [
        Checked(Entry(hlc=Hlc(0), record=record))
        for record in records
        if record.kind in CHANGE_KINDS
        and verify(record.actor, record.signed_bytes(mesh_id), record.actor_sig)
    ]


def newest_end(charter: Charter, name: ServerId) -> Record | None:
    """Return the newest roster change by which a server's feed went on in another epoch."""
    for record in reversed(charter.records[1:]):
        if any(one.server_id == name for one in change_from_record(record).ended):
            return record
    return None


def parse_changes(entries: Sequence[bytes]) -> list[Record]:
    """Return the roster changes among entries; nothing of them is checked."""
    marked = [data for data in entries if any(mark in data for mark in MARKS)]
    return [one.entry.record for one in parse_entries(marked) if one.entry is not None]


def refuse_beyond_end(charter: Charter, name: ServerId, checkpoint: bytes) -> None:
    """Refuse what was signed in an epoch after its end.

    Raises:
        NoteError: the checkpoint is malformed.
        WireError: another copy of that server signed it.
    """
    ends = charter.ends(name)
    if not ends:
        return
    signed = parse_checkpoint(parse_note(checkpoint).text)
    for epoch, end in ends.items():
        if signed.origin.endswith(f"/{epoch}") and signed.size > end.size:
            raise WireError(f"epoch {epoch} of that feed ended with {end.size} entries")
