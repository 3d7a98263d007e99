"""How the services of the daemon hear of each other: the callbacks that ``services`` hands out."""

from __future__ import annotations

import contextlib
import secrets
from typing import TYPE_CHECKING

from seipd.config.paths import Paths
from seipd.daemon.genesis import save_charter
from seipd.daemon.network import HIDDEN, public_address_of
from seipd.daemon.restored import read_restored
from seipd.daemon.restoring import RestoringService
from seipd.daemon.standing import StandingService
from services.authority.ballots.service import BallotService
from services.authority.governance import parameters
from services.authority.governance.service import GovernanceService
from services.authority.rootkeys.rotating import DAY_MS
from services.authority.rootkeys.rotation import RotationService
from services.authority.rootkeys.seen import RootSeen
from services.authority.rootkeys.service import RootKeysService
from services.base.ledger.roster import Charter
from services.base.signing.keys_client import GrpcKeys
from services.edge.reach.service import ReachService
from services.kernel.addr import is_inner
from services.kernel.errors import ConfigError, InputError, StartError, UnavailableError
from services.kernel.ids import ServerId
from services.mesh.bulk.ports import Place
from services.mesh.facts.kinds import STATE
from services.mesh.facts.payloads import check_host, meant_by
from services.mesh.membership.states import State

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from seipd.config.model import Settings
    from seipd.daemon.fetcher import HttpTileFetcher
    from services.base.keywrap.identity import ServerIdentity
    from services.base.ledger.author import Author
    from services.base.ledger.service import LedgerService
    from services.base.ledger.ticks import StateWord
    from services.edge.peering.service import PeeringService
    from services.edge.wireguard.service import WireGuardService
    from services.kernel.certificates import ServerCertificate
    from services.kernel.clock import Clock
    from services.kernel.records import Record
    from services.kernel.signing import Signer
    from services.mesh.facts.envelope import Fact
    from services.mesh.gossip.service import GossipService


def host_of(settings: Settings, charter: Charter, own: ServerCertificate) -> str:
    """Return where the others are told to reach this server: at its backbone alone if it is hidden.

    Raises:
        ConfigError: it is no address, or one inside of the mesh, which nobody would take.
    """
    if settings.public_address == HIDDEN:
        return own.backbone
    host = public_address_of(settings.public_address, settings.bind_address)
    mend = "say --public-address ADDRESS, or none"
    try:
        check_host(host)
    except InputError as error:
        raise ConfigError(f"{error}, so no other server would use it", mend=mend) from error
    genesis = charter.genesis
    if is_inner(genesis.mesh_id, genesis.ranges, meant_by(host)):
        raise ConfigError(
            f"{host} lies inside of the mesh, so no other server would use it", mend=mend
        )
    return host


def voting_of(
    ledger: LedgerService, author: Author, clock: Clock
) -> tuple[GovernanceService, BallotService]:
    """Return what this server votes with: on parameters, and on new servers."""
    return (
        GovernanceService(ledger=ledger, author=author, clock=clock),
        BallotService(ledger=ledger, author=author, clock=clock),
    )


def bind(ledger: LedgerService, gossip: GossipService) -> None:
    """Let gossip carry cosignatures, and tell the ledger when it may write."""
    ledger.on_cosign(gossip.send_cosign)
    ledger.mind_clock(gossip.clock_trouble)
    # Gossip tells when the others were asked how long this server's own feed is.
    ledger.wait_for_others()


def share_words(
    ledger: LedgerService, gossip: GossipService, readers: Sequence[Callable[[Fact], None]]
) -> None:
    """Tell the others our words on the state as soon as gossip is there; let all be read here."""

    def tell(word: StateWord) -> None:
        with contextlib.suppress(UnavailableError):
            gossip.publish_fact(STATE, word.encode())
            for learn in readers:
                learn(gossip.facts(STATE)[ledger.server_id])

    for learn in readers:
        gossip.subscribe_facts(learn)
    ledger.on_state_word(tell)


def backbone_of(ledger: LedgerService, server_id: str) -> str | None:
    """Return the backbone address of a server of the roster."""
    certificate = ledger.charter.server(ServerId(server_id))
    return certificate.backbone if certificate is not None else None


def own_in(charter: Charter, identity: ServerIdentity) -> ServerCertificate:
    """Return this server's certificate.

    Raises:
        StartError: ``revoked``.
    """
    own = charter.server(identity.server_id)
    if own is None:
        raise StartError(
            "the roster does not name this server any more",
            service="ledger",
            code="revoked",
            mend="take another data root and join anew",
        )
    return own


def standing_of(
    paths: Paths,
    ledger: LedgerService,
    fetcher: HttpTileFetcher,
    gossip: GossipService,
    clock: Clock,
) -> StandingService:
    """Return what asks whether this server was revoked."""

    def remember(records: Sequence[Record]) -> None:
        certificate = ledger.charter.last_certificate(ledger.server_id)
        if certificate is not None:
            save_charter(paths.identity, records, certificate.region)

    return StandingService(
        ledger=ledger,
        asks=fetcher,
        peers=gossip.peers,
        places=others(gossip, ledger.server_id),
        remember=remember,
        rng=secrets.SystemRandom(),
        clock=clock,
    )


def latencies(gossip: GossipService) -> dict[str, float]:
    """Return the round trips measured, in ms by server."""
    return {
        peer.server_id: peer.latency_ms for peer in gossip.peers() if peer.latency_ms is not None
    }


def reach_of(
    ledger: LedgerService,
    gossip: GossipService,
    wireguard: WireGuardService,
    peering: PeeringService,
    clock: Clock,
) -> ReachService:
    """Return what finds a way to servers that have no session with this one."""

    def dead() -> set[ServerId]:
        return {ServerId(peer.server_id) for peer in gossip.peers() if peer.state is State.DEAD}

    reach = ReachService(
        ledger=ledger, tunnels=wireguard, facts=gossip, router=peering, dead=dead, clock=clock
    )
    gossip.subscribe_facts(reach.fact_learnt)
    gossip.subscribe_members(lambda *_: reach.member_changed())
    return reach


def charter_of(records: Sequence[Record]) -> Charter:
    """Return the roster that was remembered."""
    charter = Charter(records[0])
    for record in records[1:]:
        charter.offer(record)
    return charter


def root_of(
    settings: Settings,
    ledger: LedgerService,
    signer: Signer | None,
    socket: str | None,
    clock: Clock,
) -> tuple[RootKeysService, RotationService]:
    """Return the root as reached from here, and what rotates it as often as the mesh has voted."""
    root_keys = RootKeysService(ledger=ledger, signer=signer, clock=clock)

    def interval_ms() -> int:
        if settings.root_rotation_interval_s:
            return int(settings.root_rotation_interval_s * 1000)
        return parameters.number(ledger.state, parameters.ROTATION) * DAY_MS

    rotation = RotationService(
        ledger=ledger,
        root_keys=root_keys,
        # A signer on another machine is asked for signatures alone.
        rotator=GrpcKeys(socket) if socket is not None and "/" in socket else None,
        interval_ms=interval_ms,
        overlap_ms=int(settings.root_overlap_s * 1000),
        seen=RootSeen(Paths(settings.data_root).identity / "root_seen.json"),
        clock=clock,
    )
    ledger.refuse_while(rotation.rolled_back)
    return root_keys, rotation


def restoring_of(
    paths: Paths,
    ledger: LedgerService,
    author: Author,
    root_keys: RootKeysService,
    fetcher: HttpTileFetcher,
    gossip: GossipService,
) -> RestoringService:
    """Return what brings a restored server back into the mesh."""
    mark = read_restored(paths.identity)
    if mark is not None:
        ledger.wait_for_epoch()
    return RestoringService(
        identity=paths.identity,
        mark=mark,
        ledger=ledger,
        author=author,
        root_keys=root_keys,
        asks=fetcher,
        places=others(gossip, ledger.server_id),
    )


def others(gossip: GossipService, own_id: ServerId) -> Callable[[], list[Place]]:
    """Return what lists where the other servers are reached."""

    def others() -> list[Place]:
        return [
            Place(server_id=name, host=fact.host, port=fact.http_port)
            for name, fact in gossip.addresses().items()
            if name != own_id
        ]

    return others


def endpoint_of(
    ledger: LedgerService, gossip: GossipService
) -> Callable[[ServerId], tuple[str, int] | None]:
    """Return what tells where a server's WireGuard is."""

    def endpoint_of(server_id: ServerId) -> tuple[str, int] | None:
        fact = gossip.addresses().get(server_id)
        # Who tells the backbone address has no other: its WireGuard comes to us.
        if fact is None or fact.host == backbone_of(ledger, server_id):
            return None
        return fact.host, fact.wireguard_port

    return endpoint_of
