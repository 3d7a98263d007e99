"""Binary attestation: measures what runs here, keeps manifests, fetches new ones."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from services.base.release.approval import Running, approve
from services.base.release.fetch import check_url, fetch_manifests
from services.base.release.installed import measure, this_installation
from services.kernel.errors import ConfigError, SeipdError, StartError, UnavailableError
from services.kernel.service import Health, HealthState
from services.runtime.outbound import HttpClient
from services.runtime.tasks import TaskOwner

if TYPE_CHECKING:
    import random  # noqa: TID251 (handed in)
    from collections.abc import Callable

    from services.base.release.manifest import Manifest
    from services.base.release.measurement import Measurement
    from services.base.release.store import ManifestStore
    from services.kernel.clock import Clock

logger = logging.getLogger(__name__)

FETCH_EVERY_S = 6 * 3600.0
RETRY_AFTER_S = 600.0
MAX_WHAT_CHARS = 400


class Journal(Protocol):
    """The audit of manifests that were refused."""

    async def write(self, entry: dict[str, Any]) -> None:
        """Keep an entry; trouble with the disk is told in the log."""

    async def newest(self, limit: int) -> list[dict[str, Any]]:
        """Return the newest entries, oldest first."""


class ReleaseService:
    """What this server runs, and what is approved; ``releases_url`` empty means: fetch nothing."""

    name: ClassVar[str] = "release"

    def __init__(
        self,
        *,
        store: ManifestStore,
        clock: Clock,
        rng: random.Random,
        releases_url: str = "",
        measure_after_s: float = 0.0,
        measure_here: Callable[[], Measurement] = lambda: measure(this_installation()),
        client: Callable[[], HttpClient] = HttpClient,
        journal: Journal | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._rng = rng
        self._url = releases_url
        self._measure = measure_here
        self._measure_after_s = measure_after_s
        self._client = client
        self._journal = journal
        self._taken: list[Callable[[bytes], None]] = []
        self._measured: Measurement | None = None
        self._unmeasured = "still measuring"
        self._unreadable = ""
        self._trouble = ""
        self._tasks = TaskOwner("release")

    async def start(self) -> None:
        """Read the manifests; begin to measure the installation and to fetch.

        Raises:
            StartError: the settings are wrong, or the disk refuses.
        """
        try:
            self._url = check_url(self._url) if self._url else ""
            await asyncio.to_thread(self._store.load)
        except SeipdError as error:
            raise StartError(
                str(error), service=self.name, code=error.code, mend=error.mend
            ) from error
        self._tasks.spawn(self._measure_once(), name="release-measure")
        if self._url:
            self._tasks.spawn(self._fetch_forever(), name="release-fetch")

    async def stop(self) -> None:
        """Fetch no more."""
        await self._tasks.close()

    @property
    def measured(self) -> Measurement:
        """The installation as it was when the daemon started.

        Raises:
            UnavailableError: ``not_measured``: not yet, or it can't be.
        """
        if self._measured is None:
            raise UnavailableError(self._unmeasured, code="not_measured")
        return self._measured

    @property
    def manifests(self) -> tuple[Manifest, ...]:
        """The manifests that are believed here."""
        return self._store.manifests

    @property
    def documents(self) -> tuple[bytes, ...]:
        """The same, as they were signed."""
        return self._store.documents

    def believes(self, data: bytes) -> bool:
        """Say whether a manifest is signed by a key that is trusted here."""
        return self._store.believes(data)

    def on_taken(self, callback: Callable[[bytes], None]) -> None:
        """Call ``callback`` with each manifest that is new here."""
        self._taken.append(callback)

    @property
    def running(self) -> Running:
        """What this server tells others that it runs.

        Raises:
            UnavailableError: ``not_measured``.
        """
        measured = self.measured
        return Running(
            version=measured.version,
            platform=measured.platform,
            python=measured.python,
            measurement=measured.digest,
        )

    def approve(self, running: Running) -> Manifest:
        """Return the manifest that approves of what a server runs.

        Raises:
            ReleaseRefusedError: none does; the code says why.
        """
        return approve(running, self._store.manifests, now_ms=self._clock.now_ms())

    async def add(self, data: bytes, *, source: str = "import") -> tuple[Manifest, bool]:
        """Check and keep a manifest; say whether it is a new one. A refusal goes into the audit.

        Raises:
            WireError: no manifest.
            ManifestRefusedError: it is not believed.
            ReleaseRefusedError: ``release_below_minimum``: another manifest ended that release.
            ConflictError: ``too_many``.
            StorageError: the disk refused.
        """
        try:
            manifest, is_new = await asyncio.to_thread(
                self._store.add, data, now_ms=self._clock.now_ms()
            )
        except SeipdError as error:
            logger.warning("a manifest is refused: %s", error, extra={"code": error.code})
            if self._journal is not None:
                told = {"code": error.code, "source": source, "what": str(error)[:MAX_WHAT_CHARS]}
                await self._journal.write(told)
            raise
        if is_new:
            for callback in self._taken:
                callback(data)
        return manifest, is_new

    async def refused(self, limit: int) -> list[dict[str, Any]]:
        """Return which manifests were refused here, when and why, oldest first."""
        return [] if self._journal is None else await self._journal.newest(limit)

    async def fetch(self) -> int:
        """Fetch from the releases URL now; return how many manifests are new.

        One that is not believed is passed over: it must not keep others away.

        Raises:
            ConfigError: ``no_releases_url``.
            SeipdError: the URL does not answer as it should.
        """
        if not self._url:
            raise ConfigError(
                "no releases URL is set", code="no_releases_url", mend="set releases_url"
            )
        new_count = 0
        async with self._client() as client:
            async for data in fetch_manifests(client, self._url):
                try:
                    _, is_new = await self.add(data, source="fetch")
                except SeipdError:
                    continue
                new_count += is_new
        return new_count

    def health(self) -> Health:
        """Say which version runs, and whether it is approved."""
        version = "still measuring" if self._measured is None else self._measured.version
        known = f"{version}; {len(self._store.manifests)} manifests"
        if trouble := self._unreadable or self._trouble:
            return Health(state=HealthState.DEGRADED, detail=f"{known}; {trouble}")
        return Health(state=HealthState.OK, detail=known)

    async def _measure_once(self) -> None:
        await asyncio.sleep(self._measure_after_s)
        try:
            measured = await asyncio.to_thread(self._measure)
        except SeipdError as error:
            self._unreadable = self._unmeasured = str(error)
            return
        if measured.altered:
            logger.warning(
                "installed files differ from their packages",
                extra={"files": ", ".join(measured.altered[:8])},
            )
        self._measured = measured

    async def _fetch_forever(self) -> None:
        while True:
            wait_s = FETCH_EVERY_S
            try:
                new_count = await self.fetch()
                self._trouble = ""
                logger.info("release manifests fetched", extra={"new_count": new_count})
            except SeipdError as error:
                self._trouble = str(error)
                wait_s = RETRY_AFTER_S
            await asyncio.sleep(wait_s * self._rng.uniform(0.8, 1.2))
