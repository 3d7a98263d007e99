"""The data of DNS records, from values and from what an operator writes. Pure.

    A, AAAA  an address        CNAME  a name                MX   preference name
    TXT      any text          CAA    flags tag value       SRV  priority weight port name

Names in data are written in full; a last dot makes no difference.
"""

from __future__ import annotations

from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Final

from services.kernel.dnsnames import name_of
from services.kernel.errors import InputError
from services.kernel.ids import parse_decimal

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_STRING_BYTES: Final = 255


def text_data(text: str) -> bytes:
    """Return a text as the strings of a TXT record, cut where one is full."""
    data = text.encode("utf-8")
    cut = [data[at : at + MAX_STRING_BYTES] for at in range(0, len(data), MAX_STRING_BYTES)]
    return b"".join(bytes([len(part)]) + part for part in cut or [b""])


def caa_data(flags: int, tag: str, value: str) -> bytes:
    """Return the data of a CAA record (RFC 8659)."""
    return bytes([flags, len(tag)]) + tag.encode("ascii") + value.encode("ascii")


def parse_data(rtype: str, text: str) -> bytes:
    """Return the data of a record as an operator writes it.

    Raises:
        InputError: no type that may be set, or nothing of that type.
    """
    parse = _PARSERS.get(rtype)
    if parse is None:
        raise InputError(f"a record's type is one of {', '.join(_PARSERS)}", code="bad_type")
    try:
        return parse(text)
    except (AddressValueError, InputError, ValueError) as error:
        raise InputError(
            f"{text[:64]!r} is no {rtype} record", code="bad_record", mend=_HINTS[rtype]
        ) from error


def _a(text: str) -> bytes:
    return IPv4Address(text).packed


def _aaaa(text: str) -> bytes:
    if "%" in text:
        raise InputError("a zone means nothing elsewhere")
    return IPv6Address(text).packed


def _cname(text: str) -> bytes:
    if not text.removesuffix("."):
        raise InputError("the root is no target")
    return name_of(text)


def _mx(text: str) -> bytes:
    preference, target = text.split()
    return _number(preference, 2) + name_of(target)


def _srv(text: str) -> bytes:
    *numbers, target = text.split()
    if len(numbers) != 3:
        raise InputError("three numbers and a name")
    return b"".join(_number(one, 2) for one in numbers) + name_of(target)


def _caa(text: str) -> bytes:
    flags, tag, value = text.split(None, 2)
    value = value.removeprefix('"').removesuffix('"')
    if not (tag.isascii() and tag.isalnum() and tag == tag.lower() and value.isascii()):
        raise InputError("a tag is of small letters and digits")
    _number(flags, 1)
    return caa_data(int(flags), tag, value)


def _txt(text: str) -> bytes:
    if not text.isprintable():
        raise InputError("a text has no control characters")
    return text_data(text)


def _number(text: str, size: int) -> bytes:
    number = parse_decimal(text)
    if number >= 1 << 8 * size:
        raise InputError("too large a number")
    return number.to_bytes(size, "big")


_PARSERS: Final[dict[str, Callable[[str], bytes]]] = {
    "A": _a,
    "AAAA": _aaaa,
    "CAA": _caa,
    "CNAME": _cname,
    "MX": _mx,
    "SRV": _srv,
    "TXT": _txt,
}
_HINTS: Final = {
    "A": "write an IPv4 address: 192.0.2.7",
    "AAAA": "write an IPv6 address: 2001:db8::7",
    "CAA": 'write flags, tag and value: 0 issue "letsencrypt.org"',
    "CNAME": "write a name in full: www.example.org",
    "MX": "write preference and name: 10 mail.example.org",
    "SRV": "write priority, weight, port and name: 0 5 5060 sip.example.org",
    "TXT": "write printable text",
}
