"""The base layer: the ledger, who writes into it, the signer, and what this server runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from seipd.daemon.genesis import save_charter
from seipd.daemon.layers.releasing import release_of
from seipd.daemon.signer_process import SignerProcess
from services.authority.ballots import view as ballots_view
from services.authority.dnskeys import view as dnskeys_view
from services.authority.dnsnames import view as dns_view
from services.authority.enroll import view as enroll_view
from services.authority.governance import view as governance_view
from services.authority.ipam import view as ipam_view
from services.authority.names import view as names_view
from services.authority.policy import view as policy_view
from services.authority.recovery import view as recovery_view
from services.authority.relays import view as relays_view
from services.authority.releases import view as releases_view
from services.authority.rootkeys import view as rootkeys_view
from services.authority.serversecrets import view as secrets_view
from services.authority.splitdns import view as split_view
from services.authority.tree import routes as tree_routes
from services.authority.tree import view as tree_view
from services.authority.trust import view as trust_view
from services.base.crypto.signatures import verify
from services.base.ledger.author import Author
from services.base.ledger.service import LedgerService
from services.base.signing.client import GrpcSigner
from services.base.signing.remote import SCHEME, RemoteSigner, svid_files_of
from services.kernel.addr import is_inner

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from seipd.config.model import Settings
    from seipd.config.paths import Paths
    from seipd.daemon.layers.ground import Ground
    from services.base.keywrap.identity import ServerIdentity
    from services.base.release.service import ReleaseService
    from services.kernel.clock import Clock
    from services.kernel.records import Record
    from services.kernel.views import Appliers


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseLayer:
    """What all else reads, writes and signs by."""

    ledger: LedgerService
    author: Author
    signer_process: SignerProcess | None
    signer: GrpcSigner | RemoteSigner | None
    signer_address: str | None
    """The socket of this machine's signer."""
    release: ReleaseService


def base_of(ground: Ground) -> BaseLayer:
    """Make the layer; nothing is started."""
    settings, paths, clock = ground.settings, ground.paths, ground.clock
    process, signer = signer_of(settings, paths)
    return BaseLayer(
        ledger=ledger_of(
            paths,
            ground.identity,
            ground.records,
            clock,
            ground.on_fatal,
            disk_trouble=ground.storage.trouble,
            remember=lambda records: save_charter(paths.identity, records, ground.own.region),
        ),
        author=Author(key=ground.identity.signing_key, mesh_id=ground.mesh_id, clock=clock),
        signer_process=process,
        signer=signer,
        signer_address=signer_socket(settings, paths),
        release=release_of(
            settings,
            paths,
            clock,
            is_inner=lambda address: is_inner(ground.mesh_id, ground.ranges, address),
        ),
    )


def appliers() -> Appliers:
    """Return the kinds of every view."""
    return {
        **tree_view.APPLIERS,
        **tree_routes.APPLIERS,
        **ipam_view.APPLIERS,
        **enroll_view.appliers(verify),
        **trust_view.APPLIERS,
        **ballots_view.APPLIERS,
        **names_view.APPLIERS,
        **dns_view.APPLIERS,
        **dnskeys_view.appliers(verify),
        **split_view.APPLIERS,
        **policy_view.APPLIERS,
        **recovery_view.APPLIERS,
        **relays_view.appliers(verify),
        **releases_view.APPLIERS,
        **secrets_view.APPLIERS,
        **governance_view.APPLIERS,
        **rootkeys_view.APPLIERS,
    }


def ledger_of(
    paths: Paths,
    identity: ServerIdentity,
    charter_records: Sequence[Record],
    clock: Clock,
    on_fatal: Callable[[BaseException], None],
    *,
    disk_trouble: Callable[[], str] = lambda: "",
    remember: Callable[[Sequence[Record]], None] = lambda records: None,
) -> LedgerService:
    """Return the ledger of a data root; it accepts nothing while the disk is in trouble."""
    return LedgerService(
        folder=paths.ledger,
        signing_key=identity.signing_key,
        charter_records=charter_records,
        appliers=appliers(),
        clock=clock,
        on_fatal=on_fatal,
        disk_trouble=disk_trouble,
        remember=remember,
    )


def signer_of(
    settings: Settings, paths: Paths
) -> tuple[SignerProcess | None, GrpcSigner | RemoteSigner | None]:
    """Return the signer process to look after, if any, and the client that reaches the signer."""
    if settings.signer == "none":
        return None, None
    if settings.signer.startswith(SCHEME):
        return None, RemoteSigner(settings.signer, svid_files_of(paths.identity))
    if settings.signer != "auto":
        return None, GrpcSigner(settings.signer)
    if not paths.signer_state.exists():
        return None, None
    process = SignerProcess(
        state=paths.signer_state,
        socket=paths.signer_socket,
        unlock_file=paths.signer_unlock,
        allow_same_user=settings.allow_insecure_same_user,
    )
    return process, GrpcSigner(str(paths.signer_socket))


def signer_socket(settings: Settings, paths: Paths) -> str | None:
    """Return where the signer of this machine listens; None where there is none yet."""
    if settings.signer == "none" or settings.signer.startswith(SCHEME):
        return None
    if settings.signer != "auto":
        return settings.signer
    return str(paths.signer_socket) if paths.signer_state.exists() else None
