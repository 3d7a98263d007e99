"""This server's TLS: an authority of its own that the roster pins, and leaves that it signs.

The authority's P-256 key is made once; the SHA-256 of its SubjectPublicKeyInfo stands in the
server's certificate, signed by the root. Leaves carry the addresses of the moment, for a year; a
new one is made at each start. So a client that knows the root needs no public CA.
"""

from __future__ import annotations

import datetime
import hashlib
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from seipd.api.tlsswitch import new_context
from services.base.storage.files import make_private_dir, read_private, write_atomic
from services.kernel.errors import CorruptError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence
    from pathlib import Path

    from services.kernel.clock import Clock

AUTHORITY_DAYS = 3650
LEAF_DAYS = 365
_MAX_FILE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsIdentity:
    """The authority of this server and where its files lie."""

    folder: Path
    authority_pem: bytes
    key_hash: bytes

    @property
    def leaf_path(self) -> Path:
        """The file with the leaf, its key and the authority's certificate."""
        return self.folder / "leaf.pem"


def load_tls_identity(folder: Path, *, name: str, clock: Clock) -> TlsIdentity:
    """Load this server's TLS authority, or make it once.

    Raises:
        CorruptError: the key and the certificate do not belong together.
    """
    make_private_dir(folder)
    key_path, certificate_path = folder / "authority.key", folder / "authority.pem"
    if not key_path.exists():
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _authority(key, name, _utc(clock))
        write_atomic(certificate_path, certificate.public_bytes(serialization.Encoding.PEM))
        write_atomic(key_path, _key_pem(key))
    pem = read_private(certificate_path, max_bytes=_MAX_FILE_BYTES)
    loaded = _load_key(folder)
    held = x509.load_pem_x509_certificate(pem)
    if _spki(held.public_key()) != _spki(loaded.public_key()):
        raise CorruptError(
            "the TLS authority's key is not its certificate's",
            path=str(key_path.name),
            mend="restore both files from one backup",
        )
    return TlsIdentity(
        folder=folder,
        authority_pem=pem,
        key_hash=hashlib.sha256(_spki(loaded.public_key())).digest(),
    )


def key_hash_of(authority_pem: bytes) -> bytes:
    """Return the SHA-256 of the SubjectPublicKeyInfo of a certificate.

    Raises:
        ValueError: not a certificate.
        CorruptError: its key is not P-256.
    """
    certificate = x509.load_pem_x509_certificate(authority_pem)
    return hashlib.sha256(_spki(certificate.public_key())).digest()


def issue_leaf(identity: TlsIdentity, *, names: Sequence[str], clock: Clock) -> None:
    """Sign a new leaf for these host names and addresses and write it, key and all, to one file."""
    authority = x509.load_pem_x509_certificate(identity.authority_pem)
    authority_key = _load_key(identity.folder)
    key = ec.generate_private_key(ec.SECP256R1())
    now = _utc(clock)
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    leaf = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])]))
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=LEAF_DAYS))
        .add_extension(
            x509.SubjectAlternativeName([_general_name(one) for one in names]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()),
            critical=False,
        )
        .sign(authority_key, hashes.SHA256())
    )
    pem = _key_pem(key) + leaf.public_bytes(serialization.Encoding.PEM) + identity.authority_pem
    write_atomic(identity.leaf_path, pem)


def server_context(identity: TlsIdentity) -> ssl.SSLContext:
    """Return the TLS 1.3 context of the servers, with the newest leaf."""
    context = new_context()
    context.load_cert_chain(identity.leaf_path)
    return context


def _authority(
    key: ec.EllipticCurvePrivateKey, name: str, now: datetime.datetime
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"seipd {name}"[:64])])
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=AUTHORITY_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _load_key(folder: Path) -> ec.EllipticCurvePrivateKey:
    data = read_private(folder / "authority.key", max_bytes=_MAX_FILE_BYTES)
    key = serialization.load_pem_private_key(data, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise CorruptError("the TLS authority's key is of another kind", path="authority.key")
    return key


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _spki(key: object) -> bytes:
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise CorruptError("not a P-256 key", path="authority.pem")
    return key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _general_name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _utc(clock: Clock) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(clock.now_ms() / 1000, tz=datetime.UTC)
