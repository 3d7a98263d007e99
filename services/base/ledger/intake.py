"""Taking in what others hold: entries of their feeds and of our own, checkpoints, cosignatures."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from services.base.crypto.signatures import verify
from services.base.ledger.epochs import parse_changes, refuse_beyond_end, roster_changes
from services.base.ledger.equivocation import find
from services.base.ledger.forks import MAX_CHECKPOINT_BYTES, accusation
from services.kernel.errors import ConflictError, NotFoundError, UnavailableError, WireError
from services.kernel.hlc import hlc_ms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.base.ledger.attest import Attestor
    from services.base.ledger.author import Author
    from services.base.ledger.copies import FeedLog
    from services.base.ledger.cosigning import Cosigner
    from services.base.ledger.holding import Holding
    from services.base.ledger.ownfeed import OwnFeed
    from services.base.ledger.standing import Checked
    from services.base.ledger.upkeep import Upkeep
    from services.base.ledger.writer import Writer
    from services.kernel.certificates import ServerCertificate
    from services.kernel.clock import Clock
    from services.kernel.ids import ServerId
    from services.kernel.records import Record

MAX_AHEAD_MS: Final = 30_000


class Intake:
    """Stores what its author signed, then folds it; compares what does not fit."""

    def __init__(
        self,
        *,
        holding: Holding,
        writer: Writer,
        own_feed: OwnFeed,
        author: Author,
        attestor: Attestor,
        cosigner: Cosigner,
        upkeep: Upkeep,
        clock: Clock,
    ) -> None:
        self._holding = holding
        self._writer = writer
        self._own_feed = own_feed
        self._author = author
        self._attestor = attestor
        self._cosigner = cosigner
        self._upkeep = upkeep
        self._clock = clock

    async def ingest(
        self,
        name: ServerId,
        epoch: int,
        start: int,
        entries: list[bytes],
        checkpoint: bytes,
        proof: Sequence[bytes] | None,
    ) -> int:
        """See ``LedgerService.ingest``."""
        fold = self._holding.fold
        certificate = fold.charter.last_certificate(name)
        if certificate is not None and certificate.epoch < epoch:
            # The root's word that the feed goes on may stand where it goes on.
            self.learn_roster(parse_changes(entries))
            certificate = fold.charter.last_certificate(name)
        if certificate is None or certificate.epoch != epoch:
            raise NotFoundError(f"{name} has no feed of epoch {epoch} in the roster")
        if len(checkpoint) > MAX_CHECKPOINT_BYTES:
            raise WireError("a checkpoint of a feed has no extensions")
        refuse_beyond_end(fold.charter, name, checkpoint)
        if name == self._holding.server_id:
            return await self._take_back(start, entries, checkpoint, proof)
        async with self._holding.lock(name):
            log = self._holding.shelf.get(name)
            if log is None:
                log = await asyncio.to_thread(self._holding.shelf.open, certificate, fold.mesh_id)
            fresh = _fresh(log, start, entries)
            if not fresh:
                return log.size
            have = log.size
            checked = await self._checked(name, have, fresh)
            if proof is None:
                await asyncio.to_thread(log.extend, fresh, checkpoint)
            else:
                await asyncio.to_thread(log.extend_verified, fresh, checkpoint, proof)
            self._upkeep.fold_in(name, have, checked)
            self._cosigner.cosign(log)
            return log.size

    def learn_roster(self, records: Sequence[Record]) -> None:
        """See ``LedgerService.learn_roster``."""
        mesh_id = self._holding.fold.mesh_id
        self._upkeep.learn_roster(roster_changes(records, mesh_id=mesh_id, verify=verify))

    async def contradict(self, name: ServerId, epoch: int, checkpoint: bytes) -> bool:
        """See ``LedgerService.contradict``."""
        fold = self._holding.fold
        log, certificate = (
            self._holding.shelf.get(name, epoch),
            fold.charter.last_certificate(name),
        )
        if log is None or certificate is None or fold.limits.is_untrusted(name):
            return fold.limits.is_untrusted(name)
        if name == self._holding.server_id:
            return await self._compare_own(log, certificate, checkpoint)
        records = await asyncio.to_thread(
            accusation, fold, self._author, log, certificate, checkpoint
        )
        if records:
            await self._writer.submit(records)
        return bool(records)

    async def cosignature(self, name: ServerId, epoch: int, size: int, line: bytes) -> None:
        """See ``LedgerService.cosignature``."""
        own = self._holding.shelf.own
        if (name, epoch) == (own.server_id, own.epoch):
            self._attestor.add(own, size, line)
            if self._writer.may_append:
                await self._attestor.settle(own)

    async def _take_back(
        self, start: int, entries: list[bytes], checkpoint: bytes, proof: Sequence[bytes] | None
    ) -> int:
        """Store entries of this server's own feed that it has lost."""
        own_id = self._holding.server_id
        async with self._holding.lock(own_id), self._writer.quiet():
            own = self._holding.shelf.own
            self._own_feed.claimed(own, checkpoint)
            have, fresh = own.size, _fresh(own, start, entries)
            if not fresh:
                return have
            checked = await self._checked(own_id, have, fresh)
            await asyncio.to_thread(self._own_feed.take, own, fresh, checkpoint, proof)
            self._upkeep.fold_in(own_id, have, checked)
            self._own_feed.taken(own, checked)
        self._upkeep.say_what_waited()
        return own.size

    async def _compare_own(
        self, own: FeedLog, certificate: ServerCertificate, checkpoint: bytes
    ) -> bool:
        """Stop where a checkpoint of our own is not of the branch that is held; accuse nobody."""
        mesh_id = self._holding.fold.mesh_id
        proof = await asyncio.to_thread(
            find, mesh_id=mesh_id, certificate=certificate, held=own, foreign=checkpoint
        )
        if proof is not None:
            self._own_feed.contradicted()
        return proof is not None

    async def _checked(self, name: ServerId, have: int, fresh: list[bytes]) -> list[Checked]:
        checked = await asyncio.to_thread(self._holding.check_after, name, have, fresh)
        limit = self._clock.now_ms() + MAX_AHEAD_MS
        if any(one.entry is not None and hlc_ms(one.entry.hlc) > limit for one in checked):
            raise UnavailableError("the feed's clock is ahead of ours", code="clock_ahead")
        return checked


def _fresh(log: FeedLog, start: int, entries: list[bytes]) -> list[bytes]:
    """Return those of the entries that are not held yet."""
    if start > log.size:
        raise ConflictError(f"held are {log.size} entries, offered from {start}")
    return entries[log.size - start :]
