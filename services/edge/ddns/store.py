"""Which address was told last, and to whom: after a restart it is not told again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from services.base.storage import files
from services.kernel import canonical
from services.kernel.errors import SeipdError

if TYPE_CHECKING:
    from pathlib import Path

    from services.edge.ddns.target import Target

MAX_BYTES: Final = 4096


class Told(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What stands in the file."""

    address: str
    at_ms: int
    target: str


class ToldFile:
    """The file; its methods block."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self, target: Target) -> Told | None:
        """Return what was told at this place; None where nothing was, or the file is damaged."""
        try:
            data = canonical.decode(files.read_file(self._path, MAX_BYTES))
            told = msgspec.convert(data, Told)
        except (SeipdError, msgspec.ValidationError):
            # Telling it once more does no harm.
            return None
        return told if told.target == place_of(target) else None

    def save(self, target: Target, address: str, *, at_ms: int) -> Told:
        """Write down what was told.

        Raises:
            StorageError: the disk refused.
        """
        told = Told(address=address, at_ms=at_ms, target=place_of(target))
        files.make_private_dir(self._path.parent)
        files.write_atomic(self._path, canonical.encode(msgspec.structs.asdict(told)))
        return told


def place_of(target: Target) -> str:
    """Return what tells one place from another."""
    server = f" {target.server} {target.port}" if target.server else ""
    return f"{target.way.value} {target.name} {target.zone}{server}"
