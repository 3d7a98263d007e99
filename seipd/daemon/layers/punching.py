"""Rendezvous as the daemon runs it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from seipd.daemon.layers.mesh import host_of
from seipd.daemon.network import HIDDEN
from services.edge.punch.messages import RelayOffer
from services.edge.punch.roll import LedgerParties, addresses_gone
from services.edge.punch.service import PunchService, PunchSettings
from services.edge.stun.answering import Answerer, Askers
from services.edge.stun.service import ANY4, ANY6, is_here
from services.kernel.targets import inner_networks

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from seipd.daemon.layers.base import BaseLayer
    from seipd.daemon.layers.ground import Ground
    from services.base.ledger.watching import Change
    from services.edge.punch.meetings import Policy
    from services.edge.relaying.offering import RelayOffering
    from services.edge.wireguard.service import WireGuardService


class RelayOffers:
    """Says what the directory of relays offers in the words of rendezvous; satisfies Offers."""

    def __init__(self, offering: RelayOffering) -> None:
        self._offering = offering

    def offers(
        self,
        one: str,
        other: str,
        excluded: Collection[bytes],
        versions: Sequence[Collection[int]],
        /,
    ) -> Sequence[RelayOffer]:
        """Return the relays that would carry for two nodes, best first; two at most."""
        return [
            RelayOffer(
                relay_id=offer.relay_id,
                host4=offer.host4,
                host6=offer.host6,
                control_port=offer.control_port,
                box_key=offer.box_key,
                ticket=offer.ticket,
            )
            for offer in self._offering.offers(one, other, excluded, versions)
        ]


def punch_of(
    ground: Ground,
    base: BaseLayer,
    *,
    wireguard: WireGuardService,
    policy: Policy,
    offering: RelayOffering,
) -> PunchService:
    """Return what brings endpoints together; nothing is started.

    STUN is answered on its port, too: by two ports of one server an endpoint sees how its router
    treats it.
    """
    settings = ground.settings
    punch = PunchService(
        settings=PunchSettings(
            public_hosts=_public_hosts(ground),
            public_port=settings.hole_punch_port,
            gateway=str(ground.ranges.gateway),
            backbone=ground.own.backbone,
            interface=settings.wireguard_interface,
            mesh_ranges=inner_networks(ground.mesh_id, ground.ranges),
        ),
        parties=LedgerParties(base.ledger),
        policy=policy,
        offers=RelayOffers(offering),
        tunnels=wireguard,
        answer_stun=Answerer(askers=Askers(), places=None, place=0).reply,
        clock=ground.clock,
    )

    def changed(changes: list[Change]) -> None:
        for address in addresses_gone(changes):
            punch.gone(address)

    base.ledger.subscribe(["tree"], changed)
    return punch


def _public_hosts(ground: Ground) -> tuple[str, ...]:
    settings = ground.settings
    hosts = [settings.bind_address]
    if settings.bind_address == ANY4:
        # The answer must come from the address that was asked, whichever way the route goes.
        if settings.public_address != HIDDEN:
            hosts.append(host_of(settings, ground.charter, ground.own))
        hosts.append(ANY6)
        hosts = [one for one in hosts if is_here(one)]
    return tuple(dict.fromkeys(hosts))
