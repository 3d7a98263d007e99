"""Where a server's address is to be written down, and by whom. Pure.

Two ways: an update of RFC 2136, signed with a TSIG key, at a name server; or Namecheap's call over
HTTPS. The credential is never a setting: it is a secret for servers, by its name.
"""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as Base64Error
from dataclasses import dataclass
from enum import Enum
from typing import Final

from services.kernel.dnsnames import is_below, labels_of, name_of
from services.kernel.errors import InputError
from services.kernel.ids import parse_decimal

DNS_PORT: Final = 53
ALGORITHMS: Final = ("hmac-sha256", "hmac-sha384", "hmac-sha512")
DEFAULT_SECRET: Final = "ddns"  # noqa: S105 (the name of one)
TTL_S: Final = 60
MIN_KEY_BYTES: Final = 16


class Way(Enum):
    """How the address is told."""

    RFC2136 = "rfc2136"
    NAMECHEAP = "namecheap"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What is to be updated where."""

    way: Way
    name: str
    zone: str
    server: str = ""
    port: int = DNS_PORT
    key_name: str = ""
    algorithm: str = ALGORITHMS[0]
    secret: str = DEFAULT_SECRET

    @property
    def host(self) -> str:
        """The part of the name before the zone; ``@`` is the zone itself."""
        return self.name.removesuffix(self.zone).removesuffix(".") or "@"


def parse_target(
    way: str, *, name: str, zone: str, server: str, key: str, secret: str
) -> Target | None:
    """Return what the settings say; None where there is nothing to be updated.

    Args:
        way: ``rfc2136``, ``namecheap`` or nothing.
        name: the name that gets the address.
        zone: where it lies; without one, what is above the name.
        server: ``HOST`` or ``HOST:PORT``, ``[ADDR]:PORT`` for IPv6.
        key: the TSIG key's name, or ``ALGORITHM:NAME``.
        secret: under which name the credential is kept.

    Raises:
        InputError: ``bad_ddns``.
    """
    if not way:
        return None
    if way not in {one.value for one in Way}:
        raise _bad(f"is {' or '.join(one.value for one in Way)}, not {way[:20]!r}")
    name, zone = _checked_name(name), zone.lower().removesuffix(".")
    zone = zone or name.partition(".")[2]
    if not zone or not is_below(name_of(name), name_of(zone)):
        raise _bad(f"{name[:64]} does not lie in the zone {zone[:64]!r}")
    if way == Way.NAMECHEAP.value:
        if server or key:
            raise _bad("namecheap has no server and no key, a password alone")
        return Target(way=Way.NAMECHEAP, name=name, zone=zone, secret=secret or DEFAULT_SECRET)
    algorithm, colon, key_name = key.lower().rpartition(":")
    if not server or not key_name:
        raise _bad("rfc2136 needs a server and the name of a key")
    if colon and algorithm not in ALGORITHMS:
        raise _bad(f"the algorithm of a key is {', '.join(ALGORITHMS)}")
    host, port = _place(server)
    return Target(
        way=Way.RFC2136,
        name=name,
        zone=zone,
        server=host,
        port=port,
        key_name=_checked_name(key_name),
        algorithm=algorithm or ALGORITHMS[0],
        secret=secret or DEFAULT_SECRET,
    )


def tsig_key(value: bytes) -> bytes:
    """Return a TSIG key, which people keep in base64.

    Raises:
        InputError: ``bad_ddns_secret``.
    """
    try:
        key = b64decode(value.strip(), validate=True)
    except (Base64Error, ValueError):
        key = b""
    if len(key) < MIN_KEY_BYTES:
        raise InputError(
            f"the secret is no TSIG key: base64 of {MIN_KEY_BYTES} bytes or more",
            code="bad_ddns_secret",
            mend="seipd secret set, with what stands at the name server after secret",
        )
    return key


def _checked_name(text: str) -> str:
    name = text.lower().removesuffix(".")
    try:
        if labels_of(name_of(name)):
            return name
    except InputError as error:
        raise _bad(str(error)) from error
    raise _bad("needs a name")


def _place(text: str) -> tuple[str, int]:
    """Return host and port."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        port = rest.removeprefix(":")
        if not bracket or (rest and not port):
            raise _bad(f"{text[:64]!r} is no server")
    elif text.count(":") > 1:
        host, port = text, ""
    else:
        host, _, port = text.partition(":")
    try:
        number = parse_decimal(port) if port else DNS_PORT
    except InputError as error:
        raise _bad(f"{text[:64]!r} is no server") from error
    if not host or not 0 < number < 1 << 16:
        raise _bad(f"{text[:64]!r} is no server")
    return host, number


def _bad(what: str) -> InputError:
    return InputError(what, code="bad_ddns")
