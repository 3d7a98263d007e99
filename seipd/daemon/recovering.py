"""Recovery of the root as the daemon composes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from seipd.daemon.signer_host import SignerHostService
from services.authority.recovery.recovering import RootRecovery, key_ids
from services.authority.recovery.service import RecoveryService
from services.base.signing.keys_client import GrpcKeys
from services.base.signing.recovery_client import GrpcRecovery

if TYPE_CHECKING:
    from seipd.config.model import Settings
    from seipd.config.paths import Paths
    from services.authority.rootkeys.rotation import RotationService
    from services.authority.rootkeys.service import RootKeysService
    from services.base.keywrap.identity import ServerIdentity
    from services.base.ledger.author import Author
    from services.base.ledger.service import LedgerService
    from services.base.signing.client import GrpcSigner
    from services.kernel.clock import Clock


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovering:
    """What keeps a recovery key dealt, what brings a lost root back, and the signer for that."""

    shares: RecoveryService
    root: RootRecovery
    host: SignerHostService


def recovering_of(
    settings: Settings,
    paths: Paths,
    identity: ServerIdentity,
    ledger: LedgerService,
    author: Author,
    root_keys: RootKeysService,
    rotation: RotationService,
    socket: str | None,
    clock: Clock,
) -> Recovering:
    """Return what recovery needs; ``socket`` is where the signer listens, if there is one."""
    shares = RecoveryService(
        ledger=ledger,
        author=author,
        key=identity.signing_key,
        root=root_keys,
        signer=None if socket is None else GrpcRecovery(socket),
    )

    def adopted(signer: GrpcSigner, desk: GrpcRecovery) -> None:
        root_keys.adopt(signer)
        shares.adopt(desk)
        if host.address is not None:
            rotation.adopt(GrpcKeys(host.address))

    host = SignerHostService(
        settings=settings,
        paths=paths,
        ledger=ledger,
        socket=socket,
        key_ids=key_ids,
        adopted=adopted,
    )
    root = RootRecovery(
        ledger=ledger, author=author, key=identity.signing_key, host=host, clock=clock
    )
    return Recovering(shares=shares, root=root, host=host)
