"""The ledger: this server's feed, copies of the others', and the state that they fold to.

Local changes go through ``submit``; other servers' entries come in through ``ingest``. Views read
``state`` and subscribe to what changes in it. No rule about records lives here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import orjson

from services.base.crypto.signatures import SigningKey, verify
from services.base.ledger.attest import Attestor
from services.base.ledger.copies import FeedLog, open_feed
from services.base.ledger.fold import Fold, HorizonError
from services.base.ledger.heads import FeedHead, FeedHeads
from services.base.ledger.limits import LIMIT_KINDS
from services.base.ledger.roster import Charter
from services.base.ledger.snapshot import Snapshot, decode_snapshot, encode_snapshot
from services.base.ledger.standing import Checked, FeedPoint
from services.base.ledger.state import State
from services.base.ledger.writer import Receipt, Writer
from services.base.storage.files import open_private, write_atomic
from services.kernel.errors import (
    ConflictError,
    CorruptError,
    NotFoundError,
    SeipdError,
    UnavailableError,
    WireError,
)
from services.kernel.hlc import hlc_ms
from services.kernel.ids import MeshId, ServerId, server_id_of
from services.kernel.records import Record, decode_entry
from services.kernel.service import Health, HealthState
from services.runtime.tasks import TaskOwner

if TYPE_CHECKING:
    from pathlib import Path

    from services.kernel.clock import Clock
    from services.kernel.views import Appliers

logger = logging.getLogger(__name__)

READ_BATCH = 4096
MAX_AHEAD_MS = 30_000


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerSettings:
    """How often the ledger tidies up."""

    publish_interval_s: float = 1.0
    attest_interval_s: float = 1.0
    snapshot_interval_s: float = 300.0


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
    ) -> None:
        self._folder = folder
        self._key = signing_key
        self._charter_records = tuple(charter_records)
        self._appliers = appliers
        self._clock = clock
        self._on_fatal = on_fatal
        self._settings = settings or LedgerSettings()
        self._tasks = TaskOwner("ledger")
        self._logs: dict[ServerId, FeedLog] = {}
        self._heads = FeedHeads(self._logs)
        self._locks: dict[ServerId, asyncio.Lock] = {}
        self._subscribers: list[tuple[frozenset[str], Subscriber]] = []
        self._append_callbacks: list[Callable[[], None]] = []
        self._touched: dict[bytes, tuple[bytes | None, bytes | None]] = {}
        self._on_cosign: Callable[[ServerId, int, int, bytes], None] | None = None
        self._state_text = HealthState.STOPPED
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
            log=self._own,
            clock=self._clock,
            verify=verify,
            on_fatal=self._on_fatal,
            on_commit=self._after_commit,
        )
        for feed in self._fold.feeds.values():
            self._writer.observe(feed.last_hlc)  # type: ignore[arg-type]
        self._attestor = Attestor(
            key=self._key, fold=self._fold, clock=self._clock, submit=self._writer.submit
        )
        self._touched.clear()
        self._fold.state.watch(self._note)
        self._tasks = TaskOwner("ledger", on_crash=lambda _, error: self._on_fatal(error))
        self._tasks.spawn(self._writer.run(), name="ledger-writer")
        self._tasks.spawn(self._housekeeping(), name="ledger-housekeeping")
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
            await asyncio.to_thread(self._publish_all)
            await self.save_snapshot()
        for log in self._logs.values():
            log.close()

    def health(self) -> Health:
        """Report the number of feeds and records, and why writes are refused if they are."""
        if self._state_text is HealthState.OK and self._writer.read_only:
            return Health(state=HealthState.FAILED, detail=self._writer.read_only)
        total = sum(log.size for log in self._logs.values())
        return Health(state=self._state_text, detail=f"{len(self._logs)} feeds, {total} records")

    async def submit(self, records: Sequence[Record]) -> list[Receipt]:
        """Append records to this server's feed, all or none; see ``Writer.submit``."""
        return await self._writer.submit(records)

    def subscribe(self, views: Sequence[str], subscriber: Subscriber) -> None:
        """Tell ``subscriber`` of every change in these views, after it has effect."""
        self._subscribers.append((frozenset(views), subscriber))

    def subscribe_appends(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` when this server's feed has grown."""
        self._append_callbacks.append(callback)

    def on_cosign(self, callback: Callable[[ServerId, int, int, bytes], None]) -> None:
        """Where cosignatures of others' feeds go: (server, epoch, size, signature line)."""
        self._on_cosign = callback

    def feeds(self) -> Mapping[str, FeedHead]:
        """Return how much of each feed is held, as a view that follows the feeds."""
        return self._heads

    def log(self, server_id: str) -> FeedLog:
        """Return the log of a feed.

        Raises:
            NotFoundError: no such feed is held.
        """
        log = self._logs.get(ServerId(server_id))
        if log is None:
            raise NotFoundError(f"no feed of {server_id} is held here")
        return log

    def read(self, server_id: str, epoch: int, start: int, stop: int) -> list[bytes]:
        """Return entries of a feed as they are; empty where they are not held."""
        log = self._logs.get(ServerId(server_id))
        if log is None or log.epoch != epoch:
            return []
        return log.read(start, min(stop, log.size))

    def checkpoint(self, server_id: str, epoch: int) -> bytes | None:
        """Return the newest signed checkpoint held of a feed."""
        log = self._logs.get(ServerId(server_id))
        return log.checkpoint if log is not None and log.epoch == epoch else None

    def server_key(self, server_id: str) -> bytes | None:
        """Return the identity key of a server of the roster."""
        certificate = self.charter.server(ServerId(server_id))
        return certificate.key if certificate is not None else None

    def servers(self) -> Mapping[str, bytes]:
        """Return every server of the roster and its identity key."""
        return {name: one.key for name, one in self.charter.servers().items()}

    @property
    def roster_number(self) -> int:
        """The number of the newest roster."""
        return self.charter.number

    async def ingest(
        self, server_id: str, epoch: int, start: int, entries: list[bytes], checkpoint: bytes
    ) -> int:
        """Store entries of another server's feed under its checkpoint and fold them.

        Returns:
            The size of the feed as held now.

        Raises:
            NotFoundError: the roster does not name that server.
            ConflictError: there is a gap before ``start``.
            UnavailableError: the feed's stamps are more than 30 seconds ahead.
            WireError: the checkpoint does not sign these entries.
        """
        name = ServerId(server_id)
        certificate = self.charter.server(name)
        if certificate is None or name == self.server_id or certificate.epoch != epoch:
            raise NotFoundError(f"{server_id} has no feed of epoch {epoch} in the roster")
        async with self._locks.setdefault(name, asyncio.Lock()):
            log = self._logs.get(name)
            if log is None:
                log = await asyncio.to_thread(
                    open_feed, self._folder, self.mesh_id, certificate, self.server_id
                )
                self._logs[name] = log
            if start > log.size:
                raise ConflictError(f"held are {log.size} entries, offered from {start}")
            fresh = entries[log.size - start :]
            if not fresh:
                return log.size
            checked = await asyncio.to_thread(self._check, fresh)
            self._refuse_future(checked)
            have = log.size
            await asyncio.to_thread(log.extend, fresh, checkpoint)
            await self._fold_in(name, have, checked)
            self._cosign(name, log)
            return log.size

    async def cosignature(self, server_id: str, epoch: int, size: int, line: bytes) -> None:
        """Take a witness's cosignature of this server's feed."""
        if server_id == self.server_id and epoch == self._own.epoch:
            root = self._own.root_at(size)
            if root is not None:
                self._attestor.add(size, root, line)
                await self._attestor.settle(self._own)

    async def name_roster(self) -> None:
        """Say on this feed which roster its records go by, if there is a newer one."""
        feed = self._fold.feeds.get(self.server_id)
        named = feed.roster_number if feed else 0
        if self.charter.number > named and self.charter.server(self.server_id) is not None:
            await self.submit([self._attestor.roster_record(self.charter)])

    async def save_snapshot(self) -> None:
        """Write the signed state file of the settled point."""
        async with self._writer.quiet():
            data = self._settled_state()
        await asyncio.to_thread(write_atomic, self._folder / "state", data)

    def _settled_state(self) -> bytes:
        points, horizon_ms = self._fold.settled_points()
        self._fold.state.watch(None)
        provisional = self._fold.without_provisional()
        try:
            snapshot = Snapshot(
                state=self._fold.state,
                charter_records=(*self.charter.records, *self._fold.limits.records),
                points=points,
                horizon_ms=horizon_ms,
            )
            return encode_snapshot(snapshot, mesh_id=self.mesh_id, sign=self._key.sign)
        finally:
            self._fold.with_provisional(provisional)
            self._fold.state.watch(self._note)

    def verify_logs(self) -> list[dict[str, Any]]:
        """Re-derive every tile of every log; report each log's size, or what is wrong with it."""
        report: list[dict[str, Any]] = []
        for server_id, log in tuple(self._logs.items()):
            facts: dict[str, Any] = {"server_id": server_id, "path": log.path}
            try:
                facts |= {"good": True, "size": log.verify()}
            except CorruptError as error:
                facts |= {"good": False, "damaged": f"{log.path}/{error.path}", "why": str(error)}
            report.append(facts)
        return report

    async def publish(self) -> None:
        """Bring every log's tiles and checkpoint file up to date."""
        await asyncio.to_thread(self._publish_all)

    def _load(self) -> None:
        self._logs.clear()
        snapshot = self._read_snapshot()
        try:
            self._build(snapshot)
        except HorizonError:
            logger.info("the state file reaches too far: folding from the first record")
            self._build(None)

    def _read_snapshot(self) -> Snapshot | None:
        path = self._folder / "state"
        if not path.exists():
            return None
        genesis = Charter(self._charter_records[0]).genesis
        with open_private(path) as file:
            return decode_snapshot(
                file, mesh_id=genesis.mesh_id, key=self._key.public_key, verify=verify
            )

    def _build(self, snapshot: Snapshot | None) -> None:
        charter = Charter(self._charter_records[0])
        standing = (
            *self._charter_records[1:],
            *(snapshot.charter_records[1:] if snapshot else ()),
        )
        for record in standing:
            if record.kind not in LIMIT_KINDS:
                charter.offer(record)
        self._fold = Fold(
            charter=charter,
            state=snapshot.state if snapshot else State(),
            appliers=self._appliers,
            verify=verify,
            root_at=lambda server_id, size: self._logs[server_id].root_at(size),
        )
        points: dict[ServerId, FeedPoint] = {}
        if snapshot is not None:
            points = snapshot.points
            self._fold.resume(points, snapshot.horizon_ms)
        self._fold.publish_charter(one for one in standing if one.kind in LIMIT_KINDS)
        replayed: set[ServerId] = set()
        # A feed may name servers whose feeds are held, too.
        while names := self._open_logs(charter) - replayed:
            for server_id in sorted(names):
                self._replay(server_id, self._logs[server_id], points.get(server_id))
            replayed |= names

    def _open_logs(self, charter: Charter) -> set[ServerId]:
        """Open the logs of servers in the roster that are not open yet; return all that are."""
        for certificate in charter.servers().values():
            name = certificate.server_id
            held = name == self.server_id or (self._folder / "feeds" / name).exists()
            if held and name not in self._logs:
                self._logs[name] = open_feed(
                    self._folder, charter.genesis.mesh_id, certificate, self.server_id, self._key
                )
        own_log = self._logs.get(self.server_id)
        if own_log is None:
            raise CorruptError(
                "the roster does not name this server",
                path="identity/root_chain.json",
                mend="join the mesh again with a new invitation",
            )
        self._own = own_log
        return set(self._logs)

    def _replay(self, server_id: ServerId, log: FeedLog, point: FeedPoint | None) -> None:
        at = point.size if point else 0
        if at > log.size:
            raise CorruptError(
                "the state file covers more than the feed holds",
                path=log.path,
                mend="restore the ledger folder from a backup; entries are missing",
            )
        while at < log.size:
            entries = log.read(at, min(at + READ_BATCH, log.size))
            # What this server accepted it has checked; its own checkpoint covers it.
            own = server_id == self.server_id
            checked = _parse(entries) if own else self._check(entries)
            self._fold.add(server_id, at, checked)
            at += len(entries)

    def _check(self, entries: Sequence[bytes]) -> list[Checked]:
        """Parse entries of another server; one with a wrong signature counts for nothing."""
        mesh_id = self._fold.mesh_id
        result = []
        for checked in _parse(entries):
            record = checked.entry.record if checked.entry else None
            good = record is not None and verify(
                record.actor, record.signed_bytes(mesh_id), record.actor_sig
            )
            result.append(checked if good else Checked(None))
        return result

    def _refuse_future(self, checked: Sequence[Checked]) -> None:
        limit = self._clock.now_ms() + MAX_AHEAD_MS
        if any(one.entry is not None and hlc_ms(one.entry.hlc) > limit for one in checked):
            raise UnavailableError("the feed's clock is ahead of ours", code="clock_ahead")

    async def _fold_in(self, server_id: ServerId, start: int, checked: list[Checked]) -> None:
        number, fold = self.charter.number, self._fold
        feed = fold.feeds.get(server_id)
        # Where the fold was made again meanwhile it has read some of them from the log already.
        known = max((feed.size if feed else 0) - start, 0)
        try:
            fold.add(server_id, start + known, checked[known:])
        except HorizonError:
            async with self._writer.quiet():
                if self._fold is fold:
                    self._rebuild()
        for one in checked:
            if one.entry is not None:
                self._writer.observe(one.entry.hlc)
        self._flush_changes()
        if self.charter.number > number:
            self._tasks.spawn(self.name_roster(), name="ledger-name-roster")

    def _rebuild(self) -> None:
        logger.info("entries settled long ago arrived: folding from the first record")
        before = self._fold.state
        self._build(None)
        self._writer.fold = self._attestor.fold = self._fold
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
        line = self._attestor.cosign(log)
        if line is not None and self._on_cosign is not None:
            self._on_cosign(server_id, log.epoch, log.size, line)

    def _note(self, place: bytes, old: bytes | None, new: bytes | None) -> None:
        first = self._touched.get(place)
        self._touched[place] = (old if first is None else first[0], new)

    def _after_commit(self) -> None:
        if self._writer.take_horizon():
            self._rebuild()
        self._flush_changes()
        for callback in self._append_callbacks:
            callback()

    def _flush_changes(self) -> None:
        touched, self._touched = self._touched, {}
        changes = []
        for old, new in touched.values():
            if old != new:
                view, key, _ = orjson.loads(new or old or b"null")
                old_value = orjson.loads(old)[2] if old else None
                new_value = orjson.loads(new)[2] if new else None
                changes.append(Change(view=view, key=key, old=old_value, new=new_value))
        for views, subscriber in self._subscribers if changes else ():
            wanted = [change for change in changes if change.view in views]
            if wanted:
                subscriber(wanted)

    def _publish_all(self) -> None:
        for log in tuple(self._logs.values()):
            log.publish()

    async def _housekeeping(self) -> None:
        last_snapshot_s = self._clock.monotonic_s()
        while True:
            await asyncio.sleep(self._settings.attest_interval_s)
            await self._attestor.settle(self._own)
            await self.publish()
            if self._clock.monotonic_s() - last_snapshot_s > self._settings.snapshot_interval_s:
                await self.save_snapshot()
                last_snapshot_s = self._clock.monotonic_s()


def _parse(entries: Sequence[bytes]) -> list[Checked]:
    result = []
    for data in entries:
        try:
            result.append(Checked(decode_entry(data)))
        except WireError:
            result.append(Checked(None))
    return result
