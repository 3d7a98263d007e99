"""The mark of a data root that came from a backup: its feed needs a new epoch before it grows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from services.base.storage.files import fsync_dir, read_file, write_atomic
from services.kernel import canonical
from services.kernel.errors import CorruptError, NotFoundError, SeipdError

if TYPE_CHECKING:
    from pathlib import Path

MARK: Final = "restored.json"
MAX_BYTES: Final = 4096


class Restored(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which epoch ended with the restore, and when the backup was taken."""

    epoch: int
    created_ms: int


def write_restored(identity: Path, restored: Restored) -> None:
    """Mark a data root."""
    write_atomic(identity / MARK, canonical.encode(msgspec.to_builtins(restored)))


def read_restored(identity: Path) -> Restored | None:
    """Return the mark; None where this data root was not restored, or has gone on since.

    Raises:
        CorruptError: it can't be read.
    """
    try:
        value = canonical.decode_canonical(read_file(identity / MARK, MAX_BYTES))
        return msgspec.convert(value, Restored)
    except NotFoundError:
        return None
    except (SeipdError, msgspec.ValidationError) as error:
        raise CorruptError(
            f"{MARK}: {error}",
            path=f"identity/{MARK}",
            mend="restore the backup again into an empty data root",
        ) from error


def remove_restored(identity: Path) -> None:
    """Take the mark away: a new epoch has begun, and what was open is cancelled."""
    (identity / MARK).unlink(missing_ok=True)
    fsync_dir(identity)
