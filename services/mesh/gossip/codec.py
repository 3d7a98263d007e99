r"""The three datagrams of gossip: HELLO and HELLO_ACK are signed, everything else is in a BOX.

All numbers are big endian. Every datagram begins with ``s g``, the version (1) and its type.

    HELLO (176 bytes)
     0       2   3   4          8          40            72            104        112        176
     +-------+---+---+----------+----------+-------------+-------------+----------+----------+
     | "sg"  | 1 |01 | sender's | sender's | receiver's  | sender's    | sender's | Ed25519  |
     |       |   |   | index    | identity | identity    | ephemeral   | time, ms | signature|
     +-------+---+---+----------+----------+-------------+-------------+----------+----------+
     signed: "seipd/gossip-hello/v1\0" || mesh id (32) || bytes 0 to 111

    HELLO_ACK (148 bytes: never longer than the HELLO, so that it amplifies nothing)
     0       2   3   4          8          12         44            76         84         148
     +-------+---+---+----------+----------+----------+-------------+----------+----------+
     | "sg"  | 1 |02 | receiver's| sender's| sender's | sender's    | sender's | Ed25519  |
     |       |   |   | index    | index    | identity | ephemeral   | time, ms | signature|
     +-------+---+---+----------+----------+----------+-------------+----------+----------+
     signed: "seipd/gossip-hello-ack/v1\0" || mesh id (32) || SHA-256 of the HELLO || bytes 0 to 83

    BOX (32 to 1,200 bytes)
     0       2   3   4           8          16
     +-------+---+---+-----------+----------+----------------------------------+
     | "sg"  | 1 |03 | receiver's| counter  | XChaCha20-Poly1305 of a message, |
     |       |   |   | index     |          | bytes 0 to 15 authenticated      |
     +-------+---+---+-----------+----------+----------------------------------+

An index is chosen by the one who receives under it; it names a session and is no secret.
"""

from __future__ import annotations

import hashlib
import struct
from typing import Final

import msgspec

from services.kernel.errors import WireError

MAX_DATAGRAM_BYTES: Final = 1200
TAG_BYTES: Final = 16
BOX_HEADER_BYTES: Final = 16
MAX_PLAINTEXT_BYTES: Final = MAX_DATAGRAM_BYTES - BOX_HEADER_BYTES - TAG_BYTES

_MAGIC: Final = b"sg\x01"
_HELLO: Final = struct.Struct("!4sI32s32s32sQ64s")
_ACK: Final = struct.Struct("!4sII32s32sQ64s")
_BOX: Final = struct.Struct("!4sIQ")
_HELLO_TYPE: Final = _MAGIC + b"\x01"
_ACK_TYPE: Final = _MAGIC + b"\x02"
_BOX_TYPE: Final = _MAGIC + b"\x03"
_SIGNATURE_BYTES: Final = 64
_HELLO_PURPOSE: Final = b"seipd/gossip-hello/v1\0"
_ACK_PURPOSE: Final = b"seipd/gossip-hello-ack/v1\0"

HELLO_BYTES: Final = _HELLO.size
ACK_BYTES: Final = _ACK.size


class Hello(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Who wants a session with whom."""

    sender_index: int
    sender: bytes
    receiver: bytes
    ephemeral: bytes
    time_ms: int
    signature: bytes = bytes(_SIGNATURE_BYTES)


class HelloAck(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The answer to one HELLO."""

    receiver_index: int
    sender_index: int
    sender: bytes
    ephemeral: bytes
    time_ms: int
    signature: bytes = bytes(_SIGNATURE_BYTES)


class Box(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A message that only the two ends of a session can read."""

    receiver_index: int
    counter: int
    ciphertext: bytes

    @property
    def header(self) -> bytes:
        """The bytes that are authenticated beside the message."""
        return box_header(self.receiver_index, self.counter)


Packet = Hello | HelloAck | Box


def encode_hello(hello: Hello) -> bytes:
    """Return the datagram of a HELLO."""
    return _HELLO.pack(
        _HELLO_TYPE,
        hello.sender_index,
        hello.sender,
        hello.receiver,
        hello.ephemeral,
        hello.time_ms,
        hello.signature,
    )


def encode_ack(ack: HelloAck) -> bytes:
    """Return the datagram of a HELLO_ACK."""
    return _ACK.pack(
        _ACK_TYPE,
        ack.receiver_index,
        ack.sender_index,
        ack.sender,
        ack.ephemeral,
        ack.time_ms,
        ack.signature,
    )


def box_header(receiver_index: int, counter: int) -> bytes:
    """Return the first 16 bytes of a BOX."""
    return _BOX.pack(_BOX_TYPE, receiver_index, counter)


def hello_signed_bytes(hello: Hello, mesh_id: bytes) -> bytes:
    """Return what the sender of a HELLO signs."""
    return _HELLO_PURPOSE + mesh_id + encode_hello(hello)[:-_SIGNATURE_BYTES]


def ack_signed_bytes(ack: HelloAck, mesh_id: bytes, hello_datagram: bytes) -> bytes:
    """Return what the sender of a HELLO_ACK signs; the whole HELLO is under it."""
    digest = hashlib.sha256(hello_datagram).digest()
    return _ACK_PURPOSE + mesh_id + digest + encode_ack(ack)[:-_SIGNATURE_BYTES]


def decode(data: bytes) -> Packet:
    """Parse a datagram.

    Raises:
        WireError: anything that is none of the three.
    """
    if len(data) > MAX_DATAGRAM_BYTES:
        raise WireError(f"a datagram has at most {MAX_DATAGRAM_BYTES} bytes", code="too_large")
    match data[:4]:
        case b"sg\x01\x03" if len(data) >= BOX_HEADER_BYTES + TAG_BYTES:  # by far the most
            _, receiver_index, counter = _BOX.unpack_from(data)
            return Box(
                receiver_index=receiver_index,
                counter=counter,
                ciphertext=data[BOX_HEADER_BYTES:],
            )
        case b"sg\x01\x01" if len(data) == HELLO_BYTES:
            return _decode_hello(data)
        case b"sg\x01\x02" if len(data) == ACK_BYTES:
            return _decode_ack(data)
        case _:
            raise WireError("not a datagram of this protocol")


def _decode_hello(data: bytes) -> Hello:
    _, sender_index, sender, receiver, ephemeral, time_ms, signature = _HELLO.unpack(data)
    return Hello(
        sender_index=sender_index,
        sender=sender,
        receiver=receiver,
        ephemeral=ephemeral,
        time_ms=time_ms,
        signature=signature,
    )


def _decode_ack(data: bytes) -> HelloAck:
    _, receiver_index, sender_index, sender, ephemeral, time_ms, signature = _ACK.unpack(data)
    return HelloAck(
        receiver_index=receiver_index,
        sender_index=sender_index,
        sender=sender,
        ephemeral=ephemeral,
        time_ms=time_ms,
        signature=signature,
    )
