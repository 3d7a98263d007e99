"""Brings manifests that were taken here into the ledger, and takes those that others brought."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, ClassVar, Final

from services.authority.releases.view import MANIFEST_KIND, VIEW, digest_of, document_in, is_held
from services.kernel import canonical
from services.kernel.errors import RejectedError, SeipdError
from services.kernel.service import Health, HealthState
from services.runtime.tasks import TaskOwner

if TYPE_CHECKING:
    from services.authority.ports import Ledger
    from services.base.ledger.author import Author
    from services.base.ledger.watching import Change
    from services.base.release.service import ReleaseService

logger = logging.getLogger(__name__)

RETRY_S: Final = 30.0
FROM_LEDGER: Final = "ledger"


class SharedReleases:
    """One import, or one server that fetches, is enough for the mesh."""

    name: ClassVar[str] = "shared-releases"

    def __init__(
        self,
        *,
        ledger: Ledger,
        author: Author,
        release: ReleaseService,
        retry_s: float = RETRY_S,
    ) -> None:
        self._ledger = ledger
        self._author = author
        self._release = release
        self._retry_s = retry_s
        self._to_take: dict[str, bytes] = {}
        self._to_bring: dict[str, bytes] = {}
        self._changed = asyncio.Event()
        self._tasks = TaskOwner("shared-releases")
        self._is_subscribed = False

    async def start(self) -> None:
        """Compare what is here with the ledger, and begin to follow both."""
        if not self._is_subscribed:
            self._ledger.subscribe([VIEW], self._told)
            self._release.on_taken(self._taken)
        self._is_subscribed = True
        rows = await asyncio.to_thread(list, self._ledger.state.scan(VIEW))
        for _, key, value in rows:
            self._note(key, value)
        for data in self._release.documents:
            self._taken(data)
        self._tasks.spawn(self._follow(), name="releases-share")

    async def stop(self) -> None:
        """Follow no more; may be called twice."""
        await self._tasks.close()

    def health(self) -> Health:
        """Say how many manifests wait to be brought into the ledger."""
        waiting = len(self._to_bring)
        detail = f"{waiting} manifests wait to be told to the others" if waiting else ""
        return Health(state=HealthState.OK, detail=detail)

    def _told(self, changes: list[Change]) -> None:
        for change in changes:
            self._note(change.key, change.new)

    def _note(self, key: str, value: dict[str, object] | None) -> None:
        data = document_in(key, value)
        if data is not None:
            self._to_take[digest_of(data)] = data
            self._changed.set()

    def _taken(self, data: bytes) -> None:
        if not is_held(self._ledger.state, data):
            self._to_bring[digest_of(data)] = data
            self._changed.set()

    async def _follow(self) -> None:
        while True:
            timeout_s = self._retry_s if self._to_bring else None
            try:
                async with asyncio.timeout(timeout_s):
                    await self._changed.wait()
            except TimeoutError:
                pass
            self._changed.clear()
            await self._take()
            await self._bring()

    async def _take(self) -> None:
        while self._to_take:
            _, data = self._to_take.popitem()
            if not self._release.believes(data):
                continue
            try:
                await self._release.add(data, source=FROM_LEDGER)
            except SeipdError as error:
                logger.info("a manifest of the ledger is not taken: %s", error)

    async def _bring(self) -> None:
        for digest, data in list(self._to_bring.items()):
            if is_held(self._ledger.state, data):
                del self._to_bring[digest]
                continue
            body = {"manifest": canonical.decode_object(data)}
            try:
                await self._ledger.submit([self._author.record(MANIFEST_KIND, body)])
            except RejectedError as error:
                logger.info("a manifest is not told to the others: %s", error)
            except SeipdError as error:
                logger.info("a manifest is told to the others later: %s", error)
                return
            self._to_bring.pop(digest, None)
