"""Where servers are: the facts of kind 0, read. Pure.

An address outlives its fact: what has expired is told to nobody, but kept as a place to try.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec

from services.kernel.errors import WireError
from services.kernel.ids import parse_label
from services.mesh.facts.envelope import open_envelope, sign_envelope
from services.mesh.facts.kinds import ADDRESS
from services.mesh.facts.payloads import (
    AddressPayload,
    check_host,
    decode_payload,
    encode_payload,
)

if TYPE_CHECKING:
    from services.base.crypto.signatures import Signer
    from services.mesh.facts.envelope import Fact

LIFETIME_MS: Final = 7 * 86_400_000
RENEW_MS: Final = 86_400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressFact:
    """One server's word on where it is reached."""

    server_id: str
    host: str
    gossip_port: int
    http_port: int
    wireguard_port: int
    region: str
    counter: int
    issued_ms: int
    expires_ms: int
    encoded: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Advertisement:
    """What this server says of itself; the gossip port is filled in by gossip."""

    host: str
    http_port: int
    wireguard_port: int
    region: str


def sign_fact(
    signer: Signer,
    mesh_id: bytes,
    advertisement: Advertisement,
    *,
    gossip_port: int,
    counter: int,
    now_ms: int,
) -> AddressFact:
    """Return a new fact about where the signer is.

    Raises:
        InputError: a host that is no address, a port that is none, or a region that is no label.
    """
    payload = AddressPayload(
        host=check_host(advertisement.host),
        gossip_port=gossip_port,
        http_port=advertisement.http_port,
        wireguard_port=advertisement.wireguard_port,
        region=parse_label(advertisement.region),
    )
    fact = sign_envelope(
        signer,
        mesh_id,
        kind=ADDRESS,
        payload=encode_payload(payload),
        counter=counter,
        now_ms=now_ms,
        lifetime_ms=LIFETIME_MS,
    )
    return address_of(fact)


def decode_fact(data: bytes, mesh_id: bytes) -> AddressFact:
    """Parse an address fact and check its signature.

    Raises:
        WireError: malformed, or a fact of another kind.
        BadSignatureError: not signed by the server that it is about.
    """
    fact = open_envelope(data, mesh_id)
    if fact.kind != ADDRESS:
        raise WireError("not a fact about an address")
    return address_of(fact)


def address_of(fact: Fact) -> AddressFact:
    """Return what a fact of kind 0 says."""
    return AddressFact(
        server_id=fact.server_id,
        counter=fact.counter,
        issued_ms=fact.issued_ms,
        expires_ms=fact.expires_ms,
        encoded=fact.encoded,
        **msgspec.structs.asdict(decode_payload(fact.payload, AddressPayload)),
    )
