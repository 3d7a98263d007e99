"""Relays as the daemon runs them: this server's own, the directory of all, and what it offers."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from seipd.daemon.layers.mesh import host_of
from seipd.daemon.network import HIDDEN
from services.authority.trust import view as trust_view
from services.edge.relay.keys import box_private_key
from services.edge.relay.service import RelayService
from services.edge.relay.settings import RelaySettings
from services.edge.relay.tables import table_name
from services.edge.relaying.asking import RelayAsker
from services.edge.relaying.loading import LoadMeter
from services.edge.relaying.offering import RelayOffering
from services.edge.relaying.running import (
    bind_hosts,
    party_refusals,
    raw_relay_id,
    statements,
)
from services.edge.relaying.service import NO_RELAY, OwnRelay, RelayingService
from services.edge.stun.service import ANY4
from services.kernel.ids import b64u_encode
from services.kernel.targets import inner_networks
from services.mesh.membership.states import State

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from seipd.daemon.layers.base import BaseLayer
    from seipd.daemon.layers.ground import Ground
    from services.base.ledger.watching import Change
    from services.kernel.clock import Clock
    from services.mesh.gossip.service import GossipService


@dataclass(frozen=True, slots=True, kw_only=True)
class Relaying:
    """What knows of relays."""

    relay: RelayService | None
    directory: RelayingService
    offering: RelayOffering

    @property
    def port(self) -> int:
        """The control port of this server's own relay; 0 where there is none."""
        return self.relay.port if self.relay is not None else 0


def relaying_of(ground: Ground, base: BaseLayer, gossip: GossipService) -> Relaying:
    """Make the services; nothing is started."""
    ledger, clock = base.ledger, ground.clock
    asker = RelayAsker(
        private_key=ground.identity.wireguard_private_key,
        signer=ground.identity.signing_key,
        mesh_id=ground.mesh_id,
        clock=clock,
    )
    settings = relay_settings_of(ground)
    relay = relay_of(ground, base, settings) if settings is not None else None
    own = None
    if relay is not None and settings is not None:
        own = own_relay(relay, settings, clock, host6=relay_host6_of(ground))

    def dead() -> set[str]:
        return {peer.server_id for peer in gossip.peers() if peer.state is State.DEAD}

    directory = RelayingService(
        ledger=ledger,
        gossip=gossip,
        own=own or (lambda: NO_RELAY),
        dead=dead,
        ask=asker.ask,
        clock=clock,
    )
    gossip.subscribe_members(lambda *_: directory.hurry())
    return Relaying(
        relay=relay,
        directory=directory,
        offering=RelayOffering(
            ledger=ledger,
            directory=directory,
            signer=ground.identity.signing_key,
            clock=clock,
            random_bytes=secrets.token_bytes,
        ),
    )


def relay_settings_of(ground: Ground) -> RelaySettings | None:
    """Return what this server's own relay is; None if it is to be none or nobody could reach it."""
    settings, key = ground.settings, ground.identity.signing_key
    if not settings.relay_enabled or settings.public_address == HIDDEN:
        return None
    return RelaySettings(
        relay_id=raw_relay_id(key.public_key),
        mesh_id=bytes.fromhex(ground.mesh_id),
        box_private=box_private_key(key.seed),
        hosts=bind_hosts(settings.bind_address),
        port=settings.relay_port,
        table=table_name(settings.wireguard_interface),
    )


def relay_of(ground: Ground, base: BaseLayer, settings: RelaySettings) -> RelayService:
    """Return this server's own relay."""
    ledger = base.ledger

    def is_server(server_key: bytes) -> bool:
        charter = ledger.charter
        server = charter.at(charter.number).server_of_key(server_key)
        return server is not None and ledger.state.get(trust_view.VIEW, server.server_id) is None

    def is_welcome(wireguard_key: bytes) -> bool:
        if ledger.state.get("wg", b64u_encode(wireguard_key)) is not None:
            return True
        # Servers ask whether the relay lives, with its own box key for the other side.
        servers = (one.wireguard_key for one in ledger.charter.servers().values())
        return wireguard_key == relay.box_key or wireguard_key in servers

    inner = inner_networks(ground.mesh_id, ground.ranges)
    relay = RelayService(
        settings=settings,
        is_server=is_server,
        is_welcome=is_welcome,
        why_refused=party_refusals(
            [
                host_of(ground.settings, ground.charter, ground.own),
                *(one for one in (relay_host6_of(ground),) if one),
            ],
            port=settings.port,
            inner=lambda: inner,
        ),
        clock=ground.clock,
        statement=statements(ground.identity.signing_key, ground.mesh_id),
    )
    _follow(base, relay)
    return relay


def relay_host6_of(ground: Ground) -> str:
    """Return where the relay is reached over IPv6, or nothing where it is not."""
    settings = ground.settings
    return settings.public_address6 if settings.bind_address == ANY4 else ""


def _follow(base: BaseLayer, relay: RelayService) -> None:
    """End sessions of endpoints that leave, and those by tickets of servers that leave."""

    def left(changes: Sequence[Change]) -> None:
        if any(change.new is None for change in changes):
            relay.recheck()

    base.ledger.subscribe(["wg"], left)
    base.ledger.subscribe(["roster", trust_view.VIEW], lambda _: relay.recheck())


def own_relay(
    relay: RelayService, settings: RelaySettings, clock: Clock, *, host6: str
) -> Callable[[], OwnRelay]:
    """Return what tells how this server's own relay is now."""
    meter = LoadMeter(max_sessions=settings.limits.sessions, capacity_kbits=settings.capacity_kbits)

    def own() -> OwnRelay:
        status = relay.status()
        if not status.port:
            return NO_RELAY
        load = meter.look(
            sessions_count=status.sessions,
            carried_bytes=status.carried_bytes,
            now_s=clock.monotonic_s(),
        )
        return OwnRelay(
            box=relay.box_key,
            port=status.port,
            host6=host6,
            sessions_count=status.sessions,
            load_permille=load,
        )

    return own
