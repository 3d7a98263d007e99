r"""The envelope of a fact: what one server says about itself, signed, for a while. Pure.

    Ed25519 signature (64) || msgpack [kind, key (32), counter, issued, expires, payload]
    signed: "seipd/fact/v1\0" || mesh id (32) || the msgpack bytes

Times are milliseconds of UTC. Of two facts of one server and kind the higher counter is the newer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final

import msgspec

from services.base.crypto.signatures import verify_or_raise
from services.kernel.errors import InputError, WireError
from services.kernel.ids import KEY_BYTES, SIGNATURE_BYTES, raw_server_id, server_id_of
from services.mesh.facts.kinds import kind_of
from services.mesh.facts.payloads import MAX_PAYLOAD_BYTES

if TYPE_CHECKING:
    from services.base.crypto.signatures import Signer

_PURPOSE: Final = b"seipd/fact/v1\0"
_HEAD_BYTES: Final = 1 + 1 + 2 + KEY_BYTES + 3 * 9 + 3
MAX_FACT_BYTES: Final = SIGNATURE_BYTES + _HEAD_BYTES + MAX_PAYLOAD_BYTES

_Time = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]


class _Wire(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    kind: Annotated[int, msgspec.Meta(ge=0, le=255)]
    key: Annotated[bytes, msgspec.Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]
    counter: _Time
    issued_ms: _Time
    expires_ms: _Time
    payload: Annotated[bytes, msgspec.Meta(max_length=MAX_PAYLOAD_BYTES)]


_DECODER: Final = msgspec.msgpack.Decoder(_Wire)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One server's word about itself; ``encoded`` is the envelope."""

    kind: int
    server_id: str
    key: bytes
    counter: int
    issued_ms: int
    expires_ms: int
    payload: bytes
    encoded: bytes

    def holds(self, now_ms: int) -> bool:
        """Say whether it has not expired."""
        return self.expires_ms > now_ms


def sign_envelope(
    signer: Signer,
    mesh_id: bytes,
    *,
    kind: int,
    payload: bytes,
    counter: int,
    now_ms: int,
    lifetime_ms: int,
) -> Fact:
    """Return a new fact about the signer.

    Raises:
        InputError: a payload that is none of its kind, or a lifetime beyond that of the kind.
    """
    body = msgspec.msgpack.encode(
        [kind, signer.public_key, counter, now_ms, now_ms + lifetime_ms, payload]
    )
    try:
        parse_envelope(bytes(SIGNATURE_BYTES) + body)
    except WireError as error:
        raise InputError(f"a fact that nobody would take: {error}", code=error.code) from error
    return parse_envelope(signer.sign(_PURPOSE + mesh_id + body) + body)


def open_envelope(data: bytes, mesh_id: bytes) -> Fact:
    """Parse a fact and check its signature; not whether its server is known or it holds now.

    Raises:
        WireError: malformed, of an unknown kind, or in another spelling than ours.
        BadSignatureError: not signed by the server that it is about.
    """
    fact = parse_envelope(data)
    check_signature(fact, mesh_id)
    return fact


def parse_envelope(data: bytes) -> Fact:
    """Parse a fact without checking its signature.

    Raises:
        WireError: malformed, of an unknown kind, or in another spelling than ours.
    """
    if not SIGNATURE_BYTES < len(data) <= MAX_FACT_BYTES:
        raise WireError("not a fact")
    body = data[SIGNATURE_BYTES:]
    try:
        wire = _DECODER.decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise WireError("not a fact") from error
    if msgspec.msgpack.encode(wire) != body:
        raise WireError("a fact in another spelling than ours", code="non_canonical")
    kind = kind_of(wire.kind)
    if not 0 < wire.expires_ms - wire.issued_ms <= kind.max_lifetime_ms:
        raise WireError(f"a fact about {kind.name} does not hold for so long", code="bad_lifetime")
    kind.check(wire.payload)
    return Fact(server_id=server_id_of(wire.key), encoded=data, **msgspec.structs.asdict(wire))


def check_signature(fact: Fact, mesh_id: bytes) -> None:
    """Check that a parsed fact is signed by the server that it is about.

    Raises:
        BadSignatureError: it is not.
    """
    signature, body = fact.encoded[:SIGNATURE_BYTES], fact.encoded[SIGNATURE_BYTES:]
    verify_or_raise(fact.key, _PURPOSE + mesh_id + body, signature, what="a fact")


def fact_key(server_id: str, kind: int) -> bytes:
    """Return the nine bytes that stand for the newest fact of one server and kind."""
    return raw_server_id(server_id) + bytes([kind])
