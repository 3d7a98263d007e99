"""The names of servers and regions, and what stands at the top of the zone (contract). Pure."""

from __future__ import annotations

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
# The CAs that servers and endpoints may get their certificates from.
ISSUERS: Final = ("letsencrypt.org", "sectigo.com")

Content = dict[bytes, list[RecordSet]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """What the zone says of one server."""

    server_id: str
    region: str
    host: str | None
    """Where the public reaches it; None where it does not."""
    is_healthy: bool
    tunnel: tuple[str, str]
    backbone: tuple[str, str]
    """IPv4 and IPv6 both times."""
    ports: Mapping[str, int]
    """By the names of the ``_config`` text; what is not known is not there."""
    load_percent: int


def server_name(server_id: str, region: str, domain: str) -> str:
    """Return the public name of a server."""
    return f"{server_id}.{region}.seip.{domain}"


def content_of(servers: Iterable[ServerFacts], slots: Mapping[int, str], domain: str) -> Content:
    """Return all names of servers, regions and name servers, and the apex but for its SOA."""
    content: Content = {}
    hosts: dict[str, str | None] = {}
    regions: dict[str, list[str]] = {}
    for one in servers:
        _add_server(content, one, domain)
        hosts[one.server_id] = one.host
        healthy = regions.setdefault(one.region, [])
        if one.is_healthy and one.host:
            healthy.append(one.host)
    for region, healthy in regions.items():
        content[name_of(f"{region}.seip.{domain}")] = addresses(REGION_TTL_S, *healthy)
    for slot, holder in slots.items():
        content[name_of(f"ns{slot}.{domain}")] = addresses(APEX_TTL_S, hosts.get(holder))
    content[name_of(domain)] = [
        names(Type.NS, APEX_TTL_S, [name_of(f"ns{slot}.{domain}") for slot in sorted(slots)]),
        RecordSet(
            rtype=Type.CAA,
            ttl_s=APEX_TTL_S,
            rdatas=tuple(caa_data(0, "issue", issuer) for issuer in ISSUERS),
        ),
    ]
    return content


def _add_server(content: Content, one: ServerFacts, domain: str) -> None:
    name = server_name(one.server_id, one.region, domain)
    content[name_of(name)] = addresses(SERVER_TTL_S, one.host)
    content[name_of(f"private.{name}")] = addresses(SERVER_TTL_S, *one.tunnel)
    content[name_of(f"backend.{name}")] = addresses(SERVER_TTL_S, *one.backbone)
    for prefix, pair in (("private", one.tunnel), ("backend", one.backbone)):
        target = [name_of(f"{prefix}.{name}")]
        for address in pair:
            place = name_of(ip_address(address).reverse_pointer)
            content[place] = [names(Type.PTR, SERVER_TTL_S, target)]
    content[name_of(f"_config.{name}")] = [texts(SERVER_TTL_S, [config_text(one, name)])]


def config_text(one: ServerFacts, name: str) -> str:
    """Return the text by which a client finds a server's ports."""
    ports = " ".join(f"{port}={number}" for port, number in one.ports.items())
    return f"v=sp1 {ports} region={one.region} load={one.load_percent} host={name}"
