"""Trust without a CA: from the root's fingerprint in a token to a server's TLS authority.

A server shows the root key chain, the root-signed roster change that names it, and its authority.
What follows from the fingerprint by signatures and hashes is believed, nothing else.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from services.base.ledger.rootwalk import RootWalk, chain_from_values
from services.kernel.errors import SeipdError, UnauthenticatedError
from services.kernel.records import Record, record_from_value

if TYPE_CHECKING:
    from services.kernel.certificates import ServerCertificate
    from services.kernel.ids import MeshId, ServerId


class UntrustedServerError(UnauthenticatedError):
    """The server can't show that the mesh's root stands behind it."""

    default_code = "untrusted_server"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedServer:
    """A server that the root signed for, and the TLS authority that goes with it."""

    certificate: ServerCertificate
    authority_pem: str
    chain: tuple[Record, ...]
    change: Record
    clock_ahead_ms: int = 0
    """By how much this machine's clock seemed to be ahead of the server's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownRoot:
    """A root key that somebody knows by its fingerprint."""

    generation: int
    fingerprint: str


def trust_server(
    shown: dict[str, Any],
    *,
    mesh_id: MeshId,
    server_id: ServerId | None,
    root: KnownRoot | None = None,
    now_ms: int | None = None,
) -> TrustedServer:
    """Check what ``/api/tls/status`` answered.

    Args:
        shown: the answer.
        mesh_id: the mesh.
        server_id: who it should be of; the one that it names unless given.
        root: the newest root key that is known beforehand; the chain has to hold it.
        now_ms: when the window of the key that signed has to be open; any time unless given.

    Raises:
        UntrustedServerError: something in the chain from the root to the authority is wrong.
    """
    try:
        chain = shown.get("chain") or [shown["genesis"]]
        walk = chain_from_values(chain, mesh_id)
        _require_known(walk, root)
        record = record_from_value(shown["certificate"])
        change = walk.check(record, now_ms=now_ms)
        named = server_id or shown["server_id"]
        certificate = next((one for one in change.servers if one.server_id == named), None)
        if certificate is None:
            raise UntrustedServerError("the root's certificate names another server")
        authority = str(shown["authority_pem"])
        if _key_hash(authority) != certificate.tls_key_hash:
            raise UntrustedServerError("its TLS key is not the one that the root signed for")
    except UntrustedServerError:
        raise
    except (SeipdError, KeyError, TypeError, ValueError) as error:
        raise UntrustedServerError(f"it shows no usable proof: {error}") from error
    return TrustedServer(
        certificate=certificate,
        authority_pem=authority,
        chain=tuple(record_from_value(one) for one in chain),
        change=record,
    )


def _require_known(walk: RootWalk, root: KnownRoot | None) -> None:
    known = None if root is None else walk.chain.of_fingerprint(root.fingerprint)
    if root is not None and (known is None or known.generation != root.generation):
        raise UntrustedServerError("its root keys do not lead to the token's")


def _key_hash(authority_pem: str) -> bytes:
    key = x509.load_pem_x509_certificate(authority_pem.encode("ascii")).public_key()
    spki = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(spki).digest()
