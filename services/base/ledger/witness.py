r"""A witness of logs (C2SP tlog-witness v1.0.0): what it is asked, what it answers. Pure.

    POST <prefix>/add-checkpoint

    old <size>\n
    <base64 hash of the consistency proof>\n      0 to 63 of them
    \n
    <signed checkpoint>

Whoever asks shows that the log with the new checkpoint begins with what this witness held; it gets
a cosignature/v1 line. Two things that contradict each other are never signed: what is held is
compared, changed durably and signed in one turn of the log. Of a checkpoint nothing is kept but the
log's own signature: lines that others added, in the witness's name too, mean nothing here.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from services.base.crypto.signatures import BadSignatureError
from services.base.ledger.checkpoint import (
    BAD_EMPTY_ROOT,
    CheckpointError,
    parse_checkpoint,
)
from services.base.ledger.merkle import EMPTY_ROOT, HASH_BYTES, ProofError, verify_consistency
from services.base.ledger.note import (
    NON_CANONICAL,
    NoteError,
    NoteVerifier,
    decode_base64,
    encode_note,
    open_note,
    parse_note,
)
from services.kernel.errors import (
    ConflictError,
    ForbiddenError,
    InputError,
    NotFoundError,
    RejectedError,
    SeipdError,
    WireError,
)
from services.kernel.ids import parse_decimal

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractAsyncContextManager

    from services.base.ledger.checkpoint import Checkpoint
    from services.base.ledger.witnesskey import WitnessKey

MAX_PROOF_LINES: Final = 63
MAX_SIZE: Final = (1 << 63) - 1

_MAX_HEAD_BYTES: Final = 8 * 1024


class StaleSizeError(ConflictError):
    """The witness holds another size than the request says; ``size`` is the one it holds."""

    default_code = "stale_size"

    def __init__(self, size: int) -> None:
        super().__init__(f"the newest checkpoint held has size {size}")
        self.size = size


@dataclass(frozen=True, slots=True, kw_only=True)
class AddCheckpoint:
    """A request, well-formed; nothing of it is verified yet."""

    old_size: int
    proof: tuple[bytes, ...]
    note: bytes
    origin: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """The newest tree that a witness knows of a log."""

    size: int
    root: bytes


NOTHING_HELD: Final = Held(size=0, root=EMPTY_ROOT)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedCheckpoint:
    """A checkpoint whose log's signature is good, and the note with that signature alone."""

    checkpoint: Checkpoint
    note: bytes

    @property
    def held(self) -> Held:
        """What is held of the log once this checkpoint is."""
        return Held(size=self.checkpoint.size, root=self.checkpoint.root)


class WitnessedLog(Protocol):
    """What a witness remembers of one log."""

    @property
    def verifier(self) -> NoteVerifier:
        """The log's key."""

    def newest(self) -> SignedCheckpoint | None:
        """Return the newest checkpoint of the log that is durable here."""

    def take(self, signed: SignedCheckpoint, before: Held) -> AbstractAsyncContextManager[None]:
        """Make a checkpoint the newest, durably; nothing else changes until the block is left.

        Entering it raises ``StaleSizeError`` where neither ``before`` nor the checkpoint itself
        is what is held then.
        """

    def suspect(self, signed: SignedCheckpoint) -> None:
        """Look whether a checkpoint that was refused proves that the log has two stories."""


class WitnessedLogs(Protocol):
    """The logs that this witness knows."""

    def find(self, origin: str) -> WitnessedLog | None:
        """Return the log with this origin line."""

    def origins(self) -> Iterable[str]:
        """Return the origin lines of all of them."""


class Witness:
    """Answers requests; the name is that of its cosignature lines."""

    def __init__(self, *, logs: WitnessedLogs, key: WitnessKey, name: str) -> None:
        self._logs = logs
        self._key = key
        self.name = name

    @property
    def vkey(self) -> str:
        """The verifier key of the cosignatures."""
        return self._key.verifier(self.name).vkey

    async def add_checkpoint(self, body: bytes) -> bytes:
        """Return a cosignature line for a checkpoint that follows what is held.

        Raises:
            WireError: malformed (``bad_request``, ``bad_checkpoint``).
            InputError: the old size is larger than the new one.
            NotFoundError: ``unknown_log``.
            ForbiddenError: ``sig_invalid``: not signed by the log.
            StaleSizeError: another size is held than the request says.
            RejectedError: ``proof_invalid``: the proof does not lead from what is held.
            UnavailableError: the checkpoint can't be held now.
        """
        request = parse_request(body)
        log = self._logs.find(request.origin)
        if log is None:
            raise NotFoundError("unknown log", code="unknown_log")
        signed = open_signed(request, log.verifier)
        held = held_of(log)
        try:
            check_follows(request, signed.checkpoint, held)
        except SeipdError:
            log.suspect(signed)
            raise
        async with log.take(signed, held):
            return self._key.line(signed.checkpoint.text(), name=self.name)

    def newest(self, origin_hash: str) -> bytes:
        """Return the newest checkpoint held of a log, co-signed now.

        Args:
            origin_hash: the SHA-256 of the log's origin line, in hex.

        Raises:
            NotFoundError: ``unknown_log``, or nothing of it is held.
        """
        for origin in self._logs.origins():
            if hashlib.sha256(origin.encode()).hexdigest() == origin_hash:
                log = self._logs.find(origin)
                signed = log.newest() if log is not None else None
                if signed is not None:
                    text = signed.checkpoint.text()
                    return signed.note + self._key.line(text, name=self.name)
        raise NotFoundError("unknown log", code="unknown_log")


def held_of(log: WitnessedLog) -> Held:
    """Return the newest tree that is held of a log."""
    signed = log.newest()
    return NOTHING_HELD if signed is None else signed.held


def parse_request(body: bytes) -> AddCheckpoint:
    """Parse a request.

    Raises:
        WireError: ``bad_request``: any departure from the format.
    """
    head, gap, note = body.partition(b"\n\n")
    if not gap or len(head) > _MAX_HEAD_BYTES:
        raise _bad_request("a size, a proof, an empty line and a signed checkpoint")
    try:
        first, *lines = head.decode("ascii").split("\n")
        old_size = parse_decimal(first.removeprefix("old "))
        proof = tuple(decode_base64(line) for line in lines)
        origin = _origin(note)
    except (UnicodeDecodeError, InputError, NoteError) as error:
        raise _bad_request(str(error)) from error
    if not first.startswith("old ") or old_size > MAX_SIZE:
        raise _bad_request("the first line is old and a size")
    if len(proof) > MAX_PROOF_LINES or any(len(one) != HASH_BYTES for one in proof):
        raise _bad_request(f"a proof has at most {MAX_PROOF_LINES} hashes of {HASH_BYTES} bytes")
    return AddCheckpoint(old_size=old_size, proof=proof, note=note, origin=origin)


def open_signed(request: AddCheckpoint, verifier: NoteVerifier) -> SignedCheckpoint:
    """Check a request's checkpoint against the log's key.

    Raises:
        WireError: ``bad_checkpoint``: malformed, or with extension lines.
        ForbiddenError: ``sig_invalid``: the log's signature is missing or not good.
        RejectedError: ``proof_invalid``: an empty log with another root than that of no leaves.
    """
    text = request.note.decode("utf-8").rpartition("\n\n")[0] + "\n"
    checkpoint, refusal = _parsed(text)
    try:
        opened = open_note(request.note, (verifier,))
    except (NoteError, BadSignatureError) as error:
        raise ForbiddenError(f"invalid signature: {error}", code="sig_invalid") from error
    if checkpoint is None:
        raise RejectedError(f"consistency proof: {refusal}", code="proof_invalid")
    return SignedCheckpoint(
        checkpoint=checkpoint, note=encode_note(opened.text, opened.verified[:1])
    )


def check_follows(request: AddCheckpoint, checkpoint: Checkpoint, held: Held) -> None:
    """Check that a checkpoint follows what is held.

    Raises:
        InputError: the old size is larger than the new one.
        StaleSizeError: the old size is not the one that is held.
        RejectedError: ``proof_invalid``: the trees are not shown to be of one log.
    """
    if checkpoint.size > MAX_SIZE or request.old_size > checkpoint.size:
        raise InputError("the old size is larger than that of the checkpoint")
    if request.old_size != held.size:
        raise StaleSizeError(held.size)
    try:
        if held.size:
            verify_consistency(
                old=held.size,
                new=checkpoint.size,
                old_root=held.root,
                new_root=checkpoint.root,
                proof=request.proof,
            )
        elif request.proof:
            raise ProofError("nothing is to be proved from an empty log")
    except ProofError as error:
        raise RejectedError(f"consistency proof: {error}", code=error.code) from error


def _parsed(text: str) -> tuple[Checkpoint | None, str]:
    """Return a checkpoint; of an empty log with a wrong root, what is wrong with it instead."""
    try:
        checkpoint = parse_checkpoint(text)
    except CheckpointError as error:
        if error.code == BAD_EMPTY_ROOT:
            return None, str(error)
        raise WireError(f"invalid checkpoint: {error}", code=error.code) from error
    if checkpoint.extensions:
        raise WireError("invalid checkpoint: it has extension lines", code="bad_checkpoint")
    return checkpoint, ""


def _origin(note: bytes) -> str:
    try:
        text = parse_note(note).text
    except NoteError as error:
        # A signature in another spelling is no good signature; all else of the note is in order.
        if error.code != NON_CANONICAL:
            raise
        text = note.decode("utf-8")
    return text.split("\n", 1)[0]


def _bad_request(why: str) -> WireError:
    return WireError(f"invalid input: {why}", code="bad_request")
