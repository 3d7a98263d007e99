"""Structures of a TPM as bytes: a quote's attestation, its signature, a public key and its name.

Source: TCG TPM 2.0 Library, Part 2: Structures (TPMS_ATTEST 10.12.12, TPMS_QUOTE_INFO 10.12.5,
TPMT_SIGNATURE 11.3.4, TPMT_PUBLIC 12.2.4) and Part 1, section 16 on names. Numbers are big endian.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from services.base.attestation.errors import malformed
from services.base.attestation.octets import Octets

SHA256 = 0x000B
PCR_COUNT = 24

_GENERATED = 0xFF544347
_ATTEST_QUOTE = 0x8018
_RSA, _ECC, _NULL = 0x0001, 0x0023, 0x0010
_RSASSA, _ECDSA = 0x0014, 0x0018
_NIST_P256 = 0x0003
_RSA_EXPONENT = 65537

# TPMA_OBJECT (8.3.2)
_FIXED_TPM, _FIXED_PARENT, _ORIGIN = 1 << 1, 1 << 4, 1 << 5
_RESTRICTED, _DECRYPT, _SIGN = 1 << 16, 1 << 17, 1 << 18
_AK_HAS = _FIXED_TPM | _FIXED_PARENT | _ORIGIN | _RESTRICTED | _SIGN

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey


@dataclass(frozen=True, slots=True, kw_only=True)
class TpmQuote:
    """What a TPM signed: who asked for what, and the digest over the registers."""

    signer: bytes
    extra_data: bytes
    reset_count: int
    restart_count: int
    firmware: int
    pcrs: tuple[int, ...]
    """Registers of the SHA-256 bank, in rising order."""
    pcr_digest: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class AttestationKey:
    """The public half of a key that signs nothing but what its TPM itself wrote."""

    name: bytes
    """``nameAlg`` and the digest of the public area: a TPM's own name for the key."""
    key: PublicKey


def parse_attest(data: bytes) -> TpmQuote:
    """Parse a TPMS_ATTEST that is a quote over registers of the SHA-256 bank.

    Raises:
        QuoteFormatError: it is none; it is another attestation; other banks.
    """
    octets = Octets(data, order="big", what="a TPM quote")
    if octets.number(4) != _GENERATED or octets.number(2) != _ATTEST_QUOTE:
        raise malformed("no quote that a TPM generated")
    signer, extra_data = octets.sized(2), octets.sized(2)
    octets.number(8)
    reset_count, restart_count, safe = octets.number(4), octets.number(4), octets.number(1)
    firmware, banks = octets.number(8), octets.number(4)
    if safe > 1 or banks != 1 or octets.number(2) != SHA256:
        raise malformed("a TPM quote of another bank than SHA-256 alone")
    bitmap = octets.sized(1)
    digest = octets.sized(2)
    octets.done()
    if len(bitmap) != PCR_COUNT // 8 or len(digest) != hashlib.sha256().digest_size:
        raise malformed("a TPM quote of another shape")
    chosen = int.from_bytes(bitmap, "little")
    return TpmQuote(
        signer=signer,
        extra_data=extra_data,
        reset_count=reset_count,
        restart_count=restart_count,
        firmware=firmware,
        pcrs=tuple(number for number in range(PCR_COUNT) if chosen >> number & 1),
        pcr_digest=digest,
    )


def parse_signature(data: bytes, key: PublicKey) -> bytes:
    """Return what a TPMT_SIGNATURE for that kind of key has: DER of ECDSA, or RSASSA's bytes.

    Raises:
        QuoteFormatError: another algorithm, another hash, or no signature.
    """
    octets = Octets(data, order="big", what="a TPM signature")
    wanted = _RSASSA if isinstance(key, rsa.RSAPublicKey) else _ECDSA
    if octets.number(2) != wanted or octets.number(2) != SHA256:
        raise malformed("a TPM signature by another algorithm")
    if wanted == _RSASSA:
        signature = octets.sized(2)
    else:
        # A TPM may leave zeros in front out; more than the curve's width is none of its numbers.
        r, s = octets.sized(2), octets.sized(2)
        if max(len(r), len(s)) > 32:
            raise malformed("a TPM signature of another curve")
        signature = encode_dss_signature(int.from_bytes(r, "big"), int.from_bytes(s, "big"))
    octets.done()
    return signature


def parse_attestation_key(data: bytes) -> AttestationKey:
    """Parse a TPMT_PUBLIC that must be of an attestation key.

    Such a key is made in this TPM, can't leave it, and is restricted: it signs only what the
    TPM made, so nobody can have it sign a quote of their own writing.

    Raises:
        QuoteFormatError: no public area of an RSA or P-256 key, or not of an attestation key.
    """
    octets = Octets(data, order="big", what="a TPM public key")
    kind, name_hash, attributes = octets.number(2), octets.number(2), octets.number(4)
    if name_hash != SHA256:
        raise malformed("a TPM key named by another hash than SHA-256")
    if attributes & _AK_HAS != _AK_HAS or attributes & _DECRYPT:
        raise malformed("a TPM key that is no attestation key")
    octets.sized(2)
    if octets.number(2) != _NULL:
        raise malformed("a TPM signing key with a symmetric algorithm")
    key: PublicKey
    if kind == _ECC:
        key = _ecc_key(octets)
    elif kind == _RSA:
        key = _rsa_key(octets)
    else:
        raise malformed(f"a TPM key of type {kind:#x}")
    octets.done()
    return AttestationKey(name=name_of(data), key=key)


def name_of(public: bytes) -> bytes:
    """Return the name of an object with this public area."""
    return SHA256.to_bytes(2, "big") + hashlib.sha256(public).digest()


def pcr_digest_of(values: list[bytes]) -> bytes:
    """Return the digest that a quote has over these registers."""
    return hashlib.sha256(b"".join(values)).digest()


def _scheme(octets: Octets, wanted: int) -> None:
    if octets.number(2) != wanted or octets.number(2) != SHA256:
        raise malformed("a TPM attestation key with another signature scheme")


def _ecc_key(octets: Octets) -> ec.EllipticCurvePublicKey:
    _scheme(octets, _ECDSA)
    if octets.number(2) != _NIST_P256 or octets.number(2) != _NULL:
        raise malformed("a TPM key on another curve than P-256")
    x, y = (int.from_bytes(octets.sized(2), "big") for _ in range(2))
    try:
        return ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
    except ValueError as error:
        raise malformed(f"a TPM key that is none: {error}") from error


def _rsa_key(octets: Octets) -> rsa.RSAPublicKey:
    _scheme(octets, _RSASSA)
    bits, exponent = octets.number(2), octets.number(4) or _RSA_EXPONENT
    modulus = int.from_bytes(octets.sized(2), "big")
    if exponent != _RSA_EXPONENT or bits < 2048 or modulus.bit_length() != bits:
        raise malformed(f"an RSA key of {bits} bits")
    try:
        return rsa.RSAPublicNumbers(exponent, modulus).public_key()
    except ValueError as error:
        raise malformed(f"a TPM key that is none: {error}") from error
