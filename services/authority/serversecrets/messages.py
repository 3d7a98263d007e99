r"""Names, versions and commitments of secrets, and a secret sealed to one server. Pure.

    secret.set   {commitment, name, version}
    secret.rm    {name, version}

    commitment = SHA-256("seipd/secret/v1\0" || mesh id, 32 || name's length, 1 || name
                         || version, 8 || salt, 32 || value)
    sealed     = HPKE to the identity of the server that asks, of salt || value,
                 info "seipd/secret-for-server/v1\0" || mesh id || commitment || identity, 32

No record holds a value, not even sealed: what is in a log is there for good. The commitment says
which value is meant, and the salt, which goes with the value, keeps a short one from being guessed.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec

from services.base.crypto.aead import DecryptError
from services.base.crypto.kdf import constant_time_equal
from services.base.crypto.sealing import curve_private, curve_public, open_sealed_for, seal_for
from services.kernel.errors import InputError, TooLargeError, WireError
from services.kernel.ids import b64u_decode, b64u_encode

if TYPE_CHECKING:
    from services.kernel.ids import MeshId

SET_KIND: Final = "secret.set"
REMOVE_KIND: Final = "secret.rm"
MAX_SECRETS: Final = 64
MAX_VALUE_BYTES: Final = 8 * 1024
SALT_BYTES: Final = 32
COMMITMENT_BYTES: Final = 32

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_PURPOSE_COMMIT: Final = b"seipd/secret/v1\0"
_PURPOSE_SEAL: Final = "seipd/secret-for-server/v1"

_Version = Annotated[int, msgspec.Meta(ge=1, le=2**40)]


class ForgedSecretError(WireError):
    """What a server gave is not the secret that was set."""

    default_code = "secret_forged"


@dataclass(frozen=True, slots=True, kw_only=True)
class Meant:
    """Which secret: its commitment stands for the value."""

    name: str
    version: int
    commitment: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """A secret that is here; the value shows in no text of this object."""

    meant: Meant
    salt: bytes = field(repr=False)
    value: bytes = field(repr=False)


class _SetWire(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    version: _Version
    commitment: str


class _RemoveWire(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    version: _Version


def parse_name(text: str) -> str:
    """Return the name of a secret.

    Raises:
        InputError: ``bad_secret_name``.
    """
    if _NAME.match(text) is None:
        raise InputError(
            f"{text[:64]!r} is no name of a secret",
            code="bad_secret_name",
            mend="1 to 64 letters, digits, dots, hyphens and underscores",
        )
    return text


def parse_commitment(text: str) -> bytes:
    """Return a commitment.

    Raises:
        InputError: not 32 bytes in base64url.
    """
    commitment = b64u_decode(text)
    if len(commitment) != COMMITMENT_BYTES:
        raise InputError(f"a commitment has {COMMITMENT_BYTES} bytes")
    return commitment


def make_secret(mesh_id: MeshId, *, name: str, version: int, value: bytes, salt: bytes) -> Secret:
    """Return a secret with its commitment; the salt is 32 fresh random bytes.

    Raises:
        InputError: ``bad_secret_name``; ``empty_secret``.
        TooLargeError: over 8 KiB.
    """
    if not value:
        raise InputError("an empty secret", code="empty_secret")
    if len(value) > MAX_VALUE_BYTES:
        raise TooLargeError(f"a secret has at most {MAX_VALUE_BYTES} bytes")
    commitment = _commitment(mesh_id, parse_name(name), version, salt, value)
    return Secret(
        meant=Meant(name=name, version=version, commitment=commitment), salt=salt, value=value
    )


def unpack_secret(mesh_id: MeshId, meant: Meant, packed: bytes) -> Secret:
    """Return the secret in what was sealed or stored, checked against its commitment.

    Raises:
        ForgedSecretError: it is another one.
    """
    salt, value = packed[:SALT_BYTES], packed[SALT_BYTES:]
    found = _commitment(mesh_id, meant.name, meant.version, salt, value)
    if len(salt) != SALT_BYTES or not constant_time_equal(found, meant.commitment):
        raise ForgedSecretError(f"this is not version {meant.version} of {meant.name}")
    return Secret(meant=meant, salt=salt, value=value)


def seal_secret(mesh_id: MeshId, secret: Secret, identity_key: bytes) -> bytes:
    """Seal a secret to the identity of one server.

    Raises:
        InputError: ``bad_key``.
    """
    return seal_for(
        curve_public(identity_key),
        secret.salt + secret.value,
        purpose=_PURPOSE_SEAL,
        context=_context(mesh_id, secret.meant, identity_key),
    )


def open_secret(
    mesh_id: MeshId, meant: Meant, sealed: bytes, *, seed: bytes, identity_key: bytes
) -> Secret:
    """Open what was sealed to this server, and check that it is the secret that was set.

    Raises:
        ForgedSecretError: for another server or secret, or not the value that was set.
    """
    try:
        packed = open_sealed_for(
            curve_private(seed),
            sealed,
            purpose=_PURPOSE_SEAL,
            context=_context(mesh_id, meant, identity_key),
        )
    except DecryptError as error:
        raise ForgedSecretError("a secret that does not open") from error
    return unpack_secret(mesh_id, meant, packed)


def set_body(meant: Meant) -> dict[str, Any]:
    """Return the body of ``secret.set``."""
    return {
        "name": meant.name,
        "version": meant.version,
        "commitment": b64u_encode(meant.commitment),
    }


def meant_in(body: object) -> Meant:
    """Check the body of ``secret.set``.

    Raises:
        InputError: malformed.
    """
    wire: _SetWire = _convert(body, _SetWire)
    return Meant(
        name=parse_name(wire.name),
        version=wire.version,
        commitment=parse_commitment(wire.commitment),
    )


def removed_in(body: object) -> tuple[str, int]:
    """Check the body of ``secret.rm``; return name and version.

    Raises:
        InputError: malformed.
    """
    wire: _RemoveWire = _convert(body, _RemoveWire)
    return parse_name(wire.name), wire.version


def _convert(body: object, kind: type[Any]) -> Any:  # noqa: ANN401 (one of the structs)
    try:
        return msgspec.convert(body, kind)
    except msgspec.ValidationError as error:
        raise InputError(f"secret: {error}") from error


def _commitment(mesh_id: MeshId, name: str, version: int, salt: bytes, value: bytes) -> bytes:
    raw = name.encode("ascii")
    framed = bytes.fromhex(mesh_id) + bytes([len(raw)]) + raw + version.to_bytes(8)
    return hashlib.sha256(_PURPOSE_COMMIT + framed + salt + value).digest()


def _context(mesh_id: MeshId, meant: Meant, identity_key: bytes) -> bytes:
    return bytes.fromhex(mesh_id) + meant.commitment + identity_key
