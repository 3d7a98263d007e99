"""``seipd init``: founds a mesh on a data root. Of the daemon it loads what that takes, no more."""

from __future__ import annotations

import asyncio
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
from seipd.daemon.lifecycle import ServiceStack
from seipd.daemon.opening import open_identity
from services.authority.recovery.service import RecoveryService
from services.authority.rootkeys.service import RootKeysService
from services.base.ledger.author import Author
from services.base.signing.client import GrpcSigner
from services.base.signing.recovery_client import GrpcRecovery
from services.base.storage.root import DataRoot
from services.kernel.addr import ranges_from_value
from services.kernel.errors import ConflictError
from services.runtime.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Mapping

    from seipd.config.model import Settings
    from services.authority.governance.parameters import Value
    from services.authority.trust.tiers import TrustRules
    from services.base.keywrap.identity import ServerIdentity
    from services.kernel.clock import Clock


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


def _raise(error: BaseException) -> None:
    raise error
