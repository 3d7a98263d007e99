"""An authority of a SPIFFE trust domain: issues SVIDs, good ones unless told otherwise."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from services.base.spiffe.bundle import Bundle
from services.kernel import canonical

HOUR = timedelta(hours=1)


@dataclass(frozen=True)
class Issued:
    """A certificate with its private key, in PEM, and the chain that goes with it."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
    above: tuple[x509.Certificate, ...] = ()

    @property
    def chain_pem(self) -> bytes:
        certificates = (self.certificate, *self.above)
        return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in certificates)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )


class SpiffeCa:
    """The authority of one trust domain, or one below it."""

    def __init__(self, trust_domain: str = "mesh.example", above: SpiffeCa | None = None) -> None:
        self.trust_domain = trust_domain
        self._name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, trust_domain)])
        self._above = above
        self.own = self._issue(
            [f"spiffe://{trust_domain}"], ec.generate_private_key(ec.SECP256R1()), authority=True
        )

    def svid(self, path: str = "/server/a", **changes) -> Issued:
        """Return an SVID; ``uris``, ``key``, ``lifetime``, ``dns``, ``usage`` change it."""
        key = changes.pop("key", None) or ec.generate_private_key(ec.SECP256R1())
        uris = changes.pop("uris", [f"spiffe://{self.trust_domain}{path}"])
        return self._issue(uris, key, **changes)

    def bundle(self, sequence: int | None = 1) -> Bundle:
        return Bundle(
            trust_domain=self.trust_domain,
            authorities=(self.own.certificate,),
            sequence=sequence,
        )

    def bundle_json(self, *, sequence: int = 1, keys: bool = True) -> bytes:
        der = self.own.certificate.public_bytes(serialization.Encoding.DER)
        key = {"use": "x509-svid", "kty": "EC", "x5c": [base64.b64encode(der).decode()]}
        return canonical.encode({"spiffe_sequence": sequence, "keys": [key] if keys else []})

    def _issue(
        self,
        uris,
        key,
        *,
        authority: bool = False,
        lifetime: tuple[timedelta, timedelta] = (-HOUR, HOUR),
        dns=(),
        usage=None,
        extended=(ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH),
    ) -> Issued:
        signer = self._above.own if authority and self._above else getattr(self, "own", None)
        now = datetime.now(UTC)
        names = [x509.UniformResourceIdentifier(uri) for uri in uris]
        names += [x509.DNSName(one) for one in dns]
        issuer_key = signer.key if signer else key
        builder = (
            x509.CertificateBuilder()
            .subject_name(self._name if authority else x509.Name([]))
            .issuer_name(signer.certificate.subject if signer else self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + lifetime[0])
            .not_valid_after(now + lifetime[1])
            .add_extension(x509.BasicConstraints(authority, None), critical=True)
            .add_extension(usage or _usage(signing=authority), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
                critical=False,
            )
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
        )
        if names:
            builder = builder.add_extension(
                x509.SubjectAlternativeName(names), critical=not authority
            )
        if not authority and extended:
            builder = builder.add_extension(x509.ExtendedKeyUsage(extended), critical=False)
        above = (self.own.certificate, *self.own.above) if self._above and not authority else ()
        return Issued(builder.sign(issuer_key, hashes.SHA256()), key, above)


def _usage(*, signing: bool, digital: bool = True, crl: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital and not signing,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signing,
        crl_sign=crl or signing,
        encipher_only=False,
        decipher_only=False,
    )


def signing_usage() -> x509.KeyUsage:
    """Return the key usage of an authority, which no leaf may have."""
    return _usage(signing=True)
