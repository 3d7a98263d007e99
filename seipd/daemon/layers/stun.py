"""STUN as the daemon runs it: the server, and what others see of this one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from seipd.daemon.layers.mesh import host_of
from seipd.daemon.network import HIDDEN
from seipd.daemon.outside import Outside
from services.edge.stun.asking import parse_servers
from services.edge.stun.service import StunService, StunSettings
from services.mesh.facts.kinds import PORTS
from services.mesh.facts.payloads import PortsPayload, decode_payload

if TYPE_CHECKING:
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

    return Outside(servers=servers, clock=ground.clock)
