"""STUN as the daemon runs it: the server, and what others see of this one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from seipd.daemon.layers.mesh import advertisement_of, host_of
from seipd.daemon.network import HIDDEN, is_found
from seipd.daemon.outside import Outside
from seipd.daemon.own_address import AddressWatch
from services.edge.stun.asking import parse_servers
from services.edge.stun.service import StunService, StunSettings
from services.kernel.addr import is_inner
from services.mesh.facts.kinds import PORTS
from services.mesh.facts.payloads import PortsPayload, decode_payload, meant_by

if TYPE_CHECKING:
    from collections.abc import Callable

    from seipd.daemon.layers.ground import Ground
    from services.edge.stun.messages import Address
    from services.mesh.gossip.service import GossipService


def stun_of(ground: Ground) -> StunService:
    """Return the STUN server; nothing is started."""
    settings = ground.settings
    hidden = settings.public_address == HIDDEN
    host = "" if hidden else host_of(settings, ground.charter, ground.own)
    return StunService(
        settings=StunSettings(
            bind_address=settings.bind_address,
            port=settings.stun_port,
            public_addresses=tuple(one for one in (host, settings.public_address6) if one),
            alternate_address=settings.stun_alternate_address,
        ),
        clock=ground.clock,
    )


def outside_of(ground: Ground, gossip: GossipService) -> Outside:
    """Return what asks the other servers, or those of the settings, how this one is seen."""
    return Outside(servers=asked_servers(ground, gossip), clock=ground.clock)


def address_watch_of(ground: Ground, gossip: GossipService) -> AddressWatch | None:
    """Return what notices another public address, where the one there is was found by STUN."""
    settings = ground.settings
    if not is_found(settings):
        return None
    watch = AddressWatch(
        host=settings.public_address,
        servers=asked_servers(ground, gossip),
        is_inner=lambda host: is_inner(ground.mesh_id, ground.ranges, meant_by(host)),
        tell=gossip,
        clock=ground.clock,
    )
    watch.on_change.append(
        lambda host: gossip.announce(advertisement_of(ground.settings, ground.own, host))
    )
    return watch


def asked_servers(ground: Ground, gossip: GossipService) -> Callable[[], list[Address]]:
    """Return what lists the STUN servers of the settings, or the other servers of the mesh."""

    def servers() -> list[Address]:
        chosen = list(parse_servers(ground.settings.stun_servers))
        if chosen or ground.settings.public_address == HIDDEN:
            return chosen
        addresses = gossip.addresses()
        told = {
            name: decode_payload(fact.payload, PortsPayload).stun
            for name, fact in gossip.facts(PORTS).items()
            if name != ground.own.server_id
        }
        return [
            (addresses[name].host, port)
            for name, port in sorted(told.items())
            if port and name in addresses
        ]

    return servers
