"""Binary attestation: measures what runs here, keeps manifests, fetches new ones."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, ClassVar

from services.base.release.approval import Running, approve
from services.base.release.fetch import check_url, fetch_manifests
from services.base.release.installed import measure, this_installation
from services.kernel.errors import SeipdError, StartError
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
        measure_here: Callable[[], Measurement] = lambda: measure(this_installation()),
        client: Callable[[], HttpClient] = HttpClient,
    ) -> None:
        self._store = store
        self._clock = clock
        self._rng = rng
        self._url = releases_url
        self._measure = measure_here
        self._client = client
        self._measured: Measurement | None = None
        self._trouble = ""
        self._tasks = TaskOwner("release")

    async def start(self) -> None:
        """Measure the installation, read the manifests, begin to fetch.

        Raises:
            StartError: the installation can't be measured, or the settings are wrong.
        """
        try:
            self._url = check_url(self._url) if self._url else ""
            await asyncio.to_thread(self._store.load)
            self._measured = await asyncio.to_thread(self._measure)
        except SeipdError as error:
            raise StartError(
                str(error), service=self.name, code=error.code, mend=error.mend
            ) from error
        if self._measured.altered:
            logger.warning(
                "installed files differ from their packages",
                extra={"files": ", ".join(self._measured.altered[:8])},
            )
        if self._url:
            self._tasks.spawn(self._fetch_forever(), name="release-fetch")

    async def stop(self) -> None:
        """Fetch no more."""
        await self._tasks.close()

    @property
    def running(self) -> Running:
        """What this server tells others that it runs: as it was when the daemon started.

        Raises:
            StartError: the service has not started.
        """
        if self._measured is None:
            raise StartError("nothing is measured yet", service=self.name)
        return Running(
            version=self._measured.version,
            platform=self._measured.platform,
            python=self._measured.python,
            measurement=self._measured.digest,
        )

    def approve(self, running: Running) -> Manifest:
        """Return the manifest that approves of what a server runs.

        Raises:
            ReleaseRefusedError: none does; the code says why.
        """
        return approve(running, self._store.manifests, now_ms=self._clock.now_ms())

    async def add(self, data: bytes) -> tuple[Manifest, bool]:
        """Check and keep a manifest; say whether it is a new one.

        Raises:
            WireError: no manifest.
            ManifestRefusedError: it is not believed.
            ConflictError: ``too_many``.
            StorageError: the disk refused.
        """
        return await asyncio.to_thread(self._store.add, data)

    async def fetch(self) -> int:
        """Fetch from the releases URL now; return how many manifests are new.

        One that is not believed is told and passed over: it must not keep others away.

        Raises:
            SeipdError: the URL does not answer as it should.
        """
        new_count = 0
        async with self._client() as client:
            async for data in fetch_manifests(client, self._url):
                try:
                    _, is_new = await self.add(data)
                except SeipdError as error:
                    logger.warning("a manifest is refused: %s", error, extra={"code": error.code})
                    continue
                new_count += is_new
        return new_count

    def health(self) -> Health:
        """Say which version runs, and whether it is approved."""
        if self._measured is None:
            return Health(state=HealthState.STOPPED)
        known = f"{self._measured.version}, {len(self._store.manifests)} manifests"
        if self._trouble:
            return Health(state=HealthState.DEGRADED, detail=f"{known}; {self._trouble}")
        return Health(state=HealthState.OK, detail=known)

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
