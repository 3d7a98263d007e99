"""Equivocation: a server signed two checkpoints of one feed that can't both be true.

    {epoch, hashes, key, larger, mesh, root, smaller}      canonical JSON

``smaller`` and ``larger`` are signed checkpoints of the feed of ``key`` at ``epoch``; ``root`` is
what the tree of ``larger`` had at the size of ``smaller``, which ``hashes`` show (RFC 6962
consistency proof; none where the sizes are equal). A log only grows: where ``root`` is not the one
that ``smaller`` signs, the server told two stories. Nothing but the proof is needed to see that.

An older checkpoint shown again is no lie: it is consistent with the newer one, and proves nothing.
A server that lost its newest entries (a disk put back) and goes on in the same epoch does lie.
Pure: no I/O, no clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from services.base.crypto.signatures import BadSignatureError
from services.base.ledger.checkpoint import Checkpoint, parse_checkpoint, verify_checkpoint
from services.base.ledger.feed import feed_origin
from services.base.ledger.merkle import ProofError, verify_consistency
from services.base.ledger.note import NoteError, NoteVerifier, encode_note, parse_note
from services.base.ledger.proof import MAX_HASHES
from services.kernel import canonical
from services.kernel.errors import InputError, RejectedError, TooLargeError
from services.kernel.ids import (
    MeshId,
    ServerId,
    b64u_encode,
    parse_key,
    parse_mesh_id,
    server_id_of,
)
from services.kernel.records import MAX_RECORD_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.kernel.certificates import ServerCertificate

EQUIVOCATION_KIND = "trust.equivocation"
MAX_PROOF_BYTES = 15 * 1024
"""What is made here fits into a record of 16 KiB with all that stands around the body."""


class NoEquivocationError(RejectedError):
    """What was brought forward proves no lie; ``code`` says why."""

    default_code = "no_equivocation"


class Branch(Protocol):
    """The part of a log that is held which finding a fork needs."""

    @property
    def checkpoint(self) -> bytes | None:
        """The newest signed checkpoint."""

    def root_at(self, size: int) -> bytes | None:
        """Return the root at a size, or None where it is not held."""

    def consistency_proof(self, old: int, new: int) -> Sequence[bytes]:
        """Return the proof that the tree of one size is a beginning of that of another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contradiction:
    """What a good proof shows: two roots of one feed at one size."""

    server_id: ServerId
    epoch: int
    size: int
    larger_size: int
    root: bytes
    other_root: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class EquivocationProof:
    """The proof as it stands in a file or a record; nothing of it is checked yet."""

    mesh_id: MeshId
    key: bytes
    epoch: int
    smaller: bytes
    larger: bytes
    root: bytes
    hashes: tuple[bytes, ...] = ()

    @property
    def server_id(self) -> ServerId:
        """Whom it accuses."""
        return server_id_of(self.key)

    @property
    def verifier(self) -> NoteVerifier:
        """The key of the feed."""
        return _verifier(self.mesh_id, self.key, self.epoch)

    def value(self) -> dict[str, Any]:
        """Return the JSON object: the body of ``trust.equivocation``."""
        return {
            "mesh": self.mesh_id,
            "key": b64u_encode(self.key),
            "epoch": self.epoch,
            "smaller": self.smaller.decode("utf-8"),
            "larger": self.larger.decode("utf-8"),
            "root": b64u_encode(self.root),
            "hashes": [b64u_encode(one) for one in self.hashes],
        }

    def encode(self) -> bytes:
        """Return the canonical bytes.

        Raises:
            TooLargeError: more than a record holds.
        """
        data = canonical.encode(self.value())
        if len(data) > MAX_PROOF_BYTES:
            raise TooLargeError(f"a proof of equivocation has at most {MAX_PROOF_BYTES} bytes")
        return data

    def verify(self) -> Contradiction:
        """Check that the server lied.

        Raises:
            NoEquivocationError: it does not show that: ``bad_checkpoint``, ``other_origin``,
                ``sig_invalid``, ``same_root`` or ``proof_invalid``.
        """
        smaller = _opened(self.smaller, self.verifier)
        larger = _opened(self.larger, self.verifier)
        if smaller.root == self.root:
            raise NoEquivocationError(
                "both checkpoints can be true: they have one root at the smaller size",
                code="same_root",
            )
        try:
            verify_consistency(
                old=smaller.size,
                new=larger.size,
                old_root=self.root,
                new_root=larger.root,
                proof=self.hashes,
            )
        except ProofError as error:
            raise NoEquivocationError(str(error), code=error.code) from error
        return Contradiction(
            server_id=self.server_id,
            epoch=self.epoch,
            size=smaller.size,
            larger_size=larger.size,
            root=smaller.root,
            other_root=self.root,
        )


class _Wire(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    mesh: str
    key: str
    epoch: int
    smaller: str
    larger: str
    root: str
    hashes: list[str]


def proof_from_body(body: object) -> EquivocationProof:
    """Check the form of a proof's JSON object.

    Raises:
        InputError: malformed.
    """
    try:
        wire = msgspec.convert(body, _Wire)
    except msgspec.ValidationError as error:
        raise InputError(f"{EQUIVOCATION_KIND}: {error}") from error
    if not 1 <= wire.epoch < 1 << 32 or len(wire.hashes) > MAX_HASHES:
        raise InputError(f"{EQUIVOCATION_KIND}: epoch from 1, {MAX_HASHES} hashes at most")
    return EquivocationProof(
        mesh_id=parse_mesh_id(wire.mesh),
        key=parse_key(wire.key),
        epoch=wire.epoch,
        smaller=wire.smaller.encode(),
        larger=wire.larger.encode(),
        root=parse_key(wire.root),
        hashes=tuple(parse_key(one) for one in wire.hashes),
    )


def decode_equivocation(data: bytes) -> EquivocationProof:
    """Parse a proof from its canonical bytes.

    Raises:
        TooLargeError: over 16 KiB: no record can have held it.
        WireError: not canonical JSON.
        InputError: not the JSON of a proof.
    """
    if len(data) > MAX_RECORD_BYTES:
        raise TooLargeError(f"a proof of equivocation has at most {MAX_RECORD_BYTES} bytes")
    return proof_from_body(canonical.decode_canonical(data))


def find(
    *, mesh_id: MeshId, certificate: ServerCertificate, held: Branch, foreign: bytes
) -> EquivocationProof | None:
    """Compare what is held of a feed with a checkpoint that is not longer.

    Returns:
        The proof of the fork, or None where the checkpoint is of the branch that is held.

    Raises:
        NoEquivocationError: the checkpoint is malformed, of another feed, or not well signed.
        InputError: it is longer than what is held: ask whoever has it, see ``find_longer``.
        TooLargeError: the evidence does not fit into a record.
    """
    verifier = _verifier(mesh_id, certificate.key, certificate.epoch)
    theirs = _opened(foreign, verifier)
    newest = held.checkpoint
    ours = _opened(newest, verifier) if newest is not None else None
    if not theirs.size:
        return None
    root = held.root_at(theirs.size)
    if ours is None or newest is None or root is None or theirs.size > ours.size:
        raise InputError(f"entries up to {theirs.size} are not held")
    if root == theirs.root:
        return None
    hashes = held.consistency_proof(theirs.size, ours.size) if theirs.size < ours.size else ()
    return _proven(
        mesh_id, certificate, smaller=foreign, larger=newest, root=root, hashes=tuple(hashes)
    )


def find_longer(
    *,
    mesh_id: MeshId,
    certificate: ServerCertificate,
    held: bytes,
    foreign: bytes,
    root: bytes,
    hashes: Sequence[bytes],
) -> EquivocationProof | None:
    """Compare a checkpoint that is held with a longer foreign one.

    Args:
        mesh_id: the mesh.
        certificate: of the server whose feed it is.
        held: the newest checkpoint that is held.
        foreign: the longer checkpoint.
        root: what the foreign tree had at the size that is held, as its holder says.
        hashes: the holder's consistency proof from there to the foreign checkpoint.

    Returns:
        The proof of the fork, or None where the holder speaks of one branch.

    Raises:
        NoEquivocationError: a checkpoint is malformed, of another feed or not well signed; or the
            holder's word is not borne out by its proof.
        TooLargeError: the evidence does not fit into a record.
    """
    if _opened(held, _verifier(mesh_id, certificate.key, certificate.epoch)).root == root:
        return None
    return _proven(
        mesh_id, certificate, smaller=held, larger=foreign, root=root, hashes=tuple(hashes)
    )


def _proven(
    mesh_id: MeshId,
    certificate: ServerCertificate,
    *,
    smaller: bytes,
    larger: bytes,
    root: bytes,
    hashes: tuple[bytes, ...],
) -> EquivocationProof:
    """Return a proof after checking it, and that a record holds it."""
    verifier = _verifier(mesh_id, certificate.key, certificate.epoch)
    proof = EquivocationProof(
        mesh_id=mesh_id,
        key=certificate.key,
        epoch=certificate.epoch,
        smaller=_bare(smaller, verifier),
        larger=_bare(larger, verifier),
        root=root,
        hashes=hashes,
    )
    proof.verify()
    proof.encode()
    return proof


def _verifier(mesh_id: MeshId, key: bytes, epoch: int) -> NoteVerifier:
    return NoteVerifier(name=feed_origin(mesh_id, server_id_of(key), epoch), public_key=key)


def _opened(data: bytes, verifier: NoteVerifier) -> Checkpoint:
    """Return a checkpoint of the feed with this key, whose name is the feed's origin."""
    try:
        origin = parse_checkpoint(parse_note(data).text).origin
        if origin != verifier.name:
            raise NoEquivocationError(
                f"a checkpoint of {origin}, not of {verifier.name}", code="other_origin"
            )
        return verify_checkpoint(data, verifier, verifier.name)
    except NoteError as error:
        raise NoEquivocationError(str(error), code="bad_checkpoint") from error
    except BadSignatureError as error:
        raise NoEquivocationError(str(error), code=error.code) from error


def _bare(data: bytes, verifier: NoteVerifier) -> bytes:
    """Return a note with the log's own signature alone: what others added is no evidence."""
    note = parse_note(data)
    place = (verifier.name, verifier.key_id)
    own = [one for one in note.signatures if (one.name, one.key_id) == place]
    return encode_note(note.text, own[:1])
