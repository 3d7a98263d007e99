"""Who this server is: its three private keys, made once and sealed at rest.

    identity/keypair.enc       Ed25519 seed, 32 bytes || X25519 key of WireGuard, 32 bytes; sealed
    identity/session_key.enc   Ed25519 seed for session tokens, 32 bytes; sealed
    identity/keypair.pub       the identity's public key, base64url, one line

``keypair.pub`` is written last: with it the identity exists. A server that lost ``keypair.enc`` is
told so and never given a new identity behind its owner's back. The three keys are independent:
none is derived from another.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from services.base.crypto.agreement import generate_x25519, x25519_public
from services.base.crypto.kdf import DEFAULT_COST, Argon2Cost
from services.base.crypto.signatures import SEED_BYTES, SigningKey, generate_signing_key
from services.base.keywrap.wrap import (
    MAX_SEALED_BYTES,
    SEAL_RANDOM_BYTES,
    KeyUnwrapError,
    open_sealed,
    seal,
)
from services.base.storage import files
from services.kernel.errors import ConflictError, CorruptError, InputError, NotFoundError
from services.kernel.ids import b64u_encode, parse_key, server_id_of

if TYPE_CHECKING:
    from pathlib import Path

    from services.kernel.ids import ServerId

KEYPAIR_PUB = "keypair.pub"
KEYPAIR_ENC = "keypair.enc"
SESSION_KEY_ENC = "session_key.enc"

_PURPOSE_KEYPAIR = "seipd/identity/v1"
_PURPOSE_SESSION = "seipd/session-key/v1"
_KEYPAIR_BYTES = SEED_BYTES + 32


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerIdentity:
    """The private keys of this server."""

    signing_key: SigningKey
    wireguard_private_key: bytes = field(repr=False)
    session_signing_key: SigningKey

    @property
    def public_key(self) -> bytes:
        """The identity: the Ed25519 public key."""
        return self.signing_key.public_key

    @property
    def wireguard_public_key(self) -> bytes:
        """The X25519 public key of the WireGuard interface."""
        return x25519_public(self.wireguard_private_key)

    @property
    def server_id(self) -> ServerId:
        """The id that follows from the identity."""
        return server_id_of(self.public_key)


def identity_exists(folder: Path) -> bool:
    """Say whether an identity was made in this folder, whole or not."""
    return (folder / KEYPAIR_PUB).exists() or (folder / KEYPAIR_ENC).exists()


def create_identity(
    folder: Path, *, unlock: bytes, cost: Argon2Cost = DEFAULT_COST
) -> ServerIdentity:
    """Make new keys and seal them; takes some 0.3 s, so run it in a thread.

    Raises:
        ConflictError: there is an identity already.
        ConfigError: the folder is a link, or not ours.
        StorageError: the disk refused.
    """
    files.make_private_dir(folder)
    if identity_exists(folder):
        raise ConflictError(
            f"{folder} holds an identity already", mend="use it, or choose another --data-root"
        )
    signing_key = generate_signing_key()
    wireguard_private_key, _ = generate_x25519()
    _write_sealed(
        folder / KEYPAIR_ENC,
        signing_key.seed + wireguard_private_key,
        _PURPOSE_KEYPAIR,
        unlock,
        cost,
    )
    session_signing_key = _create_session_key(folder, unlock, cost)
    _write_public(folder, signing_key.public_key)
    return ServerIdentity(
        signing_key=signing_key,
        wireguard_private_key=wireguard_private_key,
        session_signing_key=session_signing_key,
    )


def load_identity(
    folder: Path, *, unlock: bytes, cost: Argon2Cost = DEFAULT_COST
) -> ServerIdentity:
    """Open the keys; takes some 0.3 s, so run it in a thread.

    What an interrupted ``create_identity`` did not get to is completed here. A lost session key is
    made anew: that only ends the sessions of the last hour.

    Raises:
        NotFoundError: no identity was ever made here.
        CorruptError: ``corrupt``: a file is lost or damaged; ``identity_mismatch``: the public key
            is not that of the sealed one.
        KeyUnwrapError: the unlock secret is not the one they were sealed with.
        KeyPermissionsError: others can read or replace them.
        StorageError: the disk refused.
    """
    public_key = _read_public(folder)
    try:
        sealed = files.read_private(folder / KEYPAIR_ENC, MAX_SEALED_BYTES)
    except NotFoundError:
        if public_key is None:
            raise NotFoundError(
                f"there is no identity in {folder}", mend="run seipd init, or seipd join TOKEN"
            ) from None
        raise CorruptError(
            "the private key of this server is lost",
            path=KEYPAIR_ENC,
            mend=f"restore {folder / KEYPAIR_ENC} from a backup",
        ) from None
    secret = open_sealed(sealed, unlock=unlock, purpose=_PURPOSE_KEYPAIR)
    if len(secret) != _KEYPAIR_BYTES:
        raise KeyUnwrapError(f"{KEYPAIR_ENC} does not hold two keys")
    signing_key = SigningKey(secret[:SEED_BYTES])
    if public_key is None:
        _write_public(folder, signing_key.public_key)
    elif public_key != signing_key.public_key:
        raise CorruptError(
            f"{KEYPAIR_PUB} and {KEYPAIR_ENC} are not one pair",
            path=KEYPAIR_PUB,
            code="identity_mismatch",
            mend="restore both from one backup",
        )
    return ServerIdentity(
        signing_key=signing_key,
        wireguard_private_key=secret[SEED_BYTES:],
        session_signing_key=_load_session_key(folder, unlock, cost),
    )


def _load_session_key(folder: Path, unlock: bytes, cost: Argon2Cost) -> SigningKey:
    try:
        sealed = files.read_private(folder / SESSION_KEY_ENC, MAX_SEALED_BYTES)
    except NotFoundError:
        return _create_session_key(folder, unlock, cost)
    seed = open_sealed(sealed, unlock=unlock, purpose=_PURPOSE_SESSION)
    if len(seed) != SEED_BYTES:
        raise KeyUnwrapError(f"{SESSION_KEY_ENC} does not hold one key")
    return SigningKey(seed)


def _create_session_key(folder: Path, unlock: bytes, cost: Argon2Cost) -> SigningKey:
    key = generate_signing_key()
    _write_sealed(folder / SESSION_KEY_ENC, key.seed, _PURPOSE_SESSION, unlock, cost)
    return key


def _write_sealed(path: Path, secret: bytes, purpose: str, unlock: bytes, cost: Argon2Cost) -> None:
    random = secrets.token_bytes(SEAL_RANDOM_BYTES)
    files.write_atomic(path, seal(secret, unlock=unlock, purpose=purpose, random=random, cost=cost))


def _write_public(folder: Path, public_key: bytes) -> None:
    files.write_atomic(folder / KEYPAIR_PUB, b64u_encode(public_key).encode("ascii") + b"\n")


def _read_public(folder: Path) -> bytes | None:
    try:
        text = files.read_file(folder / KEYPAIR_PUB, 256).decode("ascii")
        return parse_key(text.removesuffix("\n"))
    except NotFoundError:
        return None
    except (InputError, UnicodeDecodeError) as error:
        raise CorruptError(
            f"{KEYPAIR_PUB} does not hold a key",
            path=KEYPAIR_PUB,
            mend="remove it: it is made again from the sealed key",
        ) from error
