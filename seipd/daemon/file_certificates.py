"""``--tls files``: a certificate that somebody else renews, read again when it changes."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, ClassVar, Final

from services.edge.acme.checking import leaf_of
from services.kernel.errors import SeipdError, StartError
from services.kernel.service import Health, HealthState
from services.runtime.tasks import TaskOwner

if TYPE_CHECKING:
    from pathlib import Path

    from seipd.api.tlsswitch import TlsSwitch

logger = logging.getLogger(__name__)

LOOK_INTERVAL_S: Final = 10.0
MAX_BYTES: Final = 64 * 1024

_Mark = tuple[int, int, int]


class FileCertificates:
    """Serves the certificate of two files; a bad one is told, and the last good one goes on."""

    name: ClassVar[str] = "tls-files"

    def __init__(
        self,
        *,
        certificate: Path,
        key: Path,
        switch: TlsSwitch,
        look_interval_s: float = LOOK_INTERVAL_S,
    ) -> None:
        self._certificate = certificate
        self._key = key
        self._switch = switch
        self._look_interval_s = look_interval_s
        self._seen: tuple[_Mark, _Mark] | None = None
        self._tasks = TaskOwner(self.name)
        self._state = HealthState.STOPPED
        self._trouble = ""

    async def start(self) -> None:
        """Load the certificate.

        Raises:
            StartError: it can't be loaded.
        """
        try:
            self._seen = self._marks()
            self._load()
        except (SeipdError, OSError) as error:
            raise StartError(
                f"tls files: {error}",
                service=self.name,
                code="bad_certificate",
                mend="mend tls_certificate_file and tls_key_file",
            ) from error
        self._state = HealthState.OK
        self._tasks.spawn(self._keep_looking(), name="tls-files")

    async def stop(self) -> None:
        """Look no more; may be called twice."""
        self._state = HealthState.STOPPED
        await self._tasks.close()

    def health(self) -> Health:
        """Say whether the files are good."""
        if self._state is HealthState.OK and self._trouble:
            return Health(state=HealthState.DEGRADED, detail=self._trouble)
        return Health(state=self._state, detail=", ".join(self._switch.names))

    def look(self) -> None:
        """Load the certificate again if a file changed."""
        try:
            now = self._marks()
            if now == self._seen:
                return
            self._load()
        except (SeipdError, OSError) as error:
            if self._trouble != str(error):
                logger.error("the old certificate goes on: %s", error)  # noqa: TRY400
            self._trouble = str(error)
        else:
            self._seen, self._trouble = now, ""
            logger.info("the certificate was read again")

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(self._look_interval_s)
            self.look()

    def _load(self) -> None:
        with self._certificate.open("rb") as file:
            names = leaf_of(file.read(MAX_BYTES + 1)).names
        self._switch.put(names, self._certificate, self._key)

    def _marks(self) -> tuple[_Mark, _Mark]:
        return _mark(self._certificate), _mark(self._key)


def _mark(path: Path) -> _Mark:
    status = path.stat()
    return status.st_mtime_ns, status.st_size, status.st_ino
