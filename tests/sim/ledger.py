"""What LedgerService does, without disk, threads or a loop: the same fold, writer and attestor.

Accepting, checking, settling and refusing are the real ones; that a group is accepted while nothing
is being written, answered for only after its fsync, and lost when the server falls in between, is
played here as the service does it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections import deque
from typing import TYPE_CHECKING, Any

from services.base.ledger.attest import Attestor
from services.base.ledger.checkpoint import Checkpoint, sign_checkpoint, verify_checkpoint
from services.base.ledger.fold import HorizonError
from services.base.ledger.forks import accusation, is_other_branch, kept_of
from services.base.ledger.note import NoteVerifier
from services.base.ledger.state import State
from services.base.ledger.witnesskey import WitnessKey
from services.kernel.errors import (
    ConflictError,
    NotFoundError,
    SeipdError,
    UnavailableError,
    WireError,
)
from services.kernel.hlc import hlc_ms
from services.kernel.ids import ServerId, server_id_of
from tests.sim.authoring import Reader, SeededAuthor
from tests.sim.driving import Parked, drive
from tests.sim.loading import Disk, Loader
from tests.sim.pen import Answer, Later, Pen
from tests.sim.shelf import Shelf
from tests.sim.tape import Copy, Tape

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Coroutine, Sequence

    from services.base.crypto.signatures import SigningKey
    from services.base.ledger.fold import Fold
    from services.base.ledger.roster import Charter
    from services.base.ledger.standing import Checked
    from services.base.ledger.writer import Receipt
    from services.kernel.clock import Clock
    from services.kernel.records import Record
    from tests.sim.founding import Founding

MAX_AHEAD_MS = 30_000  # these as LedgerService has them
CALM_S = 0.25
MAX_CALMS = 240
COSIGN_AGAIN_S = 5.0


class SimLedger(Shelf):
    """One server's feeds and fold."""

    def __init__(
        self,
        *,
        founding: Founding,
        key: SigningKey,
        disk: Disk,
        reader: Reader,
        clock: Clock,
        later: Later,
        rng: random.Random,
        retain_settled: int,
        fsync_s: float,
        on_append: Callable[[], None],
        on_cosign: Callable[[str, int, int, bytes], None],
        on_fatal: Callable[[SeipdError], None],
        waits: bool,
        charter: Charter | None = None,
    ) -> None:
        self.server_id = server_id_of(key.public_key)
        super().__init__(disk.feeds)
        self.rebuilds = 0
        self._founding = founding
        self._key = key
        self._disk = disk
        self._reader = reader
        self._clock = clock
        self._later = later
        self._fsync_s = fsync_s
        self._on_append = on_append
        self._on_cosign = on_cosign
        self._on_fatal = on_fatal
        self._behind = False
        self._ingest_count = 0
        self._next_cosign_s = 0.0
        self._ingesting: dict[str, deque[tuple[Any, ...]]] = {}
        self.held.setdefault(self.server_id, self._empty(self.server_id))
        self.lazy = charter is not None
        self._loader = Loader(
            founding=founding,
            key=key,
            own_id=self.server_id,
            disk=disk,
            held=self.held,
            retain_settled=retain_settled,
        )
        self.fold = self._loader.load() if charter is None else self._loader.bare(charter, State())
        self._pen = Pen(
            server_id=self.server_id,
            fold=self.fold,
            size=self.size,
            clock=clock,
            later=later,
            fsync_s=fsync_s,
            on_fatal=on_fatal,  # type: ignore[arg-type]
            on_written=self._written,
            on_commit=self._committed,
            waits=waits,
        )
        self.writer = self._pen.writer
        self._author = SeededAuthor(key, founding.mesh_id, clock, rng)
        self.attestor = self._attestor()

    def _attestor(self) -> Attestor:
        """Return what speaks for this server in words that are the same from the same seed."""
        attestor = Attestor(
            key=self._key,
            fold=self.fold,
            clock=self._clock,
            submit=self._submit,
            witness_key=WitnessKey(key=self._key, clock=self._clock),
        )
        attestor._author = self._author  # type: ignore[assignment]
        return attestor

    @property
    def size(self) -> int:
        """How many entries of the own feed are durable."""
        return self.held[self.server_id].size

    @property
    def is_busy(self) -> bool:
        """Whether anything is under way that ends by itself."""
        return bool(self._pen.is_busy or self._ingesting or self._behind)

    def submit(self, records: Sequence[Record], answer: Answer) -> None:
        """Accept records together, or refuse; the answer comes when they are durable."""
        self._pen.submit(records, answer)

    def own_feed_current(self) -> None:
        """Append from now on: nobody holds more of the own feed, as far as can be known."""
        self._pen.open()

    def ingest(
        self,
        server_id: str,
        epoch: int,
        start: int,
        entries: Sequence[bytes],
        checkpoint: bytes,
        done: Callable[[SeipdError | None], None],
    ) -> None:
        """Store entries of another server; ``done`` hears how it went once they are durable."""
        waiting = self._ingesting.get(server_id)
        order = (server_id, epoch, start, entries, checkpoint, done)
        if waiting is not None:
            waiting.append(order)
            return
        self._ingesting[server_id] = deque()
        self._later(self._fsync_s, self._store, *order)

    def cosignature(self, server_id: str, epoch: int, size: int, line: bytes) -> None:
        own = self.held[self.server_id]
        if server_id == self.server_id and epoch == own.epoch:
            with contextlib.suppress(SeipdError):
                self.attestor.add(own, size, line)
                self._drive(self.attestor.settle(own), fatal=False)

    def contradict(self, server_id: str, epoch: int, checkpoint: bytes) -> None:
        """Compare a checkpoint with what is held; append the proof if its author lied."""
        name = ServerId(server_id)
        copy, certificate = self._copy(name, epoch), self.charter.last_certificate(name)
        if copy is None or certificate is None or self.fold.limits.is_untrusted(name):
            return
        try:
            records = accusation(self.fold, self._author, copy, certificate, checkpoint)  # type: ignore[arg-type]
        except SeipdError:
            return
        if records:
            self._drive(self._submit(records), fatal=False)

    # What the service does by itself.

    def housekeep(self) -> None:
        if not self.lazy:
            self._drive(self.attestor.settle(self.held[self.server_id]), fatal=True)
            self._cosign_again()

    def name_roster(self) -> None:
        feed = self.fold.feeds.get(self.server_id)
        named = feed.roster_number if feed else 0
        if self.charter.number > named and self.charter.server(self.server_id) is not None:
            record = self.attestor.roster_record(self.charter)
            self._drive(self._submit([record]), fatal=True)

    def save_state(self) -> None:
        """Write the state file, as the service does now and then."""
        if not self.lazy:
            self._pen.when_quiet(lambda: self._loader.save(self.fold))

    def folded_anew(self) -> Fold:
        """Return what the feeds give that are held here, from the first record."""
        return self._loader.build(None)

    def _written(self, data: list[bytes]) -> None:
        own = self.held[self.server_id]
        tape, size = own.extended(data)
        checkpoint = Checkpoint(origin=own.origin, size=size, root=tape.roots[size])
        note = sign_checkpoint(checkpoint, signer=self._key)
        self._hold(self.server_id, dataclasses.replace(own, tape=tape, size=size, checkpoint=note))

    def _committed(self) -> None:
        if self.writer.is_held:
            self._fall_behind()
        self._on_append()

    def _store(
        self,
        server_id: str,
        epoch: int,
        start: int,
        entries: Sequence[bytes],
        checkpoint: bytes,
        done: Callable[[SeipdError | None], None],
    ) -> None:
        try:
            self._store_now(ServerId(server_id), epoch, start, entries, checkpoint)
        except SeipdError as error:
            done(error)
        else:
            done(None)
        if waiting := self._ingesting[server_id]:
            self._later(self._fsync_s, self._store, *waiting.popleft())
        else:
            del self._ingesting[server_id]

    def _store_now(
        self, name: ServerId, epoch: int, start: int, entries: Sequence[bytes], note: bytes
    ) -> None:
        certificate = self.charter.last_certificate(name)
        if certificate is None or name == self.server_id or certificate.epoch != epoch:
            raise NotFoundError(f"{name} has no feed of epoch {epoch} in the roster")
        copy = self.held.get(name) or self._empty(name, epoch)
        if start > copy.size:
            raise ConflictError(f"held are {copy.size} entries, offered from {start}")
        fresh = entries[copy.size - start :]
        if not fresh:
            return
        checked = [] if self.lazy else self._reader.check(fresh)
        self._refuse_future(checked)
        verifier = NoteVerifier(name=copy.origin, public_key=certificate.key)
        signed = verify_checkpoint(note, verifier, copy.origin)
        if signed.size != copy.size + len(fresh):
            raise WireError("the checkpoint is of another size")
        tape, size = copy.extended(fresh)
        if tape.roots[size] != signed.root:
            raise WireError("the checkpoint does not sign these entries")
        self._hold(name, dataclasses.replace(copy, tape=tape, size=size, checkpoint=note))
        if not self.lazy:
            self._fold_in(name, copy.size, checked)
        if name in self.held:
            self._cosign(self.held[name])

    def _cosign(self, copy: Copy) -> None:
        line = self.attestor.cosign(copy) if self._limit_of(copy.server_id) is None else None
        if line is not None:
            self._on_cosign(copy.server_id, copy.epoch, copy.size, line)

    def _cosign_again(self) -> None:
        now_s = self._clock.monotonic_s()
        if now_s < self._next_cosign_s:
            return
        self._next_cosign_s = now_s + COSIGN_AGAIN_S
        for name, copy in tuple(self.held.items()):
            feed = self.fold.feeds.get(name)
            if feed is not None and feed.unsettled and name != self.server_id:
                self._cosign(copy)

    def _fold_in(self, name: ServerId, start: int, checked: list[Checked]) -> None:
        self._ingest_count += 1
        number, limit_count = self.charter.number, self.fold.limit_count
        for one in checked:
            if one.entry is not None:
                self.writer.observe(one.entry.hlc)
        if self._behind:
            return
        known = max(self.fold.feed(name).size - start, 0)
        try:
            self.fold.add(name, start + known, checked[known:])
        except HorizonError:
            self._fall_behind()
            return
        if self.charter.number > number:
            self._later(0.0, self.name_roster)
        copy = self.held.get(name)
        other_branch = copy is not None and is_other_branch(self.fold, copy)  # type: ignore[arg-type]
        if self.fold.limit_count != limit_count or other_branch:
            self._later(0.0, self.mind_limits)

    def _fall_behind(self) -> None:
        """Only store what comes until it stops coming; then fold everything at once."""
        if not self._behind:
            self._behind = True
            self._later(CALM_S, self._calm, self._ingest_count, 1)

    def _calm(self, count: int, tries: int) -> None:
        if self._ingest_count == count or tries >= MAX_CALMS:
            self._pen.when_quiet(self._put_in_order)
        else:
            self._later(CALM_S, self._calm, self._ingest_count, tries + 1)

    def _put_in_order(self) -> None:
        self._rebuild()
        self._later(0.0, self.name_roster)
        self._later(0.0, self.mind_limits)

    def mind_limits(self) -> None:
        """Put the wrong branches of feeds aside; bring forward what counts of the right ones."""
        for name, copy in tuple(self.held.items()):
            if name == self.server_id or not is_other_branch(self.fold, copy):  # type: ignore[arg-type]
                continue
            if name in self._ingesting:
                self._later(self._fsync_s, self.mind_limits)
            else:
                self._pen.when_quiet(functools.partial(self._put_aside, name))
            return
        for record in self._missing_words():
            self._drive(self._submit([record]), fatal=True)

    def _missing_words(self) -> list[Record]:
        if self.server_id not in self.witnesses():
            return []
        words = []
        for name, certificate in self.charter.certificates().items():
            proof, held = self.fold.limits.proof_against(name), self._copy(name, certificate.epoch)
            if proof is None or name == self.server_id:
                continue
            if self.fold.state.get("trust", name) is None:
                words.append(self._author.record(proof.kind, proof.body))
            kept = kept_of(self.fold, self._author, held, certificate) if held else None  # type: ignore[arg-type]
            words += [kept] if kept is not None else []
        return words

    def _put_aside(self, name: ServerId) -> None:
        self._disk.aside.append(self.held.pop(name))
        del self._disk.feeds[name]
        self._rebuild()
        self._later(0.0, self.mind_limits)

    def _refuse_future(self, checked: Sequence[Checked]) -> None:
        limit = self._clock.now_ms() + MAX_AHEAD_MS
        if any(one.entry is not None and hlc_ms(one.entry.hlc) > limit for one in checked):
            raise UnavailableError("the feed's clock is ahead of ours", code="clock_ahead")

    def _hold(self, name: ServerId, copy: Copy) -> None:
        self.held[name] = self._disk.feeds[name] = copy

    def _empty(self, server_id: str, epoch: int = 1) -> Copy:
        origin = self._founding.origin(server_id, epoch)
        return Copy(tape=Tape(), origin=origin, server_id=ServerId(server_id), epoch=epoch)

    def _rebuild(self) -> None:
        self.rebuilds += 1
        fold = self._loader.build(None)
        for name, copy in self.held.items():
            # Also of a server that the roster does not name any more, or yet.
            size = fold.feed(name).size
            if size < copy.size:
                fold.add(name, size, self._reader.check(copy.read(size, copy.size)))
        self.fold = self.writer.fold = self.attestor.fold = fold
        self._behind = False
        self._pen.go_on()

    async def _submit(self, records: Sequence[Record]) -> list[Receipt]:
        outcome = await Parked(lambda answer: self.submit(records, answer))
        if isinstance(outcome, SeipdError):
            raise outcome
        receipts: list[Receipt] = outcome
        return receipts

    def _drive(self, work: Coroutine[Any, Any, Any], *, fatal: bool) -> None:
        drive(work, self._on_fatal if fatal else lambda _: None)
