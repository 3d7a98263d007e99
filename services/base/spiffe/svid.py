"""X.509-SVIDs (standards/X509-SVID.md): certificates that carry one SPIFFE ID.

``parse_svid`` checks the form of leaf and intermediates, ``verify_svid`` also the keys, the time
and the chain: against the bundle of the trust domain that the leaf names, and of no other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from services.base.spiffe.ids import SpiffeError, SpiffeId, parse_spiffe_id

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from services.base.spiffe.bundle import Bundle

MAX_CHAIN = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Svid:
    """A leaf of good form, what it names, and the certificates that came with it."""

    spiffe_id: SpiffeId
    leaf: x509.Certificate
    intermediates: tuple[x509.Certificate, ...]


def parse_svid(data: bytes) -> Svid:
    """Check the form of a chain in PEM, the leaf first.

    Raises:
        SpiffeError: ``bad_svid``.
    """
    try:
        chain = x509.load_pem_x509_certificates(data)
    except ValueError as error:
        raise _bad("no certificates in PEM") from error
    if len(chain) > MAX_CHAIN:
        raise _bad(f"a chain of more than {MAX_CHAIN}")
    try:
        spiffe_id = _leaf_id(chain[0])
        for one in chain[1:]:
            _check_signing(one)
    except (ValueError, x509.DuplicateExtension) as error:
        raise _bad("an extension can't be read") from error
    return Svid(spiffe_id=spiffe_id, leaf=chain[0], intermediates=tuple(chain[1:]))


def verify_svid(svid: Svid, bundle: Bundle, *, now: datetime) -> SpiffeId:
    """Return whom an SVID names, if its trust domain's bundle says so now.

    Raises:
        SpiffeError: ``untrusted_svid``: of another trust domain, not of P-256, not yet or no more
            good, or signed by nobody in the bundle.
    """
    if svid.spiffe_id.trust_domain != bundle.trust_domain:
        raise _untrusted("it is of another trust domain")
    key = svid.leaf.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise _untrusted("its key is not of P-256")
    if not bundle.authorities:
        raise _untrusted("the bundle holds no authority: all are revoked")
    policy = PolicyBuilder().store(Store(list(bundle.authorities))).time(now)
    try:
        policy.build_client_verifier().verify(svid.leaf, list(svid.intermediates))
    except VerificationError as error:
        raise _untrusted("no authority of the bundle vouches for it now") from error
    return svid.spiffe_id


def uri_names(certificate: x509.Certificate) -> Sequence[str]:
    """Return the URIs among a certificate's alternative names."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    return names.value.get_values_for_type(x509.UniformResourceIdentifier)


def _leaf_id(leaf: x509.Certificate) -> SpiffeId:
    uris = uri_names(leaf)
    if len(uris) != 1:
        raise _bad(f"{len(uris)} URIs among the names, where one is due")
    spiffe_id = parse_spiffe_id(uris[0])
    if not spiffe_id.path:
        raise _bad("it names a trust domain and nobody in it")
    if _is_authority(leaf):
        raise _bad("the leaf is an authority")
    usage = _usage(leaf)
    if usage is None or not usage.digital_signature:
        raise _bad("the leaf's key usage lacks digitalSignature")
    if usage.key_cert_sign or usage.crl_sign:
        raise _bad("the leaf's key usage has keyCertSign or cRLSign")
    _check_extended(leaf)
    return spiffe_id


def _check_extended(leaf: x509.Certificate) -> None:
    try:
        extended = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return
    both = {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    if not both <= set(extended):
        raise _bad("the leaf's extended key usage lacks serverAuth or clientAuth")


def _check_signing(certificate: x509.Certificate) -> None:
    if not _is_authority(certificate):
        raise _bad("an intermediate is no authority")
    usage = _usage(certificate)
    if usage is None or not usage.key_cert_sign:
        raise _bad("an intermediate's key usage lacks keyCertSign")


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _usage(certificate: x509.Certificate) -> x509.KeyUsage | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return None


def _bad(what: str) -> SpiffeError:
    return SpiffeError(f"not an X.509-SVID: {what}", code="bad_svid")


def _untrusted(what: str) -> SpiffeError:
    return SpiffeError(f"the SVID is not believed: {what}", code="untrusted_svid")
