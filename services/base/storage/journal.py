"""A small audit on the disk: one line of canonical JSON an entry, oldest first, bounded.

    <folder>/<stem>.jsonl, <stem>.1.jsonl

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

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from services.kernel.clock import Clock

logger = logging.getLogger(__name__)

MAX_FILE_BYTES = 1 << 20


class JournalFile:
    """Its folder is made when there is something to write."""

    def __init__(
        self, *, folder: Path, stem: str, clock: Clock, max_bytes: int = MAX_FILE_BYTES
    ) -> None:
        self._folder = folder
        self._new, self._old = folder / f"{stem}.jsonl", folder / f"{stem}.1.jsonl"
        self._clock = clock
        self._max_bytes = max_bytes
        self._turn = asyncio.Lock()

    async def write(self, entry: Mapping[str, Any]) -> None:
        """Keep an entry, with the time; a disk that is full or away costs no more than that."""
        # A line break in front ends what the end of the machine may have left half written.
        line = b"\n" + canonical.encode({"at_ms": self._clock.now_ms(), **entry})
        async with self._turn:
            try:
                await asyncio.to_thread(self._write, line)
            except SeipdError as trouble:
                logger.warning("%s is not written: %s", self._new.name, trouble)

    async def newest(self, limit: int) -> list[dict[str, Any]]:
        """Return the newest entries, oldest first.

        Raises:
            StorageError: a file can't be read.
        """
        async with self._turn:
            return (await asyncio.to_thread(self._read))[-limit:]

    def _write(self, line: bytes) -> None:
        try:
            make_private_dir(self._folder)
            if self._new.exists() and self._new.stat().st_size + len(line) > self._max_bytes:
                self._new.replace(self._old)
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            descriptor = os.open(self._new, flags, 0o600)
            try:
                os.write(descriptor, line)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise storage_error(error, f"write {self._new.name}") from error

    def _read(self) -> list[dict[str, Any]]:
        found = []
        for path in (self._old, self._new):
            try:
                lines = path.read_bytes().splitlines()
            except FileNotFoundError:
                continue
            except OSError as error:
                raise storage_error(error, f"read {path.name}") from error
            for line in filter(None, lines):
                try:
                    found.append(canonical.decode_object(line))
                except WireError:
                    # The end of the machine may have come in the middle of a line.
                    logger.warning("a line of %s can't be read", path.name)
        return found
