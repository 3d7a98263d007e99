"""The audit of quotes: whose answers were refused here, when, and with which code.

    attestation/refused.jsonl, refused.1.jsonl    one line of canonical JSON an entry, oldest first

A file that has grown to its bound becomes the older one, and that one goes.
"""

from __future__ import annotations

import asyncio
import logging
import os
from typing import TYPE_CHECKING, Any

from services.base.storage.files import make_private_dir, storage_error
from services.kernel import canonical
from services.kernel.errors import SeipdError, WireError
from services.kernel.ids import server_id_of

if TYPE_CHECKING:
    from pathlib import Path

    from services.kernel.clock import Clock

logger = logging.getLogger(__name__)

MAX_FILE_BYTES = 1 << 20
MAX_WHAT_CHARS = 400
_NEW, _OLD = "refused.jsonl", "refused.1.jsonl"


class RefusedQuotes:
    """Satisfies Journal; ``folder`` is made when there is something to write."""

    def __init__(self, *, folder: Path, clock: Clock, max_bytes: int = MAX_FILE_BYTES) -> None:
        self._folder = folder
        self._clock = clock
        self._max_bytes = max_bytes
        self._turn = asyncio.Lock()

    async def refused(self, server_key: bytes, error: SeipdError) -> None:
        """Keep an entry; a disk that is full or away costs no more than that."""
        server_id = server_id_of(server_key)
        logger.warning("a quote of %s is refused: %s", server_id, error, extra={"code": error.code})
        entry = {
            "at_ms": self._clock.now_ms(),
            "server_id": server_id,
            "code": error.code,
            "what": str(error)[:MAX_WHAT_CHARS],
        }
        async with self._turn:
            try:
                await asyncio.to_thread(self._write, canonical.encode(entry) + b"\n")
            except SeipdError as trouble:
                logger.warning("and not written down: %s", trouble)

    async def newest(self, limit: int) -> list[dict[str, Any]]:
        """Return the newest entries, oldest first.

        Raises:
            StorageError: a file can't be read.
        """
        async with self._turn:
            return (await asyncio.to_thread(self._read))[-limit:]

    def _write(self, line: bytes) -> None:
        new = self._folder / _NEW
        try:
            make_private_dir(self._folder)
            if new.exists() and new.stat().st_size + len(line) > self._max_bytes:
                new.replace(self._folder / _OLD)
            descriptor = os.open(new, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.write(descriptor, line)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise storage_error(error, "keep the audit of quotes") from error

    def _read(self) -> list[dict[str, Any]]:
        found = []
        for name in (_OLD, _NEW):
            try:
                lines = (self._folder / name).read_bytes().splitlines()
            except FileNotFoundError:
                continue
            except OSError as error:
                raise storage_error(error, "keep the audit of quotes") from error
            for line in lines:
                try:
                    found.append(canonical.decode_object(line))
                except WireError:
                    # The end of the machine may have come in the middle of a line.
                    logger.warning("a line of the audit of quotes can't be read")
        return found
