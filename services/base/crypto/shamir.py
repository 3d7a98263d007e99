r"""Shamir's secret sharing over GF(256), the field of AES and of SLIP-39 (x^8 + x^4 + x^3 + x + 1).

    vector = secret, 32 bytes || digest, 16 bytes        shared byte by byte: f(0) = vector
    digest = SHA-256( "seipd/shamir/v1\0" || secret )[:16]
    share  = index, 1 to 255; f(index), 48 bytes

The digest tells a wrong combination from a right one. Secrets are never an index, a branch or a
loop's bound: a whole vector is one integer, and what multiplies it is public (indexes and their
powers), so a product is shifts, masks and XORs of numbers of one width. The two tables are looked
up by public numbers alone. What Python's own integers do with leading zeros is beyond us, and so
is wiping: a secret leaves memory when its process does.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from services.base.crypto.kdf import constant_time_equal
from services.kernel.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    RandomBytes = Callable[[int], bytes]

SECRET_BYTES = 32
DIGEST_BYTES = 16
VECTOR_BYTES = SECRET_BYTES + DIGEST_BYTES
MIN_THRESHOLD = 2
MAX_SHARES = 255

_PURPOSE_DIGEST = b"seipd/shamir/v1\0"
_REDUCTION = 0x1B
_GENERATOR_ORDER = 255


def _tables() -> tuple[tuple[int, ...], tuple[int, ...]]:
    powers, logarithms, value = [], [0] * 256, 1
    for exponent in range(_GENERATOR_ORDER):
        powers.append(value)
        logarithms[value] = exponent
        doubled = (value << 1) ^ (0x100 | _REDUCTION if value & 0x80 else 0)
        value ^= doubled  # times the generator, x + 1
    return tuple(powers), tuple(logarithms)


_POWERS, _LOGARITHMS = _tables()


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """The value of the polynomials at one index."""

    index: int
    data: bytes = field(repr=False)

    def __post_init__(self) -> None:
        """Refuse what can't be a share.

        Raises:
            InputError: ``bad_share_index`` or ``bad_share``.
        """
        if not 1 <= self.index <= MAX_SHARES:
            raise InputError(f"a share's index is 1 to {MAX_SHARES}", code="bad_share_index")
        if len(self.data) != VECTOR_BYTES:
            raise InputError(f"a share has {VECTOR_BYTES} bytes", code="bad_share")


def vector_of(secret: bytes) -> bytes:
    """Return the bytes that are shared: a secret and its digest.

    Raises:
        InputError: ``bad_secret``: not 32 bytes.
    """
    if len(secret) != SECRET_BYTES:
        raise InputError(f"a secret to share has {SECRET_BYTES} bytes", code="bad_secret")
    return secret + _digest_of(secret)


def require_threshold(threshold: int, count: int) -> None:
    """Refuse what is no K of N.

    Raises:
        InputError: ``bad_threshold``.
    """
    if not MIN_THRESHOLD <= threshold <= count <= MAX_SHARES:
        raise InputError(
            f"{threshold} of {count}: a threshold is from {MIN_THRESHOLD} to the number of shares, "
            f"which is at most {MAX_SHARES}",
            code="bad_threshold",
        )


def split(secret: bytes, *, threshold: int, count: int, random: RandomBytes) -> list[Share]:
    """Return the shares 1 to ``count``, any ``threshold`` of which give the secret back.

    Raises:
        InputError: ``bad_secret`` or ``bad_threshold``.
    """
    require_threshold(threshold, count)
    coefficients = [vector_of(secret), *(random(VECTOR_BYTES) for _ in range(threshold - 1))]
    values = evaluate(coefficients, range(1, count + 1))
    return [Share(index=at, data=data) for at, data in enumerate(values, 1)]


def combine(shares: Sequence[Share], *, threshold: int) -> bytes:
    """Return the secret that the first ``threshold`` shares hold.

    Raises:
        InputError: ``too_few_shares``, ``duplicate_share``, or ``shares_disagree``: they are not
            of one dealing, or one was changed.
    """
    if len({one.index for one in shares}) != len(shares):
        raise InputError("two shares have one index", code="duplicate_share")
    if len(shares) < threshold:
        missing = threshold - len(shares)
        raise InputError(
            f"{len(shares)} of {threshold} shares are here: {missing} more",
            code="too_few_shares",
        )
    vector = interpolate([(one.index, one.data) for one in shares[:threshold]], at=0)
    secret, digest = vector[:SECRET_BYTES], vector[SECRET_BYTES:]
    if not constant_time_equal(digest, _digest_of(secret)):
        raise InputError("the shares give no secret together", code="shares_disagree")
    return secret


def evaluate(coefficients: Sequence[bytes], indexes: Iterable[int]) -> list[bytes]:
    """Return the values of polynomials, one a byte, at public indexes.

    Args:
        coefficients: of all polynomials; the constant ones first, each of one length.
        indexes: where, 1 to 255.
    """
    width = len(coefficients[0])
    rows = [multiples(int.from_bytes(one, "big"), width) for one in coefficients]
    values = []
    for index in indexes:
        logarithm, value = _LOGARITHMS[index], 0
        for exponent, row in enumerate(rows):
            value ^= times(row, _POWERS[logarithm * exponent % _GENERATOR_ORDER])
        values.append(value.to_bytes(width, "big"))
    return values


def interpolate(points: Sequence[tuple[int, bytes]], *, at: int) -> bytes:
    """Return the value at ``at`` of the polynomials of lowest degree through the points.

    Args:
        points: public x-coordinates, each once, and values of one length.
        at: a public x-coordinate that is none of theirs.
    """
    width = len(points[0][1])
    product = sum(_LOGARITHMS[x ^ at] for x, _ in points)
    value = 0
    for x, data in points:
        weight = product - _LOGARITHMS[x ^ at]
        weight -= sum(_LOGARITHMS[x ^ other] for other, _ in points if other != x)
        row = multiples(int.from_bytes(data, "big"), width)
        value ^= times(row, _POWERS[weight % _GENERATOR_ORDER])
    return value.to_bytes(width, "big")


def multiples(vector: int, width: int) -> list[int]:
    """Return a vector of bytes times 1, 2, 4 … 128, all bytes at once."""
    low_bits = int.from_bytes(b"\x7f" * width, "big")
    ones = int.from_bytes(b"\x01" * width, "big")
    rows = [vector]
    for _ in range(7):
        vector = ((vector & low_bits) << 1) ^ ((vector >> 7) & ones) * _REDUCTION
        rows.append(vector)
    return rows


def times(rows: Sequence[int], factor: int) -> int:
    """Return a vector, given by its ``multiples``, times one public byte."""
    value = 0
    for row in rows:
        if factor & 1:
            value ^= row
        factor >>= 1
    return value


def _digest_of(secret: bytes) -> bytes:
    return hashlib.sha256(_PURPOSE_DIGEST + secret).digest()[:DIGEST_BYTES]
