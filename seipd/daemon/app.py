"""The daemon from start to stop, read from top to bottom; and ``init``, which founds a mesh."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from seipd.api.tls import load_tls_identity
from seipd.config.model import range_values
from seipd.config.paths import Paths
from seipd.daemon.founding_signer import founding_signer
from seipd.daemon.genesis import (
    MeshFacts,
    found_mesh,
    load_charter,
    save_charter,
    write_first_records,
)
from seipd.daemon.layers.base import ledger_of
from seipd.daemon.layers.ground import ground_of
from seipd.daemon.lifecycle import ServiceStack
from seipd.daemon.network import peers_stun_servers, with_public_address
from seipd.daemon.sdnotify import (
    keep_watchdog,
    notify,
    notify_reloading,
    notify_status,
    watchdog_interval_s,
)
from seipd.daemon.services import Composition, compose
from services.authority.recovery.service import RecoveryService
from services.authority.rootkeys.service import RootKeysService
from services.base.keywrap.identity import (
    ServerIdentity,
    create_identity,
    identity_exists,
    load_identity,
)
from services.base.keywrap.unlock import create_unlock_file, read_unlock
from services.base.ledger.author import Author
from services.base.signing.client import GrpcSigner
from services.base.signing.recovery_client import GrpcRecovery
from services.base.storage.files import make_private_dir
from services.base.storage.root import DataRoot
from services.base.storage.service import StorageService
from services.kernel.addr import ranges_from_value
from services.kernel.errors import ConflictError, SeipdError
from services.kernel.ids import mesh_id_of
from services.runtime.clock import SystemClock
from services.runtime.logs import configure_logging
from services.runtime.tasks import TaskOwner

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from seipd.config.model import Settings
    from services.authority.governance.parameters import Value
    from services.authority.trust.tiers import TrustRules
    from services.kernel.clock import Clock

logger = logging.getLogger(__name__)

CREDENTIAL = "seipd-unlock"


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


async def init_mesh(
    settings: Settings,
    parameters: Mapping[str, Value] = MappingProxyType({}),
    trust: TrustRules | None = None,
) -> dict[str, str]:
    """Found a mesh on this data root, or finish what an interrupted ``init`` began.

    Args:
        settings: of this server.
        parameters: what the parameters that only a vote changes begin with, other than by default.
        trust: what tier 1 takes.

    Returns:
        ``mesh_id``, ``root_fingerprint``, ``server_id``, and where the ``recovery_file`` lies.

    Raises:
        ConflictError: the data root belongs to a mesh already.
        ConfigError: ``no_signer`` or ``no_root_key``.
        StartError: the signer does not come up.
        UnavailableError: the one that is set does not answer.
    """
    clock, paths = SystemClock(), Paths(settings.data_root)
    facts = MeshFacts(
        domain=settings.domain,
        region=settings.region,
        ranges=ranges_from_value(range_values(settings)),
        parameters=parameters,
        trust=trust,
    )
    with DataRoot(settings.data_root):
        if (paths.ledger / "feed" / "checkpoint").exists():
            raise ConflictError(
                f"{settings.data_root} belongs to a mesh already",
                code="mesh_exists",
                mend="seipd run starts it",
            )
        identity = await asyncio.to_thread(open_identity, settings, paths, create=True)
        async with founding_signer(settings, paths) as socket:
            return await _found(paths, facts, identity, socket, clock)


async def _found(
    paths: Paths, facts: MeshFacts, identity: ServerIdentity, socket: str, clock: Clock
) -> dict[str, str]:
    signer = GrpcSigner(socket)
    tls = load_tls_identity(paths.tls, name=identity.server_id, clock=clock)
    if not (paths.identity / "root_chain.json").exists():
        records = await found_mesh(
            facts, identity=identity, tls_key_hash=tls.key_hash, signer=signer, clock=clock
        )
        save_charter(paths.identity, records, facts.region)
    records = load_charter(paths.identity)
    ledger = ledger_of(paths, identity, records, clock, _raise)
    async with ServiceStack([ledger]):
        author = Author(key=identity.signing_key, mesh_id=ledger.mesh_id, clock=clock)
        await write_first_records(
            ledger, charter_records=records, author=author, signer=signer, clock=clock
        )
        recovery = RecoveryService(
            ledger=ledger,
            author=author,
            key=identity.signing_key,
            root=RootKeysService(ledger=ledger, signer=signer, clock=clock),
            signer=GrpcRecovery(socket),
        )
        made = await recovery.deal()
        await recovery.name_key()
        return {
            "mesh_id": ledger.mesh_id,
            "root_fingerprint": ledger.mesh_id,
            "server_id": ledger.server_id,
            "recovery_file": made["path"],
        }


def open_identity(settings: Settings, paths: Paths, *, create: bool = False) -> ServerIdentity:
    """Open this server's keys; with ``create`` make them where there are none.

    Raises:
        NotFoundError: no identity was ever made here.
        KeyUnwrapError: the unlock secret is not theirs.
    """
    unlock_file = unlock_path(settings, paths)
    if create and not unlock_file.exists() and not _has_credential(_credentials()):
        create_unlock_file(unlock_file)
    unlock = unlock_secret(settings, paths)
    if create and not identity_exists(paths.identity):
        return create_identity(paths.identity, unlock=unlock)
    return load_identity(paths.identity, unlock=unlock)


def unlock_secret(settings: Settings, paths: Paths) -> bytes:
    """Read what this server's secrets are sealed with.

    Raises:
        ConfigError: there is none, or others may read it.
    """
    return read_unlock(unlock_path(settings, paths), _credentials(), CREDENTIAL)


def unlock_path(settings: Settings, paths: Paths) -> Path:
    """Return where the unlock secret lies."""
    return Path(settings.unlock_file) if settings.unlock_file else paths.unlock


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


def _credentials() -> Path | None:
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    return Path(folder) if folder else None


def _has_credential(folder: Path | None) -> bool:
    return folder is not None and (folder / CREDENTIAL).exists()


def _raise(error: BaseException) -> None:
    raise error
