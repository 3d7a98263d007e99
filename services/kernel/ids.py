"""Identifiers and keys as text: one spelling each, decoded, encoded again and compared."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import uuid
from typing import NewType

from services.kernel.errors import InputError

ServerId = NewType("ServerId", str)
NodeId = NewType("NodeId", str)
MeshId = NewType("MeshId", str)

KEY_BYTES = 32
SIGNATURE_BYTES = 64

_HEX = re.compile(r"[0-9a-f]+\Z")
_SERVER_ID = re.compile(r"server-[0-9a-f]{16}\Z")
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z")
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\Z")
_DECIMAL = re.compile(r"(?:0|[1-9][0-9]{0,15})\Z", re.ASCII)

RESERVED_HOSTNAMES = frozenset(
    {"localhost", "www", "private", "backend", "seip", "ep", *(f"ns{n}" for n in range(1, 10))}
)

# The u-coordinates of small order on Curve25519 (RFC 7748 section 6.1; the list of libsodium).
_LOW_ORDER_POINTS = frozenset(
    bytes.fromhex(text)
    for text in (
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    )
)


def b64u_encode(data: bytes) -> str:
    """Return base64url without padding (RFC 4648 section 5)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def b64u_decode(text: str) -> bytes:
    """Decode base64url without padding, in its only spelling.

    Raises:
        InputError: padding, foreign characters, or bits left over.
    """
    try:
        data = base64.urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
    except (ValueError, binascii.Error) as error:
        raise InputError("not base64url") from error
    if b64u_encode(data) != text:
        raise InputError("base64url in a spelling that is not canonical")
    return data


def parse_key(text: str) -> bytes:
    """Decode a 32-byte public key.

    Raises:
        InputError: ``bad_key``: not 32 bytes of canonical base64url.
    """
    try:
        key = b64u_decode(text)
    except InputError as error:
        raise InputError(f"key: {error}", code="bad_key") from error
    if len(key) != KEY_BYTES:
        raise InputError(f"a key has 32 bytes, this has {len(key)}", code="bad_key")
    return key


def parse_signature(text: str) -> bytes:
    """Decode a 64-byte signature.

    Raises:
        InputError: ``bad_signature``.
    """
    try:
        signature = b64u_decode(text)
    except InputError as error:
        raise InputError(f"signature: {error}", code="bad_signature") from error
    if len(signature) != SIGNATURE_BYTES:
        raise InputError("a signature has 64 bytes", code="bad_signature")
    return signature


def parse_wireguard_key(text: str) -> bytes:
    """Decode an X25519 public key that WireGuard may use.

    Raises:
        InputError: ``bad_key``: not 32 bytes, or a point of small order.
    """
    key = parse_key(text)
    if key[:31] + bytes([key[31] & 0x7F]) in _LOW_ORDER_POINTS:
        raise InputError("a WireGuard key of small order protects nothing", code="bad_key")
    return key


def server_id_of(key: bytes) -> ServerId:
    """Return the id of the server with this identity key."""
    return ServerId("server-" + hashlib.sha256(key).hexdigest()[:16])


def parse_server_id(text: str) -> ServerId:
    """Check a server id.

    Raises:
        InputError: another spelling.
    """
    if not _SERVER_ID.match(text):
        raise InputError("a server id is server- and 16 hex digits")
    return ServerId(text)


def raw_server_id(server_id: str) -> bytes:
    """Return the eight bytes that stand for a server id on the wire."""
    return bytes.fromhex(server_id.removeprefix("server-"))


def server_id_of_raw(raw: bytes) -> ServerId:
    """Return the server id that eight bytes stand for."""
    return ServerId("server-" + raw.hex())


def node_id_of(key: bytes) -> NodeId:
    """Return the id of the endpoint that was born with this identity key (a version 8 UUID)."""
    digest = hashlib.sha256(b"seipd/node/v1\0" + key).digest()[:16]
    return NodeId(_uuid8(digest))


def relay_id_of(key: bytes) -> str:
    """Return the id of the relay with this identity key (a version 8 UUID)."""
    return _uuid8(hashlib.sha256(b"seipd/relay/v1\0" + key).digest()[:16])


def mesh_id_of(root_key: bytes) -> MeshId:
    """Return the id of the mesh with this genesis root key: its SHA-256 in hex."""
    return MeshId(hashlib.sha256(root_key).hexdigest())


def parse_mesh_id(text: str) -> MeshId:
    """Check a mesh id.

    Raises:
        InputError: not 64 lower-case hex digits.
    """
    if len(text) != 64 or not _HEX.match(text):
        raise InputError("a mesh id is 64 lower-case hex digits")
    return MeshId(text)


def parse_uuid(text: str) -> str:
    """Check a UUID in its canonical text (RFC 9562).

    Raises:
        InputError: braces, upper case, missing dashes and the like.
    """
    if not _UUID.match(text):
        raise InputError("a UUID is written in lower case with four dashes")
    return text


def new_uuid(random_bytes: bytes) -> str:
    """Return a random UUID made of 16 bytes handed in."""
    return str(uuid.UUID(bytes=random_bytes, version=4))


def parse_record_id(text: str) -> str:
    """Check a record id.

    Raises:
        InputError: not 32 lower-case hex digits.
    """
    if len(text) != 32 or not _HEX.match(text):
        raise InputError("a record id is 32 lower-case hex digits")
    return text


def parse_hostname(text: str) -> str:
    """Check a hostname: one DNS label, ASCII, lower case.

    Raises:
        InputError: ``bad_name``.
    """
    if not _LABEL.match(text) or text.startswith("xn--") or text[2:4] == "--":
        raise InputError(
            "a hostname is one label of a-z, 0-9 and hyphen, 63 at most",
            code="bad_name",
            mend="choose another name, for example laptop-1",
        )
    if text in RESERVED_HOSTNAMES:
        raise InputError(f"{text} is reserved", code="bad_name", mend="choose another name")
    return text


def parse_label(text: str) -> str:
    """Check a region or customer name: one DNS label.

    Raises:
        InputError: ``bad_name``.
    """
    if not _LABEL.match(text):
        raise InputError(
            f"{text[:64]!r} is not a name: a-z, 0-9 and hyphen, 63 at most", code="bad_name"
        )
    return text


def parse_domain(text: str) -> str:
    """Check a DNS domain of two labels or more, lower case, no trailing dot.

    Raises:
        InputError: ``bad_name``.
    """
    labels = text.split(".")
    if len(text) > 200 or len(labels) < 2 or not all(_LABEL.match(label) for label in labels):
        raise InputError(f"{text[:64]!r} is not a domain name", code="bad_name")
    return text


def parse_decimal(text: str) -> int:
    """Parse ASCII digits without sign, leading zero or underscore.

    Raises:
        InputError: any other spelling.
    """
    if not _DECIMAL.match(text):
        raise InputError("a number is ASCII digits without sign or leading zero")
    return int(text)


def _uuid8(digest: bytes) -> str:
    raw = bytearray(digest)
    raw[6] = (raw[6] & 0x0F) | 0x80
    raw[8] = (raw[8] & 0x3F) | 0x80
    return str(uuid.UUID(bytes=bytes(raw)))
