r"""What a relay says that one party used of one session: its half of a quality report. Pure.

    Ed25519 signature (64) || msgpack [relay (16), session (16), party (32), bytes from the party,
                                       bytes to it, started, told]
    signed: "seipd/relay-usage/v1\0" || mesh id (32) || the msgpack bytes

Times are milliseconds of UTC by the relay's clock; the party is a WireGuard key. Nothing negative
has a spelling.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import msgspec

from services.base.crypto.signatures import verify_or_raise
from services.kernel.errors import WireError
from services.kernel.ids import KEY_BYTES, SIGNATURE_BYTES

if TYPE_CHECKING:
    from services.base.crypto.signatures import Signer
    from services.kernel.ids import MeshId

MAX_USAGE_BYTES: Final = SIGNATURE_BYTES + 1 + 18 + 18 + 34 + 4 * 9
ID_BYTES: Final = 16

_PURPOSE: Final = b"seipd/relay-usage/v1\0"
_Id = Annotated[bytes, msgspec.Meta(min_length=ID_BYTES, max_length=ID_BYTES)]
_Key = Annotated[bytes, msgspec.Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]
_Number = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]


class Usage(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, kw_only=True):
    """What one party sent into a session and got out of it."""

    relay: _Id
    session: _Id
    party: _Key
    from_bytes: _Number
    to_bytes: _Number
    started_ms: _Number
    told_ms: _Number


_DECODER: Final = msgspec.msgpack.Decoder(Usage)


def signed_usage(signer: Signer, mesh_id: MeshId, usage: Usage) -> bytes:
    """Return the statement as it goes to the party.

    Raises:
        WireError: a number that nobody would take.
    """
    body = msgspec.msgpack.encode(usage)
    _decoded(body)
    return signer.sign(_PURPOSE + bytes.fromhex(mesh_id) + body) + body


def open_usage(data: bytes, mesh_id: MeshId, relay_key: bytes) -> Usage:
    """Read a statement that this relay made.

    Raises:
        WireError: malformed, or in another spelling than ours.
        BadSignatureError: the relay did not sign it.
    """
    if not SIGNATURE_BYTES < len(data) <= MAX_USAGE_BYTES:
        raise WireError("not a relay's statement")
    signature, body = data[:SIGNATURE_BYTES], data[SIGNATURE_BYTES:]
    usage = _decoded(body)
    signed = _PURPOSE + bytes.fromhex(mesh_id) + body
    verify_or_raise(relay_key, signed, signature, what="a relay's statement")
    return usage


def session_in(data: bytes) -> bytes:
    """Return which session a statement is about; whoever signed it.

    Raises:
        WireError: malformed.
    """
    return _decoded(data[SIGNATURE_BYTES:]).session


def _decoded(body: bytes) -> Usage:
    try:
        usage = _DECODER.decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise WireError("not a relay's statement") from error
    if msgspec.msgpack.encode(usage) != body:
        raise WireError("a statement in another spelling than ours", code="non_canonical")
    if usage.told_ms < usage.started_ms:
        raise WireError("a session that ended before it began")
    return usage
