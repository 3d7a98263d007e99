"""Trust without a CA: from the root's fingerprint in a token to a server's TLS authority.

A server shows the genesis record, the root-signed roster change that names it, and its authority.
What follows from the fingerprint by signatures and hashes is believed, nothing else.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from services.base.crypto.signatures import verify
from services.kernel.certificates import ServerCertificate, certificate_from_value
from services.kernel.errors import SeipdError, UnauthenticatedError
from services.kernel.ids import MeshId, ServerId, mesh_id_of
from services.kernel.records import Record, record_from_value

if TYPE_CHECKING:
    from collections.abc import Callable


class UntrustedServerError(UnauthenticatedError):
    """The server can't show that the mesh's root stands behind it."""

    default_code = "untrusted_server"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedServer:
    """A server that the root signed for, and the TLS authority that goes with it."""

    certificate: ServerCertificate
    authority_pem: str
    genesis: Record
    change: Record


def trust_server(
    shown: dict[str, Any],
    *,
    mesh_id: MeshId,
    server_id: ServerId | None,
    key_check: Callable[[bytes, bytes, bytes], bool] = verify,
) -> TrustedServer:
    """Check what ``/api/tls/status`` answered.

    Raises:
        UntrustedServerError: something in the chain from the root to the authority is wrong.
    """
    try:
        genesis = _signed(shown["genesis"], mesh_id, key_check)
        change = _signed(shown["certificate"], mesh_id, key_check)
        if mesh_id_of(genesis.actor) != mesh_id or genesis.kind != "root.genesis":
            raise UntrustedServerError("its root key is not the token's")
        if change.actor != genesis.actor or change.kind != "roster.change":
            raise UntrustedServerError("its certificate is not signed by the root")
        listed = [certificate_from_value(value) for value in change.body["servers"]]
        named = server_id or shown["server_id"]
        certificate = next((one for one in listed if one.server_id == named), None)
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
        certificate=certificate, authority_pem=authority, genesis=genesis, change=change
    )


def _signed(value: object, mesh_id: MeshId, check: Callable[[bytes, bytes, bytes], bool]) -> Record:
    record = record_from_value(value)
    if not check(record.actor, record.signed_bytes(mesh_id), record.actor_sig):
        raise UntrustedServerError("a signature in its proof is wrong")
    return record


def _key_hash(authority_pem: str) -> bytes:
    key = x509.load_pem_x509_certificate(authority_pem.encode("ascii")).public_key()
    spki = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(spki).digest()
