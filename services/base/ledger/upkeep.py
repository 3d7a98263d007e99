"""Keeping the fold and the feeds in order: what came late, wrong branches, what has to be said."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Final

from services.base.ledger.fold import HorizonError
from services.base.ledger.forks import is_beyond_end, is_other_branch, kept_of, left_behind
from services.kernel.errors import SeipdError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.base.ledger.attest import Attestor
    from services.base.ledger.author import Author
    from services.base.ledger.epochs import Epochs
    from services.base.ledger.holding import Holding
    from services.base.ledger.ownfeed import OwnFeed
    from services.base.ledger.standing import Checked
    from services.base.ledger.watching import StateWatch
    from services.base.ledger.writer import Writer
    from services.kernel.ids import ServerId
    from services.kernel.records import Record
    from services.runtime.tasks import TaskOwner

logger = logging.getLogger(__name__)

CALM_S: Final = 0.25
MAX_CALMS: Final = 240


class Upkeep:
    """Folds what arrives; folds anew where that can't be done at its place."""

    def __init__(
        self,
        *,
        holding: Holding,
        writer: Writer,
        watch: StateWatch,
        author: Author,
        attestor: Attestor,
        epochs: Epochs,
        own_feed: OwnFeed,
        tasks: TaskOwner,
    ) -> None:
        self._holding = holding
        self._writer = writer
        self._watch = watch
        self._author = author
        self._attestor = attestor
        self._epochs = epochs
        self._own_feed = own_feed
        self._tasks = tasks
        self._arrivals = 0
        self.is_behind = False

    def begin(self) -> None:
        """Look once for wrong branches and for what has to be brought forward."""
        self._epochs.follow()
        self._tasks.spawn(self.mind_limits(), name="ledger-limits")

    async def name_roster(self) -> None:
        """Say on this feed which roster its records go by, if there is a newer one."""
        if not self._writer.may_append:
            return
        charter, server_id = self._holding.fold.charter, self._holding.server_id
        feed = self._holding.fold.feeds.get(server_id)
        named = feed.roster_number if feed else 0
        if charter.number > named and charter.server(server_id) is not None:
            # Who takes no writes now names it later: each new roster and each start asks again.
            with contextlib.suppress(UnavailableError):
                await self._writer.submit([self._attestor.roster_record(charter)])

    def say_what_waited(self) -> None:
        """Say what could not be said while nothing was appended."""
        self._tasks.spawn(self._say_what_waited(), name="ledger-current")

    def fold_in(self, server_id: ServerId, start: int, checked: list[Checked]) -> None:
        """Fold entries that were stored."""
        self._arrivals += 1
        fold = self._holding.fold
        number, limit_count = fold.charter.number, fold.limit_count
        for one in checked:
            if one.entry is not None:
                self._writer.observe(one.entry.hlc)
        if self.is_behind:
            # Who is no server any more has to go at once, whatever else has to wait.
            fold.offer_changes(checked)
        else:
            self._add(server_id, start, checked)
        has_moved = fold.charter.number > number
        if has_moved:
            self.follow_epochs()
        self._watch.tell()
        if self.is_behind:
            return
        if has_moved:
            self._tasks.spawn(self.name_roster(), name="ledger-name-roster")
        if fold.limit_count != limit_count or self._is_other_branch(server_id):
            self._tasks.spawn(self.mind_limits(), name="ledger-limits")

    def learn_roster(self, changes: list[Checked]) -> None:
        """Take roster changes that came without a feed, where they follow what is known."""
        fold = self._holding.fold
        if fold.offer_changes(changes):
            self._epochs.keep_roster()
            for author in () if self.is_behind else tuple(fold.feeds):
                # What waited for this roster goes on.
                self._add(author, fold.feed(author).size, [])
            self.follow_epochs()
            self._watch.tell()
            self._tasks.spawn(self.name_roster(), name="ledger-name-roster")

    def follow_epochs(self) -> None:
        """Have feeds go on under the epochs of the newest roster; cheap where it is the same."""
        own_epoch = self._holding.shelf.own.epoch
        if not self._epochs.follow():
            return
        if self._holding.shelf.own.epoch > own_epoch and not self._own_feed.is_restored:
            self._own_feed.ended()
        self._tasks.spawn(self.mind_limits(), name="ledger-limits")

    def fall_behind(self) -> None:
        """Only store what comes, until it stops coming; then fold everything at once."""
        self._writer.hold()
        if not self.is_behind:
            self.is_behind = True
            logger.info("entries settled long ago arrived: folding from the first record")
            self._tasks.spawn(self._put_in_order(), name="ledger-order")

    async def mind_limits(self) -> None:
        """Put the wrong branches of feeds aside; bring forward what counts of the right ones."""
        try:
            for log in self._holding.shelf:
                if not is_other_branch(self._holding.fold, log):
                    continue
                if log.server_id != self._holding.server_id:
                    await self._put_aside(log.server_id)
                elif is_beyond_end(self._holding.fold.charter, log):
                    self._own_feed.ended()
            for record in await asyncio.to_thread(self._missing_words):
                await self._writer.submit([record])
        except SeipdError as error:
            logger.warning("what counts of the feeds could not be brought forward: %s", error)

    def _add(self, server_id: ServerId, start: int, checked: list[Checked]) -> None:
        fold = self._holding.fold
        # Where the fold was made again meanwhile it has read some of them from the log already.
        known = max(fold.feed(server_id).size - start, 0)
        try:
            fold.add(server_id, start + known, checked[known:])
        except HorizonError:
            self.fall_behind()

    async def _say_what_waited(self) -> None:
        if self._writer.may_append:
            await self.name_roster()
            await self.mind_limits()

    async def _put_in_order(self) -> None:
        for _ in range(MAX_CALMS):
            count = self._arrivals
            await asyncio.sleep(CALM_S)
            if self._arrivals == count:
                break
        async with self._writer.quiet():
            await self._rebuild()
        self._watch.tell()
        await self.name_roster()
        await self.mind_limits()

    def _is_other_branch(self, server_id: ServerId) -> bool:
        log = self._holding.shelf.get(server_id)
        return log is not None and is_other_branch(self._holding.fold, log)

    async def _put_aside(self, server_id: ServerId) -> None:
        async with self._holding.lock(server_id), self._writer.quiet():
            logger.warning("another branch of %s counts: fetching it", server_id)
            log = self._holding.shelf.get(server_id)
            records = left_behind(self._holding.fold.charter, log) if log is not None else []
            await asyncio.to_thread(self._holding.shelf.put_aside, server_id)
            await self._rebuild()
        self._watch.tell()
        for record in records if self._writer.may_append else ():
            # An id counts once: it does no harm where others bring the same forward.
            with contextlib.suppress(SeipdError):
                await self._writer.submit([record])

    def _missing_words(self) -> Sequence[Record]:
        """Return the records on liars that this server, being a witness, should bring forward."""
        fold, own_id = self._holding.fold, self._holding.server_id
        is_witness = own_id in fold.charter.witnesses_at(fold.charter.number)
        if not is_witness or not self._writer.may_append:
            return []
        words = []
        for name, certificate in fold.charter.certificates().items():
            proof = fold.limits.proof_against(name)
            log = self._holding.shelf.get(name, certificate.epoch)
            if proof is None or name == own_id:
                continue
            # The proof may stand where nothing counts: on the feed of another liar.
            if fold.state.get("trust", name) is None:
                words.append(self._author.record(proof.kind, proof.body))
            kept = kept_of(fold, self._author, log, certificate) if log else None
            words += [kept] if kept is not None else []
        return words

    async def _rebuild(self) -> None:
        """Fold every log from its first record, in a thread; the writer is quiet meanwhile."""
        holding, before = self._holding, self._holding.fold.state
        fold = await asyncio.to_thread(holding.folded, None)
        for log in holding.shelf:
            # What other servers' feeds have gained since.
            size = fold.feed(log.server_id).size
            if size < log.size:
                fold.add(log.server_id, size, holding.check(log.read(size, log.size)))
        holding.fold = self._writer.fold = self._attestor.fold = fold
        self.is_behind = False
        self._epochs.follow()
        self._writer.in_order()
        self._watch.replaced(before, fold.state)
