"""The front: what this server tells of itself, and the HTTPS servers that tell it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from seipd import __version__
from seipd.api.server import HttpService
from seipd.api.services import ApiServices
from seipd.api.tls import load_tls_identity
from seipd.daemon.layers.stun import outside_of
from seipd.daemon.mesh_info import DaemonInfo
from seipd.daemon.network import more_public_addresses, public_address_of
from services.kernel.addr import own_tunnel_address

if TYPE_CHECKING:
    from collections.abc import Sequence

    from seipd.api.tlsswitch import TlsSwitch
    from seipd.daemon.layers.authority import AuthorityLayer
    from seipd.daemon.layers.base import BaseLayer
    from seipd.daemon.layers.edge import EdgeLayer
    from seipd.daemon.layers.ground import Ground
    from seipd.daemon.layers.mesh import MeshLayer
    from services.kernel.service import Service


@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """What faces people."""

    info: DaemonInfo
    http: HttpService


def front_of(
    ground: Ground,
    base: BaseLayer,
    authority: AuthorityLayer,
    mesh: MeshLayer,
    edge: EdgeLayer,
    *,
    all_services: Sequence[Service],
) -> Front:
    """Make the front; ``all_services`` is the list that it tells the health of, filled later."""
    info = info_of(ground, base, authority, mesh, edge)
    if edge.address_watch is not None:
        edge.address_watch.on_change.append(info.moved)
    api = ApiServices(
        ledger=base.ledger,
        author=base.author,
        enroll=authority.enroll,
        governance=authority.governance,
        tree=authority.tree,
        ipam=authority.ipam,
        ballots=authority.ballots,
        recovery=authority.recovering.shares,
        root_recovery=authority.recovering.root,
        rotation=authority.rotation,
        audit=authority.audit,
        root_keys=authority.root_keys,
        zone_keys=authority.zone_keys,
        trust=mesh.trust,
        attestation=mesh.attesting.service,
        enrolments=mesh.attesting.enrolments,
        certified_here=mesh.attesting.certified_here,
        certifier=mesh.attesting.certifier,
        refused_quotes=mesh.attesting.refused,
        release=base.release,
        secrets=mesh.secrets,
        auth=edge.auth,
        acl=edge.acl,
        policy=edge.policy,
        ddns=edge.ddns,
        relays=edge.relaying.directory,
        relay_offering=edge.relaying.offering,
        jobs=edge.certifying.jobs,
        acme=edge.certifying.acme,
        mesh=info,
        tls=load_tls_identity(ground.paths.tls, name=ground.identity.server_id, clock=ground.clock),
        clock=ground.clock,
        all_services=all_services,
        version=__version__,
        tls_mode=ground.settings.tls,
    )
    http = http_of(ground, api, edge.certifying.switch)
    info.http = http
    info.services = all_services
    return Front(info=info, http=http)


def info_of(
    ground: Ground, base: BaseLayer, authority: AuthorityLayer, mesh: MeshLayer, edge: EdgeLayer
) -> DaemonInfo:
    """Return what gathers the documents of ``status``, ``servers`` and ``peers``."""
    settings = ground.settings
    return DaemonInfo(
        settings=settings,
        public_address=public_address_of(settings.public_address, settings.bind_address),
        public_address6=settings.public_address6,
        version=__version__,
        ledger=base.ledger,
        gossip=mesh.gossip,
        wireguard=edge.wireguard,
        names=authority.names,
        trust=mesh.trust,
        release_of=mesh.releases.shown,
        words=mesh.words,
        through=lambda: edge.reach.through,
        dns_port=lambda: edge.dns.port,
        stun_port=lambda: edge.stun.port,
        relay_port=lambda: edge.relaying.port,
        hole_punch_port=lambda: edge.punch.port,
        outside=outside_of(ground, mesh.gossip),
        clock=ground.clock,
    )


def http_of(ground: Ground, api: ApiServices, switch: TlsSwitch) -> HttpService:
    """Return the two HTTPS servers and the local socket."""
    settings, own = ground.settings, ground.own
    gateway = str(ground.ranges.gateway)
    tunnel = str(own_tunnel_address(own.slices))
    public_address = public_address_of(settings.public_address, settings.bind_address)
    zone = f"{own.region}.seip.{ground.charter.genesis.domain}"
    return HttpService(
        services=api,
        bind_address=settings.bind_address,
        public_port=settings.http_port,
        private_port=settings.private_http_port,
        private_addresses=(gateway, tunnel, own.backbone),
        certificate_names=(
            f"{own.server_id}.{zone}",
            f"private.{own.server_id}.{zone}",
            f"backend.{own.server_id}.{zone}",
            "localhost",
            public_address,
            *((settings.public_address6,) if settings.public_address6 else ()),
            gateway,
            tunnel,
            own.backbone,
            "127.0.0.1",
        ),
        public_addresses=more_public_addresses(settings),
        socket_path=ground.paths.socket,
        switch=switch,
    )
