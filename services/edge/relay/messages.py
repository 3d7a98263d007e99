r"""What an endpoint and a relay tell each other, each in a box of its own. Pure.

All numbers are big endian. A box is XChaCha20-Poly1305 under a random nonce; what stands before the
nonce is authenticated with it.

    ALLOCATE (to the control port)
     0        4    5                37       61
     +--------+----+----------------+--------+-----------------------------------+
     | "seiR" | 01 | WireGuard key  | nonce  | box: counter (8), ticket          |
     |        |    | of the sender  |        |                                   |
     +--------+----+----------------+--------+-----------------------------------+
    ALLOCATED
     0        4    5        29
     +--------+----+--------+---------------------------------------------------------+
     | "seiR" | 81 | nonce  | box: counter (8), index (4), data port (2),             |
     |        |    |        |      token (8), milliseconds left (4), session key (32) |
     +--------+----+--------+---------------------------------------------------------+
    BIND, HEARTBEAT and TEARDOWN (to the data port)
     0        4    5       9        33
     +--------+----+-------+--------+--------------------------------------------+
     | "seiR" | 02 | index | nonce  | box: counter (8), token (8)                |
     |        | to |       |        |                                            |
     |        | 04 |       |        |                                            |
     +--------+----+-------+--------+--------------------------------------------+
    BOUND
     0        4    5        29
     +--------+----+--------+----------------------------------------------------+
     | "seiR" | 82 | nonce  | box: counter (8), state (1), token (8)             |
     +--------+----+--------+----------------------------------------------------+
    USAGE (to the data port; the zeros make it as long as its answer)
     +--------+----+-------+--------+--------------------------------------------+
     | "seiR" | 05 | index | nonce  | box: counter (8), token (8), 240 zeros     |
     +--------+----+-------+--------+--------------------------------------------+
    USED
     +--------+----+--------+----------------------------------------------------+
     | "seiR" | 83 | nonce  | box: counter (8), signed statement (1 to 252)      |
     +--------+----+--------+----------------------------------------------------+
    ERROR
     +--------+----+--------+----------------------------------------------------+
     | "seiR" | FF | nonce  | box: counter (8), code (1)                         |
     +--------+----+--------+----------------------------------------------------+

The key of ALLOCATE and of its answer comes from X25519 between the endpoint's WireGuard key and the
relay's box key: to be answered is to have proved the key. The answer brings the key for the rest.
An answer repeats the counter of its question and is never longer. The token shows that its bearer
receives at the host that it sends from; who binds from elsewhere is given another one first.
"""

from __future__ import annotations

import hashlib
import struct
from enum import IntEnum
from typing import Final

import msgspec

from services.base.crypto import aead
from services.base.crypto.agreement import shared_secret
from services.edge.relay.tickets import MAX_TICKET_BYTES
from services.kernel.errors import WireError
from services.kernel.ids import KEY_BYTES

MAGIC: Final = b"seiR"
TOKEN_BYTES: Final = 8
NO_TOKEN: Final = bytes(TOKEN_BYTES)
MAX_COUNTER: Final = 2**63 - 1

_ALLOCATE: Final = b"\x01"
_ALLOCATED: Final = b"\x81"
_BOUND: Final = b"\x82"
_USED: Final = b"\x83"
_ERROR: Final = b"\xff"
_CONTEXT: Final = b"seipd/relay-control/v1\0"

_COUNTER: Final = struct.Struct("!Q")
_TO_SESSION: Final = struct.Struct("!4sB4s")
_SESSION_PLAIN: Final = struct.Struct("!Q8s")
_ALLOCATED_PLAIN: Final = struct.Struct("!Q4sH8sI32s")
_BOUND_PLAIN: Final = struct.Struct("!QB8s")
_ERROR_PLAIN: Final = struct.Struct("!QB")
_USAGE_PADDING_BYTES: Final = 240

INDEX_BYTES: Final = 4
_HEAD_BYTES: Final = len(MAGIC) + 1
_NONCE_BYTES: Final = aead.XCHACHA20_NONCE_BYTES
_BOX_BYTES: Final = _NONCE_BYTES + aead.TAG_BYTES
_ALLOCATE_HEAD_BYTES: Final = _HEAD_BYTES + KEY_BYTES
_MIN_ALLOCATE_BYTES: Final = _ALLOCATE_HEAD_BYTES + _BOX_BYTES + _COUNTER.size + 1
MAX_ALLOCATE_BYTES: Final = _MIN_ALLOCATE_BYTES - 1 + MAX_TICKET_BYTES
SESSION_BYTES: Final = _TO_SESSION.size + _BOX_BYTES + _SESSION_PLAIN.size
USAGE_BYTES: Final = SESSION_BYTES + _USAGE_PADDING_BYTES
_USED_HEAD_BYTES: Final = _HEAD_BYTES + _BOX_BYTES + _COUNTER.size
MAX_STATEMENT_BYTES: Final = USAGE_BYTES - _USED_HEAD_BYTES
_ALLOCATED_BYTES: Final = _HEAD_BYTES + _BOX_BYTES + _ALLOCATED_PLAIN.size
_BOUND_BYTES: Final = _HEAD_BYTES + _BOX_BYTES + _BOUND_PLAIN.size
_ERROR_BYTES: Final = _HEAD_BYTES + _BOX_BYTES + _ERROR_PLAIN.size


class Verb(IntEnum):
    """What the holder of a session may ask."""

    BIND = 2
    HEARTBEAT = 3
    TEARDOWN = 4
    USAGE = 5


class Code(IntEnum):
    """Why a relay does not, or no longer, serve."""

    FULL = 1
    """No room for another session, of this endpoint or at all."""
    ADDRESS = 2
    """It does not send to where the endpoint is."""
    ENDED = 3
    """The other side left, or was silent for too long."""
    EXPIRED = 4
    """The ticket's time is over."""
    REVOKED = 5
    """One of the two is no longer of the mesh."""


class State(IntEnum):
    """How far a session is, for the one who is told."""

    ELSEWHERE = 0
    """Not bound: ask again with the token that comes with this."""
    ALONE = 1
    """Bound; the other side is not."""
    TOGETHER = 2
    """Both are bound: data passes."""


class Allocate(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A wish for a session; ``ticket`` is not checked yet."""

    key: bytes
    counter: int
    ticket: bytes


class Allocated(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A session and the key for all that follows."""

    counter: int
    index: bytes
    data_port: int
    token: bytes
    left_ms: int
    session_key: bytes


class ToSession(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """BIND, HEARTBEAT, TEARDOWN or USAGE."""

    verb: Verb
    counter: int
    token: bytes


class Bound(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The answer to BIND and HEARTBEAT, and the news that the other side came."""

    counter: int
    state: State
    token: bytes


class Error(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A no, or the end of a session."""

    counter: int
    code: Code


class Used(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the relay says, over its own signature, that it has carried for the asker."""

    counter: int
    statement: bytes


Answer = Bound | Used | Error


def agreed_key(private_key: bytes, *, other: bytes, endpoint: bytes, relay: bytes) -> bytes:
    """Return the key that an endpoint and a relay share before there is a session.

    Args:
        private_key: one's own, of either.
        other: the public key of the other.
        endpoint: the endpoint's public key.
        relay: the relay's public key.

    Raises:
        InputError: ``bad_key``: a public key of small order.
    """
    shared = shared_secret(private_key, other)
    return hashlib.blake2b(_CONTEXT + endpoint + relay, key=shared, digest_size=32).digest()


def sender_of(data: bytes) -> bytes:
    """Return the WireGuard key that an ALLOCATE claims to come from.

    Raises:
        WireError: not an ALLOCATE.
    """
    if not _MIN_ALLOCATE_BYTES <= len(data) <= MAX_ALLOCATE_BYTES:
        raise WireError("not an ALLOCATE")
    if data[:_HEAD_BYTES] != MAGIC + _ALLOCATE:
        raise WireError("not an ALLOCATE")
    return data[_HEAD_BYTES:_ALLOCATE_HEAD_BYTES]


def seal_allocate(key: bytes, message: Allocate, *, nonce: bytes) -> bytes:
    """Return the datagram, under the agreed key and 24 fresh random bytes."""
    head = MAGIC + _ALLOCATE + message.key
    return _seal(key, head, _COUNTER.pack(message.counter) + message.ticket, nonce)


def open_allocate(key: bytes, data: bytes) -> Allocate:
    """Open what ``sender_of`` has looked at.

    Raises:
        WireError: not sealed by the sender for this relay.
    """
    sender = sender_of(data)
    plain = _open(key, data, _ALLOCATE_HEAD_BYTES)
    counter = _counter(_COUNTER.unpack_from(plain)[0])
    return Allocate(key=sender, counter=counter, ticket=plain[_COUNTER.size :])


def seal_allocated(key: bytes, message: Allocated, *, nonce: bytes) -> bytes:
    """Return the datagram, under the agreed key."""
    plain = _ALLOCATED_PLAIN.pack(
        message.counter,
        message.index,
        message.data_port,
        message.token,
        message.left_ms,
        message.session_key,
    )
    return _seal(key, MAGIC + _ALLOCATED, plain, nonce)


def index_of(data: bytes) -> bytes:
    """Return the index of the session that a datagram claims to be of.

    Raises:
        WireError: no BIND, HEARTBEAT, TEARDOWN or USAGE.
    """
    if len(data) not in _LENGTHS or data[: len(MAGIC)] != MAGIC:
        raise WireError("nothing for a session")
    if data[len(MAGIC)] not in _LENGTHS[len(data)]:
        raise WireError("nothing for a session")
    return data[_HEAD_BYTES : _HEAD_BYTES + INDEX_BYTES]


def seal_to_session(key: bytes, index: bytes, message: ToSession, *, nonce: bytes) -> bytes:
    """Return the datagram, under the session's key."""
    head = _TO_SESSION.pack(MAGIC, message.verb, index)
    plain = _SESSION_PLAIN.pack(message.counter, message.token)
    if message.verb is Verb.USAGE:
        plain += bytes(_USAGE_PADDING_BYTES)
    return _seal(key, head, plain, nonce)


def open_to_session(key: bytes, data: bytes) -> ToSession:
    """Open what ``index_of`` has looked at.

    Raises:
        WireError: not sealed by the holder of the session.
    """
    index_of(data)
    counter, token = _SESSION_PLAIN.unpack_from(_open(key, data, _TO_SESSION.size))
    return ToSession(verb=Verb(data[len(MAGIC)]), counter=_counter(counter), token=token)


def seal_bound(key: bytes, message: Bound, *, nonce: bytes) -> bytes:
    """Return the datagram, under the session's key."""
    plain = _BOUND_PLAIN.pack(message.counter, message.state, message.token)
    return _seal(key, MAGIC + _BOUND, plain, nonce)


def seal_used(key: bytes, message: Used, *, nonce: bytes) -> bytes:
    """Return the datagram, under the session's key."""
    plain = _COUNTER.pack(message.counter) + message.statement
    return _seal(key, MAGIC + _USED, plain, nonce)


def seal_error(key: bytes, message: Error, *, nonce: bytes) -> bytes:
    """Return the datagram, under the key of what it answers or ends."""
    plain = _ERROR_PLAIN.pack(message.counter, message.code)
    return _seal(key, MAGIC + _ERROR, plain, nonce)


def open_allocated(key: bytes, data: bytes) -> Allocated | Error:
    """Open the answer to an ALLOCATE.

    Raises:
        WireError: anything else.
    """
    if len(data) != _ALLOCATED_BYTES or data[:_HEAD_BYTES] != MAGIC + _ALLOCATED:
        return _open_error(key, data)
    plain = _ALLOCATED_PLAIN.unpack(_open(key, data, _HEAD_BYTES))
    counter, index, data_port, token, left_ms, session_key = plain
    return Allocated(
        counter=_counter(counter),
        index=index,
        data_port=data_port,
        token=token,
        left_ms=left_ms,
        session_key=session_key,
    )


def open_answer(key: bytes, data: bytes) -> Answer:
    """Open the answer to anything that was said to a session.

    Raises:
        WireError: anything else.
    """
    if data[:_HEAD_BYTES] == MAGIC + _USED:
        return _open_used(key, data)
    if len(data) != _BOUND_BYTES or data[:_HEAD_BYTES] != MAGIC + _BOUND:
        return _open_error(key, data)
    counter, state, token = _BOUND_PLAIN.unpack(_open(key, data, _HEAD_BYTES))
    try:
        return Bound(counter=_counter(counter), state=State(state), token=token)
    except ValueError as error:
        raise WireError("a state that is none") from error


_LENGTHS: Final = {
    SESSION_BYTES: frozenset({Verb.BIND, Verb.HEARTBEAT, Verb.TEARDOWN}),
    USAGE_BYTES: frozenset({Verb.USAGE}),
}


def _open_used(key: bytes, data: bytes) -> Used:
    if not _USED_HEAD_BYTES < len(data) <= USAGE_BYTES:
        raise WireError("no answer of a relay")
    plain = _open(key, data, _HEAD_BYTES)
    counter = _counter(_COUNTER.unpack_from(plain)[0])
    return Used(counter=counter, statement=plain[_COUNTER.size :])


def _open_error(key: bytes, data: bytes) -> Error:
    if len(data) != _ERROR_BYTES or data[:_HEAD_BYTES] != MAGIC + _ERROR:
        raise WireError("no answer of a relay")
    counter, code = _ERROR_PLAIN.unpack(_open(key, data, _HEAD_BYTES))
    try:
        return Error(counter=_counter(counter), code=Code(code))
    except ValueError as error:
        raise WireError("a code that is none") from error


def _counter(value: int) -> int:
    if value > MAX_COUNTER:
        raise WireError("a counter out of range")
    return value


def _seal(key: bytes, head: bytes, plain: bytes, nonce: bytes) -> bytes:
    return head + nonce + aead.xchacha20_encrypt(key, nonce, plain, head)


def _open(key: bytes, data: bytes, head_bytes: int) -> bytes:
    head, nonce = data[:head_bytes], data[head_bytes : head_bytes + _NONCE_BYTES]
    return aead.xchacha20_decrypt(key, nonce, data[head_bytes + _NONCE_BYTES :], head)
