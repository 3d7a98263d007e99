"""STUN messages as bytes (RFC 8489, RFC 5780, and what is left of RFC 3489). Pure.

     0                   1                   2                   3
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |0 0|  method and class         |   bytes after the 20 here     |
    |                     magic cookie 2112A442                     |
    |                  transaction id, 96 bits                      |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |         attribute             |   bytes of its value          |
    |         value, padded to a multiple of four                   |

In RFC 3489 the cookie was a part of the transaction id: ``transaction`` is all 16 bytes here.
"""

from __future__ import annotations

import hmac
import zlib
from dataclasses import dataclass
from enum import IntEnum
from hashlib import sha1
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Final

from services.kernel.errors import WireError

if TYPE_CHECKING:
    from collections.abc import Iterable

COOKIE: Final = b"\x21\x12\xa4\x42"
HEADER_BYTES: Final = 20
MAX_MESSAGE_BYTES: Final = 1600
"""Of a request that measures which sizes get through (RFC 5780 section 4.5); ours are smaller."""
BINDING_REQUEST: Final = 0x0001
BINDING_SUCCESS: Final = 0x0101
BINDING_ERROR: Final = 0x0111
FIRST_OPTIONAL: Final = 0x8000
"""Attributes from here on may be passed over by who does not know them."""

_FINGERPRINT_XOR: Final = 0x5354554E
_FINGERPRINT_BYTES: Final = 8
_INTEGRITY_BYTES: Final = 24
_FAMILY4: Final = 1
_FAMILY6: Final = 2

Address = tuple[str, int]
"""A host and a port."""


class Attribute(IntEnum):
    """The attributes that are known here, by their numbers."""

    MAPPED_ADDRESS = 0x0001
    CHANGE_REQUEST = 0x0003
    SOURCE_ADDRESS = 0x0004
    CHANGED_ADDRESS = 0x0005
    USERNAME = 0x0006
    MESSAGE_INTEGRITY = 0x0008
    ERROR_CODE = 0x0009
    UNKNOWN_ATTRIBUTES = 0x000A
    REALM = 0x0014
    NONCE = 0x0015
    MESSAGE_INTEGRITY_SHA256 = 0x001C
    PASSWORD_ALGORITHM = 0x001D
    USERHASH = 0x001E
    XOR_MAPPED_ADDRESS = 0x0020
    PADDING = 0x0026
    RESPONSE_PORT = 0x0027
    SOFTWARE = 0x8022
    FINGERPRINT = 0x8028
    RESPONSE_ORIGIN = 0x802B
    OTHER_ADDRESS = 0x802C


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message, as it came or as it is to be sent."""

    kind: int
    """Method and class: the first two bytes."""
    transaction: bytes
    """All 16 bytes of it; see the module."""
    attributes: tuple[tuple[int, bytes], ...] = ()
    has_fingerprint: bool = False

    @property
    def is_classic(self) -> bool:
        """Whether it is of RFC 3489, which knew no cookie."""
        return self.transaction[:4] != COOKIE

    def value(self, attribute: Attribute) -> bytes | None:
        """Return the first value of an attribute: RFC 8489 section 14 has the others ignored."""
        return next((value for kind, value in self.attributes if kind == attribute), None)


def parse(data: bytes) -> Message:
    """Read one datagram.

    Raises:
        WireError: no STUN message, damaged, or a fingerprint that is wrong or not at the end.
    """
    if not HEADER_BYTES <= len(data) <= MAX_MESSAGE_BYTES:
        raise WireError(f"{len(data)} bytes are no STUN message")
    kind, size_bytes = int.from_bytes(data[:2], "big"), int.from_bytes(data[2:4], "big")
    if kind >> 14 or size_bytes % 4 or size_bytes != len(data) - HEADER_BYTES:
        raise WireError("a STUN header that does not fit its message")
    transaction = data[4:HEADER_BYTES]
    if _is_damaged_cookie(transaction[:4]):
        raise WireError("a damaged cookie")
    attributes = tuple(_attributes(data))
    has_fingerprint = _check_fingerprint(data, attributes)
    return Message(
        kind=kind,
        transaction=transaction,
        attributes=attributes[:-1] if has_fingerprint else attributes,
        has_fingerprint=has_fingerprint,
    )


def encode(message: Message) -> bytes:
    """Return a message's bytes, with its fingerprint at the end if it has one."""
    body = b"".join(attribute(kind, value) for kind, value in message.attributes)
    size_bytes = len(body) + (_FINGERPRINT_BYTES if message.has_fingerprint else 0)
    data = (
        message.kind.to_bytes(2, "big") + size_bytes.to_bytes(2, "big") + message.transaction + body
    )
    return data + fingerprint(data) if message.has_fingerprint else data


def attribute(kind: int, value: bytes) -> bytes:
    """Return one attribute, padded."""
    head = kind.to_bytes(2, "big") + len(value).to_bytes(2, "big")
    return head + value + bytes(-len(value) % 4)


def fingerprint(data: bytes) -> bytes:
    """Return the attribute that ends a message whose header counts it in already."""
    value = zlib.crc32(data) ^ _FINGERPRINT_XOR
    return b"\x80\x28\x00\x04" + value.to_bytes(4, "big")


def has_integrity(data: bytes, key: bytes) -> bool:
    """Say whether MESSAGE-INTEGRITY was made with this key (RFC 8489 section 14.5).

    Args:
        data: a datagram that ``parse`` takes.
        key: the password, or of long-term credentials the MD5 of name, realm and password.
    """
    offset = HEADER_BYTES
    for kind, value in _attributes(data):
        if kind == Attribute.MESSAGE_INTEGRITY:
            size = (offset + _INTEGRITY_BYTES - HEADER_BYTES).to_bytes(2, "big")
            signed = data[:2] + size + data[4:offset]
            return hmac.compare_digest(hmac.new(key, signed, sha1).digest(), value)
        offset += 4 + len(value) + -len(value) % 4
    return False


def encode_address(address: Address) -> bytes:
    """Return the value of an attribute that names an address.

    Raises:
        WireError: not an IP address.
    """
    host, port = address
    return _framed(_packed(host), port)


def encode_xor_address(address: Address, transaction: bytes) -> bytes:
    """Return the value of XOR-MAPPED-ADDRESS.

    Raises:
        WireError: not an IP address.
    """
    host, port = address
    packed = _packed(host)
    return _framed(_xored(packed, transaction), port ^ 0x2112)


def decode_address(value: bytes) -> Address:
    """Read an address; what stands in the byte before the family is to be ignored.

    Raises:
        WireError: malformed.
    """
    packed, port = _unframed(value)
    return _text(packed), port


def decode_xor_address(value: bytes, transaction: bytes) -> Address:
    """Read XOR-MAPPED-ADDRESS.

    Raises:
        WireError: malformed.
    """
    packed, port = _unframed(value)
    return _text(_xored(packed, transaction)), port ^ 0x2112


def encode_error(code: int, reason: str) -> bytes:
    """Return the value of ERROR-CODE."""
    return bytes((0, 0, code // 100, code % 100)) + reason.encode()


def decode_error(value: bytes) -> int:
    """Return the number in ERROR-CODE.

    Raises:
        WireError: malformed.
    """
    if len(value) < 4 or not 3 <= value[2] & 7 <= 6 or value[3] > 99:
        raise WireError("a malformed error code")
    return (value[2] & 7) * 100 + value[3]


def encode_unknown(attributes: Iterable[int], *, is_classic: bool) -> bytes:
    """Return the value of UNKNOWN-ATTRIBUTES; RFC 3489 wants an even number and says one twice."""
    numbers = list(attributes)
    if is_classic and len(numbers) % 2:
        numbers.append(numbers[-1])
    return b"".join(number.to_bytes(2, "big") for number in numbers)


def _attributes(data: bytes) -> Iterable[tuple[int, bytes]]:
    offset, end = HEADER_BYTES, len(data)
    while offset < end:
        # What is left is a multiple of four, so a head is always whole.
        kind = int.from_bytes(data[offset : offset + 2], "big")
        size_bytes = int.from_bytes(data[offset + 2 : offset + 4], "big")
        offset += 4
        if offset + size_bytes > end:
            raise WireError("an attribute that is longer than its message")
        yield kind, data[offset : offset + size_bytes]
        offset += size_bytes + -size_bytes % 4


def _check_fingerprint(data: bytes, attributes: tuple[tuple[int, bytes], ...]) -> bool:
    if all(kind != Attribute.FINGERPRINT for kind, _ in attributes):
        return False
    if any(kind == Attribute.FINGERPRINT for kind, _ in attributes[:-1]):
        raise WireError("a fingerprint that is not at the end")
    if data[-_FINGERPRINT_BYTES:] != fingerprint(data[:-_FINGERPRINT_BYTES]):
        raise WireError("a wrong fingerprint")
    return True


def _is_damaged_cookie(first: bytes) -> bool:
    """Say whether four bytes were meant to be the cookie: an old client's are random."""
    same_count = sum(one == other for one, other in zip(first, COOKIE, strict=True))
    return same_count == len(COOKIE) - 1 or first in (COOKIE[::-1], bytes(4))


def _packed(host: str) -> bytes:
    try:
        return IPv6Address(host).packed if ":" in host else IPv4Address(host).packed
    except ValueError as error:
        raise WireError(f"{host[:64]!r} is not an IP address") from error


def _text(packed: bytes) -> str:
    return str(IPv4Address(packed) if len(packed) == 4 else IPv6Address(packed))


def _xored(packed: bytes, transaction: bytes) -> bytes:
    mask = transaction[: len(packed)]
    return bytes(one ^ other for one, other in zip(packed, mask, strict=True))


def _framed(packed: bytes, port: int) -> bytes:
    family = _FAMILY4 if len(packed) == 4 else _FAMILY6
    return bytes((0, family)) + port.to_bytes(2, "big") + packed


def _unframed(value: bytes) -> tuple[bytes, int]:
    sizes = {_FAMILY4: 8, _FAMILY6: 20}
    if len(value) < 2 or sizes.get(value[1]) != len(value):
        raise WireError("a malformed address")
    return value[4:], int.from_bytes(value[2:4], "big")
