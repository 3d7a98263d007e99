"""The serial of the SOA: how many records are held, never less than was told before.

It moves with the ledger and reads no clock, so that all servers that hold the same say the same. A
feed that is put back, as with a restore, makes the number stand still, not go back: what was told
last lies in a file. Beyond 2^32 it goes on at 0, as RFC 1982 has it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from services.base.storage.files import make_private_dir, read_file, write_atomic
from services.kernel.errors import SeipdError
from services.kernel.ids import parse_decimal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MAX_BYTES: Final = 32
_WRAP: Final = 1 << 32


class Serials:
    """Counts up."""

    def __init__(self, *, count: Callable[[], int], file: Path) -> None:
        self._count = count
        self._file = file
        self._highest = self._load()
        self._is_stale = True

    def moved(self) -> None:
        """Count anew before the next answer: what is asked for a lot is not counted each time."""
        self._is_stale = True

    def current(self) -> int:
        """Return the serial to tell now."""
        if self._is_stale:
            self._is_stale = False
            self._highest = max(self._highest, self._count())
        return self._highest % _WRAP

    def save(self) -> None:
        """Remember what was told last.

        Raises:
            StorageError: the disk refused.
        """
        self.moved()
        self.current()
        make_private_dir(self._file.parent)
        write_atomic(self._file, str(self._highest).encode("ascii"))

    def _load(self) -> int:
        try:
            return parse_decimal(read_file(self._file, MAX_BYTES).decode("ascii"))
        except (SeipdError, UnicodeDecodeError):
            # What is lost here is in the ledger.
            return 0
