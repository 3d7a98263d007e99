r"""Shares that prove to their holders that all holders hold points of one polynomial.

A hash shows that a share is the one that the dealer committed to, not that any K shares give the
same secret. So the dealer also shares 16 random polynomials r beside the 48 of the secret, f,
commits to both, and answers a challenge that only the commitments decide (Baghery, "Π: A Unified
Framework for Computational Verifiable Secret Sharing", 2023/1669; there over a large field, here 16
times over GF(256), which leaves a cheat one chance in 2^128):

    commitment of share i   c_i = SHA-256( "seipd/share/v1\0" || context, 32 || i || salt, 32
                                           || f(i), 48 || r(i), 16 )
    challenge               E   = SHAKE-256( "seipd/share-challenge/v1\0" || context, 32
                                           || threshold || count || c_1 || c_2 … ), 48 rows of 16
    answer                  z   = r + E·f       the coefficients, K of 16 bytes

Whoever has f(i) and the salt takes r(i) from z(i) - E·f(i) and compares c_i. Since r is random, z
tells nothing of f. What the polynomials have at 0 is not shown here: a dealer that deals the shares
of another secret is found out when they are combined. ``context`` names what is dealt and to whom.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from services.base.crypto.kdf import constant_time_equal
from services.base.crypto.shamir import (
    VECTOR_BYTES,
    Share,
    evaluate,
    multiples,
    require_threshold,
    vector_of,
)
from services.kernel.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.base.crypto.shamir import RandomBytes

CONTEXT_BYTES = 32
SALT_BYTES = 32
COMMITMENT_BYTES = 32
PROOF_BYTES = 16
OPENING_BYTES = VECTOR_BYTES + SALT_BYTES

_PURPOSE_SHARE = b"seipd/share/v1\0"
_PURPOSE_CHALLENGE = b"seipd/share-challenge/v1\0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """What one holder has: its share, and the salt that opens the dealer's commitment to it."""

    share: Share
    salt: bytes = field(repr=False)

    def encode(self) -> bytes:
        """Return the 80 bytes that are sealed to the holder."""
        return self.share.data + self.salt


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What everybody may know of a dealing."""

    threshold: int
    commitments: tuple[bytes, ...]
    answer: bytes

    def __post_init__(self) -> None:
        """Refuse a proof of another form.

        Raises:
            InputError: ``bad_threshold`` or ``bad_proof``.
        """
        require_threshold(self.threshold, len(self.commitments))
        if any(len(one) != COMMITMENT_BYTES for one in self.commitments):
            raise InputError(f"a commitment has {COMMITMENT_BYTES} bytes", code="bad_proof")
        if len(self.answer) != self.threshold * PROOF_BYTES:
            raise InputError("the proof's answer has another length", code="bad_proof")


def deal(
    secret: bytes, *, threshold: int, count: int, context: bytes, random: RandomBytes
) -> tuple[list[Opening], Proof]:
    """Split a secret; return what each holder gets, and what all may see.

    Raises:
        InputError: ``bad_secret`` or ``bad_threshold``.
    """
    require_threshold(threshold, count)
    secrets = [vector_of(secret), *(random(VECTOR_BYTES) for _ in range(threshold - 1))]
    masks = [random(PROOF_BYTES) for _ in range(threshold)]
    indexes = range(1, count + 1)
    openings = [
        Opening(share=Share(index=at, data=data), salt=random(SALT_BYTES))
        for at, data in zip(indexes, evaluate(secrets, indexes), strict=True)
    ]
    commitments = tuple(
        _commitment(context, opening, mask)
        for opening, mask in zip(openings, evaluate(masks, indexes), strict=True)
    )
    rows = _challenge(context, threshold, commitments)
    answer = b"".join(
        _xor(mask, _combined(rows, vector)) for mask, vector in zip(masks, secrets, strict=True)
    )
    return openings, Proof(threshold=threshold, commitments=commitments, answer=answer)


def is_of(opening: Opening, proof: Proof, context: bytes) -> bool:
    """Say whether a share is the one dealt, and on the polynomial that all others are on."""
    index = opening.share.index
    if index > len(proof.commitments) or len(opening.salt) != SALT_BYTES:
        return False
    answer = [
        proof.answer[at : at + PROOF_BYTES] for at in range(0, len(proof.answer), PROOF_BYTES)
    ]
    rows = _challenge(context, proof.threshold, proof.commitments)
    mask = _xor(evaluate(answer, [index])[0], _combined(rows, opening.share.data))
    return constant_time_equal(_commitment(context, opening, mask), proof.commitments[index - 1])


def decode_opening(index: int, data: bytes) -> Opening:
    """Read what ``Opening.encode`` made.

    Raises:
        InputError: ``bad_share`` or ``bad_share_index``.
    """
    if len(data) != OPENING_BYTES:
        raise InputError(f"an opened share has {OPENING_BYTES} bytes", code="bad_share")
    share = Share(index=index, data=data[:VECTOR_BYTES])
    return Opening(share=share, salt=data[VECTOR_BYTES:])


def _commitment(context: bytes, opening: Opening, mask: bytes) -> bytes:
    parts = (_PURPOSE_SHARE, context, bytes([opening.share.index]), opening.encode(), mask)
    return hashlib.sha256(b"".join(parts)).digest()


def _challenge(context: bytes, threshold: int, commitments: Sequence[bytes]) -> list[int]:
    """Return the rows of E, each times 1, 2, 4 … 128, highest first: one for each bit of f."""
    if len(context) != CONTEXT_BYTES:
        raise InputError(f"a context has {CONTEXT_BYTES} bytes", code="bad_proof")
    parts = (_PURPOSE_CHALLENGE, context, bytes([threshold, len(commitments)]), *commitments)
    stream = hashlib.shake_256(b"".join(parts)).digest(VECTOR_BYTES * PROOF_BYTES)
    rows: list[int] = []
    for at in range(0, len(stream), PROOF_BYTES):
        row = int.from_bytes(stream[at : at + PROOF_BYTES], "big")
        rows.extend(reversed(multiples(row, PROOF_BYTES)))
    return rows


def _combined(rows: Sequence[int], vector: bytes) -> bytes:
    """Return E·f for a secret vector f: each row is masked by its bit, and none left out."""
    bits, value = int.from_bytes(vector, "big"), 0
    for shift, row in zip(range(8 * len(vector) - 1, -1, -1), rows, strict=True):
        value ^= row & -(bits >> shift & 1)
    return value.to_bytes(PROOF_BYTES, "big")


def _xor(left: bytes, right: bytes) -> bytes:
    return (int.from_bytes(left, "big") ^ int.from_bytes(right, "big")).to_bytes(len(left), "big")
