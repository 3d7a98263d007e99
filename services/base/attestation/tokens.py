r"""A token of attestation: one server's signed word that it verified another's quote. Pure.

    {"expires_ms", "measurement", "nonce", "platform", "server_key", "signature", "verified_ms",
     "verifier_key"}
    signed: "seipd/attestation-token/v1\0" || mesh id (32) || canonical JSON without the signature

It is good for five minutes and is hearsay: it tells what a third server saw and never stands for a
quote that one verified oneself.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec

from services.base.attestation.binding import NONCE_BYTES
from services.base.attestation.verified import Platform  # noqa: TC001 (msgspec reads it)
from services.base.crypto.signatures import verify_or_raise
from services.kernel import canonical
from services.kernel.errors import ForbiddenError, InputError, WireError
from services.kernel.ids import SIGNATURE_BYTES, b64u_decode, b64u_encode, parse_key

if TYPE_CHECKING:
    from collections.abc import Set

    from services.base.crypto.signatures import Signer

TOKEN_FRESH_MS: Final = 300_000
MAX_TOKEN_BYTES: Final = 1024
MAX_AHEAD_MS: Final = 10_000

_PURPOSE: Final = b"seipd/attestation-token/v1\0"
_DIGEST_BYTES: Final = 32
_Time = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]


class TokenRefusal(StrEnum):
    """The codes of a token that is not believed."""

    EXPIRED = "token_expired"
    FROM_THE_FUTURE = "token_from_the_future"
    OTHER_SERVER = "token_other_server"
    OTHER_MEASUREMENT = "token_other_measurement"
    WRONG_NONCE = "token_wrong_nonce"
    UNKNOWN_VERIFIER = "token_unknown_verifier"


class TokenRefusedError(ForbiddenError):
    """A well-formed token that does not say what it should."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """What one server saw of another."""

    server_key: bytes
    verifier_key: bytes
    platform: Platform
    measurement: bytes
    nonce: bytes
    verified_ms: int
    expires_ms: int


class _Wire(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    server_key: str
    verifier_key: str
    platform: Platform
    measurement: str
    nonce: str
    verified_ms: _Time
    expires_ms: _Time
    signature: str


def sign_token(
    signer: Signer,
    mesh_id: bytes,
    *,
    server_key: bytes,
    platform: Platform,
    measurement: bytes,
    nonce: bytes,
    now_ms: int,
) -> bytes:
    """Return a token that says so for the next five minutes."""
    value = {
        "server_key": b64u_encode(server_key),
        "verifier_key": b64u_encode(signer.public_key),
        "platform": platform.value,
        "measurement": b64u_encode(measurement),
        "nonce": b64u_encode(nonce),
        "verified_ms": now_ms,
        "expires_ms": now_ms + TOKEN_FRESH_MS,
    }
    signature = signer.sign(_signed(value, mesh_id))
    return canonical.encode(value | {"signature": b64u_encode(signature)})


def open_token(data: bytes, mesh_id: bytes) -> Token:
    """Parse a token and check its signature.

    Raises:
        WireError: no token.
        BadSignatureError: ``sig_invalid``.
    """
    if len(data) > MAX_TOKEN_BYTES:
        raise WireError(f"a token of {len(data)} bytes")
    value: Any = canonical.decode_canonical(data)
    try:
        wire = msgspec.convert(value, _Wire)
        token = Token(
            server_key=parse_key(wire.server_key),
            verifier_key=parse_key(wire.verifier_key),
            platform=wire.platform,
            measurement=_exactly(_DIGEST_BYTES, wire.measurement),
            nonce=_exactly(NONCE_BYTES, wire.nonce),
            verified_ms=wire.verified_ms,
            expires_ms=wire.expires_ms,
        )
        signature = _exactly(SIGNATURE_BYTES, wire.signature)
    except (msgspec.ValidationError, InputError) as error:
        raise WireError(f"no token: {error}") from error
    if token.expires_ms != token.verified_ms + TOKEN_FRESH_MS:
        raise WireError("a token is good for five minutes")
    value.pop("signature")
    signed = _signed(value, mesh_id)
    verify_or_raise(token.verifier_key, signed, signature, what="an attestation token")
    return token


def check_token(
    token: Token,
    *,
    server_key: bytes,
    measurement: bytes,
    nonce: bytes,
    verifiers: Set[bytes],
    now_ms: int,
) -> None:
    """Check that a token speaks of this server, this release and this nonce, and does so now.

    Raises:
        TokenRefusedError: with a code of ``TokenRefusal``.
    """
    if token.verifier_key not in verifiers or token.verifier_key == token.server_key:
        raise _refused(TokenRefusal.UNKNOWN_VERIFIER, "the token is by none that may vouch")
    if token.server_key != server_key:
        raise _refused(TokenRefusal.OTHER_SERVER, "the token speaks of another server")
    if not hmac.compare_digest(token.nonce, nonce):
        raise _refused(TokenRefusal.WRONG_NONCE, "the token has another nonce")
    if token.measurement != measurement:
        raise _refused(TokenRefusal.OTHER_MEASUREMENT, "the token speaks of another release")
    if now_ms >= token.expires_ms:
        raise _refused(TokenRefusal.EXPIRED, "the token is over five minutes old")
    if token.verified_ms > now_ms + MAX_AHEAD_MS:
        raise _refused(TokenRefusal.FROM_THE_FUTURE, "the token was signed after now")


def _signed(value: dict[str, Any], mesh_id: bytes) -> bytes:
    return _PURPOSE + mesh_id + canonical.encode(value)


def _exactly(count: int, text: str) -> bytes:
    data = b64u_decode(text)
    if len(data) != count:
        raise InputError(f"{len(data)} bytes, not {count}")
    return data


def _refused(why: TokenRefusal, what: str) -> TokenRefusedError:
    return TokenRefusedError(what, code=why.value)
