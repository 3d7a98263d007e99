"""What members tell each other inside a BOX: msgpack arrays, the type's number first. All bounded.

     7 PING     [seq, rumours]           are you there?
     8 ACK      [seq, rumours]           yes; or: yes, says the one whom you asked me to ask
     9 PING_REQ [seq, target, rumours]   ask that one for me
    10 NACK     [seq, rumours]           I am here, and have no answer from it so far
    11 RUMOURS  [rumours]

A rumour is either an array, [subject, incarnation, reporter]: the reporter got no answer from the
subject; or the 88 bytes of an ALIVE that the subject itself has signed (``alive.py``). There is no
word for dead. Servers are named by eight bytes, the hexadecimal part of their ids.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from services.mesh.membership.alive import ALIVE_BYTES

MAX_RUMOURS: Final = 48
MAX_INCARNATION: Final = 2**53 - 1

_RawId = Annotated[bytes, msgspec.Meta(min_length=8, max_length=8)]
_Incarnation = Annotated[int, msgspec.Meta(ge=0, le=MAX_INCARNATION)]
_Seq = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
_AliveBytes = Annotated[bytes, msgspec.Meta(min_length=ALIVE_BYTES, max_length=ALIVE_BYTES)]


class _Message(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """Common shape of all messages."""


class Suspicion(_Message, frozen=True):
    """One server's word that another left it without an answer."""

    subject: _RawId
    incarnation: _Incarnation
    reporter: _RawId


Rumour = Suspicion | _AliveBytes
_Rumours = Annotated[tuple[Rumour, ...], msgspec.Meta(max_length=MAX_RUMOURS)]


class Ping(_Message, frozen=True, tag=7):
    """Are you there?"""

    seq: _Seq
    rumours: _Rumours


class Ack(_Message, frozen=True, tag=8):
    """Yes; from a helper: the target has answered."""

    seq: _Seq
    rumours: _Rumours


class PingReq(_Message, frozen=True, tag=9):
    """A wish that the receiver asks the target."""

    seq: _Seq
    target: _RawId
    rumours: _Rumours


class Nack(_Message, frozen=True, tag=10):
    """A helper is there and has no answer from the target so far."""

    seq: _Seq
    rumours: _Rumours


class Rumours(_Message, frozen=True, tag=11):
    """News that could not wait for a probe."""

    rumours: _Rumours


MembershipMessage = Ping | Ack | PingReq | Nack | Rumours
