"""Relays as the daemon runs them: the directory, and what it offers."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.edge.relaying.offering import RelayOffering
from services.edge.relaying.service import NO_RELAY, RelayingService
from services.mesh.membership.states import State

if TYPE_CHECKING:
    from seipd.daemon.layers.base import BaseLayer
    from seipd.daemon.layers.ground import Ground
    from services.mesh.gossip.service import GossipService


@dataclass(frozen=True, slots=True, kw_only=True)
class Relaying:
    """What knows of relays."""

    directory: RelayingService
    offering: RelayOffering


def relaying_of(ground: Ground, base: BaseLayer, gossip: GossipService) -> Relaying:
    """Make the services; nothing is started."""
    ledger, clock = base.ledger, ground.clock

    def dead() -> set[str]:
        return {peer.server_id for peer in gossip.peers() if peer.state is State.DEAD}

    directory = RelayingService(
        ledger=ledger,
        gossip=gossip,
        own=lambda: NO_RELAY,
        dead=dead,
        ask=None,
        clock=clock,
    )
    gossip.subscribe_members(lambda *_: directory.hurry())
    return Relaying(
        directory=directory,
        offering=RelayOffering(
            ledger=ledger,
            directory=directory,
            signer=ground.identity.signing_key,
            clock=clock,
            random_bytes=secrets.token_bytes,
        ),
    )
