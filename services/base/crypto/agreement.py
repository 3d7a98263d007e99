"""X25519: key pairs, shared secrets and sealed boxes (libsodium)."""

from __future__ import annotations

import secrets

from nacl import bindings
from nacl.exceptions import CryptoError
from nacl.exceptions import RuntimeError as NaclRuntimeError

from services.base.crypto.aead import DecryptError
from services.kernel.errors import InputError
from services.kernel.ids import KEY_BYTES


def generate_x25519() -> tuple[bytes, bytes]:
    """Return a new pair, private and public; the private key is clamped, as WireGuard shows it."""
    raw = bytearray(secrets.token_bytes(KEY_BYTES))
    raw[0] &= 0xF8
    raw[31] = (raw[31] & 0x7F) | 0x40
    private_key = bytes(raw)
    return private_key, x25519_public(private_key)


def x25519_public(private_key: bytes) -> bytes:
    """Return the public half of a private key.

    Raises:
        InputError: ``bad_key``: not 32 bytes.
    """
    _check_key(private_key)
    return bindings.crypto_scalarmult_base(private_key)


def shared_secret(private_key: bytes, public_key: bytes) -> bytes:
    """Return the 32 bytes that both sides share; derive keys from them, don't use them bare.

    Raises:
        InputError: ``bad_key``: not 32 bytes, or a public key of small order (all-zero result).
    """
    _check_key(private_key)
    _check_key(public_key)
    try:
        return bindings.crypto_scalarmult(private_key, public_key)
    except NaclRuntimeError as error:
        raise InputError("an X25519 key of small order shares nothing", code="bad_key") from error


def seal_box(public_key: bytes, plaintext: bytes) -> bytes:
    """Encrypt for the holder of a private key; the sender stays anonymous.

    Raises:
        InputError: ``bad_key``: not 32 bytes, or a public key of small order.
    """
    _check_key(public_key)
    try:
        return bindings.crypto_box_seal(plaintext, public_key)
    except (CryptoError, NaclRuntimeError) as error:
        raise InputError("an X25519 key of small order seals nothing", code="bad_key") from error


def open_box(private_key: bytes, sealed: bytes) -> bytes:
    """Open what ``seal_box`` made.

    Raises:
        InputError: ``bad_key``: the private key is not 32 bytes.
        DecryptError: another key's box, cut or changed.
    """
    public_key = x25519_public(private_key)
    try:
        return bindings.crypto_box_seal_open(sealed, public_key, private_key)
    except CryptoError as error:
        raise DecryptError("the sealed box does not open") from error


def _check_key(key: bytes) -> None:
    if len(key) != KEY_BYTES:
        raise InputError(f"an X25519 key has {KEY_BYTES} bytes", code="bad_key")
