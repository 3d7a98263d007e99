"""The ledger: this server's feed, copies of the others', and the state that they fold to.

Local changes go through ``submit``; other servers' entries come in through ``ingest``. Views read
``state`` and subscribe to what changes in it. No rule about records lives here.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from services.base.crypto.signatures import SigningKey, verify
from services.base.ledger.attest import Attestor
from services.base.ledger.author import Author
from services.base.ledger.changes import EpochEnd
from services.base.ledger.cosigning import Cosigner
from services.base.ledger.epochs import Epochs, newest_end
from services.base.ledger.holding import Holding
from services.base.ledger.intake import Intake
from services.base.ledger.ownfeed import OwnFeed
from services.base.ledger.reading import LedgerReader
from services.base.ledger.telling import StateTeller
from services.base.ledger.upkeep import Upkeep
from services.base.ledger.watching import StateWatch, Subscriber
from services.base.ledger.witnessed import open_witness_key, witness_of
from services.base.ledger.writer import Receipt, Writer
from services.kernel.errors import RejectedError, SeipdError, UnavailableError
from services.kernel.ids import ServerId
from services.kernel.service import Health, HealthState
from services.runtime.tasks import TaskOwner

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from services.base.ledger.state import State
    from services.base.ledger.ticks import StateWord
    from services.kernel.clock import Clock
    from services.kernel.records import Record
    from services.kernel.views import Appliers


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerSettings:
    """How often the ledger tidies up."""

    publish_interval_s: float = 1.0
    attest_interval_s: float = 1.0
    snapshot_interval_s: float = 300.0
    tick_interval_ms: int = 20_000


class LedgerService(LedgerReader):
    """Owns every feed on this server's disk and the fold over them."""

    name: ClassVar[str] = "ledger"

    def __init__(
        self,
        *,
        folder: Path,
        signing_key: SigningKey,
        charter_records: Sequence[Record],
        appliers: Appliers,
        clock: Clock,
        on_fatal: Callable[[BaseException], None],
        settings: LedgerSettings | None = None,
        disk_trouble: Callable[[], str] = lambda: "",
        remember: Callable[[Sequence[Record]], None] = lambda records: None,
    ) -> None:
        self._remember = remember
        self._holding = Holding(
            folder=folder, key=signing_key, charter_records=charter_records, appliers=appliers
        )
        self._clock = clock
        self._on_fatal = on_fatal
        self._settings = settings or LedgerSettings()
        self._disk_trouble = disk_trouble
        self._clock_trouble: Callable[[], str] = lambda: ""
        self._tasks = TaskOwner("ledger")
        self._watch = StateWatch()
        self._append_callbacks: list[Callable[[], None]] = []
        self._on_cosign: Callable[[ServerId, int, int, bytes], None] | None = None
        self._on_state_word: Callable[[StateWord], None] | None = None
        self._state_text = HealthState.STOPPED
        self._waits_for_others = False
        self._was_restored = False
        self.server_id = self._holding.server_id

    async def start(self) -> None:
        """Load the state file, verify and fold the tail of every feed, begin to accept.

        Raises:
            CorruptError: a log or checkpoint is damaged; names the file.
        """
        self._state_text = HealthState.STARTING
        holding = self._holding
        self._witness_key = await asyncio.to_thread(
            open_witness_key, holding.folder, holding.key, self._clock
        )
        await asyncio.to_thread(holding.load)
        self._writer = Writer(
            server_id=self.server_id,
            fold=self.fold,
            log=self._holding.shelf.own,
            clock=self._clock,
            verify=verify,
            on_fatal=self._on_fatal,
            on_commit=self._after_commit,
            disk_trouble=self._disk_trouble,
            clock_trouble=lambda: self._clock_trouble(),  # noqa: PLW0108 (it is told later)
        )
        for feed in self.fold.feeds.values():
            self._writer.observe(feed.last_hlc)  # type: ignore[arg-type]
        self._tasks = TaskOwner("ledger", on_crash=lambda _, error: self._on_fatal(error))
        self._assemble()
        self._watch.begin(self.state)
        self._tasks.spawn(self._writer.run(), name="ledger-writer")
        self._tasks.spawn(self._housekeeping(), name="ledger-housekeeping")
        self._upkeep.begin()
        await self.name_roster()
        self._state_text = HealthState.OK

    def _assemble(self) -> None:
        """Make the parts that work on what was loaded."""
        holding, writer, clock, key = self._holding, self._writer, self._clock, self._holding.key
        self._own_feed = OwnFeed(writer=writer, key=key.public_key, now_ms=clock.now_ms())
        if self._waits_for_others and self.charter.servers().keys() - {self.server_id}:
            self._own_feed.wait_for_others()
        if self._was_restored:
            self._own_feed.wait_for_epoch()
        author = Author(key=key, mesh_id=self.mesh_id, clock=clock)
        self._attestor = Attestor(
            key=key,
            fold=self.fold,
            clock=clock,
            submit=writer.submit,
            witness_key=self._witness_key,
        )
        self._cosigner = Cosigner(
            holding=holding, attestor=self._attestor, clock=clock, tell=self._tell_cosigned
        )
        self._upkeep = Upkeep(
            holding=holding,
            writer=writer,
            watch=self._watch,
            author=author,
            attestor=self._attestor,
            epochs=Epochs(holding=holding, remember=self._remember),
            own_feed=self._own_feed,
            tasks=self._tasks,
        )
        self._intake = Intake(
            holding=holding,
            writer=writer,
            own_feed=self._own_feed,
            author=author,
            attestor=self._attestor,
            cosigner=self._cosigner,
            upkeep=self._upkeep,
            clock=clock,
        )
        self.witness = witness_of(
            holding, self._witness_key, contradict=self._intake.contradict, tasks=self._tasks
        )
        self._teller = StateTeller(
            holding=holding,
            writer=writer,
            watch=self._watch,
            upkeep=self._upkeep,
            clock=clock,
            tick_interval_ms=self._settings.tick_interval_ms,
            tell=self._tell_word,
        )

    async def stop(self) -> None:
        """Publish what is pending, save the state file, close the logs."""
        if self._state_text is HealthState.STOPPED:
            return
        self._state_text = HealthState.STOPPED
        async with self._writer.quiet():
            await self._tasks.close()
        with contextlib.suppress(SeipdError):
            await asyncio.to_thread(self._holding.shelf.publish)
            await self.save_snapshot()
            await asyncio.to_thread(self._witness_key.rest)
        self._holding.shelf.close()

    def health(self) -> Health:
        """Report the number of feeds and records, and why writes are refused if they are."""
        if self._state_text is HealthState.OK and self._writer.refuses():
            return Health(state=HealthState.FAILED, detail=self._writer.refuses())
        trouble = self._state_text is HealthState.OK and (
            self._writer.closed_why or self._clock_trouble() or self._witness_key.trouble
        )
        if trouble:
            return Health(state=HealthState.DEGRADED, detail=trouble)
        total = sum(log.size for log in self._holding.shelf)
        return Health(
            state=self._state_text, detail=f"{len(self._holding.shelf)} feeds, {total} records"
        )

    def wait_for_others(self) -> None:
        """From the next start on append nothing before ``own_feed_current`` is called.

        There is nothing to wait for where the roster has no other server.
        """
        self._waits_for_others = True

    def wait_for_epoch(self) -> None:
        """From the next start on append nothing before ``go_on``: the disk was restored."""
        self._was_restored = True

    def own_feed_end(self) -> EpochEnd | None:
        """Return where this server's feed ends; None while others may hold more of it."""
        own = self._holding.shelf.own
        if not self._own_feed.is_current:
            return None
        return EpochEnd(server_id=self.server_id, size=own.size, root=own.root)

    async def learn_roster(self, records: Sequence[Record]) -> None:
        """Take roster changes that came without a feed, as far as they are the root's."""
        self._intake.learn_roster(records)

    async def go_on(self, transactions: Sequence[Sequence[Record]]) -> None:
        """Append again after a restore: first the roster of the new epoch, then these.

        Raises:
            UnavailableError: this server takes no writes.
        """
        change = newest_end(self.charter, self.server_id)
        named = self._attestor.roster_record(self.charter)
        first = [[named]] if change is None else [[change], [named]]
        waiting = [self._writer.put(one) for one in (*first, *transactions)]
        self._was_restored = False
        self._own_feed.go_on()
        try:
            for one in waiting:
                with contextlib.suppress(RejectedError):
                    await one
        except UnavailableError:
            self._own_feed.wait_for_epoch()
            raise
        self._upkeep.say_what_waited()

    def own_feed_current(self) -> None:
        """Append from now on: nobody holds more of this server's feed, as far as can be known."""
        self._own_feed.current()
        self._upkeep.say_what_waited()

    async def submit(self, records: Sequence[Record]) -> list[Receipt]:
        """Append records to this server's feed, all or none; see ``Writer.submit``."""
        return await self._writer.submit(records)

    def require_writable(self) -> None:
        """Refuse where records would not be taken now; see ``Writer.require_writable``."""
        self._writer.require_writable()

    def subscribe(self, views: Sequence[str], subscriber: Subscriber) -> None:
        """Tell ``subscriber`` of every change in these views, after it has effect."""
        self._watch.subscribe(views, subscriber)

    def subscribe_appends(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` when this server's feed has grown."""
        self._append_callbacks.append(callback)

    def refuse_while(self, trouble: Callable[[], str]) -> None:
        """From the next start on take no writes while ``trouble`` says something."""
        before = self._disk_trouble
        self._disk_trouble = lambda: before() or trouble()

    def mind_clock(self, trouble: Callable[[], str]) -> None:
        """Take no writes while ``trouble`` says that this server's clock is off."""
        self._clock_trouble = trouble

    def on_cosign(self, callback: Callable[[ServerId, int, int, bytes], None]) -> None:
        """Where cosignatures of others' feeds go: (server, epoch, size, signature line)."""
        self._on_cosign = callback

    def on_state_word(self, callback: Callable[[StateWord], None]) -> None:
        """Where this server's word on the state goes, at each tick at which it is a witness."""
        self._on_state_word = callback

    async def ingest(
        self,
        server_id: str,
        epoch: int,
        start: int,
        entries: list[bytes],
        checkpoint: bytes,
        *,
        proof: Sequence[bytes] | None = None,
    ) -> int:
        """Store entries of a feed under its checkpoint and fold them.

        Entries of this server's own feed are those that a disk put back has lost.

        Args:
            server_id: whose feed it is.
            epoch: of the feed.
            start: the index of the first entry.
            entries: as they are.
            checkpoint: signs all entries up to the last of them; with a proof, more than these.
            proof: the consistency proof from the size with these entries to the checkpoint.

        Returns:
            The size of the feed as held now.

        Raises:
            NotFoundError: the roster does not name that server.
            ConflictError: there is a gap before ``start``.
            UnavailableError: the feed's stamps are more than 30 seconds ahead.
            WireError: the checkpoint does not sign these entries.
        """
        return await self._intake.ingest(
            ServerId(server_id), epoch, start, entries, checkpoint, proof
        )

    async def contradict(self, server_id: str, epoch: int, checkpoint: bytes) -> bool:
        """Compare a checkpoint with what is held of a feed; append the proof if the author lied.

        Returns:
            Whether the author is untrusted.

        Raises:
            SeipdError: the checkpoint is malformed, not well signed, or of more than is held.
        """
        return await self._intake.contradict(ServerId(server_id), epoch, checkpoint)

    async def cosignature(self, server_id: str, epoch: int, size: int, line: bytes) -> None:
        """Take a witness's cosignature of this server's feed."""
        await self._intake.cosignature(ServerId(server_id), epoch, size, line)

    async def name_roster(self) -> None:
        """Say on this feed which roster its records go by, if there is a newer one."""
        await self._upkeep.name_roster()

    async def save_snapshot(self) -> None:
        """Write the signed state file of the settled point.

        None under an unknown protocol version: what it voids here may count once it is known.
        """
        await self._teller.save()

    async def state_file(self, word: StateWord) -> bytes:
        """Return the state file of a tick, for a newcomer.

        Raises:
            UnavailableError: ``no_agreed_state``: it is not remembered, or was another one here.
        """
        return await self._teller.file(word)

    async def state_of(self, word: StateWord) -> State:
        """Return the state that a word is about, as it was then; see ``AgreedStates.make``."""
        return await self._teller.state_of(word)

    async def state_word(self) -> StateWord | None:
        """Return what the state was at the last tick; None where that is not remembered."""
        return await self._teller.word()

    def verify_logs(self) -> list[dict[str, Any]]:
        """Re-derive every tile of every log; report each log's size, or what is wrong with it."""
        return self._holding.shelf.verify()

    async def publish(self) -> None:
        """Bring every log's tiles and checkpoint file up to date."""
        await asyncio.to_thread(self._holding.shelf.publish)

    def _tell_cosigned(self, server_id: ServerId, epoch: int, size: int, line: bytes) -> None:
        if self._on_cosign is not None:
            self._on_cosign(server_id, epoch, size, line)

    def _tell_word(self, word: StateWord) -> None:
        if self._on_state_word is not None:
            self._on_state_word(word)

    def _after_commit(self) -> None:
        self._upkeep.follow_epochs()
        if self._writer.is_held:
            self._upkeep.fall_behind()
        self._watch.tell()
        for callback in self._append_callbacks:
            callback()

    async def _housekeeping(self) -> None:
        last_snapshot_s = self._clock.monotonic_s()
        while True:
            await asyncio.sleep(self._settings.attest_interval_s)
            # Who takes no writes attests nothing, and goes on storing and publishing.
            if self._writer.may_append:
                with contextlib.suppress(UnavailableError):
                    await self._attestor.settle(self._holding.shelf.own)
            await self.publish()
            await self._teller.give_word()
            self._cosigner.cosign_again()
            if self._clock.monotonic_s() - last_snapshot_s > self._settings.snapshot_interval_s:
                await self.save_snapshot()
                last_snapshot_s = self._clock.monotonic_s()
