r"""Checkpoints (C2SP tlog-checkpoint): which log, how many entries, which root.

    <origin>\n<size in decimal>\n<base64 root>\n[<extension>\n...]

Signed as a note by the log's key; witnesses add cosignature/v1 lines over the same text.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.base.ledger.merkle import EMPTY_ROOT, HASH_BYTES
from services.base.ledger.note import (
    NoteError,
    NoteVerifier,
    cosign_text,
    cosignature_time_s,
    decode_base64,
    encode_note,
    open_note,
    parse_note,
    sign_text,
)
from services.kernel.errors import InputError
from services.kernel.ids import parse_decimal

if TYPE_CHECKING:
    from services.base.crypto.signatures import Signer

BAD_EMPTY_ROOT = "bad_empty_root"


class CheckpointError(NoteError):
    """A text that is not a checkpoint, or not one of the log that was asked for."""

    default_code = "bad_checkpoint"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """The state of one log. Extension lines are kept and mean nothing here."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def text(self) -> str:
        """Return the text that is signed.

        Raises:
            CheckpointError: an empty line, a line break within one, or a root of another length.
        """
        lines = (self.origin, *self.extensions)
        if any(not line or "\n" in line for line in lines) or len(self.root) != HASH_BYTES:
            raise CheckpointError("a checkpoint has an origin, a size, a root and no empty line")
        root = base64.b64encode(self.root).decode("ascii")
        return "".join(f"{line}\n" for line in (self.origin, self.size, root, *self.extensions))


def parse_checkpoint(text: str) -> Checkpoint:
    """Parse the text of a checkpoint.

    Raises:
        CheckpointError: any departure from the format.
    """
    if not text.endswith("\n"):
        raise CheckpointError("a checkpoint ends in newline")
    lines = text[:-1].split("\n")
    if len(lines) < 3 or not all(lines):
        raise CheckpointError("a checkpoint has an origin, a size, a root and no empty line")
    try:
        size = parse_decimal(lines[1])
        root = decode_base64(lines[2])
    except (InputError, NoteError) as error:
        raise CheckpointError(f"checkpoint: {error}") from error
    if len(root) != HASH_BYTES:
        raise CheckpointError(f"a root has {HASH_BYTES} bytes")
    if size == 0 and root != EMPTY_ROOT:
        raise CheckpointError("the root of an empty log is that of no leaves", code=BAD_EMPTY_ROOT)
    return Checkpoint(origin=lines[0], size=size, root=root, extensions=tuple(lines[3:]))


def sign_checkpoint(checkpoint: Checkpoint, *, signer: Signer, name: str = "") -> bytes:
    """Return the signed note; the key's name is the origin unless another is given.

    Raises:
        NoteError: the checkpoint or the name can't be written.
    """
    text = checkpoint.text()
    return encode_note(text, [sign_text(text, name=name or checkpoint.origin, signer=signer)])


def verify_checkpoint(data: bytes, verifier: NoteVerifier, origin: str) -> Checkpoint:
    """Check a signed checkpoint of one log, by the name that the log has or had.

    Raises:
        NoteError: malformed, or of another log.
        BadSignatureError: not signed by the key.
    """
    if verifier.earlier_names:
        verifier = verifier.named(parse_checkpoint(parse_note(data).text).origin)
    checkpoint = parse_checkpoint(open_note(data, (verifier,)).text)
    if checkpoint.origin not in {origin, verifier.name}:
        raise CheckpointError(f"a checkpoint of {checkpoint.origin}, not of {origin}")
    return checkpoint


def cosign(checkpoint_text: str, *, name: str, signer: Signer, time_s: int) -> bytes:
    """Return a witness's signature line, newline included, over the text of a checkpoint.

    Raises:
        NoteError: not the text of a checkpoint, or a name that is not one.
    """
    parse_checkpoint(checkpoint_text)
    return cosign_text(checkpoint_text, name=name, signer=signer, time_s=time_s).line().encode()


def verify_cosignature(data: bytes, verifier: NoteVerifier) -> int:
    """Check a witness's signature on a checkpoint; return its time in seconds.

    Raises:
        NoteError: malformed, or the key is not one of a witness.
        BadSignatureError: not signed by the key.
    """
    opened = open_note(data, (verifier,))
    parse_checkpoint(opened.text)
    return cosignature_time_s(opened.verified[0])
