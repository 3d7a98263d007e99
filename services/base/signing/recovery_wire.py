"""What crosses the signer's socket about recovery keys: canonical JSON, a struct for each message.

    seipd.recovery.v1.Recovery    Deal, Write, Begin, Finish, Endorse

It is a service of its own beside the two calls for signatures. No message holds a recovery key's
private half but ``Endorse``, by which an operator brings an offline file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import msgspec

from services.base.crypto.verifiable import Proof
from services.base.signing.dealing import Dealing
from services.kernel import canonical
from services.kernel.errors import InputError
from services.kernel.ids import b64u_decode, b64u_encode, parse_key, parse_mesh_id

if TYPE_CHECKING:
    from collections.abc import Mapping

SERVICE = "seipd.recovery.v1.Recovery"
REFUSAL_KEY = "seipd-refusal-bin"
"""Trailing metadata: what an EndorseReply tells where the call ends as a refusal."""
MAX_MESSAGE_BYTES = 128 * 1024
"""Shares of 255 holders, sealed, with the proof."""


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One request or reply."""


class DealRequest(Message, frozen=True):
    """Make a recovery key and deal it to these identities."""

    mesh: str
    number: int
    threshold: int
    holders: list[str]


class DealReply(Message, frozen=True):
    """A dealing: public but for the sealed shares."""

    recovery_key: str
    signature: str
    commitments: list[str]
    answer: str
    sealed: list[str]


class WriteRequest(Message, frozen=True):
    """Make a recovery key and write it to a file for the operator."""

    mesh: str
    number: int


class WriteReply(Message, frozen=True):
    """The public half, and where the file lies."""

    recovery_key: str
    signature: str
    path: str


class BeginRequest(Message, frozen=True):
    """Make a one-time key for shares that are released for a claim, or go on with one."""

    claim: str
    one_time_key: str = ""


class BeginReply(Message, frozen=True):
    """The public half of the one-time key."""

    one_time_key: str


class DealingWire(Message, frozen=True):
    """What is public of a dealing."""

    mesh: str
    number: int
    recovery_key: str
    threshold: int
    holders: list[str]
    commitments: list[str]
    answer: str


class ReleasedWire(Message, frozen=True):
    """A share, sealed to the one-time key."""

    index: int
    sealed: str


class FinishRequest(Message, frozen=True):
    """Rebuild the recovery key and endorse the claim."""

    one_time_key: str
    claim: str
    dealing: DealingWire
    released: list[ReleasedWire]


class EndorseRequest(Message, frozen=True):
    """Endorse a claim by the recovery key of an offline file."""

    claim: str
    recovery_key: str
    file: str


class EndorseReply(Message, frozen=True):
    """A signature over the claim; or why there is none, and which shares were bad."""

    endorsement: str = ""
    code: str = ""
    what: str = ""
    mend: str = ""
    bad: dict[str, str] = {}


_M = TypeVar("_M", bound=Message)


def encode_message(message: Message) -> bytes:
    """Return the canonical bytes."""
    return canonical.encode(msgspec.to_builtins(message))


def decode_message(data: bytes, kind: type[_M]) -> _M:
    """Read a message.

    Raises:
        InputError: ``bad_field``.
        WireError: not canonical JSON.
    """
    try:
        return msgspec.convert(canonical.decode_canonical(data), kind)
    except msgspec.ValidationError as error:
        raise InputError(f"{kind.__name__}: {error}") from error


def wire_of(dealing: Dealing) -> DealingWire:
    """Return a dealing as it crosses the socket."""
    return DealingWire(
        mesh=dealing.mesh_id,
        number=dealing.number,
        recovery_key=b64u_encode(dealing.recovery_key),
        threshold=dealing.proof.threshold,
        holders=[b64u_encode(one) for one in dealing.holders],
        commitments=[b64u_encode(one) for one in dealing.proof.commitments],
        answer=b64u_encode(dealing.proof.answer),
    )


def dealing_of(wire: DealingWire) -> Dealing:
    """Check a dealing that crossed the socket.

    Raises:
        InputError: malformed.
    """
    if len(wire.holders) != len(wire.commitments):
        raise InputError("a commitment for each holder", code="bad_proof")
    return Dealing(
        mesh_id=parse_mesh_id(wire.mesh),
        number=wire.number,
        recovery_key=parse_key(wire.recovery_key),
        holders=tuple(parse_key(one) for one in wire.holders),
        proof=Proof(
            threshold=wire.threshold,
            commitments=tuple(b64u_decode(one) for one in wire.commitments),
            answer=b64u_decode(wire.answer),
        ),
    )


def released_wires(released: Mapping[int, bytes]) -> list[ReleasedWire]:
    """Return released shares as they cross the socket."""
    return [
        ReleasedWire(index=index, sealed=b64u_encode(sealed))
        for index, sealed in sorted(released.items())
    ]
