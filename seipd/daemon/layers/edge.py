"""The edge layer: who may ask for what, and the tunnels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from seipd.daemon.layers.certifying import Certifying, certifying_of
from seipd.daemon.layers.ddns import ddns_of
from seipd.daemon.layers.mesh import backbone_of
from seipd.daemon.layers.naming import (
    address6_teller_of,
    dns_of,
    port_teller_of,
    resolver_of,
)
from seipd.daemon.layers.punching import punch_of
from seipd.daemon.layers.relaying import Relaying, relaying_of
from seipd.daemon.layers.stun import address_watch_of, stun_of
from seipd.daemon.layers.watching_zone import missing_of
from services.edge.acl.service import AclService
from services.edge.auth.service import AuthService
from services.edge.peering.plan import interface_plan
from services.edge.peering.service import PeeringService
from services.edge.policy.service import PolicyService
from services.edge.punch.messages import What
from services.edge.reach.service import ReachService
from services.edge.subnets.service import SubnetService
from services.edge.wireguard.service import WireGuardService
from services.edge.wireguard.ways import uplink_mtu
from services.kernel.ids import ServerId
from services.mesh.membership.states import State

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from seipd.daemon.layers.authority import AuthorityLayer
    from seipd.daemon.layers.base import BaseLayer
    from seipd.daemon.layers.ground import Ground
    from seipd.daemon.layers.mesh import MeshLayer
    from seipd.daemon.own_address import AddressWatch
    from seipd.daemon.telling_address6 import Address6Teller
    from seipd.daemon.telling_ports import PortTeller
    from services.base.ledger.service import LedgerService
    from services.edge.ddns.service import DdnsService
    from services.edge.dns.service import DnsService
    from services.edge.punch.service import PunchService
    from services.edge.resolver.service import ResolverService
    from services.edge.stun.service import StunService
    from services.mesh.gossip.service import GossipService


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeLayer:
    """What faces endpoints."""

    auth: AuthService
    acl: AclService
    policy: PolicyService
    subnets: SubnetService
    wireguard: WireGuardService
    peering: PeeringService
    reach: ReachService
    stun: StunService
    resolver: ResolverService
    dns: DnsService
    ddns: DdnsService
    address_watch: AddressWatch | None
    certifying: Certifying
    relaying: Relaying
    punch: PunchService
    port_teller: PortTeller
    address6_teller: Address6Teller | None


def edge_of(
    ground: Ground, base: BaseLayer, authority: AuthorityLayer, mesh: MeshLayer
) -> EdgeLayer:
    """Make the layer; nothing is started."""
    ledger, gossip, clock = base.ledger, mesh.gossip, ground.clock
    wireguard = wireguard_of(ground)
    subnets = SubnetService(
        ledger=ledger,
        mesh_id=ground.mesh_id,
        interface=ground.settings.wireguard_interface,
    )
    peering = PeeringService(
        ledger=ledger,
        tunnels=wireguard,
        endpoint_of=endpoint_of(ledger, gossip),
        carries_subnets=lambda: subnets.is_kept,
        mtu_of=mtu_of(ground),
    )
    gossip.subscribe_addresses(lambda server_id: peering.address_learnt(ServerId(server_id)))
    resolver = resolver_of(ground, base)
    dns = dns_of(ground, base, authority.zone_keys, gossip, resolver)
    stun, address_watch = stun_of(ground), address_watch_of(ground, gossip)
    acl = AclService(ledger=ledger)
    policy = PolicyService(
        ledger=ledger,
        mesh_id=ground.mesh_id,
        interface=ground.settings.wireguard_interface,
    )
    relaying = relaying_of(ground, base, gossip)
    punch = punch_of(ground, base, wireguard=wireguard, policy=acl, offering=relaying.offering)
    policy.subscribe(lambda nodes: punch.changed(What.POLICY, nodes))
    subnets.subscribe(lambda nodes: punch.changed(What.PEERS, nodes))
    return EdgeLayer(
        auth=AuthService(
            ledger=ledger, session_key=ground.identity.session_signing_key, clock=clock
        ),
        acl=acl,
        policy=policy,
        subnets=subnets,
        wireguard=wireguard,
        peering=peering,
        reach=reach_of(ground, base, gossip, wireguard, peering),
        stun=stun,
        resolver=resolver,
        dns=dns,
        ddns=ddns_of(ground, mesh.secrets, address_watch),
        address_watch=address_watch,
        certifying=certifying_of(
            ground, base, gossip, hurry=dns.hurry, missing=missing_of(ground, base, gossip, dns)
        ),
        relaying=relaying,
        punch=punch,
        port_teller=port_teller_of(
            ground, gossip, dns, stun, lambda: relaying.port, lambda: punch.port
        ),
        address6_teller=address6_teller_of(ground, gossip),
    )


def wireguard_of(ground: Ground) -> WireGuardService:
    """Return the interface."""
    settings = ground.settings
    return WireGuardService(
        interface=settings.wireguard_interface,
        listen_port=settings.wireguard_port,
        private_key=ground.identity.wireguard_private_key,
        backend_choice=settings.wireguard_backend,  # type: ignore[arg-type]  # checked by Settings
        run_dir=ground.paths.run,
        clock=ground.clock,
        tasks=ground.tasks,
        # Known before the start: an interface that is there keeps its routes while we come up.
        plan=interface_plan(ground.mesh_id, ground.ranges, ground.own),
    )


def mtu_of(ground: Ground) -> Callable[[], Awaitable[int]]:
    """Return what says how large packets in the tunnel may be."""
    chosen = ground.settings.wireguard_mtu

    async def mtu_of() -> int:
        return chosen or await uplink_mtu()

    return mtu_of


def reach_of(
    ground: Ground,
    base: BaseLayer,
    gossip: GossipService,
    wireguard: WireGuardService,
    peering: PeeringService,
) -> ReachService:
    """Return what finds a way to servers that have no session with this one."""

    def dead() -> set[ServerId]:
        return {ServerId(peer.server_id) for peer in gossip.peers() if peer.state is State.DEAD}

    reach = ReachService(
        ledger=base.ledger,
        tunnels=wireguard,
        facts=gossip,
        router=peering,
        dead=dead,
        clock=ground.clock,
    )
    gossip.subscribe_facts(reach.fact_learnt)
    gossip.subscribe_members(lambda *_: reach.member_changed())
    return reach


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
