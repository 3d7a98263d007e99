"""The one writer of a server's own feed: transactions in, durable entries out, many to one fsync.

A transaction is a list of records that count together or not at all. It is checked against the
state plus what is before it; nobody is answered before the batch is on the disk. The signatures of
one batch are checked, and another is accepted in memory, while a third is written.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeVar

from services.base.ledger.fold import Fold, HorizonError
from services.base.ledger.standing import Checked, Item
from services.kernel.errors import (
    ForbiddenError,
    RejectedError,
    SeipdError,
    StorageError,
    UnavailableError,
)
from services.kernel.hlc import Hlc, format_hlc, next_hlc
from services.kernel.records import MAX_RECORD_BYTES, Entry, Record
from services.kernel.versions import unknown_version

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from services.base.ledger.feedrules import Verify
    from services.kernel.clock import Clock
    from services.kernel.ids import ServerId

MAX_CHECKED_AT_ONCE = 32
MAX_BATCHES_WAITING = 4
MAX_QUEUED = 4096
MAX_CLOSED_S = 20.0

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """Where an accepted record lies: which feed, which index, with which stamp."""

    record_id: str
    server_id: ServerId
    index: int
    hlc: str


@dataclass(slots=True)
class _Transaction:
    records: tuple[Record, ...]
    future: asyncio.Future[list[Receipt]]
    encoded: list[bytes] = field(default_factory=list)
    error: SeipdError | None = None


@dataclass(slots=True)
class _Batch:
    """What was accepted in memory and goes to the disk together."""

    answers: list[tuple[_Transaction, list[Receipt]]] = field(default_factory=list)
    data: list[bytes] = field(default_factory=list)


class OwnLog(Protocol):
    """The part of the log on disk that the writer needs."""

    @property
    def size(self) -> int:
        """How many entries are durable."""

    def commit(self, entries: list[bytes]) -> None:
        """Append under a new signed checkpoint; durable on return."""


class Writer:
    """Accepts transactions in order and commits them in groups."""

    def __init__(
        self,
        *,
        server_id: ServerId,
        fold: Fold,
        log: OwnLog,
        clock: Clock,
        verify: Verify,
        on_fatal: Callable[[BaseException], None],
        on_commit: Callable[[], None],
        disk_trouble: Callable[[], str] = lambda: "",
        clock_trouble: Callable[[], str] = lambda: "",
    ) -> None:
        self._server_id = server_id
        self.fold = fold
        self._log = log
        self._clock = clock
        self._verify = verify
        self._disk_trouble = disk_trouble
        self._clock_trouble = clock_trouble
        self._on_fatal = on_fatal
        self._on_commit = on_commit
        self._queue: asyncio.Queue[_Transaction] = asyncio.Queue(maxsize=MAX_QUEUED)
        self._checked: asyncio.Queue[list[_Transaction]] = asyncio.Queue(MAX_BATCHES_WAITING)
        self._accepted: asyncio.Queue[_Batch] = asyncio.Queue(MAX_BATCHES_WAITING)
        self._next_index = log.size
        self._accepting = asyncio.Lock()
        self._not_durable = 0
        self._all_durable = asyncio.Event()
        self._all_durable.set()
        self.last_hlc = Hlc(0)
        self.read_only = ""
        self._ordered = asyncio.Event()
        self._ordered.set()
        self._open = asyncio.Event()
        self._open.set()
        self.closed_why = ""

    async def submit(self, records: Sequence[Record]) -> list[Receipt]:
        """Append records together; return when they are durable.

        Raises:
            RejectedError: a rule of a view forbids one of them; nothing was appended.
            UnavailableError: the queue is full, or this server takes no writes now.
        """
        await self._wait_until_open()
        return await self.put(records)

    def put(self, records: Sequence[Record]) -> asyncio.Future[list[Receipt]]:
        """Queue records, also while nothing is appended: before all that waits for ``open``.

        Raises:
            UnavailableError: the queue is full, or this server takes no writes now.
        """
        self.require_writable()
        future: asyncio.Future[list[Receipt]] = asyncio.get_running_loop().create_future()
        try:
            self._queue.put_nowait(_Transaction(tuple(records), future))
        except asyncio.QueueFull:
            raise UnavailableError("too many writes are waiting", mend="try again") from None
        return future

    def refuses(self) -> str:
        """Say why no writes are taken; empty where they are."""
        return self.read_only or self._revoked() or unknown_version(self.fold.state)

    def _revoked(self) -> str:
        is_gone = self.fold.charter.removal(self._server_id) is not None
        return "this server was revoked" if is_gone else ""

    def require_writable(self) -> None:
        """Refuse where records would not be taken now.

        Raises:
            UnavailableError: ``read_only`` or ``clock_off``.
        """
        why = self.refuses() or self._disk_trouble()
        if why:
            raise UnavailableError(why, code="read_only")
        if off := self._clock_trouble():
            raise UnavailableError(off, code="clock_off", mend="set its clock, or ask another")

    async def _wait_until_open(self) -> None:
        if self._open.is_set() or self.refuses():
            return
        try:
            async with asyncio.timeout(MAX_CLOSED_S):
                await self._open.wait()
        except TimeoutError:
            raise UnavailableError(self.closed_why, code="catching_up", mend="try again") from None

    def close(self, why: str) -> None:
        """Append nothing until ``open``; who submits waits."""
        self.closed_why = why
        self._open.clear()

    def open(self) -> None:
        """Append again."""
        self.closed_why = ""
        self._open.set()

    @property
    def size(self) -> int:
        """How many entries the feed has with those that are not on the disk yet."""
        return self._next_index

    @property
    def may_append(self) -> bool:
        """Whether what is submitted now is neither refused nor has to wait for others."""
        return self._open.is_set() and not self.refuses()

    def resume_at(self, size: int) -> None:
        """Go on behind entries that came from elsewhere; only while it is quiet."""
        self._next_index = size

    def observe(self, stamp: Hlc) -> None:
        """Never stamp below what was seen on another feed."""
        self.last_hlc = max(self.last_hlc, stamp)

    def hold(self) -> None:
        """Let what is submitted from now on wait: the fold has to be made again."""
        self._ordered.clear()

    def in_order(self) -> None:
        """Go on: the fold was made again from the first record."""
        self._ordered.set()

    @property
    def is_held(self) -> bool:
        """Whether what is submitted waits for a new fold."""
        return not self._ordered.is_set()

    async def run(self) -> None:
        """Commit batch after batch until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._check_forever(), name="ledger-check")
                group.create_task(self._accept_forever(), name="ledger-accept")
                group.create_task(self._write_forever(), name="ledger-write")
        finally:
            # Whoever waits for the disk need wait no longer: nothing more will come there.
            self._all_durable.set()

    async def _check_forever(self) -> None:
        """Check signatures in a thread, while batches before are accepted and written."""
        while True:
            batch = await _all_of(self._queue, MAX_CHECKED_AT_ONCE)
            await asyncio.to_thread(self._check_batch, batch)
            await self._checked.put(batch)

    async def _accept_forever(self) -> None:
        while True:
            transactions = await self._checked.get()
            while transactions:
                await self._ordered.wait()
                await self._open.wait()
                async with self._accepting:
                    batch, transactions = self._accept_batch(transactions)
                    if batch.data:
                        self._not_durable += 1
                        self._all_durable.clear()
                        await self._accepted.put(batch)

    async def _write_forever(self) -> None:
        while True:
            batches = await _all_of(self._accepted, MAX_BATCHES_WAITING)
            await self._write(batches)

    def _check_batch(self, batch: list[_Transaction]) -> None:
        for transaction in batch:
            try:
                transaction.encoded = [self._check(record) for record in transaction.records]
            except SeipdError as error:
                transaction.error = error

    def _check(self, record: Record) -> bytes:
        data, signed = record.encode_with_signed(self.fold.mesh_id)
        if len(data) > MAX_RECORD_BYTES:
            raise RejectedError("a record has at most 16 KiB", code="too_large")
        if not self._verify(record.actor, signed, record.actor_sig):
            raise ForbiddenError("the record's signature is wrong", code="bad_signature")
        return data

    @contextlib.asynccontextmanager
    async def quiet(self) -> AsyncIterator[None]:
        """Hold a time in which nothing is accepted in memory that is not on the disk too."""
        async with self._accepting:
            await self._all_durable.wait()
            yield

    def _accept_batch(self, transactions: list[_Transaction]) -> tuple[_Batch, list[_Transaction]]:
        """Accept until the fold is out of order; return what has to wait for that."""
        batch = _Batch()
        for number, transaction in enumerate(transactions):
            if not self._ordered.is_set() or not self._open.is_set():
                return batch, transactions[number:]
            try:
                receipts, encoded = self._accept(transaction)
            except SeipdError as error:
                _fail(transaction, error)
                continue
            batch.answers.append((transaction, receipts))
            batch.data.extend(encoded)
        return batch, []

    async def _write(self, batches: list[_Batch]) -> None:
        answers = [answer for batch in batches for answer in batch.answers]
        data = [entry for batch in batches for entry in batch.data]
        try:
            await asyncio.to_thread(self._log.commit, data)
        except StorageError as error:
            for transaction, _ in answers:
                _fail(transaction, error)
            self._settle(len(batches))
            if not self.read_only:
                self.read_only = f"the disk refused a write: {error}"
                self._on_fatal(error)
            return
        for transaction, receipts in answers:
            if not transaction.future.done():
                transaction.future.set_result(receipts)
        self._settle(len(batches))
        self._on_commit()

    def _settle(self, count: int) -> None:
        self._not_durable -= count
        if not self._not_durable:
            self._all_durable.set()

    def _accept(self, transaction: _Transaction) -> tuple[list[Receipt], list[bytes]]:
        if transaction.error is not None:
            raise transaction.error
        self.require_writable()
        receipts: list[Receipt] = []
        encoded: list[bytes] = []
        items: list[Item] = []
        start = self._next_index
        try:
            for record, data in zip(transaction.records, transaction.encoded, strict=True):
                items.extend(self._accept_one(record, data, receipts, encoded))
        except SeipdError:
            self.fold.forget_last(len(items))
            self._next_index = start
            raise
        return receipts, encoded

    def _accept_one(
        self, record: Record, data: bytes, receipts: list[Receipt], encoded: list[bytes]
    ) -> list[Item]:
        now_ms = self._clock.now_ms()
        if record.not_after < now_ms:
            raise RejectedError("not_after has passed", code="record_expired")
        stamp = next_hlc(self.last_hlc, now_ms)
        # A stamp is never used twice, also not after a refusal: the fold has seen it.
        self.last_hlc = stamp
        index = self._next_index
        entry = Entry(hlc=stamp, record=record)
        try:
            items = self.fold.add(self._server_id, index, [Checked(entry)])
        except HorizonError:
            # An attest of ours settles what is older than the fold can take back.
            items = []
            self.hold()
        if items and items[0].refusal is not None:
            error = items[0].error
            self.fold.forget_last(1)
            raise error or RejectedError("the record has no effect", code=items[0].refusal)
        self._next_index += 1
        text = format_hlc(stamp)
        encoded.append(b'{"hlc":"' + text.encode() + b'","record":' + data + b"}")
        receipts.append(
            Receipt(record_id=record.id, server_id=self._server_id, index=index, hlc=text)
        )
        return items


def _fail(transaction: _Transaction, error: SeipdError) -> None:
    if not transaction.future.done():
        transaction.future.set_exception(error)


async def _all_of(queue: asyncio.Queue[_T], limit: int) -> list[_T]:
    """Wait for one; take along what else is there, up to a limit."""
    taken = [await queue.get()]
    while len(taken) < limit and not queue.empty():
        taken.append(queue.get_nowait())
    return taken
