"""What travels inside a BOX: msgpack arrays, the type's number first. All bounded.

    1 DIGEST  [feeds, asks]                           feeds: [[server, epoch, size, root], ...]
    2 PULL    [server, epoch, start, stop]
    3 ENTRIES [server, epoch, start, size, entries, checkpoint or nil, last]
    4 PEERS   [facts]
    5 COSIGN  [server, epoch, size, line]
    6 COSIGNED [server, epoch, size]
    7 to 11   PING, ACK, PING_REQ, NACK, RUMOURS: see membership
    12 SUMMARY [feeds, facts]
    13 BUCKETS [about, hashes]                        about: 0 feeds, 1 facts
    14 FACTS   [facts, asks]                          facts: [[key, counter], ...]

``server`` is eight bytes: the hexadecimal part of a server id. A SUMMARY holds one hash over all
feeds and one over all facts of its sender; who has others answers with BUCKETS, 64 hashes, and is
then sent the DIGEST or FACTS of those buckets that differ. A DIGEST says how much of each feed its
sender holds, and the first eight bytes of the root over it; ``asks`` wants the same back for feeds
of which the receiver holds more. FACTS are the counters of the sender's facts; newer ones come back
as PEERS, and ``asks`` wants the same FACTS back where the sender has the newer one. A PULL
wants the entries from ``start`` up to ``stop`` at most. ENTRIES answer it in one or more datagrams:
``size`` is that of the checkpoint which covers them, the checkpoint itself comes with or after the
entry ``size - 1``, ``last`` ends the burst; a burst without entries whose ``start`` lies below
``size`` means that they don't fit in datagrams and are to be fetched over HTTPS. ENTRIES that
nobody asked for are news, and count where they follow what is held. COSIGNED stops the
repetition of a COSIGN.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from services.kernel.errors import WireError
from services.kernel.ids import ServerId
from services.mesh.gossip.codec import MAX_PLAINTEXT_BYTES
from services.mesh.gossip.summary import HASH_BYTES, PACKED_BYTES
from services.mesh.membership.messages import MembershipMessage

MAX_FEEDS: Final = 33  # of the largest sizes still fit in one datagram
MAX_COUNTERS: Final = 55
MAX_ENTRIES: Final = 256
MAX_FACTS: Final = 16
MAX_INDEX: Final = 2**53 - 1
ABOUT_FEEDS: Final = 0
ABOUT_FACTS: Final = 1

_RawId = Annotated[bytes, msgspec.Meta(min_length=8, max_length=8)]
_Index = Annotated[int, msgspec.Meta(ge=0, le=MAX_INDEX)]
_Epoch = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
_Blob = Annotated[bytes, msgspec.Meta(max_length=MAX_PLAINTEXT_BYTES)]
_Hash = Annotated[bytes, msgspec.Meta(min_length=HASH_BYTES, max_length=HASH_BYTES)]
_Hashes = Annotated[bytes, msgspec.Meta(min_length=PACKED_BYTES, max_length=PACKED_BYTES)]
_FactKey = Annotated[bytes, msgspec.Meta(min_length=9, max_length=9)]


class _Message(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """Common shape of all messages."""


class FeedSize(_Message, frozen=True):
    """How much of one feed somebody holds."""

    server: _RawId
    epoch: _Epoch
    size: _Index
    root: _Hash


class Digest(_Message, frozen=True, tag=1):
    """How much of some feeds the sender holds."""

    feeds: Annotated[tuple[FeedSize, ...], msgspec.Meta(max_length=MAX_FEEDS)]
    asks: bool


class Pull(_Message, frozen=True, tag=2):
    """A wish for entries of one feed."""

    server: _RawId
    epoch: _Epoch
    start: _Index
    stop: _Index


class Entries(_Message, frozen=True, tag=3):
    """A part of the answer to a PULL."""

    server: _RawId
    epoch: _Epoch
    start: _Index
    size: _Index
    entries: Annotated[tuple[_Blob, ...], msgspec.Meta(max_length=MAX_ENTRIES)]
    checkpoint: _Blob | None
    last: bool


class Peers(_Message, frozen=True, tag=4):
    """What servers say of themselves, in signed envelopes."""

    facts: Annotated[tuple[_Blob, ...], msgspec.Meta(max_length=MAX_FACTS)]


class Cosign(_Message, frozen=True, tag=5):
    """A witness's signature line over the receiver's feed at a size."""

    server: _RawId
    epoch: _Epoch
    size: _Index
    line: _Blob


class Cosigned(_Message, frozen=True, tag=6):
    """The COSIGN for this size has arrived."""

    server: _RawId
    epoch: _Epoch
    size: _Index


class Summary(_Message, frozen=True, tag=12):
    """One hash over all feeds that the sender holds, one over all its facts."""

    feeds: _Hash
    facts: _Hash


class Buckets(_Message, frozen=True, tag=13):
    """The hashes of the sender's 64 buckets of feeds or of facts."""

    about: Annotated[int, msgspec.Meta(ge=ABOUT_FEEDS, le=ABOUT_FACTS)]
    hashes: _Hashes


class FactCounter(_Message, frozen=True):
    """The counter of one fact that somebody holds; 0 for none."""

    key: _FactKey
    counter: _Index


class FactCounters(_Message, frozen=True, tag=14):
    """The counters of some facts that the sender holds."""

    facts: Annotated[tuple[FactCounter, ...], msgspec.Meta(max_length=MAX_COUNTERS)]
    asks: bool


Message = (
    Digest
    | Pull
    | Entries
    | Peers
    | Cosign
    | Cosigned
    | MembershipMessage
    | Summary
    | Buckets
    | FactCounters
)

_DECODER: Final = msgspec.msgpack.Decoder(Message)
_ENCODER: Final = msgspec.msgpack.Encoder()


def encode_message(message: Message) -> bytes:
    """Return the plaintext of a message.

    Raises:
        WireError: it does not fit in one datagram.
    """
    data = _ENCODER.encode(message)
    if len(data) > MAX_PLAINTEXT_BYTES:
        raise WireError("the message does not fit in a datagram", code="too_large")
    return data


def decode_message(data: bytes) -> Message:
    """Parse the plaintext of a BOX.

    Raises:
        WireError: anything that is not exactly one message, in the one spelling that we write.
    """
    try:
        message: Message = _DECODER.decode(data)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise WireError("not a message of this protocol") from error
    if _ENCODER.encode(message) != data:
        raise WireError("a message in another spelling than ours", code="non_canonical")
    return message


def raw_id(server_id: str) -> bytes:
    """Return the eight bytes that stand for a server id."""
    return bytes.fromhex(server_id.removeprefix("server-"))


def id_of_raw(raw: bytes) -> ServerId:
    """Return the server id that eight bytes stand for."""
    return ServerId("server-" + raw.hex())
