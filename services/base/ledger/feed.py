"""The records that a feed says about itself: which roster it goes by, and what is attested.

    feed.roster  {hash, number}             the records that follow are judged under this roster
    feed.attest  {root, signatures, size}   witnesses' cosignatures on this feed's checkpoint

A signature is the base64url of 80 bytes: the 8 raw bytes of the witness's id, and the
timestamped signature of C2SP cosignature/v1 (time in seconds of UTC, 8 bytes, big-endian; 64 bytes
of Ed25519) by the witness's identity key over the checkpoint text of this feed at ``size``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from services.base.ledger.note import NoteVerifier
from services.kernel.errors import InputError
from services.kernel.ids import (
    SIGNATURE_BYTES,
    ServerId,
    b64u_decode,
    b64u_encode,
    parse_key,
    raw_server_id,
    server_id_of,
    server_id_of_raw,
)

if TYPE_CHECKING:
    from services.kernel.certificates import ServerCertificate
    from services.kernel.ids import MeshId
    from services.kernel.records import Record

ROSTER_KIND = "feed.roster"
ATTEST_KIND = "feed.attest"
KEPT_EPOCHS = 16
_ID_BYTES = 8
_TIME_BYTES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Cosignature:
    """One witness's word that it saw a checkpoint, and when."""

    witness: ServerId
    time_s: int
    signature: bytes

    def text(self) -> str:
        """Return it as it stands in a record."""
        time = self.time_s.to_bytes(_TIME_BYTES, "big")
        return b64u_encode(raw_server_id(self.witness) + time + self.signature)


def cosignature_from_text(text: str) -> Cosignature:
    """Parse a cosignature as it stands in a record.

    Raises:
        InputError: malformed, or a time that no attest can hold.
    """
    data = b64u_decode(text)
    if len(data) != _ID_BYTES + _TIME_BYTES + SIGNATURE_BYTES:
        raise InputError("a cosignature has 80 bytes")
    witness, signed = data[:_ID_BYTES], data[_ID_BYTES:]
    one = Cosignature(
        witness=server_id_of_raw(witness),
        time_s=int.from_bytes(signed[:_TIME_BYTES], "big"),
        signature=signed[_TIME_BYTES:],
    )
    if not is_in_time(one):
        raise InputError("feed.attest: time out of range")
    return one


@dataclass(frozen=True, slots=True, kw_only=True)
class Attest:
    """The body of ``feed.attest``."""

    size: int
    root: bytes
    signatures: tuple[Cosignature, ...]

    def value(self) -> dict[str, Any]:
        """Return the JSON object."""
        return {
            "size": self.size,
            "root": b64u_encode(self.root),
            "signatures": [one.text() for one in self.signatures],
        }


class _AttestWire(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    size: int
    root: str
    signatures: list[str]


def attest_from_body(body: dict[str, Any]) -> Attest:
    """Check the body of ``feed.attest``.

    Raises:
        InputError: malformed.
    """
    try:
        wire = msgspec.convert(body, _AttestWire)
    except msgspec.ValidationError as error:
        raise InputError(f"feed.attest: {error}") from error
    if not 1 <= wire.size < 1 << 48 or len(wire.signatures) > 9:
        raise InputError("feed.attest: size from 1, nine signatures at most")
    signatures = tuple(cosignature_from_text(one) for one in wire.signatures)
    return Attest(size=wire.size, root=parse_key(wire.root), signatures=signatures)


def is_in_time(cosignature: Cosignature) -> bool:
    """Say whether an attest can hold a cosignature's time."""
    return 0 < cosignature.time_s < 1 << 32


def roster_from_body(body: dict[str, Any]) -> tuple[int, str]:
    """Check the body of ``feed.roster``; return its number and hash.

    Raises:
        InputError: malformed.
    """
    number, text = body.get("number"), body.get("hash")
    if body.keys() != {"number", "hash"} or type(number) is not int or not isinstance(text, str):
        raise InputError("feed.roster has number and hash")
    if not 1 <= number < 1 << 40 or len(text) != 64:
        raise InputError("feed.roster: out of range")
    return number, text


def roster_named(author: ServerId, record: Record) -> tuple[int, str] | None:
    """Return number and hash where a record is an author's good word on its own feed's roster."""
    if record.kind != ROSTER_KIND or server_id_of(record.actor) != author:
        return None
    try:
        return roster_from_body(record.body)
    except InputError:
        return None


def feed_origin(mesh_id: MeshId, server_id: ServerId, epoch: int) -> str:
    """Return the origin line, which is also the key name, of a server's feed."""
    return f"seipd/{mesh_id}/{server_id}/{epoch}"


def feed_verifier(mesh_id: MeshId, certificate: ServerCertificate) -> NoteVerifier:
    """Return the key of a server's feed, by its name in this epoch and in those before it."""
    server_id, epoch = certificate.server_id, certificate.epoch
    earlier = range(max(1, epoch - KEPT_EPOCHS), epoch)
    return NoteVerifier(
        name=feed_origin(mesh_id, server_id, epoch),
        public_key=certificate.key,
        earlier_names=tuple(feed_origin(mesh_id, server_id, one) for one in earlier),
    )


def settled_ms(times_s: list[int]) -> int:
    """Return the median of the witnesses' times, in milliseconds; the lower one of two."""
    return sorted(times_s)[(len(times_s) - 1) // 2] * 1000
