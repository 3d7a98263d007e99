"""What this server says of its state: the state file, and its signed word at each tick."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from services.base.ledger.asof import AgreedStates
from services.base.ledger.statefile import settled_state, state_as_of
from services.base.ledger.ticks import StateWord, last_tick_ms, quick_tick_ms, word_at
from services.base.storage.files import write_atomic
from services.kernel.versions import unknown_version

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from services.base.ledger.fold import Fold
    from services.base.ledger.holding import Holding
    from services.base.ledger.state import State
    from services.base.ledger.upkeep import Upkeep
    from services.base.ledger.watching import StateWatch
    from services.base.ledger.writer import Writer
    from services.kernel.clock import Clock


class StateTeller:
    """Takes the state back to a point of the past, says what it was, and goes on."""

    def __init__(
        self,
        *,
        holding: Holding,
        writer: Writer,
        watch: StateWatch,
        upkeep: Upkeep,
        clock: Clock,
        tick_interval_ms: int,
        tell: Callable[[StateWord], None],
    ) -> None:
        self._holding = holding
        self._writer = writer
        self._watch = watch
        self._upkeep = upkeep
        self._clock = clock
        self._tick_interval_ms = tick_interval_ms
        self._tell = tell
        self._told_ms = 0
        self._told_quick_ms = 0
        self._agreed = AgreedStates()

    async def save(self) -> None:
        """Write the signed state file of the settled point; none under an unknown version.

        What such a version voids here may count once it is known.
        """
        if unknown_version(self._holding.fold.state):
            return
        async with self._quiet() as fold:
            data = settled_state(fold, sign=self._holding.key.sign)
        await asyncio.to_thread(write_atomic, self._holding.folder / "state", data)

    async def file(self, word: StateWord) -> bytes:
        """See ``LedgerService.state_file``."""
        async with self._quiet() as fold:
            return state_as_of(fold, word, sign=self._holding.key.sign)

    async def state_of(self, word: StateWord) -> State:
        """Return the state that a word is about, as it was then.

        Raises:
            UnavailableError: ``no_agreed_state``: it is not remembered, or was another one here.
        """
        held = self._agreed.get(word)
        if held is not None:
            return held
        async with self._quiet() as fold:
            return self._agreed.make(fold, word)

    async def word(self) -> StateWord | None:
        """See ``LedgerService.state_word``."""
        return await self._word(last_tick_ms(self._clock.now_ms(), self._tick_interval_ms))

    async def give_word(self) -> None:
        """Say once what the state was at the last tick, where this server is a witness."""
        fold = self._holding.fold
        is_witness = self._holding.server_id in fold.charter.at(fold.charter.number).witnesses
        if not is_witness or unknown_version(fold.state):
            return
        tick_ms = self._due_tick_ms()
        word = await self._word(tick_ms) if tick_ms is not None else None
        if word is not None:
            self._tell(word)

    def _due_tick_ms(self) -> int | None:
        """Return the tick to speak of; one at a time, since a newer fact hides the one before.

        A clock that goes back tells no tick again: words, like cosignatures, only grow in time.
        """
        now_ms = self._clock.now_ms()
        tick_ms = last_tick_ms(now_ms, self._tick_interval_ms)
        if tick_ms > self._told_ms:
            self._told_ms = tick_ms
            return tick_ms
        quick_ms = quick_tick_ms(self._holding.fold, now_ms, self._tick_interval_ms)
        if quick_ms is None or quick_ms <= max(self._told_quick_ms, self._told_ms):
            return None
        self._told_quick_ms = quick_ms
        return quick_ms

    async def _word(self, tick_ms: int) -> StateWord | None:
        async with self._quiet() as fold:
            return None if self._upkeep.is_behind else word_at(fold, tick_ms)

    @contextlib.asynccontextmanager
    async def _quiet(self) -> AsyncIterator[Fold]:
        async with self._writer.quiet():
            with self._watch.away(self._holding.fold.state):
                yield self._holding.fold
