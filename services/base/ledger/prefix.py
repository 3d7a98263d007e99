"""The beginning of a log whose newest checkpoint speaks of more: what a long copying leaves so far.

A prefix is as good as a signed log: its consistency proof leads to a signed root. Its author never
said that the log had this size, though, so it is shown to nobody as the size of the log.

seipd/prefix/v1
<size>
<base64 root>
<base64 hash>             of the consistency proof, one a line
<empty line>
<signed checkpoint>
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.base.crypto.signatures import BadSignatureError
from services.base.ledger.checkpoint import verify_checkpoint
from services.base.ledger.merkle import HASH_BYTES, verify_consistency
from services.base.ledger.note import MAX_NOTE_BYTES, NoteError, decode_base64
from services.base.ledger.store import corrupt, read_bytes
from services.kernel.errors import InputError
from services.kernel.ids import parse_decimal

if TYPE_CHECKING:
    from pathlib import Path

    from services.base.ledger.note import NoteVerifier

PREFIX = "prefix"
MAX_HASHES = 127  # two for each bit of a size

_HEADER = "seipd/prefix/v1"
_MAX_BYTES = MAX_NOTE_BYTES + (MAX_HASHES + 8) * 64


class PrefixError(NoteError):
    """Bytes that are no prefix."""

    default_code = "bad_prefix"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefix:
    """A size and root of a log, and the proof that they lie within what a checkpoint signs."""

    size: int
    root: bytes
    hashes: tuple[bytes, ...]
    checkpoint: bytes

    def verify(self, verifier: NoteVerifier, origin: str) -> int:
        """Check signature and proof; return the size of which the checkpoint speaks.

        Raises:
            NoteError: the checkpoint is malformed or of another log.
            BadSignatureError: it is not signed by the key, or the proof does not lead to its root.
        """
        signed = verify_checkpoint(self.checkpoint, verifier, origin)
        verify_consistency(
            old=self.size,
            new=signed.size,
            old_root=self.root,
            new_root=signed.root,
            proof=self.hashes,
        )
        return signed.size

    def encode(self) -> bytes:
        """Return the bytes of the file."""
        hashes = [base64.b64encode(one).decode("ascii") for one in (self.root, *self.hashes)]
        lines = (_HEADER, str(self.size), *hashes)
        return ("\n".join(lines) + "\n\n").encode("ascii") + self.checkpoint


def parse_prefix(data: bytes) -> Prefix:
    """Parse a prefix; nothing of it is checked yet.

    Raises:
        PrefixError: any departure from the format.
    """
    head, gap, checkpoint = data.partition(b"\n\n")
    try:
        header, size_text, *hash_lines = head.decode("ascii").split("\n")
        size = parse_decimal(size_text)
        root, *hashes = [decode_base64(line) for line in hash_lines]
    except (ValueError, InputError, NoteError) as error:
        raise PrefixError(f"prefix: {error}") from error
    lengths = {len(one) for one in (root, *hashes)}
    if not gap or header != _HEADER or lengths != {HASH_BYTES} or len(hashes) > MAX_HASHES:
        raise PrefixError("a prefix has a header, a size, a root, hashes and a checkpoint")
    return Prefix(size=size, root=root, hashes=tuple(hashes), checkpoint=checkpoint)


def read_prefix(folder: Path, verifier: NoteVerifier, origin: str) -> Prefix | None:
    """Return the prefix that a log's folder holds, checked; None where there is none.

    Raises:
        CorruptError: it is malformed, or its checkpoint or its proof is not good.
        StorageError: the disk refused.
    """
    data = read_bytes(folder, PREFIX, max_bytes=_MAX_BYTES)
    if data is None:
        return None
    try:
        prefix = parse_prefix(data)
        prefix.verify(verifier, origin)
    except (NoteError, BadSignatureError) as error:
        raise corrupt(PREFIX, str(error)) from error
    return prefix
