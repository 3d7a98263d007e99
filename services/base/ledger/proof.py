"""Offline proofs (C2SP tlog-proof): one leaf, its path, and the checkpoint that it leads to.

c2sp.org/tlog-proof@v1
extra <base64>            optional, proves nothing by itself
index <number>
<base64 hash>             from the leaf to the root, one a line
<empty line>
<signed checkpoint>
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.base.ledger.checkpoint import Checkpoint, verify_checkpoint
from services.base.ledger.merkle import HASH_BYTES, leaf_hash, verify_inclusion
from services.base.ledger.note import NoteError, decode_base64
from services.kernel.errors import InputError
from services.kernel.ids import parse_decimal

if TYPE_CHECKING:
    from services.base.ledger.note import NoteVerifier

HEADER = "c2sp.org/tlog-proof@v1"
MAX_HASHES = 63
MAX_PROOF_BYTES = 1 << 20

_EXTRA = "extra "
_INDEX = "index "


class ProofFormatError(NoteError):
    """Bytes that are not a tlog-proof."""

    default_code = "bad_proof"


@dataclass(frozen=True, slots=True, kw_only=True)
class TlogProof:
    """A proof as it stands in a file; nothing of it is checked yet."""

    index: int
    hashes: tuple[bytes, ...]
    checkpoint: bytes
    extra: bytes | None = None

    def encode(self) -> bytes:
        """Return the bytes of the file."""
        lines = [HEADER]
        if self.extra is not None:
            lines.append(_EXTRA + _b64(self.extra))
        lines.append(f"{_INDEX}{self.index}")
        lines.extend(_b64(one) for one in self.hashes)
        return ("\n".join(lines) + "\n\n").encode("ascii") + self.checkpoint


def parse_proof(data: bytes) -> TlogProof:
    """Parse a tlog-proof.

    Raises:
        ProofFormatError: any departure from the format.
    """
    if len(data) > MAX_PROOF_BYTES:
        raise ProofFormatError(f"a proof has at most {MAX_PROOF_BYTES} bytes")
    head, gap, checkpoint = data.partition(b"\n\n")
    if not gap or not checkpoint.endswith(b"\n"):
        raise ProofFormatError("a proof ends with an empty line and a checkpoint")
    try:
        lines = head.decode("ascii").split("\n")
        extra = None
        if lines.pop(0) != HEADER:
            raise ProofFormatError(f"a proof begins with {HEADER}")
        if lines and lines[0].startswith(_EXTRA):
            extra = decode_base64(lines.pop(0).removeprefix(_EXTRA))
        if not lines or not lines[0].startswith(_INDEX):
            raise ProofFormatError("the proof has no index line")
        index = parse_decimal(lines.pop(0).removeprefix(_INDEX))
        hashes = tuple(decode_base64(line) for line in lines)
    except ProofFormatError:
        raise
    except (UnicodeDecodeError, InputError, NoteError) as error:
        raise ProofFormatError(f"proof: {error}") from error
    if len(hashes) > MAX_HASHES or any(len(one) != HASH_BYTES for one in hashes):
        raise ProofFormatError(f"a proof has at most {MAX_HASHES} hashes of {HASH_BYTES} bytes")
    return TlogProof(index=index, hashes=hashes, checkpoint=checkpoint, extra=extra)


def verify_proof(
    proof: TlogProof, *, entry: bytes, verifier: NoteVerifier, origin: str
) -> Checkpoint:
    """Check that an entry is in the log at the proof's index; return the checkpoint that says so.

    Raises:
        NoteError: the checkpoint is malformed or of another log.
        BadSignatureError: it is not signed by the key, or the path does not lead to its root.
    """
    checkpoint = verify_checkpoint(proof.checkpoint, verifier, origin)
    verify_inclusion(
        index=proof.index,
        size=checkpoint.size,
        leaf=leaf_hash(entry),
        proof=proof.hashes,
        root=checkpoint.root,
    )
    return checkpoint


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
