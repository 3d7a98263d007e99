"""Which address this machine has towards the others, when nobody says."""

from __future__ import annotations

import dataclasses
import logging
import socket
from typing import TYPE_CHECKING

from services.edge.stun.asking import parse_servers
from services.edge.stun.client import find_address
from services.kernel.errors import ConfigError, SeipdError
from services.mesh.gossip.addresses import decode_fact
from services.mesh.gossip.peers_file import load_peers

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from seipd.config.model import Settings
    from services.edge.stun.messages import Address
    from services.kernel.ids import MeshId

logger = logging.getLogger(__name__)

HIDDEN = "none"
"""What is configured where other servers reach this one at no address of its own."""
FOUND = "STUN"
"""The source of a public address that nobody gave."""
ANYWHERE = "0.0.0.0"  # noqa: S104 (a comparison)
ANYWHERE6 = "::"

# A documentation address (RFC 5737): connecting a datagram socket sends nothing, it only asks the
# routing table which source address would be used.
_ELSEWHERE = ("203.0.113.1", 9)


async def with_public_address(settings: Settings, servers: Iterable[Address] = ()) -> Settings:
    """Return the settings with the public address in them, if STUN servers are there to say it.

    Args:
        settings: as they were given; where they name an address there is nothing to find out.
        servers: who is asked unless the settings name others.
    """
    asked = parse_servers(settings.stun_servers) or tuple(servers)
    if settings.public_address or settings.bind_address != ANYWHERE or not asked:
        return settings
    seen = await find_address(asked)
    if seen is None:
        logger.info("no STUN server says by which address this one is reached")
        return settings
    if seen.is_symmetric:
        logger.warning(
            "the router in front of this server picks a port for each whom it talks to: others"
            " reach it only at ports that the router forwards"
        )
    sources = {**settings.sources, "public_address": FOUND}
    return dataclasses.replace(settings, public_address=seen.host, sources=sources)


def is_found(settings: Settings) -> bool:
    """Say whether the public address was found by STUN, and may be another one tomorrow."""
    return settings.sources.get("public_address") == FOUND


def peers_stun_servers(peers_file: Path, mesh_id: MeshId, port: int) -> list[Address]:
    """Return where the servers remembered from the last run answer STUN: at the port of ours."""
    hosts = []
    for encoded in load_peers(peers_file).facts:
        try:
            hosts.append(decode_fact(encoded, bytes.fromhex(mesh_id)).host)
        except SeipdError:
            continue
    return [(host, port) for host in hosts]


def more_public_addresses(settings: Settings) -> tuple[str, ...]:
    """Return where the public servers listen beside the bind address: over IPv6."""
    if settings.bind_address == ANYWHERE:
        return (ANYWHERE6,)
    return (settings.public_address6,) if settings.public_address6 else ()


def public_address_of(configured: str, bind_address: str) -> str:
    """Return the address by which others reach this server, or its own endpoints if it is hidden.

    Raises:
        ConfigError: none is configured and there is no route to anywhere.
    """
    if configured not in {"", HIDDEN}:
        return configured
    if bind_address != ANYWHERE:
        return bind_address
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(_ELSEWHERE)
        except OSError as error:
            raise ConfigError(
                "this machine has no route to the outside, so its address is not known",
                mend="say --public-address ADDRESS",
            ) from error
        address: str = sock.getsockname()[0]
        return address
