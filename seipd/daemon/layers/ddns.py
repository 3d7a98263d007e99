"""Dynamic DNS as the daemon runs it: which address, by which credential, to whom."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from seipd.config.model import ddns_target
from seipd.daemon.network import HIDDEN, public_address_of
from services.edge.ddns.service import DdnsService
from services.edge.ddns.store import ToldFile
from services.edge.ddns.telling import AddressTeller
from services.kernel.addr import is_inner

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address

    from seipd.daemon.layers.ground import Ground
    from seipd.daemon.own_address import AddressWatch
    from services.authority.serversecrets.service import SecretsService


def ddns_of(ground: Ground, held: SecretsService, watch: AddressWatch | None) -> DdnsService:
    """Return what keeps this server's address at a name; nothing is started."""
    settings = ground.settings

    def address() -> str:
        """Look anew each time: it may change while the daemon runs."""
        if settings.public_address == HIDDEN:
            return ""
        if watch is not None:
            return watch.host
        return public_address_of(settings.public_address, settings.bind_address)

    def may_reach(place: IPv4Address | IPv6Address) -> bool:
        return not is_inner(ground.mesh_id, ground.ranges, place)

    return DdnsService(
        target=ddns_target(settings),
        address=address,
        secret=lambda name: held.get(name).value,
        teller=AddressTeller(may_reach=may_reach),
        file=ToldFile(ground.paths.ddns),
        rng=secrets.SystemRandom(),
        clock=ground.clock,
    )
