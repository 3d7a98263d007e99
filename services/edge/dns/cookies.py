r"""DNS cookies: who has one got it at the address that it asks from. Pure.

    server cookie: version 1 | reserved 0 0 0 | seconds 4 |
                   SipHash-2-4(client cookie | version, reserved, seconds | address, secret) 8

RFC 7873 and RFC 9018, section 4. A secret is used for a day; what was made with the one before
still counts for as long as a cookie does.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Final

import nacl.encoding
import nacl.hash

if TYPE_CHECKING:
    from collections.abc import Callable

SECRET_BYTES: Final = 16
LIFETIME_S: Final = 3600
RENEW_AFTER_S: Final = 1800
MAX_AHEAD_S: Final = 300
SECRET_LIFETIME_S: Final = 86_400
_VERSION: Final = b"\1\0\0\0"
_SERVER_COOKIE_BYTES: Final = 16
_WRAP: Final = 1 << 32


class Cookies:
    """Makes and checks cookies."""

    def __init__(self, random_bytes: Callable[[int], bytes], *, now_s: int) -> None:
        self._random_bytes = random_bytes
        self._secret = random_bytes(SECRET_BYTES)
        self._before = self._secret
        self._made_s = now_s

    def is_good(self, client: bytes, server: bytes, address: bytes, *, now_s: int) -> bool:
        """Say whether this server gave the cookie to this very address, not long ago."""
        if len(server) != _SERVER_COOKIE_BYTES or server[:1] != _VERSION[:1]:
            return False
        if not -MAX_AHEAD_S <= _age_s(server, now_s) <= LIFETIME_S:
            return False
        self._roll(now_s)
        good = [
            hmac.compare_digest(siphash(client + server[:8] + address, secret), server[8:])
            for secret in (self._secret, self._before)
        ]
        return any(good)

    def renewed(self, client: bytes, server: bytes, address: bytes, *, now_s: int) -> bytes:
        """Return the cookie to send: the same if it is good and young, else a new one."""
        if self.is_good(client, server, address, now_s=now_s):
            age_s = _age_s(server, now_s)
            if age_s <= RENEW_AFTER_S:
                return server
        self._roll(now_s)
        head = _VERSION + (now_s % _WRAP).to_bytes(4, "big")
        return head + siphash(client + head + address, self._secret)

    def _roll(self, now_s: int) -> None:
        if abs(now_s - self._made_s) >= SECRET_LIFETIME_S:
            self._before, self._secret = self._secret, self._random_bytes(SECRET_BYTES)
            self._made_s = now_s


def siphash(message: bytes, secret: bytes) -> bytes:
    """Return SipHash-2-4 of a message, 8 octets."""
    return nacl.hash.siphash24(message, secret, nacl.encoding.RawEncoder)


def _age_s(server: bytes, now_s: int) -> int:
    """Return how old a cookie is, by the serial arithmetic of RFC 1982."""
    age_s = (now_s - int.from_bytes(server[4:8], "big")) % _WRAP
    return age_s - _WRAP if age_s >= _WRAP // 2 else age_s
