"""The audit of quotes: whose answers were refused here, when, and with which code.

attestation/refused.jsonl, refused.1.jsonl
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from services.base.storage.journal import MAX_FILE_BYTES, JournalFile
from services.kernel.ids import server_id_of

if TYPE_CHECKING:
    from pathlib import Path

    from services.kernel.clock import Clock
    from services.kernel.errors import SeipdError

logger = logging.getLogger(__name__)

MAX_WHAT_CHARS = 400


class RefusedQuotes:
    """Satisfies Journal of attestation."""

    def __init__(self, *, folder: Path, clock: Clock, max_bytes: int = MAX_FILE_BYTES) -> None:
        self._file = JournalFile(folder=folder, stem="refused", clock=clock, max_bytes=max_bytes)

    async def refused(self, server_key: bytes, error: SeipdError) -> None:
        """Keep an entry; a disk that is full or away costs no more than that."""
        server_id = server_id_of(server_key)
        logger.warning("a quote of %s is refused: %s", server_id, error, extra={"code": error.code})
        await self._file.write(
            {"server_id": server_id, "code": error.code, "what": str(error)[:MAX_WHAT_CHARS]}
        )

    async def newest(self, limit: int) -> list[dict[str, Any]]:
        """Return the newest entries, oldest first.

        Raises:
            StorageError: a file can't be read.
        """
        return await self._file.newest(limit)
