"""Logs that a witness remembers in memory, with the turns that a disk would need."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from services.base.ledger.witness import Held, SignedCheckpoint, StaleSizeError, held_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from services.base.ledger.note import NoteVerifier


class RememberedLog:
    """One log; ``writing`` lets a test stop it between deciding and remembering."""

    def __init__(self, verifier: NoteVerifier) -> None:
        self.verifier = verifier
        self.remembered: SignedCheckpoint | None = None
        self.suspected: list[SignedCheckpoint] = []
        self.writing = asyncio.Event()
        self.writing.set()
        self._turn = asyncio.Lock()

    def newest(self) -> SignedCheckpoint | None:
        return self.remembered

    @contextlib.asynccontextmanager
    async def take(self, signed: SignedCheckpoint, before: Held) -> AsyncIterator[None]:
        async with self._turn:
            await self.writing.wait()
            held = held_of(self)
            if held not in {before, signed.held}:
                raise StaleSizeError(held.size)
            self.remembered = signed
            yield

    def suspect(self, signed: SignedCheckpoint) -> None:
        self.suspected.append(signed)


class RememberedLogs:
    """The logs by their origin, which is the name of their key unless told otherwise."""

    def __init__(self, *logs: RememberedLog) -> None:
        self._logs = {log.verifier.name: log for log in logs}

    def find(self, origin: str) -> RememberedLog | None:
        return self._logs.get(origin)

    def origins(self) -> list[str]:
        return list(self._logs)
