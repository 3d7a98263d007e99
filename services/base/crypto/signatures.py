"""Ed25519 by libsodium alone: two verifiers that differ on odd keys would split a mesh.

OpenSSL accepts forged signatures for public keys of small order; libsodium refuses such keys, and
also signatures with a scalar that is not reduced. So every signature of the mesh is checked here.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Protocol

from nacl import bindings
from nacl.exceptions import BadSignatureError as _NaclBadSignature

from services.kernel.errors import InputError, UnauthenticatedError
from services.kernel.ids import KEY_BYTES, SIGNATURE_BYTES

SEED_BYTES = 32


class BadSignatureError(UnauthenticatedError):
    """A signature does not verify under the key that it should."""

    default_code = "sig_invalid"


class Signer(Protocol):
    """What can sign at once, with a key that it need not show."""

    @property
    def public_key(self) -> bytes:
        """The 32 bytes of the Ed25519 public key."""

    def sign(self, message: bytes) -> bytes:
        """Return the 64 bytes of the signature."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """An Ed25519 private key, made of its 32-byte seed; it prints as its public half.

    Raises:
        InputError: ``bad_key``: a seed of another length.
    """

    seed: bytes = field(repr=False, compare=False)
    public_key: bytes = field(init=False)
    _secret: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.seed) != SEED_BYTES:
            raise InputError(f"an Ed25519 seed has {SEED_BYTES} bytes", code="bad_key")
        public_key, secret = bindings.crypto_sign_seed_keypair(self.seed)
        object.__setattr__(self, "public_key", public_key)
        object.__setattr__(self, "_secret", secret)

    def sign(self, message: bytes) -> bytes:
        """Return the 64 bytes of the signature."""
        return bindings.crypto_sign(message, self._secret)[:SIGNATURE_BYTES]


def generate_signing_key() -> SigningKey:
    """Return a new key from the system's randomness."""
    return SigningKey(secrets.token_bytes(SEED_BYTES))


def verify(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Say whether a signature is good; malformed keys and signatures are not."""
    if len(public_key) != KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        return False
    try:
        bindings.crypto_sign_open(signature + message, public_key)
    except _NaclBadSignature:
        return False
    return True


def verify_or_raise(public_key: bytes, message: bytes, signature: bytes, *, what: str) -> None:
    """Check a signature; ``what`` names the thing signed.

    Raises:
        BadSignatureError: it does not verify.
    """
    if not verify(public_key, message, signature):
        raise BadSignatureError(f"the signature of {what} is not good")
