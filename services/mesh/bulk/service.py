"""Drives a download: asks the sources, stores the chunks, waits where there is nothing to do.

Requests go on while a chunk is stored. When it is interrupted nothing is lost but what was not
stored yet: the next one begins at what the copy holds.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from services.base.crypto.signatures import BadSignatureError
from services.base.ledger.checkpoint import Checkpoint, verify_checkpoint
from services.base.ledger.note import MAX_NOTE_BYTES, NoteError, encode_note, open_note
from services.kernel.errors import (
    ForbiddenError,
    NotFoundError,
    RateLimitedError,
    SeipdError,
    TooLargeError,
    UnauthenticatedError,
)
from services.mesh.bulk.download import Download
from services.mesh.bulk.ports import Outcome
from services.mesh.bulk.sources import Failure
from services.runtime.tasks import TaskOwner

if TYPE_CHECKING:
    from collections.abc import Mapping

    from services.base.ledger.note import NoteVerifier
    from services.kernel.clock import Clock
    from services.mesh.bulk.effects import Request
    from services.mesh.bulk.ports import FeedSink, TileSource
    from services.mesh.bulk.sources import Chance

logger = logging.getLogger(__name__)

MAX_ASKED: Final = 8
MAX_ROUNDS: Final = 3
OFFER_TIMEOUT_S: Final = 15.0


async def catch_up(
    *, sources: Mapping[str, TileSource], sink: FeedSink, clock: Clock, rng: Chance
) -> Outcome:
    """Bring a copy of a feed to the newest checkpoint that one of the sources has published.

    Args:
        sources: who may be asked, by name, the preferred first; the first few are.
        sink: the copy.
        clock: for pauses and for what is slow.
        rng: for the length of pauses.

    Returns:
        How far it came, which may be nowhere, and what was wrong with which source.

    Raises:
        ForkedError: the copy is not the beginning of what the feed's author signed since.
        SeipdError: whatever storing raises.
    """
    return await _CatchUp(sources, sink, clock, rng).run()


class _CatchUp:
    def __init__(
        self, sources: Mapping[str, TileSource], sink: FeedSink, clock: Clock, rng: Chance
    ) -> None:
        self._sources = dict(list(sources.items())[:MAX_ASKED])
        self._sink = sink
        self._clock = clock
        self._rng = rng
        self._blamed: dict[str, str] = {}
        self._failed: dict[str, str] = {}

    async def run(self) -> Outcome:
        target_size = 0
        for _ in range(MAX_ROUNDS):
            have, root = self._sink.held()
            offers = await self._offers()
            if not offers:
                break
            note, target = max(offers.values(), key=lambda offer: offer[1].size)
            target_size = target.size
            if target_size <= have:
                break
            download = Download(
                checkpoint=note,
                target=target,
                have=have,
                root=root,
                sources={name: checkpoint.size for name, (_, checkpoint) in offers.items()},
                rng=self._rng,
            )
            done = await _Drive(download, self._sources, self._sink, self._clock).run()
            self._note(download)
            if done:
                break
            # Sources that have gone on to a later checkpoint may be able to bring that one.
        return Outcome(
            size=self._sink.held()[0],
            target_size=target_size,
            blamed=self._blamed,
            failed=self._failed,
        )

    async def _offers(self) -> dict[str, tuple[bytes, Checkpoint]]:
        """Return the checkpoint that each source has published."""
        offers: dict[str, tuple[bytes, Checkpoint]] = {}
        async with asyncio.TaskGroup() as group:
            for name in self._sources:
                if name not in self._blamed and name not in self._failed:
                    group.create_task(self._offer(name, offers))
        # In the order of preference, whoever answered first.
        return {name: offers[name] for name in self._sources if name in offers}

    async def _offer(self, name: str, offers: dict[str, tuple[bytes, Checkpoint]]) -> None:
        verifier: NoteVerifier = self._sink.verifier
        try:
            async with asyncio.timeout(OFFER_TIMEOUT_S):
                note = await self._sources[name].checkpoint()
        except (SeipdError, TimeoutError) as error:
            self._failed[name] = str(error) or "no answer in time"
            return
        try:
            if len(note) > MAX_NOTE_BYTES:
                raise NoteError("a checkpoint is too long")
            target = verify_checkpoint(note, verifier, verifier.name)
            # Only what the author signed is kept: anyone can add lines to a note.
            opened = open_note(note, (verifier.named(target.origin),))
            offers[name] = encode_note(opened.text, opened.verified[:1]), target
        except (NoteError, BadSignatureError) as error:
            self._blamed[name] = f"checkpoint: {error}"

    def _note(self, download: Download) -> None:
        self._blamed |= download.sources.blamed
        for name, source in download.sources.all.items():
            if source.out and name not in self._blamed:
                self._failed[name] = source.out


class _Drive:
    """One download, to its end or until nobody is left to ask."""

    def __init__(
        self,
        download: Download,
        sources: Mapping[str, TileSource],
        sink: FeedSink,
        clock: Clock,
    ) -> None:
        self._download = download
        self._sources = sources
        self._sink = sink
        self._clock = clock
        self._changed = asyncio.Event()
        self._crash: BaseException | None = None
        self._tasks = TaskOwner("bulk", on_crash=self._on_crash)

    async def run(self) -> bool:
        """Return whether all was stored."""
        try:
            while not self._download.done:
                if self._crash is not None:
                    raise self._crash
                self._ask_more()
                chunk = self._download.take_chunk()
                if chunk is not None:
                    await self._sink.store(chunk)
                elif self._download.stuck(self._clock.monotonic_s()):
                    return False
                else:
                    await self._wait()
        finally:
            await self._tasks.close()
        return True

    def _ask_more(self) -> None:
        for request in self._download.requests(self._clock.monotonic_s()):
            self._tasks.spawn(self._ask(request), name="bulk-ask")

    async def _wait(self) -> None:
        now_s = self._clock.monotonic_s()
        wake_s = self._download.wake_s(now_s)
        self._changed.clear()
        try:
            async with asyncio.timeout(None if wake_s is None else wake_s - now_s):
                await self._changed.wait()
        except TimeoutError:
            return

    async def _ask(self, request: Request) -> None:
        try:
            data = await self._sources[request.source].tile(
                request.ref, max_bytes=request.max_bytes
            )
        except SeipdError as error:
            logger.debug("%s of %s: %s", request.ref.path(), request.source, error)
            retry_after_s = error.retry_after_s if isinstance(error, RateLimitedError) else None
            now_s = self._clock.monotonic_s()
            self._download.failed(request, _failure_of(error), now_s, retry_after_s)
        else:
            self._download.received(request, data)
        self._ask_more()
        self._changed.set()

    def _on_crash(self, _: str, error: BaseException) -> None:
        self._crash = error
        self._changed.set()


def _failure_of(error: SeipdError) -> Failure:
    match error:
        case RateLimitedError():
            return Failure.BUSY
        case NotFoundError():
            return Failure.MISSING
        case ForbiddenError() | UnauthenticatedError():
            return Failure.REFUSED
        case TooLargeError():
            return Failure.TOO_LARGE
        case _:
            return Failure.LOST
