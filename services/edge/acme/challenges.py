"""Which TXT records stand in the zone while orders for certificates are open. Pure.

Each server tells the others in a fact of kind 6 what its CA will look for. A server is believed
only about names that are its own to have certificates for: its own two, and those of the endpoints
that it carries now, as everybody reads in the replicated state. So no server can prove another's
name to a CA.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from services.authority.tree.carriers import carrier_of
from services.authority.tree.permissions import ancestors
from services.kernel.errors import SeipdError
from services.kernel.ids import ServerId, b64u_encode
from services.mesh.facts.payloads import (
    MAX_PAYLOAD_BYTES,
    Challenge,
    ChallengePayload,
    decode_payload,
    encode_payload,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from services.base.ledger.roster import Charter
    from services.kernel.certificates import ServerCertificate
    from services.kernel.views import StateReader
    from services.mesh.facts.envelope import Fact

PREFIX: Final = "_acme-challenge"


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointName:
    """An endpoint, the server that carries it, and the name that it has certificates for."""

    node_id: str
    server_id: ServerId
    relative: str
    """``<hostname>.<customer>.ep``, below the mesh's domain; customers as in the tree, upwards."""


def server_names(certificate: ServerCertificate) -> tuple[str, str]:
    """Return the names below the domain of a server's public and private side."""
    own = f"{certificate.server_id}.{certificate.region}.seip"
    return own, f"private.{own}"


def endpoint_named(state: StateReader, charter: Charter, relative: str) -> EndpointName | None:
    """Return the endpoint with a name below the domain; None where no server carries one."""
    *path, kind = relative.split(".")
    node_id = state.get("mesh", "root_node")
    if kind != "ep" or not path:
        return None
    for label in reversed(path):
        node_id = state.get("name", f"{node_id}/{label}")
    node = state.get("tree", node_id) if node_id is not None else None
    if node is None or node["kind"] != "endpoint":
        return None
    carrier = carrier_of(charter, node)
    if carrier is None:
        return None
    return EndpointName(node_id=node_id, server_id=carrier, relative=relative)


def endpoint_name(state: StateReader, charter: Charter, node_id: str) -> EndpointName | None:
    """Return the name of an endpoint; None where no server carries such an endpoint."""
    labels = [state.get("tree", one)["name"] for one in ancestors(state, node_id)[:-1]]
    return endpoint_named(state, charter, ".".join([*labels, "ep"]))


def records_of(
    facts: Mapping[str, Fact],
    *,
    charter: Charter,
    state: StateReader,
    domain: str,
) -> dict[str, tuple[str, ...]]:
    """Return the texts of the TXT records by their full lower-case names.

    Args:
        facts: those of kind 6 that hold now, by server.
        charter: the roster.
        state: where endpoints have their names, and at which server they are.
        domain: of the mesh.
    """
    found: dict[str, set[str]] = {}
    for server_id, fact in facts.items():
        certificate = charter.server(ServerId(server_id))
        if certificate is None:
            continue
        for one in decode_payload(fact.payload, ChallengePayload).challenges:
            if _may_prove(certificate, one.name, state, charter):
                name = f"{PREFIX}.{one.name}.{domain}"
                found.setdefault(name, set()).add(b64u_encode(one.digest))
    return {name: tuple(sorted(texts)) for name, texts in found.items()}


def _may_prove(
    certificate: ServerCertificate, name: str, state: StateReader, charter: Charter
) -> bool:
    if name in server_names(certificate):
        return True
    endpoint = endpoint_named(state, charter, name)
    return endpoint is not None and endpoint.server_id == certificate.server_id


def payload_of(challenges: Iterable[Challenge]) -> bytes:
    """Return what the fact says.

    Raises:
        SeipdError: ``too_many_orders``: it does not hold so many.
    """
    unique = sorted({(one.name, one.digest): one for one in challenges}.items())
    payload = encode_payload(ChallengePayload(challenges=tuple(one for _, one in unique)))
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise SeipdError("too many orders are open at once", code="too_many_orders")
    return payload
