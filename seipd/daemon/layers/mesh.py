"""The mesh layer: gossip, what it carries for others, and what is made of what it heard."""

from __future__ import annotations

import contextlib
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from seipd.daemon.alarms import AlarmService
from seipd.daemon.fetcher import HttpTileFetcher
from seipd.daemon.genesis import save_charter
from seipd.daemon.layers.attesting import Attesting, attesting_of
from seipd.daemon.layers.releasing import ReleasesSeen, teller_of
from seipd.daemon.layers.secretkeeping import secrets_of
from seipd.daemon.layers.trusting import trust_of
from seipd.daemon.network import HIDDEN, public_address_of
from seipd.daemon.restored import read_restored
from seipd.daemon.restoring import RestoringService
from seipd.daemon.standing import StandingService
from services.kernel.addr import is_inner
from services.kernel.errors import ConfigError, InputError, UnavailableError
from services.kernel.ids import ServerId
from services.mesh.bulk.ports import Place
from services.mesh.facts.kinds import STATE
from services.mesh.facts.payloads import check_host, meant_by
from services.mesh.facts.statewords import WordKeeper
from services.mesh.gossip.addresses import Advertisement
from services.mesh.gossip.service import GossipService
from services.mesh.gossip.settings import GossipSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from seipd.config.model import Settings
    from seipd.daemon.layers.authority import AuthorityLayer
    from seipd.daemon.layers.base import BaseLayer
    from seipd.daemon.layers.ground import Ground
    from seipd.daemon.telling_release import ReleaseTeller
    from services.authority.serversecrets.service import SecretsService
    from services.authority.trust.service import TrustService
    from services.base.ledger.roster import Charter
    from services.base.ledger.service import LedgerService
    from services.base.ledger.ticks import StateWord
    from services.kernel.certificates import ServerCertificate
    from services.kernel.records import Record
    from services.mesh.facts.envelope import Fact


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshLayer:
    """What knows of the other servers."""

    fetcher: HttpTileFetcher
    gossip: GossipService
    attesting: Attesting
    trust: TrustService
    releases: ReleasesSeen
    release_teller: ReleaseTeller
    secrets: SecretsService
    words: WordKeeper
    alarm: AlarmService
    restoring: RestoringService
    standing: StandingService


def mesh_of(ground: Ground, base: BaseLayer, authority: AuthorityLayer) -> MeshLayer:
    """Make the layer; nothing is started."""
    ledger, clock = base.ledger, ground.clock
    fetcher = HttpTileFetcher(ledger=ledger, key=ground.identity.signing_key, clock=clock)
    gossip = gossip_of(ground, base, fetcher)
    releases = ReleasesSeen(
        own_id=ground.own.server_id, release=base.release, gossip=gossip, clock=clock
    )
    words = WordKeeper(lambda: ledger.charter)
    alarm = AlarmService(
        folder=ground.paths.alarms,
        mesh_id=ground.mesh_id,
        own_id=ground.own.server_id,
        clock=clock,
    )
    share_words(ledger, gossip, (words.learn, alarm.learn))
    attesting = attesting_of(ground, base, gossip, fetcher)
    return MeshLayer(
        fetcher=fetcher,
        gossip=gossip,
        attesting=attesting,
        trust=trust_of(ground, base, authority.governance, gossip, releases, attesting),
        releases=releases,
        release_teller=teller_of(base.release, ledger, gossip, clock),
        secrets=secrets_of(ground, base, gossip, fetcher),
        words=words,
        alarm=alarm,
        restoring=restoring_of(ground, base, authority, fetcher, gossip),
        standing=standing_of(ground, base, fetcher, gossip),
    )


def gossip_of(ground: Ground, base: BaseLayer, fetcher: HttpTileFetcher) -> GossipService:
    """Return gossip that carries the ledger, and tells the others where this server is."""
    settings, ledger = ground.settings, base.ledger
    gossip = GossipService(
        settings=GossipSettings(
            bind_address=settings.bind_address,
            port=settings.gossip_port,
            interval_s=settings.gossip_interval_s,
        ),
        key=ground.identity.signing_key,
        mesh_id=ground.mesh_id,
        ledger=ledger,
        fetch=fetcher,
        clock=ground.clock,
        peers_file=ground.paths.peers,
        backbone_of=lambda server_id: backbone_of(ledger, server_id),
        is_inner=lambda host: is_inner(ground.mesh_id, ground.ranges, meant_by(host)),
    )
    host = host_of(settings, ground.charter, ground.own)
    gossip.announce(advertisement_of(settings, ground.own, host))
    ledger.on_cosign(gossip.send_cosign)
    ledger.mind_clock(gossip.clock_trouble)
    # Gossip tells when the others were asked how long this server's own feed is.
    ledger.wait_for_others()
    return gossip


def advertisement_of(settings: Settings, own: ServerCertificate, host: str) -> Advertisement:
    """Return what the others are told of where this server is."""
    return Advertisement(
        host=host,
        http_port=settings.http_port,
        wireguard_port=settings.wireguard_port,
        region=own.region,
    )


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


def backbone_of(ledger: LedgerService, server_id: str) -> str | None:
    """Return the backbone address of a server of the roster."""
    certificate = ledger.charter.server(ServerId(server_id))
    return certificate.backbone if certificate is not None else None


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


def restoring_of(
    ground: Ground,
    base: BaseLayer,
    authority: AuthorityLayer,
    fetcher: HttpTileFetcher,
    gossip: GossipService,
) -> RestoringService:
    """Return what brings a restored server back into the mesh."""
    ledger = base.ledger
    mark = read_restored(ground.paths.identity)
    if mark is not None:
        ledger.wait_for_epoch()
    return RestoringService(
        identity=ground.paths.identity,
        mark=mark,
        ledger=ledger,
        author=base.author,
        root_keys=authority.root_keys,
        asks=fetcher,
        places=others(gossip, ledger.server_id),
    )


def standing_of(
    ground: Ground, base: BaseLayer, fetcher: HttpTileFetcher, gossip: GossipService
) -> StandingService:
    """Return what asks whether this server was revoked."""
    ledger = base.ledger

    def remember(records: Sequence[Record]) -> None:
        certificate = ledger.charter.last_certificate(ledger.server_id)
        if certificate is not None:
            save_charter(ground.paths.identity, records, certificate.region)

    return StandingService(
        ledger=ledger,
        asks=fetcher,
        peers=gossip.peers,
        places=others(gossip, ledger.server_id),
        remember=remember,
        rng=secrets.SystemRandom(),
        clock=ground.clock,
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
