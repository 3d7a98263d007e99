"""Asks this machine's name servers for the servers of a mesh, and the servers how they are."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final, TypeVar

from seipd.agent.choosing import score
from seipd.agent.discovery.naming import (
    known_server,
    parse_config,
    region_name,
    regions_in,
    regions_name,
    server_name,
    servers_in,
    to_look_at,
)
from seipd.agent.hostdns.planning import nameservers_beside
from seipd.agent.hostdns.ways import RESOLV_CONF, read_text
from seipd.agent.roaming import knock
from services.edge.dns.wire import Type
from services.edge.resolver.exchange import exchange
from services.edge.resolver.messages import Asked
from services.edge.resolver.upstreams import Ranking
from services.kernel.dnsnames import name_of
from services.kernel.errors import NotFoundError, SeipdError, UnreachableError
from services.kernel.places import parse_place
from services.runtime.outbound import HttpClient

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable, Sequence

    from seipd.agent.serverlist import KnownServer
    from services.runtime.udp import Address

Done = TypeVar("Done")

MAX_LOOKED_AT: Final = 16
MAX_REGIONS: Final = 32
AT_ONCE: Final = 8
KNOCKS: Final = 3
TRIES_S: Final = (1.5, 3.0)
"""How long each name server is waited for: a resolver that has nothing yet has a long way to go."""
HEALTH_TIMEOUT_S: Final = 3.0
MAX_HEALTH_BYTES: Final = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A server that is well, and how good it is from here."""

    server: KnownServer
    latency_ms: float

    @property
    def score(self) -> float:
        """Less is better."""
        return score(self.latency_ms, self.server.load)


class Names:
    """Questions to the first of some name servers that answers; those that failed come last."""

    def __init__(
        self, nameservers: Sequence[Address], *, tries_s: Sequence[float] = TRIES_S
    ) -> None:
        self._nameservers = nameservers
        self._tries_s = tries_s
        self._ranking = Ranking()
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def ask(self, name: str, rtype: Type) -> list[bytes]:
        """Return the data at a name, none where there is none.

        Raises:
            UnreachableError: no name server answers.
        """
        asked = Asked(name=name_of(name), rtype=rtype)
        now_s = asyncio.get_running_loop().time
        for try_s in self._tries_s:
            for nameserver in self._ranking.ranked(self._nameservers):
                try:
                    async with self._slots:
                        answer = await exchange(nameserver, asked, try_s=try_s)
                except SeipdError:
                    self._ranking.failed(nameserver, now_s=now_s())
                    continue
                if answer.rcode in (0, 3):
                    return [one.rdata for one in answer.answers if one.rtype == rtype]
                self._ranking.failed(nameserver, now_s=now_s())
        raise UnreachableError(
            f"no name server of this machine answers about {name}",
            mend="check the network and the domain",
        )


async def find_servers(
    domain: str,
    *,
    names: Names,
    region: str | None = None,
    wanted: str | None = None,
) -> list[KnownServer]:
    """Return servers of a mesh, by its domain alone.

    Args:
        domain: the mesh's.
        names: who is asked.
        region: the own region, where it is known.
        wanted: a server that has to be among them, if there is one of that id.

    Raises:
        UnreachableError: no name server answers.
        NotFoundError: the domain names no servers.
    """
    regions = regions_in(await names.ask(regions_name(domain), Type.PTR), domain)[:MAX_REGIONS]
    lists = await _all(_servers_of(names, domain, one) for one in regions)
    listed = dict(zip(regions, lists, strict=True))
    pairs = to_look_at(listed, region, count=MAX_LOOKED_AT)
    if wanted is not None and all(one != wanted for one, _ in pairs):
        # It may be anywhere, also where the lists are too long to name it.
        pairs += [(wanted, one) for one in regions]
    looked = await _all(_look_up(names, domain, *pair) for pair in pairs)
    found = [one for one in looked if one is not None]
    if not found:
        raise NotFoundError(
            f"{domain} names no servers of a mesh", mend="check the domain, or ask the operator"
        )
    return found


async def measure(servers: Sequence[KnownServer]) -> list[Measured]:
    """Return those that are well, the best first."""
    measured = await _all(_measure(one) for one in servers)
    return sorted((one for one in measured if one is not None), key=lambda one: one.score)


def own_names(gateway: str | None = None) -> Names:
    """Return this machine's own name servers, without the one in the tunnel."""
    return Names(nameservers_beside(read_text(RESOLV_CONF), gateway or ""))


async def _all(work: Iterable[Coroutine[Any, Any, Done]]) -> list[Done]:
    """Return what each has to say, in their order."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one) for one in work]
    return [one.result() for one in tasks]


async def _servers_of(names: Names, domain: str, region: str) -> list[str]:
    try:
        targets = await names.ask(region_name(region, domain), Type.PTR)
    except SeipdError:
        return []
    return servers_in(targets, region, domain)


async def _look_up(names: Names, domain: str, server_id: str, region: str) -> KnownServer | None:
    name = server_name(server_id, region, domain)
    try:
        texts = await names.ask(f"_config.{name}", Type.TXT)
        found = [await _addresses_of(names, name, rtype) for rtype in (Type.A, Type.AAAA)]
        hosts = [str(ip_address(one[0])) for one in found if one]
        if not texts or not hosts:
            return None
        config = parse_config(texts[0][1:].decode("ascii", errors="replace"))
        return known_server(server_id, region, hosts, config)
    except SeipdError:
        return None


async def _addresses_of(names: Names, name: str, rtype: Type) -> list[bytes]:
    """Return the addresses of one kind; a name server that fails for it leaves the other kind."""
    try:
        return await names.ask(name, rtype)
    except SeipdError:
        return []


async def _measure(one: KnownServer) -> Measured | None:
    place = one.at_hand
    if not await _is_healthy(place):
        return None
    times = [await knock(*parse_place(place)) for _ in range(KNOCKS)]
    answered = [latency_ms for latency_ms in times if latency_ms is not None]
    return Measured(server=one, latency_ms=min(answered)) if answered else None


async def _is_healthy(address: str) -> bool:
    # Who it is does not matter yet: it is asked for its proof before anything is told to it.
    blind = ssl.create_default_context()
    blind.check_hostname = False
    blind.verify_mode = ssl.CERT_NONE
    try:
        async with HttpClient(tls=blind) as client:
            answer = await client.fetch(
                "GET",
                f"https://{address}/api/health",
                timeout_s=HEALTH_TIMEOUT_S,
                max_bytes=MAX_HEALTH_BYTES,
            )
    except SeipdError:
        return False
    return answer.status == 200
