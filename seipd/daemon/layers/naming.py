"""The name server as the daemon runs it: a zone made of the ledger and of what gossip heard."""

from __future__ import annotations

import secrets
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from seipd.daemon.layers.mesh import host_of
from seipd.daemon.network import HIDDEN
from seipd.daemon.telling_address6 import Address6Teller
from seipd.daemon.telling_ports import PortTeller
from services.authority.splitdns.view import DNS_PORT
from services.edge.acme.challenges import records_of
from services.edge.dns.answering import Answerer, Soa
from services.edge.dns.cookies import Cookies
from services.edge.dns.publishedkeys import PublishedKeys
from services.edge.dns.publishing import Publisher
from services.edge.dns.ratelimiting import ResponseRates
from services.edge.dns.serials import Serials
from services.edge.dns.service import ANY4, DnsService, DnsSettings
from services.edge.dns.signing import ZoneSigner
from services.edge.resolver.routing import Routes
from services.edge.resolver.service import ResolverService, ResolverSettings
from services.edge.resolver.upstreams import parse_upstreams
from services.kernel.addr import backbone6, is_inner, own_tunnel_address, tunnel6
from services.kernel.dnsnames import name_of
from services.kernel.errors import ConfigError
from services.mesh.facts.kinds import CHALLENGE
from services.mesh.facts.payloads import PortsPayload

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from seipd.daemon.layers.base import BaseLayer
    from seipd.daemon.layers.ground import Ground
    from services.authority.dnskeys.service import ZoneKeysService
    from services.edge.stun.service import StunService
    from services.mesh.facts.envelope import Fact
    from services.mesh.gossip.service import GossipService

RESPONSES_PER_S = 100
RESOLV_CONF = Path("/etc/resolv.conf")
LOOPBACK = frozenset({"127.0.0.1", "::1"})
_SOFT_KINDS = frozenset({CHALLENGE})


def dns_of(
    ground: Ground,
    base: BaseLayer,
    zone_keys: ZoneKeysService,
    gossip: GossipService,
    recursion: ResolverService,
) -> DnsService:
    """Return the name server; nothing is started."""
    ledger, clock, domain = base.ledger, ground.clock, ground.charter.genesis.domain

    def held_count() -> int:
        return sum(head.size for head in ledger.feeds().values())

    def challenges() -> Mapping[str, tuple[str, ...]]:
        return records_of(
            gossip.facts(CHALLENGE),
            charter=ledger.charter,
            state=ledger.state,
            domain=domain,
        )

    serials = Serials(count=held_count, file=ground.paths.dns_serial)
    publisher = Publisher(
        ledger=ledger,
        gossip=gossip,
        mesh_id=ground.mesh_id,
        ranges=ground.ranges,
        domain=domain,
        challenges=challenges,
        moved=serials.moved,
    )
    answerer = Answerer(
        zones=publisher.zones(),
        soa=Soa(mname=name_of(f"ns1.{domain}"), rname=name_of(f"hostmaster.{domain}")),
        serial=serials.current,
        cookies=Cookies(secrets.token_bytes, now_s=clock.now_ms() // 1000),
        rates=ResponseRates(per_second=RESPONSES_PER_S),
        signer=ZoneSigner(
            apex=name_of(domain),
            key=zone_keys.key,
            published=PublishedKeys(state=lambda: ledger.state, apex=name_of(domain)).current,
        ),
    )
    service = DnsService(
        settings=settings_of(ground),
        answerer=answerer,
        publisher=publisher,
        serials=serials,
        clock=clock,
        recursion=recursion,
    )

    def heard(fact: Fact) -> None:
        if fact.kind in _SOFT_KINDS:
            service.hurry()

    gossip.subscribe_facts(heard)
    gossip.subscribe_addresses(lambda _: service.hurry())
    gossip.subscribe_members(lambda *_: service.hurry())
    return service


def resolver_of(ground: Ground, base: BaseLayer) -> ResolverService:
    """Return what looks up other names for endpoints; nothing is started."""
    settings = settings_of(ground)
    own = own_hosts(settings)
    routes = Routes(
        state=lambda: base.ledger.state, mesh_id=ground.mesh_id, ranges=ground.ranges, own=own
    )
    return ResolverService(
        settings=ResolverSettings(
            upstreams=parse_upstreams(ground.settings.dns_upstreams),
            own=own,
            is_inner=lambda address: is_inner(ground.mesh_id, ground.ranges, address),
            resolv_conf=RESOLV_CONF,
        ),
        routes=routes,
        clock=ground.clock,
    )


def own_hosts(settings: DnsSettings) -> frozenset[str]:
    """Return where this name server answers itself."""
    hosts = {*settings.inner_addresses, settings.public_address, settings.bind_address}
    if settings.bind_address == ANY4 and settings.port == DNS_PORT:
        hosts |= LOOPBACK
    return frozenset(hosts)


def settings_of(ground: Ground) -> DnsSettings:
    """Return where the name server listens."""
    settings, own, mesh_id, ranges = ground.settings, ground.own, ground.mesh_id, ground.ranges
    tunnel, backbone = own_tunnel_address(own.slices), ip_address(own.backbone)
    hidden = settings.public_address == HIDDEN

    def inside(address: str) -> bool:
        return is_inner(mesh_id, ranges, ip_address(address.partition("%")[0]))

    return DnsSettings(
        bind_address=settings.bind_address,
        public_address="" if hidden else host_of(settings, ground.charter, own),
        port=settings.dns_port,
        inner_addresses=(
            str(ranges.gateway),
            str(tunnel6(mesh_id, ranges.gateway)),
            str(tunnel),
            str(tunnel6(mesh_id, tunnel)),
            own.backbone,
            str(backbone6(mesh_id, backbone)),  # type: ignore[arg-type]  # an IPv4 address
        ),
        interface=settings.wireguard_interface,
        is_inner=inside,
    )


def address6_teller_of(ground: Ground, gossip: GossipService) -> Address6Teller | None:
    """Return what tells the other servers the IPv6 address of this one, if the settings name one.

    Raises:
        ConfigError: it lies inside of the mesh.
    """
    host = ground.settings.public_address6
    if host and is_inner(ground.mesh_id, ground.ranges, ip_address(host)):
        raise ConfigError(
            f"{host} lies inside of the mesh, so nobody would use it",
            mend="say --public-address6 ADDRESS as others see it, or leave it out",
        )
    return Address6Teller(host=host, tell=gossip, clock=ground.clock) if host else None


def port_teller_of(
    ground: Ground,
    gossip: GossipService,
    dns: DnsService,
    stun: StunService,
    relay_port: Callable[[], int],
    hole_punch_port: Callable[[], int],
) -> PortTeller:
    """Return what tells the other servers where this one's services are."""
    settings = ground.settings

    def ports() -> PortsPayload:
        return PortsPayload(
            private_http=settings.private_http_port,
            stun=stun.port,
            relay=relay_port(),
            dns=dns.port,
            hole_punch=hole_punch_port(),
        )

    return PortTeller(ports=ports, tell=gossip, clock=ground.clock)
