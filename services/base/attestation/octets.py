"""Reads binary structures from the front: never past the end, and no rest goes unnoticed."""

from __future__ import annotations

from typing import Literal

from services.base.attestation.errors import QuoteFormatError, Refusal

ByteOrder = Literal["little", "big"]


class Octets:
    """Bytes with a place in them; ``order`` is the byte order of the numbers."""

    def __init__(self, data: bytes, *, order: ByteOrder, what: str) -> None:
        self._data = data
        self._at = 0
        self._order: ByteOrder = order
        self._what = what

    @property
    def position(self) -> int:
        """How many bytes were read."""
        return self._at

    def take(self, count: int) -> bytes:
        """Return the next bytes.

        Raises:
            QuoteFormatError: ``quote_truncated``.
        """
        end = self._at + count
        if end > len(self._data):
            raise QuoteFormatError(
                f"{self._what} ends {end - len(self._data)} bytes early",
                code=Refusal.TRUNCATED.value,
            )
        part = self._data[self._at : end]
        self._at = end
        return part

    def number(self, width_bytes: int) -> int:
        """Return the next unsigned number.

        Raises:
            QuoteFormatError: ``quote_truncated``.
        """
        return int.from_bytes(self.take(width_bytes), self._order)

    def sized(self, width_bytes: int) -> bytes:
        """Return what follows a length of that width.

        Raises:
            QuoteFormatError: ``quote_truncated``.
        """
        return self.take(self.number(width_bytes))

    def rest(self) -> bytes:
        """Return all that is left."""
        return self.take(len(self._data) - self._at)

    def done(self) -> None:
        """Say that the structure ends here.

        Raises:
            QuoteFormatError: ``quote_trailing``.
        """
        left = len(self._data) - self._at
        if left:
            raise QuoteFormatError(
                f"{self._what} has {left} bytes after its end", code=Refusal.TRAILING.value
            )
