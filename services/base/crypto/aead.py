"""Authenticated encryption: XChaCha20-Poly1305, ChaCha20-Poly1305, AES-256-GCM.

Ciphertext is followed by its 16-byte tag. XChaCha20's 24-byte nonce may be random; the 12-byte
nonces of the other two must never repeat under a key, so they want a counter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from nacl import bindings
from nacl.exceptions import CryptoError

from services.kernel.errors import InputError, WireError

if TYPE_CHECKING:
    from collections.abc import Callable

KEY_BYTES = 32
TAG_BYTES = 16
XCHACHA20_NONCE_BYTES = 24
NONCE_BYTES = 12


class DecryptError(WireError):
    """Ciphertext that was not made with this key, nonce and associated data, or was changed."""

    default_code = "decrypt_failed"


def xchacha20_encrypt(key: bytes, nonce: bytes, plaintext: bytes, aad: bytes = b"") -> bytes:
    """Encrypt with XChaCha20-Poly1305.

    Raises:
        InputError: key or nonce of another length.
    """
    _check(key, nonce, XCHACHA20_NONCE_BYTES)
    return bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(plaintext, aad, nonce, key)


def xchacha20_decrypt(key: bytes, nonce: bytes, ciphertext: bytes, aad: bytes = b"") -> bytes:
    """Decrypt XChaCha20-Poly1305.

    Raises:
        InputError: key or nonce of another length.
        DecryptError: not authentic.
    """
    _check(key, nonce, XCHACHA20_NONCE_BYTES)
    return _open(bindings.crypto_aead_xchacha20poly1305_ietf_decrypt, key, nonce, ciphertext, aad)


def chacha20_encrypt(key: bytes, nonce: bytes, plaintext: bytes, aad: bytes = b"") -> bytes:
    """Encrypt with ChaCha20-Poly1305 (RFC 8439).

    Raises:
        InputError: key or nonce of another length.
    """
    _check(key, nonce, NONCE_BYTES)
    return bindings.crypto_aead_chacha20poly1305_ietf_encrypt(plaintext, aad, nonce, key)


def chacha20_decrypt(key: bytes, nonce: bytes, ciphertext: bytes, aad: bytes = b"") -> bytes:
    """Decrypt ChaCha20-Poly1305 (RFC 8439).

    Raises:
        InputError: key or nonce of another length.
        DecryptError: not authentic.
    """
    _check(key, nonce, NONCE_BYTES)
    return _open(bindings.crypto_aead_chacha20poly1305_ietf_decrypt, key, nonce, ciphertext, aad)


def aes256gcm_encrypt(key: bytes, nonce: bytes, plaintext: bytes, aad: bytes = b"") -> bytes:
    """Encrypt with AES-256-GCM; OpenSSL's, since libsodium's needs a CPU that has AES.

    Raises:
        InputError: key or nonce of another length.
    """
    _check(key, nonce, NONCE_BYTES)
    return AESGCM(key).encrypt(nonce, plaintext, aad)


def aes256gcm_decrypt(key: bytes, nonce: bytes, ciphertext: bytes, aad: bytes = b"") -> bytes:
    """Decrypt AES-256-GCM.

    Raises:
        InputError: key or nonce of another length.
        DecryptError: not authentic.
    """
    _check(key, nonce, NONCE_BYTES)
    try:
        return AESGCM(key).decrypt(nonce, ciphertext, aad)
    except InvalidTag as error:
        raise DecryptError("the ciphertext is not authentic") from error


def _open(
    decrypt: Callable[[bytes, bytes, bytes, bytes], bytes],
    key: bytes,
    nonce: bytes,
    ciphertext: bytes,
    aad: bytes,
) -> bytes:
    # The binding sizes its buffer by the length less the tag: below that it would be negative.
    if len(ciphertext) < TAG_BYTES:
        raise DecryptError(f"ciphertext ends in a tag of {TAG_BYTES} bytes")
    try:
        return decrypt(ciphertext, aad, nonce, key)
    except CryptoError as error:
        raise DecryptError("the ciphertext is not authentic") from error


def _check(key: bytes, nonce: bytes, nonce_bytes: int) -> None:
    if len(key) != KEY_BYTES:
        raise InputError(f"the key has {KEY_BYTES} bytes", code="bad_key")
    if len(nonce) != nonce_bytes:
        raise InputError(f"the nonce has {nonce_bytes} bytes")
