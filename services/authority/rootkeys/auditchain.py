"""Follows a signer's audit over the months, offline: each begins with what the one before came to.

Of a folder with one log of tiles a month: the signer's own, or the copy that the daemon keeps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from services.authority.rootkeys.auditcopy import MONTH, signer_name
from services.base.ledger.fsck import read_head, verify_log
from services.base.ledger.note import NoteVerifier
from services.base.ledger.store import load_tiles
from services.base.ledger.tiles import TILE_WIDTH
from services.kernel import canonical
from services.kernel.errors import CorruptError, NotFoundError

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditChain:
    """What was found good; ``begins_after`` is the month before the first, where there was one."""

    months: tuple[str, ...]
    size: int
    begins_after: str


def verify_audit(folder: Path, public_key: bytes) -> AuditChain:
    """Verify every tile of every month, and how the months follow each other.

    Raises:
        NotFoundError: there is no month in the folder.
        CorruptError: a file is not what it must be, or a month does not follow the one before.
        StorageError: the disk refused.
    """
    months = sorted(one.name for one in folder.iterdir() if one.is_dir() and MONTH.match(one.name))
    if not months:
        raise NotFoundError(
            "the folder holds no audit", mend="name the folder that holds one for each month"
        )
    said: dict[str, Any] = {}
    begins_after, total = "", 0
    for month in months:
        name = f"{signer_name(public_key)}/audit/{month}"
        verifier = NoteVerifier(name=name, public_key=public_key)
        report = verify_log(folder / month, verifier, name)
        first = _first_entry(folder / month, verifier)
        if not said:
            begins_after = str(first.get("before", ""))
        elif {name: first.get(name) for name in said} != said:
            raise CorruptError(f"{month} does not begin with what was before", path=month)
        said = {"call": "month", "before": month, "size": report.size, "root": report.root.hex()}
        total += report.size
    return AuditChain(months=tuple(months), size=total, begins_after=begins_after)


def _first_entry(folder: Path, verifier: NoteVerifier) -> dict[str, Any]:
    tiles = read_head(folder, verifier, verifier.name).tiles
    if not tiles.size:
        return {}
    bundle = load_tiles(folder, tiles).bundle(0, min(TILE_WIDTH, tiles.size))
    return canonical.decode_object(bundle[0])
