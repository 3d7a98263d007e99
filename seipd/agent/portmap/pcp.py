"""The Port Control Protocol's MAP (RFC 6887): bytes ↔ messages. Pure.

request   2 | op 1  | 0 0            | lifetime(4) | own address(16)    then what is mapped
answer    2 | 129   | 0 | result     | lifetime(4) | epoch(4) | 0(12)   then what is mapped
mapped    nonce(12) | protocol | 0(3) | inside port(2) | outside port(2) | outside address(16)
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Final

from services.kernel.errors import WireError

VERSION: Final = 2
NONCE_BYTES: Final = 12
MAX_BYTES: Final = 1100
UNSUPPORTED_VERSION: Final = 1
_MAP: Final = 1
_ANSWER: Final = 128
_UDP: Final = 17
_REQUEST: Final = struct.Struct(">BBHI16s")
_HEAD: Final = struct.Struct(">BBBBII12x")
_BODY: Final = struct.Struct(">12sB3xHH16s")
_NO_ADDRESS: Final = IPv6Address("::ffff:0.0.0.0")

REASONS: Final = {
    1: "it does not speak this version of PCP",
    2: "its owner does not allow it",
    3: "it found the question malformed",
    4: "it does not know how",
    5: "it does not know an option",
    6: "it found an option malformed",
    7: "its own network fails",
    8: "it has no port left",
    9: "it maps no UDP",
    10: "this machine has too many ports of it",
    11: "it can't give what was asked for",
    12: "another router stands between",
    13: "too many peers",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """An answer; what is mapped is meaningless unless the result is 0."""

    result: int
    epoch_s: int
    lifetime_s: int
    nonce: bytes
    inside_port: int
    outside_port: int
    host: str


def map_request(
    *, own: str, nonce: bytes, inside_port: int, outside_port: int, lifetime_s: int
) -> bytes:
    """Return the wish for a UDP port; a lifetime of 0 gives it back."""
    head = _REQUEST.pack(VERSION, _MAP, 0, lifetime_s, _wrapped(own))
    return head + _BODY.pack(nonce, _UDP, inside_port, outside_port, _NO_ADDRESS.packed)


def decode(data: bytes) -> Granted:
    """Return the answer to ``map_request``.

    A router that speaks only NAT-PMP answers in its own way that it does not know this version:
    that is a result, too.

    Raises:
        WireError: it is none.
    """
    if data[:2] == bytes((0, _ANSWER + _MAP)) and len(data) >= 8:
        return _refused(int.from_bytes(data[2:4]) or UNSUPPORTED_VERSION)
    if len(data) < _HEAD.size or len(data) > MAX_BYTES or len(data) % 4:
        raise WireError("PCP: wrong length")
    version, code, _, result, lifetime_s, epoch_s = _HEAD.unpack_from(data)
    if code != _ANSWER + _MAP:
        raise WireError("PCP: not the answer to this question")
    if result == UNSUPPORTED_VERSION:
        return _refused(result)
    if version != VERSION or len(data) < _HEAD.size + _BODY.size:
        raise WireError("PCP: not this version, or too short")
    nonce, protocol, inside, outside, address = _BODY.unpack_from(data, _HEAD.size)
    if protocol != _UDP:
        raise WireError("PCP: not for UDP")
    return Granted(
        result=result,
        epoch_s=epoch_s,
        lifetime_s=lifetime_s,
        nonce=nonce,
        inside_port=inside,
        outside_port=outside,
        host=_unwrapped(address),
    )


def _refused(result: int) -> Granted:
    return Granted(
        result=result,
        epoch_s=0,
        lifetime_s=0,
        nonce=bytes(NONCE_BYTES),
        inside_port=0,
        outside_port=0,
        host="::",
    )


def _wrapped(host: str) -> bytes:
    return IPv6Address(host if ":" in host else f"::ffff:{host}").packed


def _unwrapped(packed: bytes) -> str:
    address = IPv6Address(packed)
    return str(address.ipv4_mapped or address)
