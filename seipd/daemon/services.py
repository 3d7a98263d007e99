"""The composition root: every service of the daemon, made and listed in the order of its start."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from seipd import __version__
from seipd.api.server import HttpService
from seipd.api.services import ApiServices
from seipd.api.tls import load_tls_identity
from seipd.config.check import refuse_other_ranges
from seipd.config.paths import Paths
from seipd.daemon import wiring
from seipd.daemon.alarms import AlarmService
from seipd.daemon.fetcher import HttpTileFetcher
from seipd.daemon.genesis import save_charter
from seipd.daemon.latencies import LatencyService
from seipd.daemon.load import LoadService
from seipd.daemon.mesh_info import DaemonInfo
from seipd.daemon.network import public_address_of
from seipd.daemon.recovering import recovering_of
from seipd.daemon.releasing import release_of
from seipd.daemon.signer_process import SignerProcess
from seipd.daemon.trusting import trust_of
from services.authority.ballots import view as ballots_view
from services.authority.enroll import view as enroll_view
from services.authority.enroll.service import EnrollService
from services.authority.governance import view as governance_view
from services.authority.ipam import view as ipam_view
from services.authority.ipam.service import IpamService
from services.authority.names import view as names_view
from services.authority.names.service import NamesService
from services.authority.recovery import view as recovery_view
from services.authority.rootkeys import view as rootkeys_view
from services.authority.tree import view as tree_view
from services.authority.trust import view as trust_view
from services.base.crypto.signatures import verify
from services.base.ledger.author import Author
from services.base.ledger.service import LedgerService
from services.base.signing.client import GrpcSigner
from services.base.signing.remote import SCHEME, RemoteSigner, svid_files_of
from services.edge.acl.service import AclService
from services.edge.auth.service import AuthService
from services.edge.peering.plan import interface_plan
from services.edge.peering.service import PeeringService
from services.edge.wireguard.service import WireGuardService
from services.kernel.addr import is_inner, own_tunnel_address
from services.kernel.ids import ServerId
from services.mesh.facts.payloads import meant_by
from services.mesh.facts.statewords import WordKeeper
from services.mesh.gossip.addresses import Advertisement
from services.mesh.gossip.service import GossipService
from services.mesh.gossip.settings import GossipSettings
from services.runtime.looplag import LoopLagService

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from seipd.config.model import Settings
    from services.base.keywrap.identity import ServerIdentity
    from services.base.ledger.roster import Charter
    from services.base.storage.service import StorageService
    from services.kernel.certificates import ServerCertificate
    from services.kernel.clock import Clock
    from services.kernel.records import Record
    from services.kernel.service import Service
    from services.kernel.views import Appliers
    from services.runtime.tasks import TaskOwner


@dataclass(frozen=True, slots=True, kw_only=True)
class Composition:
    """What the daemon runs."""

    services: Sequence[Service]
    info: DaemonInfo
    ledger: LedgerService
    http: HttpService
    wireguard: WireGuardService


def appliers() -> Appliers:
    """Return the kinds of every view."""
    return {
        **tree_view.APPLIERS,
        **ipam_view.APPLIERS,
        **enroll_view.appliers(verify),
        **trust_view.APPLIERS,
        **ballots_view.APPLIERS,
        **names_view.APPLIERS,
        **recovery_view.APPLIERS,
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


def compose(
    settings: Settings,
    *,
    storage: StorageService,
    identity: ServerIdentity,
    charter_records: Sequence[Record],
    clock: Clock,
    tasks: TaskOwner,
    on_fatal: Callable[[BaseException], None],
) -> Composition:
    """Make every service; nothing is started here."""
    paths = Paths(settings.data_root)
    own = wiring.own_in(charter := wiring.charter_of(charter_records), identity)
    mesh_id, ranges = charter.genesis.mesh_id, charter.genesis.ranges
    refuse_other_ranges(settings, ranges)
    public_address = public_address_of(settings.public_address, settings.bind_address)

    signer_process, signer = signer_of(settings, paths)
    ledger = ledger_of(
        paths,
        identity,
        charter_records,
        clock,
        on_fatal,
        disk_trouble=storage.trouble,
        remember=lambda records: save_charter(paths.identity, records, own.region),
    )
    author = Author(key=identity.signing_key, mesh_id=mesh_id, clock=clock)
    governance, ballots = wiring.voting_of(ledger, author, clock)
    ipam = IpamService(ledger=ledger, author=author)
    root_keys, rotation = wiring.root_of(
        settings, ledger, signer, socket := signer_socket(settings, paths), clock
    )
    recovering = recovering_of(
        settings, paths, identity, ledger, author, root_keys, rotation, socket, clock
    )
    enroll = EnrollService(
        ledger=ledger,
        author=author,
        allocator=ipam,
        root_keys=root_keys,
        ballots=ballots,
        clock=clock,
    )
    names = NamesService(ledger=ledger, author=author, rng=secrets.SystemRandom())
    fetcher = HttpTileFetcher(ledger=ledger, key=identity.signing_key, clock=clock)
    gossip = GossipService(
        settings=GossipSettings(
            bind_address=settings.bind_address,
            port=settings.gossip_port,
            interval_s=settings.gossip_interval_s,
        ),
        key=identity.signing_key,
        mesh_id=mesh_id,
        ledger=ledger,
        fetch=fetcher,
        clock=clock,
        peers_file=paths.peers,
        backbone_of=lambda server_id: wiring.backbone_of(ledger, server_id),
        is_inner=lambda host: is_inner(mesh_id, ranges, meant_by(host)),
    )
    gossip.announce(
        Advertisement(
            host=wiring.host_of(settings, charter, own),
            http_port=settings.http_port,
            wireguard_port=settings.wireguard_port,
            region=own.region,
        )
    )
    trust = trust_of(
        ledger,
        author,
        governance,
        gossip,
        clock,
        gossip_interval_s=settings.gossip_interval_s,
    )
    wiring.bind(ledger, gossip)
    words = WordKeeper(lambda: ledger.charter)
    alarm = AlarmService(folder=paths.alarms, mesh_id=mesh_id, own_id=own.server_id, clock=clock)
    wiring.share_words(ledger, gossip, (words.learn, alarm.learn))
    auth = AuthService(ledger=ledger, session_key=identity.session_signing_key, clock=clock)
    acl = AclService(ledger=ledger)
    wireguard = WireGuardService(
        interface=settings.wireguard_interface,
        listen_port=settings.wireguard_port,
        private_key=identity.wireguard_private_key,
        backend_choice=settings.wireguard_backend,  # type: ignore[arg-type]  # checked by Settings
        run_dir=paths.run,
        clock=clock,
        tasks=tasks,
        # Known before the start: an interface that is there keeps its routes while we come up.
        plan=interface_plan(mesh_id, ranges, own),
    )
    peering = PeeringService(
        ledger=ledger, tunnels=wireguard, endpoint_of=wiring.endpoint_of(ledger, gossip)
    )
    gossip.subscribe_addresses(lambda server_id: peering.address_learnt(ServerId(server_id)))
    reach = wiring.reach_of(ledger, gossip, wireguard, peering, clock)
    tls = load_tls_identity(paths.tls, name=identity.server_id, clock=clock)
    restoring = wiring.restoring_of(paths, ledger, author, root_keys, fetcher, gossip)
    info = DaemonInfo(
        settings=settings,
        public_address=public_address,
        version=__version__,
        ledger=ledger,
        gossip=gossip,
        wireguard=wireguard,
        names=names,
        trust=trust,
        words=words,
        through=lambda: reach.through,
        clock=clock,
    )
    services: list[Service] = [storage]
    api = ApiServices(
        ledger=ledger,
        author=author,
        enroll=enroll,
        governance=governance,
        ipam=ipam,
        ballots=ballots,
        recovery=recovering.shares,
        root_recovery=recovering.root,
        rotation=rotation,
        root_keys=root_keys,
        trust=trust,
        release=(release := release_of(settings, paths, clock)),
        auth=auth,
        acl=acl,
        mesh=info,
        tls=tls,
        clock=clock,
        all_services=services,
        version=__version__,
    )
    tunnel = str(own_tunnel_address(own.slices))
    http = HttpService(
        services=api,
        bind_address=settings.bind_address,
        public_port=settings.http_port,
        private_port=settings.private_http_port,
        private_addresses=(str(ranges.gateway), tunnel, own.backbone),
        certificate_names=_names(own, charter, public_address, tunnel),
        socket_path=paths.socket,
    )
    info.http = http
    started: list[Service] = [
        ledger,
        release,
        trust,
        governance,
        ipam,
        root_keys,
        rotation,
        recovering.host,
        recovering.shares,
        ballots,
        enroll,
        names,
        gossip,
        restoring,
        alarm,
        auth,
        acl,
        wireguard,
        reach,
        peering,
        LoadService(
            ledger=ledger, tell=gossip, tunnels=wireguard, version=__version__, clock=clock
        ),
        LatencyService(measured=lambda: wiring.latencies(gossip), tell=gossip, clock=clock),
        LoopLagService(clock=clock),
        wiring.standing_of(paths, ledger, fetcher, gossip, clock),
        http,
    ]
    services += [*([signer_process] if signer_process else []), *started]
    info.services = services
    return Composition(
        services=services[1:], info=info, ledger=ledger, http=http, wireguard=wireguard
    )


def _names(
    own: ServerCertificate, charter: Charter, public_address: str, tunnel: str
) -> tuple[str, ...]:
    zone = f"{own.region}.seip.{charter.genesis.domain}"
    return (
        f"{own.server_id}.{zone}",
        f"private.{own.server_id}.{zone}",
        f"backend.{own.server_id}.{zone}",
        "localhost",
        public_address,
        str(charter.genesis.ranges.gateway),
        tunnel,
        own.backbone,
        "127.0.0.1",
    )
