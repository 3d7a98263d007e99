"""How often one server answered another, over the last 128 checks. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from services.kernel.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

CHECKS: Final = 128
_MASK: Final = (1 << CHECKS) - 1


@dataclass(slots=True)
class Uptime:
    """The outcomes as bits, the newest lowest."""

    bits: int = 0
    count: int = 0

    def add(self, *, answered: bool) -> None:
        """Note one check."""
        self.bits = (self.bits << 1 | answered) & _MASK
        self.count = min(self.count + 1, CHECKS)

    @property
    def ratio(self) -> float | None:
        """The share of checks that were answered; None before the first."""
        return self.bits.bit_count() / self.count if self.count else None

    def to_plain(self) -> list[str | int]:
        """Return what JSON can hold."""
        return [f"{self.bits:x}", self.count]

    @classmethod
    def of_plain(cls, value: object) -> Uptime:
        """Take back what ``to_plain`` gave.

        Raises:
            InputError: it never gave that.
        """
        match value:
            case [str(text), int(count)] if 0 <= count <= CHECKS and len(text) <= CHECKS // 4:
                bits = _hex(text)
                if bits >> count == 0:
                    return cls(bits=bits, count=count)
        raise InputError("not a row of checks")


def _hex(text: str) -> int:
    try:
        value = int(text, 16)
    except ValueError as error:
        raise InputError("not a row of checks") from error
    if f"{value:x}" != text:
        raise InputError("not a row of checks")
    return value


def plain_rows(rows: Sequence[tuple[str, Uptime]]) -> dict[str, list[str | int]]:
    """Return the rows of many servers as JSON can hold them."""
    return {name: row.to_plain() for name, row in rows if row.count}
