"""Follows a signer's audit over the months, offline: each begins with what the one before came to.

Of a folder with one log of tiles a month: the signer's own, or the copy that the daemon keeps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from services.authority.rootkeys.auditcopy import MONTH, signer_name
from services.base.ledger.fsck import read_head, verify_log
from services.base.ledger.merkle import range_hash
from services.base.ledger.note import NoteVerifier
from services.base.ledger.store import load_tiles
from services.base.ledger.tiles import TILE_WIDTH
from services.kernel import canonical
from services.kernel.errors import CorruptError, InputError, NotFoundError, SeipdError
from services.kernel.ids import parse_key

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchored:
    """What a server said in its feed that an audit came to."""

    month: str
    size: int
    root: bytes


def anchors_in(value: object, public_key: bytes) -> list[Anchored]:
    """Return what was said of the signer with this key, of all that servers said.

    Raises:
        InputError: it is not what ``seipd ledger audit --anchors --json`` prints.
        NotFoundError: nobody said anything of that signer.
    """
    said = value.get("anchors") if isinstance(value, dict) else None
    if not isinstance(said, list):
        raise InputError("not what seipd ledger audit --anchors --json prints")
    try:
        found = [
            Anchored(
                month=str(one["month"]), size=int(one["size"]), root=bytes.fromhex(one["root"])
            )
            for one in said
            if parse_key(one["key"]) == public_key
        ]
    except (KeyError, TypeError, ValueError, SeipdError) as error:
        raise InputError(f"an anchor: {error!r:.80}") from error
    if not found:
        raise NotFoundError("no server has anchored an audit of that key")
    return found


def require_anchored(folder: Path, public_key: bytes, said: Anchored) -> None:
    """Hold a folder that ``verify_audit`` found good against what a server said of it.

    Raises:
        CorruptError: it has fewer entries, or others.
        StorageError: the disk refused.
    """
    name = f"{signer_name(public_key)}/audit/{said.month}"
    verifier = NoteVerifier(name=name, public_key=public_key)
    if not MONTH.match(said.month) or not (folder / said.month).is_dir():
        raise CorruptError(f"{said.month} was anchored, and is not here", path=said.month)
    tiles = read_head(folder / said.month, verifier, name).tiles
    if not 1 <= said.size <= tiles.size:
        raise CorruptError(
            f"{said.month} has {tiles.size} entries, {said.size} are anchored", path=said.month
        )
    reader = load_tiles(folder / said.month, tiles)
    if range_hash(0, said.size, reader.node) != said.root:
        raise CorruptError(f"{said.month} is not what was anchored", path=said.month)


def _first_entry(folder: Path, verifier: NoteVerifier) -> dict[str, Any]:
    tiles = read_head(folder, verifier, verifier.name).tiles
    if not tiles.size:
        return {}
    bundle = load_tiles(folder, tiles).bundle(0, min(TILE_WIDTH, tiles.size))
    return canonical.decode_object(bundle[0])
