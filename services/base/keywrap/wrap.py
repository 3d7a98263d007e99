r"""Seal a secret under an unlock secret (Argon2id, then XChaCha20-Poly1305).

    {"ct", "kdf": {"memlimit_bytes", "name": "argon2id", "opslimit"}, "nonce", "salt", "v": 1}

Canonical JSON. The associated data is ``seipd/keywrap/v1\0``, the purpose, a zero byte and the same
object without ``ct``: a sealed key put in another key's place does not open, nor does one whose
header was changed. The cost in the header is capped before anything is derived.
"""

from __future__ import annotations

from typing import Any

import msgspec

from services.base.crypto import aead, kdf
from services.kernel import canonical
from services.kernel.errors import ConfigError, InputError, WireError
from services.kernel.ids import b64u_decode, b64u_encode

SEAL_RANDOM_BYTES = kdf.SALT_BYTES + aead.XCHACHA20_NONCE_BYTES
MAX_SEALED_BYTES = 16 * 1024

_VERSION = 1
_KDF_NAME = "argon2id"
_AAD_PREFIX = b"seipd/keywrap/v1\0"


class KeyUnwrapError(ConfigError):
    """A sealed key does not open: wrong unlock secret, or a damaged or exchanged file."""

    default_code = "key_unwrap_failed"


class _Kdf(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    memlimit_bytes: int
    name: str
    opslimit: int


class _Wire(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    ct: str
    kdf: _Kdf
    nonce: str
    salt: str
    v: int


def seal(
    secret: bytes,
    *,
    unlock: bytes,
    purpose: str,
    random: bytes,
    cost: kdf.Argon2Cost = kdf.DEFAULT_COST,
) -> bytes:
    """Return the bytes of a file that holds the secret; takes some 0.1 s, so run it in a thread.

    Args:
        secret: what to hide.
        unlock: from ``read_unlock``.
        purpose: what the secret is for; asked for again on opening.
        random: 40 fresh random bytes, never used before.
        cost: what a guess at the unlock secret shall cost.

    Raises:
        InputError: another number of random bytes, or an unfit purpose.
    """
    if len(random) != SEAL_RANDOM_BYTES:
        raise InputError(f"sealing takes {SEAL_RANDOM_BYTES} random bytes")
    salt, nonce = random[: kdf.SALT_BYTES], random[kdf.SALT_BYTES :]
    header: dict[str, Any] = {
        "v": _VERSION,
        "kdf": {
            "name": _KDF_NAME,
            "opslimit": cost.opslimit,
            "memlimit_bytes": cost.memlimit_bytes,
        },
        "salt": b64u_encode(salt),
        "nonce": b64u_encode(nonce),
    }
    key = kdf.argon2id(unlock, salt=salt, opslimit=cost.opslimit, memlimit=cost.memlimit_bytes)
    ciphertext = aead.xchacha20_encrypt(key, nonce, secret, _aad(purpose, header))
    return canonical.encode({**header, "ct": b64u_encode(ciphertext)})


def open_sealed(data: bytes, *, unlock: bytes, purpose: str) -> bytes:
    """Return the secret.

    Raises:
        KeyUnwrapError: wrong unlock secret, other purpose, or damaged in any way.
    """
    try:
        return _open(data, unlock, purpose)
    except (InputError, WireError, msgspec.ValidationError) as error:
        raise KeyUnwrapError(
            f"the sealed key ({purpose}) does not open: {error}",
            mend="give the unlock file (or credential) it was made with, "
            "or restore both from one backup",
        ) from error


def _open(data: bytes, unlock: bytes, purpose: str) -> bytes:
    if len(data) > MAX_SEALED_BYTES:
        raise InputError(f"a sealed key has at most {MAX_SEALED_BYTES} bytes")
    header = canonical.decode_canonical(data)
    if not isinstance(header, dict):
        raise InputError("not an object")
    wire = msgspec.convert(header, _Wire)
    if wire.v != _VERSION or wire.kdf.name != _KDF_NAME:
        raise InputError("sealed in a way that this program does not know")
    ciphertext = b64u_decode(wire.ct)
    salt, nonce = b64u_decode(wire.salt), b64u_decode(wire.nonce)
    without_ct = {name: value for name, value in header.items() if name != "ct"}
    key = kdf.argon2id(
        unlock, salt=salt, opslimit=wire.kdf.opslimit, memlimit=wire.kdf.memlimit_bytes
    )
    return aead.xchacha20_decrypt(key, nonce, ciphertext, _aad(purpose, without_ct))


def _aad(purpose: str, header: dict[str, Any]) -> bytes:
    if not purpose or not purpose.isascii() or not purpose.isprintable():
        raise InputError("a purpose is printable ASCII")
    return _AAD_PREFIX + purpose.encode("ascii") + b"\0" + canonical.encode(header)
