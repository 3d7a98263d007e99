"""The names of servers and regions, and what stands at the top of the zone (contract). Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from services.edge.dns.building import RecordSet
from services.edge.dns.records import addresses, names, texts
from services.edge.dns.wire import Type
from services.kernel.dnsdata import caa_data
from services.kernel.dnsnames import name_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

SERVER_TTL_S: Final = 60
REGION_TTL_S: Final = 30
APEX_TTL_S: Final = 3600
MAX_LISTED: Final = 64
# The CAs that servers and endpoints may get their certificates from.
ISSUERS: Final = ("letsencrypt.org", "sectigo.com")

Content = dict[bytes, Sequence[RecordSet]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """What the zone says of one server."""

    server_id: str
    region: str
    host: str | None
    """Where the public reaches it; None where it does not."""
    host6: str | None = None
    """Likewise, over IPv6 where it tells an address of that kind beside."""
    is_healthy: bool
    tunnel: tuple[str, str]
    backbone: tuple[str, str]
    """IPv4 and IPv6 both times."""
    ports: Mapping[str, int]
    """By the names of the ``_config`` text; what is not known is not there."""
    load_percent: int

    @property
    def hosts(self) -> tuple[str, ...]:
        """Every address by which the public reaches it."""
        return tuple(one for one in (self.host, self.host6) if one)


def server_name(server_id: str, region: str, domain: str) -> str:
    """Return the public name of a server."""
    return f"{server_id}.{region}.seip.{domain}"


def server_content(one: ServerFacts, domain: str) -> Content:
    """Return the names of one server, and the reverse of its addresses."""
    name = server_name(one.server_id, one.region, domain)
    content: Content = {
        name_of(name): addresses(SERVER_TTL_S, *one.hosts),
        name_of(f"private.{name}"): addresses(SERVER_TTL_S, *one.tunnel),
        name_of(f"backend.{name}"): addresses(SERVER_TTL_S, *one.backbone),
        name_of(f"_config.{name}"): [texts(SERVER_TTL_S, [config_text(one, name)])],
    }
    for prefix, pair in (("private", one.tunnel), ("backend", one.backbone)):
        target = [name_of(f"{prefix}.{name}")]
        for address in pair:
            place = name_of(ip_address(address).reverse_pointer)
            content[place] = [names(Type.PTR, SERVER_TTL_S, target)]
    return content


def shared_content(
    servers: Iterable[ServerFacts], slots: Mapping[int, str], domain: str
) -> Content:
    """Return the sets of regions, the name servers, and the apex but for its SOA."""
    content: Content = {}
    hosts: dict[str, tuple[str, ...]] = {}
    regions: dict[str, list[ServerFacts]] = {}
    for one in servers:
        hosts[one.server_id] = one.hosts
        healthy = regions.setdefault(one.region, [])
        if one.is_healthy and one.hosts:
            healthy.append(one)
    for region, healthy in regions.items():
        sets = addresses(REGION_TTL_S, *(host for one in healthy for host in one.hosts))
        content[name_of(f"{region}.seip.{domain}")] = sets
    content |= _lists(regions, domain)
    for slot, holder in slots.items():
        content[name_of(f"ns{slot}.{domain}")] = addresses(APEX_TTL_S, *hosts.get(holder, ()))
    # A name server that nobody reaches would only cost every resolver a try.
    reached = [slot for slot, holder in sorted(slots.items()) if hosts.get(holder)]
    content[name_of(domain)] = [
        names(Type.NS, APEX_TTL_S, [name_of(f"ns{slot}.{domain}") for slot in reached]),
        RecordSet(
            rtype=Type.CAA,
            ttl_s=APEX_TTL_S,
            rdatas=tuple(caa_data(0, "issue", issuer) for issuer in ISSUERS),
        ),
    ]
    return content


def _lists(regions: Mapping[str, list[ServerFacts]], domain: str) -> Content:
    """Return what leads a client from the domain to each server: regions, and servers of each.

    ``_config.seip.<domain>`` points to ``_config.<region>.seip.<domain>``, and that to the
    ``_config.<server>.<region>.seip.<domain>`` of healthy servers.
    """
    content: Content = {}
    filled = sorted(region for region, healthy in regions.items() if healthy)
    places = [name_of(f"_config.{region}.seip.{domain}") for region in filled]
    content[name_of(f"_config.seip.{domain}")] = [names(Type.PTR, REGION_TTL_S, places)]
    for region, place in zip(filled, places, strict=True):
        ids = sorted(one.server_id for one in regions[region])[:MAX_LISTED]
        targets = [name_of(f"_config.{server_name(one, region, domain)}") for one in ids]
        content[place] = [names(Type.PTR, REGION_TTL_S, targets)]
    return content


def config_text(one: ServerFacts, name: str) -> str:
    """Return the text by which a client finds a server's ports."""
    ports = " ".join(f"{port}={number}" for port, number in one.ports.items())
    return f"v=sp1 {ports} region={one.region} load={load_tenths(one)} host={name}"


def load_tenths(one: ServerFacts) -> int:
    """Return how busy a server's processors are: 10 is wholly, and more is no more than that."""
    return min(max(round(one.load_percent / 10), 0), 10)
