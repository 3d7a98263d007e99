"""Keys from other keys (HKDF), from passphrases (Argon2id), and keyed hashes."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from nacl import bindings

from services.kernel.errors import InputError

SALT_BYTES = bindings.crypto_pwhash_SALTBYTES
MAX_HKDF_BYTES = 255 * 32
MAX_PASSPHRASE_BYTES = 4096
MAX_OPSLIMIT = 10
MIN_MEMLIMIT_BYTES = 8 * 1024
MAX_MEMLIMIT_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Argon2Cost:
    """What one derivation costs; the caps hold before anything runs (a header is not trusted)."""

    opslimit: int = 3
    memlimit_bytes: int = 64 * 1024 * 1024

    def __post_init__(self) -> None:
        if not 1 <= self.opslimit <= MAX_OPSLIMIT:
            raise InputError(f"argon2id: opslimit must be 1 to {MAX_OPSLIMIT}")
        if not MIN_MEMLIMIT_BYTES <= self.memlimit_bytes <= MAX_MEMLIMIT_BYTES:
            raise InputError(
                f"argon2id: memory must be {MIN_MEMLIMIT_BYTES} to {MAX_MEMLIMIT_BYTES} bytes"
            )


# RFC 9106 section 4, the second recommended choice: three passes over 64 MiB.
DEFAULT_COST = Argon2Cost()


def argon2id(
    passphrase: bytes, *, salt: bytes, opslimit: int, memlimit: int, length: int = 32
) -> bytes:
    """Return ``length`` bytes derived from a passphrase; slow on purpose, so run it in a thread.

    Raises:
        InputError: a cost beyond the caps, or a salt, length or passphrase out of range.
    """
    Argon2Cost(opslimit=opslimit, memlimit_bytes=memlimit)
    if len(salt) != SALT_BYTES:
        raise InputError(f"argon2id: the salt has {SALT_BYTES} bytes")
    if not 16 <= length <= 64:
        raise InputError("argon2id: derive 16 to 64 bytes")
    if len(passphrase) > MAX_PASSPHRASE_BYTES:
        raise InputError(f"argon2id: the passphrase has at most {MAX_PASSPHRASE_BYTES} bytes")
    return bindings.crypto_pwhash_alg(
        length, passphrase, salt, opslimit, memlimit, bindings.crypto_pwhash_ALG_ARGON2ID13
    )


def hkdf_sha256(ikm: bytes, *, salt: bytes, info: bytes, length: int) -> bytes:
    """Return ``length`` bytes of HKDF-SHA-256 (RFC 5869, extract and expand).

    Raises:
        InputError: none, or more than 8,160 bytes asked for.
    """
    if not 1 <= length <= MAX_HKDF_BYTES:
        raise InputError(f"HKDF gives 1 to {MAX_HKDF_BYTES} bytes")
    return HKDF(algorithm=SHA256(), length=length, salt=salt, info=info).derive(ikm)


def hmac_sha256(key: bytes, message: bytes) -> bytes:
    """Return the 32 bytes of HMAC-SHA-256."""
    return hmac.digest(key, message, hashlib.sha256)


def constant_time_equal(left: bytes, right: bytes) -> bool:
    """Compare without telling where the first difference is."""
    return hmac.compare_digest(left, right)
