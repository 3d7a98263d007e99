"""The one writer of a server's own feed: transactions in, durable entries out, many to one fsync.

A transaction is a list of records that count together or not at all. It is checked against the
state plus what is before it in the same batch; nobody is answered before the batch is on the disk.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

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

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from services.base.ledger.feedrules import Verify
    from services.kernel.clock import Clock
    from services.kernel.ids import ServerId

MAX_BATCH = 256
MAX_CHECKED_AT_ONCE = 32
MAX_QUEUED = 4096


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
    ) -> None:
        self._server_id = server_id
        self.fold = fold
        self._log = log
        self._clock = clock
        self._verify = verify
        self._on_fatal = on_fatal
        self._on_commit = on_commit
        self._queue: asyncio.Queue[_Transaction] = asyncio.Queue(maxsize=MAX_QUEUED)
        self._checked: asyncio.Queue[_Transaction] = asyncio.Queue(maxsize=MAX_BATCH)
        self._next_index = log.size
        self._committing = asyncio.Lock()
        self.last_hlc = Hlc(0)
        self.read_only = ""
        self._past_horizon = False

    async def submit(self, records: Sequence[Record]) -> list[Receipt]:
        """Append records together; return when they are durable.

        Raises:
            RejectedError: a rule of a view forbids one of them; nothing was appended.
            UnavailableError: the queue is full, or this server takes no writes now.
        """
        if self.read_only:
            raise UnavailableError(self.read_only, code="read_only")
        future: asyncio.Future[list[Receipt]] = asyncio.get_running_loop().create_future()
        try:
            self._queue.put_nowait(_Transaction(tuple(records), future))
        except asyncio.QueueFull:
            raise UnavailableError("too many writes are waiting", mend="try again") from None
        return await future

    def observe(self, stamp: Hlc) -> None:
        """Never stamp below what was seen on another feed."""
        self.last_hlc = max(self.last_hlc, stamp)

    def take_horizon(self) -> bool:
        """Say, once, whether the fold must be made again from the first record."""
        past, self._past_horizon = self._past_horizon, False
        return past

    async def run(self) -> None:
        """Commit group after group until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._check_forever(), name="ledger-check")
            group.create_task(self._commit_forever(), name="ledger-commit")

    async def _check_forever(self) -> None:
        """Check signatures in a thread, while the batch before is accepted and written."""
        while True:
            batch = await _batch_of(self._queue, MAX_CHECKED_AT_ONCE)
            await asyncio.to_thread(self._check_batch, batch)
            for transaction in batch:
                await self._checked.put(transaction)

    async def _commit_forever(self) -> None:
        while True:
            batch = await _batch_of(self._checked, MAX_BATCH)
            async with self._committing:
                await self._commit(batch)

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

    def quiet(self) -> asyncio.Lock:
        """Return the lock under which no batch is accepted in memory and not on the disk yet."""
        return self._committing

    async def _commit(self, batch: list[_Transaction]) -> None:
        accepted: list[tuple[_Transaction, list[Receipt]]] = []
        data: list[bytes] = []
        for transaction in batch:
            try:
                receipts, encoded = self._accept(transaction)
            except SeipdError as error:
                _fail(transaction, error)
                continue
            accepted.append((transaction, receipts))
            data.extend(encoded)
        if not data:
            return
        try:
            await asyncio.to_thread(self._log.commit, data)
        except StorageError as error:
            self.read_only = f"the disk refused a write: {error}"
            for transaction, _ in accepted:
                _fail(transaction, error)
            self._on_fatal(error)
            return
        for transaction, receipts in accepted:
            if not transaction.future.done():
                transaction.future.set_result(receipts)
        self._on_commit()

    def _accept(self, transaction: _Transaction) -> tuple[list[Receipt], list[bytes]]:
        if transaction.error is not None:
            raise transaction.error
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
        if self._past_horizon:
            raise UnavailableError("the ledger is being put in order", mend="try again")
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
            items, self._past_horizon = [], True
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


async def _batch_of(queue: asyncio.Queue[_Transaction], limit: int) -> list[_Transaction]:
    """Wait for one; take along what else is there, up to a limit."""
    batch = [await queue.get()]
    while len(batch) < limit and not queue.empty():
        batch.append(queue.get_nowait())
    return batch
