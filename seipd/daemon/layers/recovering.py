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
    from seipd.daemon.layers.base import BaseLayer
    from seipd.daemon.layers.ground import Ground
    from services.authority.rootkeys.rotation import RotationService
    from services.authority.rootkeys.service import RootKeysService
    from services.base.signing.client import GrpcSigner


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovering:
    """What keeps a recovery key dealt, what brings a lost root back, and the signer for that."""

    shares: RecoveryService
    root: RootRecovery
    host: SignerHostService


def recovering_of(
    ground: Ground, base: BaseLayer, root_keys: RootKeysService, rotation: RotationService
) -> Recovering:
    """Return what recovery needs."""
    ledger, author, socket = base.ledger, base.author, base.signer_address
    key = ground.identity.signing_key
    shares = RecoveryService(
        ledger=ledger,
        author=author,
        key=key,
        root=root_keys,
        signer=None if socket is None else GrpcRecovery(socket),
    )

    def adopted(signer: GrpcSigner, desk: GrpcRecovery) -> None:
        root_keys.adopt(signer)
        shares.adopt(desk)
        if host.address is not None:
            rotation.adopt(GrpcKeys(host.address))

    host = SignerHostService(
        settings=ground.settings,
        paths=ground.paths,
        ledger=ledger,
        socket=socket,
        key_ids=key_ids,
        adopted=adopted,
    )
    root = RootRecovery(ledger=ledger, author=author, key=key, host=host, clock=ground.clock)
    return Recovering(shares=shares, root=root, host=host)
