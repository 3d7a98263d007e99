"""Challenges and session tokens: pure, with the time as an argument.

A challenge is stateless: 8 bytes of milliseconds, 16 random ones, and an HMAC over them, the server
and the mesh. Its answer is a signature with the purpose ``seipd/auth/v1``. A session token is a JWT
signed with EdDSA, good for an hour at the server that issued it and nowhere else.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jwt
import orjson

from services.kernel.errors import InputError, UnauthenticatedError
from services.kernel.ids import MeshId, ServerId, b64u_decode, b64u_encode, parse_key

if TYPE_CHECKING:
    from services.base.crypto.signatures import SigningKey

PURPOSE_AUTH = b"seipd/auth/v1\0"
CHALLENGE_LIFETIME_MS = 60_000
SESSION_LIFETIME_S = 3600
MAX_SKEW_S = 60
MAX_TOKEN_CHARS = 4096
MAX_REMEMBERED = 65_536

_RAW_CHALLENGE_BYTES = 24
_MAC_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """Who holds a token that was accepted."""

    key: bytes
    expires_s: int


def auth_input(mesh_id: MeshId, server_id: ServerId, nonce: bytes) -> bytes:
    """Return what a key signs to prove that it is there."""
    return PURPOSE_AUTH + bytes.fromhex(mesh_id) + server_id.encode() + nonce


class Challenges:
    """Makes challenges without remembering them, and takes each answer once."""

    def __init__(self, *, secret: bytes, mesh_id: MeshId, server_id: ServerId) -> None:
        self._secret = secret
        self._context = bytes.fromhex(mesh_id) + server_id.encode()
        self._used: OrderedDict[bytes, int] = OrderedDict()

    def issue(self, *, now_ms: int, random: bytes) -> bytes:
        """Return a nonce; ``random`` is 16 bytes."""
        raw = now_ms.to_bytes(8, "big") + random
        return raw + self._mac(raw)

    def check(self, nonce: bytes, *, now_ms: int) -> None:
        """Check that a nonce is ours and not older than a minute; it stays as it is.

        Raises:
            UnauthenticatedError: ``bad_challenge`` or ``challenge_expired``.
        """
        raw, mac = nonce[:_RAW_CHALLENGE_BYTES], nonce[_RAW_CHALLENGE_BYTES:]
        if len(mac) != _MAC_BYTES or not hmac.compare_digest(mac, self._mac(raw)):
            raise UnauthenticatedError("the challenge is not ours", code="bad_challenge")
        issued_ms = int.from_bytes(raw[:8], "big")
        if not 0 <= now_ms - issued_ms <= CHALLENGE_LIFETIME_MS:
            raise UnauthenticatedError(
                "the challenge is too old", code="challenge_expired", mend="ask for a new one"
            )

    def take(self, nonce: bytes, *, now_ms: int) -> None:
        """Accept a nonce of ours once, within a minute.

        Raises:
            UnauthenticatedError: ``bad_challenge``, ``challenge_expired`` or ``replay``.
        """
        self.check(nonce, now_ms=now_ms)
        raw = nonce[:_RAW_CHALLENGE_BYTES]
        issued_ms = int.from_bytes(raw[:8], "big")
        self._forget_old(now_ms)
        if raw in self._used or len(self._used) >= MAX_REMEMBERED:
            raise UnauthenticatedError("the challenge was answered already", code="replay")
        self._used[raw] = issued_ms

    def _forget_old(self, now_ms: int) -> None:
        while self._used:
            raw, issued_ms = next(iter(self._used.items()))
            if now_ms - issued_ms <= CHALLENGE_LIFETIME_MS:
                return
            del self._used[raw]

    def _mac(self, raw: bytes) -> bytes:
        return hmac.new(self._secret, self._context + raw, hashlib.sha256).digest()


class Tokens:
    """Issues and checks this server's session tokens."""

    def __init__(self, *, key: SigningKey, server_id: ServerId, mesh_id: MeshId) -> None:
        self._key = key
        self._server_id = server_id
        self._mesh_id = mesh_id

    def issue(self, holder: bytes, *, now_s: int) -> str:
        """Return a token for a key that proved itself."""
        header = orjson.dumps({"alg": "EdDSA", "typ": "JWT", "kid": self._server_id})
        claims = orjson.dumps(
            {
                "iss": self._server_id,
                "aud": self._mesh_id,
                "sub": b64u_encode(holder),
                "iat": now_s,
                "exp": now_s + SESSION_LIFETIME_S,
            }
        )
        signed = f"{b64u_encode(header)}.{b64u_encode(claims)}"
        return f"{signed}.{b64u_encode(self._key.sign(signed.encode()))}"

    def check(self, token: str, *, now_s: int, verify: Any) -> Session:  # noqa: ANN401
        """Check a token.

        Raises:
            UnauthenticatedError: ``token_invalid``: whatever is wrong with it.
        """
        try:
            return self._check(token, now_s, verify)
        except (jwt.PyJWTError, InputError, ValueError) as error:
            raise UnauthenticatedError(
                "the session token is not valid",
                code="token_invalid",
                mend="authenticate again at this server",
            ) from error

    def _check(self, token: str, now_s: int, verify: Any) -> Session:  # noqa: ANN401
        if len(token) > MAX_TOKEN_CHARS or token.count(".") != 2:
            raise ValueError("not a token")
        header = jwt.get_unverified_header(token)
        if header != {"alg": "EdDSA", "typ": "JWT", "kid": self._server_id}:
            raise ValueError("another header than ours")
        signed, _, signature = token.rpartition(".")
        if not verify(self._key.public_key, signed.encode("ascii"), b64u_decode(signature)):
            raise ValueError("signature")
        claims = orjson.loads(b64u_decode(signed.partition(".")[2]))
        if not isinstance(claims, dict) or claims.keys() != {"iss", "aud", "sub", "iat", "exp"}:
            raise ValueError("claims")
        issued, expires = claims["iat"], claims["exp"]
        if type(issued) is not int or type(expires) is not int:
            raise ValueError("times must be integers")
        if claims["iss"] != self._server_id or claims["aud"] != self._mesh_id:
            raise ValueError("another server's token")
        if issued > now_s + MAX_SKEW_S or expires <= now_s or expires - issued > SESSION_LIFETIME_S:
            raise ValueError("out of its time")
        return Session(key=parse_key(claims["sub"]), expires_s=expires)
