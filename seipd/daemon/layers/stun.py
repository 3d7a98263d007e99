"""The STUN server as the daemon runs it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from seipd.daemon.layers.mesh import host_of
from seipd.daemon.network import HIDDEN
from services.edge.stun.service import StunService, StunSettings

if TYPE_CHECKING:
    from seipd.daemon.layers.ground import Ground


def stun_of(ground: Ground) -> StunService:
    """Return the STUN server; nothing is started."""
    settings = ground.settings
    hidden = settings.public_address == HIDDEN
    return StunService(
        settings=StunSettings(
            bind_address=settings.bind_address,
            port=settings.stun_port,
            public_addresses=() if hidden else (host_of(settings, ground.charter, ground.own),),
            alternate_address=settings.stun_alternate_address,
        ),
        clock=ground.clock,
    )
