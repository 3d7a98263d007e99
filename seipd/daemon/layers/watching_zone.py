"""Asks every name server of the mesh whether it answers what a CA will look for."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from typing import TYPE_CHECKING

from services.authority.names.view import slots_held
from services.edge.acme.challenges import PREFIX
from services.edge.dns.asking import ask_texts
from services.kernel.errors import SeipdError
from services.mesh.facts.kinds import PORTS
from services.mesh.facts.payloads import PortsPayload, decode_payload
from services.mesh.membership.states import State

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping

    from seipd.daemon.layers.base import BaseLayer
    from seipd.daemon.layers.ground import Ground
    from services.edge.dns.service import DnsService
    from services.kernel.ids import ServerId
    from services.mesh.gossip.service import GossipService

DEFAULT_DNS_PORT = 53


class ZoneWatch:
    """Knows the name servers, and what each of them has to answer."""

    def __init__(
        self, *, ground: Ground, base: BaseLayer, gossip: GossipService, dns: DnsService
    ) -> None:
        self._ground = ground
        self._ledger = base.ledger
        self._gossip = gossip
        self._dns = dns

    async def missing(self, texts: Mapping[str, Collection[str]]) -> list[str]:
        """Return the name servers that do not answer all of these TXT records (by relative name).

        Those that are held dead are left out: a CA's resolver goes on to the next one, too.
        """
        places = self._places()
        found: dict[str, bool] = {}

        async def look(name: str, place: tuple[str, int]) -> None:
            found[name] = await self._has_all(place, texts)

        async with asyncio.TaskGroup() as group:
            for name, place in places.items():
                group.create_task(look(name, place))
        return sorted(name for name, is_good in found.items() if not is_good)

    async def _has_all(self, place: tuple[str, int], texts: Mapping[str, Collection[str]]) -> bool:
        domain = self._ground.charter.genesis.domain
        try:
            for relative, wanted in texts.items():
                answered = await ask_texts(place, f"{PREFIX}.{relative}.{domain}", tries=1)
                if not set(wanted) <= set(answered):
                    return False
        except SeipdError:
            return False
        return True

    def _places(self) -> dict[str, tuple[str, int]]:
        own, charter = self._ledger.server_id, self._ledger.charter
        slots = slots_held(self._ledger.state, charter.at(charter.number))
        dead = {one.server_id for one in self._gossip.peers() if one.state is State.DEAD}
        places = {f"ns ({own})": self._own_place()}
        for slot, holder in slots.items():
            if holder != own and holder not in dead:
                place = self._place_of(holder)
                if place is not None:
                    places[f"ns{slot} ({holder})"] = place
        return places

    def _place_of(self, server_id: ServerId) -> tuple[str, int] | None:
        address = self._gossip.addresses().get(server_id)
        fact = self._gossip.facts(PORTS).get(server_id)
        if address is None:
            return None
        port = decode_payload(fact.payload, PortsPayload).dns if fact else DEFAULT_DNS_PORT
        return address.host, port

    def _own_place(self) -> tuple[str, int]:
        # Not the public address: behind a NAT that may not be reached from inside.
        bound = self._ground.settings.bind_address
        host = "127.0.0.1" if ip_address(bound).is_unspecified else bound
        return host, self._dns.port


def missing_of(
    ground: Ground, base: BaseLayer, gossip: GossipService, dns: DnsService
) -> Callable[[Mapping[str, Collection[str]]], Awaitable[list[str]]]:
    """Return what tells which name servers do not answer yet."""
    return ZoneWatch(ground=ground, base=base, gossip=gossip, dns=dns).missing
