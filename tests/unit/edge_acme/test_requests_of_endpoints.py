"""A request is for one name by a key that CAs take, and for nothing else."""

from __future__ import annotations

import ipaddress

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from services.edge.acme.requesting import (
    check_request,
    new_key_pem,
    public_key_of,
    request_of,
)
from services.kernel.errors import InputError

NAME = "laptop.acme.ep.mesh.example"
KEY = ec.generate_private_key(ec.SECP256R1())


def made(
    *names: x509.GeneralName,
    key: object = KEY,
    common: str = "",
    extra: x509.ExtensionType | None = None,
) -> bytes:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)] if common else [])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if extra is not None:
        builder = builder.add_extension(extra, critical=False)
    digest = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, digest).public_bytes(serialization.Encoding.DER)  # type: ignore[arg-type]


def test_ours_is_taken_and_tells_its_key() -> None:
    pem = new_key_pem()
    assert check_request(request_of(pem, NAME), NAME) == public_key_of(pem)
    assert check_request(made(x509.DNSName(NAME), common=NAME), NAME)


@pytest.mark.parametrize(
    "der",
    [
        b"",
        b"\x30\x00",
        made(),
        made(x509.DNSName("other.acme.ep.mesh.example")),
        made(x509.DNSName(NAME), x509.DNSName("other.acme.ep.mesh.example")),
        made(x509.DNSName("*." + NAME.partition(".")[2])),
        made(x509.DNSName(NAME), x509.IPAddress(ipaddress.ip_address("192.0.2.1"))),
        made(x509.DNSName(NAME), x509.RFC822Name("a@mesh.example")),
        made(x509.DNSName(NAME), common="other.mesh.example"),
        made(x509.DNSName(NAME), extra=x509.BasicConstraints(ca=True, path_length=None)),
        made(x509.DNSName(NAME), key=ed25519.Ed25519PrivateKey.generate()),
        made(x509.DNSName(NAME), key=ec.generate_private_key(ec.SECP521R1())),
        made(x509.DNSName(NAME), key=rsa.generate_private_key(65537, 1024)),  # noqa: S505 (that is the point)
        made(x509.DNSName(NAME))[:-1] + b"\0",
        made(x509.DNSName(NAME)) + b"\0" * 5_000,
    ],
)
def test_anything_else_is_refused(der: bytes) -> None:
    with pytest.raises(InputError) as refused:
        check_request(der, NAME)
    assert refused.value.code == "bad_csr"


@given(st.binary(max_size=300))
def test_any_bytes_give_a_key_or_a_refusal(data: bytes) -> None:
    with pytest.raises(InputError):
        check_request(data, NAME)
