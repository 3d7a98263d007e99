"""NAT-PMP (RFC 6886): bytes ↔ messages. Pure.

request   0 | op 0                                                     the outside address
          0 | op 1 | 0 0 | inside port | outside port | lifetime       a UDP port
answer    0 | 128  | result(2) | epoch(4) | address(4)
          0 | 129  | result(2) | epoch(4) | inside | outside | lifetime(4)
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final

from services.kernel.errors import WireError

PORT: Final = 5351
VERSION: Final = 0
_ADDRESS: Final = 0
_UDP: Final = 1
_ANSWER: Final = 128
_HEAD: Final = struct.Struct(">BBHI")
_REQUEST: Final = struct.Struct(">BBHHHI")
_GRANT: Final = struct.Struct(">HHI")

REASONS: Final = {
    1: "it does not speak NAT-PMP",
    2: "its owner does not allow it",
    3: "it has no outside address",
    4: "it has no port left",
    5: "it does not know how",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What both answers have."""

    result: int
    epoch_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OutsideAddress(Answer):
    """The router's outside address; meaningless unless the result is 0."""

    host: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted(Answer):
    """A port; meaningless unless the result is 0."""

    inside_port: int
    outside_port: int
    lifetime_s: int


def address_request() -> bytes:
    """Return the question for the outside address."""
    return bytes((VERSION, _ADDRESS))


def map_request(*, inside_port: int, outside_port: int, lifetime_s: int) -> bytes:
    """Return the wish for a UDP port; a lifetime of 0 gives it back."""
    return _REQUEST.pack(VERSION, _UDP, 0, inside_port, outside_port, lifetime_s)


def decode_address(data: bytes) -> OutsideAddress:
    """Return the answer to ``address_request``.

    Raises:
        WireError: it is none.
    """
    result, epoch_s, rest = _answer(data, _ADDRESS, body_bytes=4)
    return OutsideAddress(result=result, epoch_s=epoch_s, host=str(IPv4Address(rest)))


def decode_grant(data: bytes) -> Granted:
    """Return the answer to ``map_request``.

    Raises:
        WireError: it is none.
    """
    result, epoch_s, rest = _answer(data, _UDP, body_bytes=_GRANT.size)
    inside, outside, lifetime_s = _GRANT.unpack(rest)
    return Granted(
        result=result,
        epoch_s=epoch_s,
        inside_port=inside,
        outside_port=outside,
        lifetime_s=lifetime_s,
    )


def _answer(data: bytes, operation: int, *, body_bytes: int) -> tuple[int, int, bytes]:
    if len(data) < _HEAD.size:
        raise WireError("NAT-PMP: too short")
    version, code, result, epoch_s = _HEAD.unpack_from(data)
    if version != VERSION or code != _ANSWER + operation:
        raise WireError("NAT-PMP: not the answer to this question")
    body = data[_HEAD.size :]
    # A refusal may leave out what there is nothing to say of.
    if len(body) != body_bytes and (result == 0 or body):
        raise WireError("NAT-PMP: wrong length")
    return result, epoch_s, body or bytes(body_bytes)
