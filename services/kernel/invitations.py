"""Invitation tokens: one line of text that lets one machine in.

    seip1_<base64url of (canonical JSON | first 4 bytes of its SHA-256)>

The JSON holds the mesh id, the root's fingerprint and generation, the role, the servers' addresses
(host:port of the public HTTPS server), an Ed25519 seed whose public half the ledger knows and,
where it is good for one hostname only, that name. The four bytes catch a slip in copying; what
protects the token is the seed.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import msgspec

from services.kernel import canonical
from services.kernel.errors import InputError, SeipdError
from services.kernel.ids import (
    MeshId,
    ServerId,
    b64u_decode,
    b64u_encode,
    parse_hostname,
    parse_mesh_id,
    parse_record_id,
    parse_server_id,
)

PREFIX = "seip1_"
MAX_TOKEN_CHARS = 2048
_CHECK_BYTES = 4


class TokenInvalidError(InputError):
    """The text is no token of ours, or not for this."""

    default_code = "token_invalid"


@dataclass(frozen=True, slots=True, kw_only=True)
class Invitation:
    """What a token says."""

    mesh_id: MeshId
    root_fingerprint: str
    root_generation: int
    role: str
    invite_id: str
    server_id: ServerId
    addresses: tuple[str, ...]
    seed: bytes = field(repr=False)
    name: str | None = None


class _Wire(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    mesh: str
    root: str
    generation: int
    role: str
    invite: str
    server: str
    addresses: list[str]
    seed: str
    name: str | None = None


def encode_token(invitation: Invitation) -> str:
    """Return the one line."""
    value: dict[str, object] = {
        "mesh": invitation.mesh_id,
        "root": invitation.root_fingerprint,
        "generation": invitation.root_generation,
        "role": invitation.role,
        "invite": invitation.invite_id,
        "server": invitation.server_id,
        "addresses": list(invitation.addresses),
        "seed": b64u_encode(invitation.seed),
    }
    if invitation.name is not None:
        value["name"] = invitation.name
    data = canonical.encode(value)
    return PREFIX + b64u_encode(data + hashlib.sha256(data).digest()[:_CHECK_BYTES])


def decode_token(text: str) -> Invitation:
    """Parse a token.

    Raises:
        TokenInvalidError: cut short, altered, or something else altogether.
    """
    mend = "copy the whole line again, or ask for a new invitation"
    if not text.startswith(PREFIX) or len(text) > MAX_TOKEN_CHARS:
        raise TokenInvalidError(f"this is not a token: tokens start with {PREFIX}", mend=mend)
    try:
        raw = b64u_decode(text.removeprefix(PREFIX))
        data, check = raw[:-_CHECK_BYTES], raw[-_CHECK_BYTES:]
        if hashlib.sha256(data).digest()[:_CHECK_BYTES] != check:
            raise TokenInvalidError("the token was altered or cut short", mend=mend)
        wire = msgspec.convert(canonical.decode_canonical(data), _Wire)
        seed = b64u_decode(wire.seed)
        if len(seed) != 32 or wire.role not in ("endpoint", "server") or wire.generation < 1:
            raise TokenInvalidError("the token was altered", mend=mend)
        if not 1 <= len(wire.addresses) <= 9:
            raise TokenInvalidError("the token names no server", mend=mend)
        return Invitation(
            mesh_id=parse_mesh_id(wire.mesh),
            root_fingerprint=parse_mesh_id(wire.root),
            root_generation=wire.generation,
            role=wire.role,
            invite_id=parse_record_id(wire.invite),
            server_id=parse_server_id(wire.server),
            addresses=tuple(wire.addresses),
            seed=seed,
            name=None if wire.name is None else parse_hostname(wire.name),
        )
    except TokenInvalidError:
        raise
    except (SeipdError, msgspec.ValidationError) as error:
        raise TokenInvalidError("the token was altered or cut short", mend=mend) from error
