"""The ledger: this server's feed, copies of the others', and the state that they fold to.

Local changes go through ``submit``; other servers' entries come in through ``ingest``. Views read
``state`` and subscribe to what changes in it. No rule about records lives here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import orjson

from services.base.crypto.signatures import SigningKey, verify
from services.base.ledger.attest import Attestor
from services.base.ledger.author import Author
from services.base.ledger.equivocation import find
from services.base.ledger.fold import Fold, HorizonError
from services.base.ledger.forks import MAX_CHECKPOINT_BYTES, accusation, is_other_branch, kept_of
from services.base.ledger.limits import LIMIT_KINDS
from services.base.ledger.ownfeed import OwnFeed
from services.base.ledger.replay import Replay, check_entries
from services.base.ledger.roster import Charter
from services.base.ledger.shelf import Shelf
from services.base.ledger.snapshot import Snapshot, decode_snapshot
from services.base.ledger.standing import Checked
from services.base.ledger.state import State
from services.base.ledger.statefile import settled_state, state_as_of
from services.base.ledger.ticks import StateWord, last_tick_ms, word_at
from services.base.ledger.writer import Receipt, Writer
from services.base.storage.files import open_private, write_atomic
from services.kernel.errors import (
    ConflictError,
    NotFoundError,
    SeipdError,
    UnavailableError,
    WireError,
)
from services.kernel.hlc import hlc_ms
from services.kernel.ids import MeshId, ServerId, server_id_of
from services.kernel.service import Health, HealthState
from services.kernel.versions import unknown_version
from services.runtime.tasks import TaskOwner

if TYPE_CHECKING:
    from pathlib import Path

    from services.base.ledger.copies import FeedLog
    from services.base.ledger.heads import FeedHead
    from services.base.ledger.limits import Prefix
    from services.kernel.certificates import ServerCertificate
    from services.kernel.clock import Clock
    from services.kernel.records import Record
    from services.kernel.views import Appliers

logger = logging.getLogger(__name__)

MAX_AHEAD_MS = 30_000
CALM_S = 0.25
MAX_CALMS = 240
COSIGN_AGAIN_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerSettings:
    """How often the ledger tidies up."""

    publish_interval_s: float = 1.0
    attest_interval_s: float = 1.0
    snapshot_interval_s: float = 300.0
    tick_interval_ms: int = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One object of the state before and after."""

    view: str
    key: str
    old: Any
    new: Any


Subscriber = Callable[[list[Change]], None]


class LedgerService:
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
    ) -> None:
        self._folder = folder
        self._key = signing_key
        self._charter_records = tuple(charter_records)
        self._appliers = appliers
        self._clock = clock
        self._on_fatal = on_fatal
        self._settings = settings or LedgerSettings()
        self._disk_trouble = disk_trouble
        self._tasks = TaskOwner("ledger")
        self._shelf = Shelf(
            folder,
            server_id=server_id_of(signing_key.public_key),
            key=signing_key,
            limit_of=self._limit_of,
        )
        self._locks: dict[ServerId, asyncio.Lock] = {}
        self._told_of: tuple[bytes, ...] = ()
        self._subscribers: list[tuple[frozenset[str], Subscriber]] = []
        self._append_callbacks: list[Callable[[], None]] = []
        self._touched: dict[bytes, tuple[bytes | None, bytes | None]] = {}
        self._on_cosign: Callable[[ServerId, int, int, bytes], None] | None = None
        self._behind = False
        self._ingest_count = 0
        self._on_state_word: Callable[[StateWord], None] | None = None
        self._tick_ms = 0
        self._next_cosign_s = 0.0
        self._state_text = HealthState.STOPPED
        self._waits_for_others = False
        self.server_id = server_id_of(signing_key.public_key)

    @property
    def state(self) -> State:
        """The replicated state, provisional entries included."""
        return self._fold.state

    @property
    def charter(self) -> Charter:
        """The genesis and the roster."""
        return self._fold.charter

    @property
    def fold(self) -> Fold:
        """The fold itself: for explanations and counters."""
        return self._fold

    @property
    def mesh_id(self) -> MeshId:
        """The mesh of this ledger."""
        return self._fold.mesh_id

    async def start(self) -> None:
        """Load the state file, verify and fold the tail of every feed, begin to accept.

        Raises:
            CorruptError: a log or checkpoint is damaged; names the file.
        """
        self._state_text = HealthState.STARTING
        await asyncio.to_thread(self._load)
        self._writer = Writer(
            server_id=self.server_id,
            fold=self._fold,
            log=self._shelf.own,
            clock=self._clock,
            verify=verify,
            on_fatal=self._on_fatal,
            on_commit=self._after_commit,
            disk_trouble=self._disk_trouble,
        )
        for feed in self._fold.feeds.values():
            self._writer.observe(feed.last_hlc)  # type: ignore[arg-type]
        self._open_own_feed()
        self._author = Author(key=self._key, mesh_id=self.mesh_id, clock=self._clock)
        self._attestor = Attestor(
            key=self._key, fold=self._fold, clock=self._clock, submit=self._writer.submit
        )
        self._touched.clear()
        self._fold.state.watch(self._note)
        self._tasks = TaskOwner("ledger", on_crash=lambda _, error: self._on_fatal(error))
        self._tasks.spawn(self._writer.run(), name="ledger-writer")
        self._tasks.spawn(self._housekeeping(), name="ledger-housekeeping")
        self._tasks.spawn(self._mind_limits(), name="ledger-limits")
        await self.name_roster()
        self._state_text = HealthState.OK

    async def stop(self) -> None:
        """Publish what is pending, save the state file, close the logs."""
        if self._state_text is HealthState.STOPPED:
            return
        self._state_text = HealthState.STOPPED
        async with self._writer.quiet():
            await self._tasks.close()
        with contextlib.suppress(SeipdError):
            await asyncio.to_thread(self._shelf.publish)
            await self.save_snapshot()
        self._shelf.close()

    def health(self) -> Health:
        """Report the number of feeds and records, and why writes are refused if they are."""
        if self._state_text is HealthState.OK and self._writer.refuses():
            return Health(state=HealthState.FAILED, detail=self._writer.refuses())
        if self._state_text is HealthState.OK and self._writer.closed_why:
            return Health(state=HealthState.DEGRADED, detail=self._writer.closed_why)
        total = sum(log.size for log in self._shelf)
        return Health(state=self._state_text, detail=f"{len(self._shelf)} feeds, {total} records")

    def wait_for_others(self) -> None:
        """From the next start on append nothing before ``own_feed_current`` is called.

        There is nothing to wait for where the roster has no other server.
        """
        self._waits_for_others = True

    def own_feed_current(self) -> None:
        """Append from now on: nobody holds more of this server's feed, as far as can be known."""
        self._own_feed.current()
        self._tasks.spawn(self._say_what_waited(), name="ledger-current")

    async def submit(self, records: Sequence[Record]) -> list[Receipt]:
        """Append records to this server's feed, all or none; see ``Writer.submit``."""
        return await self._writer.submit(records)

    def subscribe(self, views: Sequence[str], subscriber: Subscriber) -> None:
        """Tell ``subscriber`` of every change in these views, after it has effect."""
        self._subscribers.append((frozenset(views), subscriber))
        self._told_of += tuple(f'["{view}",'.encode() for view in views)

    def subscribe_appends(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` when this server's feed has grown."""
        self._append_callbacks.append(callback)

    def on_cosign(self, callback: Callable[[ServerId, int, int, bytes], None]) -> None:
        """Where cosignatures of others' feeds go: (server, epoch, size, signature line)."""
        self._on_cosign = callback

    def on_state_word(self, callback: Callable[[StateWord], None]) -> None:
        """Where this server's word on the state goes, at each tick at which it is a witness."""
        self._on_state_word = callback

    def feeds(self) -> Mapping[str, FeedHead]:
        """Return how much of each feed is held, as a view that follows the feeds."""
        return self._shelf.heads

    def log(self, server_id: str) -> FeedLog:
        """Return the log of a feed.

        Raises:
            NotFoundError: no such feed is held.
        """
        log = self._shelf.get(server_id)
        if log is None:
            raise NotFoundError(f"no feed of {server_id} is held here")
        return log

    def read(self, server_id: str, epoch: int, start: int, stop: int) -> list[bytes]:
        """Return entries of a feed as they are; empty where they are not held."""
        log = self._shelf.get(server_id, epoch)
        return [] if log is None else log.read(start, min(stop, log.size))

    def checkpoint(self, server_id: str, epoch: int) -> bytes | None:
        """Return the newest signed checkpoint held of a feed."""
        log = self._shelf.get(server_id, epoch)
        return log.checkpoint if log is not None else None

    def root_at(self, server_id: str, epoch: int, size: int) -> bytes | None:
        """Return the root that a feed had at a size; None where that is not held."""
        log = self._shelf.get(server_id, epoch)
        return log.root_at(size) if log is not None else None

    def server_key(self, server_id: str) -> bytes | None:
        """Return the identity key of a server of the roster."""
        certificate = self.charter.server(ServerId(server_id))
        return certificate.key if certificate is not None else None

    def servers(self) -> Mapping[str, bytes]:
        """Return every server of the roster and its identity key."""
        return {name: one.key for name, one in self.charter.servers().items()}

    def witnesses(self) -> Collection[str]:
        """Return the servers whose signatures settle what is in a feed."""
        return self.charter.witnesses_at(self.charter.number)

    def authors(self) -> Collection[str]:
        """Return everybody who has a feed: the servers of the roster and those removed from it."""
        return self.charter.certificates().keys()

    def is_author(self, server_id: str) -> bool:
        """Say whether somebody is or was a server."""
        return self.charter.was_server(ServerId(server_id))

    @property
    def standing(self) -> tuple[int, int, int]:
        """What stays the same while the servers and what counts of their feeds do."""
        return self.charter.number, self._fold.limit_count, self._shelf.aside_count

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
        name = ServerId(server_id)
        certificate = self.charter.last_certificate(name)
        if certificate is None or certificate.epoch != epoch:
            raise NotFoundError(f"{server_id} has no feed of epoch {epoch} in the roster")
        if len(checkpoint) > MAX_CHECKPOINT_BYTES:
            raise WireError("a checkpoint of a feed has no extensions")
        if name == self.server_id:
            return await self._take_back(start, entries, checkpoint, proof)
        async with self._lock(name):
            log = self._shelf.get(name)
            if log is None:
                log = await asyncio.to_thread(self._shelf.open, certificate, self.mesh_id)
            if start > log.size:
                raise ConflictError(f"held are {log.size} entries, offered from {start}")
            fresh = entries[log.size - start :]
            if not fresh:
                return log.size
            have = log.size
            checked = await asyncio.to_thread(self._check_after, name, have, fresh)
            self._refuse_future(checked)
            if proof is None:
                await asyncio.to_thread(log.extend, fresh, checkpoint)
            else:
                await asyncio.to_thread(log.extend_verified, fresh, checkpoint, proof)
            self._fold_in(name, have, checked)
            if log.size == log.signed_size:
                self._cosign(name, log)
            return log.size

    async def contradict(self, server_id: str, epoch: int, checkpoint: bytes) -> bool:
        """Compare a checkpoint with what is held of a feed; append the proof if the author lied.

        Returns:
            Whether the author is untrusted.

        Raises:
            SeipdError: the checkpoint is malformed, not well signed, or of more than is held.
        """
        name = ServerId(server_id)
        log, certificate = self._shelf.get(name, epoch), self.charter.last_certificate(name)
        if log is None or certificate is None or self._fold.limits.is_untrusted(name):
            return self._fold.limits.is_untrusted(name)
        if name == self.server_id:
            return await self._compare_own(log, certificate, checkpoint)
        records = await asyncio.to_thread(
            accusation, self._fold, self._author, log, certificate, checkpoint
        )
        if records:
            await self.submit(records)
        return bool(records)

    async def cosignature(self, server_id: str, epoch: int, size: int, line: bytes) -> None:
        """Take a witness's cosignature of this server's feed."""
        own = self._shelf.own
        if server_id == self.server_id and epoch == own.epoch:
            root = own.root_at(size)
            if root is not None:
                self._attestor.add(size, root, line)
                if self._writer.may_append:
                    await self._attestor.settle(self._shelf.own)

    async def name_roster(self) -> None:
        """Say on this feed which roster its records go by, if there is a newer one."""
        if not self._writer.may_append:
            return
        feed = self._fold.feeds.get(self.server_id)
        named = feed.roster_number if feed else 0
        if self.charter.number > named and self.charter.server(self.server_id) is not None:
            # Who takes no writes now names it later: each new roster and each start asks again.
            with contextlib.suppress(UnavailableError):
                await self.submit([self._attestor.roster_record(self.charter)])

    async def save_snapshot(self) -> None:
        """Write the signed state file of the settled point.

        None under an unknown protocol version: what it voids here may count once it is known.
        """
        if unknown_version(self._fold.state):
            return
        async with self._writer.quiet():
            with self._unwatched():
                data = settled_state(self._fold, sign=self._key.sign)
        await asyncio.to_thread(write_atomic, self._folder / "state", data)

    async def state_file(self, word: StateWord) -> bytes:
        """Return the state file of a tick, for a newcomer.

        Raises:
            UnavailableError: ``no_agreed_state``: it is not remembered, or was another one here.
        """
        async with self._writer.quiet():
            with self._unwatched():
                return state_as_of(self._fold, word, sign=self._key.sign)

    async def state_word(self) -> StateWord | None:
        """Return what the state was at the last tick; None where that is not remembered."""
        tick_ms = last_tick_ms(self._clock.now_ms(), self._settings.tick_interval_ms)
        async with self._writer.quiet():
            with self._unwatched():
                return None if self._behind else word_at(self._fold, tick_ms)

    @contextlib.contextmanager
    def _unwatched(self) -> Iterator[None]:
        self._fold.state.watch(None)
        try:
            yield
        finally:
            self._fold.state.watch(self._note)

    def verify_logs(self) -> list[dict[str, Any]]:
        """Re-derive every tile of every log; report each log's size, or what is wrong with it."""
        return self._shelf.verify()

    async def publish(self) -> None:
        """Bring every log's tiles and checkpoint file up to date."""
        await asyncio.to_thread(self._shelf.publish)

    def _open_own_feed(self) -> None:
        self._own_feed = OwnFeed(
            writer=self._writer, key=self._key.public_key, now_ms=self._clock.now_ms()
        )
        if self._waits_for_others and self.charter.servers().keys() - {self.server_id}:
            self._own_feed.wait_for_others()

    async def _take_back(
        self, start: int, entries: list[bytes], checkpoint: bytes, proof: Sequence[bytes] | None
    ) -> int:
        """Store entries of this server's own feed that it has lost."""
        async with self._lock(self.server_id), self._writer.quiet():
            own = self._shelf.own
            self._own_feed.claimed(own, checkpoint)
            if start > own.size:
                raise ConflictError(f"held are {own.size} entries, offered from {start}")
            have, fresh = own.size, entries[own.size - start :]
            if not fresh:
                return have
            checked = await asyncio.to_thread(self._check_after, self.server_id, have, fresh)
            self._refuse_future(checked)
            await asyncio.to_thread(self._own_feed.take, own, fresh, checkpoint, proof)
            self._fold_in(self.server_id, have, checked)
            self._own_feed.taken(own, checked)
        self._tasks.spawn(self._say_what_waited(), name="ledger-current")
        return own.size

    async def _compare_own(
        self, own: FeedLog, certificate: ServerCertificate, checkpoint: bytes
    ) -> bool:
        """Stop where a checkpoint of our own is not of the branch that is held; accuse nobody."""
        proof = await asyncio.to_thread(
            find, mesh_id=self.mesh_id, certificate=certificate, held=own, foreign=checkpoint
        )
        if proof is not None:
            self._own_feed.contradicted()
        return proof is not None

    async def _say_what_waited(self) -> None:
        """Say what could not be said while nothing was appended."""
        if self._writer.may_append:
            await self.name_roster()
            await self._mind_limits()

    def _load(self) -> None:
        snapshot = self._read_snapshot()
        try:
            self._fold = self._built(snapshot)
        except HorizonError:
            logger.info("the state file reaches too far: folding from the first record")
            self._fold = self._built(None)

    def _read_snapshot(self) -> Snapshot | None:
        path = self._folder / "state"
        if not path.exists():
            return None
        genesis = Charter(self._charter_records[0]).genesis
        with open_private(path) as file:
            return decode_snapshot(
                file, mesh_id=genesis.mesh_id, key=self._key.public_key, verify=verify
            )

    def _built(self, snapshot: Snapshot | None) -> Fold:
        charter = Charter(self._charter_records[0])
        standing = (
            *self._charter_records[1:],
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
            root_at=self._root_at,
        )
        if snapshot is not None:
            fold.resume(snapshot.points, snapshot.horizon_ms)
        fold.publish_charter(one for one in standing if one.kind in LIMIT_KINDS)
        replay = Replay(fold, own_id=self.server_id, verify=verify)
        replay.run(lambda: self._shelf.open_named(charter))
        return fold

    def _limit_of(self, server_id: ServerId) -> Prefix | None:
        return self._fold.limit_of(server_id)

    def _root_at(self, server_id: ServerId, size: int) -> bytes | None:
        log = self._shelf.get(server_id)
        return log.root_at(size) if log is not None else None

    def _check_after(self, name: ServerId, have: int, entries: Sequence[bytes]) -> list[Checked]:
        """Check entries; those that the state begins after need no more than their checkpoint."""
        passed = min(max(self._fold.feed(name).size - have, 0), len(entries))
        return [Checked(None)] * passed + self._check(entries[passed:])

    def _check(self, entries: Sequence[bytes]) -> list[Checked]:
        return check_entries(entries, mesh_id=self._fold.mesh_id, verify=verify)

    def _refuse_future(self, checked: Sequence[Checked]) -> None:
        limit = self._clock.now_ms() + MAX_AHEAD_MS
        if any(one.entry is not None and hlc_ms(one.entry.hlc) > limit for one in checked):
            raise UnavailableError("the feed's clock is ahead of ours", code="clock_ahead")

    def _fold_in(self, server_id: ServerId, start: int, checked: list[Checked]) -> None:
        self._ingest_count += 1
        number, limit_count, fold = self.charter.number, self._fold.limit_count, self._fold
        for one in checked:
            if one.entry is not None:
                self._writer.observe(one.entry.hlc)
        if self._behind:
            # Who is no server any more has to go at once, whatever else has to wait.
            fold.offer_changes(checked)
            self._flush_changes()
            return
        # Where the fold was made again meanwhile it has read some of them from the log already.
        known = max(fold.feed(server_id).size - start, 0)
        try:
            fold.add(server_id, start + known, checked[known:])
        except HorizonError:
            self._fall_behind()
            self._flush_changes()
            return
        self._flush_changes()
        if self.charter.number > number:
            self._tasks.spawn(self.name_roster(), name="ledger-name-roster")
        if self._fold.limit_count != limit_count or self._is_other_branch(server_id):
            self._tasks.spawn(self._mind_limits(), name="ledger-limits")

    def _fall_behind(self) -> None:
        """Only store what comes, until it stops coming; then fold everything at once."""
        self._writer.hold()
        if not self._behind:
            self._behind = True
            logger.info("entries settled long ago arrived: folding from the first record")
            self._tasks.spawn(self._put_in_order(), name="ledger-order")

    async def _put_in_order(self) -> None:
        for _ in range(MAX_CALMS):
            count = self._ingest_count
            await asyncio.sleep(CALM_S)
            if self._ingest_count == count:
                break
        async with self._writer.quiet():
            await self._rebuild()
        self._flush_changes()
        await self.name_roster()
        await self._mind_limits()

    def _is_other_branch(self, server_id: ServerId) -> bool:
        log = self._shelf.get(server_id)
        return log is not None and is_other_branch(self._fold, log)

    async def _mind_limits(self) -> None:
        """Put the wrong branches of feeds aside; bring forward what counts of the right ones."""
        try:
            for log in self._shelf:
                if log.server_id != self.server_id and is_other_branch(self._fold, log):
                    await self._put_aside(log.server_id)
            for record in await asyncio.to_thread(self._missing_words):
                await self.submit([record])
        except SeipdError as error:
            logger.warning("what counts of the feeds could not be brought forward: %s", error)

    async def _put_aside(self, server_id: ServerId) -> None:
        async with self._lock(server_id), self._writer.quiet():
            logger.warning("another branch of %s counts: fetching it", server_id)
            await asyncio.to_thread(self._shelf.put_aside, server_id)
            await self._rebuild()
        self._flush_changes()

    def _missing_words(self) -> list[Record]:
        """Return the records on liars that this server, being a witness, should bring forward."""
        is_witness = self.server_id in self.charter.witnesses_at(self.charter.number)
        if not is_witness or not self._writer.may_append:
            return []
        words = []
        for name, certificate in self.charter.certificates().items():
            proof = self._fold.limits.proof_against(name)
            log = self._shelf.get(name, certificate.epoch)
            if proof is None or name == self.server_id:
                continue
            # The proof may stand where nothing counts: on the feed of another liar.
            if self._fold.state.get("trust", name) is None:
                words.append(self._author.record(proof.kind, proof.body))
            kept = kept_of(self._fold, self._author, log, certificate) if log else None
            words += [kept] if kept is not None else []
        return words

    def _lock(self, server_id: ServerId) -> asyncio.Lock:
        return self._locks.setdefault(server_id, asyncio.Lock())

    async def _rebuild(self) -> None:
        """Fold every log from its first record, in a thread; the writer is quiet meanwhile."""
        before = self._fold.state
        fold = await asyncio.to_thread(self._built, None)
        for log in self._shelf:
            # What other servers' feeds have gained since.
            size = fold.feed(log.server_id).size
            if size < log.size:
                fold.add(log.server_id, size, self._check(log.read(size, log.size)))
        self._fold = self._writer.fold = self._attestor.fold = fold
        self._behind = False
        self._writer.in_order()
        self._announce_rebuild(before)

    def _announce_rebuild(self, before: State) -> None:
        before.watch(None)
        old = {place: payload for bucket in before.leaves() for place, payload in bucket}
        new = {place: payload for bucket in self._fold.state.leaves() for place, payload in bucket}
        for place in old.keys() | new.keys():
            if old.get(place) != new.get(place):
                self._touched[place] = (old.get(place), new.get(place))
        self._fold.state.watch(self._note)

    def _cosign(self, server_id: ServerId, log: FeedLog) -> None:
        line = self._attestor.cosign(log) if self._limit_of(server_id) is None else None
        if line is not None and self._on_cosign is not None:
            self._on_cosign(server_id, log.epoch, log.size, line)

    def _note(self, place: bytes, old: bytes | None, new: bytes | None) -> None:
        first = self._touched.get(place)
        self._touched[place] = (old if first is None else first[0], new)

    def _after_commit(self) -> None:
        if self._writer.is_held:
            self._fall_behind()
        self._flush_changes()
        for callback in self._append_callbacks:
            callback()

    def _flush_changes(self) -> None:
        touched, self._touched = self._touched, {}
        changes = []
        for old, new in touched.values():
            # How a leaf begins says its view: what nobody asked for is not decoded.
            if old != new and (new or old or b"").startswith(self._told_of):
                view, key, _ = orjson.loads(new or old or b"null")
                old_value = orjson.loads(old)[2] if old else None
                new_value = orjson.loads(new)[2] if new else None
                changes.append(Change(view=view, key=key, old=old_value, new=new_value))
        for views, subscriber in self._subscribers if changes else ():
            wanted = [change for change in changes if change.view in views]
            if wanted:
                subscriber(wanted)

    async def _give_word(self) -> None:
        tick_ms = last_tick_ms(self._clock.now_ms(), self._settings.tick_interval_ms)
        is_witness = self.server_id in self.charter.at(self.charter.number).witnesses
        if tick_ms == self._tick_ms or not is_witness or self._on_state_word is None:
            return
        if unknown_version(self._fold.state):
            return
        self._tick_ms = tick_ms
        word = await self.state_word()
        if word is not None:
            self._on_state_word(word)

    def _cosign_again(self) -> None:
        """Sign once more for authors that may have lost our word before they wrote it down."""
        now_s = self._clock.monotonic_s()
        if now_s < self._next_cosign_s:
            return
        self._next_cosign_s = now_s + COSIGN_AGAIN_S
        for log in self._shelf:
            feed = self._fold.feeds.get(log.server_id)
            waits = feed is not None and feed.unsettled and log.size == log.signed_size
            if waits and log.server_id != self.server_id:
                self._cosign(log.server_id, log)

    async def _housekeeping(self) -> None:
        last_snapshot_s = self._clock.monotonic_s()
        while True:
            await asyncio.sleep(self._settings.attest_interval_s)
            # Who takes no writes attests nothing, and goes on storing and publishing.
            if self._writer.may_append:
                with contextlib.suppress(UnavailableError):
                    await self._attestor.settle(self._shelf.own)
            await self.publish()
            await self._give_word()
            self._cosign_again()
            if self._clock.monotonic_s() - last_snapshot_s > self._settings.snapshot_interval_s:
                await self.save_snapshot()
                last_snapshot_s = self._clock.monotonic_s()
