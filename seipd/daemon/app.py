"""The daemon from start to stop, read from top to bottom."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from typing import TYPE_CHECKING

from seipd.config.paths import Paths
from seipd.daemon.genesis import load_charter, save_charter
from seipd.daemon.layers.ground import ground_of
from seipd.daemon.lifecycle import ServiceStack
from seipd.daemon.network import peers_stun_servers, with_public_address
from seipd.daemon.opening import open_identity, unlock_secret
from seipd.daemon.sdnotify import (
    keep_watchdog,
    notify,
    notify_reloading,
    notify_status,
    watchdog_interval_s,
)
from seipd.daemon.services import Composition, compose
from services.base.storage.files import make_private_dir
from services.base.storage.root import DataRoot
from services.base.storage.service import StorageService
from services.kernel.errors import SeipdError
from services.kernel.ids import mesh_id_of
from services.runtime.clock import SystemClock
from services.runtime.logs import configure_logging
from services.runtime.tasks import TaskOwner

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from seipd.config.model import Settings

logger = logging.getLogger(__name__)


async def run_daemon(settings: Settings, *, reload: Callable[[], Settings]) -> int:
    """Run until a signal says stop; return the exit status.

    Raises:
        StartError: a service could not start; those before it were stopped again.
        SeipdError: there is no identity, no mesh, or another daemon holds the data root.
    """
    configure_logging(settings.log_level, settings.log_format)
    clock, paths = SystemClock(), Paths(settings.data_root)
    stop = _StopSignal()
    storage = StorageService(root=DataRoot(settings.data_root))
    async with ServiceStack([storage]):
        charter_records = load_charter(paths.identity)
        mesh_id = mesh_id_of(charter_records[0].actor)
        asked = peers_stun_servers(paths.peers, mesh_id, settings.stun_port)
        settings = await with_public_address(settings, asked)
        identity = await asyncio.to_thread(open_identity, settings, paths)
        make_private_dir(paths.run)
        tasks = TaskOwner("daemon", on_crash=lambda _, error: stop.fail(error))
        composition = compose(
            ground_of(
                settings,
                storage=storage,
                identity=identity,
                charter_records=charter_records,
                clock=clock,
                tasks=tasks,
                on_fatal=stop.fail,
                unlock=lambda: unlock_secret(settings, paths),
            )
        )
        _install_signals(stop, reload)
        try:
            async with stop.interrupts(), ServiceStack(composition.services):
                if (interval_s := watchdog_interval_s()) is not None:
                    tasks.spawn(keep_watchdog(interval_s), name="watchdog")
                notify("READY=1")
                notify_status(f"{identity.server_id} is up")
                logger.info("seipd is ready")
                await stop.wait()
                notify("STOPPING=1")
        finally:
            _remember_charter(paths, composition)
            await tasks.close()
    return stop.exit_status


class _StopSignal:
    """What ends the daemon: a signal, or a failure that it can't go on from."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._starting: asyncio.Task[object] | None = None
        self.exit_status = 0

    def stop(self) -> None:
        """End in order; during the start, give the start up."""
        self._event.set()
        if self._starting is not None:
            self._starting.cancel()

    def fail(self, error: BaseException) -> None:
        """End with status 1."""
        logger.error("the daemon can't go on: %s", error)
        self.exit_status = 1
        self.stop()

    async def wait(self) -> None:
        """Wait for the end; from here on a signal no longer interrupts."""
        self._starting = None
        await self._event.wait()

    @contextlib.asynccontextmanager
    async def interrupts(self) -> AsyncIterator[None]:
        """Let a signal interrupt what is started inside."""
        self._starting = asyncio.current_task()
        try:
            yield
        except asyncio.CancelledError:
            if not self._event.is_set():
                raise
            logger.info("stopped during the start")
        finally:
            self._starting = None


def _install_signals(stop: _StopSignal, reload: Callable[[], Settings]) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.stop)
    loop.add_signal_handler(signal.SIGHUP, _reload, reload)


def _reload(reload: Callable[[], Settings]) -> None:
    """Read the settings again; a bad file changes nothing."""
    notify_reloading()
    try:
        settings = reload()
    except SeipdError as error:
        logger.error("the settings are wrong, the old ones stay: %s", error)  # noqa: TRY400
    else:
        configure_logging(settings.log_level, settings.log_format)
        logger.info("settings read again; ports and addresses change at the next start")
    notify("READY=1")


def _remember_charter(paths: Paths, composition: Composition) -> None:
    """Write the roster as known now, so that the next start need not ask."""
    own = composition.ledger.server_id
    with contextlib.suppress(SeipdError, AttributeError):
        charter = composition.ledger.charter
        certificate = charter.server(own)
        if certificate is not None:
            save_charter(paths.identity, charter.records, certificate.region)
