"""Certificate chains of hardware vendors: a straight line from the leaf to a root handed in.

The checks are those of RFC 5280 section 6 that such chains need: each certificate is signed by
the next and within its time, issuers are authorities, path lengths hold, no critical extension
is unknown, and the line ends in a trust anchor, byte for byte. What web clients need besides
(names of hosts) has no place here, and vendors' certificates do not pass a web client's rules.
"""

from __future__ import annotations

import base64
import re
import warnings
from itertools import pairwise
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import ExtensionOID

from services.base.attestation.errors import Refusal, malformed, refused

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

MAX_CHAIN_CERTIFICATES = 6
MAX_CERTIFICATE_BYTES = 8 * 1024

_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
_UNDERSTOOD = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
    }
)
_UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
_PEM = re.compile(
    rb"-----BEGIN CERTIFICATE-----\n([A-Za-z0-9+/=\n]{1,12000})-----END CERTIFICATE-----\n"
)


def load_certificate(der: bytes) -> x509.Certificate:
    """Parse one certificate.

    Raises:
        QuoteFormatError: it is none, or over 8 KiB.
    """
    if len(der) > MAX_CERTIFICATE_BYTES:
        raise malformed(f"a certificate of {len(der)} bytes")
    try:
        with warnings.catch_warnings():
            # AMD gives its VCEK certificates the serial number 0.
            warnings.simplefilter("ignore", CryptographyDeprecationWarning)
            certificate = x509.load_der_x509_certificate(der)
            _read_whole(certificate)
    except _UNREADABLE as error:
        raise malformed(f"no certificate: {error}") from error
    return certificate


def _read_whole(certificate: x509.Certificate) -> None:
    """Parse what the library parses late: a certificate that can't show it all is none."""
    certificate.public_key()
    _ = (
        certificate.subject.rfc4514_string(),
        certificate.issuer.rfc4514_string(),
        certificate.not_valid_before_utc,
        certificate.not_valid_after_utc,
        certificate.signature_hash_algorithm,
        [extension.oid for extension in certificate.extensions],
    )


def load_pem_chain(data: bytes) -> tuple[x509.Certificate, ...]:
    """Parse certificates in the one spelling that vendors use: 64 letters a line, nothing between.

    A NUL at the end, or a missing last newline, is let through: Intel's library writes either.

    Raises:
        QuoteFormatError: another spelling, no certificate, or more than six.
    """
    text = data.removesuffix(b"\0")
    if not text.endswith(b"\n"):
        text += b"\n"
    chain: list[x509.Certificate] = []
    at = 0
    while at < len(text):
        block = _PEM.match(text, at)
        if block is None or len(chain) == MAX_CHAIN_CERTIFICATES:
            raise malformed("no chain of PEM certificates")
        chain.append(_from_pem(block))
        at = block.end()
    if not chain:
        raise malformed("a chain without certificates")
    return tuple(chain)


def _from_pem(block: re.Match[bytes]) -> x509.Certificate:
    try:
        der = base64.b64decode(block[1].replace(b"\n", b""), validate=True)
    except ValueError as error:
        raise malformed(f"PEM: {error}") from error
    certificate = load_certificate(der)
    # A second spelling of the same certificate would let bytes change unseen.
    if certificate.public_bytes(Encoding.PEM) != block[0]:
        raise malformed("PEM in another spelling")
    return certificate


def verify_chain(
    chain: Sequence[x509.Certificate], *, anchors: Sequence[x509.Certificate], at: datetime
) -> tuple[x509.Certificate, ...]:
    """Return the chain from the leaf to its trust anchor.

    Args:
        chain: leaf first; the anchor itself may be missing.
        anchors: the roots that are trusted.
        at: the time for which the chain must be good.

    Raises:
        QuoteRefusedError: ``quote_chain_broken`` or ``quote_chain_expired``.
    """
    line = _to_anchor(chain, anchors)
    for depth, certificate in enumerate(line):
        _check_extensions(certificate)
        if depth:
            _check_authority(certificate, below=depth - 1)
    for certificate, issuer in zip(line, [*line[1:], line[-1]], strict=True):
        check_signed_by(certificate, issuer)
    for certificate in line:
        if not certificate.not_valid_before_utc <= at <= certificate.not_valid_after_utc:
            name = certificate.subject.rfc4514_string()
            raise refused(Refusal.CHAIN_EXPIRED, f"{name} is not valid at {at.isoformat()}")
    return line


def check_signed_by(certificate: x509.Certificate, issuer: x509.Certificate) -> None:
    """Check one signature and that the names of issuer and subject are the same.

    Raises:
        QuoteRefusedError: ``quote_chain_broken``.
    """
    try:
        if not isinstance(certificate.signature_hash_algorithm, _HASHES):
            raise refused(Refusal.CHAIN_BROKEN, "a certificate signed over another hash")
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, ValueError, TypeError, UnsupportedAlgorithm) as error:
        name = certificate.subject.rfc4514_string()
        raise refused(
            Refusal.CHAIN_BROKEN, f"{name} is not signed by its issuer: {error}"
        ) from error


def check_not_revoked(
    line: Sequence[x509.Certificate],
    crls: Sequence[x509.CertificateRevocationList],
    *,
    at: datetime,
) -> None:
    """Check every certificate but the anchor against the revocation list of its issuer.

    Raises:
        QuoteRefusedError: ``quote_chain_revoked``; ``quote_collateral_bad``: a list is missing
            or not signed by the issuer; ``quote_collateral_stale``: a list is out of its time.
    """
    for certificate, issuer in pairwise(line):
        crl = next((one for one in crls if one.issuer == issuer.subject), None)
        if crl is None:
            name = issuer.subject.rfc4514_string()
            raise refused(Refusal.COLLATERAL_BAD, f"no revocation list of {name}")
        _check_crl(crl, issuer, at)
        if crl.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None:
            name = certificate.subject.rfc4514_string()
            raise refused(Refusal.CHAIN_REVOKED, f"{name} is revoked")


def _check_crl(crl: x509.CertificateRevocationList, issuer: x509.Certificate, at: datetime) -> None:
    try:
        good = crl.is_signature_valid(issuer.public_key())  # type: ignore[arg-type]
    except (ValueError, TypeError, UnsupportedAlgorithm):
        good = False
    if not good:
        raise refused(Refusal.COLLATERAL_BAD, "a revocation list is not signed by its issuer")
    until = crl.next_update_utc
    if until is None or not crl.last_update_utc <= at <= until:
        raise refused(Refusal.COLLATERAL_STALE, "a revocation list is out of its time")


def _to_anchor(
    chain: Sequence[x509.Certificate], anchors: Sequence[x509.Certificate]
) -> tuple[x509.Certificate, ...]:
    if not 1 <= len(chain) <= MAX_CHAIN_CERTIFICATES:
        raise refused(Refusal.CHAIN_BROKEN, f"a chain of {len(chain)} certificates")
    last = chain[-1]
    if last in anchors:
        return tuple(chain)
    for anchor in anchors:
        if anchor.subject == last.issuer:
            return (*chain, anchor)
    raise refused(
        Refusal.CHAIN_BROKEN, f"{last.issuer.rfc4514_string()} is no root that is trusted here"
    )


def _check_extensions(certificate: x509.Certificate) -> None:
    for extension in certificate.extensions:
        if extension.critical and extension.oid not in _UNDERSTOOD:
            raise refused(
                Refusal.CHAIN_BROKEN,
                f"critical extension {extension.oid.dotted_string} is not understood",
            )


def _check_authority(certificate: x509.Certificate, *, below: int) -> None:
    try:
        basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound as error:
        raise refused(Refusal.CHAIN_BROKEN, f"an issuer is no authority: {error}") from error
    too_deep = basic.path_length is not None and below > basic.path_length
    if not basic.ca or not usage.key_cert_sign or too_deep:
        name = certificate.subject.rfc4514_string()
        raise refused(Refusal.CHAIN_BROKEN, f"{name} may not issue this certificate")
