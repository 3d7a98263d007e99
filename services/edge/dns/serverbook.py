"""What is known of each server, and the names that follow from it, when it changes. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from services.edge.dns.servernames import Content, ServerFacts, server_content
from services.kernel.addr import backbone6, own_tunnel_address, tunnel6
from services.mesh.facts.payloads import LoadPayload, PortsPayload, decode_payload

if TYPE_CHECKING:
    from collections.abc import Mapping

    from services.kernel.certificates import ServerCertificate
    from services.kernel.ids import MeshId
    from services.mesh.facts.envelope import Fact
    from services.mesh.gossip.addresses import AddressFact


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What the roster and gossip know of a server."""

    certificate: ServerCertificate
    address: AddressFact | None
    host6: str | None
    is_healthy: bool
    ports: Fact | None
    load: Fact | None


class ServerBook:
    """The servers as they were seen last."""

    def __init__(self, *, mesh_id: MeshId, domain: str) -> None:
        self._mesh_id = mesh_id
        self._domain = domain
        self._seen: dict[str, Seen] = {}
        self._content: dict[str, Content] = {}
        self.facts: dict[str, ServerFacts] = {}

    def look(self, seen: Mapping[str, Seen]) -> Content:
        """Take what is known of all servers now; return the names of those that changed.

        A name that is gone has no records. Servers that are as they were cost a comparison.
        """
        changed: Content = {}
        for server_id in self._seen.keys() - seen.keys():
            del self._seen[server_id], self.facts[server_id]
            changed.update(dict.fromkeys(self._content.pop(server_id), ()))
        for server_id, one in seen.items():
            if self._seen.get(server_id) == one:
                continue
            self._seen[server_id] = one
            facts = self._facts(one)
            if self.facts.get(server_id) == facts:
                continue
            self.facts[server_id] = facts
            content = server_content(facts, self._domain)
            changed.update(dict.fromkeys(self._content.get(server_id, ()), ()))
            changed.update(content)
            self._content[server_id] = content
        return changed

    def _facts(self, one: Seen) -> ServerFacts:
        mesh_id, certificate, address = self._mesh_id, one.certificate, one.address
        tunnel = own_tunnel_address(certificate.slices)
        backbone = IPv4Address(certificate.backbone)
        # Who tells its backbone address has no public one.
        host = address.host if address is not None else None
        return ServerFacts(
            server_id=certificate.server_id,
            region=certificate.region,
            host=None if host == certificate.backbone else host,
            host6=one.host6,
            is_healthy=one.is_healthy,
            tunnel=(str(tunnel), str(tunnel6(mesh_id, tunnel))),
            backbone=(str(backbone), str(backbone6(mesh_id, backbone))),
            ports=ports_of(address, one.ports),
            load_percent=load_percent(one.load),
        )


def ports_of(address: AddressFact | None, fact: Fact | None) -> dict[str, int]:
    """Return the ports of a server by the names of the ``_config`` text, in its order."""
    found: dict[str, int] = {}
    if address is not None:
        found |= {
            "http": address.http_port,
            "udp": address.wireguard_port,
            "gossip": address.gossip_port,
        }
    if fact is not None:
        told = decode_payload(fact.payload, PortsPayload)
        found |= {
            "stun": told.stun,
            "relay": told.relay,
            "dns": told.dns,
            "private_http": told.private_http,
        }
    return {name: port for name, port in found.items() if port}


def load_percent(fact: Fact | None) -> int:
    """Return the load that a server told; none where it told none."""
    if fact is None:
        return 0
    return round(decode_payload(fact.payload, LoadPayload).cpu_permille / 10)
