"""How records come onto a server's own feed: the real writer's judgement, played writing.

What is accepted in memory is written in groups, one at a time; nobody is answered before the fsync
has returned, and what a fall catches in between was never there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from services.base.crypto.signatures import verify
from services.base.ledger.writer import Receipt, Writer, _Transaction
from services.kernel.errors import SeipdError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.base.ledger.fold import Fold
    from services.kernel.clock import Clock
    from services.kernel.ids import ServerId
    from services.kernel.records import Record

Answer = Callable[[list[Receipt] | SeipdError], None]
Later = Callable[..., None]
Batch = tuple[list[bytes], list[tuple[Answer, list[Receipt]]]]


class Pen:
    """See the module."""

    def __init__(
        self,
        *,
        server_id: ServerId,
        fold: Fold,
        size: int,
        clock: Clock,
        later: Later,
        fsync_s: float,
        on_fatal: Callable[[BaseException], None],
        on_written: Callable[[list[bytes]], None],
        on_commit: Callable[[], None],
        waits: bool,
    ) -> None:
        self._later = later
        self._fsync_s = fsync_s
        self._on_written = on_written
        self._on_commit = on_commit
        self._queue: deque[tuple[_Transaction, Answer]] = deque()
        self._staged: list[Batch] = []
        self._writing = False
        self._is_open = not waits
        self._at_quiet: list[Callable[[], None]] = []
        self.writer = Writer(
            server_id=server_id,
            fold=fold,
            log=_Size(size),  # type: ignore[arg-type]
            clock=clock,
            verify=verify,
            on_fatal=on_fatal,
            on_commit=lambda: None,
        )
        for feed in fold.feeds.values():
            self.writer.observe(feed.last_hlc)  # type: ignore[arg-type]

    @property
    def is_busy(self) -> bool:
        return bool(self._writing or self._staged or self._queue)

    def submit(self, records: Sequence[Record], answer: Answer) -> None:
        """Accept records together, or refuse; the answer comes when they are durable."""
        transaction = _Transaction(tuple(records), None)  # type: ignore[arg-type]
        self.writer._check_batch([transaction])
        self._queue.append((transaction, answer))
        self._accept()

    def open(self) -> None:
        """Accept what waited until the others had told how long the own feed is."""
        self._is_open = True
        self._accept()

    def go_on(self) -> None:
        """Accept again: the fold was made again from the first record."""
        self.writer.in_order()
        self._later(0.0, self._accept)

    def when_quiet(self, action: Callable[[], None]) -> None:
        """Do something while nothing is accepted in memory that is not on the disk too."""
        self._at_quiet.append(action)
        self._be_quiet()

    def _accept(self) -> None:
        """Accept what waits, unless something has to come first; write what is accepted."""
        if self._at_quiet or not self._is_open:
            return
        data: list[bytes] = []
        accepted = []
        while self._queue and not self.writer.is_held:
            transaction, answer = self._queue.popleft()
            try:
                receipts, encoded = self.writer._accept(transaction)
            except SeipdError as error:
                self._later(0.0, answer, error)
                continue
            accepted.append((answer, receipts))
            data.extend(encoded)
        if data:
            self._staged.append((data, accepted))
        self._write()

    def _write(self) -> None:
        if self._staged and not self._writing:
            self._writing = True
            batches, self._staged = self._staged, []
            self._later(self._fsync_s, self._written, batches)

    def _written(self, batches: list[Batch]) -> None:
        """The fsync has returned: now the entries are there, and whoever asked is answered."""
        self._on_written([entry for data, _ in batches for entry in data])
        self._writing = False
        for _, accepted in batches:
            for answer, receipts in accepted:
                answer(receipts)
        self._on_commit()
        self._write()
        self._be_quiet()

    def _be_quiet(self) -> None:
        while self._at_quiet and not self._writing and not self._staged:
            self._at_quiet.pop(0)()
        if not self._at_quiet and self._queue:
            self._accept()


class _Size:
    """All that the writer needs to know of its log at first."""

    def __init__(self, size: int) -> None:
        self.size = size
