"""The composition root: every service of the daemon, made by layer, in the order of its start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from seipd import __version__
from seipd.daemon.latencies import LatencyService, measured
from seipd.daemon.layers.authority import authority_of
from seipd.daemon.layers.base import base_of
from seipd.daemon.layers.edge import edge_of
from seipd.daemon.layers.front import front_of
from seipd.daemon.layers.mesh import mesh_of
from seipd.daemon.load import LoadService
from services.runtime.looplag import LoopLagService

if TYPE_CHECKING:
    from collections.abc import Sequence

    from seipd.daemon.layers.ground import Ground
    from services.base.ledger.service import LedgerService
    from services.kernel.service import Service


@dataclass(frozen=True, slots=True, kw_only=True)
class Composition:
    """What the daemon runs, besides the storage that it stands on."""

    services: Sequence[Service]
    ledger: LedgerService


def compose(ground: Ground) -> Composition:
    """Make every service; nothing is started here."""
    base = base_of(ground)
    authority = authority_of(ground, base)
    mesh = mesh_of(ground, base, authority)
    edge = edge_of(ground, base, authority, mesh)
    all_services: list[Service] = []
    front = front_of(ground, base, authority, mesh, edge, all_services=all_services)
    started: list[Service] = [
        *([base.signer_process] if base.signer_process else []),
        base.ledger,
        base.release,
        authority.releases,
        mesh.trust,
        authority.tree,
        authority.governance,
        authority.ipam,
        authority.root_keys,
        authority.rotation,
        authority.recovering.host,
        authority.recovering.shares,
        authority.audit,
        authority.ballots,
        authority.enroll,
        authority.names,
        authority.zone_keys,
        mesh.gossip,
        mesh.attesting.service,
        mesh.restoring,
        mesh.alarm,
        edge.stun,
        edge.resolver,
        edge.dns,
        edge.port_teller,
        *([edge.address6_teller] if edge.address6_teller else []),
        edge.auth,
        edge.acl,
        edge.policy,
        edge.subnets,
        edge.wireguard,
        edge.reach,
        edge.peering,
        *([edge.relaying.relay] if edge.relaying.relay else []),
        edge.relaying.directory,
        edge.punch,
        *edge.certifying.services,
        LoadService(
            ledger=base.ledger,
            tell=mesh.gossip,
            tunnels=edge.wireguard,
            version=__version__,
            clock=ground.clock,
        ),
        LatencyService(
            measured=lambda: measured(mesh.gossip), tell=mesh.gossip, clock=ground.clock
        ),
        mesh.release_teller,
        mesh.secrets,
        *([edge.address_watch] if edge.address_watch else []),
        edge.ddns,
        LoopLagService(clock=ground.clock),
        mesh.standing,
        front.http,
    ]
    all_services += [ground.storage, *started]
    return Composition(services=started, ledger=base.ledger)
