"""Certificate requests: ours, and those of endpoints, whose keys never come here. Pure."""

from __future__ import annotations

from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from services.kernel.errors import InputError

MAX_REQUEST_BYTES: Final = 4_096
_CURVES: Final = (ec.SECP256R1, ec.SECP384R1)
_RSA_BITS: Final = range(2048, 4097)
_MALFORMED: Final = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    InvalidSignature,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)


def new_key_pem() -> bytes:
    """Return a new P-256 key."""
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def request_of(key_pem: bytes, name: str) -> bytes:
    """Return the DER of a request for one name by the key.

    Raises:
        InputError: not a key that CAs take.
    """
    try:
        key = serialization.load_pem_private_key(key_pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InputError("not a private key", code="bad_key") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise InputError("not a P-256 key", code="bad_key")
    names = x509.SubjectAlternativeName([x509.DNSName(name)])
    # No common name: CAs take it from the list of names, and it holds 64 characters at most.
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
    )
    return request.public_bytes(serialization.Encoding.DER)


def check_request(der: bytes, name: str) -> bytes:
    """Check a request that somebody else made; return the DER of its public key.

    Raises:
        InputError: ``bad_csr``: malformed, not signed by its key, a key that CAs refuse, or for
            anything but the one name.
    """
    if len(der) > MAX_REQUEST_BYTES:
        raise InputError(f"a request has at most {MAX_REQUEST_BYTES} bytes", code="bad_csr")
    try:
        request = x509.load_der_x509_csr(der)
        if not request.is_signature_valid:
            raise InputError("the request is not signed by its key", code="bad_csr")
        names = _names(request)
        common = [
            str(one.value) for one in request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        ]
        key = request.public_key()
    except InputError:
        raise
    except _MALFORMED as error:
        raise InputError(f"not a certificate request: {error}", code="bad_csr") from error
    if names != [name] or any(one != name for one in common):
        raise InputError(f"a request for {name} names it, and nothing else", code="bad_csr")
    _check_key(key)
    return key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def public_key_of(key_pem: bytes) -> bytes:
    """Return the DER of the public half of a key.

    Raises:
        ValueError: not a key.
    """
    key = serialization.load_pem_private_key(key_pem, password=None)
    return key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _names(request: x509.CertificateSigningRequest) -> list[str]:
    for extension in request.extensions:
        if not isinstance(extension.value, x509.SubjectAlternativeName):
            raise InputError("a request asks for a name, and nothing else", code="bad_csr")
    try:
        found = request.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    # Whatever is no DNS name (an address, a URI) makes the list differ from what is allowed.
    return [
        one.value if isinstance(one, x509.DNSName) else f"{type(one).__name__}"
        for one in found.value
    ]


def _check_key(key: object) -> None:
    good = (isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, _CURVES)) or (
        isinstance(key, rsa.RSAPublicKey) and key.key_size in _RSA_BITS
    )
    if not good:
        raise InputError("CAs take P-256, P-384, and RSA of 2048 to 4096 bits", code="bad_csr")
