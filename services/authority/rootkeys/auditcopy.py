"""A copy of the signer's audit on the daemon's disk: what it has told it can't tell otherwise.

    ledger/audit/<signer's name>/<year>-<month>/        the signer's log, under the signer's own key
    ledger/audit/<signer's name>/<year>-<month>.vkey    that key, as seipd-verify takes it
    ledger/audit/<signer's name>/<year>-<month>.other   a checkpoint that does not fit it

Each is a log of tiles that anybody can verify with no daemon. The methods block.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from itertools import islice, takewhile
from typing import TYPE_CHECKING, Any, Final

from services.base.ledger.fsck import verify_log
from services.base.ledger.log import TileLog
from services.base.ledger.note import NoteVerifier, parse_vkey
from services.base.storage.files import make_private_dir, write_atomic
from services.kernel import canonical
from services.kernel.errors import ConflictError, CorruptError, SeipdError, WireError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

PAGE: Final = 256
PATH: Final = "ledger/audit"
MONTH: Final = re.compile(r"[0-9]{4}-[0-9]{2}\Z")
QUIET_CALLS: Final = frozenset({"audit", "list", "month", "public_key"})
"""They change nothing; where nothing else was asked, nobody has to be told soon."""

_NAME: Final = re.compile(r"seipd-signer-[0-9a-f]{16}")


class AuditContradictionError(ConflictError):
    """The signer shows another audit than it did before; ``code`` says how."""

    default_code = "audit_rewritten"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditMonth:
    """One month of one signer, and the key that signs it."""

    name: str
    month: str
    verifier: NoteVerifier

    @property
    def path(self) -> str:
        """Where it lies, as people are told."""
        return f"{PATH}/{self.name}/{self.month}"


def audit_month(month: str, vkey: str) -> AuditMonth:
    """Read what a signer calls a month, and its key; both make a path.

    Raises:
        WireError: they are not as a signer calls them.
    """
    verifier = parse_vkey(vkey)
    name = signer_name(verifier.public_key)
    if not MONTH.fullmatch(month) or verifier.name != f"{name}/audit/{month}":
        raise WireError("the signer calls its audit by a name that is not its own")
    return AuditMonth(name=name, month=month, verifier=verifier)


def month_of_key(month: str, public_key: bytes) -> AuditMonth:
    """Return a month of the signer that has this key."""
    name = signer_name(public_key)
    verifier = NoteVerifier(name=f"{name}/audit/{month}", public_key=public_key)
    return AuditMonth(name=name, month=month, verifier=verifier)


def signer_name(public_key: bytes) -> str:
    """Return what a signer calls itself in its audit: it follows from the key that signs it."""
    return f"seipd-signer-{hashlib.sha256(public_key).hexdigest()[:16]}"


class AuditCopy:
    """See the module."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def months(self) -> list[AuditMonth]:
        """Return what is held, oldest first.

        Raises:
            CorruptError: a key is damaged.
        """
        found = []
        for signer in self._subfolders(self._folder, _NAME):
            for folder in self._subfolders(signer, MONTH):
                try:
                    vkey = _key_file(folder).read_text(encoding="ascii").strip()
                    found.append(audit_month(folder.name, vkey))
                except (OSError, ValueError, SeipdError) as error:
                    path = f"{PATH}/{signer.name}/{_key_file(folder).name}"
                    mend = f"move {PATH}/{signer.name} away: the signer tells it again"
                    raise CorruptError(f"{path}: {error}", path=path, mend=mend) from error
        return sorted(found, key=lambda one: (one.month, one.name))

    def held(self, month: AuditMonth) -> tuple[int, bytes]:
        """Return how many entries are held of a month, and the root over them."""
        if not self._place(month).exists():
            return 0, b""
        log = self._open(month)
        try:
            return log.size, log.root
        finally:
            log.close()

    def extend(self, month: AuditMonth, entries: Sequence[bytes], checkpoint: bytes) -> None:
        """Take the entries that follow, under the signer's checkpoint; durable on return.

        Raises:
            AuditContradictionError: ``audit_rewritten``: it signs another beginning than is held.
            SeipdError: the checkpoint is not the signer's, a file is damaged, or the disk refused.
        """
        place = self._place(month)
        if not place.exists():
            make_private_dir(self._folder)
            make_private_dir(place.parent)
            write_atomic(_key_file(place), f"{month.verifier.vkey}\n".encode())
        log = self._open(month)
        try:
            log.append(entries, checkpoint)
            log.publish()
        except ConflictError as error:
            raise self.contradicted(month, checkpoint) from error
        finally:
            log.close()

    def contradicted(self, month: AuditMonth, checkpoint: bytes) -> AuditContradictionError:
        """Keep the word that contradicts what is held; return what is to be said."""
        place = self._place(month)
        write_atomic(place.with_name(f"{month.month}.other"), checkpoint)
        return AuditContradictionError(
            f"AUDIT_REWRITTEN: the signer shows another audit of {month.month} than before; "
            f"what it signed lies in {month.path}.other",
            mend="compare the two: somebody has changed the signer's folder",
        )

    def require_anchored(self, month: AuditMonth, *, size: int, root: bytes, record: str) -> None:
        """Hold what is here of a month against what a record said of it.

        Raises:
            AuditContradictionError: ``audit_rolled_back``: fewer entries are here;
                ``audit_rewritten``: others.
            SeipdError: a file is damaged, or the disk refused.
        """
        have, _ = self.held(month)
        if have < size:
            raise AuditContradictionError(
                f"AUDIT_ROLLED_BACK: {have} entries are in {month.path}, "
                f"{size} were anchored by record {record}",
                code="audit_rolled_back",
                mend=f"bring {PATH}/{month.name} back from a backup; somebody has changed it, "
                "and the signer's folder",
            )
        log = self._open(month)
        try:
            if log.root_at(size) == root:
                return
        finally:
            log.close()
        raise AuditContradictionError(
            f"AUDIT_REWRITTEN: {month.path} does not begin as record {record} has anchored it",
            mend="somebody has changed this server's folder, and the signer's",
        )

    def is_quiet_since(self, month: AuditMonth, *, said: tuple[str, int]) -> bool:
        """Say whether a signer did nothing of weight since a month and a number of entries."""
        for one in reversed(self.months()):
            if one.name != month.name:
                continue
            for entry in self._backwards(one):
                if (one.month, entry["index"]) < said:
                    return True
                is_granted = entry.get("outcome", "granted") == "granted"
                if entry["call"] not in QUIET_CALLS or not is_granted:
                    return False
        return True

    def newest(self, *, since_ms: int, limit: int) -> list[dict[str, Any]]:
        """Return the newest entries, oldest first: as they are, with where each lies."""
        found: list[dict[str, Any]] = []
        last = ""
        for month in reversed(self.months()):
            if len(found) >= limit and month.month != last:
                break
            last = month.month
            newest = islice(self._backwards(month), limit)
            found += takewhile(lambda entry: entry["at_ms"] >= since_ms, newest)
        return sorted(found, key=lambda one: (one["at_ms"], one["log"], one["index"]))[-limit:]

    def verify(self) -> list[dict[str, Any]]:
        """Re-derive every tile; report each log's size, or what is wrong with it."""
        report = []
        for month in self.months():
            facts: dict[str, Any] = {"path": month.path, "vkey": month.verifier.vkey}
            try:
                size = verify_log(self._place(month), month.verifier, month.verifier.name).size
                facts |= {"good": True, "size": size}
            except CorruptError as error:
                facts |= {
                    "good": False,
                    "damaged": f"{month.path}/{error.path}",
                    "why": str(error),
                }
            report.append(facts)
        return report

    def _backwards(self, month: AuditMonth) -> Iterator[dict[str, Any]]:
        log = self._open(month)
        try:
            for stop in range(log.size, 0, -PAGE):
                start = max(stop - PAGE, 0)
                page = log.read(start, stop)
                for index in range(stop - 1, start - 1, -1):
                    entry = canonical.decode_object(page[index - start])
                    yield {**entry, "log": month.path, "index": index}
        finally:
            log.close()

    def _open(self, month: AuditMonth) -> TileLog:
        verifier = month.verifier
        return TileLog.open(
            self._place(month), origin=verifier.name, verifier=verifier, create=True
        )

    def _place(self, month: AuditMonth) -> Path:
        return self._folder / month.name / month.month

    @staticmethod
    def _subfolders(folder: Path, name: re.Pattern[str]) -> list[Path]:
        if not folder.exists():
            return []
        return [one for one in folder.iterdir() if one.is_dir() and name.fullmatch(one.name)]


def _key_file(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.vkey")
