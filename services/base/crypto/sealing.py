"""Sealing to the holder of an identity: HPKE (RFC 9180), bound to a purpose and a context.

Base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20-Poly1305, without associated data:
purpose, a zero byte and context are the ``info`` that the keys are derived from, so what was sealed
for one end opens for no other. The key is X25519, or an Ed25519 identity brought to the same curve,
which both may use side by side (Thormarker, "On using the same key pair for Ed25519 and an X25519
based KEM", 2021/509).
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from nacl import bindings
from nacl.exceptions import CryptoError
from nacl.exceptions import RuntimeError as NaclRuntimeError

from services.base.crypto.aead import TAG_BYTES, DecryptError
from services.kernel.errors import InputError
from services.kernel.ids import KEY_BYTES

SEALED_OVERHEAD_BYTES = KEY_BYTES + TAG_BYTES

_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)


def curve_public(identity_key: bytes) -> bytes:
    """Return the X25519 public key of an Ed25519 identity.

    Raises:
        InputError: ``bad_key``: no point of the curve, or one of small order.
    """
    if len(identity_key) != KEY_BYTES:
        raise InputError(f"an Ed25519 key has {KEY_BYTES} bytes", code="bad_key")
    try:
        return bindings.crypto_sign_ed25519_pk_to_curve25519(identity_key)
    except (CryptoError, NaclRuntimeError) as error:
        raise InputError("no Ed25519 key that can be sealed to", code="bad_key") from error


def curve_private(seed: bytes) -> bytes:
    """Return the X25519 private key of the Ed25519 identity with this seed."""
    _, secret = bindings.crypto_sign_seed_keypair(seed)
    return bindings.crypto_sign_ed25519_sk_to_curve25519(secret)


def seal_for(public_key: bytes, plaintext: bytes, *, purpose: str, context: bytes) -> bytes:
    """Seal to an X25519 key.

    Raises:
        InputError: ``bad_key``: not 32 bytes, or a point of small order.
    """
    try:
        key = X25519PublicKey.from_public_bytes(public_key)
        return _SUITE.encrypt(plaintext, key, _info(purpose, context))
    except ValueError as error:
        raise InputError("no X25519 key that can be sealed to", code="bad_key") from error


def open_sealed_for(private_key: bytes, sealed: bytes, *, purpose: str, context: bytes) -> bytes:
    """Open what was sealed to this key for this purpose and context.

    Raises:
        DecryptError: for another key, purpose or context, or changed.
    """
    key = X25519PrivateKey.from_private_bytes(private_key)
    try:
        return _SUITE.decrypt(sealed, key, _info(purpose, context))
    except (InvalidTag, ValueError) as error:
        raise DecryptError("what was sealed does not open") from error


def _info(purpose: str, context: bytes) -> bytes:
    return purpose.encode("ascii") + b"\0" + context
