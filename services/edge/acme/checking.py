"""What a CA brings, checked before it is put in the place of what works. Pure."""

from __future__ import annotations

import base64
import itertools
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import ExtendedKeyUsageOID

from services.kernel.errors import RejectedError

MAX_CHAIN: Final = 8
MAX_PEM_BYTES: Final = 64 * 1024
SKEW_MS: Final = 5 * 60_000
_MALFORMED: Final = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.ExtensionNotFound,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)


class BadCertificateError(RejectedError):
    """What the CA brought is not what was asked for; the one in use stays."""

    default_code = "bad_certificate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """What is to be known of a certificate in use."""

    names: tuple[str, ...]
    public_key: bytes
    not_before_ms: int
    not_after_ms: int
    serial: str
    issuer: str
    fingerprint: str
    renewal_id: str | None
    """How the CA names it in its renewal information (RFC 9773, 4.1)."""

    @property
    def life_ms(self) -> int:
        """How long it holds in all."""
        return self.not_after_ms - self.not_before_ms


def leaf_of(chain_pem: bytes) -> Leaf:
    """Return the first certificate of a chain.

    Raises:
        BadCertificateError: not a chain of certificates.
    """
    return _leaf(_chain(chain_pem)[0])


def check_chain(chain_pem: bytes, *, name: str, public_key: bytes, now_ms: int) -> Leaf:
    """Check that a chain is what was asked for and holds now.

    Args:
        chain_pem: what the CA brought, the leaf first.
        name: the one name that it has to be for.
        public_key: DER of the key that it has to be for.
        now_ms: the time.

    Raises:
        BadCertificateError: what is wrong with it.
    """
    chain = _chain(chain_pem)
    leaf = _leaf(chain[0])
    if leaf.public_key != public_key:
        raise BadCertificateError("the CA's certificate is for another key")
    if leaf.names != (name,):
        raise BadCertificateError(f"the CA's certificate is for {', '.join(leaf.names)[:200]}")
    if leaf.not_after_ms <= now_ms:
        raise BadCertificateError("the CA's certificate has expired")
    if leaf.not_before_ms > now_ms + SKEW_MS:
        raise BadCertificateError("the CA's certificate does not hold yet: look at the clock")
    _check_use(chain[0])
    _check_links(chain)
    return leaf


def _chain(pem: bytes) -> list[x509.Certificate]:
    if len(pem) > MAX_PEM_BYTES:
        raise BadCertificateError("the CA's chain is too large")
    try:
        chain = x509.load_pem_x509_certificates(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BadCertificateError(f"the CA's certificate is none: {error}") from error
    if len(chain) > MAX_CHAIN:
        raise BadCertificateError("the CA's chain is too long")
    return chain


def _leaf(certificate: x509.Certificate) -> Leaf:
    try:
        public_key = certificate.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return Leaf(
            names=tuple(
                one.value if isinstance(one, x509.DNSName) else type(one).__name__ for one in names
            ),
            public_key=public_key,
            not_before_ms=int(certificate.not_valid_before_utc.timestamp() * 1000),
            not_after_ms=int(certificate.not_valid_after_utc.timestamp() * 1000),
            serial=f"{certificate.serial_number:x}",
            issuer=certificate.issuer.rfc4514_string(),
            fingerprint=certificate.fingerprint(hashes.SHA256()).hex(),
            renewal_id=_renewal_id(certificate),
        )
    except _MALFORMED as error:
        raise BadCertificateError(f"the CA's certificate is of no use: {error}") from error


def _check_use(leaf: x509.Certificate) -> None:
    try:
        usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return
    if ExtendedKeyUsageOID.SERVER_AUTH not in usage:
        raise BadCertificateError("the CA's certificate is not for servers")


def _check_links(chain: list[x509.Certificate]) -> None:
    for number, (one, issuer) in enumerate(itertools.pairwise(chain), 1):
        try:
            basic = issuer.extensions.get_extension_for_class(x509.BasicConstraints).value
            one.verify_directly_issued_by(issuer)
        except (*_MALFORMED, InvalidSignature) as error:
            raise BadCertificateError(f"the CA's chain is broken at {number}") from error
        if not basic.ca:
            raise BadCertificateError(f"the CA's chain is broken at {number}: no authority")


def _renewal_id(certificate: x509.Certificate) -> str | None:
    try:
        found = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
    except x509.ExtensionNotFound:
        return None
    if found.value.key_identifier is None:
        return None
    serial = certificate.serial_number
    # As in DER: a leading zero byte where the highest bit is set.
    encoded = serial.to_bytes(serial.bit_length() // 8 + 1, "big")
    return f"{_b64(found.value.key_identifier)}.{_b64(encoded)}"


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
