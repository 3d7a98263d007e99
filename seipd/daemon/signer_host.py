"""The signer of this machine where the root is to be recovered: one is made if there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from seipd.daemon.signer_process import SignerProcess
from services.base.signing.client import GrpcSigner
from services.base.signing.recovery_client import GrpcRecovery
from services.kernel.errors import ConfigError, NotFoundError, UnavailableError
from services.kernel.service import Health, HealthState

if TYPE_CHECKING:
    from collections.abc import Callable

    from seipd.config.model import Settings
    from seipd.config.paths import Paths
    from services.authority.recovery.recovering import KeyIds
    from services.base.ledger.service import LedgerService

RECORD_PURPOSE = "seipd/record/v1"


class SignerHostService:
    """Reaches the signer here, or starts the first one; satisfies SignerHost."""

    name: ClassVar[str] = "signer-host"

    def __init__(
        self,
        *,
        settings: Settings,
        paths: Paths,
        ledger: LedgerService,
        socket: str | None,
        key_ids: KeyIds,
        adopted: Callable[[GrpcSigner, GrpcRecovery], None],
    ) -> None:
        self._settings = settings
        self._paths = paths
        self._ledger = ledger
        self._socket = socket
        self._key_ids = key_ids
        self._adopted = adopted
        self._process: SignerProcess | None = None

    async def start(self) -> None:
        """Nothing until the root is recovered here."""

    async def stop(self) -> None:
        """End the signer that was started here."""
        if self._process is not None:
            await self._process.stop()

    def health(self) -> Health:
        """Say how the signer does that was started here."""
        if self._process is not None:
            return self._process.health()
        detail = "a signer is here" if self._socket else "no signer is here"
        return Health(state=HealthState.OK, detail=detail)

    @property
    def address(self) -> str | None:
        """Where the signer listens; None while there is none."""
        return self._socket

    async def holds_root(self) -> bool:
        """Say whether the signer here has the root key in force."""
        if self._socket is None:
            return False
        newest = self._ledger.charter.chain.newest
        for key_id in self._key_ids(newest.generation):
            try:
                info = await (await self.signer()).public_key(scope="platform", key_id=key_id)
            except (NotFoundError, UnavailableError):
                continue
            if info.public_key == newest.public_key:
                return True
        return False

    async def ready(self, key_id: str) -> None:
        """Have a signer that holds a key of this name; each is made once.

        Raises:
            ConfigError: ``no_signer``; or there can't be one of this user.
            StartError: it does not come up.
        """
        if self._settings.signer == "none":
            raise ConfigError(
                "this server may have no signer",
                code="no_signer",
                mend="set signer = auto, or its address, and start seipd again",
            )
        process = self._process or SignerProcess(
            state=self._paths.signer_state,
            socket=self._paths.signer_socket,
            unlock_file=self._paths.signer_unlock,
            allow_same_user=self._settings.allow_insecure_same_user,
        )
        if self._settings.signer == "auto":
            await process.ensure_root_key(key_id=key_id, purpose=RECORD_PURPOSE)
        if self._socket is None:
            await process.start()
            self._process, self._socket = process, str(self._paths.signer_socket)

    async def signer(self) -> GrpcSigner:
        """Return what signs.

        Raises:
            UnavailableError: ``signer_unavailable``: ``ready`` was not asked for.
        """
        return GrpcSigner(self._at())

    async def desk(self) -> GrpcRecovery:
        """Return the calls about recovery keys.

        Raises:
            UnavailableError: ``signer_unavailable``: ``ready`` was not asked for.
        """
        return GrpcRecovery(self._at())

    async def adopt(self) -> None:
        """Let this server act for the root from now on."""
        self._adopted(GrpcSigner(self._at()), GrpcRecovery(self._at()))

    def _at(self) -> str:
        if self._socket is None:
            raise UnavailableError("no signer is here", code="signer_unavailable")
        return self._socket
