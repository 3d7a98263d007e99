"""The storage service: holds the data root's lock and watches the free space."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, ClassVar

from services.base.storage.root import LOW_SPACE_BYTES, is_low
from services.kernel.errors import SeipdError, StartError, StorageError
from services.kernel.service import Health, HealthState

if TYPE_CHECKING:
    from services.base.storage.root import DataRoot

logger = logging.getLogger(__name__)


class StorageService:
    """Opens the data root first and lets it go last."""

    name: ClassVar[str] = "storage"

    def __init__(self, *, root: DataRoot) -> None:
        self._root = root
        self._started = False

    async def start(self) -> None:
        """Lock and check the data root.

        Raises:
            StartError: it is in use, not ours, of a newer layout, or the disk refuses; ``code``
                and ``mend`` are those of the cause.
        """
        try:
            await asyncio.to_thread(self._root.open)
        except SeipdError as error:
            raise StartError(
                str(error), service=self.name, code=error.code, mend=error.mend
            ) from error
        self._started = True
        if self._root.swept_count:
            logger.info(
                "leftovers of interrupted writes removed",
                extra={"removed_count": self._root.swept_count},
            )

    async def stop(self) -> None:
        """Let the data root go."""
        self._started = False
        self._root.close()

    def trouble(self) -> str:
        """Say why nothing more may be accepted: space is short, or the disk does not answer."""
        health = self.health()
        return "" if health.state is HealthState.OK else health.detail or "the data root is closed"

    def health(self) -> Health:
        """Tell the free space."""
        if not self._started:
            return Health(state=HealthState.STOPPED)
        try:
            free_bytes = self._root.free_bytes()
        except StorageError as error:
            return Health(state=HealthState.FAILED, detail=str(error))
        if is_low(free_bytes):
            return Health(
                state=HealthState.DEGRADED,
                detail=f"read-only: {free_bytes >> 20} MiB free, {LOW_SPACE_BYTES >> 20} needed",
            )
        return Health(state=HealthState.OK, detail=f"{free_bytes >> 20} MiB free")
