"""Proof that an attestation key lives in the TPM of an endorsement key: make a credential for it.

The verifier seals a secret to the EK together with the AK's name; the TPM opens it
(ActivateCredential) only if it holds both keys. Source: TCG TPM 2.0 Library, Part 1, section 24
(credential protection), 11.4.10 (KDFa, KDFe), C.6.1 (ECDH); TCG EK Credential Profile 2.x: the
templates L-1 (RSA 2048) and L-2 (P-256), both with SHA-256 and AES-128-CFB.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES128
from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash
from cryptography.hazmat.primitives.kdf.kbkdf import KBKDFHMAC, CounterLocation, Mode
from cryptography.x509 import ExtendedKeyUsage, ExtensionNotFound, ObjectIdentifier

from services.base.attestation.chains import verify_chain
from services.base.attestation.errors import Refusal, refused
from services.base.attestation.tpm_structures import parse_attestation_key

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from cryptography import x509

SECRET_BYTES = 32

_SEED_BYTES = 32
_SYMMETRIC_BITS, _HMAC_BITS = 128, 256
_EK_PURPOSE = ObjectIdentifier("2.23.133.8.1")
_RSA_BITS = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialChallenge:
    """A sealed secret for a TPM, and what must come back."""

    ak_name: bytes
    credential: bytes
    """TPM2B_ID_OBJECT."""
    encrypted_seed: bytes
    """TPM2B_ENCRYPTED_SECRET."""
    secret: bytes = field(repr=False)

    def answered_by(self, secret: bytes) -> bytes:
        """Return the name of the AK, which is now certified.

        Raises:
            QuoteRefusedError: ``quote_key_not_certified``: that is not the secret.
        """
        if not hmac.compare_digest(secret, self.secret):
            raise refused(Refusal.KEY_NOT_CERTIFIED, "the TPM did not open the credential")
        return self.ak_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Randomness:
    """What a credential needs of chance; its maker draws it from the system."""

    secret: bytes = field(repr=False)
    seed: bytes = field(repr=False)
    ephemeral: ec.EllipticCurvePrivateKey = field(repr=False)


def certify_challenge(
    ek_chain: Sequence[x509.Certificate],
    ak_public: bytes,
    *,
    anchors: Sequence[x509.Certificate],
    at: datetime,
    randomness: Randomness,
) -> CredentialChallenge:
    """Check an EK's certificate and seal a secret that only its TPM opens, and only for that AK.

    Args:
        ek_chain: the certificate of the EK first.
        ak_public: the AK's TPMT_PUBLIC.
        anchors: the roots of TPM makers that the operator trusts.
        at: the time for which the chain must be good.
        randomness: fresh for this one challenge.

    Raises:
        QuoteFormatError: no attestation key.
        QuoteRefusedError: the chain is not good, or the certificate is of no EK.
    """
    line = verify_chain(ek_chain, anchors=anchors, at=at)
    _check_purpose(line[0])
    name = parse_attestation_key(ak_public).name
    return make_credential(line[0].public_key(), name, randomness=randomness)


def make_credential(ek: object, ak_name: bytes, *, randomness: Randomness) -> CredentialChallenge:
    """Seal a secret to an EK of the templates L-1 or L-2 (TPM2_MakeCredential).

    Raises:
        QuoteRefusedError: ``quote_key_not_certified``: an EK of another template.
    """
    if isinstance(ek, rsa.RSAPublicKey) and ek.key_size == _RSA_BITS:
        seed = randomness.seed
        encrypted = ek.encrypt(
            seed, padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), b"IDENTITY\0")
        )
    elif isinstance(ek, ec.EllipticCurvePublicKey) and isinstance(ek.curve, ec.SECP256R1):
        seed, encrypted = _agree(ek, randomness.ephemeral)
    else:
        raise refused(Refusal.KEY_NOT_CERTIFIED, "an EK of another template than L-1 and L-2")
    symmetric = _kdfa(seed, b"STORAGE", ak_name, _SYMMETRIC_BITS)
    sealing = Cipher(AES128(symmetric), CFB(bytes(16))).encryptor()
    sealed = sealing.update(_sized(randomness.secret)) + sealing.finalize()
    integrity = hmac.digest(_kdfa(seed, b"INTEGRITY", b"", _HMAC_BITS), sealed + ak_name, "sha256")
    return CredentialChallenge(
        ak_name=ak_name,
        credential=_sized(_sized(integrity) + sealed),
        encrypted_seed=_sized(encrypted),
        secret=randomness.secret,
    )


def _check_purpose(certificate: x509.Certificate) -> None:
    try:
        purposes = certificate.extensions.get_extension_for_class(ExtendedKeyUsage).value
    except ExtensionNotFound:
        purposes = ExtendedKeyUsage([])
    if _EK_PURPOSE not in purposes:
        raise refused(Refusal.KEY_NOT_CERTIFIED, "the certificate is of no endorsement key")


def _agree(
    ek: ec.EllipticCurvePublicKey, ephemeral: ec.EllipticCurvePrivateKey
) -> tuple[bytes, bytes]:
    own = ephemeral.public_key().public_numbers()
    own_x, own_y = (number.to_bytes(32, "big") for number in (own.x, own.y))
    their_x = ek.public_numbers().x.to_bytes(32, "big")
    shared = ephemeral.exchange(ec.ECDH(), ek)
    info = b"IDENTITY\0" + own_x + their_x
    seed = ConcatKDFHash(hashes.SHA256(), _SEED_BYTES, info).derive(shared)
    return seed, _sized(own_x) + _sized(own_y)


def _kdfa(key: bytes, label: bytes, context: bytes, bits: int) -> bytes:
    return KBKDFHMAC(
        algorithm=hashes.SHA256(),
        mode=Mode.CounterMode,
        length=bits // 8,
        rlen=4,
        llen=4,
        location=CounterLocation.BeforeFixed,
        label=label,
        context=context,
        fixed=None,
    ).derive(key)


def _sized(data: bytes) -> bytes:
    return len(data).to_bytes(2, "big") + data
