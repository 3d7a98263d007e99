"""The journal: the one file that an append writes, and how it is read back after a crash.

It is a row of frames, each written with one call and made durable with one sync:

     0        4        8               16                      48       56
    +--------+--------+---------------+-----------------------+--------+------------------------+
    | "SJF1" | length | first index   | SHA-256 of the body   | check  | body of ``length`` ... |
    +--------+--------+---------------+-----------------------+--------+------------------------+
    body = entry count u32 | bundle length u32 | bundle | signed checkpoint

"SJP1" begins a frame after which the log is the beginning of what the checkpoint signs:

    body = entry count u32 | bundle length u32 | bundle | hash count u8 | hashes | signed checkpoint

The check is the beginning of the SHA-256 of the 48 bytes before it, so that a damaged length is
not taken for a frame cut short. Integers are big-endian.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.base.ledger.merkle import HASH_BYTES
from services.base.ledger.store import corrupt, split_hashes
from services.base.ledger.tiles import TileError, decode_bundle, encode_bundle

if TYPE_CHECKING:
    from collections.abc import Sequence

JOURNAL = "journal"

_MAGIC = b"SJF1"
_PREFIX_MAGIC = b"SJP1"
_HEADER = struct.Struct(">4sIQ32s")
_CHECK_BYTES = 8
_HEADER_BYTES = _HEADER.size + _CHECK_BYTES
_COUNTS = struct.Struct(">II")
_BLOCK_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """The entries of one append and the checkpoint that covers them.

    ``proof`` leads from the size after the frame to a checkpoint that speaks of more; it is None
    where the checkpoint speaks of exactly that size.
    """

    first: int
    entries: tuple[bytes, ...]
    checkpoint: bytes
    proof: tuple[bytes, ...] | None = None

    @property
    def stop(self) -> int:
        """The size of the log after this frame."""
        return self.first + len(self.entries)


def encode_frame(
    first: int,
    entries: Sequence[bytes],
    checkpoint: bytes,
    proof: Sequence[bytes] | None = None,
) -> bytes:
    """Return the bytes of one frame.

    Raises:
        TooLargeError: an entry of more than 65,535 bytes.
    """
    bundle = encode_bundle(entries)
    hashes = b"" if proof is None else bytes([len(proof)]) + b"".join(proof)
    body = _COUNTS.pack(len(entries), len(bundle)) + bundle + hashes + checkpoint
    magic = _MAGIC if proof is None else _PREFIX_MAGIC
    header = _HEADER.pack(magic, len(body), first, hashlib.sha256(body).digest())
    return header + _check(header) + body


def scan_journal(data: bytes) -> list[Frame]:
    """Return the frames of a journal; a last one that a crash cut short is left out.

    Raises:
        CorruptError: a frame is damaged in a way that no crash explains.
    """
    frames = []
    at = 0
    while at < len(data):
        stop = _frame_stop(data, at)
        frame = _decode(data, at, stop) if stop else None
        if frame is None:
            if _torn(data, at, stop):
                break
            raise corrupt(JOURNAL, f"the frame at byte {at} is damaged")
        frames.append(frame)
        at = stop
    return frames


def _frame_stop(data: bytes, at: int) -> int:
    """Return where a frame ends by its header; 0 when the header is no header."""
    header = data[at : at + _HEADER.size]
    check = data[at + _HEADER.size : at + _HEADER_BYTES]
    if len(check) < _CHECK_BYTES or check != _check(header):
        return 0
    if header[:4] not in {_MAGIC, _PREFIX_MAGIC}:
        return 0
    length = int.from_bytes(header[4:8], "big")
    return at + _HEADER_BYTES + length


def _decode(data: bytes, at: int, stop: int) -> Frame | None:
    """Return a frame, or None if its body is not what its header says."""
    magic, _, first, digest = _HEADER.unpack_from(data, at)
    body = data[at + _HEADER_BYTES : stop]
    if stop > len(data) or hashlib.sha256(body).digest() != digest:
        return None
    count, bundle_bytes = _COUNTS.unpack_from(body)
    bundle_stop = _COUNTS.size + bundle_bytes
    try:
        entries = decode_bundle(body[_COUNTS.size : bundle_stop], count)
    except TileError as error:
        raise corrupt(JOURNAL, f"the frame at byte {at}: {error}") from error
    proof = None
    rest = body[bundle_stop:]
    if magic == _PREFIX_MAGIC:
        hashes, rest = rest[1 : 1 + rest[0] * HASH_BYTES], rest[1 + rest[0] * HASH_BYTES :]
        proof = tuple(split_hashes(hashes))
    return Frame(first=first, entries=tuple(entries), checkpoint=rest, proof=proof)


def _torn(data: bytes, at: int, stop: int) -> bool:
    """Say whether a crash in the midst of the last write explains a bad frame.

    Such a write leaves a file that is too short, or one that is long enough with blocks that never
    reached the disk and read as zeros. No entry and no checkpoint of ours has a block of zeros.
    """
    if stop > len(data) or len(data) - at < _HEADER_BYTES:
        return True
    if stop and stop < len(data):
        return False
    while at < len(data):
        block_stop = min((at // _BLOCK_BYTES + 1) * _BLOCK_BYTES, len(data))
        if not any(data[at:block_stop]):
            return True
        at = block_stop
    return False


def _check(header: bytes) -> bytes:
    return hashlib.sha256(header).digest()[:_CHECK_BYTES]
